"""The engine on a tiny network: dense is dense, counts are conserved, the future is out of reach."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from dse.algorithms import build
from dse.measure.counting import COLUMNS
from dse.measure.material import DensePass, Window, attention, prepare
from dse.measure.outcome import load_score, read_header, save_score
from dse.measure.score import score

FLOAT = {"k_bits": 32, "v_bits": 32, "q_bits": 32}


def counter(result, name):
    return result.counters[:, :, COLUMNS[name]]


def test_float_dense_loses_nothing(model, scales, chosen, folders):
    result = score(model, build("dense", FLOAT), scales, chosen, folders)
    np.testing.assert_allclose(result.nll, result.dense_nll, atol=2e-5)
    assert result.kl.max() < 1e-5
    assert result.output_error < 1e-5
    assert result.agree.all()


def test_dense_pass_equals_a_plain_forward(model, chosen, folders):
    hidden = model.forward_dense(chosen[0].tokens[None, :-1])
    logits = model.logits(hidden[0, 48:])
    want = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    np.testing.assert_allclose(DensePass.load(folders[0]).log_probabilities, want, atol=2e-5)


def test_column_sums_are_probability(model, folders):
    """Every prompt query hands out one unit of attention per head and layer."""
    dense = DensePass.load(folders[0])
    assert dense.column_sum.sum() == pytest.approx(48 * 4 * 3, rel=1e-5)


def test_dense_fetches_every_visible_row(model, scales, chosen, folders):
    result = score(model, build("dense"), scales, chosen, folders)
    mean_context = (49 + 64) / 2
    for name in ("group.k_rows_0", "group.v_rows"):
        np.testing.assert_allclose(counter(result, name), mean_context)
    np.testing.assert_allclose(counter(result, "qk_rows_0"), 2 * mean_context)  # two query heads per KV head
    np.testing.assert_allclose(counter(result, "group.k_runs_0"), 1)
    np.testing.assert_allclose(counter(result, "group.rows_written"), 1)
    np.testing.assert_allclose(result.histograms.sum(-1), 1)


@pytest.mark.parametrize("name", ["token-picker", "spatten"])
def test_a_sparse_setting_never_fetches_more_than_dense(model, scales, chosen, folders, name):
    result = score(model, build(name), scales, chosen, folders)
    visible = (49 + 64) / 2
    for c in range(3):
        assert (counter(result, f"group.k_rows_{c}") <= visible + 1e-9).all()
        assert (counter(result, f"head.k_rows_{c}") <= 2 * counter(result, f"group.k_rows_{c}") + 1e-9).all()
        assert (counter(result, f"group.k_runs_{c}") <= counter(result, f"group.k_rows_{c}")).all()
    assert (counter(result, "group.v_rows") <= counter(result, "group.k_rows_0") + 1e-9).all()
    assert (counter(result, "pv_rows") == counter(result, "head.v_rows")).all()
    assert np.isfinite(result.counters).all()


def test_unpruned_spatten_is_dense_at_its_widths(model, scales, chosen, folders):
    """Step-by-step and all-at-once engines meet where neither prunes."""
    sparse = score(
        model,
        build("spatten", {"keep": 1.0, "chunks": "8+4", "confidence": 1.0, "v_bits": 12}),
        scales,
        chosen,
        folders,
    )
    dense = score(model, build("dense"), scales, chosen, folders)
    # One key rounds the other way where float32 sums differ in their last bit: a few losses move by 1e-3.
    np.testing.assert_allclose(sparse.nll, dense.nll, atol=5e-3)
    assert np.median(np.abs(sparse.nll - dense.nll)) < 2e-5
    np.testing.assert_allclose(counter(sparse, "group.v_rows"), counter(dense, "group.v_rows"))


def test_measuring_again_gives_the_same(model, scales, chosen, folders):
    for name in ("token-picker", "spatten"):
        one = score(model, build(name), scales, chosen, folders)
        two = score(model, build(name), scales, chosen, folders)
        np.testing.assert_allclose(one.nll, two.nll, atol=1e-6)
        np.testing.assert_array_equal(one.counters, two.counters)


@pytest.mark.parametrize("name", ["dense", "token-picker", "spatten"])
def test_future_tokens_change_no_earlier_loss(model, scales, chosen, tmp_path, name):
    """The last tokens are replaced: every earlier target's loss stays, bit by bit."""
    first = chosen[0]
    other = Window("other", 0, np.concatenate([first.tokens[:-6], (first.tokens[-6:] + 7) % 50]))
    losses = []
    for window in (first, other):
        folder = list(prepare(model, [window], tmp_path))
        losses.append(score(model, build(name), scales, [window], folder).nll[0])
    assert (losses[0][:-6] == losses[1][:-6]).all()
    assert (losses[0][-6:] != losses[1][-6:]).any()


def test_shards_round_trip_and_refuse_strangers(model, scales, chosen, folders, tmp_path):
    result = score(model, build("token-picker"), scales, chosen, folders)
    path = tmp_path / "a.npz"
    header = json.dumps({"algorithm": "token-picker", "context": 64, "windows": [0, 1, 2]})
    heads = result.counters.shape[:2]
    save_score(path, result, header)
    again = load_score(path, header, heads)
    assert again is not None
    np.testing.assert_allclose(again.nll, result.nll, rtol=1e-6)
    np.testing.assert_allclose(again.counters, result.counters, rtol=1e-6)
    assert load_score(path, header.replace("[0, 1, 2]", "[0, 1]"), heads) is None
    assert load_score(path, header, (heads[0] + 1, heads[1])) is None
    path.write_bytes(path.read_bytes()[:100])
    assert load_score(path, header, heads) is None
    assert load_score(tmp_path / "none.npz", header, heads) is None


def test_local_attention_sees_the_sinks_and_the_window():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 1, 20, 4)).astype(np.float32)
    _, p = attention(q, k, v, 0, local=5)
    rows, columns = np.nonzero(p[0, 0] > 0)
    assert ((rows - columns < 5) | (columns < 4)).all()
    assert (columns <= rows).all()


def test_whose_a_shard_is_costs_no_unpacking(model, scales, chosen, folders, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_score(path, score(model, build("dense"), scales, chosen, folders), "whose")
    read = []
    inner = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda self, one: read.append(one.filename) or inner(self, one)
    )
    assert read_header(path) == "whose"
    assert read == ["header.npy"]
