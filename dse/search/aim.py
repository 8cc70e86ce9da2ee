"""What the fast sweep seeks of one setting: objectives and constraints as raw metrics of designs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dse.profiles.profile import ACCURACY_COLUMN
from dse.search.shards import LIMIT_ROOM, Goal

FloatArray = NDArray[np.float64]

PLAIN: Final = (
    "latency_s", "attention_s", "energy_j", "area_mm2", "power_w", "power_chip_w", "dram_bytes",
    "attention_share",
)  # fmt: skip
RATIOS: Final[Mapping[str, str]] = {
    "speedup": "latency_s", "speedup_best_dense": "latency_s", "speedup_end_to_end": "model_s",
    "energy_saving": "energy_j", "dram_reduction": "dram_bytes",
}  # fmt: skip
"""Metrics that are a number of the setting over a raw metric."""


def can_hunt(goal: Goal) -> bool:
    """Whether all metrics of a goal come from a price taken apart."""
    known = {*PLAIN, *RATIOS, *ACCURACY_COLUMN}
    return known >= {*goal.objectives, *goal.constraints}


@dataclass(frozen=True)
class Follow:
    """How a metric of one setting follows from a raw one: the raw one itself, or `over` / raw."""

    name: str
    raw: str
    over: float | None

    def __call__(self, values: FloatArray) -> FloatArray:
        return values if self.over is None else self.over / values

    def at(self, value: float) -> float:
        """The raw value where the metric has `value`, loosely: infinite where it never has."""
        if self.over is None:
            return value
        return self.over / value if value > 0 else math.inf


@dataclass(frozen=True)
class Cost:
    """An objective that varies over designs, as a cost."""

    column: int
    follow: Follow
    up: bool

    @property
    def least_raw(self) -> bool:
        """Whether the least raw value is the best."""
        return (self.follow.over is None) != self.up

    def of(self, raw: FloatArray) -> FloatArray:
        values = self.follow(raw)
        return -values if self.up else values


@dataclass(frozen=True)
class Limit:
    """A constraint as limits of a raw metric, loosened by `LIMIT_ROOM`."""

    follow: Follow
    low: float
    high: float

    @classmethod
    def of(cls, follow: Follow, low: float | None, high: float | None) -> Limit:
        ends = [-math.inf if low is None else low, math.inf if high is None else high]
        if follow.over is not None:
            # over / raw: the lower limit becomes the upper one.
            ends = [
                0.0 if high is None else (follow.at(high) if high > 0 else math.inf),
                math.inf if low is None or low <= 0 else follow.at(low),
            ]
        loose = [
            value - abs(value) * LIMIT_ROOM * side if math.isfinite(value) else value
            for value, side in zip(ends, (1.0, -1.0), strict=True)
        ]
        return cls(follow, *loose)

    def holds(self, raw: FloatArray, room: float = 0.0) -> NDArray[np.bool_]:
        """Which raw values lie within, or less than `room` (relative) outside; an undefined one does not."""
        good = None if self.high == math.inf else raw <= self.high + abs(self.high) * room
        if self.low > -math.inf:
            above = raw >= self.low - abs(self.low) * room
            good = above if good is None else good & above
        return np.asarray(~np.isnan(raw) if good is None else good)


@dataclass(frozen=True)
class Aim:
    """What is sought of one setting.

    Attributes:
        own: column of the objective -> the setting's cost on every design.
        costs: the objectives that vary. limits: the constraints that vary.
    """

    setting: int
    own: Mapping[int, float]
    costs: Sequence[Cost]
    limits: Sequence[Limit]

    @property
    def tested(self) -> tuple[str, ...]:
        """Raw metrics every point is tested on."""
        return tuple(
            dict.fromkeys([*(x.follow.raw for x in self.limits), *(x.follow.raw for x in self.costs)])
        )

    @property
    def raw(self) -> tuple[str, ...]:
        """Raw metrics of the points that are kept."""
        return tuple(dict.fromkeys([*self.tested, "area_mm2", "energy_j"]))
