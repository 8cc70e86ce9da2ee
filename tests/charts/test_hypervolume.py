"""Hypervolume over trials: it never falls, ends at what the front is worth, and the chart says so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dse.charts.hypervolume import Growth, costs_of, growth, hypervolume_figure
from dse.charts.style import save
from dse.errors import BadInput
from dse.search.front import hypervolume

COSTS = arrays(
    np.float64,
    st.tuples(st.integers(1, 25), st.integers(2, 3)),
    elements=st.one_of(st.floats(-2, 3), st.just(np.inf)),
)


@given(COSTS, st.integers(0, 2**25 - 1))
def test_it_never_falls_and_ends_at_the_front_of_what_counts(costs: NDArray[np.float64], mask: int) -> None:
    counts = np.array([bool(mask >> i & 1) for i in range(len(costs))])
    reference = [2.0] * costs.shape[1]
    volumes = growth(costs, counts, reference)
    assert (np.diff(volumes) >= 0).all()
    finite = np.isfinite(costs).all(axis=1)
    for n in (1, len(costs)):
        good = (counts & finite)[:n]
        assert volumes[n - 1] == pytest.approx(hypervolume(costs[:n][good], reference), rel=1e-9, abs=1e-12)


def test_a_point_worked_by_hand() -> None:
    costs = np.array([[1.0, 1.0], [0.0, 1.5], [1.5, 1.5], [9.0, 0.0]])
    # A square of side 1; then a strip of 1 x 0.5 beside it; then nothing twice: dominated, outside the reference.
    assert growth(costs, np.ones(4, bool), [2.0, 2.0]).tolist() == [1.0, 1.5, 1.5, 1.5]
    assert growth(costs, np.array([False, True, True, True]), [2.0, 2.0]).tolist() == [0.0, 1.0, 1.0, 1.0]


def test_what_is_maximised_counts_downwards() -> None:
    table = pd.DataFrame({"speedup": [2.0, 3.0], "nll_increase": [0.1, 0.2]})
    assert costs_of(table, {"speedup": True, "nll_increase": False}).tolist() == [[-2.0, 0.1], [-3.0, 0.2]]


def test_the_chart_says_what_share_of_the_exact_front_was_found(tmp_path: Path) -> None:
    studies = [Growth("tpe", (1.0, 2.0, 3.0), (0.1, 0.1, 0.4)), Growth("random", (1.0, 2.0), (0.2, 0.2))]
    reference = {"speedup": 0.0, "energy_j": 2e-6}
    figure = hypervolume_figure(studies, {"sweep": 0.5}, reference, title="tiny")
    text = save(figure, tmp_path / "a.svg").read_text(encoding="utf-8")
    words = " ".join(re.findall(r"<(?:text|tspan)[^>]*>([^<]+)", text))
    for expected in (
        "tpe: 3 trials, 0.4, 80.0% of the exact front", "random: 2 trials, 0.2, 40.0%", "exact front of sweep: 0.5",
        "completed trials", "hypervolume (x · µJ)", "energy 2 µJ", "tiny",
    ):  # fmt: skip
        assert expected in words
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert [max(line.get_xdata()) for line in lines] == [3.0, 3.0], "the shorter study stays level to the end"
    assert figure.axes[0].get_ylim()[0] == 0


def test_only_sweeps_are_no_progress() -> None:
    with pytest.raises(BadInput, match="no study among the runs"):
        hypervolume_figure([], {"sweep": 0.5}, {"speedup": 0.0})
