"""Names of files and folders that are typed: refused before anything is computed where they cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from dse.errors import BadInput

OWN: Final = frozenset({"space.toml", "front.csv", "run.json", "trials.csv", "trials.log"})
"""Files of a run directory that only `dse sweep` and `dse study` write."""


class PlaceType(click.Path):
    """A path of printable characters, not empty: an unset variable is no name, and neither moves a terminal's cursor."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # as of `click.Path`
        text = str(value)
        if not text.strip():
            self.fail(f"found {text!r}; must be the name of a file or folder", param, ctx)
        if not text.isprintable():
            self.fail(f"found {text!r}; must have printable characters only", param, ctx)
        return super().convert(value, param, ctx)


PLACE: Final = PlaceType(path_type=Path)
"""As a `Path`."""

NAME: Final = PlaceType(path_type=str)
"""As text: a path, or a name that is shipped."""


def check_file(path: Path) -> None:
    """Raise BadInput unless a file may be written there; writes nothing.

    A file that is there is replaced, except one that a run consists of. What is no file is never replaced: renaming a new
    file over a device would take the device away.
    """
    try:
        there, regular, folder = path.exists(), path.is_file(), path.is_dir()
    except OSError as error:  # a name longer than the system allows
        raise BadInput(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from None
    if folder:
        raise BadInput(f"{path}: is a directory; name a file in it")
    if there and not regular:
        raise BadInput(f"{path}: is a device or a pipe; name a file")
    if there and path.name in OWN and (path.parent / "space.toml").is_file():
        raise BadInput(
            f"{path}: belongs to the run in {path.parent}; nothing was overwritten, choose another file with --output"
        )
