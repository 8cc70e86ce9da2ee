"""References to hold selection algorithms against: oracles that know the true scores, and a fixed window.

The oracles fetch every key, finish the row, and then keep the values that matter most. What finding them
would take is **not charged**: no comparison, no selection. They show how far pruning values could go at best,
not a machine. The window costs nothing to select and is the bar that any selection has to clear.

Sources: exact top-k attention as in Gupta et al., "Memory-efficient Transformers via Top-k Attention"
(SustaiNLP 2021); sinks and recent tokens as in Xiao et al., "Efficient Streaming Language Models with
Attention Sinks" (ICLR 2024), here with original positions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dse.algorithms.contract import Attended, BoolArray, Call, FloatArray, Knob
from dse.algorithms.layers import LAYERS, Layered
from dse.algorithms.operands import (
    WIDTHS,
    exponentials,
    first_largest,
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
from dse.profiles.schema import Form


class _Oracle(Layered):
    """All keys are fetched; the kept values follow from the finished row."""

    def form(self) -> Form:
        return plain_form(self, v_after="row")

    def attend_layer(self, call: Call) -> Attended:
        q, k, v = operands(self, call)
        scores = masked_scores(q, k, call.visible())
        kept = self.keep(scores)
        out = weigh(softmax_over(scores, kept), v)
        rows = row_count(call)
        work = {"exponentials": self.exponents(call, kept), "divisions": rows, "row_waits": rows}
        return Attended(out, (None,), kept, work)

    def keep(self, scores: FloatArray) -> BoolArray:
        """Kept entries of [B, H, G, T, N] logits; invisible ones are -inf."""
        raise NotImplementedError

    def exponents(self, call: Call, kept: BoolArray) -> FloatArray | float:
        raise NotImplementedError


class OracleTopK(_Oracle):
    """The k largest scores of every query head."""

    name = "oracle-top-k"
    summary = "oracle: exactly the k largest scores keep their values; finding them is not charged"
    source = "reference; top-k attention (Gupta et al., SustaiNLP 2021)"
    knobs = (
        Knob("k", 64, "values every query head keeps; ties go to the more recent token", 1, 1e6),
        LAYERS,
        *WIDTHS,
    )
    layered = ("k",)

    def keep(self, scores: FloatArray) -> BoolArray:
        return largest(scores, self.integer("k"))

    def exponents(self, call: Call, kept: BoolArray) -> FloatArray:
        return per_head(kept)


class OracleThreshold(_Oracle):
    """Every token whose probability exceeds the threshold; weights are renormalised over them."""

    name = "oracle-threshold"
    summary = (
        "oracle: tokens of true probability above the threshold keep their values; the test is not charged"
    )
    source = "reference"
    knobs = (
        Knob("threshold", 1e-3, "probability at or under which a value is dropped", 1e-8, 1.0),
        LAYERS,
        *WIDTHS,
    )
    layered = ("threshold",)

    def keep(self, scores: FloatArray) -> BoolArray:
        p = exponentials(scores)
        bar = self.number("threshold") * p.sum(axis=-1, keepdims=True)
        # The most likely token stays even where the row is flatter than the threshold.
        return np.asarray((p > bar) | first_largest(scores))

    def exponents(self, call: Call, kept: BoolArray) -> float:
        return pair_count(call)  # a probability needs the whole row's denominator


class SlidingWindow(Layered):
    """The first tokens and the most recent ones; everything between is neither fetched nor computed."""

    name = "window"
    summary = "the first tokens and a window of recent ones, whatever the query"
    source = "reference; attention sinks (Xiao et al., ICLR 2024)"
    knobs = (
        Knob("recent", 256, "most recent tokens kept, the current one included", 1, 1e6),
        Knob("sinks", 4, "first tokens kept", 0, 1e6),
        LAYERS,
        *WIDTHS,
    )
    layered = ("recent", "sinks")

    def form(self) -> Form:
        return replace(plain_form(self), releases=True)

    def attend_layer(self, call: Call) -> Attended:
        q, k, v = operands(self, call)
        position = call.first + np.arange(call.q.shape[3])
        token = np.arange(call.k.shape[2])
        near = position[:, None] - token[None, :] < self.integer("recent")
        kept = call.visible() & (near | (token < self.integer("sinks")))
        mask = np.broadcast_to(kept, (*call.q.shape[:4], len(token)))
        out = weigh(softmax_over(masked_scores(q, k, kept), mask), v)
        work = {"exponentials": per_head(mask), "divisions": row_count(call)}
        return Attended(out, (mask,), mask, work)
