"""Models, tokenizers, texts, grids and scales from elsewhere: refused in one line, soon, in little memory, without effect."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

if find_spec("gguf") is None or find_spec("tokenizers") is None:
    pytest.skip("needs the lm extra", allow_module_level=True)

from models.tiny_models import weights, write_gguf

from abuse.conftest import Yard
from abuse.measure_lab import LETTERS, make_lab
from abuse.measure_spoil import (
    BYTES,
    GRIDS,
    KIND,
    NAME,
    TEXTS,
    Bomb,
    Change,
    config,
    content,
    counts,
    fifo,
    header,
    index,
    link,
    pickled,
    scaled,
    sparse,
    tensors,
    tokenizer,
)
from dse.measure import job as measuring

WORDS = (
    "--text",
    "own.txt",
    "--scales",
    "scales.npz",
    "--algorithm",
    "dense",
    "--context",
    "64",
    "--windows",
    "1",
)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    home = tmp_path_factory.mktemp("models")
    make_lab(home)
    with mock.patch.object(measuring, "CALIBRATION_TEXT", "calibration.txt"):
        yield Yard(home, b"", {})


@pytest.fixture
def model(yard: Yard, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of the tiny model to be spoilt, under a name that no process has loaded."""
    name = "m" + "".join(c for c in request.node.name if c.isalnum())[-60:]
    folder = yard.home / name
    shutil.copytree(yard.home / "tiny", folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(yard.home / "out", ignore_errors=True)


def refused(yard: Yard, says: str, *arguments: str) -> None:
    answer = yard.judge("models", says, "profile", *arguments)
    assert (answer.code, says in answer.stderr) == (2, True), answer
    assert not (yard.home / "out" / "it.npz").exists()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}

MODELS: dict[str, tuple[Change, str]] = {
    "negative size": (config(hidden_size=-1), "config.json: hidden_size: found -1; a whole number of 1 to"),
    "huge size": (config(hidden_size=10**12), "config.json: hidden_size: found 1000000000000"),
    "size beyond 64 bits": (config(vocab_size=10**30), "config.json: vocab_size: found a number of 100 bits"),
    "size of no number": (config(vocab_size=float("nan")), "config.json: is not JSON"),
    "large vocabulary": (config(vocab_size=1 << 24), "has shape (61, 24); (16777216, 24) would be right"),
    "more than fits": (
        config(vocab_size=1 << 24, hidden_size=1 << 20),
        "config.json: its weights take 65",
    ),
    "huge number of layers": (config(num_hidden_layers=10**6), "config.json: num_hidden_layers: found 1000000"),
    "many layers with windows": (config(num_hidden_layers=4096), "tensor 'model.layers.3.input_layernorm"),
    "huge heads": (config(head_dim=1 << 20, rope_scaling={"type": "linear"}), "config.json: head_dim: found"),
    "negative epsilon": (config(rms_norm_eps=-1e-5), "config.json: rms_norm_eps: found -1e-05; a number"),
    "no rotation": (config(rope_theta=0), "config.json: rope_theta: found 0; a positive number"),
    "huge rotation": (config(rope_theta=1e300), "config.json: rope_theta: found 1e+300"),
    "stretched by nothing": (
        config(rope_scaling={"rope_type": "linear", "factor": 0}),
        "config.json: factor: found 0; a positive number",
    ),
    "no band between frequencies": (
        config(rope_scaling={"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 4}),
        "config.json: high_freq_factor: found 4",
    ),
    "unknown architecture": (config(model_type="quantum"), "config.json: model_type: found 'quantum'"),
    "code of its own": (
        config(model_type="quantum", auto_map={"AutoModelForCausalLM": "evil.Model"}),
        "config.json: model_type: found 'quantum'",
    ),
    "a key twice": (content("config.json", '{"model_type": "llama", "model_type": "x"}'), "config.json: is not JSON"),
    "nested without end": (content("config.json", '{"a":' * 200_000), "config.json: is not JSON"),
    "endless configuration": (sparse("config.json", 1 << 40), "config.json: has more than"),
    "configuration in a pipe": (fifo("config.json"), "config.json: is a device or a pipe"),
    "configuration elsewhere": (link("config.json", "/etc/passwd"), "config.json: is not JSON"),
    "terminal codes": (config(model_type="\x1b[2J"), "config.json: model_type: holds the control character"),
    "header larger than the file": (
        content("model.safetensors", struct.pack("<Q", 1 << 62) + b"{}"),
        "model.safetensors: the header does not fit",
    ),
    "huge header": (
        sparse("model.safetensors", 1 << 36, struct.pack("<Q", 1 << 35)),
        "model.safetensors: a header of 34359738368 bytes; at most",
    ),
    "header of lists": (header(b'{"a":' + b"[[],[]," * 1_000_000), "is not JSON"),
    "header of many": (header({f"t{i}": {} for i in range(250_000)}), "too many entries"),
    "tensors on top of each other": (header({"a": ENTRY, "b": ENTRY}, bytes(8)), "tensor 'b' begins at byte"),
    "tensor outside": (header({"a": {**ENTRY, "data_offsets": [1 << 40, (1 << 40) + 8]}}, bytes(8)), "'a' does not fit"),
    "negative offsets": (header({"a": {**ENTRY, "data_offsets": [-8, 0]}}, bytes(8)), "its header is damaged"),
    "size that wraps": (
        header({"a": {**ENTRY, "shape": [1 << 62, 4], "data_offsets": [0, 0]}}),
        "tensor 'a' does not fit",
    ),
    "endless shape": (header({"a": {**ENTRY, "shape": [1 << 60] * 100_000}}, bytes(8)), "its header is damaged"),
    "unknown type": (header({"a": {**ENTRY, "dtype": "OBJECT"}}, bytes(8)), "tensor 'a': dtype: found 'OBJECT'"),
    "cut": (
        lambda folder: os.truncate(folder / "model.safetensors", 20_000),
        "does not fit into the file; fetch it again",
    ),
    "weights that are no numbers": (
        tensors(lambda all_of_them: all_of_them[NAME].__setitem__((0, 0), np.nan)),
        f"tensor '{NAME}' is not finite everywhere",
    ),
    "infinite weights": (
        tensors(lambda all_of_them: all_of_them[NAME].__setitem__((0, 0), -np.inf)),
        f"tensor '{NAME}' is not finite everywhere",
    ),
    "weights that overflow": (
        tensors(lambda all_of_them: all_of_them[NAME].__imul__(np.float32(1e38))),
        "layer 1: queries, keys or values are not finite",
    ),
    "an output that overflows": (
        tensors(lambda all_of_them: all_of_them["lm_head.weight"].__imul__(np.float32(1e38))),
        "probabilities of the next token are not finite",
    ),
    "weights in a pipe": (fifo("model.safetensors"), "model.safetensors: is a device or a pipe"),
    "weights of a device": (link("model.safetensors", "/dev/zero"), "model.safetensors: is a device or a pipe"),
    "weights elsewhere that are none": (link("model.safetensors", "/etc/passwd"), "model.safetensors: "),
    "index above": (index({"x": "../stolen.safetensors"}), "weight_map: '../stolen.safetensors' is no safetensors"),
    "index far above": (index({"x": "../../x.safetensors"}), "weight_map: '../../x.safetensors' is no safetensors"),
    "index of a root": (index({"x": "/etc/passwd"}), "weight_map: '/etc/passwd' is no safetensors file"),
    "index of the folder above": (index({"x": ".."}), "weight_map: '..' is no safetensors file"),
    "index that lies": (index({"x": "one.safetensors"}), "weight_map: 'x' is not in one.safetensors"),
    "index of nothing": (index({"x": "none.safetensors"}), "none.safetensors: No such file"),
    "pickled": (pickled("pytorch_model.bin"), "pytorch_model.bin is a pickle, which can run code and is never read"),
    "pickled otherwise": (pickled("model.ckpt"), "model.ckpt is a pickle, which can run code and is never read"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: no such file"),
    "endless tokenizer": (sparse("tokenizer.json", 1 << 40), "tokenizer.json: has more than"),
    "nested tokenizer": (content("tokenizer.json", '{"a":' * 200_000), "tokenizer.json: not a tokenizer"),
    "tokenizer of lists": (content("tokenizer.json", '{"model":[' + "[]," * 5_000_000), "tokenizer.json: not a tok"),
    "exploding normalizer": (
        tokenizer(normalizer={"type": "Sequence", "normalizers": [REPLACE] * 20}),
        "tokenizer.json: normalizer: makes texts more than 1000 times longer",
    ),
    "pattern without end": (
        tokenizer(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": r"(\w|\s|\.|[a-z0-9])+(?=\.\.\.\.)"},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "tokenizer: cannot take this text apart (Onig: Regex search error",
    ),
    "tokens that the model has not": (
        tokenizer(
            model={"type": "BPE", "vocab": {c: 4_000_000_000 + i for i, c in enumerate(LETTERS)}, "merges": []}
        ),
        "gives token 40000000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_of_a_colleague(yard: Yard, model: Path, name: str) -> None:
    MODELS[name][0](model)
    refused(yard, MODELS[name][1], "run", "--model", f"./{model.name}", *WORDS, "--name", "it", "-o", "out")
    assert not list(yard.home.rglob("ran"))


@pytest.mark.parametrize(
    "command",
    [
        ("probe", "--scales", "scales.npz", "--algorithm", "dense", "--context", "256", "--windows", "1", "--depths", "2"),
        ("calibrate", "--context", "64", "--windows", "1"),
        ("train", "--context", "128", "--windows", "2", "--steps", "1"),
        ("run", "--scales", "scales.npz", "--algorithm", "top-theta", "--set", "calibration=64", "--context", "64"),
        ("run", "--scales", "scales.npz", "--algorithm", "dense", "--phase", "prefill", "--context", "64"),
    ],
    ids=lambda command: "-".join(command[:1] + command[-2:]),
)  # fmt: skip
def test_weights_that_overflow_give_nothing(yard: Yard, model: Path, command: tuple[str, ...]) -> None:
    MODELS["weights that overflow"][0](model)
    out = {"run": "out", "probe": "out.json"}.get(command[0], "out.npz")
    refused(
        yard,
        MODELS["weights that overflow"][1],
        *command,
        "--model",
        f"./{model.name}",
        "--text",
        "own.txt",
        "-q",
        "-o",
        out,
    )
    assert not list(yard.home.glob("out.*"))


def test_weights_that_are_linked_are_read(yard: Yard, model: Path) -> None:
    """Hugging Face's own cache is made of links."""
    (model / "model.safetensors").rename(yard.home / "blob")
    (model / "model.safetensors").symlink_to("../blob")
    answer = yard.judge(
        "models", "link", "profile", "run", "--model", f"./{model.name}", *WORDS, "-q", "-o", "out"
    )
    assert answer.code == 0, answer
    (yard.home / "blob").unlink()


FILES: dict[str, tuple[str, Change, str]] = {
    "no format at all": ("x.gguf", content("x.gguf", b"PK\3\4" + bytes(99)), "x.gguf: starts with b'PK"),
    "empty": ("x.gguf", content("x.gguf", b""), "x.gguf: the file is empty"),
    "huge counts": ("x.gguf", content("x.gguf", counts(1 << 63, 1 << 63)), "x.gguf: a count of"),
    "counts of a huge file": (
        "x.gguf",
        sparse("x.gguf", 1 << 36, counts(1 << 20, 1 << 20)),
        "x.gguf: 1048576 metadata entries and 1048576 tensors, at most",
    ),
    "a hundred million empty texts": (
        "x.gguf",
        sparse("x.gguf", 1 << 36, counts(0, 1, TEXTS)),
        "x.gguf: k ",
    ),
    "a gigabyte of numbers": ("x.gguf", sparse("x.gguf", 1 << 36, counts(0, 1, BYTES)), "x.gguf: k "),
    "a gigabyte of text": (
        "x.gguf",
        sparse("x.gguf", 1 << 36, counts(0, 1, struct.pack("<Q", 1 << 30))),
        "remain of the 67108864 that a header may have",
    ),
    "endless after its end": (
        "x.gguf",
        lambda folder: (
            write_gguf(KIND, weights(KIND), folder / "x.gguf"),
            os.truncate(folder / "x.gguf", 1 << 40),
        ),
        "bytes after its last tensor",
    ),
    "in a pipe": ("x.gguf", fifo("x.gguf"), "x.gguf: is a device or a pipe"),
    "a device": ("x.gguf", link("x.gguf", "/dev/zero"), "x.gguf: is a device or a pipe"),
    "a pickle": ("x.pt", content("x.pt", pickle.dumps(Bomb())), "x.pt: is a pickle, which can run code"),
    "weights alone": ("model.safetensors", lambda folder: None, "holds weights alone; the directory"),
    "not there": ("none.gguf", lambda folder: None, "none.gguf: no such file or directory"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_a_colleague(yard: Yard, model: Path, name: str) -> None:
    file, change, says = FILES[name]
    change(model)
    refused(yard, says, "run", "--model", f"{model.name}/{file}", *WORDS, "--name", "it", "-o", "out")


OTHERS: dict[str, tuple[tuple[str, ...], Change, str]] = {
    "endless text": (("--text", "t.txt"), sparse("t.txt", 1 << 40), "t.txt: has more than"),
    "empty text": (("--text", "t.txt"), content("t.txt", ""), "t.txt: is empty"),
    "short text": (("--text", "t.txt"), content("t.txt", "some words"), "windows: 1 of 65 tokens do not fit"),
    "binary text": (("--text", "t.txt"), content("t.txt", bytes(range(256)) * 9), "t.txt: byte 128 is not UTF-8"),
    "zeros": (("--text", "t.txt"), content("t.txt", bytes(9999)), "t.txt: byte 0 is a NUL"),
    "text in a pipe": (("--text", "t.txt"), fifo("t.txt"), "t.txt: is a device or a pipe"),
    "text that is a folder": (("--text", "t.txt"), lambda folder: (folder / "t.txt").mkdir(), "t.txt: is a directory"),
    "no text": (("--text", "t.txt"), lambda folder: None, "t.txt: no such file"),
    "a context too long": (("--context", "1024"), lambda folder: None, "--context 1024: model"),
    "a context of one": (("--context", "1"), lambda folder: None, "--context: 1 is not in the range"),
    "no windows": (("--windows", "0"), lambda folder: None, "--windows: 0 is not in the range"),
    "too many windows": (("--windows", "256"), lambda folder: None, "windows: 256 of 65 tokens do not fit"),
    "a negative seed": (("--seed", "-1"), lambda folder: None, "--seed: -1 is not in the range"),
    "a huge seed": (("--seed", str(1 << 70)), lambda folder: None, "--seed: 1180591620717411303424 is not in"),
    "no number": (("--windows", "nan"), lambda folder: None, "--windows: 'nan' is not a valid integer"),
    "a knob without end": (("--set", "k_bits=" + "[" * 9999), lambda folder: None, "--set k_bits: tables or lists nested too deeply"),
    "a knob of many digits": (("--set", "k_bits=" + "9" * 9999), lambda folder: None, "too many digits"),
    "a knob of no number": (("--set", "k_bits=nan"), lambda folder: None, "k_bits"),
    "no scales": (("--scales", "t.npz"), lambda folder: None, "t.npz: no calibrated scales (no such file)"),
    "scales in a pipe": (("--scales", "t.npz"), fifo("t.npz"), "t.npz: no calibrated scales (is a directory or"),
    "scales that are none": (("--scales", "t.npz"), content("t.npz", b"x"), "no calibrated scales (not such an"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_texts_scales_and_options(yard: Yard, model: Path, name: str) -> None:
    (option, value), change, says = OTHERS[name]
    change(model)
    words = list(WORDS)
    value = f"{model.name}/{value}" if value.startswith("t.") else value
    if option in words:
        words[words.index(option) + 1] = value
    else:
        words += [option, value]
    refused(yard, says, "run", "--model", f"./{model.name}", *words, "--name", "it", "-o", "out")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k_8": np.full((3, 2), np.nan)}, "k.8: holds other than positive finite numbers"),
        ({"k_8": -np.ones((3, 2))}, "k.8: holds other than positive finite numbers"),
        ({"k_8": np.ones((2, 2))}, "k.8: has shape (2, 2), the model (3, 2)"),
        ({"k_8": np.array([Bomb()], dtype=object)}, "holds Python objects, which could run code"),
        ({"k_8": np.zeros(1 << 26)}, "unpacks to"),
    ],
    ids=["nan", "negative", "shape", "pickled", "bomb"],
)
def test_scales_of_a_colleague(yard: Yard, model: Path, changes: dict[str, Any], says: str) -> None:
    np.savez_compressed(model / "s.npz", **scaled(yard.home, **changes))
    words = [f"{model.name}/s.npz" if word == "scales.npz" else word for word in WORDS]
    refused(yard, says, "run", "--model", "tiny", *words, "--name", "it", "-o", "out")


@pytest.mark.parametrize("name", GRIDS)
def test_grids_of_a_colleague(yard: Yard, model: Path, name: str) -> None:
    text, says = GRIDS[name]
    if text:
        (model / "g.toml").write_text(text)
    else:
        os.mkfifo(model / "g.toml")
    words = [w for w in WORDS if w not in ("--algorithm", "dense")]
    grid = ("--grid", f"{model.name}/g.toml")
    refused(yard, says, "run", "--model", "tiny", *words, *grid, "--name", "it", "-o", "out")


def test_a_working_folder_of_a_colleague_leads_nowhere_else(yard: Yard, model: Path) -> None:
    """Folders, dense passes and profiles that are links are not followed when something is written."""
    command = ("run", "--model", "tiny", *WORDS, "--name", "it")
    target = model / "target"
    target.mkdir()
    for name in ("shards", "tables", "dense"):
        command = tuple("top-theta" if w == "dense" and name == "tables" else w for w in command)
        (yard.home / "out").mkdir()
        (yard.home / "out" / name).symlink_to(target)
        refused(yard, "is a symbolic link, which a working folder never holds", *command, "-o", "out")
        shutil.rmtree(yard.home / "out")
        command = ("run", "--model", "tiny", *WORDS, "--name", "it")
    answer = yard.judge("models", "run", "profile", *command, "-q", "-o", "out")
    assert answer.code == 0, answer
    (place,) = (yard.home / "out" / "dense").iterdir()
    shutil.rmtree(place)
    place.symlink_to(target)
    (yard.home / "out" / "it.npz").unlink()
    shutil.rmtree(yard.home / "out" / "shards")
    refused(yard, "is a symbolic link", *command, "-o", "out")
    assert not list(target.iterdir())


def test_pickles_in_a_working_folder_are_measured_again(yard: Yard, model: Path) -> None:
    command = ("profile", "run", "--model", "tiny", *WORDS, "--name", "it", "-q", "-o", "out")
    assert yard.judge("models", "run", *command).code == 0
    (shard,) = (yard.home / "out" / "shards").glob("*.npz")
    before = (yard.home / "out" / "it.npz").read_bytes()
    with np.load(shard) as data:
        arrays = {name: data[name] for name in data.files}
    for spoilt in (
        {**arrays, "nll": np.array([Bomb()], dtype=object)},
        {**arrays, "nll": arrays["nll"][:, :-1]},
        {**arrays, "nll": arrays["nll"] * np.nan},
        {**arrays, "counters": arrays["counters"][:, :, :-1]},
        {**arrays, "more": np.zeros(1 << 26)},
        {n: a for n, a in arrays.items() if n != "kl"},
    ):
        np.savez_compressed(shard, **spoilt)
        assert yard.judge("models", "run", *command).code == 0
        assert (yard.home / "out" / "it.npz").read_bytes() == before
