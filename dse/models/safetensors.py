"""Weights in safetensors files, with NumPy alone.

The format (https://github.com/huggingface/safetensors#format): the length of a JSON header as a little-endian
64-bit number, the header with every tensor's type, shape and place, then the bytes. NumPy has no bfloat16: its
bits are the upper half of a float32's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.inputs import parse_json, read_text
from dse.models.arrays import FloatArray, mapped

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
TYPES: Final[Mapping[str, str]] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
"""Types that are read, as NumPy names them."""

BYTES: Final[Mapping[str, int]] = {
    **{kind: np.dtype(form).itemsize for kind, form in TYPES.items()},
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1},
    **{"I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "C64": 8},
}
"""Types of whole bytes that the format knows, and the size of one number."""

MAX_HEADER: Final = 10 << 20
"""Most bytes of a header: 400 for each tensor that `dse.inputs` admits."""

MAX_JSON: Final = 32 << 20
MAX_DIMENSIONS: Final = 8
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
RIGHT: Final = "a safetensors file is needed"


@dataclass(frozen=True)
class _Place:
    kind: str
    shape: tuple[int, ...]
    start: int  # from the beginning of the file
    size: int


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; BadInput where the file cannot be read or holds something else."""
    value = parse_json(str(path), read_text(path, MAX_JSON, "the model needs it"), "the model needs it")
    if not isinstance(value, dict):
        raise BadInput(f"{path}: holds a {type(value).__name__}; a JSON object would be right")
    return value


class SafetensorsFile:
    """One file: where its tensors are, and their values on request.

    As the format has it, tensors follow each other without gaps and fill the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = mapped(path, RIGHT)
        length = int.from_bytes(bytes(self._data[:8]), "little")
        if len(self._data) < 8 or length > len(self._data) - 8:
            raise BadInput(
                f"{path}: the header does not fit into the file; a complete safetensors file is needed"
            )
        if length > MAX_HEADER:
            raise BadInput(f"{path}: a header of {length} bytes; at most {MAX_HEADER} are allowed")
        try:
            text = bytes(self._data[8 : 8 + length]).decode("utf-8")
            if not text.startswith("{"):
                raise ValueError("no object")
            header = parse_json(f"{path}: header", text, RIGHT)
            notes = header.pop("__metadata__", None)
            if notes is not None and not all(isinstance(note, str) for note in notes.values()):
                raise ValueError("notes")
            self.places = {name: self._place(name, entry, 8 + length) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(f"{path}: its header is damaged; {RIGHT}") from None
        self._check_tiling(8 + length)

    def _place(self, name: str, entry: Any, base: int) -> _Place:
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in (first, last, *shape)):
            raise ValueError(name)
        kind = entry["dtype"]
        if kind not in BYTES:
            raise BadInput(f"{self.path}: tensor {name!r}: dtype: found {kind!r}; valid: {', '.join(BYTES)}")
        if base + last > len(self._data) or last - first != prod(shape) * BYTES[kind]:
            raise BadInput(f"{self.path}: tensor {name!r} does not fit into the file; fetch it again")
        return _Place(kind, shape, base + first, last - first)

    def _check_tiling(self, base: int) -> None:
        end = base
        for name, place in sorted(self.places.items(), key=lambda item: (item[1].start, item[1].size)):
            if place.start != end:
                raise BadInput(
                    f"{self.path}: tensor {name!r} begins at byte {place.start}, the one before ends at {end}; {RIGHT}"
                )
            end = place.start + place.size
        if end != len(self._data):
            raise BadInput(
                f"{self.path}: its tensors end at byte {end} of {len(self._data)}; fetch it again, {RIGHT}"
            )

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
            with np.errstate(over="ignore"):  # what single precision cannot carry is found not to be finite
                wide = raw.astype(np.float32)
        return wide.reshape(place.shape)


def _weight_map(path: Path) -> dict[str, str]:
    """The files that an index names, by tensor."""
    where = read_json(path).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise BadInput(f"{path}: weight_map: missing; tensor names with their files would be right")
    for name in set(where.values()):
        if Path(name).name != name or name == ".." or not name.endswith(".safetensors"):
            raise BadInput(f"{path}: weight_map: {name!r} is no safetensors file of this directory")
    return where


class Checkpoint:
    """All weights of a Hugging Face model directory, in one file or in several with an index.

    Raises:
        BadInput: no safetensors files, a damaged one, or an index that does not fit them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        where: dict[str, str] = {}
        if (folder / SINGLE).exists():  # transformers takes it too where there is an index beside it
            names = [SINGLE]
        elif (folder / INDEX).exists():
            where = _weight_map(folder / INDEX)
            names = sorted(set(where.values()))
        else:
            pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
            why = f"{pickled[0]} is a pickle, which can run code and is never read; " if pickled else ""
            raise BadInput(f"{folder}: has no {SINGLE} or {INDEX}; {why}a safetensors model is needed")
        self.files = [SafetensorsFile(folder / name) for name in names]
        self.names: dict[str, SafetensorsFile] = {}
        for file in self.files:
            for name in file.places:
                if name in self.names:
                    raise BadInput(f"{file.path}: tensor {name!r} is in {self.names[name].path.name} too")
                self.names[name] = file
        for name, wanted in where.items():
            if name not in self.names or self.names[name].path.name != wanted:
                raise BadInput(
                    f"{folder / INDEX}: weight_map: {name!r} is not in {wanted}; fetch the model again"
                )

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
        with np.errstate(invalid="ignore"):
            total = values.sum(dtype=np.float64)
        if not np.isfinite(total):
            raise BadInput(f"{file.path}: tensor {name!r} is not finite everywhere; the file is damaged")
        return values
