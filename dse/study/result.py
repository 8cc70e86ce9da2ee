"""What a study found, in the form of a sweep's run: ``front.csv``, ``run.json``, and a table of its trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.errors import DseError
from dse.profiles.schema import ACCURACY as LOSSES
from dse.search.front import nondominated
from dse.search.report import (
    against_traffic,
    certain,
    conclusion,
    describe,
    hypervolumes,
    interpolation_errors,
    peak_memory_bytes,
    plain_json,
    reference_point,
    versions,
)
from dse.search.seeds import MAX_SEED
from dse.space.definition import Space
from dse.space.names import METRICS
from dse.study.axes import Layout, Point
from dse.study.evaluate import Evaluation, Outcome
from dse.study.samplers import SAMPLERS
from dse.study.work import ACCURACY, POINT, SAMPLER, Plan

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

RUN_SCHEMA = 1
KIND = "study"
"""``kind`` of such a run's ``run.json``; a sweep's has none."""

UNKNOWN = "unknown"
"""Sampler of a trial that does not say what made it."""

SAME = 1e-9
"""Largest difference, relative to a value (absolute for an accuracy, which may be zero or below), between what a trial says and what its point comes to."""


@dataclass(frozen=True)
class StudyResult:
    """What a study found so far.

    Attributes:
        space: resolved, without its profile.
        front: rows of ``front.csv``: the front of each algorithm among the trials, `on_front` where no trial
            dominates the row.
        trials: one row per completed trial, in the order of their numbers.
        info: the content of ``run.json``.
    """

    space: Space
    front: pd.DataFrame
    trials: pd.DataFrame
    info: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        # Counts and figures by their names in run.json: result.hypervolume, result.completed, ...
        if not name.startswith("_") and name in self.info:
            return self.info[name]
        raise AttributeError(name)


def result_of(
    plan: Plan,
    seen: Sequence[FrozenTrial],
    evaluation: Evaluation,
    *,
    asked: int,
    stopped: str,
    seconds: float,
    command: str,
) -> StudyResult:
    """The result of all completed trials of a study.

    Raises:
        DseError: there is none, or none satisfies the constraints.
    """
    space = plan.space
    done = sorted((t for t in seen if t.state.name == "COMPLETE"), key=lambda t: t.number)
    if not done:
        raise DseError(f"study {plan.name}: no trial is complete yet; add some with --trials")
    layout = Layout(space, plan.continuous)
    places = {t.number: layout.point(t.params, anywhere=plan.measure is not None) for t in done}
    tried, changed = prices(plan, done, places, evaluation)
    good = [t for t in tried if t.feasible]
    if not good:
        raise DseError(_nothing_fits(plan, tried))
    front = front_of(plan, good, evaluation)
    table = trial_table(plan, tried)
    about = describe(space)
    reference = reference_point(space, front)
    volumes = hypervolumes(space, front, reference)
    distinct = len(set(places.values()))
    algorithms = {}
    for name in space.algorithms:
        mine = front[front["algorithm"] == name]
        algorithms[name] = {
            **{k: v for k, v in about["algorithms"][name].items() if k != "knobs"},
            "trials": sum(t.point.algorithm == name for t in tried),
            "infeasible": sum(t.point.algorithm == name and not t.feasible for t in tried),
            "front": len(mine),
            "on_front": int(mine["on_front"].sum()),
            "hypervolume": volumes.get(name, 0.0),
        }
    base = evaluation.baseline()
    made = samplers(done)
    info: dict[str, Any] = {
        "schema": RUN_SCHEMA,
        "kind": KIND,
        "status": "complete" if len(done) >= asked else "partial",
        "space": space.name,
        "space_digest": about["digest"],
        "study": plan.name,
        "storage": str(plan.place),
        "sampler": ", ".join(dict.fromkeys(entry["sampler"] for entry in made)),
        "samplers": made,
        "continuous": plan.continuous,
        "measured": plan.measure is not None,
        "trials": len(done),
        "asked": asked,
        "failed": sum(t.state.name == "FAIL" for t in seen),
        "duplicates": len(done) - distinct,
        "interpolated": sum(t.outcome.accuracy == "interpolated" for t in tried),
        "stopped": stopped,
        "points": about["points"],
        "evaluated": distinct,
        "excluded": 0,
        "infeasible": len(done) - len(good),
        "front": int(front["on_front"].sum()),
        "distinct": int((front["on_front"] & front["distinct"]).sum()),
        "rows": len(front),
        "seconds": seconds,
        "points_per_second": distinct / seconds if seconds > 0 else 0.0,
        "peak_memory_bytes": peak_memory_bytes(),
        "hypervolume": volumes["*"],
        "reference_point": reference,
        "objectives": {k: "maximize" if up else "minimize" for k, up in plan.objectives.items()},
        "constraints": about["constraints"],
        "algorithms": algorithms,
        "baseline": {**about["baseline"], **base},
        "conclusion": without_verdict(conclusion(space, front)),
        "interpolation_error": interpolation_errors(space),
        "prompt": "dense" if space.workload.phase == "decode" else "sparse",
        "context": about["context"],
        "mean_context": about["mean_context"],
        "profile": about["profile"],
        "notes": [*about["notes"], *_several(made), *changed],
        "versions": {**versions(), "optuna": _optuna_version()},
        "seed": made[0]["seed"] if len(made) == 1 and made[0]["seed"] is not None else plan.seed,
        "command": command,
    }
    return StudyResult(space.without_profile(), front, table, plain_json(info))


def samplers(done: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """Which samplers with which seeds made trials, in the order of their first: ``sampler``, ``seed``, ``trials``.

    A trial that does not say, an older version's, is of the sampler ``unknown`` with the seed None.
    """
    counts: Counter[tuple[str, int | None]] = Counter()
    for trial in done:
        match trial.user_attrs.get(SAMPLER):
            case [str(name), int(seed)] if name in SAMPLERS and 0 <= seed <= MAX_SEED:
                counts[name, seed] += 1
            case _:
                counts[UNKNOWN, None] += 1
    return [{"sampler": name, "seed": seed, "trials": n} for (name, seed), n in counts.items()]


def _several(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must be said where no single command makes the trials of a study again."""
    if len(made) == 1:
        return []
    words = (
        f"{m['trials']} by {m['sampler']}" + ("" if m["seed"] is None else f" (seed {m['seed']})")
        for m in made
    )
    return [
        f"the trials are by several samplers or seeds: {', '.join(words)}; command and seed are the last's"
    ]


def without_verdict(told: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's conclusion as far as it holds for a study.

    A study has seen some dense points, seldom the fastest: a gain over those says nothing about sparsity. What
    does not depend on them, such as `speedup_best_dense`, stays.
    """
    budgets = [
        {
            **budget,
            "fastest": {name: {**entry, "gain": None} for name, entry in budget["fastest"].items()},
            "gain": None,
            "sparsity_pays": None,
        }
        for budget in told["budgets"]
    ]
    return {**told, "exact": False, "budgets": budgets}


def _optuna_version() -> str:
    from importlib.metadata import version

    return version("optuna")


@dataclass(frozen=True)
class Tried:
    """A completed trial and what its point comes to."""

    number: int
    point: Point
    outcome: Outcome

    @property
    def feasible(self) -> bool:
        """Whether it keeps every constraint."""
        return all(value <= 0 for value in self.outcome.constraints.values())


def prices(
    plan: Plan, done: Sequence[FrozenTrial], places: Mapping[int, Point], evaluation: Evaluation
) -> tuple[list[Tried], list[str]]:
    """Completed trials with what their points come to, and a remark where a storage says otherwise.

    The result rests on the parameters of trials alone: every point is priced again, all of them together, which takes
    less than their evaluation did. So neither a flipped bit nor a hand, nor a version of dse whose prices differed,
    puts a wrong number into a front or keeps a good point out of it. What is not noticed: values that differ by less
    than `SAME`, and another point of the space in place of the one that was tried, if its values were changed to
    match. Values that were measured on the fly are taken as they are stored.
    """
    known = evaluation.outcomes([places[t.number] for t in done])
    tried, changed = [], []
    for trial in done:
        attrs = trial.user_attrs
        stored = Outcome(
            str(attrs.get(POINT)),
            str(attrs.get(ACCURACY)),
            tuple(map(float, trial.values)),
            trial.constraints,
        )
        outcome = known.get(places[trial.number], stored)
        tried.append(Tried(trial.number, places[trial.number], outcome))
        for name, mine, theirs in zip(plan.objectives, outcome.values, stored.values, strict=True):
            if not math.isclose(mine, theirs, rel_tol=SAME, abs_tol=SAME if name in LOSSES else 0.0):
                changed.append(f"trial {trial.number}: {name} {theirs:.6g}, not {mine:.6g}")
                break
    if not changed:
        return tried, []
    told = (
        f"{plan.place}: holds other values for {len(changed)} of {len(done)} trials than their points come to "
        f"({changed[0]}): damaged, changed by hand, or of another version of dse; the front holds what they come to"
    )
    return tried, [told]


def front_of(plan: Plan, good: Sequence[Tried], evaluation: Evaluation) -> pd.DataFrame:
    """The front of each algorithm among feasible trials, with the columns of a sweep's."""
    import pandas as pd

    space = plan.space
    signs = np.array([-1.0 if up else 1.0 for up in plan.objectives.values()])
    first: dict[Point, Outcome] = {}
    for trial in good:
        first.setdefault(trial.point, trial.outcome)
    points = list(first)
    costs = np.array([first[p].values for p in points], dtype=np.float64) * signs
    names = np.array([p.algorithm for p in points])
    overall = nondominated(costs)
    rows: list[dict[str, Any]] = []
    for name in space.algorithms:
        here = np.flatnonzero(names == name)
        if not len(here):
            continue
        kept = here[nondominated(costs[here])]
        groups: dict[tuple[float, ...], list[int]] = {}
        for i in kept.tolist():
            groups.setdefault(tuple(costs[i]), []).append(i)
        chosen: list[Point] = []
        for vector in sorted(groups):
            found = [(evaluation.full_row(points[i]), points[i]) for i in groups[vector]]
            row, point = min(found, key=lambda f: (f[0]["area_mm2"], f[0]["energy_j"], f[0]["point"]))
            # The very numbers that were compared, so that dominance can be checked from the table.
            row |= {m: float(v * s) for m, v, s in zip(plan.objectives, vector, signs, strict=True)}
            row |= {"on_front": bool(overall[groups[vector][0]]), "ties": len(found) - 1}
            rows.append(row)
            chosen.append(point)
        ranges, losses = evaluation.margins(chosen)
        for i, row in enumerate(rows[-len(chosen) :]):
            row |= {column: float(values[i]) for column, values in ranges.items()} | {"_windows": losses[i]}
    front = pd.DataFrame(rows)
    front["distinct"] = certain(plan.objectives, front)
    front["dram_reduction"] = against_traffic(front)
    knobs = [f"{a}.{knob}" for a, spec in space.algorithms.items() for knob in spec.knobs]
    for column in knobs:
        if column not in front:
            front[column] = None
    head = ["point", "algorithm", "on_front", "ties", "accuracy"]
    hardware = [*(f"hardware.{n}" for n in space.hardware), "hardware.pe_count"]
    metrics = [*METRICS, "best_dense_as_accurate", "bound"]
    known = list(dict.fromkeys([*head, *knobs, *hardware, *metrics]))
    others = [c for c in front.columns if c not in known and c not in ("feasible", "_windows")]
    return front.reindex(columns=[*known, *others])


def trial_table(plan: Plan, tried: Sequence[Tried]) -> pd.DataFrame:
    """Completed trials: number, point, objectives, feasibility, and the point itself."""
    import pandas as pd

    rows = []
    first: dict[Point, int] = {}
    for t in tried:
        before = first.setdefault(t.point, t.number)
        row: dict[str, Any] = {
            "trial": t.number,
            "point": t.outcome.point,
            "algorithm": t.point.algorithm,
            "feasible": t.feasible,
            "accuracy": t.outcome.accuracy,
            "duplicate_of": None if before == t.number else before,
        }
        row |= dict(zip(plan.objectives, t.outcome.values, strict=True))
        rows.append(row | {k: v for k, v in t.point.columns().items() if k != "algorithm"})
    table = pd.DataFrame(rows)
    table["duplicate_of"] = table["duplicate_of"].astype("Int64")
    return table


def _nothing_fits(plan: Plan, tried: Sequence[Tried]) -> str:
    broken: dict[str, int] = {}
    for trial in tried:
        for name, value in trial.outcome.constraints.items():
            broken[name] = broken.get(name, 0) + (value > 0)
    counts = ", ".join(f"{n} by {c}" for n, c in sorted(broken.items(), key=lambda x: -x[1]) if c)
    closest = min(tried, key=lambda t: sum(max(0.0, v) for v in t.outcome.constraints.values()))
    excess = ", ".join(f"{n} by {v:.1%}" for n, v in closest.outcome.constraints.items() if v > 0)
    return (
        f"study {plan.name}: none of {len(tried)} trials satisfies the constraints: {counts} trials; the closest "
        f"(trial {closest.number}) misses {excess}; more trials may find some"
    )
