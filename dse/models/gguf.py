"""GGUF files: a bounds-checked header parser, and tensors dequantised to float32.

The format is specified in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is parsed
here, because the reference reader builds one NumPy view per string and takes seconds on a large vocabulary;
the quantisation formats are left to `gguf.quants`, which follows llama.cpp.

Whatever the file holds, the outcome is a parsed file or `BadInput`: every length is compared with the bytes
that remain before anything of that length is read or allocated.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import FloatArray, mapped

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 1 << 20
MAX_HEADER: Final = 64 << 20
"""Most bytes of everything before the tensors' values; large vocabularies take 20 million."""
MAX_ENTRIES: Final = 1 << 21
"""Most elements of all arrays of the metadata together; large vocabularies have 900,000."""
MAX_TENSORS: Final = 1 << 16
MAX_KEYS: Final = 1 << 12

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[Mapping[int, struct.Struct]] = {
    code: struct.Struct("<" + form)
    for code, form in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
# The least a metadata entry (key length, a type, a byte) and a tensor entry (name length, one dimension,
# type, offset) can occupy: no honest count exceeds what the file has room for.
_LEAST_ENTRY: Final = 8 + 4 + 1
_LEAST_TENSOR: Final = 8 + 4 + 8 + 4 + 8

_T = TypeVar("_T", bool, int, float, str, list[Any])


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. `shape` is in NumPy order (rows first), `offset` counts from the file's start."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size_bytes: int


def _reference() -> Any:
    """llama.cpp's own Python package: block sizes and dequantisation of every tensor type."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise BadInput("package gguf is not installed; run `pip install '.[lm]'` in the checkout") from None
    return gguf


class _Cursor:
    """Reads little-endian values and never past the end."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data = data[:MAX_HEADER]
        self.whole = len(data) <= MAX_HEADER
        self.path = path
        self.at = 0
        self.entries = 0

    @property
    def remaining(self) -> int:
        return len(self.data) - self.at

    def bad(self, found: str) -> BadInput:
        return BadInput(f"{self.path}: {found} at byte {self.at}; a complete GGUF file is needed")

    def need(self, size: int, what: str) -> None:
        if size > self.remaining:
            short = "remain" if self.whole else f"remain of the {MAX_HEADER} that a header may have"
            raise self.bad(f"{what} needs {size} bytes, {self.remaining} {short}")

    def scalar(self, form: struct.Struct, what: str) -> Any:
        if form.size > len(self.data) - self.at:
            self.need(form.size, what)
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def string(self, what: str) -> str:
        size = self.scalar(_U64, what)
        if size > len(self.data) - self.at:
            self.need(size, what)
        raw = self.data[self.at : self.at + size]
        try:
            text = str(raw, "utf-8")
        except UnicodeDecodeError:
            raise self.bad(f"{what} is not UTF-8") from None
        self.at += size
        return text

    def value(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            return self.array(what)
        form = _SCALARS.get(kind)
        if form is None:
            raise self.bad(f"{what} has unknown value type {kind}")
        return self.scalar(form, what)

    def array(self, what: str) -> list[Any]:
        kind = self.scalar(_U32, what)
        count = self.scalar(_U64, what)
        self.entries += count
        if count <= self.remaining and self.entries > MAX_ENTRIES:
            raise self.bad(f"{what}: more than {MAX_ENTRIES} elements in arrays")
        if kind == _STRING:
            self.need(count * _U64.size, what)
            return [self.string(what) for _ in range(count)]
        form = _SCALARS.get(kind)
        if form is None:  # arrays of arrays are legal on paper, no model uses them, and they nest
            raise self.bad(f"{what} is an array of unsupported value type {kind}")
        self.need(count * form.size, what)
        block = self.data[self.at : self.at + count * form.size]
        self.at += count * form.size
        values: list[Any] = np.frombuffer(block, dtype=form.format).tolist()
        return values


class GgufFile:
    """A parsed GGUF file: `metadata`, `tensors` (by name) and their values on request.

    Raises:
        BadInput: the file cannot be read, is not a GGUF file of version 2 or 3, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = mapped(path, "a readable GGUF file is needed")
        cursor = _Cursor(self._data.data, path)
        if bytes(cursor.data[:4]) != MAGIC:
            raise BadInput(
                f"{path}: starts with {bytes(cursor.data[:4])!r}; a GGUF file starts with {MAGIC!r}"
            )
        cursor.at = 4
        self.version: int = cursor.scalar(_U32, "version")
        if self.version not in VERSIONS:
            raise cursor.bad(f"version {self.version} (little-endian versions 2 and 3 are supported)")
        tensors = cursor.scalar(_U64, "tensor count")
        entries = cursor.scalar(_U64, "metadata count")
        cursor.need(entries * _LEAST_ENTRY, f"a count of {entries} metadata entries")
        if entries > MAX_KEYS or tensors > MAX_TENSORS:
            raise cursor.bad(
                f"{entries} metadata entries and {tensors} tensors, at most {MAX_KEYS} and {MAX_TENSORS} are allowed,"
            )
        self.metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = cursor.string("a metadata key")
            if key in self.metadata:
                raise cursor.bad(f"metadata key {key!r} occurs twice")
            self.metadata[key] = cursor.value(cursor.scalar(_U32, key), key)
        cursor.need(tensors * _LEAST_TENSOR, f"a count of {tensors} tensors")
        self.tensors = self._tensors(cursor, tensors)

    def _tensors(self, cursor: _Cursor, count: int) -> dict[str, TensorInfo]:
        sizes = {int(kind): size for kind, size in _reference().constants.GGML_QUANT_SIZES.items()}
        read = []
        for _ in range(count):
            name = cursor.string("a tensor name")
            dimensions = cursor.scalar(_U32, name)
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                raise cursor.bad(f"tensor {name!r} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
            shape = tuple(cursor.scalar(_U64, name) for _ in range(dimensions))[::-1]
            kind = cursor.scalar(_U32, name)
            offset = cursor.scalar(_U64, name)
            if kind not in sizes:
                raise cursor.bad(f"tensor {name!r} has unknown type {kind}")
            block, block_bytes = sizes[kind]
            if prod(shape) == 0 or shape[-1] % block:
                raise cursor.bad(
                    f"tensor {name!r} has shape {shape}, its rows must be whole blocks of {block}"
                )
            read.append(TensorInfo(name, shape, kind, offset, prod(shape) // block * block_bytes))
        alignment = self.get("general.alignment", 32)
        if alignment & (alignment - 1) or not 1 <= alignment <= MAX_ALIGNMENT:
            raise cursor.bad(f"alignment {alignment} is not a power of two")
        start = -(-cursor.at // alignment) * alignment
        out: dict[str, TensorInfo] = {}
        end = 0
        for t in sorted(read, key=lambda t: t.offset):
            if t.name in out:
                raise cursor.bad(f"tensor {t.name!r} occurs twice")
            if t.offset % alignment or t.offset < end:
                raise cursor.bad(f"tensor {t.name!r} is misaligned or overlaps another")
            end = t.offset + t.size_bytes
            if start + end > len(self._data):
                raise BadInput(
                    f"{self.path}: tensor {t.name!r} ends at byte {start + end} of {len(self._data)}; "
                    "the file is cut short, fetch it again"
                )
            out[t.name] = TensorInfo(t.name, t.shape, t.kind, start + t.offset, t.size_bytes)
        if (rest := len(self._data) - start - end) > MAX_ALIGNMENT:
            raise BadInput(f"{self.path}: {rest} bytes after its last tensor; a GGUF file alone is needed")
        return out

    @cached_property
    def sha256(self) -> str:
        """Checksum of the whole file."""
        return hashlib.sha256(self._data.data).hexdigest()

    def get(self, key: str, default: _T) -> _T:
        """The metadata value of `key`, or `default`; BadInput when its type is not the default's."""
        value = self.metadata.get(key, default)
        wanted = type(default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise BadInput(
                f"{self.path}: {key}: found a {type(value).__name__}; a {wanted.__name__} would be right"
            )
        return value

    def require(self, key: str, kind: type[_T]) -> _T:
        """The metadata value of `key`; BadInput when it is missing or of another type."""
        if key not in self.metadata:
            raise BadInput(f"{self.path}: metadata has no {key!r}; this model needs it")
        return self.get(key, kind())

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> FloatArray:
        """The values of a tensor as float32 (a copy), rows first.

        Raises:
            BadInput: no such tensor, not of `shape`, of a type that cannot be dequantised, or not finite.
        """
        info = self.tensors.get(name)
        if info is None:
            raise BadInput(f"{self.path}: tensor {name!r} is missing; the model needs it")
        if shape is not None and info.shape != shape:
            raise BadInput(f"{self.path}: tensor {name!r} has shape {info.shape}; {shape} would be right")
        raw = np.asarray(self._data[info.offset : info.offset + info.size_bytes])
        kind = _reference().constants.GGMLQuantizationType(info.kind)
        try:
            with np.errstate(all="ignore"):
                flat = _reference().quants.dequantize(raw.reshape(*info.shape[:-1], -1), kind)
        except NotImplementedError:
            raise BadInput(f"{self.path}: tensor {name!r} is {kind.name}, which cannot be read") from None
        own = flat.copy() if np.shares_memory(flat, raw) else flat
        values: FloatArray = own.astype(np.float32, copy=False).reshape(info.shape)
        # NaN and infinity both survive a sum, and a sum needs no temporary array.
        with np.errstate(invalid="ignore"):
            total = values.sum(dtype=np.float64)
        if not np.isfinite(total):
            raise BadInput(f"{self.path}: tensor {name!r} is not finite everywhere; the file is damaged")
        return values
