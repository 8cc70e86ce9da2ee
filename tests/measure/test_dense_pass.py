"""Dense passes of networks with sliding windows, of large vocabularies, and of models that begin with a token."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from dse.errors import BadInput
from dse.measure import material
from dse.measure.material import SUMS, DensePass, Window, dense_pass, log_probabilities, prepare, windows
from dse.models.decoder import Decoder, Layer, Weights
from dse.models.text import Text


def sliding(seed=0, window=20) -> Decoder:
    """Three layers, the outer ones with a window."""
    rng = np.random.default_rng(seed)

    def matrix(rows, columns, gain=1.0):
        return (gain * rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    one = np.ones(32, np.float32)
    layers = tuple(
        Layer(one, matrix(64, 32, 2.0), matrix(32, 32), one, matrix(96, 32), matrix(32, 48)) for _ in range(3)
    )
    embedding = matrix(50, 32, 3.0)
    return Decoder(
        Weights(embedding, layers, one, embedding),
        query_heads=4,
        kv_heads=2,
        head_dim=8,
        windows=(window, 0, window),
        sha256=f"{seed}-{window}",
    )


@pytest.fixture(scope="module")
def window():
    return Window("text", 0, np.random.default_rng(1).integers(0, 50, 129))


def whole(model, tokens):
    logits = model.logits(model.forward_dense(tokens[None, :-1])[0]).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("block", [17, 256])
def test_a_pass_in_blocks_respects_sliding_windows(window, block, monkeypatch):
    monkeypatch.setattr(material, "BLOCK", block)
    model = sliding()
    found = dense_pass(model, window)
    np.testing.assert_allclose(found.log_probabilities, whole(model, window.tokens)[96:], atol=3e-5)
    everything = sliding(window=0)
    assert np.abs(found.log_probabilities - whole(everything, window.tokens)[96:]).max() > 0.05


def test_tokens_outside_the_window_receive_nothing(window, monkeypatch):
    """Every layer with a window of 20: a prompt token is attended to by the 20 queries from it on."""
    model = sliding()
    model.windows = (20, 20, 20)
    received = dense_pass(model, window).column_sum
    assert received.sum() == pytest.approx(3 * 4 * 96, rel=1e-6)
    monkeypatch.setattr(material, "BLOCK", 5)
    np.testing.assert_allclose(dense_pass(model, window).column_sum, received, rtol=1e-5)


def test_logits_come_in_slices(window, monkeypatch):
    model = sliding()
    hidden = model.forward_dense(window.tokens[None, :-1])[0]
    monkeypatch.setattr(material, "HEAD_VALUES", 50 * 7)
    parts = list(log_probabilities(model, hidden))
    assert [rows.stop - rows.start for rows, _ in parts] == [7] * 18 + [2]
    np.testing.assert_allclose(np.concatenate([p for _, p in parts]), whole(model, window.tokens), atol=3e-5)
    monkeypatch.setattr(material, "HEAD_VALUES", 1)  # a vocabulary larger than a slice: row by row
    assert len(list(log_probabilities(model, hidden))) == 128


def test_two_models_in_one_folder_keep_apart(window, tmp_path):
    first, second = sliding(0), sliding(1)
    (a,), (b,) = (list(prepare(model, [window], tmp_path)) for model in (first, second))
    assert a != b
    np.testing.assert_array_equal(
        DensePass.load(b).log_probabilities, dense_pass(second, window).log_probabilities
    )
    other = replace(window, tokens=np.concatenate(([3], window.tokens[1:])))  # the same place in another text
    (c,) = prepare(first, [other], tmp_path)
    assert c != a
    made = (a / "k.npy").stat().st_mtime_ns
    assert list(prepare(first, [window], tmp_path)) == [a]
    assert (a / "k.npy").stat().st_mtime_ns == made


class Letters:
    """A tokeniser of single letters."""

    sha256 = "letters"

    def __init__(self, bos):
        self.bos = bos

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


def test_a_window_begins_with_the_token_a_model_expects():
    content = "abcdefghij" * 500
    text = Text("letters", "", "text-of-letters", {"book": lambda: content})
    plain, begun = (windows(text.tokens(Letters(bos)), "selection", 64, 4, 0) for bos in (None, 999))
    for a, b in zip(plain, begun, strict=True):
        assert (a.book, a.start) == (b.book, b.start)
        assert b.tokens[0] == 999
        np.testing.assert_array_equal(a.tokens[1:], b.tokens[1:])
        assert a.tokens[0] == ord(content[a.start])


@pytest.fixture
def kept(window, tmp_path):
    """The folder of a dense pass, and the shapes of its arrays."""
    (place,) = prepare(sliding(), [window], tmp_path)
    shapes = material.pass_shapes(sliding(), window)
    assert DensePass.sound(place, shapes)
    return place, shapes


def test_an_archive_under_the_name_of_an_array_is_refused(kept):
    place, shapes = kept
    with (place / "k.npy").open("wb") as file:
        np.savez(file, k=np.zeros(3))
    (place / SUMS).write_text(json.dumps(DensePass._sums(place)))
    assert not DensePass.sound(place, shapes)
    with pytest.raises(BadInput, match="no dense pass, or damaged"):
        DensePass.load(place)


@pytest.mark.parametrize("name", ["k.npy", SUMS])
def test_a_pipe_in_a_dense_pass_is_not_waited_for(kept, name):
    place, shapes = kept
    (place / name).unlink()
    os.mkfifo(place / name)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(DensePass.sound(place, shapes)), daemon=True)
    thread.start()
    thread.join(20)
    assert answers == [False]


def test_checksums_are_read_with_a_bound(kept):
    place, shapes = kept
    with (place / SUMS).open("ab") as file:
        file.write(b" " * material.MAX_SUMS)  # which JSON allows
    assert not DensePass.sound(place, shapes)
