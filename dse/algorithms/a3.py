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

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log, log2
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Algorithm, Attended, BoolArray, Call, FloatArray, Knob
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

BLOCK_ELEMENTS: Final = 16_000_000
"""Sorted row numbers held at a time, T x d x N."""


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


def sorted_rows(keys: FloatArray, counts: IntArray) -> IntArray:
    """Row numbers of every column in rising order of its first `counts[t]` keys: [T, d, N], 0 beyond."""
    size, dim = keys.shape
    order = np.ascontiguousarray(np.argsort(keys, axis=0, kind="stable").T)
    out = np.zeros((len(counts), dim, size), np.int16 if size < 2**15 else np.int32)
    for t, count in enumerate(counts):
        out[t, :, :count] = order[order < count].reshape(dim, count)
    return out


class _Queue:
    """One end of the search: the next product of every column, for all queries at once.

    Everything is flat, [Q * d] or [Q], because a step touches one entry of each of few small arrays.
    """

    def __init__(
        self, q: FloatArray, keys: FloatArray, rows: IntArray, which: IntArray, counts: IntArray, best: bool
    ) -> None:
        self.best, self.counts, self.dim = best, counts, q.shape[1]
        self.from_top = (q > 0) == best  # whether this end walks down from the column's largest key
        # Places of `rows`, flat: where each column's walk stands, and which way it goes.
        column = (which[:, None] * self.dim + np.arange(self.dim)) * rows.shape[2]
        self.place = (column + np.where(self.from_top, counts[:, None] - 1, 0)).ravel()
        self.step = np.where(self.from_top, -1, 1).ravel()
        self.taken = np.zeros(q.size, np.int64)
        self.spent = q.dtype.type(-np.inf if best else np.inf)
        self.q, self.keys, self.rows = q.ravel(), keys.ravel(), rows.ravel()
        self.row = self.rows[self.place].astype(np.int64)
        self.products = np.ascontiguousarray(keys[self.row.reshape(q.shape), np.arange(self.dim)] * q)
        self.head = self.products.reshape(-1)  # a view of the same products
        self.first = np.arange(len(q)) * self.dim
        self.score_row = np.arange(len(q)) * len(keys)

    def pop(self, wanted: BoolArray, score: FloatArray, total: FloatArray) -> None:
        """Take the next product where `wanted` and add it to flat `score` and `total` if its sign is right."""
        column = self.products.argmax(axis=1) if self.best else self.products.argmin(axis=1)
        at = self.first + column
        value = self.head[at]
        wanted = wanted & (value != self.spent)
        value[~(wanted & ((value > 0) if self.best else (value < 0)))] = 0
        score[self.score_row + self.row[at]] += value
        total += value
        taken = self.taken[at] + wanted
        self.taken[at] = taken
        left = taken < self.counts
        place = self.place[at] + self.step[at] * (wanted & left)
        self.place[at] = place
        row = self.rows[place].astype(np.int64)
        self.row[at] = row
        product = self.keys[row * self.dim + column] * self.q[at]
        product[~left] = self.spent
        self.head[at] = product


def greedy_search(
    q: FloatArray,
    keys: FloatArray,
    rows: IntArray,
    which: IntArray,
    counts: IntArray,
    steps: IntArray,
    skip: bool = True,
) -> Search:
    """The candidate search of many queries side by side, one step of each at a time.

    Args:
        q: [Q, d]; `keys` [N, d].
        rows: [T, d, N] from `sorted_rows`; query i uses ``rows[which[i]]`` and sees `counts[i]` keys.
        steps: [Q] iterations of each query.
        skip: leave the smallest product alone in a step that begins, after its largest one was added, with
            the sum of everything added so far below zero.
    """
    score = np.zeros(len(q) * len(keys), q.dtype)
    total = np.zeros(len(q), q.dtype)
    largest_first = _Queue(q, keys, rows, which, counts, best=True)
    smallest_first = _Queue(q, keys, rows, which, counts, best=False)
    for step in range(int(steps.max(initial=0))):
        running = steps > step
        largest_first.pop(running, score, total)
        smallest_first.pop(running & (total >= 0) if skip else running, score, total)
    ends = (largest_first, smallest_first)
    top = sum(np.where(e.from_top, e.taken.reshape(q.shape), 0) for e in ends)
    bottom = sum(np.where(e.from_top, 0, e.taken.reshape(q.shape)) for e in ends)
    return Search(score.reshape(len(q), len(keys)), np.asarray(top), np.asarray(bottom))


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


class A3(Algorithm):
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
        *WIDTHS,
    )

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

    def attend(self, call: Call) -> Attended:
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
        counts = call.first + 1 + np.arange(queries)
        steps = np.maximum((self.number("search") * counts).astype(np.int64), 1)
        found = np.zeros((*q.shape[:4], size), bool)
        touched_group, touched_head = np.zeros(heads), np.zeros(heads)
        block = max(1, BLOCK_ELEMENTS // (dim * size))
        visible = call.visible()
        for b, h in np.ndindex(batch, heads):
            for begin in range(0, queries, block):
                part = slice(begin, min(begin + block, queries))
                width = part.stop - part.start
                which = np.tile(np.arange(width), group)
                seen = counts[part]
                search = greedy_search(
                    q[b, h, :, part].reshape(-1, dim),
                    k[b, h],
                    sorted_rows(k[b, h], seen),
                    which,
                    seen[which],
                    steps[part][which],
                    bool(self.settings["skip"]),
                )
                score = search.score.reshape(group, width, size)
                found[b, h, :, part] = candidates(score, visible[part])
                # Elements fetched from each end of a column; the group shares the longer reach of its heads.
                top, bottom = (x.reshape(group, width, dim) + QUEUE for x in (search.top, search.bottom))
                limit = seen[:, None]
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
