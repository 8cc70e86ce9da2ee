"""Metrics of points: prices, accuracy, and what is derived from them against the baseline and dense attention."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.statistics import Statistics
from dse.cost.workload import LARGEST, Workload
from dse.profiles.profile import ACCURACY_COLUMN
from dse.profiles.schema import ACCURACY
from dse.space.names import PRICED

FloatArray = NDArray[np.float64]

PACE = "pace_s"
"""Seconds of a step; where the batch is as large as fits, per sequence: what speedups are ratios of."""

MODEL = ("attention_s", "rest_s")

_NEEDS: Mapping[str, tuple[str, ...]] = {
    PACE: ("latency_s",),
    "speedup": ("latency_s",),
    "speedup_same_hardware": ("latency_s",),
    "speedup_best_dense": ("latency_s",),
    "speedup_end_to_end": MODEL,
    "attention_share": MODEL,
    "energy_saving": ("energy_j",),
    "dram_reduction": ("dram_bytes",),
}

_PER_SEQUENCE = (*(n for n in _NEEDS if n != "attention_share"),)
"""Metrics that compare batches, so that they go by the sequence where batches differ."""


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
    """What the baseline costs, once per space.

    Attributes:
        attention_s: None where `latency_s` is attention's alone.
        batch: sequences of its step.
    """

    latency_s: float
    energy_j: float
    dram_bytes: float
    rest_s: float
    attention_s: float | None = None
    batch: float = 1.0

    @property
    def model_s(self) -> float:
        """Seconds of the whole model, in either scope."""
        return (self.latency_s if self.attention_s is None else self.attention_s) + self.rest_s

    @classmethod
    def read(cls, info: Mapping[str, Any]) -> BaselinePrice:
        """From the table ``baseline`` of a run's ``run.json``, older ones too."""
        return cls(**{f.name: info[f.name] for f in fields(cls) if f.name in info})


@dataclass(frozen=True)
class BestDense:
    """The fastest feasible dense point for every accuracy: a staircase.

    Attributes:
        nll: [n] ascending.
        latency_s: [n], the smallest latency (`PACE`) of a dense point with at most that `nll`.
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

    @property
    def apart(self) -> bool:
        """Whether batches differ from point to point, and so do their steps."""
        return self.workload.batch == LARGEST

    def measure(
        self, rows: Rows, design: Mapping[str, ArrayLike], names: Iterable[str], ndim: int
    ) -> dict[str, FloatArray]:
        """Metric -> array of `ndim` axes that broadcasts to [S, ...].

        Besides `names.METRICS` it knows `PACE`, ``bound`` (codes) and ``best_dense_as_accurate``.
        """
        wanted = list(dict.fromkeys(names))
        asked: set[str] = set()
        for name in wanted:
            if name in PRICED or name == "bound":
                asked.add(name)
            asked.update(_NEEDS.get(name, ()))
            if self.apart and name in _PER_SEQUENCE:
                asked.add("batch")
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
        if name == "attention_share":
            return priced["attention_s"] / (priced["attention_s"] + priced["rest_s"])
        mine = priced["batch"] if self.apart and "batch" in priced else 1.0
        ours = base.batch if self.apart else 1.0
        if name == PACE:
            return _each(priced["latency_s"], mine)
        if name == "speedup":
            return base.latency_s / ours / _each(priced["latency_s"], mine)
        if name == "energy_saving":
            return base.energy_j / ours / _each(priced["energy_j"], mine)
        if name == "dram_reduction":
            with np.errstate(
                divide="ignore", invalid="ignore"
            ):  # keys and values in the buffers move nothing
                return np.asarray(base.dram_bytes / ours / _each(priced["dram_bytes"], mine))
        if name == "speedup_end_to_end":
            return base.model_s / ours / _each(priced["attention_s"] + priced["rest_s"], mine)
        if name == "speedup_same_hardware":
            if rows.is_dense:
                return np.ones_like(priced["latency_s"])
            if rows.dense is None:
                return np.full_like(priced["latency_s"], np.nan)
            dense = rows.dense.take(rows.dense_rows)
            asked = ("latency_s", "batch") if self.apart else ("latency_s",)
            theirs = self.pricer(dense, design, self.workload, asked, self.overrides)
            rival = _each(theirs["latency_s"], theirs["batch"] if self.apart else 1.0)
            return rival / _each(priced["latency_s"], mine)
        assert self.best_dense is not None, name
        latency, as_accurate = self.best_dense.rival(rows.accuracy[:, ACCURACY.index("nll_increase")])
        if name == "best_dense_as_accurate":
            return np.asarray(as_accurate[column], dtype=np.float64)
        assert name == "speedup_best_dense", name
        return np.asarray(latency[column] / _each(priced["latency_s"], mine))


def _each(values: FloatArray, batch: FloatArray | float) -> FloatArray:
    """Per sequence; with a batch of 1.0 the values themselves, to the last bit."""
    return values if isinstance(batch, float) and batch == 1.0 else np.asarray(values / batch)
