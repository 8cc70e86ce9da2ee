"""The exhaustive sweep: every point of a space is priced, the exact front is kept."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dse.cost.processor import price_processor
from dse.cost.statistics import Statistics, statistics_from
from dse.errors import DseError
from dse.profiles.lookup import Resolution, Selection, take
from dse.profiles.profile import ACCURACY_COLUMN
from dse.profiles.schema import ACCURACY
from dse.search.dense import DenseWidths
from dse.search.engine import ENGINES as ENGINES
from dse.search.engine import check_engine, compute
from dse.search.fill import FILL, overfull, with_memory
from dse.search.front import nondominated
from dse.search.hunt import Hunter, can_hunt
from dse.search.identity import Identity
from dse.search.keep import Pieces, clear, code_digest
from dse.search.metrics import BaselinePrice, BestDense, Meter, Pricer, Rows
from dse.search.nearest import closest, nothing_fits
from dse.search.report import describe as describe
from dse.search.report import front_table, mean_context, summary, versions
from dse.search.shards import Chunk, Found, Goal, Grid, merge, nearness
from dse.search.tasks import Task, belongs, do, fastest_of, groups, latencies
from dse.search.terms import Inseparable
from dse.space import load_space
from dse.space.definition import DENSE, SCHEMA, Limits, Space

if TYPE_CHECKING:
    import pandas as pd

CHUNK_SETTINGS = 256
"""Settings whose profile rows are in memory at once."""

APART_POINTS = 1 << 22
"""From this size on a price is taken apart; below, starting to costs more than it saves."""

TASK_POINTS = (1 << 24, 1 << 31)
"""Least and most points of a task whose price is taken apart."""

TASKS = 256
"""Tasks a sweep is cut into, where that keeps each within `TASK_POINTS`: what a kill loses is one of them."""

KEEP_POINTS = 1 << 20
"""From this size on finished pieces are kept on disk; below, a sweep takes seconds."""

TASK_SETTINGS = 16
SEED_DESIGNS = 200_000
FIRST = np.zeros(1, dtype=np.intp)

CLASSES = 4
"""Load classes of a price, see `dse.cost.statistics`."""

Progress = Callable[[int, int], None]
FloatArray = NDArray[np.float64]


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
    skip: bool = True,
    keep: Path | None = None,
) -> SweepResult:
    """Evaluate every point of `space` and keep its exact front.

    Args:
        space: a space, or what `dse.space.load_space` makes one of: a TOML file, a shipped name, a dict.
        jobs: parallel workers; -1 uses all cores. engine: see `dse.search.engine.ENGINES`.
        progress: called with (points done, points of the space).
        seed: recorded; a sweep draws no random numbers.
        command: recorded.
        pricer: stands in for `dse.cost.price.price` (same signature); every point is then evaluated.
        skip: leave out points that provably cannot be on the front; the result is the same without.
        keep: run directory where finished pieces are kept and, after a sweep that was killed, found again.

    Raises:
        BadInput: the arguments, or what the space refers to, are wrong.
        DseError: no point satisfies the constraints; the message says how far the closest is.
    """
    check_engine(engine, jobs)
    if not isinstance(space, Space):
        space = load_space(space)
    started = time.perf_counter()
    run = _Run(space, pricer, jobs, engine, progress, skip, keep)
    found = run.search()
    total = sum(f.evaluated + sum(f.excluded.values()) for f in found.values())
    if total != space.size:  # only kept pieces that were tampered with can bring that about
        raise DseError(
            f"{keep or 'sweep'}: the pieces come to {total} points, the space has {space.size}; --fresh starts over"
        )
    if not any(len(f.costs) for f in found.values()):
        if keep is not None:
            clear(keep)
        if run.apart:
            run.name_closest(found)
        raise DseError(nothing_fits(space, run.goal.constraints, found, total))
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
        self,
        space: Space,
        pricer: Pricer | None,
        jobs: int,
        engine: str,
        progress: Progress | None,
        skip: bool,
        keep: Path | None,
    ) -> None:
        self.space, self.jobs, self.engine, self.progress, self.skip = space, jobs, engine, progress, skip
        self.keep = keep
        self.widths = DenseWidths(space.profile, space.workload.context)
        self.identity = Identity(json.dumps([SCHEMA, _shared(space)], sort_keys=True))
        blank = BaselinePrice(math.nan, math.nan, math.nan, math.nan)
        priced = _price() if pricer is None else pricer
        meter = Meter(priced, space.workload.priced(), dict(space.components), blank)
        self.meter = replace(meter, baseline=self._baseline(meter))
        self.product = pricer is None

    @cached_property
    def chunks(self) -> dict[str, list[Chunk]]:
        """Algorithm -> its settings; a search that picks single points needs none of them."""
        return {name: list(self._chunks(name, r)) for name, r in self.space.resolutions.items()}

    @cached_property
    def goal(self) -> Goal:
        objectives = self.space.objectives
        return Goal(dict(objectives), self._limits(), frozenset(objectives) & frozenset(ACCURACY))

    @cached_property
    def apart(self) -> bool:
        """Whether prices are taken apart."""
        large = self.space.size > APART_POINTS
        return self.product and large and can_hunt(self.goal) and self._comes_apart()

    def _comes_apart(self) -> bool:
        """Whether the price of every algorithm can be taken apart (tried on its first setting)."""
        try:
            for chunks in self.chunks.values():
                grid = Grid({name: values[:2] for name, values in chunks[0].grid.axes.items()})
                Hunter(replace(chunks[0], grid=grid), self.meter, self.goal, self.identity).terms(FIRST)
        except Inseparable:
            return False
        return True

    def _limits(self) -> dict[str, Limits]:
        """The space's constraints, and that a batch fits in memory, where some point's would not."""
        known = self.space.constraints
        return with_memory(known) if FILL in known or self._overfull() else dict(known)

    def _overfull(self) -> bool:
        """Whether the batch of some point exceeds its memory, by the product's own price."""
        return self.product and any(
            overfull(chunk, self.meter) for chunk in itertools.chain(*self.chunks.values())
        )

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
            return BaselinePrice(*(getattr(theirs, f.name) for f in fields(BaselinePrice)))
        selection = self.space.baseline_rows()
        rows = Rows(
            self._statistics(selection),
            np.asarray(selection.accuracy, dtype=np.float64),
            None,
            np.zeros(1, dtype=np.intp),
            True,
        )
        design = dict(self.space.baseline.hardware)
        names = tuple(f.name for f in fields(BaselinePrice))
        found = meter.measure(rows, design, names, 1)
        return BaselinePrice(*(float(found[name].reshape(-1)[0]) for name in names))

    def search(self) -> dict[str, Found]:
        """Algorithm -> what its points came to; fills in the best dense points."""
        needs = "speedup_best_dense"
        dense = self.chunks.get(DENSE, [])
        others = replace(
            self.goal, constraints={k: v for k, v in self.goal.constraints.items() if k != needs}
        )
        if needs in self.goal.objectives or needs in self.goal.constraints:
            # The rival is the fastest dense point under all other constraints, so it has to come first.
            self._know_best(dense, self._fastest(dense, others))
        found = {name: Found.nothing(len(self.goal.objectives)) for name in self.chunks}
        owners = {
            name: {chunk.first + i: chunk for chunk in chunks for i in range(len(chunk.knobs))}
            for name, chunks in self.chunks.items()
        }
        tasks = self.tasks(self.goal)
        large = self.space.size > KEEP_POINTS
        pieces = Pieces(self.keep if large else None, self._content(len(tasks)))
        kept = {n: piece for n, piece in pieces.load().items() if n < len(tasks) and belongs(piece, tasks[n])}
        todo = [(n, task) for n, task in enumerate(tasks) if n not in kept]
        done = 0
        for number, part in itertools.chain(kept.items(), compute(do, todo, self.jobs, self.engine)):
            if number not in kept:
                pieces.save(number, part)
            name = tasks[number].chunk.algorithm
            found[name] = merge(found[name], part, owners[name], self.identity)
            done += part.evaluated + sum(part.excluded.values())
            if self.progress is not None:
                self.progress(done, self.space.size)
        if self.meter.best_dense is None:
            fastest = found[DENSE].fastest if DENSE in found else {}
            if self.apart and dense:
                fastest = self._fastest(dense, others)
            self._know_best(dense, fastest)
        return found

    def name_closest(self, found: Mapping[str, Found]) -> None:
        """Fill in the points that break the constraints least: what is left out by proof is never measured."""
        for name, chunks in self.chunks.items():
            for chunk in chunks:
                near = closest(chunk, self.meter, self.goal)
                found[name].closest = min(found[name].closest, near, key=nearness)

    def tasks(self, goal: Goal, algorithms: Collection[str] | None = None) -> list[Task]:
        """The whole sweep in pieces; they depend on the space alone."""
        tasks: list[Task] = []
        for name, chunks in self.chunks.items():
            if algorithms is not None and name not in algorithms:
                continue
            known = np.empty((0, len(goal.objectives)))
            # Seeds rule out; without skipping they only keep what cannot last from being compared.
            if self.apart and self.space.designs(name) > SEED_DESIGNS:
                known = self._seeds(chunks, goal)
            for chunk in chunks:
                tasks += self._cut(chunk, goal, known)
        return tasks

    def _cut(self, chunk: Chunk, goal: Goal, known: FloatArray) -> Iterator[Task]:
        """A chunk in pieces."""
        meter, identity = self.meter, self.identity
        if not self.apart:
            for blocks in groups(chunk):
                yield Task(chunk, meter, goal, identity, blocks)
            return
        least, most = TASK_POINTS
        most = min(max(least, self.space.size // TASKS), most)
        designs = math.prod(chunk.grid.shape)
        each = min(max(1, most // designs), TASK_SETTINGS)
        parts = max(1, -(-designs // most))
        for first in range(0, len(chunk.knobs), each):
            settings = (first, min(first + each, len(chunk.knobs)))
            for part in range(parts):
                yield Task(chunk, meter, goal, identity, None, settings, part, parts, known, self.skip)

    def _seeds(self, chunks: Sequence[Chunk], goal: Goal) -> FloatArray:
        """Costs that some designs of a coarser grid reach."""
        grid = chunks[0].grid.coarse(SEED_DESIGNS)
        costs = []
        for chunk in chunks:
            hunter = Hunter(replace(chunk, grid=grid), self.meter, goal, self.identity)
            costs.append(hunter.search(np.arange(len(chunk.knobs))).costs)
        joined = np.concatenate(costs)
        return joined[nondominated(joined)]

    def _fastest(self, chunks: list[Chunk], goal: Goal) -> dict[int, float]:
        """Setting of dense attention -> smallest latency of a feasible point, where it may be a rival's."""
        best: dict[int, float] = {}
        if self.apart and can_hunt(goal):
            goal = replace(goal, objectives={"latency_s": False, "nll_increase": False})
            tasks = self.tasks(goal, (DENSE,))
            for number, part in compute(do, list(enumerate(tasks)), self.jobs, self.engine):
                for setting, value in latencies(tasks[number], part):
                    best[setting] = min(best.get(setting, math.inf), value)
            return best
        blocks = [(chunk, group, self.meter, goal) for chunk in chunks for group in groups(chunk)]
        for _, found in compute(fastest_of, list(enumerate(blocks)), self.jobs, self.engine):
            for setting, value in found.items():
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

    def _content(self, tasks: int) -> dict[str, str]:
        """What finished pieces depend on, by the name a user would know it by."""
        return {
            "space": self.space.digest(),
            "profile": self.space.profile.checksum,
            **{name: version for name, version in versions().items() if name in ("dse", "numpy")},
            "state of dse's code": code_digest(),
            "way of cutting": f"{tasks} pieces, skipping {self.skip}",
        }


def _shared(space: Space) -> dict[str, Any]:
    workload = space.workload.plain()
    return {
        "profile": workload.pop("profile_sha256"),
        **{key: value for key, value in workload.items() if key != "profile"},
        "components": dict(space.components),
    }


def _on_front(found: Mapping[str, Found]) -> dict[str, NDArray[np.bool_]]:
    """Algorithm -> which rows of its front nothing in the whole space dominates."""
    good = nondominated(np.concatenate([f.costs for f in found.values()]))
    ends = np.cumsum([len(f.costs) for f in found.values()])
    return dict(zip(found, np.split(good, ends[:-1]), strict=True))
