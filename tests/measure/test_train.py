"""Training the controller: gradients, learning, the shipped weights, and where a table comes from."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from dse.algorithms.adore import Adore
from dse.algorithms.controllers import GruWeights, unit_rms
from dse.errors import BadInput
from dse.measure import train as training
from dse.measure.gru import AdamW, initial, loss_and_gradient
from dse.measure.material import attention
from dse.measure.tables import Setup
from dse.measure.traces import mean_attention
from dse.measure.train import Recipe, Traces, load, provenance, save_controller, shipped, trace, train, wanted

SMALL = Recipe(
    windows=6, context=48, held=3, label=6, state=8, keys=6, steps=4, batch=2, rows=16, dropout=0.1
)


def quiet(what, done, total):
    pass


def test_gradient_equals_finite_differences():
    rng = np.random.default_rng(0)
    start = initial(5, 4, 3, rng)
    weights = GruWeights(
        **{f.name: getattr(start, f.name) + 0.3 * rng.standard_normal(getattr(start, f.name).shape) for f in fields(start)}
    )  # fmt: skip
    embedded, rows = rng.standard_normal((2, 9, 5)), np.array([3, 5, 8])
    labels = rng.random((2, 3, 9)) < 0.4

    def loss(w):
        return loss_and_gradient(w, embedded, rows, labels, 2.0)[0]

    _, gradient = loss_and_gradient(weights, embedded, rows, labels, 2.0)
    for name in (f.name for f in fields(weights)):
        value = getattr(weights, name)
        numeric = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            step = np.zeros_like(value)
            step[index] = 1e-6
            ends = (loss(replace(weights, **{name: value + sign * step})) for sign in (1, -1))
            numeric[index] = -np.subtract(*reversed(list(ends))) / 2e-6
        np.testing.assert_allclose(gradient[name], numeric, atol=1e-8, err_msg=name)


def test_adam_takes_the_first_step_of_its_rate_against_the_gradient():
    weights = initial(5, 4, 3, np.random.default_rng(0))
    gradient = {f.name: np.ones_like(getattr(weights, f.name)) for f in fields(weights)}
    new = AdamW(0.0).step(weights, gradient, 0.01)
    for f in fields(weights):
        np.testing.assert_allclose(getattr(new, f.name), getattr(weights, f.name) - 0.01, atol=1e-6)


def copy_task(count=12, length=40, symbols=8, dim=12, seed=0):
    """Every token attends the last three occurrences of its own symbol: the token itself tells where to look."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((symbols, dim)).astype(np.float32)
    tokens = rng.integers(0, symbols, (count, length))
    attention = np.zeros((count, length, length), np.float16)
    for w, t in np.ndindex(count, length):
        same = np.flatnonzero(tokens[w, : t + 1] == tokens[w, t])[-3:]
        attention[w, t, same] = 1 / len(same)
    return Traces(unit_rms(table[tokens]), attention)


def test_training_learns_a_copy_task_that_a_window_fails():
    recipe = Recipe(
        held=3, label=3, state=12, keys=8, steps=150, batch=6, rows=24, dropout=0.0, rate=1e-2, decay=0.0
    )
    traces = copy_task()
    _, before = train(traces, replace(recipe, steps=1), quiet)
    _, after = train(traces, recipe, quiet)
    assert after["loss"] < 0.6 * before["loss"]
    assert after["recall"] > after["window_recall"] + 0.2


def test_training_repeats_itself():
    traces = copy_task(count=6)
    recipe = Recipe(held=3, label=3, state=6, keys=4, steps=3, batch=2, rows=8)
    (one, _), (two, _) = (train(traces, recipe, quiet) for _ in range(2))
    other, _ = train(traces, replace(recipe, seed=1), quiet)
    np.testing.assert_array_equal(one.input, two.input)
    assert (one.input != other.input).any()


def test_wanted_tokens_are_the_most_attended_ones_in_the_past():
    rows = np.random.default_rng(0).random((2, 10, 10)).astype(np.float16)
    marked = wanted(rows, 3)
    for w, t in np.ndindex(2, 10):
        best = sorted(range(t + 1), key=lambda i: rows[w, t, i])[-3:]
        assert rows[w, t, marked[w, t]].sum() == rows[w, t, best].sum()
        assert marked[w, t].sum() == min(3, t + 1)
        assert not marked[w, t, t + 1 :].any()


def test_nothing_to_hold_out_is_refused():
    with pytest.raises(BadInput, match="held out"):
        train(copy_task(count=4), Recipe(held=6, label=3), quiet)


def test_traces_are_the_mean_of_all_heads_and_layers(model, chosen):
    text = chosen[0].tokens[:-1]
    total = np.zeros((64, 64))
    positions = np.arange(64)

    def attend(layer, q, k, v):
        out, p = attention(q, k, v, 0)
        total[:] += p.reshape(-1, 64, 64).sum(axis=0)
        return out

    model.run(text[None], positions, attend)
    total /= model.shape.layers * model.shape.query_heads
    rows = mean_attention(model, text)
    np.testing.assert_allclose(rows, total, atol=1e-5)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-4)
    traces = trace(model, chosen[:2], quiet)
    np.testing.assert_allclose(traces.attention[0], rows, atol=1e-3)
    np.testing.assert_allclose(np.square(traces.embedded).mean(axis=-1), 1, atol=1e-4)


def test_rows_after_a_prompt_are_those_of_the_whole_text(model, chosen, folders):
    from dse.measure.material import DensePass

    dense = DensePass.load(folders[0])
    text = chosen[0].tokens[:-1]
    rows = mean_attention(model, text, dense.k, dense.v)
    np.testing.assert_allclose(rows, mean_attention(model, text)[48:], atol=1e-5)


def test_weights_survive_the_file(tmp_path):
    weights, _ = train(
        copy_task(count=6), Recipe(held=3, label=3, state=6, keys=4, steps=1, batch=2, rows=8), quiet
    )
    path = tmp_path / "c.npz"
    save_controller(path, weights, {"model_sha256": "x"})
    again = load(path)
    for f in fields(weights):
        np.testing.assert_array_equal(getattr(again, f.name), getattr(weights, f.name))
    assert provenance(path) == {"model_sha256": "x"}
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match="no controller"):
        load(path)


def setup_for(model, folder, given=None):
    rng = np.random.default_rng(0)
    return Setup(model, "tiny", {"book": rng.integers(0, 50, 8000)}, folder, given)


def test_a_table_is_found_made_and_used(model, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "Recipe", lambda: SMALL)
    setup = setup_for(model, tmp_path)
    path = training.path(Adore({}), setup)
    assert path.parent == tmp_path
    assert not path.exists()
    training.make(Adore({}), setup, path)
    about = provenance(path)
    assert about["recipe"]["steps"] == 4
    low, high = (int(8000 * x) for x in (0.02, 0.12))
    assert all(low <= start and start + 49 <= high for _, start in about["windows"])
    algorithm = Adore({})
    algorithm.prepare(load(path))
    assert algorithm.weights.dim == model.dim


def test_a_named_file_comes_first_and_a_shipped_one_only_for_its_own_model(model, tmp_path):
    named, wide = tmp_path / "mine.npz", tmp_path / "wide.npz"
    for path, dim in ((named, model.dim), (wide, model.dim + 1)):
        save_controller(path, initial(dim, 4, 4, np.random.default_rng(0)), {})
    with pytest.raises(BadInput, match=f"{wide}: a controller of a model {model.dim + 1} wide"):
        training.path(Adore({}), setup_for(model, tmp_path, wide))
    assert training.path(Adore({}), setup_for(model, tmp_path, named)) == named
    other = replace(setup_for(model, tmp_path), known_as="smollm2-135m")
    assert training.path(Adore({}), other).parent == tmp_path


def test_shipped_controller():
    path = shipped("smollm2-135m")
    assert path.stat().st_size < 300_000
    weights, about = load(path), provenance(path)
    assert (weights.dim, weights.state, weights.keys) == (576, 64, 32)
    held = about["held_out"]
    for size in (128, 256):
        assert held[f"window_mass_{size}"] + 0.05 < held[f"mass_{size}"] < held[f"oracle_mass_{size}"]
    assert held["recall"] > held["window_recall"]
    assert json.dumps(about)
