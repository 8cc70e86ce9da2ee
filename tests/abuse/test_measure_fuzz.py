"""Mutated models by the thousand: each is read as an independent reader reads it, or refused with one line.

`DSE_FUZZ=10000 DSE_FUZZ_REPORT=fuzz.json pytest tests/abuse/test_measure_fuzz.py` is the whole campaign, on other
inputs each time; without it a fixed part of it runs.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

if find_spec("gguf") is None or find_spec("tokenizers") is None:
    pytest.skip("needs the lm extra", allow_module_level=True)

import gguf
from hypothesis import given
from hypothesis import strategies as st
from models.tiny_models import KINDS, weights, write_gguf, write_safetensors

from abuse import mutants
from abuse.conftest import TALLIES, Yard
from abuse.measure_lab import LETTERS, make_lab
from abuse.test_fuzz import TOTAL, share
from dse.archives import Damaged, read_arrays
from dse.errors import BadInput
from dse.measure import job as measuring
from dse.models.gguf import GgufFile
from dse.models.safetensors import TYPES, SafetensorsFile
from dse.models.tokenizer import SPACE

READ: Counter[str] = Counter()
"""How many mutants of a format were read, and how many refused."""

RUN = (
    *("profile", "run", "--text", "own.txt", "--scales", "scales.npz", "--algorithm", "token-picker", "--name", "it"),
    *("--context", "64", "--windows", "1", "-q", "-o", "out"),
)  # fmt: skip


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    home = tmp_path_factory.mktemp("models")
    make_lab(home)
    kind = KINDS["llama"]
    tokens = tuple(LETTERS.replace(" ", SPACE))
    write_gguf(kind, weights(kind), home / "tiny.gguf", tokens)
    write_safetensors(home / "half.safetensors", weights(kind), "F16")
    np.savez_compressed(home / "a.npz", header=np.array("x" * 50), nll=np.arange(300.0).reshape(3, 100))
    with mock.patch.object(measuring, "CALIBRATION_TEXT", "calibration.txt"):
        yield Yard(home, b"", {})
    report = os.environ.get("DSE_FUZZ_REPORT")
    if report:
        table = {kind: {**vars(t), "total": t.total} for kind, t in TALLIES.items()}
        Path(report).write_text(json.dumps({**table, "readers": READ}, indent=2) + "\n", encoding="utf-8")


def changed(document: Any, changes: list[tuple[int, str, Any]]) -> str:
    """JSON with entries changed; what is put in is copied, or it might come to hold itself."""
    return json.dumps(mutants.mutate_json(document, [(n, kind, deepcopy(odd)) for n, kind, odd in changes]))


def headed(whole: bytes, changes: list[tuple[int, str, Any]]) -> bytes:
    """A safetensors file with entries of its header changed, and the header's length right again."""
    size = int.from_bytes(whole[:8], "little")
    text = changed(json.loads(whole[8 : 8 + size]), changes).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + size :]


numbers = st.sampled_from([0, 1, 7, 8, 9, 255, 1 << 16, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1])
words = st.lists(st.tuples(st.integers(0, 10_000), numbers), min_size=1, max_size=3)


def worded(whole: bytes, reach: int, changes: list[tuple[int, int]]) -> bytes:
    """A file some of whose first bytes are replaced by 64-bit numbers."""
    content = bytearray(whole)
    for at, number in changes:
        at %= min(reach, len(whole) - 8)
        content[at : at + 8] = struct.pack("<Q", number)
    return bytes(content)


@share(0.25)
@given(st.sampled_from(["model", "half"]), mutants.json_changes, mutants.mutations, words, st.integers(0, 3))
def test_safetensors(
    yard: Yard, name: str, headers: list[Any], raw: list[Any], long: list[Any], how: int
) -> None:
    import safetensors

    whole = (yard.home / ("half.safetensors" if name == "half" else "tiny/model.safetensors")).read_bytes()
    content = [
        lambda: headed(whole, headers),
        lambda: mutants.damage(whole, raw),
        lambda: mutants.damage(whole[:400], raw) + whole[400:],
        lambda: worded(whole, 4000, long),
    ][how]()
    path = yard.home / "fuzzed.safetensors"
    path.write_bytes(content)
    try:
        ours = SafetensorsFile(path)
    except BadInput:
        READ["safetensors refused"] += 1
        return
    READ["safetensors read"] += 1
    theirs = dict(safetensors.deserialize(content))
    assert ours.places.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours.places[name].shape == tuple(tensor["shape"])
        if tensor["dtype"] in TYPES and tensor["dtype"] != "BF16":
            values = np.frombuffer(tensor["data"], TYPES[tensor["dtype"]]).reshape(tensor["shape"])
            with np.errstate(over="ignore", invalid="ignore"):
                np.testing.assert_array_equal(ours.tensor(name), values.astype(np.float32))


@share(0.25)
@given(mutants.mutations, words, st.integers(0, 2))
def test_gguf(yard: Yard, raw: list[Any], long: list[Any], how: int) -> None:
    whole = (yard.home / "tiny.gguf").read_bytes()
    content = [
        lambda: mutants.damage(whole, raw),
        lambda: mutants.damage(whole[:6000], raw) + whole[6000:],
        lambda: worded(whole, 6000, long),
    ][how]()
    path = yard.home / "fuzzed.gguf"
    path.write_bytes(content)
    try:
        ours = GgufFile(path)
        values = {name: ours.tensor(name) for name in ours.tensors}
    except BadInput:
        READ["gguf refused"] += 1
        return
    READ["gguf read"] += 1
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert values.keys() == theirs.keys()
    for name, tensor in theirs.items():
        with np.errstate(all="ignore"):
            right = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(values[name], right.reshape(values[name].shape))


@share(0.15)
@given(mutants.mutations)
def test_arrays(yard: Yard, raw: list[Any]) -> None:
    path = yard.home / "fuzzed.npz"
    path.write_bytes(mutants.damage((yard.home / "a.npz").read_bytes(), raw))
    try:
        ours = read_arrays(path)
    except Damaged:
        READ["arrays refused"] += 1
        return
    READ["arrays read"] += 1
    with np.load(path, allow_pickle=False) as theirs:
        assert set(ours) == set(theirs.files)
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name])


FILES = ("config.json", "tokenizer.json", "header", "model.safetensors", "tiny.gguf")


@share(0.35)
@given(st.sampled_from(FILES), mutants.json_changes, mutants.mutations, st.booleans())
def test_models(yard: Yard, name: str, entries: list[Any], raw: list[Any], how: bool) -> None:
    folder = yard.home / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(yard.home / "out", ignore_errors=True)
    shutil.copytree(yard.home / "tiny", folder)
    if name.endswith(".json"):
        (folder / name).write_text(changed(json.loads((folder / name).read_text()), entries))
    elif name == "header":
        path = folder / "model.safetensors"
        path.write_bytes(headed(path.read_bytes(), entries))
    else:
        whole = (yard.home / name if name == "tiny.gguf" else folder / name).read_bytes()
        reach = 4000 if how else len(whole)  # where what is said about weights ends
        (folder / name).write_bytes(mutants.damage(whole[:reach], raw) + whole[reach:])
    measuring._loaded.cache_clear()
    model = "fuzzed/tiny.gguf" if name == "tiny.gguf" else "./fuzzed"
    yard.judge("models", f"{name}: {entries!r} {raw!r}", *RUN, "--model", model)


def test_the_campaign_was_as_large_as_asked_for_and_no_walkover() -> None:
    """Of no format were all mutants refused: they reach beyond the first check."""
    assert READ.total() + TALLIES["models"].total >= TOTAL * 0.95
    for kind in ("safetensors", "gguf", "arrays"):
        assert READ[f"{kind} read"] > 0, kind
        assert READ[f"{kind} refused"] > 0.2 * (READ[f"{kind} read"] + READ[f"{kind} refused"]), kind
    assert TALLIES["models"].valid > 0
    assert TALLIES["models"].refused > 0
