"""Attention algorithms under one contract, and the registry that finds them by name.

An installed package adds its own through the entry-point group ``dse.algorithms``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from dse.algorithms.a3 import A3
from dse.algorithms.contract import Algorithm
from dse.algorithms.dense import Dense
from dse.algorithms.mnnfast import MnnFast
from dse.algorithms.pages import Quest
from dse.algorithms.references import OracleThreshold, OracleTopK, SlidingWindow
from dse.algorithms.spatten import SpAtten
from dse.algorithms.token_picker import TokenPicker
from dse.algorithms.top_theta import TopTheta
from dse.errors import BadInput, nearest

BUILT_IN: tuple[type[Algorithm], ...] = (
    Dense,
    TokenPicker,
    SpAtten,
    TopTheta,
    A3,
    MnnFast,
    Quest,
    OracleTopK,
    OracleThreshold,
    SlidingWindow,
)


@cache
def registry() -> dict[str, type[Algorithm]]:
    """Every known algorithm by name; the built-in ones cannot be replaced."""
    found: dict[str, type[Algorithm]] = {}
    for point in entry_points(group="dse.algorithms"):
        loaded = point.load()
        found[loaded.name] = loaded
    found.update({cls.name: cls for cls in BUILT_IN})
    return found


def algorithm_class(name: str, where: str = "algorithm") -> type[Algorithm]:
    """The class called `name`, or `BadInput`."""
    try:
        return registry()[name]
    except KeyError:
        raise BadInput(f"{where}: unknown algorithm {name!r}; {nearest(name, registry())}") from None


def build(name: str, knobs: Mapping[str, object] | None = None, where: str = "") -> Algorithm:
    """Algorithm `name` at a knob setting."""
    return algorithm_class(name, where or "algorithm")(knobs, where)
