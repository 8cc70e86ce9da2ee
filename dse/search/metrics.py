"""Metrics of points: prices, accuracy, and what is derived from them against the baseline and dense attention."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.statistics import Statistics
from dse.cost.workload import Workload
from dse.profiles.profile import ACCURACY_COLUMN
from dse.profiles.schema import ACCURACY
from dse.space.names import PRICED

FloatArray = NDArray[np.float64]

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "speedup": ("latency_s",),
    "speedup_same_hardware": ("latency_s",),
    "speedup_best_dense": ("latency_s",),
    "speedup_end_to_end": ("latency_s", "rest_s"),
    "attention_share": ("latency_s", "rest_s"),
    "energy_saving": ("energy_j",),
    "dram_reduction": ("dram_bytes",),
}


class Pricer(Protocol):
    """`dse.cost.price.price`, or a stand-in with its signature."""

    def __call__(
        self,
        stats: Statistics,
        design: Mapping[str, ArrayLike],
        workload: Workload,
        metrics: Collection[str],
        overrides: Mapping[str, float] | None,
    ) -> Mapping[str, FloatArray]: ...


@dataclass(frozen=True)
class BaselinePrice:
    """What the baseline costs, once per space."""

    latency_s: float
    energy_j: float
    dram_bytes: float
    rest_s: float


@dataclass(frozen=True)
class BestDense:
    """The fastest feasible dense point for every accuracy: a staircase.

    Attributes:
        nll: [n] ascending.
        latency_s: [n], the smallest latency of a dense point with at most that `nll`.
    """

    nll: FloatArray
    latency_s: FloatArray

    @classmethod
    def of(cls, nll: ArrayLike, latency_s: ArrayLike) -> BestDense:
        """From dense points in any order; infinite latencies (infeasible) are left out."""
        x, y = np.asarray(nll, dtype=np.float64), np.asarray(latency_s, dtype=np.float64)
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        order = np.lexsort((y, x))
        return cls(x[order], np.minimum.accumulate(y[order]) if len(y) else y)

    def rival(self, nll: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Latency of the fastest dense point no less accurate than each `nll`, and whether there is one.

        Where there is none, the most accurate dense point is taken; NaN where no dense point is feasible.
        """
        if not len(self.nll):
            return np.full(nll.shape, np.nan), np.zeros(nll.shape, dtype=bool)
        at = np.searchsorted(self.nll, nll, side="right") - 1
        return self.latency_s[np.maximum(at, 0)], at >= 0


@dataclass(frozen=True)
class Rows:
    """Some knob settings of one algorithm, with all that metrics need besides the design.

    Attributes:
        stats: prices' view of S settings.
        accuracy: [S, len(ACCURACY)].
        dense: statistics of the dense settings at the settings' own widths; None for dense itself, or where
            none was measured.
        dense_rows: [S] rows of `dense`.
        is_dense: whether this is dense attention itself.
    """

    stats: Statistics
    accuracy: FloatArray
    dense: Statistics | None
    dense_rows: NDArray[np.intp]
    is_dense: bool

    def take(self, rows: NDArray[np.intp]) -> Rows:
        return Rows(
            self.stats.take(rows), self.accuracy[rows], self.dense, self.dense_rows[rows], self.is_dense
        )


@dataclass(frozen=True)
class Meter:
    """Computes metrics of rows on designs.

    Attributes:
        best_dense: None while it is not known yet (and then not asked for).
    """

    pricer: Pricer
    workload: Workload
    overrides: Mapping[str, float]
    baseline: BaselinePrice
    best_dense: BestDense | None = None

    def measure(
        self, rows: Rows, design: Mapping[str, ArrayLike], names: Iterable[str], ndim: int
    ) -> dict[str, FloatArray]:
        """Metric -> array of `ndim` axes that broadcasts to [S, ...].

        Besides `names.METRICS` it knows ``rest_s``, ``rest_energy_j``, ``bound`` (codes) and
        ``best_dense_as_accurate``.
        """
        wanted = list(dict.fromkeys(names))
        asked: set[str] = set()
        for name in wanted:
            if name in PRICED or name in ("rest_s", "rest_energy_j", "bound"):
                asked.add(name)
            asked.update(_NEEDS.get(name, ()))
        priced = self.pricer(rows.stats, design, self.workload, tuple(sorted(asked)), self.overrides)
        column = (slice(None), *(None,) * (ndim - 1))
        found: dict[str, FloatArray] = {}
        for name in wanted:
            if name in ACCURACY_COLUMN:
                values = rows.accuracy[:, ACCURACY_COLUMN[name]][column]
            elif name in priced:
                values = np.asarray(priced[name])
            else:
                values = self._derived(name, rows, design, priced, column)
            found[name] = values.reshape((1,) * (ndim - values.ndim) + values.shape)
        return found

    def _derived(
        self,
        name: str,
        rows: Rows,
        design: Mapping[str, ArrayLike],
        priced: Mapping[str, FloatArray],
        column: tuple[Any, ...],
    ) -> FloatArray:
        base = self.baseline
        if name == "speedup":
            return base.latency_s / priced["latency_s"]
        if name == "energy_saving":
            return base.energy_j / priced["energy_j"]
        if name == "dram_reduction":
            return base.dram_bytes / priced["dram_bytes"]
        if name == "attention_share":
            return priced["latency_s"] / (priced["latency_s"] + priced["rest_s"])
        if name == "speedup_end_to_end":
            return (base.latency_s + base.rest_s) / (priced["latency_s"] + priced["rest_s"])
        if name == "speedup_same_hardware":
            if rows.is_dense:
                return np.ones_like(priced["latency_s"])
            if rows.dense is None:
                return np.full_like(priced["latency_s"], np.nan)
            dense = rows.dense.take(rows.dense_rows)
            theirs = self.pricer(dense, design, self.workload, ("latency_s",), self.overrides)
            return theirs["latency_s"] / priced["latency_s"]
        assert self.best_dense is not None, name
        latency, as_accurate = self.best_dense.rival(rows.accuracy[:, ACCURACY.index("nll_increase")])
        if name == "best_dense_as_accurate":
            return np.asarray(as_accurate[column], dtype=np.float64)
        assert name == "speedup_best_dense", name
        return np.asarray(latency[column] / priced["latency_s"])
