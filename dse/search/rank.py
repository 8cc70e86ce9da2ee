"""Which points of a front are there for certain, and which only by the text that happened to be measured.

Losses are means over windows of text, and two settings are compared on the same windows. A point's rank is
*distinct* when every other point that is no worse in the remaining objectives loses significantly more accuracy
(two-sided, 95 %, paired over windows). Otherwise some other point may well dominate it. Prices do not enter:
their ranges are those of component constants, the same for all points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dse.profiles.lookup import take
from dse.profiles.paired import t_quantile
from dse.search.shards import Found
from dse.space.definition import Space

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

CONFIDENCE = 0.95
LOSS = "nll_increase"


def windows(space: Space, found: Mapping[str, Found]) -> dict[str, FloatArray]:
    """Algorithm -> mean loss per window of the settings on its front, [setting number, window]."""
    tables = {}
    for name, f in found.items():
        resolution = space.resolutions[name]
        table = np.full(
            (
                len(resolution.sources),
                space.profile.window_counts[space.profile.context_index(space.workload.context)],
            ),
            np.nan,
        )
        for setting in np.unique(f.setting).tolist():
            table[setting] = take(resolution, setting, setting + 1).window_nll[0]
        tables[name] = table
    return tables


def distinct(
    costs: FloatArray, objectives: Sequence[str], losses: FloatArray, rivals: BoolArray
) -> BoolArray:
    """[n] whether each point's rank is certain.

    Args:
        costs: [n, objectives], smaller is better.
        losses: [n, windows] mean loss per window; NaN where it is not known, which decides nothing.
        rivals: [n, n] which points (columns) a point (row) is ranked among.
    """
    sure = np.ones(len(costs), dtype=bool)
    count = losses.shape[1]
    if LOSS not in objectives or count < 2:
        return sure
    others = [i for i, name in enumerate(objectives) if name != LOSS]
    factor = t_quantile(0.5 + CONFIDENCE / 2, count - 1) / math.sqrt(count)
    for i in range(len(costs)):
        no_worse = (costs[:, others] <= costs[i, others]).all(axis=1)
        better = (costs[:, others] < costs[i, others]).any(axis=1)
        near = np.flatnonzero(no_worse & better & rivals[i])
        gap = losses[near] - losses[i]
        least = gap.mean(axis=1) - factor * gap.std(axis=1, ddof=1)
        sure[i] = not (least <= 0.0).any()
    return sure
