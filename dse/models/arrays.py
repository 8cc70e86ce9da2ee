"""Array types of the model code, and files seen as arrays of bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dse.errors import BadInput

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]


def mapped(path: Path, right: str) -> ByteArray:
    """The bytes of a file, read as they are looked at; `right`, what is needed instead, ends messages.

    Raises:
        BadInput: no such regular file, or an empty one.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for whoever writes it, for ever
            raise BadInput(f"{path}: is {'a directory' if path.is_dir() else 'a device or a pipe'}; {right}")
        data: ByteArray = np.memmap(path, dtype=np.uint8, mode="r")
        return data
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; {right}") from None
    except ValueError:  # an empty file cannot be mapped, a name with a NUL is none
        raise BadInput(f"{path}: the file is empty; {right}") from None
