"""The candidate search of A3 for many queries at once: what single steps would pop, found by sorting.

What M steps pop from one end are the M largest products, so they are found together: a table per column bounds
how far every walk can get, and the products up to there are sorted. How many are popped from the other end
follows step by step from the sorted ones. Sums are float64 of float32 products, so that their order does not
matter; the tests hold a loop of single steps that this must equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import BoolArray, FloatArray

IntArray = NDArray[np.integer[Any]]

BLOCK: Final = 8
"""Sorted keys that are looked at together."""

BINS: Final = 256
"""Values per column at which keys are counted."""

LINE: Final = BINS + 4
"""Entries per column of a table of counts: bins, and room on both ends."""

ROUNDING: Final = 1e-2
"""Part of a bin that rounding may move a value by."""

TRIES: Final = 24
TOGETHER: Final = 128
"""Queries whose products are held at a time."""


@dataclass(frozen=True)
class Search:
    """What a greedy search found.

    Attributes:
        score: [Q, N] greedy score of every row, 0 where it was never touched.
        top, bottom: [Q, d] elements popped from the largest and the smallest keys of every column.
    """

    score: FloatArray
    top: IntArray
    bottom: IntArray


class _Columns:
    """Every column of the keys, sorted from its largest key down and from its smallest up, in blocks.

    `side` 0 walks down, 1 up; what is stored falls along the walk: keys on side 0, negated keys on side 1.
    A table of how many keys lie at or beyond evenly spaced values bounds where a walk stops.
    """

    def __init__(self, keys: FloatArray) -> None:
        size, dim = keys.shape
        self.size, self.dim = size, dim
        self.blocks = -(-size // BLOCK)
        rising = np.argsort(keys, axis=0, kind="stable").T
        order = np.stack([rising[:, ::-1], rising])
        values = np.stack([keys, -keys]).swapaxes(1, 2)
        falling = np.take_along_axis(values, order, axis=2)
        # Two empty blocks in all: behind the last key of a column, and one that any query may be padded with.
        self.rows = np.full((2, dim, self.blocks * BLOCK), size, np.int16 if size < 2**15 else np.int32)
        self.rows[..., :size] = order
        self.values = np.zeros((2, dim, self.blocks * BLOCK), keys.dtype)
        self.values[..., :size] = falling
        self.rows = np.concatenate([self.rows.reshape(-1, BLOCK), np.full((1, BLOCK), size, self.rows.dtype)])
        self.values = np.concatenate([self.values.reshape(-1, BLOCK), np.zeros((1, BLOCK), keys.dtype)])
        self.largest = falling[..., 0]
        span = (falling[..., 0] - falling[..., -1]).astype(np.float32)
        self.width = np.where(span > 0, span / BINS, 1).astype(np.float32)
        bins = ((self.largest[..., None] - falling) / self.width[..., None]).astype(np.int64)
        line = np.arange(2 * dim).reshape(2, dim, 1) * LINE
        self._place = (line + np.minimum(bins, BINS) + 2).ravel()
        self._order = order.ravel()
        self.all = self.beyond(0, size)

    def beyond(self, begin: int, seen: int) -> IntArray:
        """Entry 1 + i of a line: keys of a column, of rows `begin` to `seen`, in the first i bins from the largest.

        Lines of `LINE` entries by side and column, one after the other; the first entry is 0, the last one all.
        """
        counted = (self._order >= begin) & (self._order < seen)
        bins = np.bincount(self._place[counted], minlength=2 * self.dim * LINE)
        return np.asarray(bins.reshape(-1, LINE).cumsum(axis=1).astype(np.int32).ravel())


def _enough(
    columns: _Columns, common: IntArray, side: IntArray, weight: FloatArray, wanted: IntArray
) -> IntArray:
    """How many blocks of every column hold the `wanted` [R] largest products of |q| = `weight` [R, d]: [R, d].

    `common` is the table `_Columns.beyond` of keys that all these queries see: where a product is reached by
    as many of those as are wanted, the largest ones that a query sees reach it too.
    """
    column = side * columns.dim + np.arange(columns.dim)
    start = (column * LINE + 1).astype(np.int32)
    largest, width = columns.largest.ravel()[column], columns.width.ravel()[column]
    offset = largest / width
    idle = weight == 0
    slope = 1 / (np.where(idle, 1, weight) * width)
    # Rounding moves a value by far less than this part of a bin.
    slack = ROUNDING + 1e-6 * np.abs(offset)

    def reached(table: IntArray, product: FloatArray, moved: FloatArray) -> IntArray:
        """Keys of every column whose product, in whole bins after `moved`, is at least `product`."""
        at = offset - product[:, None] * slope
        at += moved
        if idle.any():
            at[idle] = np.where(product[:, None] <= 0, BINS + 2, -1.0).repeat(columns.dim, axis=1)[idle]
        np.clip(at, -1, BINS + 2, out=at)
        return np.asarray(table[np.floor(at).astype(np.int32) + start])

    high = (weight * largest).max(axis=1)
    low = (weight * (largest - BINS * width)).min(axis=1) - 3 * (weight * width).max(axis=1)
    most = reached(common, low, -slack).sum(axis=1).astype(float)
    fewest = np.ones(len(weight))
    for number in range(TRIES):
        if (most <= 1.15 * wanted).all():
            break
        # Counts fall nearly exponentially between the two ends: aim a little above what is wanted.
        top = np.maximum(most, 1)
        part = np.log(top / (1.08 * wanted)) / np.log(np.maximum(top / fewest, 1.01))
        part = part if number % 3 < 2 else np.full_like(part, 0.5)
        middle = low + (high - low) * np.clip(part, 0.03, 0.97).astype(low.dtype)
        found = reached(common, middle, -slack).sum(axis=1)
        enough = found >= wanted
        low, most = np.where(enough, middle, low), np.where(enough, found, most)
        high, fewest = np.where(enough, high, middle), np.where(enough, fewest, np.maximum(found, 1))
    reaching = reached(columns.all, low.astype(np.float64), 1 + slack)
    reaching[most < wanted] = columns.size
    return -(-reaching // BLOCK)


@dataclass
class _Best:
    """The largest products of some queries, in blocks of one column each; columns rise along a row.

    Attributes:
        products: [R, blocks, BLOCK], -inf for keys that are not visible; `rows` their keys.
        column: [blocks in use] R x d + column of every block in use, `used` [R, blocks] where those are.
        falling: [R, M] the M largest, largest first, -inf where there are fewer.
    """

    products: FloatArray
    rows: IntArray
    column: IntArray
    used: BoolArray
    falling: FloatArray

    def take(self, count: IntArray) -> tuple[BoolArray, IntArray]:
        """The `count` [R] largest: mask like `products`, and how many of every column, [R x d] flat from 0.

        Of equals, those of the lowest column come first, in the order of the walk.
        """
        flat = self.products.reshape(len(self.products), -1)
        last = self.falling[np.arange(len(flat)), np.maximum(count, 1) - 1]
        last = np.where(count > 0, last, np.inf).astype(flat.dtype)[:, None]
        taken = flat > last
        equal = flat == last
        equal &= flat > -np.inf
        missing = count - np.count_nonzero(taken, axis=1)
        tied = np.flatnonzero(np.count_nonzero(equal, axis=1) > missing)
        if len(tied):
            equal[tied] &= np.cumsum(equal[tied], axis=1) <= missing[tied, None]
        taken |= equal
        blocks = taken.view(np.uint64) * np.uint64(0x0101010101010101) >> np.uint64(
            56
        )  # sums of 8 bytes of 0 or 1
        columns = np.bincount(self.column, weights=blocks.reshape(self.used.shape)[self.used])
        return taken.reshape(self.products.shape), columns.astype(np.int64)


def _best_products(
    columns: _Columns,
    common: IntArray,
    q: FloatArray,
    side: IntArray,
    begin: IntArray,
    seen: IntArray,
    wanted: IntArray,
) -> _Best:
    """At least the `wanted` [R] largest products of queries q [R, d] with the keys they see; for `common` see `_enough`."""
    weight = np.abs(q)
    blocks = _enough(columns, common, side, weight, wanted)
    per_row = blocks.sum(axis=1)
    used = np.arange(per_row.max()) < per_row[:, None]
    column = np.repeat(np.arange(blocks.size), blocks.ravel())
    first = ((side * columns.dim + np.arange(columns.dim)) * columns.blocks - _before(blocks)).ravel()
    at = np.full(used.shape, len(columns.rows) - 1)
    at[used] = first[column] + np.arange(len(column))
    scale = np.zeros(used.shape, q.dtype)
    scale[used] = weight.ravel()[column]
    rows = columns.rows[at]
    products = columns.values[at]
    products *= scale[..., None]
    hidden = rows >= seen.astype(rows.dtype)[:, None, None]
    if begin.any():
        hidden |= rows < begin.astype(rows.dtype)[:, None, None]
    products[hidden] = -np.inf
    flat = products.reshape(len(q), -1)
    most = int(wanted.max())
    falling = np.full((len(q), most), -np.inf, q.dtype)
    count = min(most, flat.shape[1])
    falling[:, :count] = np.sort(flat, axis=1)[:, ::-1][:, :count]
    return _Best(products, rows, column, used, falling)


def _before(blocks: IntArray) -> IntArray:
    """How many blocks precede every entry's own, entries in order."""
    return (np.cumsum(blocks.ravel()) - blocks.ravel()).reshape(blocks.shape)


def _pops(gains: FloatArray, losses: FloatArray, steps: IntArray, limit: IntArray) -> IntArray:
    """How many losses every query takes: in each of its steps one gain, then one loss unless the sum is negative.

    `gains` and `losses` [Q, M] in the order they are taken, losses negative or 0; query i has `limit[i]` of them.
    """
    queries, most = gains.shape
    gain = np.ascontiguousarray(gains.T, np.float64)
    loss = np.concatenate([np.ascontiguousarray(losses.T, np.float64).ravel(), np.zeros(queries)])
    place = np.arange(queries)
    total = np.zeros(queries)
    all_run = int(steps.min(initial=most))
    for step in range(int(steps.max(initial=0))):
        if step < most:
            total += gain[step]
        pop = total >= 0
        if step >= all_run:
            pop &= steps > step
        total += loss.take(place, mode="clip") * pop  # the last entry is 0
        place += pop * queries
    return np.asarray(np.minimum(place // queries, limit))


def greedy_search(
    q: FloatArray,
    keys: FloatArray,
    seen: IntArray,
    steps: IntArray,
    skip: bool = True,
    begin: IntArray | None = None,
) -> Search:
    """The candidate search of many queries at once.

    Args:
        q: [Q, d]; `keys` [N, d].
        seen: [Q] query i sees keys before `seen[i]`, from `begin[i]` (0 where left out) on.
        steps: [Q] iterations of each query.
        skip: leave the smallest product alone in a step that begins, after its largest one was added, with
            the sum of everything added so far below zero.
    """
    queries, dim = q.shape
    size = len(keys)
    begin = np.zeros(queries, np.int64) if begin is None else begin
    limit = (seen - begin) * dim
    steps = np.minimum(steps, 2 * limit)  # by then everything was taken that ever will be
    wanted = np.minimum(steps, limit)
    columns = _Columns(keys)
    up = q > 0
    ends = (
        (q, np.where(up, 0, 1)),
        (-q, np.where(up, 1, 0)),
    )  # largest first, and smallest first as its mirror
    parts = [slice(i, min(i + TOGETHER, queries)) for i in range(0, queries, TOGETHER)]
    found = []
    for p in parts:
        common = columns.beyond(int(begin[p].max()), int(seen[p].min()))
        found.append(
            [_best_products(columns, common, x[p], side[p], begin[p], seen[p], wanted[p]) for x, side in ends]
        )
    taken = wanted
    if skip:
        rising = np.zeros((2, queries, int(wanted.max(initial=0))), q.dtype)
        for p, both in zip(parts, found, strict=True):
            for end, best in enumerate(both):
                rising[end, p, : best.falling.shape[1]] = np.maximum(best.falling, 0)
        rising[:, np.arange(rising.shape[2]) >= wanted[:, None]] = 0
        taken = _pops(rising[0], -rising[1], steps, limit)
    score = np.zeros((queries, size))
    reach = np.zeros((2, queries, dim), np.int64)
    for p, both in zip(parts, found, strict=True):
        for best, count, sign, (_, side) in zip(both, (wanted[p], taken[p]), (1, -1), ends, strict=True):
            mask, per_column = best.take(count)
            mask &= best.products > 0
            at = np.flatnonzero(mask)
            line = np.repeat(np.arange(len(mask)), np.count_nonzero(mask.reshape(len(mask), -1), axis=1))
            place = line * size + best.rows.ravel()[at]
            added = np.bincount(place, best.products.ravel()[at], len(mask) * size)
            score[p] += sign * added.reshape(-1, size)
            popped = np.zeros(len(mask) * dim, np.int64)
            popped[: len(per_column)] = per_column
            for end in (0, 1):
                reach[end, p] += np.where(side[p] == end, popped.reshape(-1, dim), 0)
    return Search(score, reach[0], reach[1])
