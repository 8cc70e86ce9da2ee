"""Design-space exploration of sparse-attention accelerators on measured language-model data.

The public names below are loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dse.profiles.store import load_profile as load_profile
    from dse.search.sweep import sweep as sweep
    from dse.space import load_space as load_space

__all__ = ["__version__", "load_profile", "load_space", "sweep"]

_HOME = {"load_profile": "dse.profiles.store", "load_space": "dse.space", "sweep": "dse.search.sweep"}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("dse")
        except PackageNotFoundError:  # a checkout that was never installed
            return "0+unknown"
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'dse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
