"""Token-Picker: the golden vector, soundness of the bound, and the slow twin of the stream decisions."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from dse.algorithms import build, token_picker
from dse.algorithms.contract import Call, visible_keys
from dse.algorithms.quantize import Scales, chunk_values, parse_chunks
from dse.algorithms.token_picker import breadth_decisions, score_bounds, stream_decisions
from dse.errors import BadInput

# Integers of a worked case: d = 4, B = 12, chunks 4+4+4, unit 2e-6 logits, threshold 0.01.
KEYS = np.array(
    [
        [1500, -820, 33, -1999],
        [-40, 511, -700, 260],
        [903, -77, 1202, -655],
        [-2048, 2047, -1, 1024],
        [5, -5, 17, -9],
    ],
    float,
)
QUERY = np.array([700, -350, 90, -1200], float)


def event_loop(lower, width, visible, ln_threshold, *, lag, sink_first):
    """The plain simulation: a queue of answers in order of arrival, one test per answer."""
    shape = lower[0].shape
    fetched = [np.zeros(shape, bool) for _ in lower]
    survivors = np.zeros(shape, bool)
    for row in np.ndindex(shape[:-1]):
        seen = visible[row[-1]]
        order = [0, *range(shape[-1] - 1, 0, -1)] if sink_first else list(range(shape[-1]))
        top = max(lower[-1][row][i] for i in np.flatnonzero(seen))
        # (time, place in order, chunk): of answers that arrive together those of older tokens come first.
        order = [token for token in order if seen[token]]
        queue = [(place, place, 0) for place in range(len(order))]
        bound: dict[int, float] = {}
        while queue:
            time, place, b = heapq.heappop(queue)
            token = order[place]
            fetched[b][row][token] = True
            bound[token] = np.exp(min(lower[b][row][token] - top, 0.0))
            upper = lower[b][row][token] + width[b][row][0] - top
            if upper <= np.log(sum(bound.values())) + ln_threshold:
                continue
            if b + 1 == len(lower):
                survivors[row][token] = True
            else:
                heapq.heappush(queue, (time + lag, place, b + 1))
        if not survivors[row].any():
            for mask in (*fetched, survivors):
                mask[row][order[0]] = True
    return fetched, survivors


def random_case(rng, widths, queries=3, keys=40, dim=8, spread=3.0):
    bits = sum(widths)
    top = 2 ** (bits - 1)
    q = rng.integers(-top, top, (1, 1, 2, queries, dim)).astype(float)
    k = rng.integers(-top, top, (1, 1, keys, dim)).astype(float)
    scale = spread / (top**2 * np.sqrt(dim) / 3)
    visible = np.arange(keys)[None, :] <= (keys - queries + np.arange(queries))[:, None]
    return q, k, np.full((1, 1, 1, 1, 1), scale), visible


@pytest.fixture
def golden():
    """Bounds of the worked case: lower bounds and widths in integer units."""
    lower, width = score_bounds(
        QUERY[None, None, None, None], KEYS[None, None], np.ones((1,) * 5), (4, 4, 4), 1.0
    )
    return [x.ravel() for x in lower], [x.ravel()[0] for x in width]


def test_golden_bounds_are_exact(golden):
    lower, width = golden
    assert lower[0].tolist() == [3316750, -1040370, 1245710, -3707890, 1550]
    assert (lower[0] + width[0]).tolist() == [3913450, -443670, 1842410, -3111190, 598250]
    assert lower[1].tolist() == [3712430, -601010, 1527150, -3398290, 2990]
    assert (lower[1] + width[1]).tolist() == [3747530, -565910, 1562250, -3363190, 38090]
    assert lower[2].tolist() == [3738770, -581850, 1553230, -3378940, 17580]
    assert width == [201450 + 395250, 11850 + 23250, 0]


def test_golden_probability_bounds():
    """The stream visits 0, 4, 3, 2, 1; bounds p'' = exp(upper) / D at every test, to 1e-5."""
    unit = 2.0e-6
    lower, width = score_bounds(
        QUERY[None, None, None, None], KEYS[None, None], np.full((1,) * 5, unit), (4, 4, 4), 1.0
    )
    low = [x.ravel() for x in lower]
    wide = [x.ravel()[0] for x in width]
    d, seen, kept = 0.0, {}, []
    for token in (0, 4, 3, 2, 1):
        current, bounds = 0.0, []
        for b in range(3):
            d += np.exp(low[b][token]) - current
            current = np.exp(low[b][token])
            bounds.append(np.exp(low[b][token] + wide[b]) / d)
            if bounds[-1] <= 0.01:
                break
        else:
            kept.append(token)
        seen[token] = bounds
    want = {
        0: [3.298, 1.0727, 1.0],
        4: [1.87039e-3],
        3: [1.1219e-6],
        2: [0.0223687, 0.012708, 0.0124729],
        1: [2.29853e-4],
    }
    for token, bounds in want.items():
        np.testing.assert_allclose(seen[token], bounds, rtol=2e-5 if token else 2e-4)
    assert kept == [0, 2]
    fetched, survivors, _ = stream_decisions(
        lower, width, np.ones((1, 5), bool), np.log(0.01), lag=0, sink_first=True
    )
    assert [int(m.sum()) for m in fetched] == [5, 2, 2]  # 9 of 15 chunks
    assert np.flatnonzero(survivors.ravel()).tolist() == [0, 2]
    exact = lower[-1].ravel()
    p = np.exp(exact) / np.exp(exact).sum()
    np.testing.assert_allclose(p, [0.986776, 1.74332e-4, 0.0124705, 6.484e-7, 5.78142e-4], rtol=1e-4)
    kept_p = p * survivors.ravel() / (p * survivors.ravel()).sum()
    np.testing.assert_allclose(kept_p[[0, 2]], [0.987520, 0.012480], rtol=1e-4)


@pytest.mark.parametrize("lag", [0, 1, 5, 16, 32, 100])
@pytest.mark.parametrize("sink_first", [True, False])
def test_stream_decisions_equal_the_event_loop(lag, sink_first):
    rng = np.random.default_rng([lag, sink_first])
    for widths in [(4, 4, 4), (6, 6), (4, 4)]:
        q, k, unit, visible = random_case(rng, widths)
        lower, width = score_bounds(q, k, unit, widths, 1.0)
        arguments = (lower, width, visible, np.log(rng.choice([0.01, 0.1, 0.5])))
        fast = stream_decisions(*arguments, lag=lag, sink_first=sink_first)
        slow = event_loop(*arguments, lag=lag, sink_first=sink_first)
        for a, b in zip(fast[0], slow[0], strict=True):
            assert (a == b).all()
        assert (fast[1] == slow[1]).all()
        assert fast[1].any(axis=-1).all()


@pytest.mark.parametrize("lag", [0, 5, 100])
@pytest.mark.parametrize("sink_first", [True, False])
@pytest.mark.parametrize("window", [1, 7, 39])
def test_stream_decisions_in_a_sliding_window_equal_the_event_loop(lag, sink_first, window):
    rng = np.random.default_rng([lag, sink_first, window])
    q, k, unit, _ = random_case(rng, (4, 4, 4), queries=6)
    visible = visible_keys(34 + np.arange(6), 40, window)
    lower, width = score_bounds(q, k, unit, (4, 4, 4), 1.0)
    arguments = (lower, width, visible, np.log(rng.choice([0.01, 0.1, 0.5])))
    fast = stream_decisions(*arguments, lag=lag, sink_first=sink_first)
    slow = event_loop(*arguments, lag=lag, sink_first=sink_first)
    for a, b in zip((*fast[0], fast[1]), (*slow[0], slow[1]), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("lag", [0, 16, 1000])
def test_queries_are_decided_alike_in_any_company(lag, monkeypatch):
    """Blocks of queries only share memory: one query at a time gives the same bits."""
    rng = np.random.default_rng(lag)
    q, k, unit, visible = random_case(rng, (4, 4, 4), queries=12)
    lower, width = score_bounds(
        q.astype(np.float32), k.astype(np.float32), unit.astype(np.float32), (4, 4, 4), 1.0
    )
    arguments = (lower, width, visible, np.log(0.02))
    together = stream_decisions(*arguments, lag=lag, sink_first=True)
    for size in (1, 5):
        monkeypatch.setattr(token_picker, "QUERIES", size)
        apart = stream_decisions(*arguments, lag=lag, sink_first=True)
        for a, b in zip((*together[0], *together[1:]), (*apart[0], *apart[1:]), strict=True):
            assert (a == b).all()


@pytest.mark.parametrize("mode", ["stream", "breadth"])
@pytest.mark.parametrize("lag", [0, 3, 64])
def test_a_row_flatter_than_the_threshold_keeps_one_token(mode, lag):
    call = make_call(np.random.default_rng(5))
    flat = Call(0, 1, call.q * 0, call.k, call.v, call.first, call.context, call.scales)
    attended = build("token-picker", {"threshold": 0.3, "mode": mode, "lag": lag}).attend(flat)
    assert attended.v_mask.any(axis=-1).all()
    assert np.isfinite(attended.out).all()


CHUNKINGS = ["4+4+4", "6+6", "12", "4+4", "6+2", "2+2+2+2+2+2", "3+3+3+3", "6+3+3", "8+8", "1+1+1+1+1+1+1+1"]


def test_no_pruned_token_exceeds_the_threshold_in_a_million_rows():
    """At margin scale 1, for any chunking, order, lag and mode: true p of a pruned token <= threshold."""
    rng = np.random.default_rng(7)
    rows = pruned = 0
    while rows < 1_000_000:
        widths = parse_chunks(CHUNKINGS[int(rng.integers(len(CHUNKINGS)))])
        keys = int(rng.integers(2, 24))
        q, k, unit, _ = random_case(rng, widths, queries=4096, keys=keys, dim=4, spread=rng.uniform(0.5, 12))
        visible = np.arange(keys)[None, :] <= rng.integers(0, keys, 4096)[:, None]
        threshold = 10 ** rng.uniform(-4, -0.7)
        lower, width = score_bounds(q, k, unit, widths, 1.0)
        if rng.random() < 0.3:
            _, survivors, _ = breadth_decisions(lower, width, visible, np.log(threshold))
        else:
            # Streams see what decoding sees: here one and the same number of visible tokens for all rows.
            visible = np.arange(keys)[None, :] <= int(rng.integers(0, keys))
            lower = [x.reshape(1, 2, 4096, 1, keys) for x in lower]
            width = [x.reshape(1, 2, 4096, 1, 1) for x in width]
            lag, sink_first = int(rng.integers(0, 30)), bool(rng.random() < 0.5)
            _, survivors, _ = stream_decisions(
                lower, width, visible, np.log(threshold), lag=lag, sink_first=sink_first
            )
        exact = np.where(visible, lower[-1], -np.inf)
        p = np.exp(exact - exact.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        lost = p[np.broadcast_to(visible, p.shape) & ~survivors]
        assert lost.size == 0 or lost.max() <= threshold * (1 + 1e-12)
        pruned += lost.size
        rows += p[..., 0].size
    assert pruned > 1_000_000


@pytest.mark.parametrize("widths", [(4, 4, 4), (6, 6), (12,), (4, 4), (2, 2, 2, 2, 2, 2), (6, 3, 3), (8, 8)])
def test_chunks_add_up_and_remainders_are_not_negative(widths):
    rng = np.random.default_rng(0)
    bits = sum(widths)
    x = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 1000).astype(float)
    chunks = chunk_values(x, widths)
    left, total = bits, np.zeros_like(x)
    for width, chunk in zip(widths, chunks, strict=True):
        left -= width
        total += chunk * 2.0**left
        assert ((x - total >= 0) & (x - total < 2.0**left)).all()
    assert (total == x).all()


def make_call(rng, queries=6, keys=30, dim=16):
    q = rng.standard_normal((1, 2, 3, queries, dim)).astype(np.float32) * 2
    k = rng.standard_normal((1, 2, keys, dim)).astype(np.float32)
    v = rng.standard_normal((1, 2, keys, dim)).astype(np.float32)
    widths = (4, 8, 10, 12, 14, 16)
    scale = {b: np.full(2, 4.5 / 2 ** (b - 1), np.float32) for b in widths}
    channel = {b: np.full((2, dim), 4.5 / 2 ** (b - 1), np.float32) for b in widths}
    q_scale = {b: np.full((2, 3), 9 / 2 ** (b - 1), np.float32) for b in widths}
    return Call(0, 1, q, k, v, keys - queries, keys, Scales(q_scale, scale, scale, channel, channel))


@pytest.mark.parametrize("mode", ["stream", "breadth"])
@pytest.mark.parametrize("chunks", ["4+4+4", "6+6", "12"])
def test_nothing_pruned_is_dense_at_the_same_width(mode, chunks):
    call = make_call(np.random.default_rng(1))
    picked = build("token-picker", {"threshold": 1e-8, "chunks": chunks, "mode": mode}).attend(call)
    dense = build("dense", {"k_bits": 12, "v_bits": 12, "q_bits": 12}).attend(call)
    assert picked.v_mask is not None
    assert (picked.v_mask == np.broadcast_to(call.visible(), picked.v_mask.shape)).all()
    np.testing.assert_allclose(picked.out, dense.out, atol=2e-6)


@pytest.mark.parametrize("mode", ["stream", "breadth"])
def test_lower_thresholds_fetch_no_less(mode):
    call = make_call(np.random.default_rng(2))
    kept = []
    for threshold in (1e-5, 1e-3, 1e-2, 5e-2):
        attended = build("token-picker", {"threshold": threshold, "mode": mode}).attend(call)
        masks = [*attended.k_masks, attended.v_mask]
        assert all((a | ~b).all() for a, b in zip(masks, masks[1:], strict=False))  # nested
        kept.append([int(m.sum()) for m in masks])
    assert all((np.array(a) >= np.array(b)).all() for a, b in zip(kept, kept[1:], strict=False))


def test_future_tokens_change_nothing():
    rng = np.random.default_rng(3)
    call = make_call(rng)
    for knobs in ({}, {"mode": "breadth"}, {"order": "chronological"}):
        algorithm = build("token-picker", {"threshold": 1e-2, **knobs})
        one = algorithm.attend(call)
        k, v = call.k.copy(), call.v.copy()
        k[:, :, -2:], v[:, :, -2:] = 9.0, -9.0
        two = algorithm.attend(Call(0, 1, call.q, k, v, call.first, call.context, call.scales))
        assert (one.out[..., :-2, :] == two.out[..., :-2, :]).all()
        for a, b in zip([*one.k_masks, one.v_mask], [*two.k_masks, two.v_mask], strict=True):
            assert (a[..., :-2, :] == b[..., :-2, :]).all()


@pytest.mark.parametrize("chunks", ["", "4+", "0+4", "4x3", "9+9", "-4+8"])
def test_bad_chunks_are_named(chunks):
    with pytest.raises(BadInput, match="chunks"):
        build("token-picker", {"chunks": chunks})
