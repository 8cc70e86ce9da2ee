"""`dse profile train`, on a tiny model and text in memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from measure.conftest import tiny_llama

from dse.measure.overlap import prints, scales_prints
from dse.measure.train import load, provenance


@pytest.fixture
def tiny(monkeypatch):
    model = tiny_llama()
    model.tokenizer = None
    tokens = {"book": np.random.default_rng(0).integers(0, 50, 16_000)}
    text = SimpleNamespace(tokens=lambda tokenizer: tokens)
    monkeypatch.setattr("dse.models.load.load_model", lambda name, backend: model)
    monkeypatch.setattr("dse.models.text.find_text", lambda name: text)
    return tokens["book"]


SHORT = ("--context", 128, "--windows", 6, "--label", 8, "--steps", 2)


def test_trains_and_says_what_was_learned(dse, tiny, tmp_path):
    answer = dse("profile", "train", *SHORT, "--json", "-o", "c.npz")
    assert answer.code == 0, answer.stderr
    assert answer.json["weights"] == load(tmp_path / "c.npz").size
    assert set(answer.json["held_out"]) == {"loss", "recall", "window_recall"}
    about = provenance(tmp_path / "c.npz")
    assert (about["recipe"]["context"], about["recipe"]["steps"], len(about["windows"])) == (128, 2, 6)


def test_the_file_knows_its_text(dse, tiny, tmp_path):
    assert dse("profile", "train", *SHORT, "-o", "c.npz").code == 0
    seen = scales_prints(tmp_path / "c.npz")
    for _, start in provenance(tmp_path / "c.npz")["windows"]:
        assert np.isin(prints(tiny[start + 30 : start + 100]), seen).any()
    assert not np.isin(prints(tiny[8000:]), seen).any()


def test_too_long_a_label_is_refused_in_one_line(dse, tiny, tmp_path):
    answer = dse("profile", "train", "--context", 128, "--label", 128, "--windows", 6, "-o", "c.npz")
    assert answer.code == 2
    assert "wanted tokens" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "c.npz").exists()
