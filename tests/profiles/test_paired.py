from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.profiles.paired import paired_difference, t_quantile


@pytest.mark.parametrize(
    ("p", "freedom", "value"),  # tables of Student's t, to the digits printed there
    [
        (0.975, 1, 12.706),
        (0.975, 3, 3.182),
        (0.975, 15, 2.131),
        (0.975, 31, 2.040),
        (0.975, 63, 1.998),
        (0.95, 10, 1.812),
    ],
)
def test_quantiles_are_those_of_the_tables(p: float, freedom: int, value: float) -> None:
    assert t_quantile(p, freedom) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize("freedom", [1, 2, 5, 15, 63, 400])
def test_quantiles_agree_with_scipy(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for p in (0.5, 0.6, 0.9, 0.975, 0.999):
        assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-8, abs=1e-12)


def test_an_impossible_quantile_is_refused() -> None:
    with pytest.raises(ValueError, match="needs"):
        t_quantile(1.0, 3)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.floats(-0.5, 0.5))
def test_what_windows_share_cancels(shared: list[float], shift: float) -> None:
    base = np.array(shared)
    noise = 1e-3 * np.cos(np.arange(len(base)))
    one = paired_difference(base + shift + noise, base)
    other = paired_difference(base, base + shift + noise)
    assert one.mean == pytest.approx(shift + noise.mean(), abs=1e-9)
    assert one.low <= one.mean <= one.high
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.distinct == other.distinct


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.0, 1.0, (4000, 16))
    misses = sum(paired_difference(row, np.zeros(16)).distinct for row in draws)
    assert misses / 4000 == pytest.approx(0.05, abs=0.012)


def test_padding_is_left_out_and_one_window_tells_nothing_apart() -> None:
    a, b = np.array([0.3, 0.5, math.nan]), np.array([0.1, 0.2, math.nan])
    assert paired_difference(a, b).windows == 2
    assert paired_difference(a, b).mean == pytest.approx(0.25)
    one = paired_difference(a[:1], b[:1])
    assert math.isnan(one.low)
    assert not one.distinct
    assert not paired_difference(a[2:], b[2:]).distinct
