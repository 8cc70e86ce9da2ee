"""A price made of small whole numbers, random spaces, and the front by its definition, one point at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dse.cost.statistics import Statistics, statistics_from
from dse.cost.workload import Workload
from dse.profiles.lookup import select, take
from dse.profiles.profile import ACCURACY_COLUMN
from dse.profiles.schema import ACCURACY
from dse.space import DENSE, Space
from dse.space.names import PRICED

RATIOS = ("speedup", "speedup_same_hardware", "speedup_best_dense", "speedup_end_to_end", "attention_share")


def price(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    metrics: Collection[str],
    overrides: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Coarse whole numbers, so that ties are common; a sub-expression stays on its own axes."""
    ndim = max((np.ndim(v) for v in design.values()), default=0) or 1
    column = (slice(None), *(None,) * (ndim - 1))
    rows = 1.0 + np.round((stats.counters["v_rows"] * stats.weights).sum(axis=1) / 40.0)[column]
    bits = (stats.chunk_bits.sum(axis=1) + stats.v_bits)[column]
    lanes, channels = np.asarray(design["lanes"]), np.asarray(design["dram_channels"])
    planes = np.where(np.asarray(design["layout"]) == "planes", 1.0, 3.0)
    compute = np.ceil(rows * 8.0 / lanes)
    memory = np.ceil((rows + bits) / channels) + planes
    area = lanes + 2.0 * channels
    found = {
        "latency_s": np.maximum(compute, memory),
        "floor_s": np.minimum(compute, memory),
        "energy_j": rows + np.floor(bits / 8.0) + channels,
        "dram_bytes": rows * bits,
        "area_mm2": area,
        "power_w": rows / lanes,
        "power_chip_w": rows / (lanes + 1.0),
        "bound": np.where(compute > memory, 1, 0).astype(np.int8),
        "rest_s": 100.0 / channels,
        "rest_energy_j": area * 1.0,
        "attention_energy_j": rows + np.floor(bits / 8.0) + channels,
        "batch": np.ones(1),
        "batch_limit": 8.0 * channels,
        "memory_fill": 1.0 / (8.0 * channels),
    }
    found["attention_s"] = found["latency_s"]
    found["tokens_per_s"] = 1.0 / found["latency_s"]
    return {name: found[name] for name in metrics}


def random_space(rng: np.random.Generator) -> dict[str, Any]:
    """A table that `load_space` accepts for the synthetic profile; at most a few hundred points."""

    def some(values: list[Any], least: int = 1) -> list[Any]:
        size = int(rng.integers(least, len(values) + 1))
        return [values[i] for i in sorted(rng.permutation(len(values))[:size])]

    algorithms: dict[str, Any] = {}
    for name in some(["dense", "alpha", "beta"]):
        if name == "dense":
            algorithms[name] = {"k_bits": some([4, 8, 12]), "v_bits": some([4, 8, 12])}
        elif name == "alpha":
            algorithms[name] = {"threshold": some([1e-4, 5e-4, 1e-3, 1e-2]), "chunks": some(["6+6", "12"])}
        else:
            algorithms[name] = {"keep": some([0.25, 0.4, 0.5, 0.75, 1.0])}
    hardware: dict[str, Any] = {"base": "topick"}
    axes = {"lanes": [4, 8, 16, 32], "dram_channels": [1, 2, 4], "layout": ["planes", "token-major"],
            "exponent_units": [16, 32]}  # fmt: skip
    for name in some(list(axes), 0):
        hardware[name] = some(axes[name])
    if rng.random() < 0.3:
        hardware["for"] = {next(iter(algorithms)): {"lanes": some([4, 12])}}
    pool = ["nll_increase", "area_mm2", "energy_j", "power_w", "dram_bytes", "kl_mean", "latency_s"]
    ups = ["energy_saving", "dram_reduction", "top1_agreement", *RATIOS]
    up, down = int(rng.integers(0, 3)), int(rng.integers(0, 3))
    if up + down < 2:
        up, down = 1, 1
    objectives = {
        "maximize": [str(m) for m in rng.choice(ups, up, replace=False)],
        "minimize": [str(m) for m in rng.choice(pool, down, replace=False)],
    }
    if rng.random() < 0.4:
        objectives = {"maximize": ["speedup"], "minimize": ["nll_increase"]}
    constraints: dict[str, Any] = {}
    if rng.random() < 0.5:
        constraints["area_mm2"] = {"max": float(rng.integers(6, 40))}
    if rng.random() < 0.4:
        constraints["nll_increase"] = {"min": -1.0, "max": float(rng.uniform(0.01, 0.08))}
    if rng.random() < 0.2:
        constraints["speedup_best_dense"] = {"min": float(rng.uniform(0.2, 1.2))}
    return {
        "schema": 1,
        "name": "random",
        "workload": {
            "profile": "tiny",
            "context": int(rng.choice([64, 128])),
            "grouped": bool(rng.random() < 0.5),
        },
        "algorithms": algorithms,
        "hardware": hardware,
        "objectives": objectives,
        "constraints": constraints,
    }


class Brute:
    """Every point of a space with every metric, and the fronts, by definition."""

    def __init__(self, space: Space) -> None:
        self.space, self.profile = space, space.profile
        self.points = [p for name in space.algorithms for p in self._points(name)]
        self._best_dense()
        for p in self.points:
            p["feasible"] = self._fits(p, space.constraints) and all(
                math.isfinite(p[m]) for m in space.objectives
            )

    def _one(self, selection: Any, design: Mapping[str, Any]) -> dict[str, float]:
        w = self.space.workload
        stats = statistics_from(selection, self.profile.shape, selection.mean_context, w.grouped)
        got = price(stats, design, w.priced(), (*PRICED, "bound"), {})
        return {name: float(np.asarray(value).reshape(-1)[0]) for name, value in got.items()}

    def _points(self, name: str) -> list[dict[str, Any]]:
        space, context = self.space, self.space.workload.context
        base = self._one(space.baseline_rows(), space.baseline.hardware)
        axes = space.axes(name)
        points = []
        for i, source in enumerate(space.resolutions[name].sources):
            row = take(space.resolutions[name], i, i + 1)
            same = None if name == DENSE else self._same_widths(source.setting.form, context)
            for values in itertools.product(*axes.values()):
                design = dict(zip(axes, values, strict=True))
                p: dict[str, Any] = self._one(row, design)
                p |= {m: float(row.accuracy[0, ACCURACY_COLUMN[m]]) for m in ACCURACY}
                p["algorithm"], p["knobs"], p["design"] = name, source.setting.knobs, design
                p["speedup"] = base["latency_s"] / p["latency_s"]
                p["energy_saving"] = base["energy_j"] / p["energy_j"]
                p["dram_reduction"] = base["dram_bytes"] / p["dram_bytes"]
                p["attention_share"] = p["latency_s"] / (p["latency_s"] + p["rest_s"])
                whole = base["latency_s"] + base["rest_s"]
                p["speedup_end_to_end"] = whole / (p["latency_s"] + p["rest_s"])
                p["speedup_same_hardware"] = 1.0
                if same is not None:
                    p["speedup_same_hardware"] = self._one(same, design)["latency_s"] / p["latency_s"]
                points.append(p)
        return points

    def _same_widths(self, form: Any, context: int) -> Any:
        wide = [(k, v) for k in (4, 8, 12) for v in (4, 8, 12) if k >= form.k_bits and v >= form.v_bits]
        k, v = min(wide, key=lambda w: (w[0] + w[1], w[0]))
        return select(self.profile, DENSE, {"k_bits": [k], "v_bits": [v]}, context)

    def _best_dense(self) -> None:
        others = {m: x for m, x in self.space.constraints.items() if m != "speedup_best_dense"}
        dense = [p for p in self.points if p["algorithm"] == DENSE and self._fits(p, others)]
        if not {"speedup_best_dense"} & {*self.space.constraints, *self.space.objectives}:
            dense = [p for p in dense if all(math.isfinite(p[m]) for m in self.space.objectives)]
        for p in self.points:
            rivals = [d for d in dense if d["nll_increase"] <= p["nll_increase"]]
            p["best_dense_as_accurate"] = bool(rivals)
            if not rivals and dense:
                least = min(d["nll_increase"] for d in dense)
                rivals = [d for d in dense if d["nll_increase"] == least]
            fastest = min((d["latency_s"] for d in rivals), default=math.nan)
            p["speedup_best_dense"] = fastest / p["latency_s"]

    @staticmethod
    def _fits(p: Mapping[str, Any], constraints: Mapping[str, Any]) -> bool:
        for metric, x in constraints.items():
            low = -math.inf if x.low is None else x.low
            high = math.inf if x.high is None else x.high
            if not low <= p[metric] <= high:
                return False
        return True

    def cost(self, p: Mapping[str, Any]) -> tuple[float, ...]:
        return tuple(-p[m] if up else p[m] for m, up in self.space.objectives.items())

    def fronts(self) -> dict[tuple[str, tuple[float, ...]], list[dict[str, Any]]]:
        """(algorithm, costs) -> the feasible points with these costs that nothing of the algorithm dominates."""
        groups: dict[tuple[str, tuple[float, ...]], list[dict[str, Any]]] = {}
        for p in self.points:
            if p["feasible"]:
                groups.setdefault((p["algorithm"], self.cost(p)), []).append(p)
        return {
            key: members
            for key, members in groups.items()
            if not any(dominates(c, key[1]) for a, c in groups if a == key[0])
        }


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b
