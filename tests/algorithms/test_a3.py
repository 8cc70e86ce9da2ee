"""A3: the published example, the efficient search against plain ones, fixed point, counters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dse.algorithms import build
from dse.algorithms.a3 import candidates, parse_format
from dse.algorithms.greedy_search import greedy_search
from dse.errors import BadInput

KEYS = np.array([[-0.6, 0.1, 0.8], [0.1, -0.2, -0.9], [0.8, 0.6, 0.7], [0.5, 0.7, 0.5]])
QUERY = np.array([0.8, -0.3, 0.4])


def search(q, keys, counts, steps, skip=True):
    """`greedy_search` of one query per entry of `counts`."""
    counts, steps = np.asarray(counts), np.asarray(steps)
    return greedy_search(q, keys, counts, steps, skip)


def pointer_search(q, keys, steps, skip=True):
    """The efficient form as published: a pointer per column and end; returns greedy scores and pops."""
    n, d = keys.shape
    order = [sorted(range(n), key=lambda i: (keys[i, c], i)) for c in range(d)]
    if_up = [q[c] > 0 for c in range(d)]
    popped_top, popped_bottom = [0] * d, [0] * d
    score, total = np.zeros(n), np.float64(0)
    used = {"max": [0] * d, "min": [0] * d}

    def pop(side):
        best, where = None, None
        for c in range(d):
            if used[side][c] >= n:
                continue
            from_top = if_up[c] if side == "max" else not if_up[c]
            row = order[c][n - 1 - used[side][c]] if from_top else order[c][used[side][c]]
            value = keys[row, c] * q[c]
            if best is None or (value > best if side == "max" else value < best):
                best, where = value, (c, row, from_top)
        if where is None:
            return 0.0, 0
        used[side][where[0]] += 1
        (popped_top if where[2] else popped_bottom)[where[0]] += 1
        return best, where[1]

    for _ in range(steps):
        value, row = pop("max")
        if value > 0:
            score[row] += value
            total += value
        if not skip or total >= 0:
            value, row = pop("min")
            if value < 0:
                score[row] += value
                total += value
    return score, popped_top, popped_bottom


def product_search(q, keys, steps):
    """The base form: the k-th largest and the k-th smallest of all products in iteration k."""
    products = keys * q
    order = np.argsort(products, axis=None)
    score = np.zeros(len(keys))
    for best, worst in zip(order[::-1][:steps], order[:steps], strict=True):
        for at, sign in ((best, 1), (worst, -1)):
            value = products.flat[at]
            score[at // keys.shape[1]] += value if value * sign > 0 else 0.0
    return score


def test_published_example():
    """Figures 6 and 8 of the paper; greedy scores after one, two and three iterations, candidates 2 and 3."""
    want = [(-0.48, 0, 0.64, 0), (-0.48, -0.36, 0.64, 0.40), (-0.16, -0.36, 0.64, 0.19)]
    for steps, scores in enumerate(want, 1):
        found = search(QUERY[None], KEYS, [4], [steps])
        np.testing.assert_allclose(found.score[0], scores, atol=1e-12)
    assert np.flatnonzero(candidates(found.score, np.ones(4, bool))[0]).tolist() == [2, 3]
    np.testing.assert_allclose(KEYS @ QUERY, [-0.19, -0.22, 0.74, 0.39])


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("levels", [0, 1, 5])
def test_search_equals_the_pointer_form(skip, levels):
    """Queries that see different stretches of keys, float32 as measured; with coarse values ties are common."""
    for seed in range(20):
        rng = np.random.default_rng([levels, skip, seed])
        shift, gain = rng.standard_normal((2, 7)) * [
            [1.0],
            [10.0],
        ]  # columns far from zero, columns of any size
        keys = (rng.standard_normal((30, 7)) + shift) * np.exp(gain * (seed % 3) / 10)
        q = rng.standard_normal((12, 7)) * (rng.random(7) < 0.8)  # some columns no query looks at
        if levels:
            keys = rng.integers(-levels, levels, (30, 7)) * 0.5
            q = rng.integers(-levels, levels, (12, 7)) * 1.0
        keys, q = keys.astype(np.float32), q.astype(np.float32)
        seen = np.array([1, 2, 5, 9, 14, 20, 25, 26, 27, 28, 29, 30])
        begin = np.array([0, 0, 0, 0, 3, 10, 0, 20, 0, 0, 28, 0])
        steps = rng.integers(1, [8, 60, 400][seed % 3], 12)
        found = greedy_search(q, keys, seen, steps, skip, begin)
        for i, part in enumerate(map(slice, begin, seen)):
            score, top, bottom = pointer_search(q[i], keys[part], int(steps[i]), skip)
            assert (found.score[i, part] == score).all()
            assert np.count_nonzero(found.score[i]) == np.count_nonzero(score)
            assert (found.top[i].tolist(), found.bottom[i].tolist()) == (top, bottom)


@pytest.mark.parametrize("steps", [100, 1000])
def test_long_searches_equal_the_pointer_form(steps, monkeypatch):
    """Columns of many blocks, one of them far above the rest, as in a language model; split as large calls are."""
    monkeypatch.setattr("dse.algorithms.greedy_search.TOGETHER", 3)
    rng = np.random.default_rng(steps)
    keys = rng.standard_normal((300, 12)).astype(np.float32)
    keys[:, 3] += 9
    keys[:, 5] *= 1e-3
    q = rng.standard_normal((8, 12)).astype(np.float32) - 0.3
    found = search(q, keys, np.arange(200, 296, 12), np.full(8, steps))
    for i, n in enumerate(range(200, 296, 12)):
        score, top, bottom = pointer_search(q[i], keys[:n], steps)
        assert (found.score[i, :n] == score).all()
        assert (found.top[i].tolist(), found.bottom[i].tolist()) == (top, bottom)


def test_search_without_skipping_equals_the_base_form():
    rng = np.random.default_rng(1)
    for _ in range(100):
        n, d = int(rng.integers(2, 40)), int(rng.integers(1, 9))
        keys, q, steps = (
            rng.standard_normal((n, d)),
            rng.standard_normal((1, d)),
            int(rng.integers(1, n * d + 1)),
        )
        found = search(q, keys, [n], [steps], skip=False)
        np.testing.assert_allclose(found.score[0], product_search(q[0], keys, steps), atol=1e-12)


def test_a_complete_search_without_skipping_gives_true_scores():
    rng = np.random.default_rng(2)
    keys, q = rng.standard_normal((20, 6)), rng.standard_normal((3, 6))
    found = search(q, keys, [20] * 3, [120] * 3, skip=False)
    np.testing.assert_allclose(found.score, q @ keys.T, atol=1e-12)


def test_no_positive_row_falls_back_to_the_largest_score():
    visible = np.array([[True, True, True, False]])
    score = np.array([[-1.0, -0.5, -0.5, 0.0]])
    assert np.flatnonzero(candidates(score, visible)[0]).tolist() == [2]


@pytest.mark.parametrize("fetch", ["all", "demand"])
@pytest.mark.parametrize("post", [0.0, 20.0])
def test_equals_the_plain_loop(fetch, post, make_call, rows):
    call = make_call(3)
    attended = build("a3", {"search": 0.4, "post": post, "fetch": fetch}).attend(call)
    step_q, step_k = call.scales.q[12][0, 0], call.scales.k[12][0]
    q = np.rint(call.q / step_q) * step_q
    k = np.rint(call.k / step_k) * step_k
    found_rows, kept_rows, seen, steps = 0, 0, 0, 0
    group_elements, reach = 0, {}
    for at, s, v in rows(call):
        b, h, _, t = at
        n = len(s)
        score, top, bottom = pointer_search(q[at], k[b, h, :n], int(0.4 * n))
        found = [i for i in range(n) if score[i] > 0]
        best = max(s[found])
        kept = [i for i in found if post == 0 or best - s[i] <= -math.log(post / 100)]
        p = np.exp(s[kept] - best)
        np.testing.assert_allclose(attended.out[at], p @ v[kept] / p.sum(), atol=3e-6)
        if fetch == "demand":
            assert np.flatnonzero(attended.k_masks[0][at]).tolist() == found
            assert np.flatnonzero(attended.v_mask[at]).tolist() == kept
        if h == 0:
            found_rows, kept_rows, seen = found_rows + len(found), kept_rows + len(kept), seen + n
            steps += int(0.4 * n)
            for c in range(16):
                high, low = reach.get((t, c), (0, 0))
                reach[t, c] = max(high, top[c] + 4), max(low, bottom[c] + 4)
    group_elements = sum(min(high + low, call.first + t + 1) for (t, _), (high, low) in reach.items())
    work = {name: np.broadcast_to(total, 2)[0] for name, total in attended.work.items()}
    assert work["search_steps"] == steps
    assert work["compares"] == seen + (found_rows if post else 0)
    assert work["exponentials"] == work["divisions"] == kept_rows
    assert work.get("row_waits", 0) == (18 if post else 0)
    assert work["sort_elements"] == 6 * 16
    assert work["estimate_macs"] == 18 * 8 * 16
    entry = (12 + 6) / 8  # bytes: a 12-bit value and the number of one of 40 rows
    assert work["group.meta_write_bytes"] == 6 * 16 * entry
    if fetch == "all":
        assert (work["qk_rows_0"], work["pv_rows"]) == (found_rows, kept_rows)
        assert work["group.meta_read_bytes"] == seen / 3 * 16 * entry
        assert attended.k_masks == (None,)
        assert attended.v_mask is None
    else:
        assert work["group.meta_read_bytes"] == group_elements * entry
        assert work["group.meta_read_bytes"] < work["head.meta_read_bytes"]


def test_blocks_of_queries_change_nothing(make_call, monkeypatch):
    call = make_call(4)
    algorithm = build("a3", {"fetch": "demand"})
    whole = algorithm.attend(call)
    monkeypatch.setattr("dse.algorithms.greedy_search.TOGETHER", 5)
    parts = algorithm.attend(call)
    assert (whole.out == parts.out).all()
    assert (whole.k_masks[0] == parts.k_masks[0]).all()
    assert all((np.asarray(whole.work[n]) == np.asarray(parts.work[n])).all() for n in whole.work)


def test_a_smaller_percentage_keeps_a_superset(make_call):
    call = make_call(5)
    masks = [
        build("a3", {"fetch": "demand", "post": post}).attend(call).v_mask for post in (100.0, 20.0, 5.0, 0.0)
    ]
    assert all((~a | b).all() for a, b in zip(masks, masks[1:], strict=False))
    assert (masks[0].sum(axis=-1) >= 1).all()


def test_fixed_point_follows_the_published_widths(make_call):
    call = make_call(6)
    algorithm = build("a3", {"format": "4.4", "search": 0.0, "post": 0.0})
    form = algorithm.form()
    assert (form.k_chunk_bits, form.v_bits, form.q_bits) == ((9,), 9, 9)
    out = algorithm.attend(call).out
    for at in np.ndindex(call.q.shape[:4]):
        b, h, _, t = at
        n = call.first + t + 1
        q, k, v = (
            np.clip(np.rint(x * 16) / 16, -15.9375, 15.9375)
            for x in (call.q[at], call.k[b, h, :n], call.v[b, h, :n])
        )
        s = k @ q / 4
        e = np.rint(np.exp(s - s.max()) * 256) / 256
        np.testing.assert_allclose(out[at], np.rint(e / e.sum() * 256) / 256 @ v, atol=1e-5)


def test_more_fraction_bits_come_closer(make_call):
    call = make_call(7)
    exact = build("dense", {"k_bits": 32, "v_bits": 32, "q_bits": 32}).attend(call).out
    errors = [
        np.abs(build("a3", {"format": f, "search": 0.0, "post": 0.0}).attend(call).out - exact).mean()
        for f in ("4.2", "4.4", "4.6", "4.8")
    ]
    assert errors == sorted(errors, reverse=True)


def test_when_values_are_known():
    assert build("a3").form().v_after == "none"
    assert build("a3", {"fetch": "demand"}).form().v_after == "row"
    assert build("a3", {"fetch": "demand", "post": 0.0}).form().v_after == "none"


@pytest.mark.parametrize("text", ["4", "4.", "0.4", "4.9", "a.b", "4.4.4", ""])
def test_bad_formats_are_named(text):
    with pytest.raises(BadInput, match=r"a3\.format"):
        build("a3", {"format": text})


def test_widths_beside_a_fixed_format_are_refused():
    assert parse_format("4.4") == (4, 4)
    with pytest.raises(BadInput, match=r"a3\.k_bits: has no effect with format = '4\.4'"):
        build("a3", {"format": "4.4", "k_bits": 8})
