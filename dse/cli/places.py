"""Names of files and folders that are typed: refused before anything is computed where they cannot be meant."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, Final

import click

from dse.errors import BadInput

OWN: Final = frozenset({"space.toml", "front.csv", "run.json", "trials.csv", "trials.log"})
"""Files of a run directory that only `dse sweep` and `dse study` write."""


BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of text, so that a name reads as another one."""


def is_tame(name: str) -> bool:
    """Whether a name may be a file's: without control characters, ends of lines, and what turns text around.

    Every other name that a file system holds is somebody's: with spaces of any width, joined emoji, bytes that are no
    UTF-8 (which Python holds as U+DC80 to U+DCFF). Messages spell out what cannot be printed.
    """
    return name.isprintable() or not any(
        c in BIDI
        or (kind := unicodedata.category(c)) in ("Cc", "Zl", "Zp")
        or (kind == "Cs" and not "\udc80" <= c <= "\udcff")
        for c in name
    )


class PlaceType(click.Path):
    """A path whose name `is_tame`, not empty: an unset variable is no name."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # as of `click.Path`
        text = str(value)
        if not text.strip():
            self.fail(f"found {text!r}; must be the name of a file or folder", param, ctx)
        if not is_tame(text):
            self.fail(f"found {text!r}; must be printable", param, ctx)
        return super().convert(value, param, ctx)


PLACE: Final = PlaceType(path_type=Path)
"""As a `Path`."""

NAME: Final = PlaceType(path_type=str)
"""As text: a path, or a name that is shipped."""


def check_file(path: Path) -> None:
    """Raise BadInput unless a file may be written there; writes nothing.

    A file that is there is replaced, except one that a run consists of. What is no file is never replaced: renaming a new
    file over a device or a link would take it away, and leave what the link leads to as it was.
    """
    try:
        there, regular, folder = path.exists(), path.is_file(), path.is_dir()
    except OSError as error:  # a name longer than the system allows
        raise BadInput(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from None
    if folder:
        raise BadInput(f"{path}: is a directory; name a file in it")
    if path.is_symlink() and (regular or not there):
        raise BadInput(f"{path}: is a link; name the file it leads to, or remove it")
    if there and not regular:
        raise BadInput(f"{path}: is a device or a pipe; name a file")
    if there and path.name in OWN and (path.parent / "space.toml").is_file():
        raise BadInput(
            f"{path}: belongs to the run in {path.parent}; nothing was overwritten, choose another file with --output"
        )
