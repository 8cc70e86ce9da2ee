"""Shards: blocks of points small enough for the cache, each reduced to its non-dominated points.

A block is a range of settings times a range of every hardware axis. Axes are halved, the longest first, until a
block has at most `BLOCK_POINTS` points: blocks with several values on every axis let a price evaluate each
sub-expression on few axes and broadcast late.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dse.hardware.parameters import HardwareValue
from dse.profiles.schema import KnobValue
from dse.search.front import nondominated, one_per_vector, settled
from dse.search.identity import Identity
from dse.search.metrics import PACE, Meter, Rows
from dse.space.definition import Limits

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

BLOCK_POINTS = 1 << 17
"""Most points of a block: a few temporaries of this size fit a second-level cache."""

LIMIT_ROOM = 1e-12
"""Constraints are met up to this relative excess: a limit may be the very value of a design, and the sum that
gives it may be formed in another order."""

Ranges = tuple[tuple[int, int], ...]


def cut(shape: Sequence[int], most: int | None = None) -> Iterator[Ranges]:
    """Ranges that tile an array of `shape` in blocks of at most `most` elements, in a fixed order."""
    most = BLOCK_POINTS if most is None else most
    sizes = list(shape)
    while math.prod(sizes) > most:
        longest = max(range(len(sizes)), key=lambda i: (sizes[i], -i))
        sizes[longest] = (sizes[longest] + 1) // 2
    axes = [
        [(start, min(start + size, n)) for start in range(0, n, size)]
        for n, size in zip(shape, sizes, strict=True)
    ]
    yield from itertools.product(*axes)


@dataclass(frozen=True)
class Grid:
    """The designs of one algorithm: every hardware parameter with its values, the swept ones as axes."""

    axes: Mapping[str, tuple[HardwareValue, ...]]

    @cached_property
    def swept(self) -> tuple[str, ...]:
        return tuple(name for name, values in self.axes.items() if len(values) > 1)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Length of each swept axis."""
        return tuple(len(self.axes[name]) for name in self.swept)

    def block(self, ranges: Ranges) -> dict[str, Any]:
        """Parameter -> scalar, or array along its own axis (axis 0 is the settings')."""
        ndim = 1 + len(self.swept)
        design: dict[str, Any] = {n: values[0] for n, values in self.axes.items() if len(values) == 1}
        for i, (name, (start, stop)) in enumerate(zip(self.swept, ranges, strict=True), 1):
            values = np.array(self.axes[name][start:stop])
            design[name] = values.reshape((1,) * i + (-1,) + (1,) * (ndim - 1 - i))
        return design

    def coarse(self, designs: int) -> Grid:
        """A grid over some values of every axis, ends first, of at most about so many designs."""
        keep = dict.fromkeys(self.swept, 1)
        while True:
            open_ = [n for n in keep if keep[n] < len(self.axes[n])]
            if not open_:
                break
            name = min(open_, key=lambda n: keep[n])
            if math.prod(keep.values()) // keep[name] * (keep[name] + 1) > designs:
                break
            keep[name] += 1
        axes = dict(self.axes)
        for name, count in keep.items():
            values, last = self.axes[name], len(self.axes[name]) - 1
            axes[name] = (
                tuple(values[last * i // (count - 1)] for i in range(count))
                if count > 1
                else (values[last // 2],)
            )
        return Grid(axes)

    def rows(self, flat: IntArray) -> dict[str, Any]:
        """Parameter -> scalar or array [rows]: one design per row, by flat number."""
        design: dict[str, Any] = {n: values[0] for n, values in self.axes.items() if len(values) == 1}
        numbers = np.unravel_index(flat, self.shape) if self.shape else ()
        for name, number in zip(self.swept, numbers, strict=True):
            design[name] = np.array(self.axes[name])[number]
        return design

    def design(self, flat: int) -> dict[str, HardwareValue]:
        """One design by flat number."""
        design = {name: values[0] for name, values in self.axes.items()}
        for name, length in zip(reversed(self.swept), reversed(self.shape), strict=True):
            flat, number = divmod(flat, length)
            design[name] = self.axes[name][number]
        return design


@dataclass(frozen=True)
class Goal:
    """What is sought: objectives (metric -> maximised?) within constraints."""

    objectives: Mapping[str, bool]
    constraints: Mapping[str, Limits]
    exact: frozenset[str]
    """Objectives read from a table, which need no rounding before they are compared."""


@dataclass
class Found:
    """What a set of points came to; `merge` joins two of them.

    Attributes:
        costs: [n, objectives], maximised ones negated.
        area, energy: [n], for the choice among equals.
        setting, design: [n] numbers of the row's setting and flat design.
        count: [n] points with that objective vector, itself included.
        infeasible: points that break any constraint; `broken` counts them per constraint.
        closest: (summed relative violation, metric -> value) of the point that breaks the constraints least,
            of blocks where nothing fits.
        fastest: setting -> smallest feasible `PACE` (dense only).
        excluded: points that were not evaluated, by what proves that they cannot be on the front.
    """

    costs: FloatArray
    area: FloatArray
    energy: FloatArray
    setting: IntArray
    design: IntArray
    count: IntArray
    evaluated: int = 0
    infeasible: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    closest: tuple[float, dict[str, float]] = (math.inf, {})
    fastest: dict[int, float] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)

    @classmethod
    def nothing(cls, objectives: int) -> Found:
        empty, none = np.empty(0), np.empty(0, dtype=np.intp)
        return cls(np.empty((0, objectives)), empty, empty, none, none, none)


@dataclass(frozen=True)
class Chunk:
    """Some settings of one algorithm, and the names of their points.

    Attributes:
        first: number of the first setting within the algorithm.
    """

    algorithm: str
    first: int
    knobs: tuple[Mapping[str, KnobValue], ...]
    rows: Rows
    grid: Grid
    _names: dict[tuple[int, int], str] = field(init=False, default_factory=dict, compare=False, repr=False)

    def identities(self, identity: Identity, setting: IntArray, design: IntArray) -> list[str]:
        """Ids of points by setting number (within the algorithm) and flat design number."""
        names = []
        for point in zip(setting.tolist(), design.tolist(), strict=True):
            if point not in self._names:
                s, d = point
                self._names[point] = identity(self.algorithm, self.knobs[s - self.first], self.grid.design(d))
            names.append(self._names[point])
        return names


def fastest_latencies(chunk: Chunk, blocks: Sequence[Ranges], meter: Meter, goal: Goal) -> dict[int, float]:
    """Setting number -> smallest `PACE` of a feasible point; infinite where none is."""
    best: dict[int, float] = {}
    for ranges in blocks:
        metrics, shape, _ = _measure(chunk, ranges, meter, [PACE, *goal.constraints])
        feasible = _feasible(metrics, shape, goal.constraints)[0]
        _note_fastest(best, chunk.first + ranges[0][0], metrics[PACE], feasible)
    return best


def search(chunk: Chunk, blocks: Sequence[Ranges], meter: Meter, goal: Goal, identity: Identity) -> Found:
    """The non-dominated points of some blocks of a chunk, one row per objective vector."""
    total = Found.nothing(len(goal.objectives))
    for ranges in blocks:
        total = merge(total, _search_block(chunk, ranges, meter, goal, identity), chunk, identity)
    return total


def _measure(
    chunk: Chunk, ranges: Ranges, meter: Meter, names: Sequence[str]
) -> tuple[dict[str, FloatArray], tuple[int, ...], IntArray]:
    """Metrics of a block, its shape, and the numbers of its settings within the chunk."""
    settings = np.arange(*ranges[0])
    shape = tuple(stop - start for start, stop in ranges)
    metrics = meter.measure(chunk.rows.take(settings), chunk.grid.block(ranges[1:]), names, len(shape))
    return metrics, shape, settings


def _feasible(
    metrics: Mapping[str, FloatArray], shape: tuple[int, ...], constraints: Mapping[str, Limits]
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which points satisfy every constraint, and how many break each (an undefined metric breaks it)."""
    fits: NDArray[np.bool_] = np.ones((1,) * len(shape), dtype=bool)
    broken = {}
    for name, limits in constraints.items():
        values = metrics[name]
        good = ~np.isnan(values)
        if limits.low is not None:
            good &= values >= limits.low - abs(limits.low) * LIMIT_ROOM
        if limits.high is not None:
            good &= values <= limits.high + abs(limits.high) * LIMIT_ROOM
        broken[name] = math.prod(shape) - int(good.sum()) * (math.prod(shape) // good.size)
        fits = fits & good
    return np.broadcast_to(fits, shape), broken


def _note_fastest(
    best: dict[int, float], first: int, latency: FloatArray, feasible: NDArray[np.bool_]
) -> None:
    full = np.where(feasible, latency, np.inf).reshape(len(feasible), -1).min(axis=1)
    for i, value in enumerate(full.tolist(), first):
        best[i] = min(best.get(i, math.inf), value)


def _search_block(chunk: Chunk, ranges: Ranges, meter: Meter, goal: Goal, identity: Identity) -> Found:
    names = [*goal.objectives, *goal.constraints, "area_mm2", "energy_j"]
    if chunk.rows.is_dense:
        names.append(PACE)
    metrics, shape, _ = _measure(chunk, ranges, meter, names)
    points = math.prod(shape)
    feasible, broken = _feasible(metrics, shape, goal.constraints)
    costs = []
    for name, up in goal.objectives.items():
        values = metrics[name]
        values = -values if up else values
        costs.append(values if name in goal.exact else settled(values))
    for name, values in zip(goal.objectives, costs, strict=True):
        defined = np.isfinite(values)
        if not defined.all():
            key = f"{name} is not defined"
            broken[key] = points - int(np.broadcast_to(defined, shape).sum())
            feasible = feasible & defined
    fits = int(feasible.sum())
    result = Found.nothing(len(costs))
    result.evaluated, result.infeasible = points, points - fits
    result.broken = {name: count for name, count in broken.items() if count}
    if chunk.rows.is_dense:
        _note_fastest(result.fastest, chunk.first + ranges[0][0], metrics[PACE], feasible)
    if not fits:
        result.closest = _closest(metrics, shape, goal.constraints)
        return result
    flat = _candidates(costs, feasible, shape)
    table = np.stack([np.broadcast_to(c, shape).reshape(-1)[flat] for c in costs], axis=1)
    good = nondominated(table)
    flat, table = flat[good], table[good]
    area, energy = (
        settled(np.broadcast_to(metrics[name], shape).reshape(-1)[flat]) for name in ("area_mm2", "energy_j")
    )
    local = np.unravel_index(flat, shape)
    setting = local[0] + ranges[0][0] + chunk.first
    whole = [axis + start for axis, (start, _) in zip(local[1:], ranges[1:], strict=True)]
    design = np.ravel_multi_index(whole, chunk.grid.shape) if whole else np.zeros(len(flat), dtype=np.intp)
    kept, count = one_per_vector(
        table,
        (area, energy),
        np.ones(len(flat), dtype=np.intp),
        lambda rows: chunk.identities(identity, setting[rows], design[rows]),
    )
    result.costs, result.area, result.energy = table[kept], area[kept], energy[kept]
    result.setting, result.design, result.count = setting[kept], design[kept], count
    return result


def _candidates(costs: Sequence[FloatArray], feasible: NDArray[np.bool_], shape: tuple[int, ...]) -> IntArray:
    """Flat numbers of the feasible points that may be non-dominated.

    Where all objectives but one depend on the setting alone, only a setting's best points can be: one
    comparison per point instead of a sort.
    """
    varying = [c for c in costs if c.size != c.shape[0]]
    if len(varying) == 1:
        cost = np.where(feasible, varying[0], np.inf).reshape(shape[0], -1)
        best = cost.min(axis=1, keepdims=True)
        return np.flatnonzero((cost == best) & np.isfinite(best))
    return np.flatnonzero(feasible.reshape(-1))


def _closest(
    metrics: Mapping[str, FloatArray], shape: tuple[int, ...], constraints: Mapping[str, Limits]
) -> tuple[float, dict[str, float]]:
    """The point of an infeasible block that breaks its constraints least, and its value of each broken one."""
    excess: FloatArray = np.zeros((1,) * len(shape))
    for name, limits in constraints.items():
        values = metrics[name]
        for limit, over in ((limits.low, -1.0), (limits.high, 1.0)):
            if limit is not None:
                scale = max(abs(limit), 1e-12)
                excess = excess + np.maximum(0.0, over * (values - limit)) / scale
    excess = np.where(np.isnan(excess), np.inf, excess)
    full = np.broadcast_to(excess, shape).reshape(-1)
    at = int(np.argmin(full))
    reached = {name: float(np.broadcast_to(metrics[name], shape).reshape(-1)[at]) for name in constraints}
    return float(full[at]), {n: value for n, value in reached.items() if breaks(value, constraints[n])}


def breaks(value: float, limits: Limits) -> bool:
    """Whether a value lies outside its limits; an undefined one does."""
    low = limits.low is not None and not value >= limits.low - abs(limits.low) * LIMIT_ROOM
    high = limits.high is not None and not value <= limits.high + abs(limits.high) * LIMIT_ROOM
    return low or high


def merge(a: Found, b: Found, chunk: Chunk | Mapping[int, Chunk], identity: Identity) -> Found:
    """What two sets of points of one algorithm came to together.

    `chunk` names points: the one both are from, or setting number -> chunk.
    """
    costs = np.concatenate([a.costs, b.costs])
    joined = {
        f: np.concatenate([getattr(a, f), getattr(b, f)])
        for f in ("area", "energy", "setting", "design", "count")
    }
    if len(a.costs) and len(b.costs):
        rows = np.flatnonzero(nondominated(costs))

        def identities(at: IntArray) -> list[str]:
            names = []
            for i in rows[at]:
                s, d = joined["setting"][i], joined["design"][i]
                owner = chunk if isinstance(chunk, Chunk) else chunk[int(s)]
                names += owner.identities(identity, np.array([s]), np.array([d]))
            return names

        preferences = (joined["area"][rows], joined["energy"][rows])
        kept, count = one_per_vector(costs[rows], preferences, joined["count"][rows], identities)
        rows = rows[kept]
        costs, joined = costs[rows], {f: values[rows] for f, values in joined.items()}
        joined["count"] = count
    broken, excluded = added(a.broken, b.broken), added(a.excluded, b.excluded)
    fastest = dict(a.fastest)
    for setting, value in b.fastest.items():
        fastest[setting] = min(fastest.get(setting, math.inf), value)
    return Found(
        costs,
        evaluated=a.evaluated + b.evaluated,
        infeasible=a.infeasible + b.infeasible,
        broken=broken,
        closest=min(a.closest, b.closest, key=nearness),
        fastest=fastest,
        excluded=excluded,
        **joined,
    )


def nearness(closest: tuple[float, dict[str, float]]) -> tuple[float, list[tuple[str, float]]]:
    """Orders what points reach that break constraints; among equals not by which came first."""
    return closest[0], sorted(closest[1].items())


def added(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, added; sorted, so that it does not matter which came first."""
    return {name: a.get(name, 0) + b.get(name, 0) for name in sorted({*a, *b})}
