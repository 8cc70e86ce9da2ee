"""What reading a damaged `.npz` file can raise."""

from __future__ import annotations

import zipfile
import zlib
from typing import Final

UNREADABLE: Final = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
