"""Fronts: which points nothing dominates, which share one objective vector, and what a front is worth.

Everything here works on *costs*: objectives with maximised ones negated, so smaller is always better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

KEPT_BITS = 40
"""Mantissa bits that comparisons look at: prices of equal points may differ in the last bits, because sums are
formed in another order on another shard. 40 bits are 4.5e-13, far below any physical meaning."""

PIVOTS = 4
SMALL = 64


def settled(values: FloatArray) -> FloatArray:
    """`values` rounded to `KEPT_BITS` mantissa bits; monotone, so no order is turned round."""
    dropped = 52 - KEPT_BITS
    values = np.asarray(values, dtype=np.float64)
    bits = np.array(values, ndmin=1).view(np.int64).reshape(values.shape)
    half, mask = np.int64(1 << (dropped - 1)), np.int64(-1 << dropped)
    rounded = ((bits + half) & mask).view(np.float64)
    return np.where(np.isfinite(values), rounded, values) + 0.0


def nondominated(costs: FloatArray) -> BoolArray:
    """[n] bool: no row of `costs` [n, m] is at least as small everywhere and smaller somewhere.

    Equal rows stand or fall together. Costs must be finite.
    """
    n = len(costs)
    keep = np.ones(n, dtype=bool)
    if n <= 1:
        return keep
    if n > SMALL:
        keep = _survivors(costs)
    rows = np.flatnonzero(keep)
    if len(rows) <= SMALL:
        keep[rows] = nondominated_reference(costs[rows])
        return keep
    import moocore

    keep[rows] = moocore.is_nondominated(costs[rows], keep_weakly=True)
    return keep


def _survivors(costs: FloatArray) -> BoolArray:
    """Drops what a few strong points dominate: a linear pass that spares the sort most of the rows."""
    low, high = costs.min(axis=0), costs.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    scaled = ((costs - low) / span).sum(axis=1)
    keep = np.ones(len(costs), dtype=bool)
    best = [int(np.argmin(scaled)), *(int(i) for i in np.argmin(costs, axis=0))]
    for pivot in dict.fromkeys(best[: PIVOTS + 1]):
        beaten = np.ones(len(costs), dtype=bool)
        differs = np.zeros(len(costs), dtype=bool)
        for column, value in zip(costs.T, costs[pivot], strict=True):
            beaten &= column >= value
            differs |= column > value
        keep &= ~(beaten & differs)
    return keep


def nondominated_reference(costs: FloatArray) -> BoolArray:
    """`nondominated` by its definition: every row against every other."""
    no_worse = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    better = (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))


def one_per_vector(
    costs: FloatArray,
    preferences: Sequence[FloatArray],
    weights: IntArray,
    identities: Callable[[IntArray], Sequence[str]],
) -> tuple[IntArray, IntArray]:
    """One row for each distinct objective vector, and how many points it stands for.

    Args:
        costs: [n, m].
        preferences: arrays [n]; the smallest of the first wins, then of the second, and so on.
        weights: [n], points each row stands for already.
        identities: row numbers -> texts; the smallest text decides what is still equal.

    Returns:
        Row numbers (ascending by cost vector) and the sums of the weights of their groups.
    """
    n, m = costs.shape
    if n == 0:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    keys = [*reversed(preferences), *(costs[:, j] for j in reversed(range(m)))]
    order = np.lexsort(keys)
    ordered = costs[order]
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    totals = np.add.reduceat(weights[order], starts)
    kept = order[starts].copy()
    ends = np.r_[starts[1:], n]
    for group in np.flatnonzero(ends - starts > 1):
        members = order[starts[group] : ends[group]]
        first = members[0]
        equal = np.ones(len(members), dtype=bool)
        for values in preferences:
            equal &= values[members] == values[first]
        rivals = members[equal]
        if len(rivals) > 1:
            names = identities(rivals)
            kept[group] = rivals[min(range(len(rivals)), key=names.__getitem__)]
    return kept, totals


def hypervolume(costs: FloatArray, reference: Sequence[float]) -> float:
    """Volume of objective space that [n, m] costs dominate within the reference point; 0 for none."""
    inside = costs[(costs < np.asarray(reference)).all(axis=1)]
    if not len(inside):
        return 0.0
    import moocore

    return float(moocore.hypervolume(inside, ref=np.asarray(reference, dtype=np.float64)))
