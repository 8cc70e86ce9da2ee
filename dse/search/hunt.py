"""The fast sweep: the points of some settings on a grid of designs, from a price taken apart.

Every tile of a plane is bounded first. A tile whose least metrics break a constraint, or whose least costs a
point already found beats, is *excluded by proof*; the others are evaluated point by point, the most promising
first. Without skipping every tile is evaluated. Either way the same front is found, with the same tie counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dse.profiles.profile import ACCURACY_COLUMN
from dse.search.front import nondominated, one_per_vector, settled
from dse.search.metrics import Meter
from dse.search.plane import Plane
from dse.search.shards import LIMIT_ROOM, Chunk, Found, Goal, Identity, breaks, merge
from dse.search.skyline import ROOM, Skyline
from dse.search.terms import Terms, terms

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

TILE_POINTS: Final = 12_288
"""Points (of one number of heads in flight) evaluated together: a few arrays of them fit a core's cache."""

ROUND: Final = 24
"""Evaluations between two looks at what the front rules out by now."""

PLANE_CELLS: Final = 1 << 17
"""Most compute combinations times outer combinations held at once."""

DOMINATED: Final = "dominated"

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

    def holds(self, raw: FloatArray) -> NDArray[np.bool_]:
        """Which raw values lie within (an undefined one does not)."""
        if self.low == -math.inf:
            return np.asarray(raw <= self.high)
        return np.asarray((raw >= self.low) & (raw <= self.high))


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


@dataclass(frozen=True)
class Flight:
    """Evaluated points of tiles at one number of heads in flight.

    Attributes:
        number: its number. values: raw values of each cost, [tiles, memory, compute]; the first is infinite
            outside the constraints. fits: which satisfy them, None where there are none.
    """

    number: int
    values: Sequence[FloatArray]
    fits: NDArray[np.bool_] | None


class Hunter:
    """Settings of one chunk on some outer combinations.

    Args:
        known: [n, objectives] costs that points of the algorithm are known to reach: they rule out, and are
            not part of what is found.
    """

    def __init__(
        self,
        chunk: Chunk,
        meter: Meter,
        goal: Goal,
        identity: Identity,
        known: FloatArray | None = None,
        skip: bool = True,
    ) -> None:
        self.chunk, self.meter, self.goal, self.identity, self.skip = chunk, meter, goal, identity, skip
        self.found = Found.nothing(len(goal.objectives))
        self.known = self.found.costs if known is None else known

    def terms(self, settings: IntArray) -> Terms:
        grid = self.chunk.grid
        design = grid.block(tuple((0, n) for n in grid.shape))
        rows = self.chunk.rows.take(settings)
        return terms(rows.stats, design, grid.swept, self.meter.workload, self.meter.overrides)

    def search(self, settings: IntArray, part: int = 0, parts: int = 1) -> Found:
        """What the points of these settings (rows of the chunk) came to, on one part of the designs."""
        pieces = self.terms(settings)
        count = pieces.length(pieces.outer)
        start, stop = count * part // parts, count * (part + 1) // parts
        each = max(1, PLANE_CELLS // max(1, pieces.length(pieces.compute)))
        for number, setting in enumerate(settings.tolist()):
            aim = self._aim(setting, pieces, (stop - start) * (math.prod(pieces.shape) // count))
            if aim is None:
                continue
            for first in range(start, stop, each):
                numbers = np.arange(first, min(first + each, stop))
                plane = Plane(pieces, number, numbers, aim.raw)
                self._plane(plane, aim)
        return self.found

    def _exclude(self, why: str, points: int) -> None:
        if points:
            self.found.excluded[why] = self.found.excluded.get(why, 0) + points

    def _break(self, why: str, points: int) -> None:
        if points:
            self.found.broken[why] = self.found.broken.get(why, 0) + points

    def _aim(self, setting: int, pieces: Terms, points: int) -> Aim | None:
        """What is sought of one setting; None where its accuracy alone rules it out."""
        accuracy = self.chunk.rows.accuracy[setting]
        own: dict[int, float] = {}
        costs, limits = [], []
        for name, limit in self.goal.constraints.items():
            if name not in ACCURACY_COLUMN:
                limits.append(Limit.of(self._follow(name, setting), limit.low, limit.high))
            elif breaks(float(accuracy[ACCURACY_COLUMN[name]]), limit):
                self._exclude(name, points)
                return None
        for column, (name, up) in enumerate(self.goal.objectives.items()):
            if name not in ACCURACY_COLUMN:
                costs.append(Cost(column, self._follow(name, setting), up))
                continue
            value = float(accuracy[ACCURACY_COLUMN[name]])
            if not math.isfinite(value):
                self._exclude(f"{name} is not defined", points)
                return None
            own[column] = -value if up else value
        return Aim(setting, own, costs, limits)

    def _follow(self, name: str, setting: int) -> Follow:
        base = self.meter.baseline
        if name not in RATIOS:
            return Follow(name, name, None)
        over = {
            "speedup": base.latency_s,
            "speedup_end_to_end": base.latency_s + base.rest_s,
            "energy_saving": base.energy_j,
            "dram_reduction": base.dram_bytes,
        }
        if name == "speedup_best_dense":
            assert self.meter.best_dense is not None
            nll = self.chunk.rows.accuracy[setting : setting + 1, ACCURACY_COLUMN["nll_increase"]]
            return Follow(name, RATIOS[name], float(self.meter.best_dense.rival(nll)[0][0]))
        return Follow(name, RATIOS[name], over[name])

    def _skyline(self, aim: Aim) -> Skyline:
        costs = np.concatenate([self.known, self.found.costs])
        return Skyline(costs, list(aim.own.values()), list(aim.own), [c.column for c in aim.costs])

    def _plane(self, plane: Plane, aim: Aim) -> None:
        """Every tile of a plane: excluded by proof, or evaluated."""
        skyline = self._skyline(aim)
        left = np.arange(math.prod(plane.tiles))
        bounds: list[FloatArray] = []
        if self.skip:
            left, bounds = self._within(plane, aim, left)
        per_call = max(1, TILE_POINTS // (plane.size[0] * plane.size[1]))
        while len(left):
            if self.skip and self._hopeless(skyline, aim, bounds):
                self._exclude(DOMINATED, len(left) * plane.points_per_tile)
                return
            if self.skip and aim.costs:
                stay = ~skyline.rules_out(bounds)
                self._exclude(DOMINATED, int((~stay).sum()) * plane.points_per_tile)
                left, bounds = left[stay], [b[stay] for b in bounds]
            taken, left = left[: per_call * ROUND], left[per_call * ROUND :]
            bounds = [b[len(taken) :] for b in bounds]
            before = len(self.found.costs), self.found.count.sum()
            for at in range(0, len(taken), per_call):
                self._tiles(plane, aim, taken[at : at + per_call], skyline)
            if (len(self.found.costs), self.found.count.sum()) != before:
                skyline = self._skyline(aim)

    def _hopeless(self, skyline: Skyline, aim: Aim, bounds: Sequence[FloatArray]) -> bool:
        """Whether a setting whose objectives are all its own is beaten as a whole."""
        return not aim.costs and skyline.better

    def _within(self, plane: Plane, aim: Aim, tiles: IntArray) -> tuple[IntArray, list[FloatArray]]:
        """Tiles whose bounds satisfy the constraints, the most promising first, and their least costs."""
        limits = plane.bounds()
        stay = np.ones(len(tiles), dtype=bool)
        for limit in aim.limits:
            low, high = (b.reshape(-1) for b in limits[limit.follow.raw])
            # The bounds themselves are rounded: the limit is loosened once more.
            good = (low <= limit.high + abs(limit.high) * ROOM) if math.isfinite(limit.high) else stay | True
            if math.isfinite(limit.low):
                good &= high >= limit.low - abs(limit.low) * ROOM
            self._exclude(limit.follow.name, int((stay & ~good).sum()) * plane.points_per_tile)
            stay &= good
        tiles = tiles[stay]
        costs, promise = [], np.zeros(len(tiles))
        for cost in aim.costs:
            low, high = (b.reshape(-1)[stay] for b in limits[cost.follow.raw])
            costs.append(cost.of(low if cost.least_raw else high))
            with np.errstate(divide="ignore"):
                promise = promise + (np.log(low) if cost.least_raw else -np.log(high))
        order = np.argsort(promise, kind="stable")
        return tiles[order], [c[order] for c in costs]

    def _tiles(self, plane: Plane, aim: Aim, tiles: IntArray, skyline: Skyline) -> None:
        """Evaluate tiles point by point and keep what the skyline does not rule out."""
        terms, shape = plane.terms, (len(tiles), *plane.size)
        priced = plane.exact(tiles)
        points, fits = math.prod(shape) * len(terms.flights), 0
        names = aim.tested
        flights: list[Flight] = []
        corners: list[FloatArray] = []
        for flight, heads in enumerate(terms.flights.tolist()):
            raw = priced.metrics(names, flight, heads)
            ok: NDArray[np.bool_] | None = None
            for limit in aim.limits:
                good = limit.holds(raw[limit.follow.raw])
                some = int(np.count_nonzero(good)) * (math.prod(shape) // good.size)
                self._break(limit.follow.name, math.prod(shape) - some)
                ok = good if ok is None else np.asarray(ok & good)
            if ok is not None:
                some = int(np.count_nonzero(ok)) * (math.prod(shape) // ok.size)
                fits += some
                if not some:
                    continue
            values = []
            for i, cost in enumerate(aim.costs):
                each = raw[cost.follow.raw]
                if ok is not None and i == 0:  # one infinite cost is enough to rule a point out
                    each = np.where(ok, each, math.inf if cost.least_raw else -math.inf)
                each = np.broadcast_to(each, shape)
                values.append(each)
                if len(corners) <= i:
                    corners.append(each.copy())
                else:
                    (np.minimum if cost.least_raw else np.maximum)(corners[i], each, out=corners[i])
            flights.append(Flight(flight, values, ok))
        fits = points if not aim.limits else fits
        self.found.evaluated += points
        self.found.infeasible += points - fits
        if not fits:
            return
        self._collect(plane, aim, tiles, skyline, flights, corners)

    def _collect(
        self,
        plane: Plane,
        aim: Aim,
        tiles: IntArray,
        skyline: Skyline,
        flights: Sequence[Flight],
        corners: Sequence[FloatArray],
    ) -> None:
        """The points of evaluated tiles that may be on the front, joined to what was found."""
        shape = (len(tiles), *plane.size)
        if aim.costs:
            edges = []
            for cost, corner in zip(aim.costs, corners, strict=True):
                edge = corner.min(axis=1) if cost.least_raw else corner.max(axis=1)
                edges.append(_costs(cost, edge))
            tile, compute = np.nonzero(~skyline.rules_out(edges))
            if not len(tile):
                return
        else:
            tile, compute = (n.reshape(-1) for n in np.indices((shape[0], shape[2])))
        found: list[tuple[IntArray, ...]] = []
        values: list[list[FloatArray]] = []
        for flight in flights:
            costs = [
                _costs(cost, each[tile, :, compute])
                for cost, each in zip(aim.costs, flight.values, strict=True)
            ]
            if costs:
                stay = ~skyline.rules_out(costs)
            elif flight.fits is not None:
                stay = np.broadcast_to(flight.fits, shape)[tile, :, compute]
            else:
                stay = np.ones((len(tile), shape[1]), dtype=bool)
            row, memory = np.nonzero(stay)
            found.append((np.full(len(row), flight.number), tile[row], memory, compute[row]))
            values.append([c[row, memory] for c in costs])
        number, tile, memory, compute = (np.concatenate(each) for each in zip(*found, strict=True))
        if len(tile):
            varying = [np.concatenate([v[i] for v in values]) for i in range(len(aim.costs))]
            self._join(plane, aim, tiles[tile], memory, compute, number, varying)

    def _join(
        self,
        plane: Plane,
        aim: Aim,
        tile: IntArray,
        memory: IntArray,
        compute: IntArray,
        flight: IntArray,
        varying: Sequence[FloatArray],
    ) -> None:
        """Candidates, exactly: their whole cost vectors, limits, area and energy."""
        goal = self.goal
        costs = np.empty((len(tile), len(goal.objectives)))
        for column, value in aim.own.items():
            name = list(goal.objectives)[column]
            costs[:, column] = value if name in goal.exact else settled(np.asarray(value))
        for cost, values in zip(aim.costs, varying, strict=True):
            costs[:, cost.column] = settled(values)
        good = nondominated(costs)
        tile, memory, compute, flight = (a[good] for a in (tile, memory, compute, flight))
        costs = costs[good]
        raw = self._at(plane, aim, tile, memory, compute, flight)
        design = plane.designs(tile, memory, compute, flight)
        setting = np.full(len(design), self.chunk.first + aim.setting)
        area, energy = settled(raw["area_mm2"]), settled(raw["energy_j"])
        kept, count = one_per_vector(
            costs,
            (area, energy),
            np.ones(len(design), dtype=np.intp),
            lambda rows: self.chunk.identities(self.identity, setting[rows], design[rows]),
        )
        part = Found(costs[kept], area[kept], energy[kept], setting[kept], design[kept], count)
        self.found = merge(self.found, part, self.chunk, self.identity)

    def _at(
        self,
        plane: Plane,
        aim: Aim,
        tile: IntArray,
        memory: IntArray,
        compute: IntArray,
        flight: IntArray,
    ) -> dict[str, FloatArray]:
        """Raw metrics of single points, [n]."""
        found = {name: np.empty(len(tile)) for name in aim.raw}
        for number in np.unique(flight).tolist():
            here = np.flatnonzero(flight == number)
            priced = plane.points(tile[here], memory[here], compute[here])
            heads = float(plane.terms.flights[number])
            for name, values in priced.metrics(aim.raw, number, heads).items():
                found[name][here] = np.broadcast_to(values, (len(here), 1, 1))[:, 0, 0]
        return found


def _costs(cost: Cost, raw: FloatArray) -> FloatArray:
    """Costs of raw values; infinite for points that were masked out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = cost.of(raw)
    return np.where(np.isfinite(raw), values, math.inf)
