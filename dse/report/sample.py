"""Points of a run's space chosen at random and priced again: what its front was chosen from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from dse.results import Run
    from dse.search.metrics import Meter
    from dse.search.shards import Chunk
    from dse.space import Space

BLOCK: Final = 4096
"""Points priced at once."""

SETTING: Final = "setting"
"""Column that numbers the knob settings, from which all knobs and accuracies follow."""

_RIVAL: Final = "speedup_best_dense"
"""Known only after a sweep of all dense points."""


@dataclass(frozen=True)
class Sample:
    """Random points of a space.

    Attributes:
        points: those that satisfy the constraints, columns as in ``front.csv`` (no ids, no `speedup_best_dense`), and `SETTING`.
        priced: how many were chosen. total: points of the space.
    """

    points: pd.DataFrame
    priced: int
    total: int


def sample(run: Run, space: Space, count: int, seed: int = 0) -> Sample:
    """Choose points of a run's space, each as likely as any other, and price them.

    Args:
        run: its ``run.json`` names the baseline that ratios refer to.
        space: the same space with its profile.
        count: how many; all of a smaller space.
    """
    import pandas as pd

    from dse.cost.price import price
    from dse.search.metrics import BaselinePrice
    from dse.search.sweep import _Run

    sweep = _Run(space, None, 1, "sequential", None, True, None)
    meter: Meter = replace(sweep.meter, pricer=price, baseline=BaselinePrice.read(run.info["baseline"]))
    chunks = [chunk for found in sweep.chunks.values() for chunk in found]
    sizes = [len(chunk.knobs) * math.prod(chunk.grid.shape) for chunk in chunks]
    total = sum(sizes)
    chosen = np.sort(
        np.random.default_rng(seed).choice(total, min(count, total), replace=False, shuffle=False)
    )
    tables = []
    start = settings = 0
    for chunk, size in zip(chunks, sizes, strict=True):
        low, high = np.searchsorted(chosen, (start, start + size))
        for first in range(int(low), int(high), BLOCK):
            table = _priced(chunk, meter, chosen[first : min(first + BLOCK, int(high))] - start)
            table[SETTING] += settings
            tables.append(table)
        start, settings = start + size, settings + len(chunk.knobs)
    points = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Sample(_within(points, sweep.goal.constraints), len(chosen), total)


def _priced(chunk: Chunk, meter: Meter, at: NDArray[np.int64]) -> pd.DataFrame:
    """Points of a chunk by number: setting after setting, in each all designs."""
    import pandas as pd

    from dse.cost.price import BOUNDS
    from dse.space.names import METRICS

    setting, design = np.divmod(at, math.prod(chunk.grid.shape))
    hardware = chunk.grid.rows(design)
    names = [*(name for name in METRICS if name != _RIVAL), "bound"]
    found = meter.measure(chunk.rows.take(setting), hardware, names, 1)
    table: dict[str, Any] = {"algorithm": chunk.algorithm, SETTING: setting}
    for knob in chunk.knobs[0]:
        table[f"{chunk.algorithm}.{knob}"] = [chunk.knobs[s][knob] for s in setting.tolist()]
    table |= {f"hardware.{name}": value for name, value in hardware.items()}
    table["hardware.pe_count"] = np.asarray(hardware["lanes"]) * np.asarray(hardware["multipliers"])
    table |= {name: np.broadcast_to(values, at.shape) for name, values in found.items()}
    table["bound"] = [BOUNDS[int(code)] for code in table["bound"]]
    return pd.DataFrame(table, index=range(len(at)))


def _within(points: pd.DataFrame, constraints: Mapping[str, Any]) -> pd.DataFrame:
    """The points that satisfy the constraints, as far as a single point can tell."""
    good = np.ones(len(points), dtype=bool)
    for name, limits in constraints.items():
        if name in points:
            values = points[name].to_numpy(dtype=float)
            good &= values <= (math.inf if limits.high is None else limits.high)
            good &= values >= (-math.inf if limits.low is None else limits.low)
    return points[good].reset_index(drop=True)
