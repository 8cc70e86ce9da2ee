"""What a trial's point comes to: objectives, constraints, and whether its accuracy was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.cost.price import BOUNDS, price
from dse.cost.ranges import price_range
from dse.cost.statistics import Statistics, statistics_from
from dse.errors import DseError
from dse.hardware.parameters import check_value
from dse.profiles.lookup import Grid, Resolution, Selection, Source, resolve, select
from dse.profiles.profile import Profile, setting_key
from dse.profiles.schema import KnobValue
from dse.search.evaluate import Evaluator
from dse.search.front import settled
from dse.search.metrics import BestDense
from dse.search.shards import breaks
from dse.search.sweep import CHUNK_SETTINGS, CLASSES, sweep
from dse.space.definition import DENSE, Limits, Space
from dse.study.axes import Point

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]

RIVAL: Final = "speedup_best_dense"
RIVAL_POINTS: Final = 100_000_000
"""Most dense points that a study prices to know dense attention's best; a second or so where a price comes apart."""

Measure = Callable[[str, Mapping[str, KnobValue]], Profile]
"""Measures one setting of an algorithm: a profile that holds it (see `dse.study.measuring`)."""


@dataclass(frozen=True)
class Outcome:
    """What a point came to.

    Attributes:
        point: its id, as in ``front.csv``.
        accuracy: ``measured`` or ``interpolated``.
        values: objectives in the space's order; infinitely bad where one is not defined.
        constraints: name -> violation, at most 0 where it holds.
    """

    point: str
    accuracy: str
    values: tuple[float, ...]
    constraints: Mapping[str, float]


class Evaluation:
    """Evaluates points of a space.

    Args:
        objectives: metric -> maximised?, what the study seeks.
        measure: measures what the profile does not hold; None interpolates.

    Attributes:
        done: what was evaluated one by one, by its point.
    """

    def __init__(self, space: Space, objectives: Mapping[str, bool], measure: Measure | None = None) -> None:
        self.space, self.objectives, self.measure = space, objectives, measure
        self._evaluator = Evaluator(space)
        self._grids: dict[str, Grid] = {}
        self._measured: dict[tuple[Any, ...], Evaluator] = {}
        self._best: BestDense | None = None
        self.done: dict[Point, Outcome] = {}

    def row(self, point: Point) -> dict[str, Any]:
        """Every metric of a point, by its column of ``front.csv``.

        Raises:
            BadInput: the setting cannot be had.
        """
        evaluator = self._evaluator
        if self.measure is not None and not self._known(point):
            evaluator = self._with_measured(point)
        frame: pd.DataFrame = evaluator([point.columns()])
        row = {str(k): v for k, v in frame.to_dict("records")[0].items()}
        if RIVAL in {*self.objectives, *self.space.constraints}:
            row[RIVAL] = self.against_dense(row)[0]
        return row

    def _known(self, point: Point) -> bool:
        """Whether the profile holds exactly this setting."""
        if point.algorithm not in self._grids:
            self._grids[point.algorithm] = Grid(
                self.space.profile, point.algorithm, self.space.workload.context
            )
        return setting_key(point.algorithm, point.knobs) in self._grids[point.algorithm].by_key

    def _with_measured(self, point: Point) -> Evaluator:
        assert self.measure is not None
        key = setting_key(point.algorithm, point.knobs)
        if key not in self._measured:
            profile = self.measure(point.algorithm, point.knobs)
            self._measured[key] = Evaluator(replace(self.space, table=profile))
        return self._measured[key]

    def against_dense(self, row: Mapping[str, Any]) -> tuple[float, bool]:
        """`speedup_best_dense` of a row and whether some dense point is as accurate; NaN where none is feasible."""
        if self._best is None:
            self._best = best_dense(self.space)
        pace, as_accurate = self._best.rival(np.array([row["nll_increase"]]))
        mine = row["latency_s"] / (row["batch"] if self.space.workload.by_sequence else 1.0)
        return float(pace[0] / mine), bool(as_accurate[0])

    def baseline(self) -> dict[str, float]:
        """What the baseline costs: ``latency_s``, ``energy_j``, ``dram_bytes``, ``rest_s``."""
        return dict(self._evaluator._run.meter.baseline.__dict__)

    def _selected(self, point: Point) -> Selection:
        """What was measured of a point's setting, or interpolated."""
        table = self.space.profile
        if self.measure is not None and not self._known(point):
            table = self._with_measured(point).space.profile
        knobs = {k: [v] for k, v in point.knobs.items()}
        return select(table, point.algorithm, knobs, self.space.workload.context, defaults={})

    def _statistics(self, selection: Selection) -> Statistics:
        shape, grouped = self.space.profile.shape, self.space.workload.grouped
        return statistics_from(selection, shape, selection.mean_context, grouped, CLASSES)

    def _design(self, point: Point) -> dict[str, Any]:
        return {n: v[0] for n, v in self.space.axes(point.algorithm).items()} | dict(point.hardware)

    def margins(self, points: Sequence[Point]) -> tuple[dict[str, FloatArray], FloatArray]:
        """How far points of one algorithm may be off, as in a sweep: an interpolated setting's counts, and its losses
        window by window, are taken as they were interpolated.

        Returns:
            Columns such as ``latency_s_low``, [points] each: what the ranges of components leave of prices; and
            [points, windows] mean loss per window, nats per token.
        """
        space = self.space
        ranges: list[dict[str, FloatArray]] = []
        losses: list[FloatArray] = []
        for first in range(0, len(points), CHUNK_SETTINGS):
            part = points[first : first + CHUNK_SETTINGS]
            settings = _together([self._selected(p) for p in part])
            designs = [self._design(p) for p in part]
            design = {n: np.array([d[n] for d in designs]) for n in designs[0]}
            stats = self._statistics(settings)
            ranges.append(price_range(stats, design, space.workload.priced(), dict(space.components)))
            losses.append(np.asarray(settings.window_nll, dtype=np.float64))
        return {n: np.concatenate([r[n] for r in ranges]) for n in ranges[0]}, np.concatenate(losses)

    def full_row(self, point: Point) -> dict[str, Any]:
        """A row of ``front.csv`` but for `margins`, and for what depends on other rows."""
        space, design = self.space, self._design(point)
        stats = self._statistics(self._selected(point))
        found = price(stats, design, space.workload.priced(), ("bound",), dict(space.components))
        row = self.row(point)
        rival, as_accurate = self.against_dense(row)
        pe_count = int(design["lanes"]) * int(design["multipliers"])
        return {
            **row,
            **{f"{point.algorithm}.{k}": v for k, v in point.knobs.items()},
            **{f"hardware.{k}": v for k, v in design.items()},
            "hardware.pe_count": pe_count,
            "bound": BOUNDS[int(np.asarray(found["bound"]).reshape(-1)[0])],
            RIVAL: rival,
            "best_dense_as_accurate": as_accurate,
        }

    def outcome(self, point: Point) -> Outcome:
        """Objectives and constraints of a point."""
        found = self._outcome(self.row(point))
        self.done[point] = found
        return found

    def outcomes(self, points: Sequence[Point]) -> dict[Point, Outcome]:
        """`outcome` of many points, priced together: what the profile knows takes next to no time.

        What this object has evaluated already is not evaluated again. Points that were measured on the fly and are not
        in the profile are left out.

        Raises:
            BadInput: a point cannot be had.
        """
        found = {p: self.done[p] for p in points if p in self.done}
        for name in self.space.algorithms:
            left = [p for p in dict.fromkeys(points) if p.algorithm == name and p not in found]
            if self.measure is not None:
                left = [p for p in left if self._known(p)]
            if left:
                rows = self._rows(name, left)
                found |= {p: self._outcome(row) for p, row in zip(left, rows, strict=True)}
        return found

    def _rows(self, name: str, points: Sequence[Point]) -> list[dict[str, Any]]:
        """`row` of points of one algorithm, as far as `_outcome` needs it."""
        space, run = self.space, self._evaluator._run
        needed = {*self.objectives, *self._evaluator.limits} - {RIVAL}
        if RIVAL in {*self.objectives, *space.constraints}:
            needed |= {"latency_s", "batch", "nll_increase"}
        axes = {n: values[0] for n, values in space.axes(name).items()}
        designs = [{**axes, **{n: check_value(name, n, v) for n, v in p.hardware.items()}} for p in points]
        keys = [setting_key(name, p.knobs) for p in points]
        distinct = dict(zip(keys, points, strict=True))
        sources: list[Source] = []
        for point in distinct.values():
            one = {k: [v] for k, v in point.knobs.items()}
            sources += resolve(space.profile, name, one, space.workload.context, defaults={}).sources
        numbers = {key: n for n, key in enumerate(distinct)}
        setting = np.array([numbers[key] for key in keys], dtype=np.intp)
        rows: list[dict[str, Any]] = [{} for _ in points]
        for chunk in run._chunks(
            name, Resolution(space.profile, name, space.workload.context, tuple(sources), 0)
        ):
            here = np.flatnonzero((setting >= chunk.first) & (setting < chunk.first + len(chunk.knobs)))
            design = {n: np.array([designs[i][n] for i in here.tolist()]) for n in axes}
            measured = run.meter.measure(
                chunk.rows.take(setting[here] - chunk.first), design, sorted(needed), 1
            )
            columns = {
                m: np.broadcast_to(np.asarray(v, dtype=np.float64), here.shape) for m, v in measured.items()
            }
            for at, i in enumerate(here.tolist()):
                rows[i] = {m: float(v[at]) for m, v in columns.items()}
                rows[i]["point"] = run.identity(name, points[i].knobs, designs[i])
                rows[i]["accuracy"] = sources[int(setting[i])].status
                if RIVAL in {*self.objectives, *space.constraints}:
                    rows[i][RIVAL] = self.against_dense(rows[i])[0]
        return rows

    def _outcome(self, row: Mapping[str, Any]) -> Outcome:
        values, broken = [], {}
        for name, up in self.objectives.items():
            value = float(settled(np.asarray(row[name])))
            if not math.isfinite(value):
                broken[f"{name} is defined"] = 1.0
                value = -math.inf if up else math.inf
            values.append(value)
        limits = {name: violation(float(row[name]), x) for name, x in self._evaluator.limits.items()}
        return Outcome(row["point"], row["accuracy"], tuple(values), limits | broken)


def _together(selections: Sequence[Selection]) -> Selection:
    """Rows of selections of one algorithm at one context as one."""

    def rows(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in selections])

    return replace(
        selections[0],
        settings=tuple(s for one in selections for s in one.settings),
        counters=rows("counters"),
        histograms=rows("histograms"),
        accuracy=rows("accuracy"),
        window_nll=rows("window_nll"),
        status=rows("status"),
    )


def violation(value: float, limits: Limits) -> float:
    """How far a metric is beyond its limits, relative to the limit; 0 or less where it keeps them."""
    if math.isnan(value):
        return 1.0
    excess = [
        sign * (value - limit) / max(abs(limit), 1e-12)
        for limit, sign in ((limits.low, -1.0), (limits.high, 1.0))
        if limit is not None
    ]
    worst = min(max(excess, default=-1.0), 1e300)
    return max(worst, 1e-300) if breaks(value, limits) else min(worst, 0.0)


def best_dense(space: Space) -> BestDense:
    """The fastest feasible dense point for every accuracy, from a sweep of dense attention alone.

    Nothing (and then no such speedup) where the space has no dense attention, none is feasible, or there are more
    than `RIVAL_POINTS` of it.
    """
    if DENSE not in space.algorithms:
        return BestDense.of([], [])
    alone = replace(
        space,
        algorithms={DENSE: space.algorithms[DENSE]},
        hardware_for={k: v for k, v in space.hardware_for.items() if k == DENSE},
        objectives={"speedup": True, "nll_increase": False},
        reference={},
        constraints={k: v for k, v in space.constraints.items() if k != RIVAL},
    )
    if alone.size > RIVAL_POINTS:
        return BestDense.of([], [])
    try:
        front = sweep(alone).front
    except DseError:  # no dense point is feasible
        return BestDense.of([], [])
    seconds = front["latency_s"].to_numpy()
    # Where each point takes the batch that fits, a step of a larger one is longer and yet no slower.
    pace = seconds / front["batch"].to_numpy() if space.workload.by_sequence else seconds
    return BestDense.of(front["nll_increase"].to_numpy(), pace)
