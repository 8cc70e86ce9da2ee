"""Oracles, windows and page selection: kept sets, counters, and the dense limit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dse.algorithms import build
from dse.algorithms.operands import largest
from dse.algorithms.pages import page_bounds
from dse.errors import BadInput
from dse.measure.counting import COLUMNS, Tally

DENSE = {
    "oracle-top-k": {"k": 1000},
    "oracle-threshold": {"threshold": 1e-8},
    "window": {"recent": 1000},
    "quest": {"budget": 1000},
    "mnnfast": {"threshold": 1e-8},
    "a3": {"search": 0.0, "post": 0.0},
}
PRUNING = {
    "oracle-top-k": {"k": 5},
    "oracle-threshold": {"threshold": 0.03},
    "window": {"recent": 7, "sinks": 2},
    "quest": {"budget": 12, "page": 4},
    "mnnfast": {"threshold": 0.03, "gate": True},
    "a3": {"fetch": "demand", "search": 0.5, "post": 10.0},
}


@pytest.mark.parametrize("name", sorted(DENSE))
def test_nothing_pruned_is_dense_at_the_same_width(name, make_call):
    call = make_call(1)
    dense = build("dense").attend(call)
    attended = build(name, DENSE[name]).attend(call)
    np.testing.assert_allclose(attended.out, dense.out, atol=2e-6)
    for mask in [*attended.k_masks, attended.v_mask]:
        assert mask is None or (mask == np.broadcast_to(call.visible(), mask.shape)).all()


@pytest.mark.parametrize("name", sorted(PRUNING))
def test_future_tokens_change_nothing(name, make_call, past_unchanged):
    for keys in (40, 41, 43):
        assert past_unchanged(build(name, PRUNING[name]), make_call(2, keys=keys))


@pytest.mark.parametrize("name", sorted(PRUNING))
def test_every_counter_is_in_the_schema_and_inputs_are_left_alone(name, make_call):
    call = make_call(3)
    before = [a.copy() for a in (call.q, call.k, call.v)]
    for knobs in ({}, PRUNING[name]):
        attended = build(name, knobs).attend(call)
        assert set(attended.work) <= set(COLUMNS)
        tally = Tally(4, 2)
        tally.add(2, slice(None), attended, call.visible())
        assert np.isfinite(tally.counters).all()
        assert (tally.counters >= 0).all()
    assert all((a == b).all() for a, b in zip(before, (call.q, call.k, call.v), strict=True))


@pytest.mark.parametrize("name", sorted(PRUNING))
def test_one_head_at_a_time_is_the_same(name, make_call):
    call = make_call(4)
    algorithm = build(name, PRUNING[name])
    whole, together, apart = algorithm.attend(call), Tally(4, 2), Tally(4, 2)
    together.add(2, slice(None), whole, call.visible())
    for h in range(2):
        one = slice(h, h + 1)
        part = dataclasses.replace(
            call, q=call.q[:, one], k=call.k[:, one], v=call.v[:, one], scales=call.scales.head(h)
        )
        attended = algorithm.attend(part)
        np.testing.assert_allclose(attended.out, whole.out[:, one], atol=1e-6)
        apart.add(2, one, attended, call.visible())
    np.testing.assert_allclose(apart.counters, together.counters)


@pytest.mark.parametrize(
    ("name", "knob", "rising"),
    [
        ("oracle-top-k", "k", (1, 4, 9, 30)),
        ("oracle-threshold", "threshold", (0.2, 0.05, 1e-2, 1e-3)),
        ("window", "recent", (1, 5, 20)),
        ("window", "sinks", (0, 3, 30)),
        ("quest", "budget", (4, 8, 20, 36)),
    ],
)
def test_a_looser_knob_keeps_a_superset(name, knob, rising, make_call):
    call = make_call(5)
    masks = [
        build(name, {**PRUNING[name], "page": 4} if name == "quest" else PRUNING[name]).check(
            {**PRUNING[name], knob: value}, name
        )
        for value in rising
    ]
    kept = [build(name, dict(settings)).attend(call).v_mask for settings in masks]
    assert all((~a | b).all() for a, b in zip(kept, kept[1:], strict=False))
    assert kept[0].sum() < kept[-1].sum()


def test_uncalibrated_widths_are_named(make_call):
    with pytest.raises(
        BadInput, match=r"window\.k_bits: no calibrated scale for 9 bits; calibrated: 4, 8, 12, 16"
    ):
        build("window", {"k_bits": 9}).attend(make_call())


def test_largest_is_exact_and_prefers_later_entries():
    score = np.array([[1.0, 3, 3, 2, 3], [0, 0, 0, 0, -np.inf], [5, -np.inf, -np.inf, -np.inf, -np.inf]])
    assert largest(score, 2).tolist() == [
        [False, False, True, False, True],
        [False, False, True, True, False],
        [True, False, False, False, False],
    ]
    assert not largest(score, 0).any()
    assert (largest(score, 9) == (score > -np.inf)).all()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 6, (200, 30)).astype(float)
    for keep in (1, 7, 29):
        want = np.zeros(coarse.shape, bool)
        for i, row in enumerate(coarse):
            want[i, sorted(range(30), key=lambda j: (row[j], j))[-keep:]] = True
        assert (largest(coarse, keep) == want).all()


def test_top_k_equals_the_plain_loop(make_call, rows):
    call = make_call(6)
    attended = build("oracle-top-k", {"k": 5}).attend(call)
    for at, s, v in rows(call):
        best = np.argsort(s)[-5:]
        assert np.flatnonzero(attended.v_mask[at]).tolist() == sorted(best)
        p = np.exp(s[best] - s.max())
        np.testing.assert_allclose(attended.out[at], p @ v[best] / p.sum(), atol=2e-6)
    assert attended.work["exponentials"].tolist() == [5 * 18, 5 * 18]  # per KV head: 3 heads x 6 queries
    assert (attended.work["row_waits"], attended.work["divisions"]) == (18, 18)
    assert not {"compares", "select_calls"} & set(attended.work)  # an oracle


def test_threshold_keeps_true_probabilities(make_call, rows):
    call = make_call(7)
    attended = build("oracle-threshold", {"threshold": 0.05}).attend(call)
    for at, s, _ in rows(call):
        p = np.exp(s - s.max())
        p /= p.sum()
        assert (attended.v_mask[at][: len(s)] == (p > 0.05)).all()
    flat = dataclasses.replace(call, q=call.q * 0)
    one = build("oracle-threshold", {"threshold": 0.5}).attend(flat)
    assert (one.v_mask.sum(axis=-1) == 1).all()


def test_window_keeps_sinks_and_the_recent(make_call):
    call = make_call(8)
    attended = build("window", {"recent": 7, "sinks": 2}).attend(call)
    for t in range(6):
        newest = call.first + t
        want = [0, 1, *range(newest - 6, newest + 1)]
        for h, g in np.ndindex(2, 3):
            assert np.flatnonzero(attended.v_mask[0, h, g, t]).tolist() == want
    assert (attended.k_masks[0] == attended.v_mask).all()
    assert attended.work["exponentials"].tolist() == [9 * 18] * 2


def test_page_bounds_bound_every_key():
    rng = np.random.default_rng(9)
    q = rng.standard_normal((2, 2, 3, 5, 8))
    keys = rng.standard_normal((2, 2, 37, 8))
    bounds = page_bounds(q, keys, 4)
    scores = np.einsum("bhgtd,bhnd->bhgtn", q, keys)[..., :36].reshape(2, 2, 3, 5, 9, 4)
    assert bounds.shape == (2, 2, 3, 5, 9)
    assert (bounds >= scores.max(axis=-1) - 1e-12).all()
    np.testing.assert_allclose(page_bounds(q, keys, 1), np.einsum("bhgtd,bhnd->bhgtn", q, keys))


@pytest.mark.parametrize(("budget", "page", "keys"), [(12, 4, 40), (8, 8, 45), (16, 16, 40), (20, 3, 41)])
def test_quest_equals_the_plain_loop(budget, page, keys, make_call, rows):
    call = make_call(10, keys=keys)
    attended = build("quest", {"budget": budget, "page": page}).attend(call)
    k = np.clip(np.rint(call.k / call.scales.k[12][0]), -2048, 2047) * call.scales.k[12][0]
    q = np.clip(np.rint(call.q / call.scales.q[12][0, 0]), -2048, 2047) * call.scales.q[12][0, 0]
    macs, elements, calls, summaries, filled = 0, 0, 0, 0, 0
    for at, s, v in rows(call):
        b, h, g, _ = at
        current = (len(s) - 1) // page
        bounds = []
        for i in range(current):
            low, high = (f(k[b, h, i * page : (i + 1) * page], axis=0) for f in (np.min, np.max))
            bounds.append(np.maximum(q[at] * low, q[at] * high).sum())
        take = budget // page - 1
        chosen = set(range(current)) if current <= take else set(np.argsort(bounds)[current - take :])
        chosen.add(current)
        want = [n for n in range(len(s)) if n // page in chosen]
        assert np.flatnonzero(attended.k_masks[0][at]).tolist() == want
        p = np.exp(s[want] - s.max())
        np.testing.assert_allclose(attended.out[at], p @ v[want] / p.sum(), atol=3e-6)
        if h == 0:
            estimates = current > take > 0
            calls += estimates
            elements += estimates * current
            macs += estimates * current * 16
            summaries += estimates * current * (g == 0)
            filled += (len(s) % page == 0) * (g == 0)
    work = attended.work
    assert (work["select_calls"], work["select_elements"], work["estimate_macs"]) == (calls, elements, macs)
    assert work["select_kept"] == calls * (budget // page - 1)
    assert work["group.meta_read_bytes"] == summaries * 2 * 16 * 12 / 8
    assert work["head.meta_read_bytes"] == 3 * work["group.meta_read_bytes"]
    assert work["group.meta_write_bytes"] == filled * 2 * 16 * 12 / 8


def test_quest_spares_the_first_layers(make_call):
    call = make_call(11, layer=1)
    attended = build("quest", PRUNING["quest"]).attend(call)
    assert attended.k_masks == (None,)
    assert attended.v_mask is None
    assert "group.meta_read_bytes" not in attended.work
    pruned = build("quest", {**PRUNING["quest"], "dense_layers": 1}).attend(call)
    assert pruned.v_mask is not None


def test_quest_budget_below_a_page_is_refused():
    with pytest.raises(BadInput, match=r"quest\.budget: 8 tokens are less than one page; at least 16"):
        build("quest", {"budget": 8})
