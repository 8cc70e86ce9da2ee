"""The fast sweep: the points of some settings on a grid of designs, from a price taken apart.

Every tile of a plane is bounded first. A tile whose least metrics break a constraint, or whose least costs a
point already found beats, is *excluded by proof*; the others are evaluated point by point, the most promising
first. Without skipping every tile is evaluated. Either way the same front is found, with the same tie counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.profiles.profile import ACCURACY_COLUMN
from dse.search.aim import RATIOS, Aim, Cost, Follow, Limit
from dse.search.aim import can_hunt as can_hunt
from dse.search.flight import Flight, costs_of, masked
from dse.search.front import nondominated, one_per_vector, settled
from dse.search.identity import Identity
from dse.search.metrics import Meter
from dse.search.plane import Plane
from dse.search.priced import SLACK
from dse.search.shards import Chunk, Found, Goal, breaks, merge
from dse.search.skyline import ROOM, Skyline
from dse.search.terms import Terms, terms

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

TILE_POINTS: Final = 65_536
"""Points (of one number of heads in flight) evaluated together: enough to outweigh the calls, few enough for a
core's cache."""

ROUND: Final = 24
"""Evaluations between two looks at what the front rules out by now, at most."""

PLANE_CELLS: Final = 1 << 17
"""Most compute combinations times outer combinations held at once."""

GROUP: Final = 16
"""Neighbouring compute combinations whose best values are looked at first."""

CANDIDATES: Final = 20_000
"""Points that may be on the front at a time."""

DOMINATED: Final = "dominated"


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
        self.candidates: list[tuple[NDArray[Any], ...]] = []
        self.doubts: list[tuple[IntArray, IntArray, IntArray, IntArray, list[NDArray[np.bool_]]]] = []

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
                plane = Plane(pieces, number, numbers, aim.raw, self.skip)
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
                limits.append(Limit.of(self.follow(name, setting), limit.low, limit.high))
            elif breaks(float(accuracy[ACCURACY_COLUMN[name]]), limit):
                self._exclude(name, points)
                return None
        for column, (name, up) in enumerate(self.goal.objectives.items()):
            if name not in ACCURACY_COLUMN:
                costs.append(Cost(column, self.follow(name, setting), up))
                continue
            value = float(accuracy[ACCURACY_COLUMN[name]])
            if not math.isfinite(value):
                self._exclude(f"{name} is not defined", points)
                return None
            own[column] = -value if up else value
        return Aim(setting, own, costs, limits)

    def follow(self, name: str, setting: int) -> Follow:
        """How a metric of a setting follows from a raw one."""
        base = self.meter.baseline
        if name not in RATIOS:
            return Follow(name, name, None)
        over = {
            "speedup": base.latency_s,
            "speedup_end_to_end": base.model_s,
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
        # The most promising tiles rule out most of the others: the first looks come early.
        calls = 1 if self.skip else ROUND
        while len(left):
            if self.skip and self._hopeless(skyline, aim, bounds):
                self._exclude(DOMINATED, len(left) * plane.points_per_tile)
                return
            if self.skip and aim.costs:
                stay = ~skyline.rules_out(bounds)
                self._exclude(DOMINATED, int((~stay).sum()) * plane.points_per_tile)
                left, bounds = left[stay], [b[stay] for b in bounds]
            taken, left = left[: per_call * calls], left[per_call * calls :]
            calls = min(2 * calls, ROUND)
            bounds = [b[len(taken) :] for b in bounds]
            for at in range(0, len(taken), per_call):
                self._tiles(plane, aim, taken[at : at + per_call], skyline)
                if sum(len(c[0]) for c in self.candidates) > CANDIDATES and self._join(plane, aim, skyline):
                    skyline = self._skyline(aim)
            if self._join(plane, aim, skyline):
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
        """Evaluate tiles point by point, and note what the skyline does not rule out.

        Single precision is enough to see what most points are good for; those it cannot tell are priced again.
        """
        terms, shape = plane.terms, (len(tiles), *plane.size)
        priced = plane.loose(tiles)
        each, fits = math.prod(shape), 0
        flights: list[Flight] = []
        edges: list[FloatArray] = []
        for flight, heads in enumerate(terms.flights.tolist()):
            raw = priced.metrics(aim.tested, flight, heads)
            ok = self._fitting(plane, aim, tiles, flight, raw)
            some = each if ok is None else int(np.count_nonzero(ok)) * (each // ok.size)
            fits += some
            if not some:
                continue
            values = []
            for i, cost in enumerate(aim.costs):
                value = raw[cost.follow.raw]
                if ok is not None and i == 0:  # one infinite cost is enough to rule a point out
                    value = masked(value, ok, cost.least_raw)
                value = np.broadcast_to(value, shape)
                values.append(value)
                edge = value.min(axis=1) if cost.least_raw else value.max(axis=1)
                if len(edges) <= i:
                    edges.append(edge)
                else:
                    (np.minimum if cost.least_raw else np.maximum)(edges[i], edge, out=edges[i])
            flights.append(Flight(flight, values, ok))
        points = each * len(terms.flights)
        self.found.evaluated += points * terms.copies
        self.found.infeasible += (points - fits) * terms.copies
        if fits:
            self._collect(plane, aim, tiles, skyline, flights, edges)

    def _fitting(
        self, plane: Plane, aim: Aim, tiles: IntArray, flight: int, raw: Mapping[str, FloatArray]
    ) -> NDArray[np.bool_] | None:
        """Which points of tiles satisfy all constraints (None: there are none); those that break one are counted."""
        shape = (len(tiles), *plane.size)
        each = math.prod(shape)
        loose: list[NDArray[np.bool_]] = []
        doubt: NDArray[np.bool_] | None = None
        for limit in aim.limits:
            values = raw[limit.follow.raw]
            good = limit.holds(values, SLACK)
            sure = limit.holds(values, -SLACK)
            some = int(np.count_nonzero(good))
            self._break(limit.follow.name, (each - some * (each // good.size)) * plane.terms.copies)
            if some != np.count_nonzero(sure):
                near = good & ~sure
                doubt = near if doubt is None else doubt | near
            loose.append(good)
        if not loose:
            return None
        ok = loose[0]
        for good in loose[1:]:
            ok = np.asarray(ok & good)
        if doubt is None:
            return ok
        rows = np.flatnonzero(np.broadcast_to(doubt, shape))
        if len(rows):
            tile, memory, compute = np.unravel_index(rows, shape)
            seemed = [np.broadcast_to(good, shape).reshape(-1)[rows] for good in loose]
            self.doubts.append((tiles[tile], memory, compute, np.full(len(rows), flight), seemed))
            ok = np.asarray(ok & ~doubt)
        return ok

    def _settle(self, plane: Plane, aim: Aim) -> None:
        """Price what single precision could not tell from the limits: it joins the candidates, or breaks one.

        Until then such points count as infeasible.
        """
        if not self.doubts:
            return
        tile, memory, compute, flight = (np.concatenate([d[i] for d in self.doubts]) for i in range(4))
        seemed = [np.concatenate(each) for each in zip(*(d[4] for d in self.doubts), strict=True)]
        self.doubts.clear()
        exact = self._at(plane, aim, tile, memory, compute, flight)
        fits = np.ones(len(tile), dtype=bool)
        for limit, good in zip(aim.limits, seemed, strict=True):
            holds = limit.holds(exact[limit.follow.raw])
            self._break(limit.follow.name, int(np.count_nonzero(good & ~holds)) * plane.terms.copies)
            fits &= holds
        self.found.infeasible -= int(np.count_nonzero(fits)) * plane.terms.copies
        values = [costs_of(cost, exact[cost.follow.raw])[fits] for cost in aim.costs]
        columns = np.stack(values, axis=1) if values else np.empty((int(fits.sum()), 0))
        self.candidates.append((tile[fits], memory[fits], compute[fits], flight[fits], columns))

    def _collect(
        self,
        plane: Plane,
        aim: Aim,
        tiles: IntArray,
        skyline: Skyline,
        flights: Sequence[Flight],
        edges: Sequence[FloatArray],
    ) -> None:
        """The points of evaluated tiles that may be on the front: candidates."""
        shape = (len(tiles), *plane.size)
        if aim.costs:
            starts = np.arange(0, shape[2], GROUP)
            groups, columns = [], []
            for cost, edge in zip(aim.costs, edges, strict=True):
                reduce = np.minimum.reduceat if cost.least_raw else np.maximum.reduceat
                groups.append(costs_of(cost, reduce(edge, starts, axis=1)))
            stay = np.repeat(~skyline.rules_out(groups, SLACK), GROUP, axis=1)[:, : shape[2]]
            tile, compute = np.nonzero(stay)
            columns = [costs_of(cost, e[tile, compute]) for cost, e in zip(aim.costs, edges, strict=True)]
            stay = ~skyline.rules_out(columns, SLACK)
            tile, compute = tile[stay], compute[stay]
            if not len(tile):
                return
        else:
            tile, compute = (n.reshape(-1) for n in np.indices((shape[0], shape[2])))
        for flight in flights:
            costs = [
                costs_of(cost, each[tile, :, compute])
                for cost, each in zip(aim.costs, flight.values, strict=True)
            ]
            if costs:
                stay = ~skyline.rules_out(costs, SLACK)
            elif flight.fits is not None:
                stay = np.broadcast_to(flight.fits, shape)[tile, :, compute]
            else:
                stay = np.ones((len(tile), shape[1]), dtype=bool)
            row, memory = np.nonzero(stay)
            if len(row):
                number = np.full(len(row), flight.number)
                values = (
                    np.stack([c[row, memory] for c in costs], axis=1) if costs else np.empty((len(row), 0))
                )
                self.candidates.append((tiles[tile[row]], memory, compute[row], number, values))

    def _join(self, plane: Plane, aim: Aim, skyline: Skyline) -> bool:
        """The candidates so far, exactly: joined to what was found. Whether that changed anything."""
        self._settle(plane, aim)
        if not self.candidates:
            return False
        columns = [np.concatenate(each) for each in zip(*self.candidates, strict=True)]
        self.candidates.clear()
        if aim.costs:  # most of them are beaten by others of them, by more than single precision loses
            rough = columns[4]
            best = Skyline(rough, [], [], range(rough.shape[1]))
            stay = ~best.rules_out(list(rough.T), 3 * SLACK)
            columns = [c[stay] for c in columns]
        tile, memory, compute, flight = columns[:4]
        goal = self.goal
        raw = self._at(plane, aim, tile, memory, compute, flight)
        varying = [costs_of(cost, raw[cost.follow.raw]) for cost in aim.costs]
        if varying:
            stay = ~skyline.rules_out(varying)
            tile, memory, compute, flight = (a[stay] for a in (tile, memory, compute, flight))
            raw, varying = {name: v[stay] for name, v in raw.items()}, [v[stay] for v in varying]
        costs = np.empty((len(tile), len(goal.objectives)))
        for column, value in aim.own.items():
            name = list(goal.objectives)[column]
            costs[:, column] = value if name in goal.exact else settled(np.asarray(value))
        for cost, values in zip(aim.costs, varying, strict=True):
            costs[:, cost.column] = settled(values)
        good = nondominated(costs)
        if not good.any():
            return False
        tile, memory, compute, flight = (a[good] for a in (tile, memory, compute, flight))
        costs = costs[good]
        design = plane.designs(tile, memory, compute, flight)
        copies = design.shape[1]
        design, costs = design.reshape(-1), np.repeat(costs, copies, axis=0)
        setting = np.full(len(design), self.chunk.first + aim.setting)
        area, energy = (np.repeat(settled(raw[n][good]), copies) for n in ("area_mm2", "energy_j"))
        kept, count = one_per_vector(
            costs,
            (area, energy),
            np.ones(len(design), dtype=np.intp),
            lambda rows: self.chunk.identities(self.identity, setting[rows], design[rows]),
        )
        part = Found(costs[kept], area[kept], energy[kept], setting[kept], design[kept], count)
        self.found = merge(self.found, part, self.chunk, self.identity)
        return True

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
