from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from dse.space import load_space
from dse.space.definition import Space
from dse.study.axes import Axis, Layout


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (("planes", "token-major"), CategoricalDistribution(("planes", "token-major"))),
        ((False, True), CategoricalDistribution((False, True))),
        ((32, 64), CategoricalDistribution((32, 64))),
        ((16, 32, 64, 128), IntDistribution(16, 128, log=True)),
        ((4, 8, 12), IntDistribution(4, 12, step=4)),
        ((1e-4, 1e-3, 1e-2), FloatDistribution(1e-4, 1e-2, log=True)),
        ((0.2, 0.3, 0.4), FloatDistribution(0.2, 0.4)),
    ],
)
def test_an_axis_becomes_the_distribution_its_values_suggest(values: tuple[Any, ...], wanted: Any) -> None:
    assert Axis("x", values).distribution() == wanted


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 10**6), min_size=3, max_size=12, unique=True), st.data())
def test_whatever_is_proposed_becomes_a_listed_value(numbers: list[int], data: st.DataObject) -> None:
    axis = Axis("x", tuple(sorted(numbers)))
    d: Any = axis.distribution()
    proposed = data.draw(st.integers(d.low, d.high))
    settled = axis.settle(proposed)
    assert settled in numbers
    assert d._contains(d.to_internal_repr(settled))
    near = [abs(axis.position(v) - axis.position(proposed)) for v in axis.values]
    assert abs(axis.position(settled) - axis.position(proposed)) == min(near)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32))
def test_a_settled_proposal_is_a_point_of_the_sweep(space: Space, seed: int) -> None:
    layout = Layout(space)
    draw = np.random.default_rng(seed)
    wanted: dict[str, Any] = {}
    for name, d in layout.distributions.items():
        if isinstance(d, CategoricalDistribution):
            wanted[name] = d.choices[draw.integers(len(d.choices))]
        else:
            wanted[name] = type(d.low)(draw.uniform(d.low, d.high))  # type: ignore[attr-defined]
    params = layout.settle(wanted)
    point = layout.point(params)
    assert point.knobs in [dict(s.setting.knobs) for s in space.resolutions[point.algorithm].sources]
    assert all(v in space.axes(point.algorithm)[k] for k, v in point.hardware.items())
    # What the trial says is what was evaluated.
    told = layout.params(point.columns())
    assert told is not None
    assert told.items() <= params.items()


def test_every_listed_number_is_another_point_of_the_space(space: Space) -> None:
    layout = Layout(space)
    points = {layout.point(layout.listed(n)) for n in range(sum(layout.sizes.values()))}
    assert len(points) == space.size


def test_a_flat_layout_asks_for_the_knobs_of_every_algorithm(space: Space) -> None:
    layout = Layout(space)
    trial = FixedTrial(
        layout.listed(0) | {k: v for n in range(space.size) for k, v in layout.listed(n).items()}
    )
    assert set(layout.suggest(trial, flat=True)) == set(layout.distributions)
    name = layout.suggest(trial, flat=False)["algorithm"]
    others = [a for a in layout.names if a != name]
    assert not any(p.startswith(f"{a}.") for p in layout.suggest(trial, flat=False) for a in others)


def test_continuous_keeps_values_between_and_falls_back_where_there_are_none(space: Space) -> None:
    layout = Layout(space, continuous=True)
    s = layout.settings["token-picker"]
    assert s.axes["threshold"].free
    assert not s.axes["chunks"].free
    assert not layout.settings["dense"].axes["k_bits"].free  # another width is stored differently
    between = s.locate({"threshold": 5e-4, "chunks": "6+6"})
    assert between["threshold"] == 5e-4
    assert layout.hardware["dense"]["lanes"].free
    assert not layout.hardware["dense"]["dram_channels"].free  # powers of two only


def test_axes_of_one_algorithm_alone_have_their_own_names(folder: Any, profile: Any) -> None:
    table = {
        "schema": 1,
        "workload": {"profile": "tiny", "context": 1024},
        "algorithms": {"spatten": {"keep": [0.3, 0.9]}, "dense": {"k_bits": 8, "v_bits": 8}},
        "hardware": {"base": "topick-gqa", "lanes": [12, 24], "for": {"spatten": {"lanes": [12, 24, 48]}}},
    }
    space = load_space(table, profile=profile)
    layout = Layout(space)
    assert "spatten:hardware.lanes" in layout.distributions
    assert "hardware.lanes" in layout.distributions
    seen = {layout.point(layout.listed(n)).hardware["lanes"] for n in range(space.size)}
    assert seen == {12, 24, 48}
