"""Dense attention at given operand widths: the rival every sparse algorithm has to beat."""

from __future__ import annotations

import numpy as np

from dse.algorithms.contract import Algorithm, Attended, Call, FloatArray, Knob
from dse.algorithms.quantize import FLOAT_BITS, SCALE_BITS, rounded, to_integers
from dse.profiles.schema import Form


def softmax(scores: FloatArray) -> FloatArray:
    """Over the last axis, in place; at least one entry of every row must be finite."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


class Dense(Algorithm):
    """Every visible key and value is fetched, at reduced width."""

    name = "dense"
    summary = "all keys and values, at 4 to 16 bits or in float"
    source = "baseline; symmetric quantisation; keys per channel and values per token as in KIVI (Liu et al., ICML 2024)"
    knobs = (
        Knob("k_bits", 12, "width of stored keys; 32 means float32", 2, 32),
        Knob("v_bits", 12, "width of stored values; 32 means float32", 2, 32),
        Knob("q_bits", 12, "width of queries on chip; 32 means float32", 4, 32),
        Knob(
            "scale",
            "head",
            "one static scale per head or channel, a stored one per token, or static per channel for keys and "
            "stored per token for values",
            choices=("head", "channel", "token", "channel+token"),
        ),
    )

    def form(self) -> Form:
        k_scale, v_scale = self.granularities()
        return Form(
            k_chunk_bits=(self.integer("k_bits"),),
            v_bits=self.integer("v_bits"),
            q_bits=self.integer("q_bits"),
            k_scale_bits=SCALE_BITS if k_scale == "token" else 0,
            v_scale_bits=SCALE_BITS if v_scale == "token" else 0,
        )

    def granularities(self) -> tuple[str, str]:
        """Where the scales of keys and of values sit."""
        scale = self.text("scale")
        return ("channel", "token") if scale == "channel+token" else (scale, scale)

    def attend(self, call: Call) -> Attended:
        k_bits, v_bits, q_bits = (self.integer(n) for n in ("k_bits", "v_bits", "q_bits"))
        k_scale, v_scale = self.granularities()
        scales = call.scales
        q = call.q
        if q_bits < FLOAT_BITS:
            step = scales.q[q_bits][None, :, :, None, None].astype(q.dtype)
            q = to_integers(q, step, q_bits) * step
        k = call.k
        if k_bits < FLOAT_BITS:
            k = rounded(k, k_bits, k_scale, scales.k[k_bits], scales.k_channel[k_bits])
        v = call.v
        if v_bits < FLOAT_BITS:
            v = rounded(v, v_bits, v_scale, scales.v[v_bits], scales.v_channel[v_bits])
        batch, heads, group, queries, dim = q.shape
        scores = q.reshape(batch, heads, group * queries, dim) @ k.swapaxes(-1, -2)
        scores *= dim**-0.5
        scores = scores.reshape(batch, heads, group, queries, -1)
        visible = call.visible()
        scores[..., ~visible] = -np.inf
        p = softmax(scores)
        out = p.reshape(batch, heads, group * queries, -1) @ v
        pairs = float(visible.sum()) * batch * group
        work = {"exponentials": pairs, "divisions": float(batch * group * queries)}
        return Attended(out.reshape(q.shape), (None,), None, work)
