"""Pareto local search: where it starts, that its steps are steps, and that it finds a small space's front."""

from __future__ import annotations

import numpy as np
import pytest

from dse.search.front import hypervolume
from dse.search.sweep import sweep
from dse.space import load_space
from dse.space.definition import Space
from dse.study.axes import ALGORITHM, Layout
from dse.study.local import LocalSearch, starts
from dse.study.run import study


def _differences(space: Space, one: dict[str, object], other: dict[str, object]) -> list[str]:
    return [k for k in one.keys() | other.keys() if one.get(k) != other.get(k)]


def test_it_starts_at_the_defaults_on_the_base_design(space: Space) -> None:
    layout = Layout(space)
    begun = starts(space, layout)
    assert [p[ALGORITHM] for p in begun] == list(space.algorithms)
    for params in begun:
        point = layout.point(params)
        assert point.hardware["dram_channels"] == space.baseline.hardware["dram_channels"]
    dense = layout.point(begun[0])
    assert (dense.knobs["k_bits"], dense.knobs["v_bits"]) == (12, 12)
    found = study(space, trials=len(begun), sampler="local")
    told = [layout.params(row) for row in found.trials.to_dict("records")]
    assert told == begun


def test_a_step_changes_one_parameter_or_one_setting(space: Space) -> None:
    layout = Layout(space)
    search = LocalSearch(layout, starts(space, layout))
    seen = study(space, trials=6, sampler="local", storage="memory")
    assert len(set(seen.trials["point"])) == 6
    rng = np.random.default_rng(0)
    for name, s in layout.settings.items():
        for number, knobs in enumerate(s.knobs):
            params = {ALGORITHM: name} | {a.name: knobs[k] for k, a in s.axes.items()}
            params |= {a.name: a.values[0] for a in layout.hardware[name].values()}
            tried = search_entry(layout, params, number)
            for other in search._steps(tried, rng):
                moved = _differences(space, params, other)
                hardware = [k for k in moved if "hardware." in k]
                assert moved
                assert (len(hardware) == 1) == (len(moved) == len(hardware))
                assert layout.point(other) != layout.point(params)


def search_entry(layout: Layout, params: dict[str, object], number: int) -> object:
    from dse.study.local import Tried

    return Tried(layout.point(params), dict(params), number, (0.0, 0.0), 0.0, 0.0)


def test_every_setting_can_be_reached_by_steps_from_any_other(space: Space) -> None:
    layout = Layout(space)
    search = LocalSearch(layout, [])
    for name, s in layout.settings.items():
        reached, left = {0}, [0]
        while left:
            for number in search._numbers[name].beside(left.pop()):
                if number not in reached:
                    reached.add(number)
                    left.append(number)
        assert reached == set(range(len(s.knobs)))


def test_nothing_is_tried_twice_and_the_front_is_found(space: Space) -> None:
    exact = sweep(space)
    signs = np.array([-1.0 if up else 1.0 for up in space.objectives.values()])
    reference = [exact.info["reference_point"][m] * s for m, s in zip(space.objectives, signs, strict=True)]

    def share(front: object) -> float:
        return hypervolume(front[list(space.objectives)].to_numpy(float) * signs, reference)  # type: ignore[index]

    shares = []
    for seed in range(3):
        found = study(space, trials=int(space.size * 0.6), sampler="local", seed=seed)
        assert found.info["duplicates"] == 0
        shares.append(share(found.front) / share(exact.front))
    assert np.median(shares) >= 0.99
    whole = study(space, trials=space.size, sampler="local", seed=1)
    assert whole.info["duplicates"] <= 0.1 * space.size
    assert share(whole.front) >= 0.999 * share(exact.front)


def test_it_goes_on_after_a_resume_as_without_one(space: Space, tmp_path: object) -> None:
    at = f"sqlite:///{tmp_path}/s.db"
    whole = study(space, trials=30, seed=2, sampler="local")
    study(space, trials=11, seed=2, storage=at, sampler="local")
    parts = study(space, trials=19, seed=2, storage=at, sampler="local")
    assert parts.trials["point"].tolist() == whole.trials["point"].tolist()


def test_one_objective_and_three(space: Space) -> None:
    fastest = sweep(space).front["speedup"].max()
    found = study(space, trials=30, sampler="local", objective="speedup")
    assert found.info["duplicates"] == 0
    assert found.front["speedup"].max() >= 0.9 * fastest
    plain = space.plain()
    plain["objectives"] = {"maximize": ["speedup"], "minimize": ["nll_increase", "energy_j"]}
    three = study(load_space(plain, profile=space.profile), trials=25, sampler="local")
    assert three.info["duplicates"] == 0
    assert three.info["front"] >= 3


def test_between_the_listed_values_where_they_are_free(space: Space) -> None:
    found = study(space, trials=40, sampler="local", continuous=True)
    lanes = set(found.trials["hardware.lanes"])
    assert lanes - {24, 48}
    assert all(24 <= n <= 48 for n in lanes)


def test_a_space_in_which_nothing_fits_is_still_searched(space: Space) -> None:
    from dse.errors import DseError

    tight = load_space(space.plain(), ["constraints.area_mm2.max=0.001"], profile=space.profile)
    with pytest.raises(DseError, match="none of 30 trials"):
        study(tight, trials=30, sampler="local")
