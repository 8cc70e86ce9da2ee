"""Controllers: what they score, what they cost, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from dse.algorithms.contract import Prompt
from dse.algorithms.controllers import GruWeights, buckets, controller, gru_cell, unit_rms
from dse.errors import BadInput
from dse.measure.gru import initial, states


def prompt_of(tokens, *, capacity=12, vocabulary=20, dim=6, column_sum=None, attention=None, seed=0):
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((vocabulary, dim)).astype(np.float32)
    k = [np.zeros((len(tokens), 1, tokens.shape[1], 4), np.float32)] * 2
    column_sum = np.zeros(tokens.shape) if column_sum is None else column_sum
    return Prompt(k, k, 2, capacity, capacity, column_sum, [], tokens, table.__getitem__, (), attention)


def random_weights(dim=6, state=5, keys=3, seed=1):
    rng = np.random.default_rng(seed)
    start = initial(dim, state, keys, rng)
    arrays = {name: getattr(start, name) for name in GruWeights.__annotations__}
    return GruWeights(
        **{n: a + 0.4 * rng.standard_normal(a.shape).astype(np.float32) for n, a in arrays.items()}
    )


def test_scores_follow_the_published_form_written_out_plainly():
    weights = random_weights()
    tokens = np.random.default_rng(2).integers(0, 20, (2, 10))
    prompt = prompt_of(tokens[:, :7])
    learned = controller("gru", prompt, weights=weights, seed=0, horizon=1)
    for t in range(7, 10):
        scores = learned.scores(t, tokens[:, t])
    e = unit_rms(prompt.embed(tokens)).astype(float)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for b in range(2):
        h = np.zeros(5)
        feature = []
        for t in range(10):
            r, z, n = np.split(e[b, t] @ weights.input + weights.input_bias, 3)
            br, bz, bn = np.split(h @ weights.recurrent + weights.recurrent_bias, 3)
            z = sigmoid(z + bz)
            h = (1 - z) * np.tanh(n + sigmoid(r + br) * bn) + z * h
            feature.append(np.concatenate([h, e[b, t]]))
        q = weights.query.T @ h
        for i in range(10):
            bucket = min(9, int(np.floor(np.log2(9 - i + 1))))
            want = q @ (weights.key.T @ feature[i]) / np.sqrt(3) + weights.bias @ feature[i]
            assert scores[b, i] == pytest.approx(want + weights.recency[bucket], abs=1e-5)


def test_training_and_decoding_run_the_same_cell():
    weights = random_weights()
    embedded = unit_rms(np.random.default_rng(0).standard_normal((3, 8, 6)).astype(np.float32))
    state = np.zeros((3, 5), np.float32)
    for t in range(8):
        state = gru_cell(weights, embedded[:, t] @ weights.input + weights.input_bias, state)
        np.testing.assert_allclose(states(weights, embedded)[:, t], state, atol=1e-6)


def test_recency_buckets_double():
    distance = np.array([0, 1, 2, 3, 6, 7, 14, 254, 255, 510, 511, 5000])
    assert buckets(distance).tolist() == [0, 1, 1, 2, 2, 3, 3, 7, 8, 8, 9, 9]


def test_work_of_the_learned_controller():
    """D = 576, h = 64, c = 32, 1000 tokens: the operations of the reconstruction, counted by hand."""
    weights = initial(576, 64, 32, np.random.default_rng(0))
    tokens = np.zeros((1, 4), np.int64)
    prompt = prompt_of(tokens, dim=576)
    work = controller("gru", prompt, weights=weights, seed=0, horizon=1).work(999)
    cell, query, key, bias = 3 * 64 * (576 + 64), 64 * 32, (64 + 576) * 32, 64 + 576
    assert work["controller_macs"] == cell + query + key + bias + 1000 * 32
    weights_read = 576 * 192 + 64 * 192 + 2 * 192 + query + key + bias + 10
    assert work["meta_read_bytes"] == 1000 * 33 * 2 + weights_read * 2
    assert work["meta_write_bytes"] == 33 * 2 + 4


def test_accumulated_adds_what_it_saw_to_what_the_prompt_received():
    start = np.array([[3.0, 1.0, 2.0]])
    heavy = controller(
        "accumulated",
        prompt_of(np.zeros((1, 3), np.int64), column_sum=start),
        weights=None,
        seed=0,
        horizon=1,
    )
    heavy.observe(np.array([[0, 2, 3]]), np.array([[0.5, 0.25, 0.25]]))
    assert heavy.scores(3, np.zeros(1, np.int64)).tolist() == [[3.5, 1.0, 2.25, 0.25]]


def test_oracles_read_the_dense_rows_of_the_current_token_or_of_those_ahead():
    rows = np.random.default_rng(0).random((2, 4, 12))
    prompt = prompt_of(np.zeros((2, 8), np.int64), attention=lambda: rows)
    now = controller("oracle", prompt, weights=None, seed=0, horizon=3).scores(9, np.zeros(2, np.int64))
    np.testing.assert_array_equal(now, rows[:, 1, :10])
    ahead = controller("future", prompt, weights=None, seed=0, horizon=3).scores(9, np.zeros(2, np.int64))
    np.testing.assert_array_equal(ahead, rows[:, 1:4, :10].max(axis=1))
    last = controller("future", prompt, weights=None, seed=0, horizon=3).scores(11, np.zeros(2, np.int64))
    np.testing.assert_array_equal(last, rows[:, 3])


def test_random_follows_its_seed_and_nothing_else():
    prompt, none = prompt_of(np.zeros((2, 3), np.int64)), np.zeros(2, np.int64)

    def draw(seed, position):
        return controller("random", prompt, weights=None, seed=seed, horizon=1).scores(position, none)

    np.testing.assert_array_equal(draw(1, 5), draw(1, 5))
    assert (draw(1, 5) != draw(2, 5)).any()
    assert (draw(1, 5) != draw(1, 6)[:, :6]).any()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("gru", None, "dse profile train"),
        ("gru", random_weights(dim=8), "8"),
        ("oracle", None, "dense run"),
    ],
)
def test_refusals_say_what_is_missing(name, weights, message):
    with pytest.raises(BadInput, match=message):
        controller(name, prompt_of(np.zeros((1, 3), np.int64)), weights=weights, seed=0, horizon=1)


def test_weights_of_wrong_shape_or_not_finite_are_refused():
    good = random_weights()
    arrays = {name: getattr(good, name) for name in GruWeights.__annotations__}
    with pytest.raises(ValueError, match="query"):
        GruWeights(**{**arrays, "query": arrays["query"][:, :2]})
    with pytest.raises(ValueError, match="bias"):
        GruWeights(**{**arrays, "bias": arrays["bias"] * np.nan})
