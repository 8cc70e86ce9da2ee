"""The winner map: gains with what the intervals of the losses make of them, and hatches where that leaves nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charts.conftest import made_front
from dse.charts.style import PAGE_INCHES, save
from dse.charts.winner import Cell, cell, winner_figure
from dse.errors import BadInput
from dse.search.report import WORTH


def surely(front: pd.DataFrame) -> pd.DataFrame:
    """The same points, their losses known exactly."""
    return front.assign(nll_increase_low=front["nll_increase"], nll_increase_high=front["nll_increase"])


def test_losses_that_are_certain_leave_no_range() -> None:
    one = cell(surely(made_front()), 0.01, 1, "hbm2")
    assert (one.winner, one.verdict) == ("token-picker", "pays")
    assert one.gain == one.low == one.high == pytest.approx(2.4 / 1.5)


def test_a_range_takes_each_loss_at_its_worse_end() -> None:
    front = made_front()  # token-picker at 2.4x loses 0.0095 ±0.00145: perhaps more than the budget
    one = cell(front, 0.01, 1, "hbm2")
    assert one.gain == pytest.approx(2.4 / 1.5)
    assert one.low == pytest.approx(2.0 / 1.5), "the setting that surely stays within runs at 2.0"
    assert one.high == one.gain
    uncertain = front.copy()
    uncertain.loc[uncertain["dense.k_bits"] == 6, "nll_increase_low"] = 0.005
    assert cell(uncertain, 0.01, 1, "hbm2").low == pytest.approx(2.0 / 2.0), (
        "six bits may stay within as well"
    )


@given(st.floats(0.0005, 0.3), st.floats(0.2, 3.0))
def test_the_gain_lies_within_its_range(budget: float, scale: float) -> None:
    one = cell(made_front(scale), budget, 1, "hbm2")
    if one.gain is not None:
        assert one.low <= one.gain <= one.high
        assert (one.verdict == "dense") == (one.high < WORTH)
        assert (one.verdict == "pays") == (one.low >= WORTH)


@pytest.mark.parametrize(
    ("scale", "certain", "verdict", "hatch"),
    [(1.0, True, "pays", None), (0.5, True, "dense", "xxxx"), (0.7, False, "even", "////")],
)
def test_hatched_where_dense_wins_or_the_intervals_leave_it_open(
    scale: float, certain: bool, verdict: str, hatch: str | None
) -> None:
    front = made_front(scale)
    one = cell(surely(front) if certain else front, 0.01, 16, "hbm2")
    assert one.verdict == verdict
    figure = winner_figure([one], "batch", "dram", 0.01)
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    assert [p.get_hatch() for p in hatched] == ([hatch] if hatch else [])


def test_a_budget_that_nothing_keeps_has_no_winner() -> None:
    nothing = cell(made_front(), 1e-9, 1, "hbm2")
    assert (nothing.winner, nothing.gain, nothing.verdict) == ("", None, "none")
    with pytest.raises(BadInput, match="no cells"):
        winner_figure([], "batch", "dram", 0.01)


def test_every_cell_says_its_gain_and_range(tmp_path: Path) -> None:
    cells = [
        Cell("512", "1", "spatten", 1.2, 1.05, 1.3),
        Cell("1024", "1", "spatten", 1.2, 0.0, math.inf),
        Cell("512", "4", "", None),
        Cell("1024", "4", "adore", None),
    ]
    text = save(
        winner_figure(cells, "context (tokens)", "batch", 0.01, "tiny"), tmp_path / "a.svg"
    ).read_text()
    for expected in ("1.20x", "1.05 – 1.30", "? – ?", ">none<", "no dense", "context (tokens)", "0.01 nats"):
        assert expected in text


def test_a_wide_map_takes_the_page() -> None:
    cells = [Cell(str(i), "", "spatten", 1.2, 1.1, 1.3) for i in range(8)]
    assert winner_figure(cells, "context", "", 0.01).get_size_inches()[0] == PAGE_INCHES
