"""Charts of runs. matplotlib is imported by the functions that draw, never on import."""
