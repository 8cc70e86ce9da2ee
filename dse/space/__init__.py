"""The parameter space: what a user writes, read strictly and resolved against a profile."""

from __future__ import annotations

from dse.space.definition import DENSE, AlgorithmSpec, Baseline, Limits, Space, WorkloadSpec
from dse.space.reading import find_space, load_space, parse_resolved
from dse.space.shipped import shipped_spaces

__all__ = [
    "DENSE",
    "AlgorithmSpec",
    "Baseline",
    "Limits",
    "Space",
    "WorkloadSpec",
    "find_space",
    "load_space",
    "parse_resolved",
    "shipped_spaces",
]
