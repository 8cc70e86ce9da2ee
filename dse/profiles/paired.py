"""Comparing two settings on the very same windows of text: the paired difference and its interval.

Windows differ far more from each other than settings do on one window, so the difference of two settings is known
much better than either loss: it is taken window by window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from dse.profiles.profile import FloatArray

CONFIDENCE = 0.95
"""Of every interval, unless said otherwise."""


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences over windows, with its Student-t interval; NaN ends where there is one window."""

    mean: float
    low: float
    high: float
    windows: int

    @property
    def distinct(self) -> bool:
        """Whether the interval excludes zero: the two can be told apart."""
        return self.low > 0 or self.high < 0


def paired_difference(a: FloatArray, b: FloatArray, confidence: float = CONFIDENCE) -> Difference:
    """How much more `a` loses than `b`: both [windows], nats per token on the same windows.

    Windows that either lacks (NaN) are left out.
    """
    gap = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    gap = gap[np.isfinite(gap)]
    count = len(gap)
    if not count:
        return Difference(math.nan, math.nan, math.nan, 0)
    mean = float(gap.mean())
    if count == 1:
        return Difference(mean, math.nan, math.nan, 1)
    half = t_quantile(0.5 + confidence / 2, count - 1) * float(gap.std(ddof=1)) / math.sqrt(count)
    return Difference(mean, mean - half, mean + half, count)


@cache
def t_quantile(p: float, freedom: int) -> float:
    """The `p` quantile of Student's t with `freedom` degrees of freedom, 0.5 <= p < 1.

    The distribution is integrated in the angle x = sqrt(freedom) tan(angle), where its density is a power of the
    cosine: smooth, so that Gauss-Legendre quadrature is exact to rounding; its inverse by bisection.
    """
    if not 0.5 <= p < 1 or freedom < 1:
        raise ValueError(f"t_quantile({p}, {freedom}): needs 0.5 <= p < 1 and freedom >= 1")
    nodes, weights = np.polynomial.legendre.leggauss(200)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def above_half(angle: float) -> float:
        places = angle * (nodes + 1) / 2
        return float(scale * angle / 2 * (weights @ np.cos(places) ** (freedom - 1)))

    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        if above_half(middle) < p - 0.5:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)
