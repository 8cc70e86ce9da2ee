"""Finished pieces of a sweep on disk, so that a sweep that was killed goes on where it stopped.

A piece is one file, written beside its place and moved there, so it is whole or absent. What the pieces belong
to (space, profile, versions, how the sweep was cut) stands in a header; pieces of anything else are never mixed
in: the difference is named and nothing is touched.

A piece is read as strictly as what a stranger hands in: one that is damaged (its archive has a CRC-32 of every
array) or of another form counts as not done. What no reading can tell is a whole piece made up to leave points
out; every row it does name is priced again before it is shown.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import shutil
import zipfile
from collections.abc import Mapping
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.archives import read_arrays
from dse.errors import BadInput
from dse.inputs import MAX_TOML, parse_json, read_text
from dse.outputs import atomic
from dse.search.shards import Found

FOLDER: Final = ".pieces"
HEADER: Final = "header.json"
ARRAYS: Final = ("costs", "area", "energy", "setting", "design", "count")
FLOATS: Final = ("costs", "area", "energy")
COUNTS: Final = ("evaluated", "infeasible")
NUMBERS: Final = "numbers"
MAX_PIECE: Final = 1 << 30
"""Most bytes of a piece; a row of a front has about a hundred."""

_NAME = re.compile(r"[0-9]{6,9}\.npz")
PACKAGES: Final = ("algorithms", "cost", "hardware", "profiles", "search", "space")


def code_digest() -> str:
    """SHA-256 over the source of everything that decides a result: a version number misses an edited file."""
    digest = hashlib.sha256()
    root = files("dse")
    for package in PACKAGES:
        for entry in sorted((root / package).iterdir(), key=lambda e: e.name):
            if entry.name.endswith(".py"):
                digest.update(entry.name.encode() + entry.read_bytes())
    return digest.hexdigest()


class Pieces:
    """The folder of finished pieces inside a run directory.

    Args:
        directory: of the run; None keeps nothing.
        content: name -> what the pieces depend on, named in the message where it differs.

    Raises:
        BadInput: the folder holds pieces of something else.
    """

    def __init__(self, directory: Path | None, content: Mapping[str, str]) -> None:
        self.folder = None if directory is None else directory / FOLDER
        if self.folder is None:
            return
        try:
            self._open(self.folder, dict(content))
        except OSError as error:
            raise BadInput(
                f"{self.folder}: cannot be written: {error.strerror}; choose another directory with --output"
            ) from None

    @staticmethod
    def _open(folder: Path, content: dict[str, str]) -> None:
        header = folder / HEADER
        if header.is_file():
            try:
                there = parse_json(str(header), read_text(header, MAX_TOML, ""), "")
            except BadInput:
                there = None
            if isinstance(there, dict):
                for name, value in content.items():
                    if there.get(name) != value:
                        raise BadInput(
                            f"{folder.parent}: holds an unfinished sweep with another {name} "
                            f"({_short(there.get(name))}, not {_short(value)}); nothing was mixed: --fresh starts "
                            "over, or choose another directory with --output"
                        )
                return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        _write(header, (json.dumps(content, indent=2) + "\n").encode())

    def load(self) -> dict[int, Found]:
        """Number -> piece, of all that can be read; a damaged one counts as not done."""
        if self.folder is None:
            return {}
        found = {}
        for path in sorted(self.folder.glob("*.npz")):
            if _NAME.fullmatch(path.name):
                piece = _read(path)
                if piece is not None:
                    found[int(path.stem)] = piece
        return found

    def save(self, number: int, piece: Found) -> None:
        """Write a finished piece.

        Raises:
            BadInput: the disk does not take it.
        """
        if self.folder is None:
            return
        numbers: dict[str, Any] = {name: getattr(piece, name) for name in COUNTS}
        numbers |= {"broken": piece.broken, "excluded": piece.excluded}
        numbers["fastest"] = [[k, v] for k, v in piece.fastest.items() if math.isfinite(v)]
        numbers["closest"] = [piece.closest[0] if math.isfinite(piece.closest[0]) else None, piece.closest[1]]
        buffer = BytesIO()
        arrays: dict[str, Any] = {name: getattr(piece, name) for name in ARRAYS}
        np.savez(buffer, **arrays | {NUMBERS: np.array(json.dumps(numbers))})
        try:
            _write(self.folder / f"{number:06d}.npz", buffer.getvalue())
        except OSError as error:
            raise BadInput(
                f"{self.folder}: cannot write: {(error.strerror or 'error').lower()}; what is there stays good"
            ) from None


def clear(directory: Path) -> None:
    """Remove the pieces of a finished run, and the directory if nothing else is in it."""
    if (directory / FOLDER).is_dir():
        shutil.rmtree(directory / FOLDER, ignore_errors=True)
        with contextlib.suppress(OSError):
            directory.rmdir()


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)


def _read(path: Path) -> Found | None:
    """The piece in a file; None where it is not one that `Pieces.save` could have written."""
    try:
        # Saved as they are: nothing unpacks to more than the file has.
        arrays = read_arrays(path, most=MAX_PIECE, packed=(zipfile.ZIP_STORED,))
        text = arrays.pop(NUMBERS)
        if arrays.keys() != set(ARRAYS) or text.dtype.kind != "U" or text.shape != ():
            return None
        return _piece(parse_json("", str(text), ""), arrays)
    except Exception:  # besides `Damaged`: numbers of another form fail in ways of their own
        return None


def _piece(numbers: Any, arrays: Mapping[str, Any]) -> Found | None:
    rows = arrays["costs"].shape[0]
    for name, array in arrays.items():
        right = np.float64 if name in FLOATS else np.intp
        if array.dtype != right or array.shape[:1] != (rows,) or array.ndim != 1 + (name == "costs"):
            return None
    # A maximised cost is negative, an infinite one never gets on a front.
    if not np.isfinite(arrays["costs"]).all() or (rows and arrays["count"].min() < 1):
        return None
    low, reached = numbers["closest"]
    fastest = {k: v for k, v in numbers["fastest"] if type(k) is int and abs(k) < 1 << 62}
    measured = [*fastest.values(), *reached.values(), *([] if low is None else [low])]
    if len(fastest) != len(numbers["fastest"]) or any(type(v) not in (int, float) for v in measured):
        return None
    if any(v <= 0 for v in fastest.values()):
        return None
    found = Found(
        **arrays,
        **{name: numbers[name] for name in COUNTS},
        broken=numbers["broken"],
        excluded=numbers["excluded"],
        fastest=fastest,
        closest=(math.inf if low is None else low, reached),
    )
    counts = [found.evaluated, found.infeasible, *found.broken.values(), *found.excluded.values()]
    return found if all(type(n) is int and n >= 0 for n in counts) else None


def _short(text: object) -> str:
    return str(text)[:12]
