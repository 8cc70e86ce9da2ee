"""How far the prices of given points may be off, because the constants behind them are.

Every constant has a low and a high value (`dse.hardware.components`). Constants of one group err together, so
a group is one unknown: a *scenario* puts all of a group at its low, or at its high values. Groups err
independently, so a metric's range adds the squares of its shifts:

    low = value - sqrt(sum over groups of (largest shift down)^2),  high likewise

A shift of one group is the same cause at every point. So whether one point stays better than another is asked
of each scenario, not of whether their ranges overlap: they always do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.price import price
from dse.cost.statistics import Statistics
from dse.cost.workload import Workload
from dse.hardware.components import COMPONENTS

FloatArray = NDArray[np.float64]

RANGED: Final = ("latency_s", "energy_j", "area_mm2")


@dataclass(frozen=True)
class Scenario:
    """All constants of a group at one end of their ranges."""

    group: str
    end: str
    constants: Mapping[str, float] = field(hash=False, compare=False)

    def __str__(self) -> str:
        return f"{self.group} {self.end}"


def scenarios(overrides: Mapping[str, float] | None = None) -> list[Scenario]:
    """Two per group of constants that has a range; a constant that was overridden is taken as known."""
    fixed = dict(overrides or {})
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, row in COMPONENTS.items():
        if name in fixed:
            continue
        for end, value in (("low", row.low), ("high", row.high)):
            if value != row.value:
                found.setdefault((row.group, end), {})[name] = value
    return [Scenario(group, end, {**fixed, **constants}) for (group, end), constants in found.items()]


def scenario_prices(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
    metrics: Sequence[str] = RANGED,
) -> tuple[dict[str, FloatArray], dict[Scenario, dict[str, FloatArray]]]:
    """Prices as they are, and in every scenario: metric -> [R].

    Args:
        stats: one setting per row. design: one design per row, arrays [R] or scalars.
        metrics: of `dse.cost.price.METRICS`; ``step_s`` is attention and the rest of the model, ``share``
            attention's part of it.
    """
    rows = stats.settings

    derived = {"step_s", "share"} & set(metrics)
    asked = {*metrics} - derived | ({"attention_s", "rest_s"} if derived else set())

    def flat(constants: Mapping[str, float] | None) -> dict[str, FloatArray]:
        found = price(stats, design, workload, asked, constants)
        table = {name: np.array(np.broadcast_to(value, rows)) for name, value in found.items()}
        if derived:
            table["step_s"] = table["attention_s"] + table["rest_s"]
            table["share"] = table["attention_s"] / table["step_s"]
        return table

    return flat(overrides), {s: flat(s.constants) for s in scenarios(overrides)}


def price_range(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
    metrics: Sequence[str] = RANGED,
) -> dict[str, FloatArray]:
    """``metric_low`` and ``metric_high`` of a few points, [R] each; arguments as `scenario_prices`.

    Meant for the points of a front: it prices them some twenty times.
    """
    base, shifted = scenario_prices(stats, design, workload, overrides, metrics)
    result: dict[str, FloatArray] = {}
    for name in metrics:
        down: dict[str, FloatArray] = {}
        up: dict[str, FloatArray] = {}
        for scenario, found in shifted.items():
            shift = found[name] - base[name]
            down[scenario.group] = np.maximum(down.get(scenario.group, np.zeros_like(shift)), -shift)
            up[scenario.group] = np.maximum(up.get(scenario.group, np.zeros_like(shift)), shift)
        # Of many small shifts none can make a price negative: the lowest is the product of the factors.
        away = np.sqrt(sum((d**2 for d in down.values()), np.zeros_like(base[name])))
        least = base[name] * np.prod([1 - d / base[name] for d in down.values()], axis=0)
        result[f"{name}_low"] = np.maximum(base[name] - away, least)
        result[f"{name}_high"] = base[name] + np.sqrt(
            sum((u**2 for u in up.values()), np.zeros_like(base[name]))
        )
    return result


BEHIND: Final[Mapping[str, tuple[str, int]]] = {
    "latency_s": ("latency_s", 1), "energy_j": ("energy_j", 1), "area_mm2": ("area_mm2", 1),
    "dram_bytes": ("dram_bytes", 1), "power_w": ("power_w", 1), "power_chip_w": ("power_chip_w", 1),
    "speedup": ("latency_s", -1), "speedup_same_hardware": ("latency_s", -1), "speedup_best_dense": ("latency_s", -1),
    "speedup_end_to_end": ("step_s", -1), "tokens_per_s": ("latency_s", -1), "energy_saving": ("energy_j", -1),
    "dram_reduction": ("dram_bytes", -1), "attention_share": ("share", 1), "attention_s": ("attention_s", 1),
    "attention_energy_j": ("attention_energy_j", 1), "rest_s": ("rest_s", 1), "rest_energy_j": ("rest_energy_j", 1),
}  # fmt: skip
"""Metric of a front -> the price it follows, and whether with it (1) or against it (-1). A baseline is one
design for all points, so it moves every point's ratio alike and no order; a dense rival is held as it is."""


@dataclass(frozen=True)
class Standing:
    """Whether a point stays non-dominated among given points.

    Attributes:
        survives: in every scenario. lost: scenario -> rows that dominate it there.
    """

    survives: bool
    scenarios: int
    lost: Mapping[str, tuple[int, ...]]


def standing(
    row: int,
    objectives: Mapping[str, bool],
    values: Mapping[str, FloatArray],
    base: Mapping[str, FloatArray],
    shifted: Mapping[Scenario, Mapping[str, FloatArray]],
) -> Standing:
    """Where point `row` leaves the front of some points.

    Args:
        objectives: metric -> maximised?
        values: objective -> [R], as they were compared.
        base, shifted: of `scenario_prices`, with every price that `BEHIND` names for the objectives.
    """
    lost: dict[str, tuple[int, ...]] = {}
    for scenario, found in shifted.items():
        costs = []
        for name, up in objectives.items():
            value = np.asarray(values[name], dtype=np.float64)
            if name in BEHIND:
                behind, power = BEHIND[name]
                value = value * (found[behind] / base[behind]) ** power
            costs.append(-value if up else value)
        table = np.stack(costs, axis=1)
        mine = table[row]
        # Rows that are equal but for rounding do not dominate.
        slack = 1e-9 * np.abs(mine)
        better = (table <= mine + slack).all(axis=1) & (table < mine - slack).any(axis=1)
        if better.any():
            lost[str(scenario)] = tuple(int(i) for i in np.flatnonzero(better))
    return Standing(not lost, len(shifted), lost)


def prices_behind(objectives: Mapping[str, bool]) -> tuple[str, ...]:
    """Prices `standing` needs for these objectives; accuracy needs none."""
    return tuple(dict.fromkeys(BEHIND[name][0] for name in objectives if name in BEHIND))
