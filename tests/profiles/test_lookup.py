from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.profiles.grid import LOSS_FLOOR
from dse.profiles.lookup import resolve, select, take
from dse.profiles.profile import ACCURACY_COLUMN, Profile, build_profile
from dse.profiles.schema import Form, Setting
from profiles.synthetic import DEFAULTS, THRESHOLDS, fields, only, profile

WHOLE = profile()
NLL = ACCURACY_COLUMN["nll_increase"]


@pytest.mark.parametrize("context", WHOLE.contexts)
def test_a_measured_setting_is_returned_bit_for_bit(context: int) -> None:
    at = WHOLE.contexts.index(context)
    for row, setting in enumerate(WHOLE.settings):
        got = select(WHOLE, setting.algorithm, {k: [v] for k, v in setting.knobs.items()}, context)
        assert got.settings == (setting,)
        assert got.status.tolist() == ["measured"]
        assert np.array_equal(got.counters[0], WHOLE.counters[row, at])
        assert np.array_equal(got.histograms[0], WHOLE.histograms[row, at])
        assert np.array_equal(got.accuracy[0], WHOLE.accuracy[row, at])
        assert np.array_equal(got.window_nll[0], WHOLE.window_nll[row, at])
        assert got.mean_context == WHOLE.mean_context[at]


def test_the_product_comes_in_order_and_defaults_fill_the_rest() -> None:
    got = select(WHOLE, "dense", {"v_bits": [4, 8]}, 64)
    assert [dict(s.knobs) for s in got.settings] == [
        {"k_bits": 12, "v_bits": 4, "scale": "head"},
        {"k_bits": 12, "v_bits": 8, "scale": "head"},
    ]
    assert select(WHOLE, "beta", {}, 64).settings[0].knobs == DEFAULTS["beta"]
    other = select(WHOLE, "beta", {}, 64, defaults={"keep": 0.25})
    assert other.settings[0].knobs == {"keep": 0.25}


def test_an_integer_and_the_equal_float_are_one_value() -> None:
    assert select(WHOLE, "beta", {"keep": [1]}, 64).status[0] == "measured"
    with pytest.raises(BadInput, match="True was not measured"):
        select(WHOLE, "beta", {"keep": [True]}, 64)


@given(st.floats(1e-4, 1e-2), st.sampled_from(["6+6", "12"]), st.sampled_from(WHOLE.contexts))
def test_between_neighbours_everything_is_bounded_by_them(t: float, chunks: str, context: int) -> None:
    got = select(WHOLE, "alpha", {"threshold": [t], "chunks": [chunks]}, context)
    low = max(v for v in THRESHOLDS if v <= t)
    high = min(v for v in THRESHOLDS if v >= t)
    ends = select(WHOLE, "alpha", {"threshold": [low, high], "chunks": [chunks]}, context)
    for name in ("counters", "histograms", "accuracy", "window_nll"):
        value, both = getattr(got, name)[0], getattr(ends, name)
        assert (value >= both.min(axis=0)).all(), name
        assert (value <= both.max(axis=0)).all(), name
    assert got.settings[0].form == ends.settings[0].form
    assert (got.status[0] == "measured") == (t in THRESHOLDS)
    assert got.settings[0].knobs["threshold"] == t


def test_counts_on_a_wide_axis_are_interpolated_in_its_logarithm_and_on_a_narrow_one_linearly() -> None:
    middle = select(WHOLE, "alpha", {"threshold": [math.sqrt(1e-4 * 1e-3)]}, 64)
    ends = select(WHOLE, "alpha", {"threshold": [1e-4, 1e-3]}, 64)
    np.testing.assert_allclose(middle.counters[0], ends.counters.mean(axis=0), rtol=1e-6)
    middle = select(WHOLE, "beta", {"keep": [0.75]}, 64)
    ends = select(WHOLE, "beta", {"keep": [0.5, 1.0]}, 64)
    np.testing.assert_allclose(middle.counters[0], ends.counters.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(middle.histograms[0], ends.histograms.mean(axis=0), rtol=1e-5)


def power_law(exponent: float = 1.5, scale: float = 1.0, windows: int = 5) -> Profile:
    """One algorithm whose loss is a power of its knob, with perplexities and windows that belong to the loss."""
    rows = [Setting("power", {"keep": 0.1 * 2.0**i}, Form((8,), 8, 8)) for i in range(4)]
    given_ = fields(rows=rows, windows=windows)
    loss = np.array([scale * (0.1 / s.knobs["keep"]) ** exponent for s in rows])[:, None]  # type: ignore[operator]
    given_["accuracy"][:, :, NLL] = loss
    given_["accuracy"][:, :, ACCURACY_COLUMN["perplexity"]] = 17.0 * np.exp(loss)
    given_["accuracy"][:, :, ACCURACY_COLUMN["perplexity_increase"]] = 17.0 * np.expm1(loss)
    spread = np.linspace(-1, 1, windows)
    given_["window_nll"] = np.repeat((loss * (1 + 0.1 * spread))[:, None, :], 2, axis=1)
    return build_profile(**{**given_, "defaults": {}})


@given(st.floats(0.11, 0.79), st.floats(0.5, 1.5), st.floats(0.5, 3.0))
def test_a_loss_that_is_a_power_of_the_knob_is_interpolated_exactly(
    keep: float, exponent: float, scale: float
) -> None:
    got = select(power_law(exponent, scale), "power", {"keep": [keep]}, 64)
    truth = scale * (0.1 / keep) ** exponent
    # asinh bends away from the logarithm by (LOSS_FLOOR / loss)^2 where the loss is smallest.
    bend = (LOSS_FLOOR / (scale * 8.0**-exponent)) ** 2
    assert got.metric("nll_increase")[0] == pytest.approx(truth, rel=1e-6 + 2 * bend)


@given(st.floats(0.11, 0.79))
def test_what_belongs_to_a_loss_is_interpolated_with_it(keep: float) -> None:
    got = select(power_law(), "power", {"keep": [keep]}, 64)
    loss = got.metric("nll_increase")[0]
    assert got.window_nll[0].mean() == pytest.approx(loss)
    assert got.metric("perplexity")[0] == pytest.approx(17.0 * np.exp(loss))
    assert got.metric("perplexity_increase")[0] == pytest.approx(17.0 * np.expm1(loss))


@given(st.lists(st.floats(-0.002, 0.5), min_size=4, max_size=4), st.floats(0.1, 0.9), st.floats(0.3, 3.7))
def test_losses_of_two_knobs_blend_within_the_cell_whatever_their_signs(
    losses: list[float], a: float, b: float
) -> None:
    rows = [
        Setting("grid", {"a": x, "b": y}, Form((8,), 8, 8))
        for x, y in itertools.product((-2, -1), (-5.0, -1.0))
    ]
    given_ = fields(rows=rows)
    given_["accuracy"][:, :, NLL] = np.array(losses)[:, None]
    grid = build_profile(**{**given_, "defaults": {}})
    plan = resolve(grid, "grid", {"a": [a - 2], "b": [b - 5]}, 64)
    weights = plan.sources[0].loss_weights
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1)
    got = take(plan).metric("nll_increase")[0]
    assert min(losses) <= got <= max(losses)
    # Bilinear on the scale that losses are straight on.
    f = [math.asinh(x / (2 * LOSS_FLOOR)) for x in losses]
    on_scale = (1 - a) * ((1 - b / 4) * f[0] + b / 4 * f[1]) + a * ((1 - b / 4) * f[2] + b / 4 * f[3])
    assert got == pytest.approx(2 * LOSS_FLOOR * math.sinh(on_scale), rel=1e-6, abs=1e-9)


def test_interpolation_is_continuous_at_measured_values() -> None:
    near = select(WHOLE, "beta", {"keep": [0.5 - 1e-9, 0.5, 0.5 + 1e-9]}, 64)
    np.testing.assert_allclose(near.accuracy[0], near.accuracy[1], atol=1e-6)
    np.testing.assert_allclose(near.accuracy[2], near.accuracy[1], atol=1e-6)


def test_two_knobs_interpolate_bilinearly() -> None:
    rows = [
        Setting("grid", {"a": a, "b": b}, Form((8,), 8, 8))
        for a, b in itertools.product((-3, -2, -1), (-5.0, -1.0))
    ]
    given_ = fields(rows=rows)
    plane = np.array([30.0 + 2.0 * float(s.knobs["a"]) + 0.5 * float(s.knobs["b"]) for s in rows])
    given_["accuracy"][:, :, NLL] = plane[:, None]
    given_["counters"][...] = plane[:, None, None, None, None]
    grid = build_profile(**{**given_, "defaults": {}})
    got = select(grid, "grid", {"a": [-2.75, -1.5], "b": [-5.0, -4.0, -2.0]}, 64)
    expected = [30.0 + 2.0 * a + 0.5 * b for a in (-2.75, -1.5) for b in (-5.0, -4.0, -2.0)]
    np.testing.assert_allclose(got.counter("group.v_rows")[:, 0, 0], expected)
    assert got.settings[0].knobs == {"a": -2.75, "b": -5.0}


@pytest.mark.parametrize(
    ("algorithm", "knobs", "context", "message"),
    [
        ("alfa", {}, 64, "algorithm 'alfa': not in profile 'tiny'; did you mean 'alpha'?"),
        ("beta", {}, 65, "context 65"),
        ("alpha", {"treshold": [1e-3]}, 64, "alpha.treshold: unknown knob; did you mean 'threshold'?"),
        (
            "alpha",
            {"threshold": [0.1]},
            64,
            "alpha.threshold: 0.1 was not measured at context 64; measured from 0.0001 to 0.01",
        ),
        (
            "alpha",
            {"threshold": [1e-5]},
            64,
            "dse profile run --algorithm alpha --set threshold=1e-05 --context 64",
        ),
        (
            "alpha",
            {"chunks": ["4+4+4"]},
            64,
            "alpha.chunks: '4+4+4' was not measured at context 64; measured: '12', '6+6'",
        ),
        ("alpha", {"threshold": ["small"]}, 64, "alpha.threshold: 'small' was not measured"),
        (
            "alpha",
            {"chunks": [12]},
            64,
            "alpha.chunks: 12 was not measured at context 64; measured: '12', '6+6'",
        ),
        ("dense", {"k_bits": [6]}, 64, "store or order things differently"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    algorithm: str, knobs: dict, context: int, message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        select(WHOLE, algorithm, knobs, context)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hole_in_the_grid_is_named_with_its_command_or_skipped() -> None:
    hole = next(
        i
        for i, s in enumerate(WHOLE.settings)
        if s.knobs.get("threshold") == 1e-3 and s.knobs["chunks"] == "6+6"
    )
    partial = only(WHOLE, [i for i in range(len(WHOLE.settings)) if i != hole])
    knobs = {"threshold": [1e-3, 1e-2], "chunks": ["6+6", "12"]}
    with pytest.raises(
        BadInput, match=r"threshold = 0.001, chunks = '6\+6', flag = False was not measured toge"
    ) as e:
        select(partial, "alpha", knobs, 64)
    command = "--algorithm alpha --set threshold=0.001 --set chunks=6+6 --set flag=false --context 64"
    assert f"dse profile run {command}" in str(e.value)
    got = select(partial, "alpha", knobs, 64, skip_unmeasured=True)
    assert (len(got.settings), got.skipped) == (3, 1)
    # Between the neighbours that exist the hole's own line still interpolates.
    assert select(partial, "alpha", {"threshold": [2e-3], "chunks": ["6+6"]}, 64).status[0] == "interpolated"
    everything = select(partial, "alpha", {"threshold": [1.0, 1e-3]}, 64, skip_unmeasured=True)
    assert everything.skipped == 1
    with pytest.raises(BadInput, match="none of the 1 combinations"):
        select(partial, "alpha", {"threshold": [1.0]}, 64, skip_unmeasured=True)


def test_a_setting_not_measured_at_a_context_is_not_there() -> None:
    given_ = fields()
    given_["counters"][-1, 1] = np.nan
    given_["accuracy"][-1, 1] = np.nan
    partial = build_profile(**given_)
    assert select(partial, "beta", {"keep": [1.0]}, 64).status[0] == "measured"
    with pytest.raises(BadInput, match=r"measured from 0\.25 to 0\.5"):
        select(partial, "beta", {"keep": [1.0]}, 128)


def test_a_knob_without_default_must_be_given_unless_it_has_one_value() -> None:
    bare = build_profile(**{**fields(), "defaults": {}})
    with pytest.raises(
        BadInput, match=r"alpha.threshold: has no default in the profile; give it, measured: 0.0001"
    ):
        select(bare, "alpha", {}, 64)
    got = select(bare, "alpha", {"threshold": [1e-3], "chunks": ["12"]}, 64)
    assert got.settings[0].knobs["flag"] is False


def test_take_slices_a_resolution() -> None:
    knobs = {"threshold": [1e-4, 3e-4, 1e-3, 5e-3, 1e-2], "chunks": ["6+6", "12"]}
    whole = select(WHOLE, "alpha", knobs, 128)
    plan = resolve(WHOLE, "alpha", knobs, 128)
    parts = [take(plan, i, i + 3) for i in range(0, 10, 3)]
    for name in ("counters", "histograms", "accuracy", "window_nll", "status"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_nothing_is_interpolated_from_zero() -> None:
    """Zero switches things off (every key a candidate, no token rebuilt): its neighbour is another thing."""
    from dataclasses import replace

    whole = profile()
    settings = tuple(
        replace(s, knobs={**s.knobs, "keep": 0.0}) if s.algorithm == "beta" and s.knobs["keep"] == 0.25 else s
        for s in whole.settings
    )
    zeroed = replace(whole, settings=settings)
    with pytest.raises(
        BadInput, match=r"keep: 0\.3 lies between 0 and 0\.5.*nothing is interpolated from it"
    ):
        select(zeroed, "beta", {"keep": [0.3]}, 64)
    assert select(zeroed, "beta", {"keep": [0.0]}, 64).status == ("measured",)
