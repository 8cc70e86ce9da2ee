"""Searching a space: the exhaustive sweep and its exact front."""
