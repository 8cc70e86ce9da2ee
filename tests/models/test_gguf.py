"""The parser on files written by llama.cpp's own package, and on damaged ones: parsed or BadInput."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.models.gguf import GgufFile
from dse.models.load import load_decoder


def test_every_kind_of_metadata_is_read(tmp_path: Path) -> None:
    path = tmp_path / "kinds.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values: dict[str, Any] = {
        "uint8": 200,
        "int8": -100,
        "uint16": 60000,
        "int16": -30000,
        "uint32": 4_000_000_000,
        "int32": -2_000_000_000,
        "float32": 0.5,
        "uint64": 1 << 63,
        "int64": -(1 << 62),
        "float64": 0.1,
        "bool": True,
        "string": "naïve ☃",
    }
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(kind, value)
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("words", ["a", "", "Ġb"])
    writer.add_array("flags", [True, False])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    file = GgufFile(path)
    assert {key: file.metadata[key] for key in values} == values
    assert file.metadata["numbers"] == [1, -2, 3]
    assert file.metadata["words"] == ["a", "", "Ġb"]
    assert file.metadata["flags"] == [True, False]
    assert file.tensors == {}
    assert file.get("int8", 0) == -100
    assert file.get("uint8", 0.0) == 200.0
    assert file.get("absent", "fallback") == "fallback"
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match="int8: found a int; a str"):
        file.get("int8", "")
    with pytest.raises(BadInput, match="no 'absent'"):
        file.require("absent", int)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("alignment", [32, 256])
def test_tensors_are_dequantised(tmp_path: Path, kind: str, alignment: int) -> None:
    path = tmp_path / "tensors.gguf"
    values = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(alignment)
    quant = gguf.GGMLQuantizationType[kind]
    stored = gguf.quants.quantize(values, quant)
    writer.add_tensor("first", np.arange(3, dtype=np.float32))
    writer.add_tensor("second", stored, raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    read = file.tensor("second", (5, 64))
    assert read.dtype == np.float32
    assert read.flags.writeable
    np.testing.assert_array_equal(read, gguf.quants.dequantize(stored, quant))
    np.testing.assert_array_equal(file.tensor("first"), [0, 1, 2])
    with pytest.raises(BadInput, match="has shape"):
        file.tensor("second", (64, 5))
    with pytest.raises(BadInput, match="'third' is missing"):
        file.tensor("third")


def test_what_is_read_agrees_with_the_reference_reader(tiny_file: Path) -> None:
    ours, theirs = GgufFile(tiny_file), gguf.GGUFReader(tiny_file)
    for field in theirs.fields.values():
        if not field.name.startswith("GGUF."):
            assert ours.metadata[field.name] == field.contents()
    assert set(ours.tensors) == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        np.testing.assert_array_equal(ours.tensor(tensor.name), tensor.data)


def header(*parts: bytes, version: int = 3, tensors: int = 0, entries: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + b"".join(parts)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tensor_entry(
    name: bytes = b"w", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, rank: int = -1
) -> bytes:
    rank = len(shape) if rank < 0 else rank
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", rank, *shape, kind, offset)


HUGE = (1 << 64) - 1

DAMAGED = {
    "empty": b"",
    "short": b"GG",
    "other magic": b"GGML" + bytes(60),
    "big-endian version": b"GGUF" + struct.pack(">I", 3) + bytes(60),
    "version 1": header(version=1),
    "version 4": header(version=4),
    "counts cut": header()[:-1],
    "more entries than bytes": header(entries=HUGE),
    "more tensors than bytes": header(tensors=HUGE),
    "huge key": header(struct.pack("<Q", HUGE), bytes(99), entries=1),
    "key not text": header(string(b"\xff\xfe"), struct.pack("<IB", 0, 0), bytes(9), entries=1),
    "unknown value type": header(string(b"k"), struct.pack("<I", 13), bytes(20), entries=1),
    "huge array": header(string(b"k"), struct.pack("<IIQ", 9, 4, HUGE), bytes(20), entries=1),
    "huge array of text": header(string(b"k"), struct.pack("<IIQ", 9, 8, HUGE), bytes(20), entries=1),
    "array of arrays": header(string(b"k"), struct.pack("<IIQ", 9, 9, 1), bytes(40), entries=1),
    "array of unknown type": header(string(b"k"), struct.pack("<IIQ", 9, 99, 1), bytes(40), entries=1),
    "same key twice": header(*(2 * [string(b"k") + struct.pack("<IQ", 10, 1)]), entries=2),
    "alignment of no power": header(
        string(b"general.alignment"), struct.pack("<II", 4, 48), bytes(64), entries=1
    ),
    "alignment zero": header(string(b"general.alignment"), struct.pack("<II", 4, 0), bytes(64), entries=1),
    "alignment of text": header(string(b"general.alignment"), struct.pack("<I", 8), string(b"x"), entries=1),
    "no dimensions": header(tensor_entry(shape=()), bytes(99), tensors=1),
    "five dimensions": header(tensor_entry(shape=(1,) * 5), bytes(99), tensors=1),
    "claims more dimensions": header(tensor_entry(rank=4), tensors=1),
    "zero rows": header(tensor_entry(shape=(8, 0)), bytes(99), tensors=1),
    "huge shape": header(tensor_entry(shape=(HUGE, HUGE, HUGE, HUGE)), bytes(99), tensors=1),
    "wraps to zero bytes": header(tensor_entry(shape=(1 << 32, 1 << 32)), bytes(99), tensors=1),
    "unknown tensor type": header(tensor_entry(kind=4), bytes(99), tensors=1),
    "part of a block": header(tensor_entry(shape=(33,), kind=8), bytes(99), tensors=1),
    "offset beyond the end": header(tensor_entry(offset=1 << 62), bytes(99), tensors=1),
    "misaligned": header(tensor_entry(offset=4), bytes(99), tensors=1),
    "overlapping": header(tensor_entry(b"a"), tensor_entry(b"b"), bytes(99), tensors=2),
    "same tensor twice": header(tensor_entry(), tensor_entry(offset=32), bytes(150), tensors=2),
    "values missing": header(tensor_entry(), tensors=1),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(BadInput, match=f"^{path}: .*; ") as caught:
        GgufFile(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.gguf"):
        with pytest.raises(BadInput, match=f"^{path}: "):
            GgufFile(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "nan.gguf"
    body = header(tensor_entry(), tensors=1)
    values = np.zeros(8, dtype="<f4")
    values[3] = value
    path.write_bytes(body + bytes(-len(body) % 32) + values.tobytes())
    with pytest.raises(BadInput, match="'w' is not finite"):
        GgufFile(path).tensor("w")


def test_integer_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "integers.gguf"
    body = header(tensor_entry(kind=int(gguf.GGMLQuantizationType.I32)), tensors=1)
    path.write_bytes(body + bytes(-len(body) % 32) + bytes(32))
    with pytest.raises(BadInput, match="'w' is I32, which cannot be read"):
        GgufFile(path).tensor("w")


def test_a_file_cut_anywhere_is_refused(tiny_file: Path, tmp_path: Path) -> None:
    whole = tiny_file.read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [*range(0, 300), *range(300, len(whole), 997), len(whole) - 40]:
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match=f"^{path}: "):
            GgufFile(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_never_crash(tiny_file: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Any other exception than BadInput, from the parser, the network or the tokenizer, fails the test."""
    raw = bytearray(tiny_file.read_bytes())
    first_tensor = min(t.offset for t in GgufFile(tiny_file).tensors.values())
    where = st.one_of(st.integers(0, 600), st.integers(0, first_tensor), st.integers(0, len(raw) - 1))
    for at in data.draw(st.lists(where, min_size=1, max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.gguf"
    path.write_bytes(raw)
    with contextlib.suppress(BadInput):
        load_decoder(path).tokenizer.encode("the 12 words")
