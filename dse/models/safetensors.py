"""Weights in safetensors files, with NumPy alone.

The format (https://github.com/huggingface/safetensors#format): the length of a JSON header as a little-endian
64-bit number, the header with every tensor's type, shape and place, then the bytes. NumPy has no bfloat16: its
bits are the upper half of a float32's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import ByteArray, FloatArray

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
TYPES: Final[Mapping[str, str]] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


@dataclass(frozen=True)
class _Place:
    kind: str
    shape: tuple[int, ...]
    start: int  # from the beginning of the file
    size: int


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; BadInput where the file cannot be read or holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; the model needs it") from None
    except ValueError as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: holds a {type(value).__name__}; a JSON object would be right")
    return value


class SafetensorsFile:
    """One file: where its tensors are, and their values on request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._data: ByteArray = np.memmap(path, dtype=np.uint8, mode="r")
        except ValueError:
            raise BadInput(f"{path}: the file is empty; a safetensors file is needed") from None
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}; a safetensors file is needed") from None
        length = int.from_bytes(bytes(self._data[:8]), "little")
        if len(self._data) < 8 or length > len(self._data) - 8:
            raise BadInput(
                f"{path}: the header does not fit into the file; a complete safetensors file is needed"
            )
        try:
            header = json.loads(bytes(self._data[8 : 8 + length]))
            header.pop("__metadata__", None)
            self.places = {name: self._place(name, entry, 8 + length) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(f"{path}: its header is damaged; a safetensors file is needed") from None

    def _place(self, name: str, entry: Any, base: int) -> _Place:
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if not all(type(n) is int and n >= 0 for n in (first, last, *shape)):
            raise ValueError(name)
        kind = entry["dtype"]
        if base + last > len(self._data) or (
            kind in TYPES and last - first != prod(shape) * np.dtype(TYPES[kind]).itemsize
        ):
            raise BadInput(f"{self.path}: tensor {name!r} does not fit into the file; fetch it again")
        return _Place(str(kind), shape, base + first, last - first)

    @cached_property
    def sha256(self) -> str:
        """Checksum of the whole file."""
        return hashlib.sha256(self._data.data).hexdigest()

    def tensor(self, name: str) -> FloatArray:
        """The values as float32 (a copy); BadInput where they are no floating-point numbers."""
        place = self.places[name]
        if place.kind not in TYPES:
            raise BadInput(
                f"{self.path}: tensor {name!r} is {place.kind}; only {', '.join(TYPES)} are supported"
            )
        raw = np.asarray(self._data[place.start : place.start + place.size]).view(TYPES[place.kind])
        if place.kind == "BF16":
            wide: FloatArray = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            wide = raw.astype(np.float32)
        return wide.reshape(place.shape)


class Checkpoint:
    """All weights of a Hugging Face model directory, in one file or in several with an index.

    Raises:
        BadInput: no safetensors files, a damaged one, or an index that does not fit them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / INDEX).is_file():
            where = read_json(folder / INDEX).get("weight_map")
            if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
                raise BadInput(
                    f"{folder / INDEX}: weight_map: missing; tensor names with their files would be right"
                )
            names = sorted(set(where.values()))
            if strange := [n for n in names if Path(n).name != n]:
                raise BadInput(f"{folder / INDEX}: weight_map: {strange[0]!r} is no file of this directory")
        elif (folder / SINGLE).is_file():
            names = [SINGLE]
        else:
            pickled = [p.name for p in folder.glob("*.bin")]
            why = f"{pickled[0]} is a pickle, which can run code and is never read; " if pickled else ""
            raise BadInput(f"{folder}: has no {SINGLE} or {INDEX}; {why}a safetensors model is needed")
        self.files = [SafetensorsFile(folder / name) for name in names]
        self.names = {name: file for file in self.files for name in file.places}

    @cached_property
    def sha256(self) -> str:
        """Of the only file; with several, of their checksums in the order of their names."""
        if len(self.files) == 1:
            return self.files[0].sha256
        return hashlib.sha256("".join(f.sha256 for f in self.files).encode()).hexdigest()

    def tensor(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """A tensor as float32; BadInput unless it is there, of `shape` and finite."""
        file = self.names.get(name)
        if file is None:
            raise BadInput(f"{self.folder}: tensor {name!r} is missing; the model needs it")
        found = file.places[name].shape
        if found != shape:
            raise BadInput(f"{file.path}: tensor {name!r} has shape {found}; {shape} would be right")
        values = file.tensor(name)
        if not np.isfinite(values.sum(dtype=np.float64)):
            raise BadInput(f"{file.path}: tensor {name!r} is not finite everywhere; the file is damaged")
        return values
