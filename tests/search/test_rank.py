from __future__ import annotations

import numpy as np

from dse.search.rank import distinct

OBJECTIVES = ("speedup", "nll_increase")


def test_a_point_whose_faster_neighbour_loses_no_more_for_certain_is_not_distinct() -> None:
    noise = np.array([0.010, -0.010, 0.012, -0.012])
    same = np.array([0.001, -0.002, 0.002, -0.001])  # the same windows are hard for everyone
    losses = np.stack([noise, noise + same, noise + 0.05 + same, noise + 0.3 + same])
    costs = np.stack([[-1.0, -2.0, -3.0, -4.0], losses.mean(axis=1)], axis=1)
    everyone = np.ones((4, 4), dtype=bool)
    # The second is faster than the first and loses no more that these windows could tell; the third does.
    assert distinct(costs, OBJECTIVES, losses, everyone).tolist() == [False, True, True, True]
    # Shifting all windows alike changes nothing: comparisons are paired.
    assert distinct(costs, OBJECTIVES, losses + 10 * noise, everyone).tolist() == [False, True, True, True]
    alone = np.eye(4, dtype=bool)
    assert distinct(costs, OBJECTIVES, losses, alone).all()


def test_without_a_loss_among_the_objectives_every_rank_is_certain() -> None:
    costs = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert distinct(costs, ("energy_j", "area_mm2"), np.zeros((2, 5)), np.ones((2, 2), dtype=bool)).all()


def test_one_window_or_an_unknown_loss_decides_nothing() -> None:
    costs = np.array([[-1.0, 0.0], [-2.0, 0.1]])
    everyone = np.ones((2, 2), dtype=bool)
    assert distinct(costs, OBJECTIVES, np.array([[0.0], [0.1]]), everyone).all()
    assert distinct(costs, OBJECTIVES, np.full((2, 3), np.nan), everyone).all()
