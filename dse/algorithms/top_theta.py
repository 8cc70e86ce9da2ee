"""Top-Theta: an entry is kept if it beats a threshold calibrated so that about k of a row do.

No selection over the row: one comparison per entry with a static threshold per (layer, head, length). On
logits (``placement = "pre"``) the value is known as soon as the score is; on probabilities (``"post"``) the row
must be finished first, and weights are not renormalised. Rows of at most k entries stay dense; layers 0 and 1
have a target of their own. Two compensations:

- `sdc`, softmax denominator, on logits only: the sum over dropped entries that the denominator lacks, exact,
  bounded by their number times exp(threshold) (scaled by `gamma`, or by a fitted gamma), or from calibration:
  the mean of the sum relative to the row's largest score, or the median of the logarithm of the sum itself;
- `vmc`, mean value: the weight that is missing from 1 goes to the mean of all visible values.

Source: Berestizshevsky, Andri, Cavigelli, "Top-Theta Attention" (arXiv 2502.08363; abstract and published
code). Ours: the largest entry of a row always stays (no other entry is protected), the fitted gamma, the
logarithmic table, and counting dropped entries among visible ones only. Counted here: thresholds and tables
are read from chip, and so are the running sums of V (d accumulators per KV head), which no fetch is charged for.

It needs `Thresholds` from calibration text: measurements make them (`dse.measure.thresholds`); elsewhere hand
them to `prepare`, or construct ``TopTheta(knobs, thresholds=...)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from dse.algorithms.thresholds import (
    PLACEMENTS,
    RULES,
    SIGMA,
    SPARED_LAYERS,
    IntArray,
    Thresholds,
    above,
    targets,
)
from dse.errors import BadInput
from dse.profiles.schema import Form

COMPENSATIONS = ("none", "exact", "exp-threshold", "exp-threshold-fitted", "offline-mean", "offline-log")

SCALAR_OPS = {
    "none": 0,
    "exact": 2,  # gamma times the sum, added
    "exp-threshold": 3,  # ... times the number of dropped entries
    "exp-threshold-fitted": 3,
    "offline-mean": 1,  # gamma is in the table
    "offline-log": 2,  # relative to the largest score, then added
}
"""Additions and multiplications per row of every denominator compensation."""


HIGHEST = 80.0
"""Largest exponent taken: exp of it is finite in float32, and the row's weights are then as good as zero."""


class TopTheta(Layered):
    """Calibrated thresholds instead of a top-k search."""

    name = "top-theta"
    summary = "keeps entries above a threshold calibrated per layer, head and length"
    source = "Berestizshevsky et al., arXiv 2502.08363"
    knobs = (
        Knob("k", 128, "entries per row that the thresholds aim at", 1, 1e6),
        Knob("k0", 512, f"the same in the first {SPARED_LAYERS} layers", 1, 1e6),
        Knob("placement", "post", "threshold on logits (pre) or probabilities (post)", choices=PLACEMENTS),
        Knob("sdc", "none", "denominator compensation, with placement = pre only", choices=COMPENSATIONS),
        Knob("gamma", 1.0, "scale of the compensation of the denominator", 0.0, 10.0),
        Knob("vmc", True, "give the missing weight to the mean value"),
        Knob(
            "rule",
            "mean",
            "thresholds from the mean over rows, or so that rows keep k on average",
            choices=RULES,
        ),
        Knob("sigma", SIGMA, "standard deviations of the rows' own thresholds added to it", -4.0, 4.0),
        Knob("calibration", 1024, "tokens of a calibration window; longer rows use its last length", 64, 1e5),
        LAYERS,
        *WIDTHS,
    )
    layered = ("k", "k0", "sdc", "gamma", "vmc")
    needs = "thresholds"

    def __init__(
        self,
        knobs: Mapping[str, object] | None = None,
        where: str = "",
        thresholds: Thresholds | None = None,
    ) -> None:
        super().__init__(knobs, where)
        if self.text("sdc").startswith("exp-threshold"):
            self.revision = 2  # bounded by the row's largest entry too
        where = where or self.name
        self.thresholds: Thresholds | None = None
        if thresholds is not None:
            self.prepare(thresholds)
        sdc, post = self.text("sdc"), self.text("placement") == "post"
        if post and sdc != "none":
            raise BadInput(f"{where}.sdc: {sdc!r} needs placement = 'pre'; probabilities lack no denominator")
        if not post and sdc == "none" and self.settings["vmc"]:
            raise BadInput(
                f"{where}.vmc: no weight is missing with placement = 'pre' and sdc = 'none'; "
                "set vmc = false or another sdc"
            )
        if self.number("gamma") != 1 and sdc in ("none", "exp-threshold-fitted"):
            raise BadInput(f"{where}.gamma: has no effect with sdc = {sdc!r}; leave it out")

    def prepare(self, table: object) -> None:
        """Take calibrated `Thresholds`, whose fit is checked with every call."""
        if not isinstance(table, Thresholds):
            raise TypeError(f"{self.name}: expected Thresholds, got {type(table).__name__}")
        self.thresholds = table
        for _, variant in self.exceptions:
            variant.prepare(table)

    def aims(self, layers: int) -> tuple[int, ...]:
        """Entries per row that the thresholds of every layer aim at."""
        each = [self.variant(layer) for layer in range(layers)]
        return tuple(targets(a.integer("k"), a.integer("k0"), layers)[i] for i, a in enumerate(each))

    def form(self) -> Form:
        return plain_form(self, v_after="row" if self.text("placement") == "post" else "token")

    def calibrated(self, call: Call) -> Thresholds:
        """The thresholds, if they fit this setting and call; `BadInput` names what is missing."""
        found, sdc = self.thresholds, self.text("sdc")
        placement, k, k0 = self.text("placement"), self.integer("k"), self.integer("k0")
        wanted = f"placement = {placement!r}, k = {k}, k0 = {k0}, {call.layers} layers"
        if found is None:
            raise BadInput(
                f"{self.name}: no thresholds for {wanted}; calibrate them with "
                "dse.measure.thresholds and hand them to prepare()"
            )
        aim = targets(k, k0, call.layers)[call.layer]
        if found.placement != placement or len(found.k) != call.layers or found.k[call.layer] != aim:
            raise BadInput(
                f"{self.name}: thresholds are calibrated for placement = {found.placement!r} and "
                f"{len(found.k)} layers of k = {', '.join(str(x) for x in sorted(set(found.k)))}; wanted {wanted}"
            )
        heads, group = call.first_head + call.q.shape[1], call.q.shape[2]
        if heads > found.theta.shape[1] or group != found.theta.shape[2]:
            raise BadInput(
                f"{self.name}: thresholds are calibrated for {found.theta.shape[1]} KV heads of "
                f"{found.theta.shape[2]} query heads; wanted at least {heads} of {group}"
            )
        if sdc in ("exp-threshold-fitted", "offline-mean", "offline-log") and found.rests is None:
            raise BadInput(f"{self.name}.sdc: {sdc!r} needs calibrated compensations; thresholds have none")
        return found

    def attend_layer(self, call: Call) -> Attended:
        tables = self.calibrated(call)
        q, k, v = operands(self, call)
        batch, heads, group, queries, dim = call.q.shape
        visible = call.visible()
        counts = np.count_nonzero(visible, axis=-1)
        long = counts > tables.k[call.layer]
        scores = masked_scores(q, k, visible)
        kept = np.broadcast_to(visible, scores.shape).copy()
        e = exponentials(scores)
        p = e / e.sum(axis=-1, keepdims=True)
        post = self.text("placement") == "post"
        guarded: FloatArray = np.zeros(heads)
        if long.any():
            part = slice(call.first_head, call.first_head + heads)
            theta = tables.rows(tables.theta, call.layer, part, counts[long]).astype(scores.dtype)[..., None]
            x = (p if post else scores)[..., long, :]
            over = above(x, theta)
            kept[..., long, :] = over
            guarded = per_head(np.asarray(x.max(axis=-1) <= theta[..., 0]))
            if not post:
                terms = e[..., long, :]
                sums = np.where(over, terms, 0).sum(axis=-1, keepdims=True)
                if self.text("sdc") == "exact":
                    rest = self.number("gamma") * np.where(over, 0, terms).sum(axis=-1, keepdims=True)
                else:
                    dropped = counts[long, None] - np.count_nonzero(over, axis=-1, keepdims=True)
                    top = x.max(axis=-1, keepdims=True)
                    rest = self._rest(tables, call.layer, part, counts[long], theta - top, dropped, top)
                p[..., long, :] = terms / (sums + rest).astype(p.dtype)
        p *= kept
        out = weigh(p, v)
        rows = float(np.count_nonzero(long)) * batch * group
        pairs = pair_count(call)
        sdc = self.text("sdc")
        work: dict[str, Any] = {
            "exponentials": pairs if post or sdc == "exact" else per_head(kept),
            "compares": float(counts[long].sum()) * batch * group,
            "divisions": row_count(call),
            "scalar_ops": rows * SCALAR_OPS[sdc],
            "row_waits": rows if post else guarded,
        }
        if sdc in ("exp-threshold", "exp-threshold-fitted", "offline-log"):
            work["exponentials"] = work["exponentials"] + rows
        if self.settings["vmc"]:
            out[..., long, :] += self._mean_value(p[..., long, :], v, visible[long])
            # Missing weight over n, then d products and sums per row; one addition per channel and new token.
            work["scalar_ops"] += rows * (2 * dim + 2) + batch * queries * dim
        return Attended(out, (None,), kept, work)

    def _rest(
        self,
        tables: Thresholds,
        layer: int,
        part: slice,
        counts: IntArray,
        gap: FloatArray,
        dropped: IntArray,
        top: FloatArray,
    ) -> FloatArray:
        """Estimated sum of exp(s - M) over the dropped entries, scaled: [B, H, G, T, 1].

        `gap` is threshold - M, `dropped` how many entries were dropped, `top` M, all [B, H, G, T, 1].
        """
        sdc, gamma = self.text("sdc"), self.number("gamma")
        if sdc == "none":
            return np.zeros_like(top)

        def table(values: FloatArray) -> FloatArray:
            return tables.rows(values, layer, part, counts)[..., None]

        # No dropped entry is larger than the threshold, nor than the row's largest entry, which stays even under it.
        if sdc == "exp-threshold":
            return np.asarray(gamma * dropped * np.exp(np.minimum(gap, 0)))
        assert tables.rests is not None
        if sdc == "exp-threshold-fitted":
            return np.asarray(table(tables.rests.gamma) * dropped * np.exp(np.minimum(gap, 0)))
        if sdc == "offline-mean":
            return np.asarray(gamma * np.broadcast_to(table(tables.rests.mean), top.shape))
        return np.asarray(gamma * np.exp(np.minimum(table(tables.rests.log) - top, HIGHEST)))

    def _mean_value(self, p: FloatArray, v: FloatArray, visible: BoolArray) -> FloatArray:
        """Missing weight of rows p [B, H, G, T, N] times the mean of the values they see: [B, H, G, T, d]."""
        sums = np.cumsum(v, axis=2, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums[:, :, :1]), sums], axis=2)
        begin = visible.argmax(axis=-1)
        counts = np.count_nonzero(visible, axis=-1)
        mean = ((sums[:, :, begin + counts] - sums[:, :, begin]) / counts[:, None]).astype(v.dtype)
        missing = 1 - p.sum(axis=-1, keepdims=True)
        return np.asarray(missing * mean[:, :, None])
