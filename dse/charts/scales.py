"""Axes of charts: linear, logarithmic, or linear around zero and logarithmic beyond, with ticks one can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dse.charts.labels import label
from dse.errors import BadInput, nearest
from dse.search.report import BUDGETS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

LINEAR_BELOW: Final = 1e-3
"""Losses smaller than this (nats) are drawn on a linear scale: dense at 12 bits loses about nothing."""

LOSSES: Final = ("nll_increase", "nll_increase_distant")
"""Metrics that are drawn on the scale of losses."""

LINEAR_SHARE: Final = 0.45
"""Length of the linear part on one side of zero, in decades."""

_LOSS_TICKS: Final = (-0.03, -0.01, -0.003, 0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_DECADES: Final = 30
"""Ranges narrower than this get ticks at 1, 2 and 5 of each decade."""


def numeric(points: pd.DataFrame) -> list[str]:
    """Columns that an axis or a colour can show."""
    import pandas as pd

    return [c for c in points.columns if pd.api.types.is_numeric_dtype(points[c])]


def require(name: str, points: pd.DataFrame, column: str) -> None:
    """Raise BadInput unless `column` of the run called `name` holds numbers."""
    known = numeric(points)
    if column not in points.columns:
        raise BadInput(f"{name}: no column {column!r}; {nearest(column, known)}")
    if column not in known:
        raise BadInput(
            f"{name}: column {column!r} holds words, an axis needs numbers; {nearest(column, known)}"
        )


def shown(points: pd.DataFrame, column: str) -> FloatArray:
    """A column in the unit that it is shown in."""
    values: FloatArray = points[column].to_numpy(dtype=float) * label(column).scale
    return values


def fit(axes: Axes, which: str, column: str, values: FloatArray) -> tuple[float, float]:
    """Choose scale, limits and ticks of the axis `which` ("x" or "y") for `values`; returns the limits."""
    import numpy as np

    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if column in LOSSES:
        low, high = _losses(axes, which, low, high)
    elif low > 0 and (high / low > _DECADES or (label(column).log and high / low > 5)):
        low, high = low / 1.15, high * 1.15
        logarithmic(axes, which, low, high)
    else:
        margin = 0.06 * (high - low or abs(high) or 1.0)
        low = 0.0 if 0 <= low < 0.5 * high else low - margin
        high += margin
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    return low, high


def logarithmic(axes: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis with plain numbers where decades alone would leave it bare."""
    from matplotlib.ticker import NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if high / low < _DECADES:
        marks: Sequence[int] = (1, 2, 5) if high / low > 2 else (1, 2, 3, 4, 5, 6, 7, 8, 9)
        _ticks(axis, [m * 10.0**e for e in range(-12, 13) for m in marks if low <= m * 10.0**e <= high])
        axis.set_minor_formatter(NullFormatter())


def _losses(axes: Axes, which: str, low: float, high: float) -> tuple[float, float]:
    from matplotlib.ticker import NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)(
        "symlog", linthresh=LINEAR_BELOW, linscale=LINEAR_SHARE
    )
    low = min(-LINEAR_BELOW * 0.8, low * 1.2 if low < 0 else 0.0)
    high = max(BUDGETS[1], high * 1.25)
    _ticks(axis, [t for t in _LOSS_TICKS if low <= t <= high])
    axis.set_minor_locator(NullLocator())
    return low, high


def _ticks(axis: Any, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator

    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))
