"""Attention algorithms under one contract, and the registry that finds them by name.

An installed package adds its own through the entry-point group ``dse.algorithms``, a command line with
``--plugin module:Class``.
"""

from __future__ import annotations

from collections.abc import Mapping

from dse.algorithms.a3 import A3
from dse.algorithms.adore import Adore
from dse.algorithms.contract import Algorithm
from dse.algorithms.dense import Dense
from dse.algorithms.mnnfast import MnnFast
from dse.algorithms.pages import Quest
from dse.algorithms.plugins import installed, load_plugin
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
    Adore,
    A3,
    MnnFast,
    Quest,
    OracleTopK,
    OracleThreshold,
    SlidingWindow,
)


_PLUGINS: dict[str, type[Algorithm]] = {}


def registry() -> dict[str, type[Algorithm]]:
    """Every known algorithm by name: built in, named on the command line, or of an installed package."""
    built_in = {cls.name: cls for cls in BUILT_IN}
    return {**{n: c for n, c in installed()[0].items() if n not in built_in}, **_PLUGINS, **built_in}


def register(path: str) -> type[Algorithm]:
    """Make the algorithm at ``module:Class`` known by its name in this process.

    Raises:
        BadInput: it cannot be imported, is no algorithm, or has a built-in one's name.
    """
    cls = load_plugin(path)
    if any(cls.name == other.name for other in BUILT_IN):
        raise BadInput(f"--plugin {path}: {cls.name!r} is a built-in algorithm; give yours another name")
    _PLUGINS[cls.name] = cls
    return cls


def broken_plugins() -> dict[str, str]:
    """Entry points that cannot be used -> why; a name that is built in is one of them."""
    found, broken = installed()
    taken = {cls.name for cls in BUILT_IN} & set(found)
    return broken | {name: f"{found[name].__module__}: {name!r} is a built-in algorithm" for name in taken}


def algorithm_class(name: str, where: str = "algorithm") -> type[Algorithm]:
    """The class called `name`, or `BadInput`."""
    known = registry()
    if name in known:
        return known[name]
    if ":" in name:
        raise BadInput(
            f"{where}: unknown algorithm {name!r}; an algorithm goes by its name: load it with --plugin {name}"
        )
    if name in broken_plugins():
        raise BadInput(f"{where}: {broken_plugins()[name]}")
    raise BadInput(f"{where}: unknown algorithm {name!r}; {nearest(name, known)}")


def build(name: str, knobs: Mapping[str, object] | None = None, where: str = "") -> Algorithm:
    """Algorithm `name` at a knob setting."""
    return algorithm_class(name, where or "algorithm")(knobs, where)
