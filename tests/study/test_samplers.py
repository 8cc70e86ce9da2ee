from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.search.front import nondominated
from dse.search.sweep import sweep
from dse.space import load_space
from dse.space.definition import Space
from dse.study.run import study
from dse.study.samplers import check_sampler, spread


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 500), st.integers(0, 10**9))
def test_the_grid_visits_every_point_once(size: int, seed: int) -> None:
    assert sorted(spread(n, size, seed) for n in range(size)) == list(range(size))


def test_a_grid_of_all_points_finds_the_exact_front_and_stops(space: Space) -> None:
    exact = sweep(space)
    found = study(space, trials=space.size + 5, sampler="grid")
    assert found.info["stopped"] == "exhausted"
    assert found.info["trials"] == found.info["evaluated"] == space.size
    names = ["algorithm", "on_front", *space.objectives]
    told = found.front.sort_values(names, ignore_index=True)
    wanted = exact.front.sort_values(names, ignore_index=True)
    assert told["algorithm"].tolist() == wanted["algorithm"].tolist()
    assert told["on_front"].tolist() == wanted["on_front"].tolist()
    for name in space.objectives:
        assert np.allclose(told[name].to_numpy(float), wanted[name].to_numpy(float), rtol=1e-12)
    assert found.hypervolume == pytest.approx(exact.hypervolume, rel=1e-12)
    wanted, told = exact.front.set_index("point"), found.front.set_index("point")
    shared = sorted(set(wanted.index) & set(told.index))
    assert len(shared) == len(wanted)
    for column in ("latency_s", "area_mm2", "energy_j", "rest_s", "speedup_best_dense", "hardware.pe_count"):
        pair = (told.loc[shared, column].to_numpy(float), wanted.loc[shared, column].to_numpy(float))
        assert np.allclose(*pair, rtol=1e-9, atol=0)
    for column in ("bound", "best_dense_as_accurate", "ties", "accuracy"):
        assert told.loc[shared, column].tolist() == wanted.loc[shared, column].tolist()


def test_the_rival_is_the_fastest_by_the_sequence_where_batches_differ(space: Space) -> None:
    full = load_space(
        space.plain(),
        [
            "workload.batch=max",
            "hardware.lanes=48",
            "hardware.dram_channels=4",
            "algorithms.spatten.keep=0.9",
        ],
        profile=space.profile,
    )
    wanted, told = (
        found.set_index("point")
        for found in (sweep(full).front, study(full, trials=full.size, sampler="grid").front)
    )
    assert set(wanted["batch"]) > {wanted["batch"].min()}
    assert set(wanted.index) == set(told.index)
    for column in ("speedup_best_dense", "speedup", "latency_s"):
        pair = (told.loc[wanted.index, column].to_numpy(float), wanted[column].to_numpy(float))
        assert np.allclose(*pair, rtol=1e-9, atol=0)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "qmc", "random"])
def test_every_sampler_completes_what_was_asked(space: Space, sampler: str) -> None:
    found = study(space, trials=12, sampler=sampler, seed=3)
    assert found.info["trials"] == 12
    assert found.info["failed"] == 0
    table = found.trials[found.trials["feasible"]]
    costs = table[["speedup", "nll_increase"]].to_numpy(float) * [-1, 1]
    best = {tuple(c) for c in costs[nondominated(costs)]}
    shown = found.front[found.front["on_front"]][["speedup", "nll_increase"]].to_numpy(float) * [-1, 1]
    assert {tuple(c) for c in shown} == best


def test_gaussian_processes_where_torch_is_installed(space: Space) -> None:
    pytest.importorskip("torch", reason="the GP sampler needs torch")
    assert study(space, trials=12, sampler="gp").info["trials"] == 12


def test_cmaes_seeks_one_objective_only(space: Space) -> None:
    with pytest.raises(BadInput, match=r"single objective and this study has 2.*--objective"):
        study(space, trials=1, sampler="cmaes")
    pytest.importorskip("cmaes", reason="the CMA-ES sampler needs cmaes")
    found = study(space, trials=10, sampler="cmaes", objective="speedup")
    assert found.info["trials"] == 10
    assert found.info["front"] == 1


def test_unknown_samplers_are_named() -> None:
    with pytest.raises(BadInput, match="did you mean 'nsga2'"):
        check_sampler("nsga-2", 2)


def test_the_same_seed_gives_the_same_study_also_in_two_parts(space: Space, tmp_path: object) -> None:
    at = f"sqlite:///{tmp_path}/s.db"
    whole = study(space, trials=14, seed=5)
    study(space, trials=6, seed=5, storage=at)
    parts = study(space, trials=8, seed=5, storage=at)
    assert parts.trials["point"].tolist() == whole.trials["point"].tolist()
    other = study(space, trials=14, seed=6)
    assert other.trials["point"].tolist() != whole.trials["point"].tolist()
