"""The exhaustive sweep: every point of a space is priced, the exact front is kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dse.cost.processor import price_processor
from dse.cost.statistics import Statistics, statistics_from
from dse.cost.workload import Workload
from dse.errors import BadInput, DseError, nearest
from dse.profiles.lookup import Resolution, Selection, Source, take
from dse.profiles.profile import ACCURACY_COLUMN, Profile
from dse.profiles.schema import ACCURACY, KnobValue
from dse.search.front import nondominated
from dse.search.metrics import BaselinePrice, BestDense, Meter, Pricer, Rows
from dse.search.report import describe as describe
from dse.search.report import front_table, mean_context, summary
from dse.search.shards import (
    Chunk,
    Found,
    Goal,
    Grid,
    Identity,
    Ranges,
    cut,
    fastest_latencies,
    merge,
    search,
)
from dse.space import load_space
from dse.space.definition import DENSE, SCHEMA, Limits, Space

if TYPE_CHECKING:
    import pandas as pd

ENGINES = ("loky", "threading", "multiprocessing", "dask")
CHUNK_SETTINGS = 256
"""Settings whose profile rows are in memory at once."""

BLOCKS_PER_TASK = 8
CLASSES = 4
"""Load classes of a price, see `dse.cost.statistics`."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        space: the space, resolved.
        front: rows of ``front.csv``: the front of each algorithm, `on_front` where nothing in the whole space
            dominates the row.
        info: the content of ``run.json``.
    """

    space: Space
    front: pd.DataFrame
    info: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        # Counts and figures by their names in run.json: result.points, result.hypervolume, ...
        if not name.startswith("_") and name in self.info:
            return self.info[name]
        raise AttributeError(name)


def sweep(
    space: Space | str | Path | Mapping[str, Any],
    *,
    jobs: int = 1,
    engine: str = "loky",
    progress: Progress | None = None,
    seed: int = 0,
    command: str = "",
    pricer: Pricer | None = None,
) -> SweepResult:
    """Evaluate every point of `space` and keep its exact front.

    Args:
        space: a space, or what `dse.space.load_space` makes one of: a TOML file, a shipped name, a dict.
        jobs: parallel workers; -1 uses all cores. engine: joblib backend, see `ENGINES`.
        progress: called with (points done, points of the space).
        seed: recorded; a sweep draws no random numbers.
        command: recorded.
        pricer: stands in for `dse.cost.price.price` (same signature).

    Raises:
        BadInput: the arguments, or what the space refers to, are wrong.
        DseError: no point satisfies the constraints; the message says how far the closest is.
    """
    if engine not in ENGINES:
        raise BadInput(f"engine {engine!r}: no such engine; {nearest(engine, ENGINES)}")
    if isinstance(jobs, bool) or jobs == 0 or jobs < -1:
        raise BadInput(f"jobs: {jobs}; must be a positive number, or -1 for all cores")
    if not isinstance(space, Space):
        space = load_space(space)
    started = time.perf_counter()
    run = _Run(space, _price() if pricer is None else pricer, jobs, engine, progress)
    found = run.search()
    total = sum(f.evaluated for f in found.values())
    if not any(len(f.costs) for f in found.values()):
        raise DseError(_nothing_fits(space, found, total))
    keep_global = _on_front(found)
    front = front_table(space, run.meter, run.chunks, found, keep_global, run.identity)
    seconds = time.perf_counter() - started
    info = summary(
        space, found, front, seconds=seconds, seed=seed, command=command, baseline=run.meter.baseline
    )
    return SweepResult(space.without_profile(), front, info)


def _price() -> Pricer:
    from dse.cost.price import price

    return price


class _Run:
    """One sweep in progress."""

    def __init__(
        self, space: Space, pricer: Pricer, jobs: int, engine: str, progress: Progress | None
    ) -> None:
        w = space.workload
        self.space, self.jobs, self.engine, self.progress = space, jobs, engine, progress
        workload = Workload(phase=w.phase, context=w.context, batch=w.batch)
        self.widths = DenseWidths(space.profile, w.context)
        self.chunks = {name: list(self._chunks(name, r)) for name, r in space.resolutions.items()}
        self.goal = Goal(
            dict(space.objectives), dict(space.constraints), frozenset(space.objectives) & frozenset(ACCURACY)
        )
        self.identity = Identity(json.dumps([SCHEMA, _shared(space)], sort_keys=True))
        blank = BaselinePrice(math.nan, math.nan, math.nan, math.nan)
        meter = Meter(pricer, workload, dict(space.components), blank)
        self.meter = replace(meter, baseline=self._baseline(meter))

    def _statistics(self, selection: Selection) -> Statistics:
        shape, grouped = self.space.profile.shape, self.space.workload.grouped
        return statistics_from(selection, shape, selection.mean_context, grouped, CLASSES)

    def _chunks(self, name: str, resolution: Resolution) -> Iterator[Chunk]:
        grid = Grid(self.space.axes(name))
        for first in range(0, len(resolution.sources), CHUNK_SETTINGS):
            selection = take(resolution, first, first + CHUNK_SETTINGS)
            dense, dense_rows = None, np.zeros(len(selection.settings), dtype=np.intp)
            if name != DENSE and self.widths.rows:
                wanted = [self.widths.nearest(s.form.k_bits, s.form.v_bits) for s in selection.settings]
                unique = sorted(set(wanted))
                dense = self._statistics(self.widths.take(unique))
                dense_rows = np.array([unique.index(row) for row in wanted], dtype=np.intp)
            rows = Rows(
                self._statistics(selection),
                np.asarray(selection.accuracy, dtype=np.float64),
                dense,
                dense_rows,
                name == DENSE,
            )
            yield Chunk(name, first, tuple(s.knobs for s in selection.settings), rows, grid)

    def _baseline(self, meter: Meter) -> BaselinePrice:
        processor = self.space.baseline.processor
        if processor is not None:
            n = mean_context(self.space)
            shape, grouped = self.space.profile.shape, self.space.workload.grouped
            theirs = price_processor(processor, shape, n, meter.workload, grouped)
            return BaselinePrice(theirs.latency_s, theirs.energy_j, theirs.dram_bytes, theirs.rest_s)
        selection = self.space.baseline_rows()
        rows = Rows(
            self._statistics(selection),
            np.asarray(selection.accuracy, dtype=np.float64),
            None,
            np.zeros(1, dtype=np.intp),
            True,
        )
        design = dict(self.space.baseline.hardware)
        names = ("latency_s", "energy_j", "dram_bytes", "rest_s")
        found = meter.measure(rows, design, names, 1)
        return BaselinePrice(*(float(found[name].reshape(-1)[0]) for name in names))

    def search(self) -> dict[str, Found]:
        """Algorithm -> what its points came to; fills in the best dense points."""
        needs = "speedup_best_dense"
        dense = self.chunks.get(DENSE, [])
        if needs in self.goal.objectives or needs in self.goal.constraints:
            # The rival is the fastest dense point under all other constraints, so it has to come first.
            others = {k: v for k, v in self.goal.constraints.items() if k != needs}
            self._know_best(dense, self._fastest(dense, replace(self.goal, constraints=others)))
        tasks = [
            (chunk, group) for chunks in self.chunks.values() for chunk in chunks for group in _tasks(chunk)
        ]
        owners = {
            name: {chunk.first + i: chunk for chunk in chunks for i in range(len(chunk.knobs))}
            for name, chunks in self.chunks.items()
        }
        found = {name: Found.nothing(len(self.goal.objectives)) for name in self.chunks}
        done, size = 0, self.space.size
        arguments = [(chunk, group, self.meter, self.goal, self.identity) for chunk, group in tasks]
        for (chunk, _), part in zip(tasks, self._parallel(search, arguments), strict=True):
            name = chunk.algorithm
            found[name] = merge(found[name], part, owners[name], self.identity)
            done += part.evaluated
            if self.progress is not None:
                self.progress(done, size)
        if self.meter.best_dense is None:
            self._know_best(dense, found[DENSE].fastest if DENSE in found else {})
        return found

    def _fastest(self, chunks: list[Chunk], goal: Goal) -> dict[int, float]:
        arguments = [(chunk, group, self.meter, goal) for chunk in chunks for group in _tasks(chunk)]
        best: dict[int, float] = {}
        for part in self._parallel(fastest_latencies, arguments):
            for setting, value in part.items():
                best[setting] = min(best.get(setting, math.inf), value)
        return best

    def _know_best(self, chunks: list[Chunk], fastest: Mapping[int, float]) -> None:
        loss = ACCURACY_COLUMN["nll_increase"]
        nll = {
            chunk.first + i: float(chunk.rows.accuracy[i, loss])
            for chunk in chunks
            for i in range(len(chunk.knobs))
        }
        rows = [s for s in fastest if not math.isnan(nll[s])]
        best = BestDense.of([nll[s] for s in rows], [fastest[s] for s in rows])
        self.meter = replace(self.meter, best_dense=best)

    def _parallel(self, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> Iterator[Any]:
        """Results in the order of `arguments`."""
        if self.jobs == 1 or len(arguments) < 2:
            for given in arguments:
                yield function(*given)
            return
        from joblib import Parallel, delayed

        parallel = Parallel(n_jobs=self.jobs, backend=self.engine, return_as="generator")
        yield from parallel(delayed(function)(*given) for given in arguments)


def _tasks(chunk: Chunk) -> Iterator[list[Ranges]]:
    """The blocks of a chunk in groups that are worth sending to a worker."""
    blocks = list(cut((len(chunk.knobs), *chunk.grid.shape)))
    for start in range(0, len(blocks), BLOCKS_PER_TASK):
        yield blocks[start : start + BLOCKS_PER_TASK]


def _shared(space: Space) -> dict[str, Any]:
    w = space.workload
    return {
        "profile": w.profile_sha256,
        "phase": w.phase,
        "context": w.context,
        "batch": w.batch,
        "grouped": w.grouped,
        "components": dict(space.components),
    }


def _on_front(found: Mapping[str, Found]) -> dict[str, NDArray[np.bool_]]:
    """Algorithm -> which rows of its front nothing in the whole space dominates."""
    good = nondominated(np.concatenate([f.costs for f in found.values()]))
    ends = np.cumsum([len(f.costs) for f in found.values()])
    return dict(zip(found, np.split(good, ends[:-1]), strict=True))


def _nothing_fits(space: Space, found: Mapping[str, Found], total: int) -> str:
    broken: dict[str, int] = {}
    for f in found.values():
        for name, count in f.broken.items():
            broken[name] = broken.get(name, 0) + count
    counts = ", ".join(f"{name} by {count}" for name, count in sorted(broken.items(), key=lambda x: -x[1]))
    algorithm, nearest_one = min(found.items(), key=lambda x: x[1].closest[0])
    excess = "; ".join(_excess(n, v, space.constraints[n]) for n, v in nearest_one.closest[1].items())
    closest = f"; the closest point ({algorithm}) has {excess}" if excess else ""
    return f"space {space.name!r}: none of {total} points satisfies the constraints: {counts} points{closest}"


def _excess(name: str, value: float, limits: Limits) -> str:
    if limits.high is not None and value > limits.high:
        return f"{name} = {value:.4g}, {value - limits.high:.3g} above max {limits.high:g}"
    if limits.low is not None and value < limits.low:
        return f"{name} = {value:.4g}, {limits.low - value:.3g} below min {limits.low:g}"
    return f"{name} not defined"


class DenseWidths:
    """The measured dense settings by operand width, other knobs at their defaults.

    They answer what dense attention at a point's own widths would cost; they need not be in the space.
    """

    def __init__(self, profile: Profile, context: int) -> None:
        from dse.profiles.lookup import measured_rows

        rows = measured_rows(profile, DENSE, context) if DENSE in profile.algorithms else []
        others = {k: v for k, v in profile.defaults.get(DENSE, {}).items() if k not in ("k_bits", "v_bits")}
        usual = [r for r in rows if _agrees(profile.settings[r].knobs, others)]
        self.rows = usual or rows
        self.profile, self.context = profile, context

    def nearest(self, k_bits: int, v_bits: int) -> int:
        """The row of the narrowest setting at least this wide in K and V, else of the widest."""
        forms = {row: self.profile.settings[row].form for row in self.rows}
        wide = [row for row, f in forms.items() if f.k_bits >= k_bits and f.v_bits >= v_bits]

        def width(row: int) -> tuple[int, int, int]:
            return (forms[row].k_bits + forms[row].v_bits, forms[row].k_bits, row)

        return min(wide, key=width) if wide else max(self.rows, key=width)

    def take(self, rows: list[int]) -> Selection:
        """Profile rows by number."""
        sources = tuple(Source(self.profile.settings[row], (row,), (1.0,)) for row in rows)
        return take(Resolution(self.profile, DENSE, self.context, sources, 0))


def _agrees(knobs: Mapping[str, KnobValue], wanted: Mapping[str, KnobValue]) -> bool:
    return all(knobs.get(k) == v for k, v in wanted.items())
