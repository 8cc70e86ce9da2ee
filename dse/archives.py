"""Arrays in `.npz` files, read with bounds and with their checksums verified.

Every member of such a file carries the CRC-32 of its bytes. `numpy.load` stops reading where an array ends, which may
be before that is looked at, and believes the sizes a file states; so the members are read here.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Container
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.inputs import is_file

MAX_BYTES: Final = 256 << 20
"""Most bytes that a file may unpack to unless it is said: those of measurements have a few million at most."""

MAX_MEMBERS: Final = 1000

PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Damaged(Exception):
    """A file that is not there or not what it should be; the text says why in a few words."""


class Arrays(dict[str, NDArray[Any]]):
    """Arrays by name; one that is missing is `Damaged`."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise Damaged(f"without {name}")


def read_arrays(
    path: Path,
    only: Container[str] | None = None,
    *,
    most: int = MAX_BYTES,
    packed: Container[int] = PACKED,
) -> Arrays:
    """The arrays of a file, all or `only` those of some names.

    Args:
        most: bytes that it may unpack to. packed: ways of packing that it may have.

    Raises:
        Damaged: it is no such file, or holds anything else.
    """
    if not is_file(path):
        raise Damaged("is a directory or a device" if path.exists() else "no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.header_offset == 0 for member in members) != bool(members):
                raise Damaged("something before the first array")
            size = sum(member.file_size for member in members)
            if size > most or len(members) > MAX_MEMBERS:
                raise Damaged(
                    f"unpacks to {size} bytes in {len(members)} arrays, which none of its kind does"
                )
            if any(member.compress_type not in packed for member in members):
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
