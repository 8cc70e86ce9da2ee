"""Counters against a plain loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.algorithms.contract import Attended
from dse.measure import counting
from dse.measure.counting import (
    COLUMNS,
    TILE_COLUMNS,
    Tally,
    TileTally,
    histogram,
    pack,
    rows_and_runs,
    run_lengths,
)
from dse.profiles.schema import QUERY_TILES


def plain_runs(row):
    return [len(list(group)) for value, group in itertools.groupby(row) if value]


@pytest.mark.parametrize("size", [1, 30, 63, 64, 65, 200])
@pytest.mark.parametrize("density", [0.0, 0.4, 0.95, 1.0])
def test_rows_runs_and_lengths_equal_the_plain_loop(size, density):
    rng = np.random.default_rng(size)
    mask = rng.random((2, 3, 4, size)) < density
    rows, found = rows_and_runs(pack(mask))
    for h in range(3):
        want = [plain_runs(row) for row in mask[:, h].reshape(-1, size)]
        assert rows[h] == sum(sum(w) for w in want)
        assert found[h] == sum(len(w) for w in want)
    want = [n for row in mask.reshape(-1, size) for n in plain_runs(row)]
    assert run_lengths(pack(mask)).tolist() == want


def test_ones_without_the_newer_numpy_function(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**63, (3, 4, 5), dtype=np.uint64)
    want = counting.ones(words)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert counting.ones(words).tolist() == want.tolist()
    assert want[0, 0, 0] == bin(int(words[0, 0, 0])).count("1")


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


def causal(queries, first, keys):
    return np.arange(keys)[None] <= first + np.arange(queries)[:, None]


def tiles_of(mask, tile):
    """Plain twin: union of every `tile` consecutive queries of [T, N]."""
    return [mask[start : start + tile].any(axis=0) for start in range(0, len(mask), tile)]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 2),
    heads=st.integers(1, 2),
    group=st.integers(1, 3),
    queries=st.integers(1, 300),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_tiles_equal_the_plain_loop(seed, batch, heads, group, queries, density):
    rng = np.random.default_rng(seed)
    visible = causal(queries, 0, queries)
    mask = (rng.random((batch, heads, group, queries, queries)) < density) & visible
    tally = TileTally(1, heads)
    largest = QUERY_TILES[-1]
    for start in range(0, queries, largest):  # block by block, as a prompt comes
        part = slice(start, start + largest)
        out = np.zeros((batch, heads, group, len(visible[part]), 2))
        tally.add(0, slice(None), Attended(out, [None], mask[..., part, :], {}), visible[part])
    for level, tile in enumerate(QUERY_TILES):
        dense = sum(int(union.sum()) for union in tiles_of(visible, tile))
        for h in range(heads):
            got = {name: tally.tiles[level, 0, h, TILE_COLUMNS[name]] for name in TILE_COLUMNS}
            shared = [u for b in range(batch) for u in tiles_of(mask[b, h].any(axis=0), tile)]
            apart = [u for b in range(batch) for g in range(group) for u in tiles_of(mask[b, h, g], tile)]
            assert got["group.v_rows"] == sum(u.sum() for u in shared)
            assert got["group.v_runs"] == sum(len(plain_runs(u)) for u in shared)
            assert got["head.v_rows"] == sum(u.sum() for u in apart)
            assert got["head.v_runs"] == sum(len(plain_runs(u)) for u in apart)
            assert got["group.k_rows_0"] == batch * dense
            assert got["head.k_rows_0"] == batch * group * dense
            assert got["group.k_runs_0"] == batch * len(tiles_of(visible, tile))
    columns = [COLUMNS[name] for name in TILE_COLUMNS]
    assert (tally.tiles[0] == tally.counters[:, :, columns]).all()  # a tile of one query shares nothing
    assert (np.diff(tally.tiles, axis=0) <= 0).all()  # a larger tile never fetches more
