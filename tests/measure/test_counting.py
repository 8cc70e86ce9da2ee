"""Counters against a plain loop."""

from __future__ import annotations

import itertools

import numpy as np

from dse.algorithms.contract import Attended
from dse.measure.counting import COLUMNS, Tally, histogram, run_lengths, runs


def plain_runs(row):
    return [len(list(group)) for value, group in itertools.groupby(row) if value]


def test_runs_and_lengths_equal_the_plain_loop():
    rng = np.random.default_rng(0)
    mask = rng.random((3, 4, 30)) < 0.4
    want = [plain_runs(row) for row in mask.reshape(-1, 30)]
    assert runs(mask).ravel().tolist() == [len(w) for w in want]
    assert run_lengths(mask).tolist() == [n for w in want for n in w]


def test_histogram_bins_are_powers_of_two():
    got = histogram(np.array([0, 1, 2, 3, 4, 7, 8, 10**9]))
    assert got[:5].tolist() == [1, 1, 2, 2, 1]
    assert got[-1] == 1
    assert got.sum() == 8


def test_tally_equals_the_plain_loop():
    rng = np.random.default_rng(1)
    batch, heads, group, queries, keys = 2, 3, 2, 4, 16
    visible = np.arange(keys)[None] <= 11 + np.arange(queries)[:, None]
    masks = [(rng.random((batch, heads, group, queries, keys)) < p) & visible for p in (0.6, 0.3)]
    out = np.zeros((batch, heads, group, queries, 4))
    tally = Tally(2, heads)
    tally.add(1, slice(None), Attended(out, masks[:1] + [None], masks[1], {"compares": 5.0}), visible)
    counters, histograms = tally.means(1)
    assert not counters[0].any()
    for h in range(heads):

        def got(name, h=h):
            return counters[1, h, COLUMNS[name]]

        union = [masks[0][b, h, :, t].any(axis=0) for b in range(batch) for t in range(queries)]
        assert got("group.k_rows_0") == sum(u.sum() for u in union)
        assert got("group.k_runs_0") == sum(len(plain_runs(u)) for u in union)
        assert got("head.k_rows_0") == got("qk_rows_0") == masks[0][:, h].sum()
        assert got("head.k_runs_0") == sum(len(plain_runs(r)) for r in masks[0][:, h].reshape(-1, keys))
        assert got("group.k_rows_1") == batch * visible.sum()  # None: every visible token
        assert got("head.k_rows_1") == batch * group * visible.sum()
        assert got("pv_rows") == masks[1][:, h].sum()
        assert got("compares") == 5.0
        assert got("group.rows_written") == batch * queries
        values = [masks[1][b, h, :, t].any(axis=0) for b in range(batch) for t in range(queries)]
        want = histogram(np.array([v.sum() for v in values])) / len(values)
        np.testing.assert_allclose(histograms[1, h, 0], want)
        lengths = histogram(np.array([n for v in values for n in plain_runs(v)]))
        np.testing.assert_allclose(histograms[1, h, 1], lengths / lengths.sum())
