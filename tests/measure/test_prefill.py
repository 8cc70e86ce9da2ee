"""The prompt phase on a tiny network: dense is dense, unions are unions, the future is out of reach."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from dse.algorithms import TopTheta, build
from dse.algorithms.contract import Algorithm, Attended
from dse.algorithms.prompt import Passage
from dse.errors import BadInput
from dse.measure.calibrate import calibrate, load_scales, save_scales
from dse.measure.counting import COLUMNS, TILE_COLUMNS, TileTally
from dse.measure.material import Expected, Window, attention
from dse.measure.outcome import load_score, save_score
from dse.measure.prefill import (
    Cache,
    dense,
    prefill_windows,
    prepare_prefill,
    prompt_length,
    read_on,
    score_prefill,
)
from dse.measure.thresholds import calibrate_thresholds
from dse.profiles.schema import QUERY_TILES

FLOAT = {"k_bits": 32, "v_bits": 32, "q_bits": 32}
LENGTH = 160
SPARSE = {
    "mnnfast": {"threshold": 0.02, "gate": True},
    "a3": {"search": 0.5, "fetch": "demand"},
    "oracle-top-k": {},
    "spatten": {"keep": 0.5, "front": 0.0, "value_keep": 0.4, "head_keep": 0.6, "confidence": 0.3},
}


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(7)
    return {"one": rng.integers(0, 50, 3000), "two": rng.integers(0, 50, 3000)}


@pytest.fixture(scope="module")
def chosen(texts):
    return prefill_windows(texts, "selection", LENGTH, 2, seed=0)


@pytest.fixture(scope="module")
def folders(model, chosen, tmp_path_factory):
    return list(prepare_prefill(model, chosen, tmp_path_factory.mktemp("prefill")))


@pytest.fixture(scope="module")
def scales(model, chosen, tmp_path_factory):
    path = tmp_path_factory.mktemp("scales") / "scales.npz"
    save_scales(path, calibrate(model, chosen))
    return load_scales(path)


@pytest.fixture(scope="module")
def measured(model, scales, chosen, folders):
    return {
        name: score_prefill(model, build(name, knobs), scales, chosen, folders)
        for name, knobs in SPARSE.items()
    }


def counter(result, name):
    return result.counters[:, :, COLUMNS[name]]


def tile(result, name):
    return result.tile_counters[..., TILE_COLUMNS[name]]


def test_a_window_is_a_prompt_and_a_quarter_more(chosen):
    assert all(len(w.tokens) == LENGTH + LENGTH // 4 + 1 for w in chosen)
    assert all(prompt_length(w) == LENGTH for w in chosen)


@pytest.mark.parametrize("context", [0, 2, 4, 60, 64, 256, 1000, 1024, 4096])
def test_the_prompt_length_comes_back_from_the_window(context):
    if context in (0, 2):
        with pytest.raises(BadInput, match="multiple of 4"):
            prefill_windows({}, "selection", context, 1, 0)
        return
    assert prompt_length(Window("", 0, np.zeros(context + context // 4 + 1, np.int64))) == context


def test_float_dense_loses_nothing(model, scales, chosen, folders):
    result = score_prefill(model, build("dense", FLOAT), scales, chosen, folders)
    assert result.nll.shape == (2, LENGTH // 4)
    np.testing.assert_allclose(result.nll, result.dense_nll, atol=2e-5)
    assert result.kl.max() < 1e-5
    assert result.output_error < 1e-5


def test_the_reference_is_a_plain_forward_pass(model, chosen, folders):
    hidden = model.forward_dense(chosen[0].tokens[None, :-1])
    logits = model.logits(hidden[0, LENGTH:]).astype(np.float64)
    want = logits - logits.max(-1, keepdims=True)
    want -= np.log(np.exp(want).sum(-1, keepdims=True))
    np.testing.assert_allclose(Expected.load(folders[0]).log_probabilities, want, atol=3e-5)


def test_references_of_other_texts_do_not_mix(model, chosen, tmp_path):
    other = Window(chosen[0].book, chosen[0].start, (chosen[0].tokens + 1) % 50)
    first, second = prepare_prefill(model, [chosen[0], other], tmp_path)
    assert first != second
    again = next(prepare_prefill(model, chosen, tmp_path))
    assert again == first
    assert (Expected.load(first).log_probabilities != Expected.load(second).log_probabilities).any()


def test_dense_fetches_every_pair_once_per_tile(model, scales, chosen, folders):
    result = score_prefill(model, build("dense"), scales, chosen, folders)
    pairs = LENGTH * (LENGTH + 1) / 2
    for name in ("group.k_rows_0", "group.v_rows"):
        np.testing.assert_allclose(counter(result, name), pairs)
    np.testing.assert_allclose(counter(result, "qk_rows_0"), 2 * pairs)  # two query heads per KV head
    np.testing.assert_allclose(counter(result, "group.rows_written"), LENGTH)
    for level, size in enumerate(QUERY_TILES):
        ends = [min(start + size, LENGTH) for start in range(0, LENGTH, size)]
        np.testing.assert_allclose(tile(result, "group.k_rows_0")[level], sum(ends))
        np.testing.assert_allclose(tile(result, "head.v_rows")[level], 2 * sum(ends))
        np.testing.assert_allclose(tile(result, "group.v_runs")[level], len(ends))
    np.testing.assert_allclose(result.histograms.sum(-1), 1)


@pytest.mark.parametrize("name", SPARSE)
def test_unions_lie_between_their_largest_member_and_the_sum(measured, name):
    result = measured[name]
    columns = [COLUMNS[column] for column in TILE_COLUMNS]
    np.testing.assert_array_equal(result.tile_counters[0], result.counters[:, :, columns])
    assert (np.diff(result.tile_counters, axis=0) <= 1e-9).all()
    for column in ("k_rows_0", "v_rows"):
        group, head = tile(result, f"group.{column}"), tile(result, f"head.{column}")
        assert (group <= head + 1e-9).all()
        assert (head <= 2 * group + 1e-9).all()
        for level, size in enumerate(QUERY_TILES):
            assert (
                result.tile_counters[0, ..., TILE_COLUMNS[f"group.{column}"]] <= size * group[level] + 1e-9
            ).all()
    pairs = LENGTH * (LENGTH + 1) / 2
    assert (counter(result, "group.k_rows_0") <= pairs + 1e-9).all()
    assert (counter(result, "group.v_rows") <= counter(result, "group.k_rows_0") + 1e-9).all()
    assert np.isfinite(result.counters).all()
    assert np.isfinite(result.nll).all()


@pytest.mark.parametrize("name", SPARSE)
def test_counters_equal_masks_counted_by_hand(model, scales, chosen, folders, measured, name, monkeypatch):
    """Everything the algorithm asked for, gathered whole, against the totals; tiles too."""
    seen = []
    add = TileTally.add
    monkeypatch.setattr(
        TileTally,
        "add",
        lambda self, *call: (seen.append((call[0], call[1].start, *call[2:])), add(self, *call))[1],
    )
    score_prefill(model, build(name, SPARSE[name]), scales, chosen[:1], folders[:1])
    result = score_prefill(model, build(name, SPARSE[name]), scales, chosen[:1], folders[:1])
    for layer in range(3):
        for h in range(2):
            mine = [x for x in seen[: len(seen) // 2] if x[:2] == (layer, h)]
            parts = []
            for *_, attended, visible in mine:
                mask = visible[None, None, None] if attended.v_mask is None else attended.v_mask
                wide = np.zeros((2, visible.shape[0], LENGTH), bool)
                wide[..., : visible.shape[1]] = mask[0, 0]
                parts.append(wide)
            whole = np.concatenate(parts, axis=1)
            for level, size in enumerate(QUERY_TILES):
                unions = [whole[:, s : s + size].any(axis=(0, 1)) for s in range(0, whole.shape[1], size)]
                assert tile(result, "group.v_rows")[level, layer, h] == sum(u.sum() for u in unions)
            everyone = whole.any(axis=(0, 1)).sum()
            assert tile(result, "group.v_rows")[-1, layer, h] >= everyone


@pytest.mark.parametrize("name", ["dense", "mnnfast", "a3", "oracle-top-k"])
def test_later_prompt_tokens_change_nothing_before_them(model, scales, chosen, name):
    """Queries of a block and their masks do not move when the tokens behind them do."""
    from dse.measure.outcome import Errors
    from dse.measure.prefill import _prompt, _Stateless

    changed = chosen[0].tokens.copy()
    changed[100:] = (changed[100:] + 11) % 50

    def masks(tokens):
        kept = []

        class Keep(TileTally):
            def add(self, layer, heads, attended, visible):
                kept.append((layer, heads.start, attended, visible))

        passage = Passage(3, 2, 2, LENGTH, 32, scales, model.windows)
        run = _Stateless(build(name, SPARSE.get(name, {})), passage)
        cache = _prompt(model, Window("", 0, tokens), run, Keep(3, 2), Errors())
        return kept, cache

    before, left = masks(chosen[0].tokens)
    after, left_after = masks(changed)
    blocks = LENGTH // 32
    checked = 0
    for number, (a, b) in enumerate(zip(before, after, strict=True)):
        if number % blocks >= 100 // 32:
            continue
        assert (a[2].out == b[2].out).all()
        for x, y in zip((*a[2].k_masks, a[2].v_mask), (*b[2].k_masks, b[2].v_mask), strict=True):
            assert x is y is None or (x == y).all()
            checked += x is not None
    assert checked or name == "dense"
    for x, y in zip(left.k, left_after.k, strict=True):
        assert (x[:, :96] == y[:, :96]).all()
        assert (x[:, 100:] != y[:, 100:]).any()


def test_unpruned_spatten_is_dense_at_its_widths(model, scales, chosen, folders):
    knobs = {"keep": 1.0, "chunks": "8+4", "confidence": 1.0, "v_bits": 12}
    sparse = score_prefill(model, build("spatten", knobs), scales, chosen, folders)
    plain = score_prefill(model, build("dense"), scales, chosen, folders)
    # One key rounds the other way where float32 sums differ in their last bit.
    np.testing.assert_allclose(sparse.nll, plain.nll, atol=0.02)
    assert abs(sparse.nll.mean() - plain.nll.mean()) < 2e-3
    for c in ("k_rows_0", "v_rows"):
        np.testing.assert_array_equal(tile(sparse, f"group.{c}"), tile(plain, f"group.{c}"))
    # The first query sees itself alone with probability 1: no second pass.
    again, pairs = tile(sparse, "group.k_rows_1"), tile(plain, "group.k_rows_0")
    np.testing.assert_array_equal(again[0], pairs[0] - 1)
    np.testing.assert_array_equal(again[1:], pairs[1:])


def test_what_a_prompt_left_decides_the_continuation(model, chosen):
    """Reading on over a cache without a token is a dense pass in which nobody sees it."""
    window = chosen[0]
    positions = np.arange(LENGTH)
    whole = Cache([], [], [])

    def attend(layer, q, k, v):
        whole.k.append(k[0])
        whole.v.append(v[0])
        whole.positions.append(positions)
        return attention(q, k, v, 0)[0]

    model.run(window.tokens[None, :LENGTH], positions, attend)
    gone = 17
    left = np.delete(positions, gone)
    cut = Cache([k[:, left] for k in whole.k], [v[:, left] for v in whole.v], [left] * 3)
    got = read_on(model, window, cut)

    def blind(layer, q, k, v):
        keys, values = (
            np.concatenate([x[layer], y[0]], axis=1)[None] for x, y in ((whole.k, k), (whole.v, v))
        )
        scores = q.reshape(1, 2, -1, 8) @ keys.swapaxes(-1, -2) * 8**-0.5
        scores = scores.reshape(1, 2, 2, q.shape[2], -1)
        future = np.arange(keys.shape[2])[None] > LENGTH + np.arange(q.shape[2])[:, None]
        future[:, gone] = True
        scores[..., future] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return (p.reshape(1, 2, -1, keys.shape[2]) @ values).reshape(q.shape)

    more = np.arange(LENGTH, LENGTH + LENGTH // 4)
    want = model.run(window.tokens[None, LENGTH:-1], more, blind)[0]
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert np.abs(got - read_on(model, window, whole)).max() > 1e-3


def test_dense_with_a_window_equals_the_masked_softmax():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((h, 150, 8)).astype(np.float32) for h in (4, 2, 2))
    want, _ = attention(q[None], k[None], v[None], 0, window=20)
    positions = np.arange(150)
    np.testing.assert_allclose(dense(q, k, v, positions, positions, window=20), want[0], atol=2e-6)
    some = positions[3::8]
    np.testing.assert_allclose(
        dense(q[:, some], k, v, some, positions, window=20), want[0][:, some], atol=2e-6
    )
    near, _ = attention(q[None], k[None], v[None], 0, local=20)
    np.testing.assert_allclose(dense(q, k, v, positions, positions, local=20), near[0], atol=2e-6)


@pytest.mark.parametrize("name", ["dense", "mnnfast", "spatten"])
def test_sliding_window_layers_fetch_no_more_than_their_window(tmp_path, model, scales, chosen, name):
    model = copy.copy(model)
    model.windows = (0, 24, 24)
    folders = list(prepare_prefill(model, chosen[:1], tmp_path))
    knobs = {
        "spatten": {"keep": 1.0, "chunks": "8"},
        "dense": FLOAT,
        "mnnfast": {"gate": True, "threshold": 1e-8},
    }
    result = score_prefill(model, build(name, knobs[name]), scales, chosen[:1], folders)
    rows = counter(result, "group.k_rows_0")
    narrow = sum(min(t + 1, 24) for t in range(LENGTH))
    np.testing.assert_array_equal(
        rows, np.array([[LENGTH * (LENGTH + 1) / 2] * 2, [narrow] * 2, [narrow] * 2])
    )
    assert (np.diff(result.tile_counters, axis=0) <= 0).all()
    if name == "dense":
        np.testing.assert_allclose(result.nll, result.dense_nll, atol=2e-5)


def test_a_shard_keeps_the_tiles(tmp_path, measured):
    result = measured["mnnfast"]
    shape = {"windows": [0] * len(result.nll), "context": result.nll.shape[1] * 4}
    header = json.dumps({"algorithm": "mnnfast", "phase": "prefill", **shape})
    save_score(tmp_path / "s.npz", result, header)
    back = load_score(tmp_path / "s.npz", header, result.counters.shape[:2])
    np.testing.assert_array_equal(back.tile_counters, result.tile_counters.astype(np.float32))


def test_an_algorithm_without_a_prompt_phase_is_refused(model, scales, chosen, folders):
    class Decoder(Algorithm):
        name, summary, source, knobs, stateful = "decoder", "", "", (), True

        def form(self):
            raise NotImplementedError

    with pytest.raises(BadInput, match="decoder: has no prompt phase"):
        score_prefill(model, Decoder(), scales, chosen, folders)


def test_masks_of_pruned_tokens_never_reach_later_layers(model, scales, chosen, folders, monkeypatch):
    notes: dict[int, list[tuple[Attended, np.ndarray]]] = {}
    add = TileTally.add

    def spy(self, layer, heads, attended, visible):
        notes.setdefault(layer, []).append((attended, visible))
        add(self, layer, heads, attended, visible)

    monkeypatch.setattr(TileTally, "add", spy)
    result = score_prefill(
        model, build("spatten", {"schedule": "1:0.5,2:0.25", "chunks": "8"}), scales, chosen[:1], folders[:1]
    )
    left = [np.any([visible.any(axis=0) for _, visible in notes[layer]], axis=0) for layer in range(3)]
    assert [int(x.sum()) for x in left] == [LENGTH, LENGTH // 2, LENGTH // 4]
    assert not (left[1] & ~left[0]).any()
    assert not (left[2] & ~left[1]).any()
    assert all(x[-1] for x in left)
    np.testing.assert_array_equal(
        counter(result, "group.rows_written")[:, 0], [LENGTH, LENGTH // 2, LENGTH // 4]
    )


def test_calibrated_thresholds_serve_a_prompt_of_any_row_length(model, scales, chosen, folders):
    algorithm = build("top-theta", {"k": 12, "k0": 30})
    assert isinstance(algorithm, TopTheta)
    tokens = np.stack([w.tokens[:LENGTH] for w in chosen])
    algorithm.prepare(calibrate_thresholds(model, tokens, "post", algorithm.aims(3), 0.0))
    result = score_prefill(model, algorithm, scales, chosen, folders)
    pairs = 2 * LENGTH * (LENGTH + 1) / 2
    np.testing.assert_allclose(counter(result, "qk_rows_0"), pairs)  # every score is computed
    kept = counter(result, "pv_rows")
    for layer, aim in enumerate((30, 30, 12)):
        want = 2 * sum(min(row, aim) for row in range(1, LENGTH + 1))
        assert (np.abs(kept[layer] / want - 1) < 0.25).all()
    assert (np.diff(tile(result, "group.v_rows"), axis=0) <= 0).all()
    assert (result.nll - result.dense_nll).mean() < 0.5
