"""A3: a greedy search over sorted key columns finds candidates, whose exact scores decide what is kept.

Every column of K is kept sorted. A search of M steps pops the largest product K_ij * q_j left, and the
smallest, and adds them to the greedy score of their rows; rows that end positive are candidates. Candidates
are scored exactly, and those within t = -ln(T / 100) of the best one enter the softmax.

Source: Ham et al., "A^3: Accelerating Attention Mechanisms in Neural Networks with Approximation", HPCA 2020
(arXiv 2002.10941), read in full. Where the text is silent: a popped product of the wrong sign is passed over
but not added; a column that is used up leaves the queue; ties go to the lowest column; if no row is positive
the one with the largest greedy score is the candidate (the most recent of equals); sums do not round. Rows
whose gap to the best is at most t are kept (the text once says the opposite, its definition does not).

The paper has K, its sorted copy and V on chip before a query comes. Decoding is outside it, and here (ours):
the sorted copy is stored beside the cache, value and row index per element, in linked blocks so that the new
token's d elements are inserted without moving others. ``fetch = "all"`` loads K, V and the sorted copy in
every step, as the paper's SRAM would be filled; ``"demand"`` fetches the elements that the search touches
(and those queued ahead of it), then rows of K for candidates, then rows of V. Elements are counted in bytes,
though few of them lie together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil, log, log2
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Attended, BoolArray, Call, FloatArray, Knob
from dse.algorithms.greedy_search import greedy_search
from dse.algorithms.layers import LAYERS, Layered
from dse.algorithms.operands import (
    WIDTHS,
    largest,
    masked_scores,
    operands,
    pair_count,
    per_head,
    plain_form,
    row_count,
    softmax_over,
    weigh,
)
from dse.errors import BadInput
from dse.profiles.schema import Form, Knobs

IntArray = NDArray[np.integer[Any]]

QUEUE: Final = 4
"""Products per column and end that the selector holds ready (the paper's circular queues)."""


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

    @classmethod
    def check(cls, knobs: Mapping[str, object], where: str) -> Knobs:
        settings = super().check(knobs, where)
        if settings["format"] == "scaled":
            return settings
        try:
            parse_format(str(settings["format"]))
        except ValueError:
            raise BadInput(
                f"{where}.format: {settings['format']!r} is neither 'scaled' nor integer and fraction bits "
                "(1 to 8 each) such as '4.4'"
            ) from None
        for knob in WIDTHS:
            if settings[knob.name] != knob.default:
                raise BadInput(
                    f"{where}.{knob.name}: has no effect with format = {settings['format']!r}, which sets "
                    "every width; leave it out"
                )
        return settings

    @property
    def fixed(self) -> tuple[int, int] | None:
        """Integer and fraction bits of the fixed-point format, if there is one."""
        return None if self.text("format") == "scaled" else parse_format(self.text("format"))

    def form(self) -> Form:
        # On demand V waits for the scores of the candidates, unless every candidate is kept.
        waits = self.text("fetch") == "demand" and self.number("post") > 0
        form = plain_form(self, v_after="row" if waits else "none")
        if self.fixed is None:
            return form
        bits = 1 + sum(self.fixed)
        return replace(form, k_chunk_bits=(bits,), v_bits=bits, q_bits=bits)

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
