"""What reading a damaged `.npz` file can raise."""

from __future__ import annotations

import zipfile
import zlib
from typing import Final

UNREADABLE: Final = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def reason(error: Exception) -> str:
    """Why a file could not be read, in a few words; NumPy's own advice to unpickle it is not passed on."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"without {error.args[0]}" if error.args else "incomplete"
    return "not such an .npz file, or damaged"
