"""The spaces that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_spaces() -> dict[str, Path]:
    """Name -> file, sorted; installed they lie in the package, in a checkout in ``spaces`` beside it."""
    package = Path(str(resources.files("dse")))
    for folder in (package / "spaces", package.parent / "spaces"):
        found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        if found:
            return found
    return {}
