"""From token losses to the accuracy columns of a profile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dse.measure.outcome import Score
from dse.profiles.schema import ACCURACY

FloatArray = NDArray[np.floating[Any]]


def paired_interval(per_window: FloatArray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of the paired differences [W] and its Student-t interval over windows.

    One window has no spread: its interval is infinite on both sides, so it is returned as NaN.
    """
    from scipy.stats import t

    mean = float(per_window.mean())
    count = len(per_window)
    if count < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.5 + confidence / 2, count - 1) * per_window.std(ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def accuracy(result: Score) -> tuple[FloatArray, FloatArray]:
    """The columns of `schema.ACCURACY`, and the mean loss increase per window [W]."""
    increase = result.nll - result.dense_nll
    per_window = increase.mean(axis=1)
    mean, low, high = paired_interval(per_window)
    dense_perplexity = float(np.exp(result.dense_nll.mean()))
    perplexity = float(np.exp(result.nll.mean()))
    columns = {
        "nll_increase": mean,
        "nll_increase_low": low,
        "nll_increase_high": high,
        "nll_increase_distant": float(increase[result.distant].mean())
        if result.distant.any()
        else float("nan"),
        "perplexity": perplexity,
        "perplexity_increase": perplexity - dense_perplexity,
        "kl_mean": float(result.kl.mean()),
        "kl_p99": float(np.quantile(result.kl, 0.99)),
        "top1_agreement": float(result.agree.mean()),
        "output_error": result.output_error,
    }
    return np.array([columns[name] for name in ACCURACY]), per_window
