"""What most algorithms do alike: round operands to static scales, score, select, weigh, count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dse.algorithms.contract import Algorithm, BoolArray, Call, FloatArray, Knob
from dse.algorithms.quantize import FLOAT_BITS, rounded, to_integers
from dse.errors import BadInput
from dse.profiles.schema import Form

WIDTHS: tuple[Knob, ...] = (
    Knob("k_bits", 12, "width of stored keys; 32 means float32", 2, 32),
    Knob("v_bits", 12, "width of stored values; 32 means float32", 2, 32),
    Knob("q_bits", 12, "width of queries on chip; 32 means float32", 4, 32),
)
"""Operand widths, one static scale per head."""


def plain_form(algorithm: Algorithm, v_after: str = "none") -> Form:
    """Keys in one piece, everything at the widths of the knobs `WIDTHS`."""
    k_bits, v_bits, q_bits = (algorithm.integer(knob.name) for knob in WIDTHS)
    return Form((k_bits,), v_bits, q_bits, v_after=v_after)


def _scale(table: Mapping[int, FloatArray], bits: int, where: str) -> FloatArray:
    if bits not in table:
        known = ", ".join(str(b) for b in sorted(table))
        raise BadInput(f"{where}: no calibrated scale for {bits} bits; calibrated: {known}, and {FLOAT_BITS}")
    return table[bits]


def operands(algorithm: Algorithm, call: Call) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Queries, keys and values of `call` at the widths of the knobs `WIDTHS`; the call's arrays stay as they are.

    Raises:
        BadInput: a width that no scale was calibrated for.
    """
    q, k, v = call.q, call.k, call.v
    bits = {name: algorithm.integer(name) for name in ("q_bits", "k_bits", "v_bits")}
    if bits["q_bits"] < FLOAT_BITS:
        step = _scale(call.scales.q, bits["q_bits"], f"{algorithm.name}.q_bits")
        step = step[None, :, :, None, None].astype(q.dtype)
        q = to_integers(q, step, bits["q_bits"]) * step
    if bits["k_bits"] < FLOAT_BITS:
        step = _scale(call.scales.k, bits["k_bits"], f"{algorithm.name}.k_bits")
        k = rounded(k, bits["k_bits"], "head", step, step)
    if bits["v_bits"] < FLOAT_BITS:
        step = _scale(call.scales.v, bits["v_bits"], f"{algorithm.name}.v_bits")
        v = rounded(v, bits["v_bits"], "head", step, step)
    return q, k, v


def masked_scores(q: FloatArray, k: FloatArray, visible: BoolArray) -> FloatArray:
    """Logits [B, H, G, T, N] of [B, H, G, T, d] queries over [B, H, N, d] keys; -inf where not visible."""
    batch, heads, group, queries, dim = q.shape
    flat = q.reshape(batch, heads, group * queries, dim) @ k.swapaxes(-1, -2)
    flat *= dim**-0.5
    scores: FloatArray = flat.reshape(batch, heads, group, queries, -1)
    scores[..., ~visible] = -np.inf
    return scores


def weigh(p: FloatArray, v: FloatArray) -> FloatArray:
    """Values [B, H, N, d] summed with weights [B, H, G, T, N]."""
    batch, heads, group, queries, keys = p.shape
    out: FloatArray = p.reshape(batch, heads, group * queries, keys) @ v
    return out.reshape(batch, heads, group, queries, -1)


def exponentials(scores: FloatArray) -> FloatArray:
    """exp(score - largest of its row); a new array. Every row needs a finite entry."""
    out: FloatArray = scores - scores.max(axis=-1, keepdims=True)
    np.exp(out, out=out)
    return out


def softmax_over(scores: FloatArray, kept: BoolArray) -> FloatArray:
    """Softmax over the kept entries of every row (at least one), 0 elsewhere."""
    p = exponentials(np.where(kept, scores, -np.inf))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def largest(score: FloatArray, keep: int) -> BoolArray:
    """The `keep` largest entries of the last axis, all finite ones where there are fewer; ties to later entries.

    -inf marks entries that cannot be chosen.
    """
    size = score.shape[-1]
    if keep <= 0:
        return np.zeros(score.shape, bool)
    if keep >= size:
        return np.asarray(score > -np.inf)
    bar = np.partition(score, size - keep, axis=-1)[..., size - keep, None]
    above = score > bar
    ties = (score == bar) & (score > -np.inf)
    missing = keep - np.count_nonzero(above, axis=-1, keepdims=True)
    place = np.cumsum(ties[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(above | (ties & (place <= missing)))


def first_largest(scores: FloatArray) -> BoolArray:
    """One largest entry of every row (the first one), so that no row ends empty."""
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, scores.argmax(axis=-1)[..., None], True, axis=-1)
    return mask


def per_head(mask: BoolArray) -> FloatArray:
    """True entries of [B, H, ...] for every head, [H]; counting whole slices is far faster than summing axes."""
    return np.array([np.count_nonzero(mask[:, h]) for h in range(mask.shape[1])], float)


def row_count(call: Call) -> float:
    """Rows of attention per KV head: B * G * T."""
    batch, _, group, queries, _ = call.q.shape
    return float(batch * group * queries)


def pair_count(call: Call) -> float:
    """Visible (query head, token) pairs per KV head."""
    batch, _, group, _, _ = call.q.shape
    return float(np.count_nonzero(call.visible()) * batch * group)
