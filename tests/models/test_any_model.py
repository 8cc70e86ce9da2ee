"""A model that nobody prepared goes through the commands: calibrated, measured, packed."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tiny_models import KINDS, weights, write_directory

from dse.cli import main
from dse.cli.environment import Environment
from dse.profiles.profile import ACCURACY_COLUMN, Profile
from dse.profiles.store import read_profile

LETTERS = "abcdefghijklmnopqrstuvwxyz \n.,"


def with_tokenizer(folder: Path) -> Path:
    """Adds a tokeniser of single letters."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(LETTERS)}, []))
    inner.decoder = tokenizers.decoders.Fuse()
    inner.save(str(folder / "tokenizer.json"))
    return folder


def dse(*arguments: object) -> None:
    """Runs a command, which must succeed."""
    environment = Environment(io.StringIO(), errors := io.StringIO(), columns=100, colour=False)
    assert main([str(a) for a in arguments], environment) == 0, errors.getvalue()


def measured(model: Path, folder: Path) -> Profile:
    """Calibrates and measures dense and sparse attention on a text of random words."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list(LETTERS[:26]), random.integers(1, 8))) for _ in range(3000)]
    text = folder / "own.txt"
    text.write_text(" ".join(words))
    scales = folder / "scales.npz"
    common = ("--model", model, "--text", text, "--context", 64)
    dse("profile", "calibrate", *common, "--windows", 2, "-o", scales, "--quiet")
    for algorithm, knobs in (("dense", ()), ("oracle-top-k", ("--set", "k=2"))):
        options = ("--name", model.name, "--algorithm", algorithm, *knobs, "--windows", 2, "--scales", scales)
        dse("profile", "run", *common, *options, "-o", folder / "run", "--quiet")
    return read_profile(folder / "run" / f"{model.name}.npz")


def check(profile: Profile) -> None:
    by_name = {s.algorithm: i for i, s in enumerate(profile.settings)}
    rows = profile.counter("group.v_rows")[:, 0].mean(axis=(1, 2))
    visible = profile.mean_context[0]
    assert rows[by_name["dense"]] == pytest.approx(visible, rel=1e-4)
    assert 2 <= rows[by_name["oracle-top-k"]] < visible
    error = profile.accuracy[:, 0, ACCURACY_COLUMN["output_error"]]
    assert 3 * error[by_name["dense"]] < error[by_name["oracle-top-k"]]


def test_on_the_numpy_engine(tmp_path: Path) -> None:
    kind = KINDS["qwen3"]
    folder = write_directory(kind, weights(kind), tmp_path / "somebodys-qwen", "BF16", shards=2)
    profile = measured(with_tokenizer(folder), tmp_path)
    assert (profile.name, profile.shape.layers) == ("somebodys-qwen", 3)
    check(profile)


@pytest.mark.skipif(
    not (find_spec("torch") and find_spec("transformers")),
    reason="torch and transformers are not installed (extra `torch`)",
)
def test_on_transformers(tmp_path: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=61,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.5,
    )
    folder = tmp_path / "somebodys-neox"
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    profile = measured(with_tokenizer(folder), tmp_path)
    assert (profile.shape.layers, profile.shape.query_heads, profile.shape.kv_heads) == (2, 4, 4)
    check(profile)
