"""The fast sweep against brute force: every point priced alone, with the product's own price."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from profiles.synthetic import profile

from dse.cost.price import price
from dse.cost.statistics import statistics_from
from dse.cost.workload import Workload
from dse.errors import DseError
from dse.profiles.lookup import take
from dse.profiles.profile import ACCURACY_COLUMN
from dse.search import hunt, plane
from dse.search import sweep as sweeping
from dse.search.front import nondominated_reference, settled
from dse.search.sweep import sweep
from dse.space import DENSE, Space, load_space

PROFILE = profile()
AXES: dict[str, list[Any]] = {
    "lanes": [2, 4, 8, 16, 64], "multipliers": [4, 8, 16, 64], "multiplier_bits": [2, 4, 8, 12],
    "key_buffer_kib": [1, 4, 16, 64], "value_buffer_kib": [1, 8, 32], "heads_in_flight": [1, 2, 8],
    "dram": ["hbm2", "lpddr5"], "dram_channels": [1, 2, 8], "layout": ["planes", "token-major"],
    "outstanding_requests": [4, 64, 512], "exponent_units": [1, 4, 32], "scoreboard_entries": [1, 16],
    "clock_ghz": [0.5, 1.0], "select_comparators": [1, 16], "value_lanes": [0, 4],
}  # fmt: skip
DOWN = ["nll_increase", "energy_j", "area_mm2", "power_w", "dram_bytes", "latency_s", "power_chip_w"]
UP = [
    "speedup",
    "energy_saving",
    "dram_reduction",
    "top1_agreement",
    "speedup_end_to_end",
    "speedup_best_dense",
]


def random_table(
    rng: np.random.Generator, metrics: dict[str, tuple[float, float]] | None = None
) -> dict[str, Any]:
    """A space of at most some thousand points; `metrics`: ranges that constraints are drawn from."""

    def some(values: list[Any], least: int = 1) -> list[Any]:
        size = int(rng.integers(least, len(values) + 1))
        return [values[i] for i in sorted(rng.permutation(len(values))[:size])]

    algorithms = {
        "dense": {"k_bits": some([4, 8, 12]), "v_bits": some([4, 8, 12])},
        "alpha": {"threshold": some([1e-4, 5e-4, 1e-3, 1e-2]), "chunks": some(["6+6", "12"])},
        "beta": {"keep": some([0.25, 0.4, 0.5, 1.0])},
    }
    hardware: dict[str, Any] = {"base": "topick"}
    points = 1
    for name in rng.permutation(list(AXES)):
        values = some(AXES[name], 2)
        if points * len(values) <= 250:
            hardware[name] = values
            points *= len(values)
    number = int(rng.integers(2, 5))
    names = [str(n) for n in rng.permutation([*DOWN, *UP])[:number]]
    if rng.random() < 0.4:
        names = ["speedup", "nll_increase", "energy_j"][: int(rng.integers(2, 4))]
    odd = rng.random() < 0.2  # now and then a direction nobody would ask for
    ups = [n for n in names if (n in UP) != (odd and rng.random() < 0.5)]
    return {
        "schema": 1,
        "name": "random",
        "workload": {"profile": "tiny", "context": int(rng.choice([64, 128])), "grouped": bool(rng.random() < 0.5)},
        "algorithms": {name: algorithms[name] for name in some(list(algorithms))},
        "hardware": hardware,
        "objectives": {"maximize": ups, "minimize": [n for n in names if n not in ups]},
    }  # fmt: skip


class Flat:
    """Every metric of every point of a space, by algorithm, one point a row."""

    def __init__(self, space: Space) -> None:
        self.space = space
        w = space.workload
        self.workload = Workload(w.phase, w.context, w.batch)
        base = self._price(statistics_from(space.baseline_rows(), space.profile.shape, self._n(), w.grouped), {
            name: np.array([value]) for name, value in space.baseline.hardware.items()
        })  # fmt: skip
        self.base = {name: float(values[0]) for name, values in base.items()}
        self.tables = {name: self._points(name) for name in space.algorithms}
        self._rivals()

    def _n(self) -> float:
        at = self.space.profile.context_index(self.space.workload.context)
        return float(self.space.profile.mean_context[at])

    def _price(self, stats: Any, design: dict[str, Any]) -> dict[str, NDArray[Any]]:
        names = ("latency_s", "energy_j", "area_mm2", "power_w", "power_chip_w", "dram_bytes", "rest_s")
        found = price(stats, design, self.workload, names)
        length = max(np.size(v) for v in design.values())
        return {name: np.broadcast_to(values, length).copy() for name, values in found.items()}

    def _points(self, name: str) -> dict[str, NDArray[Any]]:
        space, resolution = self.space, self.space.resolutions[name]
        axes = space.axes(name)
        mesh = np.meshgrid(*(np.arange(len(v)) for v in axes.values()), indexing="ij")
        design = {k: np.array(v)[m.reshape(-1)] for (k, v), m in zip(axes.items(), mesh, strict=True)}
        length = mesh[0].size
        parts = []
        for i in range(len(resolution.sources)):
            row = take(resolution, i, i + 1)
            stats = statistics_from(row, space.profile.shape, row.mean_context, space.workload.grouped)
            found = self._price(stats.take(np.zeros(length, dtype=np.intp)), design)
            found |= {m: np.full(length, row.accuracy[0, c]) for m, c in ACCURACY_COLUMN.items()}
            parts.append(found)
        table = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        table["speedup"] = self.base["latency_s"] / table["latency_s"]
        table["energy_saving"] = self.base["energy_j"] / table["energy_j"]
        table["dram_reduction"] = self.base["dram_bytes"] / table["dram_bytes"]
        whole = self.base["latency_s"] + self.base["rest_s"]
        table["speedup_end_to_end"] = whole / (table["latency_s"] + table["rest_s"])
        return table

    def fits(self, table: dict[str, NDArray[Any]], but: str = "") -> NDArray[np.bool_]:
        good = np.ones(len(table["latency_s"]), dtype=bool)
        for name, x in self.space.constraints.items():
            if name != but:
                low, high = -1e300 if x.low is None else x.low, 1e300 if x.high is None else x.high
                room = 1e-12  # a limit may be the very value of a design
                good &= (table[name] >= low - abs(low) * room) & (table[name] <= high + abs(high) * room)
        return good

    def _rivals(self) -> None:
        dense = self.tables.get(DENSE)
        for table in self.tables.values():
            table["speedup_best_dense"] = np.full(len(table["latency_s"]), np.nan)
            if dense is None:
                continue
            good = self.fits(dense, "speedup_best_dense")
            nll, latency = dense["nll_increase"][good], dense["latency_s"][good]
            if not good.any():
                continue
            for own in np.unique(table["nll_increase"]):
                no_worse = nll <= (own if (nll <= own).any() else nll.min())
                here = table["nll_increase"] == own
                table["speedup_best_dense"][here] = latency[no_worse].min() / table["latency_s"][here]

    def fronts(self) -> dict[str, list[tuple[NDArray[Any], int]]]:
        """Algorithm -> its front's objective vectors with the number of points that share each."""
        found = {}
        for name, table in self.tables.items():
            columns = [table[m] * (-1.0 if up else 1.0) for m, up in self.space.objectives.items()]
            costs = settled(np.stack(columns, axis=1))
            costs = costs[self.fits(table) & np.isfinite(costs).all(axis=1)]
            unique, counts = np.unique(costs, axis=0, return_counts=True)
            good = nondominated_reference(unique) if len(unique) else np.zeros(0, dtype=bool)
            found[name] = list(zip(unique[good], counts[good].tolist(), strict=True))
        return found


def limited(rng: np.random.Generator) -> tuple[Space, Flat]:
    """A random space whose constraints leave some of its points, and its brute force."""
    table = random_table(rng)
    flat = Flat(load_space(table, profile=PROFILE))
    table["constraints"] = {}
    for name in rng.permutation([*DOWN, "speedup"])[: int(rng.integers(0, 4))]:
        values = np.concatenate([t[name] for t in flat.tables.values()])
        ends = np.quantile(values, sorted(rng.random(2) * [0.3, 0.3] + [0.0, 0.7]))
        bounds = {"min": float(ends[0]), "max": float(ends[1])}
        if rng.random() < 0.7:
            bounds.pop("min" if name in DOWN else "max")
        if bounds.get("min", 0.0) < bounds.get("max", math.inf):
            table["constraints"][str(name)] = bounds
    space = load_space(table, profile=PROFILE)
    return space, Flat(space)


@pytest.mark.parametrize("seed", range(200))
def test_the_fast_sweep_equals_brute_force(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(sweeping, "APART_POINTS", 0)
    monkeypatch.setattr(sweeping, "SEED_DESIGNS", int(rng.choice([8, 1000])))
    monkeypatch.setattr(sweeping, "TASK_POINTS", (int(rng.choice([300, 1 << 20])), 1 << 29))
    monkeypatch.setattr(hunt, "TILE_POINTS", int(rng.choice([1, 64, 1 << 13])))
    monkeypatch.setattr(hunt, "PLANE_CELLS", int(rng.choice([1, 1 << 17])))
    monkeypatch.setattr(plane, "MEMORY_CELL", int(rng.choice([1, 3, 8])))
    monkeypatch.setattr(plane, "COMPUTE_CELL", int(rng.choice([1, 5, 64])))
    space, flat = limited(rng)
    expected = flat.fronts()
    for skip in (True, False):
        if not any(expected.values()):
            with pytest.raises(DseError, match="none of"):
                sweep(space, skip=skip)
            continue
        result = sweep(space, skip=skip)
        assert result.info["evaluated"] + result.info["excluded"] == result.info["points"] == space.size
        signs = np.array([-1.0 if up else 1.0 for up in space.objectives.values()])
        for name, vectors in expected.items():
            mine = result.front[result.front["algorithm"] == name]
            costs = mine[list(space.objectives)].to_numpy(dtype=float) * signs
            assert len(mine) == len(vectors)
            for vector, count in vectors:
                same = np.isclose(costs, vector, rtol=1e-11, atol=0).all(axis=1)
                assert same.sum() == 1
                assert mine["ties"].to_numpy()[same][0] == count - 1


@pytest.mark.parametrize("seed", range(12))
def test_where_nothing_fits_the_closest_point_is_the_closest_of_all(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(sweeping, "APART_POINTS", 0)
    monkeypatch.setattr(hunt, "PLANE_CELLS", int(rng.choice([1, 1 << 17])))
    monkeypatch.setattr(plane, "COMPUTE_CELL", int(rng.choice([1, 5, 64])))
    table = random_table(rng)
    flat = Flat(load_space(table, profile=PROFILE))
    names = ["area_mm2", str(rng.choice(["power_w", "energy_j"])), "nll_increase"][: int(rng.integers(1, 4))]
    least = {n: min(t[n].min() for t in flat.tables.values()) for n in names}
    table["constraints"] = {
        n: {"max": float(low + abs(low) * rng.uniform(0.1, 0.6))} for n, low in least.items()
    }
    table["constraints"]["area_mm2"] = {"max": float(least["area_mm2"] * rng.uniform(0.5, 0.99))}
    space = load_space(table, profile=PROFILE)
    total = math.inf
    for points in flat.tables.values():
        excess = sum(
            np.maximum(0.0, points[n] - x.high) / max(abs(x.high), 1e-12)
            for n, x in space.constraints.items()
            if x.high is not None
        )
        total = min(total, float(np.min(excess)))
    with pytest.raises(DseError, match="the closest point") as caught:
        sweep(space)
    told = re.findall(r"(\w+) = ([-\d.e+]+), [-\d.e+]+ above max ([-\d.e+]+)", str(caught.value))
    assert told
    seen = sum((float(value) - float(high)) / max(abs(float(high)), 1e-12) for _, value, high in told)
    assert seen == pytest.approx(total, rel=0.02, abs=2e-3)


def test_an_axis_that_changes_nothing_is_priced_once_and_counted_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {
        "schema": 1,
        "name": "idle",
        "workload": {"profile": "tiny", "context": 64},
        "algorithms": {"dense": {"k_bits": [4, 8], "v_bits": [8]}},
        "hardware": {
            "base": "topick",
            "lanes": [4, 16],
            "select_comparators": [1, 4, 16],
            "dram_channels": [2, 8],
        },
        "objectives": {"maximize": ["speedup"], "minimize": ["nll_increase", "latency_s"]},
    }
    monkeypatch.setattr(sweeping, "APART_POINTS", 0)
    space = load_space(table, profile=PROFILE)
    run = sweeping._Run(space, None, 1, "loky", None, False, None)
    (task,) = run.tasks(run.goal)
    pieces = hunt.Hunter(task.chunk, run.meter, run.goal, run.identity).terms(np.arange(2))
    priced = math.prod(len(v) for v in space.hardware.values()) // pieces.copies
    assert pieces.copies >= 3
    assert priced * pieces.copies == 12
    result = sweep(space, skip=False)
    assert result.info["evaluated"] == space.size == 24
    assert ((result.front["ties"] + 1) % pieces.copies == 0).all()
