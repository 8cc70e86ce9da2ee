"""The point that breaks a space's constraints least, where none satisfies them.

A sweep that leaves points out by proof measures none of those, so it cannot tell how far the closest one is. Here
tiles are bounded by how much their points break the constraints at least, and priced while that is less than the
least seen so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dse.profiles.profile import ACCURACY_COLUMN
from dse.search.aim import Follow
from dse.search.hunt import PLANE_CELLS, Hunter
from dse.search.identity import Identity
from dse.search.metrics import Meter
from dse.search.plane import Plane
from dse.search.shards import Chunk, Found, Goal, breaks, nearness
from dse.space.definition import Limits, Space

FloatArray = NDArray[np.float64]
Closest = tuple[float, dict[str, float]]

NOTHING: Closest = (math.inf, {})
SCALE = 1e-12
"""Least magnitude of a limit that an excess is relative to."""


def excess(values: FloatArray, limits: Limits) -> FloatArray:
    """How far values lie outside, relative to the limit; infinite where undefined."""
    over: FloatArray = np.zeros(())
    for limit, sign in ((limits.low, -1.0), (limits.high, 1.0)):
        if limit is not None:
            over = over + np.maximum(0.0, sign * (values - limit)) / max(abs(limit), SCALE)
    return np.where(np.isnan(values), np.inf, over)


def closest(chunk: Chunk, meter: Meter, goal: Goal) -> Closest:
    """The least sum of relative excesses over a chunk's points, and the metrics that break a constraint there."""
    hunter = Hunter(chunk, meter, goal, Identity(""))
    prices = {n: x for n, x in goal.constraints.items() if n not in ACCURACY_COLUMN}
    best = NOTHING
    for setting in range(len(chunk.knobs)):
        accuracy = {
            n: float(chunk.rows.accuracy[setting, ACCURACY_COLUMN[n]])
            for n in goal.constraints
            if n in ACCURACY_COLUMN
        }
        own = sum(float(excess(np.array(v), goal.constraints[n])) for n, v in accuracy.items())
        if own >= best[0]:
            continue
        found = (own, accuracy)
        if prices:
            low, reached = _prices(hunter, setting, prices, best[0] - own)
            found = (own + low, accuracy | reached)
        if found[0] < best[0]:
            best = found[0], {n: v for n, v in found[1].items() if breaks(v, goal.constraints[n])}
    return best


def _prices(hunter: Hunter, setting: int, limits: Mapping[str, Limits], below: float) -> Closest:
    """`closest` of one setting, of the constraints on prices alone, if it is less than `below`."""
    follows = {name: hunter.follow(name, setting) for name in limits}
    raw = tuple(dict.fromkeys(f.raw for f in follows.values()))
    pieces = hunter.terms(np.array([setting]))
    count = pieces.length(pieces.outer)
    each = max(1, PLANE_CELLS // max(1, pieces.length(pieces.compute)))
    best: Closest = (below, {})
    for first in range(0, count, each):
        plane = Plane(pieces, 0, np.arange(first, min(first + each, count)), raw)
        bounds = {n: tuple(b.reshape(-1) for b in ends) for n, ends in plane.bounds().items()}
        least: FloatArray = np.zeros(math.prod(plane.tiles))
        for name, x in limits.items():
            least = least + _least(follows[name], bounds[follows[name].raw], x)
        for tile in np.argsort(least, kind="stable").tolist():
            if least[tile] >= best[0]:
                break
            best = min(best, _tile(plane, tile, follows, limits), key=lambda c: c[0])
    return best if best[1] else NOTHING


def _least(follow: Follow, ends: tuple[FloatArray, ...], limits: Limits) -> FloatArray:
    """The least excess that any raw value between two ends can have."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (follow(e) for e in ends)
    low, high = np.minimum(one, other), np.maximum(one, other)
    below = excess(high, Limits(limits.low, None)) if limits.low is not None else 0.0
    above = excess(low, Limits(None, limits.high)) if limits.high is not None else 0.0
    # An undefined bound proves nothing.
    return np.nan_to_num(below + above, nan=0.0, posinf=0.0)


def _tile(plane: Plane, tile: int, follows: Mapping[str, Follow], limits: Mapping[str, Limits]) -> Closest:
    """The least excess in a tile."""
    memory, compute = (n.reshape(-1) for n in np.indices(plane.size))
    tiles = np.full(len(memory), tile)
    priced = plane.points(tiles, memory, compute)
    best = NOTHING
    for flight, heads in enumerate(plane.terms.flights.tolist()):
        raw = priced.metrics(plane.metrics, flight, heads)
        shape = (len(memory), 1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {n: np.broadcast_to(f(raw[f.raw]), shape)[:, 0, 0] for n, f in follows.items()}
        total: FloatArray = np.zeros(len(memory))
        for name, v in values.items():
            total = total + excess(v, limits[name])
        at = int(np.argmin(total))
        if float(total[at]) < best[0]:
            best = float(total[at]), {n: float(v[at]) for n, v in values.items()}
    return best


def nothing_fits(space: Space, limits: Mapping[str, Limits], found: Mapping[str, Found], total: int) -> str:
    """The message of a sweep in which no point satisfies the constraints: what breaks them, and the closest point."""
    broken: dict[str, int] = {}
    for f in found.values():
        for name, count in f.broken.items():
            broken[name] = broken.get(name, 0) + count
    counts = ", ".join(
        f"{name} by {count}" for name, count in sorted(broken.items(), key=lambda x: (-x[1], x[0]))
    )
    algorithm, nearest_one = min(found.items(), key=lambda x: nearness(x[1].closest))
    excess = "; ".join(_excess(n, v, limits[n]) for n, v in nearest_one.closest[1].items())
    closest = f"; the closest point ({algorithm}) has {excess}" if excess else ""
    return f"space {space.name!r}: none of {total} points satisfies the constraints: {counts} points{closest}"


def _excess(name: str, value: float, limits: Limits) -> str:
    if limits.high is not None and value > limits.high:
        return f"{name} = {value:.4g}, {value - limits.high:.3g} above max {limits.high:g}"
    if limits.low is not None and value < limits.low:
        return f"{name} = {value:.4g}, {limits.low - value:.3g} below min {limits.low:g}"
    return f"{name} not defined"
