"""A3: a greedy search over sorted key columns finds candidates, whose exact scores decide what is kept.

Every column of K is kept sorted. A search of M steps pops the largest product K_ij * q_j left, and the
smallest, and adds them to the greedy score of their rows; rows that end positive are candidates. Candidates
are scored exactly, and those within t = -ln(T / 100) of the best one enter the softmax.

Source: Ham et al., "A^3: Accelerating Attention Mechanisms in Neural Networks with Approximation", HPCA 2020
(arXiv 2002.10941), read in full. Where the text is silent: a popped product of the wrong sign is passed over
but not added; a column that is used up leaves the queue; ties go to the lowest column; if no row is positive
the one with the largest greedy score is the candidate (the most recent of equals). Rows whose gap to the best
is at most t are kept (the text once says the opposite, its definition does not).

The paper has K, its sorted copy and V on chip before a query comes. Decoding is outside it, and here (ours):
the sorted copy is stored beside the cache, value and row index per element, in linked blocks so that the new
token's d elements are inserted without moving others. ``fetch = "all"`` loads K, V and the sorted copy in
every step, as the paper's SRAM would be filled; ``"demand"`` fetches the elements that the search touches
(and those queued ahead of it), then rows of K for candidates, then rows of V. Elements are counted in bytes,
though few of them lie together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, log, log2
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Attended, BoolArray, Call, FloatArray, Knob
from dse.algorithms.layers import LAYERS, Layered
from dse.algorithms.operands import (
    WIDTHS,
    largest,
    masked_scores,
    operands,
    pair_count,
    per_head,
    row_count,
    softmax_over,
    weigh,
)
from dse.errors import BadInput
from dse.profiles.schema import Form

IntArray = NDArray[np.integer[Any]]

QUEUE: Final = 4
"""Products per column and end that the selector holds ready (the paper's circular queues)."""

BLOCK: Final = 8
"""Sorted keys that are looked at together."""

BINS: Final = 256
"""Values per column at which keys are counted."""

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
        # beyond[side, column, 1 + i]: keys within i bin widths of the largest; 0 first, all of them last.
        place = ((self.largest[..., None] - falling) / self.width[..., None]).astype(np.int64)
        flat = np.arange(2 * dim)[:, None] * (BINS + 4) + np.minimum(place, BINS).reshape(2 * dim, size) + 2
        counted = np.bincount(flat.ravel(), minlength=2 * dim * (BINS + 4))
        self.beyond = counted.reshape(2 * dim, BINS + 4).cumsum(axis=1).astype(np.int32).ravel()


def _enough(
    columns: _Columns, side: IntArray, weight: FloatArray, wanted: IntArray
) -> tuple[FloatArray, IntArray]:
    """A product that about `wanted` [R] products of |q| = `weight` [R, d] reach, and where every walk may stop.

    Visible or not, all keys are counted. Returns the product [R], and blocks [R, d] that hold every key reaching it.
    """
    column = side * columns.dim + np.arange(columns.dim)
    start = (column * (BINS + 4) + 1).astype(np.int32)
    largest, width = columns.largest.ravel()[column], columns.width.ravel()[column]
    offset = largest / width
    idle = weight == 0
    slope = 1 / (np.where(idle, 1, weight) * width)

    def reached(product: FloatArray, slack: FloatArray | float) -> IntArray:
        """Keys of every column whose product, in whole bins moved by `slack`, is at least `product`."""
        at = offset - product[:, None] * slope
        at += slack
        if idle.any():
            at[idle] = np.where(product[:, None] <= 0, BINS + 2, -1.0).repeat(columns.dim, axis=1)[idle]
        np.clip(at, -1, BINS + 2, out=at)
        return np.asarray(columns.beyond[np.floor(at).astype(np.int32) + start])

    high = (weight * largest).max(axis=1)
    low = (weight * (largest - BINS * width)).min(axis=1) - 2 * (weight * width).max(axis=1)
    most, fewest = np.full(len(weight), float(columns.size * columns.dim)), np.ones(len(weight))
    for number in range(TRIES):
        # Counts fall nearly exponentially between the two ends: aim a little above what is wanted.
        part = np.log(most / (1.08 * wanted)) / np.log(most / fewest) if number % 3 < 2 else 0.5
        middle = low + (high - low) * np.clip(part, 0.03, 0.97).astype(low.dtype)
        found = reached(middle, 0.0).sum(axis=1)
        enough = found >= wanted
        low, most = np.where(enough, middle, low), np.where(enough, found, most)
        high, fewest = np.where(enough, high, middle), np.where(enough, fewest, np.maximum(found, 1))
        if (most <= 1.15 * wanted).all():
            break
    bound = reached(low.astype(np.float64), 1 + ROUNDING + 1e-6 * np.abs(offset))
    return low, -(-bound // BLOCK)


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
    columns: _Columns, q: FloatArray, side: IntArray, begin: IntArray, seen: IntArray, wanted: IntArray
) -> _Best:
    """At least the `wanted` [R] largest products of queries q [R, d] with the keys they see, all where fewer are."""
    weight = np.abs(q)
    visible = seen - begin
    limit = columns.size * columns.dim
    aim = np.minimum(1.1 * wanted * (columns.size / visible) + 3 * np.sqrt(wanted) + 16, limit)
    while True:
        bar, blocks = _enough(columns, side, weight, aim)
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
        short = np.count_nonzero(flat >= bar[:, None], axis=1) < np.minimum(wanted, visible * columns.dim)
        if not short.any():
            break
        aim = np.where(short, np.minimum(2 * aim, limit), aim)
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

    What M steps pop from one end are the M largest products, so they are found together: a table per column
    bounds how far every walk can get, the products up to there are sorted. How many are popped from the other
    end follows step by step from the sorted ones. Sums are float64, so their order does not matter; the tests
    hold a loop of single steps that this must equal.

    Args:
        q: [Q, d] `keys` [N, d].
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
    found = [
        [_best_products(columns, x[p], side[p], begin[p], seen[p], wanted[p]) for x, side in ends]
        for p in parts
    ]
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


def candidates(score: FloatArray, visible: BoolArray) -> BoolArray:
    """Rows of positive greedy score; where there is none, the largest (most recent of equals)."""
    positive = score > 0
    none = ~positive.any(axis=-1)
    if none.any():
        seen = np.broadcast_to(visible, score.shape)[none]
        positive[none] = largest(np.where(seen, score[none], -np.inf), 1)
    return positive


def parse_format(text: str) -> tuple[int, int]:
    """``"4.4"`` -> integer and fraction bits. Raises ValueError where it is no such pair."""
    whole, fraction = (int(part) for part in text.split("."))
    if not (1 <= whole <= 8 and 1 <= fraction <= 8):
        raise ValueError(text)
    return whole, fraction


def _stretches(begin: IntArray, counts: IntArray) -> Iterator[slice]:
    """Runs of queries that see much the same keys: the last of a run sees at most half as many more as the first."""
    start = 0
    while start < len(counts):
        wide = begin[start] + counts[start] + max(counts[start] // 2, 32)
        stop = int(np.searchsorted(begin + counts, wide, side="right"))
        yield slice(start, stop)
        start = stop


class A3(Layered):
    """Candidate search over sorted key columns, then selection by exact score."""

    name = "a3"
    summary = "greedy search over sorted key columns, exact scores of candidates, the best of them kept"
    source = "Ham et al., HPCA 2020"
    knobs = (
        Knob("search", 0.5, "search steps per visible token (M / n); 0: every key is a candidate", 0.0, 64.0),
        Knob("post", 5.0, "smallest weight kept, in percent of the largest (T); 0: all", 0.0, 100.0),
        Knob("skip", True, "skip the negative side while the sum of what was added is negative"),
        Knob(
            "fetch",
            "all",
            "all: K, V and sorted columns every step, as on chip; demand: what is touched",
            choices=("all", "demand"),
        ),
        Knob(
            "format",
            "scaled",
            "scaled: calibrated scales at the widths below; or fixed point such as '4.4', integer and fraction "
            "bits beside the sign, with exponentials and weights of twice the fraction bits",
        ),
        LAYERS,
        *WIDTHS,
    )
    layered = ("search", "post", "skip")
    revision = 2  # sums in float64

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        super().__init__(knobs, where)
        where = where or self.name
        self.fixed: tuple[int, int] | None = None
        if self.text("format") == "scaled":
            return
        try:
            self.fixed = parse_format(self.text("format"))
        except ValueError:
            raise BadInput(
                f"{where}.format: {self.text('format')!r} is neither 'scaled' nor integer and fraction bits "
                "(1 to 8 each) such as '4.4'"
            ) from None
        for knob in WIDTHS:
            if self.settings[knob.name] != knob.default:
                raise BadInput(
                    f"{where}.{knob.name}: has no effect with format = {self.text('format')!r}, which sets "
                    "every width; leave it out"
                )

    def form(self) -> Form:
        widths = [self.integer(name) for name in ("k_bits", "v_bits", "q_bits")]
        if self.fixed:
            widths = [1 + sum(self.fixed)] * 3
        # On demand V waits for the scores of the candidates, unless every candidate is kept.
        waits = self.text("fetch") == "demand" and self.number("post") > 0
        return Form((widths[0],), widths[1], widths[2], v_after="row" if waits else "none")

    def attend_layer(self, call: Call) -> Attended:
        q, k, v = self._operands(call)
        visible = call.visible()
        scores = masked_scores(q, k, visible)
        found = np.broadcast_to(visible, scores.shape)
        rows, pairs = row_count(call), pair_count(call)
        work: dict[str, Any] = {"compares": 0.0}
        if self.number("search") > 0:
            found, work = self._search(call, q, k)
            work["compares"] = pairs  # the scan for positive greedy scores
        kept = found
        if self.number("post") > 0:
            gap = -log(self.number("post") / 100)
            among = np.where(found, scores, -np.inf)
            kept = among >= among.max(axis=-1, keepdims=True) - scores.dtype.type(gap)
            work["compares"] = work["compares"] + per_head(found)
            work["row_waits"] = rows
        out = weigh(self._weights(scores, kept), v)
        work["exponentials"] = work["divisions"] = per_head(kept)
        if self.text("fetch") == "demand":
            return Attended(out, (found,), kept, work)
        work["qk_rows_0"], work["pv_rows"] = per_head(found), per_head(kept)
        return Attended(out, (None,), None, work)

    def _operands(self, call: Call) -> tuple[FloatArray, FloatArray, FloatArray]:
        if self.fixed is None:
            return operands(self, call)
        whole, fraction = self.fixed
        unit = 2.0**-fraction
        top = 2.0**whole - unit
        q, k, v = (np.clip(np.rint(x / unit) * unit, -top, top) for x in (call.q, call.k, call.v))
        return q, k, v

    def _weights(self, scores: FloatArray, kept: BoolArray) -> FloatArray:
        """Softmax over the kept rows; in fixed point both exponentials and weights are rounded."""
        if self.fixed is None:
            return softmax_over(scores, kept)
        unit = scores.dtype.type(2.0 ** (2 * self.fixed[1]))
        p = np.where(kept, scores, -np.inf)
        p = np.rint(np.exp(p - p.max(axis=-1, keepdims=True)) * unit) / unit
        p /= p.sum(axis=-1, keepdims=True)
        return np.asarray(np.rint(p * unit) / unit)

    def _search(self, call: Call, q: FloatArray, k: FloatArray) -> tuple[BoolArray, dict[str, Any]]:
        """Candidates [B, H, G, T, N], and the work and metadata of finding them."""
        batch, heads, group, queries, dim = q.shape
        size = k.shape[2]
        visible = call.visible()
        counts = np.count_nonzero(visible, axis=-1)
        begin = visible.argmax(axis=-1)
        steps = np.maximum((self.number("search") * counts).astype(np.int64), 1)
        found = np.zeros((*q.shape[:4], size), bool)
        touched_group, touched_head = np.zeros(heads), np.zeros(heads)
        for b, h in np.ndindex(batch, heads):
            for part in _stretches(begin, counts):
                low, high = int(begin[part.start]), int((begin + counts)[part.stop - 1])
                width = part.stop - part.start
                search = greedy_search(
                    q[b, h, :, part].reshape(-1, dim),
                    k[b, h, low:high],
                    np.tile((begin + counts)[part] - low, group),
                    np.tile(steps[part], group),
                    bool(self.settings["skip"]),
                    np.tile(begin[part] - low, group),
                )
                score = np.zeros((group, width, size))
                score[..., low:high] = search.score.reshape(group, width, -1)
                found[b, h, :, part] = candidates(score, visible[part])
                # Elements fetched from each end of a column; the group shares the longer reach of its heads.
                top, bottom = (x.reshape(group, width, dim) + QUEUE for x in (search.top, search.bottom))
                limit = counts[part, None]
                touched_head[h] += np.minimum(top + bottom, limit).sum()
                touched_group[h] += np.minimum(top.max(axis=0) + bottom.max(axis=0), limit).sum()
        element = (self.form().k_bits + ceil(log2(max(call.context, 2)))) / 8  # value and row number
        if self.text("fetch") == "all":
            touched_group = np.full(heads, float(counts.sum()) * batch * dim)
            touched_head = touched_group * group
        inserted = float(batch * queries * dim)
        return found, {
            "search_steps": float(steps.sum()) * batch * group,
            "estimate_macs": row_count(call) * 2 * QUEUE * dim,  # products that fill the queues
            "sort_elements": inserted,
            "group.meta_read_bytes": touched_group * element,
            "head.meta_read_bytes": touched_head * element,
            "group.meta_write_bytes": inserted * element,
            "head.meta_write_bytes": inserted * element * group,
        }
