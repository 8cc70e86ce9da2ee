"""Arrays of measurements on disk: written whole or not at all, read with bounds and with their checksums verified.

Every member of an `.npz` file carries the CRC-32 of its bytes. `numpy.load` stops reading where an array ends, which
may be before that is looked at, and believes the sizes a file states; so the members are read here.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.errors import BadInput
from dse.inputs import is_file
from dse.outputs import atomic

MAX_BYTES: Final = 256 << 20
"""Most bytes that a file may unpack to; shards, tables, scales and controllers have a few million at most."""

MAX_MEMBERS: Final = 1000

FOLDERS: Final = ("shards", "tables", "dense")
"""What a working folder of measurements holds."""

PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Damaged(Exception):
    """A file that is not there or not what it should be; the text says why in a few words."""


class Arrays(dict[str, NDArray[Any]]):
    """Arrays by name; one that is missing is `Damaged`."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise Damaged(f"without {name}")


def read_arrays(path: Path, only: Container[str] | None = None) -> Arrays:
    """The arrays of a file, all or `only` those of some names. Raises `Damaged`."""
    if not is_file(path):
        raise Damaged("is a directory or a device" if path.exists() else "no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.header_offset == 0 for member in members) != bool(members):
                raise Damaged("something before the first array")
            size = sum(member.file_size for member in members)
            if size > MAX_BYTES or len(members) > MAX_MEMBERS:
                raise Damaged(
                    f"unpacks to {size} bytes in {len(members)} arrays, which none of its kind does"
                )
            if any(member.compress_type not in PACKED for member in members):
                raise Damaged("packed in a way that NumPy never uses")
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) != len(names):
                raise Damaged("an array twice")
            return Arrays({
                name: _array(archive.read(one))
                for name, one in zip(names, members, strict=True)
                if only is None or name in only
            })  # fmt: skip
    except OSError as error:
        raise Damaged((error.strerror or "cannot be read").lower()) from None
    except Damaged:
        raise
    except Exception:  # what the readers of zip and npy raise on damaged bytes is not documented
        raise Damaged("not such an .npz file, or damaged") from None


def _array(content: bytes) -> NDArray[Any]:
    file = BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    place = file.tell()
    if dtype.hasobject or min(shape, default=0) < 0:
        raise Damaged("holds Python objects, which could run code and are never read")
    if math.prod(shape) * dtype.itemsize != len(content) - place:
        raise Damaged("an array that is shorter or longer than it says")
    flat = np.frombuffer(content, dtype, offset=place)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


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
