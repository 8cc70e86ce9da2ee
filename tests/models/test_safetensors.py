"""Safetensors files: values, and damage of every kind."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_safetensors

from dse.errors import BadInput
from dse.models.safetensors import Checkpoint, SafetensorsFile


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_bfloat16_is_the_upper_half_of_a_float(tmp_path: Path) -> None:
    """1.0, -2.0, the largest value, the smallest normal one and infinity, by their bits."""
    bits = np.array([0x3F80, 0xC000, 0x7F7F, 0x0080, 0x7F80], "<u2")
    header = {"x": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}
    file = SafetensorsFile(raw(tmp_path / "x.safetensors", header, bits.tobytes()))
    np.testing.assert_array_equal(
        file.tensor("x"), np.array([1, -2, 3.3895314e38, 2.0**-126, np.inf], np.float32)
    )


@pytest.mark.parametrize(("kind", "error"), [("F32", 0.0), ("F16", 2.0**-11), ("BF16", 2.0**-8)])
def test_values_survive_to_the_type_s_precision(kind: str, error: float, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    write_safetensors(tmp_path / "model.safetensors", {"a": values, "b": values.T}, kind)
    checkpoint = Checkpoint(tmp_path)
    found = checkpoint.tensor("a", (7, 3))
    assert found.dtype == np.float32
    assert (np.abs(found - values) <= error * np.abs(values)).all()
    np.testing.assert_array_equal(checkpoint.tensor("b", (3, 7)), found.T)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", "its header is damaged"),
        (b"\xff", "its header is damaged"),
        ({"x": 3}, "its header is damaged"),
        ({"x": {"dtype": "F32", "shape": [2]}}, "its header is damaged"),
        ({"x": {**ENTRY, "shape": [-2]}}, "its header is damaged"),
        ({"x": {**ENTRY, "shape": ["2"]}}, "its header is damaged"),
        ({"x": {**ENTRY, "data_offsets": [0, 8, 9]}}, "its header is damaged"),
        ({"x": {**ENTRY, "data_offsets": [8, 16]}}, "'x' does not fit into the file"),
        ({"x": {**ENTRY, "shape": [3]}}, "'x' does not fit into the file"),
        ({"x": {**ENTRY, "data_offsets": [8, 0]}}, "'x' does not fit into the file"),
        ({"x": {**ENTRY, "dtype": "F7"}}, "'x': dtype: found 'F7'"),
        ({"x": {**ENTRY, "shape": [0] * 9}}, "its header is damaged"),
        ({"x": ENTRY, "y": ENTRY}, "'y' begins at byte"),
        ({"x": {**ENTRY, "shape": [1], "data_offsets": [4, 8]}}, "'x' begins at byte"),
        ({"x": {**ENTRY, "shape": [1], "data_offsets": [0, 4]}}, "its tensors end at byte"),
        (b'{"x": 1, "x": 2}', "is not JSON"),
        (b"{" + b'"x":[' * 100_000, "is not JSON"),
    ],
)
def test_damaged_headers_are_refused(header: Any, message: str, tmp_path: Path) -> None:
    path = raw(tmp_path / "x.safetensors", header, bytes(8))
    with pytest.raises(BadInput, match=f"^{path}: ") as caught:
        SafetensorsFile(path)
    assert message in str(caught.value)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_file_or_bad_input(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(content)
    try:
        SafetensorsFile(path)
    except BadInput:
        return
    assert content[8:].lstrip().startswith(b"{")


def test_values_that_cannot_be_weights_are_refused(tmp_path: Path) -> None:
    header = {"x": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}
    raw(tmp_path / "model.safetensors", header, bytes(8))
    with pytest.raises(BadInput, match="'x' is I32; only F32, F16, BF16"):
        Checkpoint(tmp_path).tensor("x", (2,))
    write_safetensors(tmp_path / "model.safetensors", {"x": np.array([1, np.nan], np.float32)})
    with pytest.raises(BadInput, match="'x' is not finite everywhere"):
        Checkpoint(tmp_path).tensor("x", (2,))
    with pytest.raises(BadInput, match=r"'x' has shape \(2,\); \(3,\) would be right"):
        Checkpoint(tmp_path).tensor("x", (3,))
    with pytest.raises(BadInput, match="'y' is missing"):
        Checkpoint(tmp_path).tensor("y", (2,))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list"),
        ("{}", "weight_map: missing"),
        ('{"weight_map": {"x": 1}}', "weight_map: missing"),
        ('{"weight_map": {"x": "../secret.safetensors"}}', "is no safetensors file of this directory"),
        ('{"weight_map": {"x": "gone.safetensors"}}', r"gone\.safetensors: No such file"),
    ],
)
def test_wrong_indices_are_named(index: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BadInput, match=message):
        Checkpoint(tmp_path)


def test_an_empty_directory_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no model\.safetensors or .*index\.json; a safetensors model"):
        Checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="the file is empty"):
        Checkpoint(tmp_path)
