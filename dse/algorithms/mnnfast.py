"""MNNFast: lazy softmax, and the weighted sum skips rows of small weight.

Keys stream through once; each exponential is added to the denominator and, where it is large enough, its value
row to the output, which is divided once at the end (lazy softmax). Skipped rows stay in the denominator: the
weights that are left are not renormalised. Tests:

- ``exact``: probability > threshold, as the paper's algorithm; needs the finished row, so softmax is not lazy;
- ``exp``: the exponential itself > threshold, as on the paper's FPGA; depends on the logits' offset;
- ``exp-max``: exponential relative to the row's maximum > threshold; needs the finished row;
- ``running``: exponential > threshold x sum so far; the sum only grows, so this never skips what ``exact`` keeps.

Source: Jang et al., "MnnFast: A Fast and Scalable System Architecture for Memory-Augmented Neural Networks",
ISCA 2019, read in full. Its thresholds (0.01 and 0.1, over some 50 sentences) are kept as they are, but rows of
a language model are longer and flatter: with 1024 tokens even 0.001 costs SmolLM2-135M 0.06 nats, 0.0001 nearly
nothing. The paper counts computation only and streams all values; not fetching skipped values
(`gate`) and ``exp-max`` and ``running`` are ours, as is rescaling by a running maximum, without which large
logits overflow. A row may keep nothing: its output is then zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from dse.algorithms.contract import Attended, BoolArray, Call, FloatArray, Knob
from dse.algorithms.layers import LAYERS, Layered
from dse.algorithms.operands import (
    WIDTHS,
    exponentials,
    masked_scores,
    operands,
    pair_count,
    per_head,
    plain_form,
    row_count,
    weigh,
)
from dse.errors import BadInput
from dse.profiles.schema import Form

TESTS = ("exact", "exp", "exp-max", "running")

UNDERFLOW: Final = -700.0
"""Differences of logits whose exponential is still a normal number in double precision."""


def keep_rows(scores: FloatArray, threshold: float, test: str, together: int = 1) -> BoolArray:
    """Which rows of V take part in the weighted sum.

    Args:
        scores: [..., N] logits, -inf where not visible (visible tokens come first).
        together: consecutive tokens that are skipped only if all of them are small.
    """
    if test == "exp":
        kept = scores > np.log(threshold)
    elif test == "running":
        kept = _running(scores, threshold)
    else:
        e = exponentials(scores)
        kept = e > (threshold * e.sum(axis=-1, keepdims=True) if test == "exact" else threshold)
    if together > 1:
        size = scores.shape[-1]
        padded = np.zeros((*scores.shape[:-1], -(-size // together), together), bool)
        padded.reshape(*scores.shape[:-1], -1)[..., :size] = kept
        kept = np.repeat(padded.any(axis=-1), together, axis=-1)[..., :size] & (scores > -np.inf)
    return np.asarray(kept)


def _running(scores: FloatArray, threshold: float) -> BoolArray:
    """Entries whose exponential exceeds `threshold` times the sum of their own and all earlier ones."""
    far = scores - scores.max(axis=-1, keepdims=True)
    if (far[far > -np.inf] < UNDERFLOW).any():
        so_far = np.logaddexp.accumulate(scores.astype(np.float64), axis=-1)
        return np.asarray(scores > so_far + np.log(threshold))
    e = np.exp(far.astype(np.float64))  # relative to the row's largest score: the test does not depend on it
    return np.asarray(e > threshold * np.cumsum(e, axis=-1))


class MnnFast(Layered):
    """Zero-skipping in the weighted sum."""

    name = "mnnfast"
    summary = "skips value rows of small weight; every key is used, weights are not renormalised"
    source = "Jang et al., ISCA 2019"
    knobs = (
        Knob(
            "threshold",
            0.01,
            "weight at or under which a value row is skipped; 1e-4 for long rows",
            1e-8,
            1e6,
        ),
        Knob(
            "test", "exact", "what is compared: probability, exponential, relative, or running", choices=TESTS
        ),
        Knob("gate", False, "skipped values are not fetched either"),
        Knob("together", 1, "parallel lanes that skip only if all of their tokens do", 1, 64),
        LAYERS,
        *WIDTHS,
    )
    layered = ("threshold", "together")

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        super().__init__(knobs, where)
        if self.number("threshold") > 1 and self.text("test") != "exp":
            raise BadInput(
                f"{where or self.name}.threshold: {self.number('threshold')!r} is outside 1e-08 to 1.0; "
                "only test = 'exp' compares something that may exceed 1"
            )

    @property
    def needs_row(self) -> bool:
        return self.text("test") in ("exact", "exp-max")

    def form(self) -> Form:
        # A test on the finished row holds back the weighted sum, whether values are fetched blindly or not.
        return plain_form(
            self, v_after="row" if self.needs_row else "token" if self.settings["gate"] else "none"
        )

    def attend_layer(self, call: Call) -> Attended:
        q, k, v = operands(self, call)
        test, dim = self.text("test"), call.q.shape[-1]
        scores = masked_scores(q, k, call.visible())
        kept = keep_rows(scores, self.number("threshold"), test, self.integer("together"))
        p = exponentials(scores)
        p /= p.sum(axis=-1, keepdims=True)
        out = weigh(np.where(kept, p, 0).astype(p.dtype), v)
        rows, pairs = row_count(call), pair_count(call)
        work: dict[str, Any] = {
            "pv_rows": per_head(kept),
            "exponentials": pairs,
            "compares": pairs,
            "divisions": pairs if test == "exact" else rows * dim,
            "row_waits": rows * self.needs_row,
        }
        if test == "running":
            before = np.maximum.accumulate(scores, axis=-1)[..., :-1]
            rises = (scores[..., 1:] > before) & (before > -np.inf)
            again = per_head(rises)  # each rescales the sum and the d partial outputs by one exponential
            work["exponentials"] = pairs + again
            work["scalar_ops"] = pairs + again * (dim + 1)  # threshold x sum, then the rescaling
        return Attended(out, (None,), kept if self.settings["gate"] else None, work)
