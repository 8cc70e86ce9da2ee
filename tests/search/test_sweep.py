from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from profiles.synthetic import fields, profile

from dse.cost.processor import price_processor
from dse.cost.workload import Workload
from dse.errors import BadInput, DseError
from dse.hardware.processors import load_processor
from dse.profiles.profile import build_profile
from dse.search import shards, tasks
from dse.search import sweep as sweeping
from dse.search.identity import Identity
from dse.search.sweep import describe, sweep
from dse.space import load_space
from dse.space.names import METRICS
from search.brute import Brute, dominates, price, random_space

PROFILE = profile()


def space_of(table: dict[str, Any], *overrides: str) -> Any:
    return load_space(table, overrides, profile=PROFILE)


TABLE: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "workload": {"profile": "tiny", "context": 128},
    "algorithms": {"alpha": {"threshold": "all", "chunks": ["6+6", "12"]}, "beta": {}},
    "hardware": {"base": "topick", "lanes": [4, 8, 16, 32], "dram_channels": [1, 2, 4, 8]},
    "objectives": {"maximize": ["speedup"], "minimize": ["nll_increase"]},
}


def close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return bool(np.allclose(a, b, rtol=1e-11, atol=0))


@pytest.mark.parametrize("seed", range(120))
def test_the_sweep_equals_brute_force(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(shards, "BLOCK_POINTS", int(rng.choice([1, 7, 50, 1 << 17])))
    monkeypatch.setattr(sweeping, "CHUNK_SETTINGS", int(rng.choice([1, 3, 256])))
    monkeypatch.setattr(tasks, "BLOCKS_PER_TASK", int(rng.choice([1, 4])))
    space = space_of(random_space(rng))
    brute = Brute(space)
    expected = brute.fronts()
    if not expected:
        with pytest.raises(DseError, match="none of"):
            sweep(space, pricer=price)
        return
    result = sweep(space, pricer=price)
    front = result.front
    identity = Identity(json.dumps([1, sweeping._shared(space)], sort_keys=True))
    assert result.info["points"] == result.info["evaluated"] == len(brute.points) == space.size
    assert result.info["infeasible"] == sum(not p["feasible"] for p in brute.points)
    assert len(front) == len(expected)
    everything = [cost for _, cost in expected]
    for (algorithm, cost), members in expected.items():
        signs = [-1.0 if up else 1.0 for up in space.objectives.values()]
        mine = front[front["algorithm"] == algorithm]
        rows = [
            r for r in mine.to_dict("records")
            if close(tuple(s * r[m] for s, m in zip(signs, space.objectives, strict=True)), cost)
        ]  # fmt: skip
        assert len(rows) == 1, (algorithm, cost)
        (row,) = rows
        assert row["ties"] == len(members) - 1
        assert row["on_front"] == (not any(dominates(other, cost) for other in everything))
        least = min((p["area_mm2"], p["energy_j"]) for p in members)
        assert (row["area_mm2"], row["energy_j"]) == least
        chosen = [p for p in members if _is(row, p)]
        assert len(chosen) == 1
        equals = [p for p in members if (p["area_mm2"], p["energy_j"]) == least]
        assert row["point"] == min(identity(algorithm, p["knobs"], p["design"]) for p in equals)
        for metric in METRICS:
            assert row[metric] == pytest.approx(chosen[0][metric], rel=1e-11, nan_ok=True), metric
        assert row["best_dense_as_accurate"] == chosen[0]["best_dense_as_accurate"]
        assert row["rest_s"] == chosen[0]["rest_s"]
        assert row["hardware.pe_count"] == row["hardware.lanes"] * row["hardware.multipliers"]
    assert front["point"].is_unique


def _is(row: dict[str, Any], point: dict[str, Any]) -> bool:
    return all(row[f"{point['algorithm']}.{k}"] == v for k, v in point["knobs"].items()) and all(
        row[f"hardware.{k}"] == v for k, v in point["design"].items()
    )


@pytest.mark.parametrize("engine", ["threading", "loky"])
def test_workers_find_the_same_front(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(TABLE)
    alone = sweep(space, pricer=price)
    monkeypatch.setattr(sweeping, "CHUNK_SETTINGS", 2)
    together = sweep(space, pricer=price, jobs=2, engine=engine)
    pd.testing.assert_frame_equal(alone.front, together.front)
    assert alone.info["hypervolume"] == together.info["hypervolume"]


def test_the_real_price_gives_one_front_however_the_space_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**TABLE, "constraints": {"area_mm2": {"max": 40}}}
    whole = sweep(space_of(table))
    for points, settings in ((1, 1), (5, 2), (16, 3)):
        monkeypatch.setattr(shards, "BLOCK_POINTS", points)
        monkeypatch.setattr(sweeping, "CHUNK_SETTINGS", settings)
        parts = sweep(space_of(table))
        assert parts.front["point"].tolist() == whole.front["point"].tolist()
        assert parts.front["ties"].tolist() == whole.front["ties"].tolist()
        numbers = whole.front.select_dtypes("number")
        pd.testing.assert_frame_equal(parts.front[numbers.columns], numbers, rtol=1e-10)


def test_columns_and_run_record() -> None:
    space = space_of(TABLE)
    calls: list[tuple[int, int]] = []
    result = sweep(
        space, pricer=price, progress=lambda done, total: calls.append((done, total)), seed=3, command="c"
    )
    assert calls[-1] == (space.size, space.size)
    columns = list(result.front.columns)
    assert columns[:5] == ["point", "algorithm", "on_front", "ties", "accuracy"]
    assert "alpha.threshold" in columns
    assert "hardware.dram" in columns
    assert set(METRICS) <= set(columns)
    assert set(result.front["accuracy"]) == {"measured"}
    assert set(result.front["bound"]) <= {"memory", "multipliers"}
    info = result.info
    for key in ("status", "points", "evaluated", "excluded", "infeasible", "front", "seconds", "points_per_second",
                "peak_memory_bytes", "hypervolume", "reference_point", "versions", "profile", "seed", "command"):  # fmt: skip
        assert key in info, key
    assert (info["status"], info["seed"], info["command"]) == ("complete", 3, "c")
    assert info["profile"] == {"name": "tiny", "checksum": PROFILE.checksum}
    assert info["front"] == result.front["on_front"].sum()
    assert result.points == space.size
    assert "dense attention was added" in info["notes"][0]


def test_interpolated_points_are_marked_with_their_error() -> None:
    table = {**TABLE, "algorithms": {"beta": {"keep": [0.25, 0.3, 0.6]}}}
    result = sweep(space_of(table), pricer=price)
    status = result.front.set_index("beta.keep")["accuracy"]
    assert all(status[k] == ("measured" if k == 0.25 else "interpolated") for k in status.index.dropna())
    assert set(result.info["interpolation_error"]) == {"beta.keep"}


def test_the_reference_point_can_be_fixed_and_the_hypervolume_is_a_hand_calculation() -> None:
    table = {
        **TABLE,
        "objectives": {**TABLE["objectives"], "reference": {"nll_increase": 0.2, "speedup": 0.1}},
    }
    result = sweep(space_of(table), pricer=price)
    assert result.info["reference_point"] == {"speedup": 0.1, "nll_increase": 0.2}
    points = sorted(
        {(r["nll_increase"], r["speedup"]) for r in result.front.to_dict("records") if r["on_front"]}
    )
    area, height = 0.0, 0.1
    for loss, speed in points:
        if loss < 0.2 and speed > height:
            area += (0.2 - loss) * (speed - height)
            height = speed
    assert result.info["hypervolume"] == pytest.approx(area)
    default = sweep(space_of(TABLE), pricer=price)
    assert default.info["reference_point"]["speedup"] == 0
    assert default.info["reference_point"]["nll_increase"] == pytest.approx(
        1.1 * default.front["nll_increase"].max()
    )


def test_the_conclusion_is_the_fastest_point_within_each_budget() -> None:
    space = space_of(TABLE)
    brute = Brute(space)
    conclusion = sweep(space, pricer=price).info["conclusion"]
    assert conclusion["exact"]
    assert [b["nll_increase"] for b in conclusion["budgets"]] == [0.003, 0.01, 0.03, 0.1]
    for entry in conclusion["budgets"]:
        for name in space.algorithms:
            within = [p["speedup"] for p in brute.points
                      if p["algorithm"] == name and p["nll_increase"] <= entry["nll_increase"]]  # fmt: skip
            assert (name in entry["fastest"]) == bool(within)
            if within:
                assert entry["fastest"][name]["speedup"] == pytest.approx(max(within))
        if entry["gain"] is not None:
            best, dense = entry["fastest"][entry["best_sparse"]], entry["fastest"]["dense"]
            assert entry["gain"] == pytest.approx(best["speedup"] / dense["speedup"])
            assert entry["sparsity_pays"] == (entry["gain"] > 1.02)
    energy = {**TABLE, "objectives": {"minimize": ["energy_j", "area_mm2"]}}
    assert not sweep(space_of(energy), pricer=price).info["conclusion"]["exact"]


def test_when_nothing_fits_the_closest_point_is_told() -> None:
    table = {**TABLE, "constraints": {"area_mm2": {"max": 5}, "nll_increase": {"max": 0.05}}}
    with pytest.raises(DseError) as caught:
        sweep(space_of(table), pricer=price)
    text = str(caught.value)
    assert caught.value.exit_code == 1
    assert re.search(r"none of \d+ points satisfies the constraints: area_mm2 by \d+", text)
    assert "has area_mm2 = 6, 1 above max 5" in text
    assert "\n" not in text


def test_an_objective_that_is_not_defined_is_counted() -> None:
    given = fields()
    given["accuracy"][:, :, 3] = np.nan
    rows = [i for i, s in enumerate(given["settings"]) if s.algorithm == "dense"]
    given["accuracy"][rows, :, 3] = 0.1
    table = {**TABLE, "objectives": {"maximize": ["speedup"], "minimize": ["nll_increase_distant"]}}
    space = load_space(table, profile=build_profile(**given))
    result = sweep(space, pricer=price)
    assert set(result.front["algorithm"]) == {"dense"}
    points = result.info["algorithms"]
    missing = points["alpha"]["points"] + points["beta"]["points"]
    assert result.info["infeasible_by"] == {"nll_increase_distant is not defined": missing}


def test_bad_arguments() -> None:
    space = space_of(TABLE)
    with pytest.raises(BadInput, match="did you mean 'threading'"):
        sweep(space, engine="thread")
    with pytest.raises(BadInput, match="jobs: 0"):
        sweep(space, jobs=0)


def test_describe_counts_without_running() -> None:
    space = space_of(TABLE, "hardware.for.beta.lanes=[4, 8]")
    about = describe(space)
    assert about["algorithms"]["beta"]["points"] == 1 * 2 * 4
    assert about["algorithms"]["alpha"]["points"] == 3 * 2 * 16
    assert about["algorithms"]["dense"]["points"] == 9 * 16
    assert about["points"] == space.size == 8 + 96 + 144
    assert about["hardware"] == {"lanes": [4, 8, 16, 32], "dram_channels": [1, 2, 4, 8]}
    assert about["baseline"]["knobs"] == {"k_bits": 12, "v_bits": 12, "scale": "head"}


@pytest.mark.parametrize("grouped", [True, False])
def test_ratios_are_over_the_processor_where_the_space_names_one(grouped: bool) -> None:
    change = f"workload.grouped={str(grouped).lower()}"
    usual = sweep(space_of(TABLE, change), pricer=price)
    result = sweep(space_of(TABLE, change, "baseline.processor=xeon-e5-2640-v4"), pricer=price)
    n = describe(space_of(TABLE))["mean_context"]
    theirs = price_processor(load_processor("xeon-e5-2640-v4"), PROFILE.shape, n, Workload(), grouped)
    front = result.front
    assert (front["speedup"] * front["latency_s"]).to_numpy() == pytest.approx(theirs.latency_s)
    assert (front["energy_saving"] * front["energy_j"]).to_numpy() == pytest.approx(theirs.energy_j)
    assert (front["dram_reduction"] * front["dram_bytes"]).to_numpy() == pytest.approx(theirs.dram_bytes)
    whole = front["speedup_end_to_end"] * (front["latency_s"] + front["rest_s"])
    assert whole.to_numpy() == pytest.approx(theirs.latency_s + theirs.rest_s)
    # Another baseline scales speedups: the same points win, and what is not over it stays as it was.
    assert front["point"].tolist() == usual.front["point"].tolist()
    for name in ("speedup_best_dense", "speedup_same_hardware", "attention_share"):
        assert front[name].to_numpy() == pytest.approx(usual.front[name].to_numpy(), nan_ok=True), name
    recorded = result.info["baseline"]
    assert recorded["processor"] == "xeon-e5-2640-v4"
    assert recorded["latency_s"] == theirs.latency_s
    assert recorded["parameters"]["operand_bits"] == 32


def test_one_point_ids_do_not_depend_on_the_rest_of_the_space() -> None:
    a = sweep(space_of(TABLE), pricer=price).front.set_index("point")
    narrow = {
        **TABLE,
        "hardware": {**TABLE["hardware"], "lanes": [32]},
        "baseline": {"hardware": {"lanes": 16}},
    }
    b = sweep(space_of(narrow), pricer=price).front.set_index("point")
    common = a.index.intersection(b.index)
    assert len(common)
    knobs = [c for c in a.columns if "." in c]
    pd.testing.assert_frame_equal(a.loc[common, knobs], b.loc[common, knobs])
    assert not math.isnan(a["speedup"].sum())


def test_rounding_noise_of_a_price_neither_splits_ties_nor_makes_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sums formed in another order on another block differ in the last bits; equal points stay equal."""
    rng = np.random.default_rng(0)

    def noisy(*args: Any) -> dict[str, Any]:
        found = price(*args)
        steps = int(rng.integers(-8, 9))
        return {m: v * (1 + steps * 2.0**-52) if m != "bound" else v for m, v in found.items()}

    space = space_of({**TABLE, "algorithms": {"alpha": {"threshold": "all"}, "beta": {"keep": "all"}}})
    clean = sweep(space, pricer=price)
    assert clean.front["ties"].max() > 0
    for points in (1, 2, 5):
        monkeypatch.setattr(shards, "BLOCK_POINTS", points)
        result = sweep(space, pricer=noisy)
        for column in ("point", "ties", "on_front"):
            assert result.front[column].tolist() == clean.front[column].tolist()
