"""Latency, energy and area of points, as arrays over settings and designs."""
