"""Thresholds of Top-Theta attention from calibration scores, as pure functions on arrays.

Per row of more than k visible entries, the threshold is its (k + 1)-th largest entry, so that exactly k are
strictly above it; per (layer, head, length) it is the mean over the rows plus `sigma` standard deviations. At
run time the nearest calibrated length is looked up.

Source: Berestizshevsky, Andri, Cavigelli, "Top-Theta Attention" (arXiv 2502.08363) and its published code,
which keeps one entry per exact length and prefers rows of lengths seen least; here rows are pooled around the
given lengths (give every length for the published rule). During calibration the code replaces each layer's
scores by their exact top k before going on, which the caller does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import BoolArray, FloatArray
from dse.errors import BadInput

IntArray = NDArray[np.integer[Any]]

PLACEMENTS: Final = ("pre", "post")
SPARED_LAYERS: Final = 2
"""First layers that have a target of their own."""

SIGMA: Final = 0.1
"""Standard deviations added to the mean in the published runs."""


@dataclass(frozen=True)
class Rests:
    """What the dropped entries of a calibration row added to the denominator, three ways of keeping it.

    Attributes:
        gamma: median of exact sum over its bound (number dropped) x exp(threshold - M).
        mean: mean of sum exp(s - M) over the dropped entries; M is the row's largest score.
        log: median of ln sum exp(s) over them, not relative to M.
    """

    gamma: FloatArray
    mean: FloatArray
    log: FloatArray


@dataclass(frozen=True)
class Thresholds:
    """Calibrated tables of one (placement, k per layer).

    Attributes:
        placement: ``"pre"``: thresholds on logits; ``"post"``: on probabilities.
        k: target of every layer.
        lengths: [C] visible tokens, rising.
        theta: [L, H, G, C]; NaN for lengths of which no calibration row was longer than k.
        rests: tables of the same shape, for denominator compensation; None where not calibrated.
    """

    placement: str
    k: tuple[int, ...]
    lengths: IntArray
    theta: FloatArray
    rests: Rests | None = None

    def __post_init__(self) -> None:
        if self.placement not in PLACEMENTS:
            raise BadInput(f"thresholds: placement {self.placement!r}; valid: {', '.join(PLACEMENTS)}")
        if self.theta.ndim != 4 or self.theta.shape[::3] != (len(self.k), len(self.lengths)):
            raise BadInput(
                f"thresholds: shape {self.theta.shape}; expected layers x KV heads x query heads per KV head x "
                f"lengths, ({len(self.k)}, ..., {len(self.lengths)})"
            )
        if len(self.lengths) == 0 or (np.diff(self.lengths) <= 0).any():
            raise BadInput("thresholds: lengths must rise")
        for table in (self.rests.gamma, self.rests.mean, self.rests.log) if self.rests else ():
            if table.shape != self.theta.shape:
                raise BadInput(f"thresholds: compensation of shape {table.shape}, not {self.theta.shape}")

    def rows(self, table: FloatArray, layer: int, heads: slice, lengths: IntArray) -> FloatArray:
        """`table` [L, H, G, C] for rows of `lengths` [T] of a layer's heads: [H, G, T], nearest length."""
        usable = np.flatnonzero(np.isfinite(self.theta[layer]).all(axis=(0, 1)))
        if len(usable) == 0:
            raise BadInput(
                f"thresholds: layer {layer} has none: no calibration row was longer than k = {self.k[layer]}"
            )
        at = usable[nearest_length(self.lengths[usable], lengths)]
        found: FloatArray = table[layer, heads][:, :, at]
        return found


def targets(k: int, k0: int, layers: int) -> tuple[int, ...]:
    """Target of every layer: `k0` in the first ones, `k` elsewhere."""
    return tuple(k0 if layer < SPARED_LAYERS else k for layer in range(layers))


def nearest_length(lengths: IntArray, wanted: IntArray) -> IntArray:
    """Index of the entry of `lengths` (rising) nearest to each of `wanted`; the shorter of two equals."""
    right = np.clip(np.searchsorted(lengths, wanted), 1, max(len(lengths) - 1, 1))
    right = np.minimum(right, len(lengths) - 1)
    left = np.maximum(right - 1, 0)
    return np.asarray(np.where(wanted - lengths[left] <= lengths[right] - wanted, left, right))


def row_threshold(x: FloatArray, k: int) -> FloatArray:
    """The (k + 1)-th largest entry of the last axis, which must be longer than k.

    Equal to the quantile 1 - k/n with the lower of two neighbours, whatever fills masked places below.
    """
    size = x.shape[-1]
    found: FloatArray = np.partition(x, size - 1 - k, axis=-1)[..., size - 1 - k]
    return found


def probabilities(scores: FloatArray) -> FloatArray:
    """Softmax over the last axis of logits with -inf at hidden places."""
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def above(x: FloatArray, theta: FloatArray) -> BoolArray:
    """Entries strictly above their row's `theta` [..., 1], and always one largest entry of the row."""
    kept = x > theta
    np.put_along_axis(kept, x.argmax(axis=-1)[..., None], True, axis=-1)
    return np.asarray(kept)


def _causal(scores: FloatArray, first: int) -> tuple[FloatArray, IntArray]:
    """Logits with hidden entries at -inf, and every row's number of visible ones."""
    lengths = first + 1 + np.arange(scores.shape[-2])
    return np.where(np.arange(scores.shape[-1]) < lengths[:, None], scores, -np.inf), lengths


def layer_thresholds(
    scores: FloatArray, first: int, k: int, lengths: IntArray, placement: str, sigma: float = SIGMA
) -> FloatArray:
    """Thresholds of one layer from calibration logits.

    Args:
        scores: [B, H, G, T, N] logits of the queries at positions `first`...; entries to come are ignored.
        k: entries that should stay above.
        lengths: [C] rising; every row counts for the nearest one.
        placement: ``"pre"`` or ``"post"``: whether `scores` or their softmax are thresholded.

    Returns: [H, G, C] mean + sigma x standard deviation; NaN where no row was longer than k.
    """
    x, count = _causal(scores, first)
    if placement == "post":
        x = probabilities(x)
    bucket = nearest_length(lengths, count)
    out = np.full((*scores.shape[1:3], len(lengths)), np.nan)
    for c in range(len(lengths)):
        rows = (bucket == c) & (count > k)
        if rows.any():
            samples = row_threshold(x[..., rows, :], k)
            out[..., c] = samples.mean(axis=(0, 3)) + sigma * samples.std(axis=(0, 3))
    return out


def layer_rests(scores: FloatArray, first: int, k: int, lengths: IntArray, theta: FloatArray) -> Rests:
    """What entries dropped at `theta` [H, G, C] leave out of the denominator; arguments as `layer_thresholds`.

    Returns tables [H, G, C], NaN where `theta` is.
    """
    x, count = _causal(scores, first)
    bucket = nearest_length(lengths, count)
    gamma, mean, log = (np.full(theta.shape, np.nan) for _ in range(3))
    for c in range(len(lengths)):
        rows = (bucket == c) & (count > k)
        if not rows.any():
            continue
        s, bar = x[..., rows, :], theta[..., c, None, None]
        top = s.max(axis=-1, keepdims=True)
        dropped = ~above(s, bar) & (s > -np.inf)
        rest = np.where(dropped, np.exp(s - top), 0).sum(axis=-1)
        bound = dropped.sum(axis=-1) * np.exp(bar - top)[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(bound > 0, rest / bound, np.nan)
            log[..., c] = np.median(np.log(rest) + top[..., 0], axis=(0, 3))
        mean[..., c] = rest.mean(axis=(0, 3))
        for h, g in np.ndindex(gamma.shape[:2]):
            known = ratio[:, h, g][np.isfinite(ratio[:, h, g])]
            gamma[h, g, c] = np.median(known) if known.size else 1.0  # nothing dropped: nothing to scale
    return Rests(gamma, mean, log)
