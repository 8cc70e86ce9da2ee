from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.search.identity import Identity
from dse.search.metrics import BestDense
from dse.search.shards import Grid, cut


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 50))
def test_cuts_tile_the_space_once(shape: list[int], most: int) -> None:
    seen = np.zeros(shape, dtype=int)
    for ranges in cut(shape, most):
        block = tuple(slice(*r) for r in ranges)
        assert 1 <= seen[block].size <= most
        seen[block] += 1
    assert (seen == 1).all()


def test_a_block_and_its_rows_name_the_same_designs() -> None:
    grid = Grid({"lanes": (4, 8, 16), "dram": ("hbm2", "lpddr5"), "clock_ghz": (1.0,), "layout": ("planes",)})
    assert grid.shape == (3, 2)
    block = grid.block(((1, 3), (0, 2)))
    assert block["clock_ghz"] == 1.0
    assert block["lanes"].shape == (1, 2, 1)
    assert block["dram"].shape == (1, 1, 2)
    rows = grid.rows(np.arange(6))
    for flat in range(6):
        design = grid.design(flat)
        assert design["lanes"] == rows["lanes"][flat]
        assert design["dram"] == rows["dram"][flat]
    assert [grid.design(i)["lanes"] for i in range(6)] == [4, 4, 8, 8, 16, 16]


def test_identity_sees_content_and_not_order_or_number_type() -> None:
    name = Identity("context")
    a = name("alpha", {"x": 1, "y": "b"}, {"lanes": 4, "dram": "hbm2"})
    assert a == name("alpha", {"y": "b", "x": 1.0}, {"dram": "hbm2", "lanes": 4})
    others = [
        name("beta", {"x": 1, "y": "b"}, {"lanes": 4, "dram": "hbm2"}),
        name("alpha", {"x": 2, "y": "b"}, {"lanes": 4, "dram": "hbm2"}),
        name("alpha", {"x": 1, "y": "b"}, {"lanes": 8, "dram": "hbm2"}),
        Identity("other")("alpha", {"x": 1, "y": "b"}, {"lanes": 4, "dram": "hbm2"}),
        name("alpha", {"x": True, "y": "b"}, {"lanes": 4, "dram": "hbm2"}),
    ]
    assert len({a, *others}) == 6


def test_best_dense_is_a_staircase() -> None:
    best = BestDense.of([0.03, 0.01, 0.02, 0.0], [1.0, 3.0, 4.0, np.inf])
    latency, as_accurate = best.rival(np.array([0.005, 0.01, 0.02, 0.025, 0.03, 9.0]))
    assert latency.tolist() == [3.0, 3.0, 3.0, 3.0, 1.0, 1.0]
    assert as_accurate.tolist() == [False, True, True, True, True, True]
    latency, as_accurate = BestDense.of([], []).rival(np.array([0.1]))
    assert np.isnan(latency).all()
    assert not as_accurate.any()


def test_cut_keeps_blocks_broad() -> None:
    blocks = list(cut((64, 64, 64), 1 << 12))
    sizes = {tuple(b - a for a, b in ranges) for ranges in blocks}
    assert sizes == {(16, 16, 16)}


@pytest.mark.parametrize("most", [1, 2, 3])
def test_cut_of_one_point(most: int) -> None:
    assert list(cut((1, 1), most)) == [((0, 1), (0, 1))]
