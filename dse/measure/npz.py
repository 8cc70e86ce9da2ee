"""Results of measurements on disk: written whole or not at all; `dse.archives` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.errors import BadInput
from dse.outputs import atomic

FOLDERS: Final = ("shards", "tables", "dense")
"""What a working folder of measurements holds."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays, compressed, so that a reader sees all of them or the old file. Raises `BadInput`."""
    with writing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when the block ends well (`dse.outputs.atomic`).

    Raises:
        BadInput: the place cannot be written; what was there is as it was.
    """
    try:
        with atomic(path) as file:
            yield file
    except OSError as error:
        raise unwritable(path, error) from None


def make_folder(folder: Path) -> None:
    """Make a folder that results go to, unless it is there. Raises `BadInput` where that cannot be or be written."""
    try:
        if folder.is_symlink() and folder.name in FOLDERS:
            raise BadInput(f"{folder}: is a symbolic link, which a working folder never holds; remove it")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"{folder}: is not writable; choose another place with --output")


def unwritable(path: Path, error: OSError) -> BadInput:
    """What to say where a result cannot be kept."""
    why = (error.strerror or str(error) or "error").lower()
    return BadInput(
        f"{path}: cannot be written: {why}; what is finished stays, the same command goes on from there"
    )
