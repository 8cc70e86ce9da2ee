"""Thresholds of Top-Theta attention from calibration scores, as pure functions on arrays.

Per row of more than k visible entries, the threshold is its (k + 1)-th largest entry, so that exactly k are
strictly above it; per (layer, head, length) it is the mean over the rows plus `sigma` standard deviations
(``rule = "mean"``, as published). The count above a threshold is no straight line, so the mean of thresholds
does not keep k on average: logits of rows whose level varies keep more. ``"count"`` (ours) takes, in place of
the mean, the entry that leaves k per row on average. At run time the nearest calibrated length is looked up.

Source: Berestizshevsky, Andri, Cavigelli, "Top-Theta Attention" (arXiv 2502.08363) and its published code,
which keeps one entry per exact length and prefers rows of lengths seen least; here rows are pooled around the
given lengths (give every length for the published rule). During calibration the code replaces each layer's
scores by their exact top k before going on, as `dse.measure.thresholds` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import BoolArray, FloatArray, visible_keys
from dse.errors import BadInput

IntArray = NDArray[np.integer[Any]]

PLACEMENTS: Final = ("pre", "post")
RULES: Final = ("mean", "count")
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


def pooled_thresholds(
    x: FloatArray, count: IntArray, k: int, sigma: float, rule: str = "mean"
) -> tuple[FloatArray, FloatArray]:
    """Thresholds of rows that count as one length.

    Args:
        x: [B, H, G, T, N] logits or probabilities, smallest where hidden.
        count: [T] visible entries of every row.
        rule: one of `RULES`; either way `sigma` standard deviations of the rows' own thresholds are added.

    Returns: the threshold [H, G] from rows longer than k, NaN where there is none; and each row's own one
    [B, H, G, T], -inf for rows of at most k entries.
    """
    own = np.full(x.shape[:-1], -np.inf, x.dtype)
    rows = count > k
    if not rows.any():
        return np.full(x.shape[1:3], np.nan), own
    samples = row_threshold(x[..., rows, :], k)
    own[..., rows] = samples
    wide = samples.astype(np.float64)
    if rule == "mean":
        middle = wide.mean(axis=(0, 3))
    else:
        pooled = np.moveaxis(x[..., rows, :], 0, 2).reshape(*x.shape[1:3], -1)
        middle = row_threshold(pooled, k * len(x) * int(rows.sum()))
    return middle + sigma * wide.std(axis=(0, 3)), own


def pooled_rests(scores: FloatArray, count: IntArray, k: int, theta: FloatArray) -> Rests:
    """What `theta` [H, G] leaves out of the denominators of rows that count as one length: tables [H, G].

    Arguments as `pooled_thresholds`, `scores` being logits; NaN where no row is longer than k.
    """
    s = scores[..., count > k, :]
    if not s.size:
        return Rests(*(np.full(theta.shape, np.nan) for _ in range(3)))
    bar = theta[..., None, None].astype(s.dtype)
    top = s.max(axis=-1, keepdims=True)
    dropped = ~above(s, bar) & (s > -np.inf)
    rest = np.where(dropped, np.exp(s - top), 0).sum(axis=-1, dtype=np.float64)
    bound = np.count_nonzero(dropped, axis=-1) * np.exp(bar - top)[..., 0].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(bound > 0, rest / bound, np.nan)
        log = np.median(np.log(rest) + top[..., 0], axis=(0, 3))
    gamma = np.ones(theta.shape)  # where nothing was dropped there is nothing to scale
    for h, g in np.ndindex(theta.shape):
        known = ratio[:, h, g][np.isfinite(ratio[:, h, g])]
        if known.size:
            gamma[h, g] = np.median(known)
    return Rests(gamma, rest.mean(axis=(0, 3)), log)


def length_groups(count: IntArray, lengths: IntArray) -> Iterator[tuple[int, slice]]:
    """Index of a length, and the stretch of rows of `count` [T] (never falling) that it is nearest to."""
    bucket = nearest_length(lengths, count)
    for c in np.unique(bucket):
        start, stop = np.searchsorted(bucket, [c, c + 1])
        yield int(c), slice(int(start), int(stop))


def _hidden(scores: FloatArray, first: int, window: int) -> tuple[FloatArray, IntArray]:
    """Logits with hidden entries at -inf, and every row's number of visible ones."""
    visible = visible_keys(first + np.arange(scores.shape[-2]), scores.shape[-1], window)
    return np.where(visible, scores, -np.inf).astype(scores.dtype), np.count_nonzero(visible, axis=-1)


def layer_thresholds(
    scores: FloatArray,
    first: int,
    k: int,
    lengths: IntArray,
    placement: str,
    sigma: float = SIGMA,
    window: int = 0,
    rule: str = "mean",
) -> FloatArray:
    """Thresholds of one layer from calibration logits.

    Args:
        scores: [B, H, G, T, N] logits of the queries at positions `first`...; entries to come are ignored.
        k: entries that should stay above.
        lengths: [C] rising; every row counts for the nearest one.
        placement: ``"pre"`` or ``"post"``: whether `scores` or their softmax are thresholded.
        window: tokens a query may see at most; 0: all before it.
        rule: one of `RULES`.

    Returns: [H, G, C] mean + sigma x standard deviation; NaN where no row was longer than k.
    """
    x, count = _hidden(scores, first, window)
    if placement == "post":
        x = probabilities(x)
    out = np.full((*scores.shape[1:3], len(lengths)), np.nan)
    for c, rows in length_groups(count, lengths):
        out[..., c] = pooled_thresholds(x[..., rows, :], count[rows], k, sigma, rule)[0]
    return out


def layer_rests(
    scores: FloatArray, first: int, k: int, lengths: IntArray, theta: FloatArray, window: int = 0
) -> Rests:
    """What entries dropped at `theta` [H, G, C] leave out of the denominator; arguments as `layer_thresholds`.

    Returns tables [H, G, C], NaN where `theta` is.
    """
    x, count = _hidden(scores, first, window)
    gamma, mean, log = (np.full(theta.shape, np.nan) for _ in range(3))
    for c, rows in length_groups(count, lengths):
        found = pooled_rests(x[..., rows, :], count[rows], k, theta[..., c])
        gamma[..., c], mean[..., c], log[..., c] = found.gamma, found.mean, found.log
    return Rests(gamma, mean, log)
