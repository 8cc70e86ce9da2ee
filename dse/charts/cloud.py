"""All points of a space over two metrics, priced again: what the fronts of a run were chosen from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dse.charts.scales import numeric
from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    from dse.results import Run
    from dse.space import Space

FloatArray = NDArray[np.float64]

MOST: Final = 4_000_000
"""Points priced for a cloud; of larger spaces an even choice of the designs."""

OUTLIERS: Final = 0.02
"""Share of a cloud's points at either end that no axis is stretched for."""

BLOCK: Final = 1 << 19
"""Points priced at once."""


@dataclass(frozen=True)
class Cloud:
    """Points that satisfy the constraints.

    Attributes:
        x, y: metrics. xs, ys: [n] float32, in the units of `front.csv`.
        total: points of the space. drawn: those that were priced, constraints or not.
    """

    x: str
    y: str
    xs: NDArray[np.float32]
    ys: NDArray[np.float32]
    total: int
    drawn: int

    def bulk(self, which: str) -> tuple[float, float]:
        """What all but a few points of a coordinate lie between; two NaN without points."""
        values = self.xs if which == "x" else self.ys
        values = values[np.isfinite(values)]
        if not len(values):
            return math.nan, math.nan
        low, high = np.quantile(values, (OUTLIERS, 1 - OUTLIERS))
        return float(low), float(high)


def cloud(run: Run, space: Space, x: str, y: str, most: int = MOST) -> Cloud:
    """Price the points of a run's space again and keep two metrics of those within the constraints.

    Args:
        run: its `run.json` names the baseline that ratios refer to.
        space: the same space with its profile.
        x, y: metrics of points; columns of knobs or hardware have no cloud.
        most: points to price at most, about.

    Raises:
        BadInput: a column is no metric of all points.
    """
    from dse.cost.price import price
    from dse.search.metrics import BaselinePrice, Meter
    from dse.search.sweep import _Run
    from dse.space.names import METRICS

    for name in (x, y):
        if name not in METRICS or name == "speedup_best_dense":
            have = [m for m in METRICS if m in numeric(run.front) and m != "speedup_best_dense"]
            raise BadInput(f"cloud: {name!r} is not known of every point; {nearest(name, have)}")
    sweep = _Run(space, None, 1, "sequential", None, True, None)
    meter: Meter = replace(sweep.meter, pricer=price, baseline=BaselinePrice.read(run.info["baseline"]))
    limits = {name: limit for name, limit in space.constraints.items() if name != "speedup_best_dense"}
    settings = sum(len(chunk.knobs) for chunks in sweep.chunks.values() for chunk in chunks)
    designs = max(1, most // max(1, settings))
    found: list[tuple[NDArray[np.float32], ...]] = []
    drawn = 0
    for chunks in sweep.chunks.values():
        for chunk in chunks:
            grid = chunk.grid.coarse(designs) if math.prod(chunk.grid.shape) > designs else chunk.grid
            count = math.prod(grid.shape)
            each = max(1, BLOCK // count)
            for first in range(0, len(chunk.knobs), each):
                rows = chunk.rows.take(np.arange(first, min(first + each, len(chunk.knobs))))
                design = grid.block(tuple((0, n) for n in grid.shape))
                ndim = 1 + len(grid.shape)
                values = meter.measure(rows, design, (x, y, *limits), ndim)
                shape = np.broadcast_shapes(
                    (rows.stats.settings, *grid.shape), *(v.shape for v in values.values())
                )
                good = np.ones(shape, dtype=bool)
                for name, limit in limits.items():
                    if limit.high is not None:
                        good &= values[name] <= limit.high
                    if limit.low is not None:
                        good &= values[name] >= limit.low
                drawn += good.size
                found.append(
                    tuple(np.broadcast_to(values[n], shape)[good].astype(np.float32) for n in (x, y))
                )
    xs, ys = (np.concatenate([pair[i] for pair in found]) for i in (0, 1))
    return Cloud(x, y, xs, ys, space.size, drawn)
