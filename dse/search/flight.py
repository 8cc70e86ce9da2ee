"""Evaluated points of tiles, as costs: what the fast sweep looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.search.aim import Cost

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Flight:
    """Evaluated points of tiles at one number of heads in flight.

    Attributes:
        number: its number. values: raw values of each cost, [tiles, memory, compute]; the first is infinite
            outside the constraints. fits: which satisfy them, None where there are none.
    """

    number: int
    values: Sequence[FloatArray]
    fits: NDArray[np.bool_] | None


def masked(values: FloatArray, ok: NDArray[np.bool_], least: bool) -> FloatArray:
    """Values where `ok`, infinitely bad ones elsewhere."""
    if not least or not values.min() > 0:
        return np.where(ok, values, values.dtype.type(math.inf if least else -math.inf))
    with np.errstate(divide="ignore", invalid="ignore"):  # several times as fast as `where`
        return np.asarray(values / ok.view(np.uint8).astype(values.dtype))


def costs_of(cost: Cost, raw: FloatArray) -> FloatArray:
    """Costs of raw values; infinite for points that were masked out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = cost.of(raw)
    return np.where(np.isfinite(raw), values, math.inf)
