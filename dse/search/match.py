"""Algorithms at equal accuracy: per budget each one's fastest setting, judged on text it was not chosen on.

Settings are chosen on the profile of the space: per algorithm the fastest point whose loss stays within the budget.
The best of many is flattered by the text it was chosen on, so what is reported comes from a second profile, measured
on other text: the loss with its interval, and the counts that time, energy and traffic follow from. Whether two
algorithms lose differently is judged window by window (`dse.profiles.paired`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.cost.price import BOUNDS
from dse.cost.statistics import statistics_from
from dse.errors import BadInput
from dse.hardware.parameters import PARAMETERS
from dse.profiles.lookup import Grid, Selection, select
from dse.profiles.paired import Difference, paired_difference
from dse.profiles.profile import ACCURACY_COLUMN, FloatArray, Profile, canonical, setting_key
from dse.profiles.schema import KnobValue
from dse.search.alike import groups
from dse.search.metrics import BaselinePrice, Meter, Rows
from dse.search.report import BUDGETS
from dse.search.sweep import CLASSES, SweepResult, sweep
from dse.space.definition import DENSE, AlgorithmSpec, Space

FIGURES = (
    "speedup", "speedup_end_to_end", "attention_share", "energy_saving", "dram_reduction", "latency_s", "energy_j",
    "dram_bytes", "area_mm2", "power_w",
)  # fmt: skip
"""What is priced of a chosen point, from the counts of the confirmation text."""

ORACLE = "oracle"
"""Begins the name of an algorithm, or is the value of a knob, that knows what no machine does."""

Progress = Callable[[int, int], None]
Knobs = Mapping[str, KnobValue]


@dataclass(frozen=True)
class Pick:
    """The fastest point of one algorithm within one budget, chosen on the selection text.

    Attributes:
        point: its id in a sweep of the space. design: hardware parameter -> value.
        loss: (mean, low, high) of `nll_increase` on the selection text.
    """

    budget: float
    algorithm: str
    knobs: Knobs
    design: Mapping[str, Any]
    point: str
    loss: tuple[float, float, float]

    @property
    def oracle(self) -> bool:
        """Whether it is a bound on what could be done instead of something a machine does."""
        return self.algorithm.startswith(ORACLE) or ORACLE in self.knobs.values()


@dataclass(frozen=True)
class Judged:
    """A pick with what it came to on the confirmation text.

    Attributes:
        loss: (mean, low, high) of `nll_increase` there.
        window_nll: [windows] of it.
        figures: metric of `FIGURES` -> value. bound: the resource that sets the time.
        gain: latency of dense attention's pick at the same budget over this one's; NaN where dense has none.
        alike: algorithms of the same budget whose loss cannot be told apart from this one's.
        letters: those of the groups it belongs to, see `dse.search.alike.groups`: sharing one means they cannot be told apart.
    """

    pick: Pick
    loss: tuple[float, float, float]
    window_nll: FloatArray
    figures: Mapping[str, float]
    bound: str
    gain: float = float("nan")
    alike: tuple[str, ...] = ()
    letters: str = ""

    @property
    def kept(self) -> str:
        """Whether the budget holds on the confirmation text: ``yes``, ``no``, or ``open`` within the interval."""
        _, low, high = self.loss
        if high <= self.pick.budget:
            return "yes"
        return "no" if low > self.pick.budget else "open"


@dataclass(frozen=True)
class Pair:
    """How two picks of one budget differ in loss on the confirmation text: `first` minus `second`."""

    budget: float
    first: str
    second: str
    difference: Difference


@dataclass(frozen=True)
class Match:
    """Algorithms at equal accuracy.

    Attributes:
        space: what was searched, measured settings only.
        confirmation: the profile the figures come from.
        rows: per budget, fastest first. absent: (budget, algorithm) that no setting reaches.
        pairs: every two algorithms of a budget.
        search: the sweep that chose.
    """

    space: Space
    confirmation: Profile
    budgets: tuple[float, ...]
    rows: tuple[Judged, ...]
    absent: tuple[tuple[float, str], ...]
    pairs: tuple[Pair, ...]
    search: SweepResult


def with_everything(space: Space) -> Space:
    """The space with every algorithm and every setting that its profile holds at its context."""
    context = space.workload.context
    profile = space.profile
    measured = profile.measured(context)
    names = [a for a in profile.algorithms if measured[profile.rows(a)].any()]
    order = [DENSE] * (DENSE in names) + [a for a in names if a != DENSE]
    specs = {
        a: AlgorithmSpec({k: tuple(v) for k, v in Grid(profile, a, context).values.items()}) for a in order
    }
    return replace(space, algorithms=specs)


def measured_only(space: Space) -> Space:
    """The space without interpolated settings: what is chosen has to be measured on other text as it is.

    Raises:
        BadInput: an algorithm of the space has no measured setting.
    """
    specs = {}
    for name, spec in space.algorithms.items():
        known = {k: {canonical(v) for v in values} for k, values in _values(space, name).items()}
        knobs = {k: tuple(v for v in values if canonical(v) in known[k]) for k, values in spec.knobs.items()}
        for knob, values in knobs.items():
            if not values:
                raise BadInput(
                    f"algorithms.{name}.{knob}: no measured value in the space; algorithms are matched at measured "
                    "settings only"
                )
        specs[name] = AlgorithmSpec(knobs, skip=True)
    return replace(space, algorithms=specs)


def _values(space: Space, algorithm: str) -> dict[str, list[KnobValue]]:
    return Grid(space.profile, algorithm, space.workload.context).values


def choose(
    space: Space,
    budgets: Sequence[float] = BUDGETS,
    *,
    jobs: int = 1,
    engine: str = "loky",
    progress: Progress | None = None,
    command: str = "",
) -> tuple[list[Pick], SweepResult]:
    """The fastest measured point of each algorithm within each budget, on the space's own profile.

    Returns: the picks by budget and algorithm, and the sweep they come from.

    Raises:
        BadInput: a budget is not a positive number. DseError: nothing satisfies the space's constraints.
    """
    for budget in budgets:
        if not 0 < budget < float("inf"):
            raise BadInput(f"budget {budget:g}: must be a positive loss in nats per token")
    goals = replace(measured_only(space), objectives={"speedup": True, "nll_increase": False}, reference={})
    found = sweep(goals, jobs=jobs, engine=engine, progress=progress, command=command)
    picks = []
    for budget in sorted(set(budgets)):
        within = found.front[found.front["nll_increase"] <= budget]
        for name in goals.algorithms:
            rows = within[within["algorithm"] == name]
            if len(rows):
                # Fronts are exact, so the fastest point within a budget is always one of their rows.
                best = rows.sort_values(
                    ["speedup", "nll_increase"], ascending=[False, True], kind="stable"
                ).iloc[0]
                picks.append(_pick(goals, budget, best.to_dict()))
    return picks, found


def _pick(space: Space, budget: float, row: Mapping[Any, Any]) -> Pick:
    name = str(row["algorithm"])
    loss = tuple(float(row[f"nll_increase{end}"]) for end in ("", "_low", "_high"))
    knobs = {knob: _native(row[f"{name}.{knob}"]) for knob in space.algorithms[name].knobs}
    # The profile's own values: in a table 8 may have become 8.0.
    measured = {setting_key(s.algorithm, s.knobs): s.knobs for s in space.profile.settings}
    return Pick(
        budget=budget,
        algorithm=name,
        knobs=measured[setting_key(name, knobs)],
        design={parameter: _native(row[f"hardware.{parameter}"]) for parameter in PARAMETERS},
        point=str(row["point"]),
        loss=(loss[0], loss[1], loss[2]),
    )


def _native(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def match(
    space: Space,
    confirmation: Profile,
    budgets: Sequence[float] = BUDGETS,
    *,
    jobs: int = 1,
    engine: str = "loky",
    progress: Progress | None = None,
    command: str = "",
) -> Match:
    """Choose on the space's profile, report from `confirmation`.

    Raises:
        BadInput: `confirmation` is of another model, phase or context, shares text with the space's profile, or
            lacks a chosen setting.
    """
    check_confirmation(space, confirmation)
    picks, found = choose(space, budgets, jobs=jobs, engine=engine, progress=progress, command=command)
    w = space.workload
    shared = confirmation.at_tile(w.query_tile) if w.phase == "prefill" else confirmation
    selections = _look_up(picks, shared, w.context)
    meter = _meter(space, found)
    judged = [_judge(space, meter, pick, s) for pick, s in zip(picks, selections, strict=True)]
    rows: list[Judged] = []
    pairs: list[Pair] = []
    for _, group in itertools.groupby(judged, key=lambda j: j.pick.budget):
        members = list(group)
        here = list(_pairs(members))
        pairs += here
        alike = {j.pick.algorithm: _alike(j.pick.algorithm, here) for j in members}
        together = groups(sorted(alike, key=lambda a: _loss_of(members, a)), alike)
        dense = next((j for j in members if j.pick.algorithm == DENSE), None)
        rival = dense.figures["speedup"] if dense else float("nan")
        # By speedup, not by the time of a step: batches may differ.
        for j in sorted(members, key=lambda j: -j.figures["speedup"]):
            name = j.pick.algorithm
            letters = "".join(chr(ord("a") + i) for i, group in enumerate(together) if name in group)
            gain = j.figures["speedup"] / rival
            rows.append(replace(j, gain=gain, alike=alike[name], letters=letters))
    reached = {(p.budget, p.algorithm) for p in picks}
    every = itertools.product(sorted(set(budgets)), space.algorithms)
    return Match(
        space=found.space,
        confirmation=confirmation,
        budgets=tuple(sorted(set(budgets))),
        rows=tuple(rows),
        absent=tuple(pair for pair in every if pair not in reached),
        pairs=tuple(pairs),
        search=found,
    )


def leaders(match: Match) -> list[tuple[float, Judged | None, bool]]:
    """Per budget the fastest row that is no oracle and no dense attention, None where there is none.

    With it, whether its loss can be told apart from dense attention's.
    """
    found = []
    for budget in match.budgets:
        rows = [r for r in match.rows if r.pick.budget == budget and not r.pick.oracle]
        best = next((r for r in rows if r.pick.algorithm != DENSE), None)
        found.append((budget, best, best is not None and DENSE not in best.alike))
    return found


def check_confirmation(space: Space, confirmation: Profile) -> None:
    """Raise BadInput unless `confirmation` measured the space's model on other text."""
    chosen_on, context = space.profile, space.workload.context
    where = f"confirmation profile {confirmation.name!r}"
    if confirmation.shape != chosen_on.shape or (
        confirmation.provenance.model_sha256 != chosen_on.provenance.model_sha256
    ):
        raise BadInput(f"{where}: measured another model than {chosen_on.name!r}")
    if confirmation.phase != chosen_on.phase:
        raise BadInput(f"{where}: holds {confirmation.phase}; the space asks for {chosen_on.phase}")
    if context not in confirmation.contexts:
        have = ", ".join(map(str, confirmation.contexts))
        raise BadInput(f"{where}: context {context} was not measured; it holds {have}")
    names = {*chosen_on.scales, *confirmation.scales} if chosen_on.scales and confirmation.scales else set()
    for name in sorted(names):
        if not np.array_equal(chosen_on.scales.get(name, ()), confirmation.scales.get(name, ())):
            raise BadInput(
                f"{where}: scales {name} differ from those of {chosen_on.name!r}; measure it with the same"
            )
    if confirmation.provenance.text_sha256 != chosen_on.provenance.text_sha256:
        return
    listed = [p.windows(context) for p in (chosen_on, confirmation)]
    if not all(listed):
        raise BadInput(f"{where}: does not say which windows of the same text it scored; measure it again")
    for (book, start), (other, begin) in itertools.product(*listed):
        if book == other and abs(start - begin) <= context:
            raise BadInput(
                f"{where}: shares text with {chosen_on.name!r} (tokens from {max(start, begin)} of {book!r}); measure "
                "it with --part confirmation"
            )


def _look_up(picks: Sequence[Pick], confirmation: Profile, context: int) -> list[Selection]:
    """The confirmation profile's row of every pick.

    Raises:
        BadInput: some were not measured; says how many, names the first, and the two commands.
    """
    measured = confirmation.measured(context)
    known = {
        setting_key(s.algorithm, s.knobs)
        for s, there in zip(confirmation.settings, measured, strict=True)
        if there
    }
    wanted = {setting_key(p.algorithm, p.knobs): p for p in picks}
    missing = [pick for key, pick in wanted.items() if key not in known]
    if missing:
        first = missing[0]
        knobs = ", ".join(f"{k} = {v!r}" for k, v in first.knobs.items())
        raise BadInput(
            f"confirmation profile {confirmation.name!r}: {len(missing)} of {len(wanted)} chosen settings are not in "
            f"it at context {context}, first {first.algorithm} with {knobs}; write them with --settings-only and "
            "measure them with dse profile run --grid FILE --part confirmation"
        )
    return [
        select(confirmation, p.algorithm, {k: [v] for k, v in p.knobs.items()}, context, defaults={})
        for p in picks
    ]


def _meter(space: Space, found: SweepResult) -> Meter:
    from dse.cost.price import price

    baseline = BaselinePrice.read(found.info["baseline"])
    return Meter(price, space.workload.priced(), dict(space.components), baseline)


def _judge(space: Space, meter: Meter, pick: Pick, selection: Selection) -> Judged:
    accuracy = np.asarray(selection.accuracy, dtype=np.float64)
    shape, grouped = space.profile.shape, space.workload.grouped
    stats = statistics_from(selection, shape, selection.mean_context, grouped, CLASSES)
    rows = Rows(stats, accuracy, None, np.zeros(1, dtype=np.intp), pick.algorithm == DENSE)
    found = meter.measure(rows, dict(pick.design), [*FIGURES, "bound"], 1)
    values = {name: float(np.broadcast_to(found[name], (1,))[0]) for name in found}
    mean, low, high = (accuracy[0, ACCURACY_COLUMN[f"nll_increase{end}"]] for end in ("", "_low", "_high"))
    return Judged(
        pick=pick,
        loss=(float(mean), float(low), float(high)),
        window_nll=selection.window_nll[0],
        figures={name: values[name] for name in FIGURES},
        bound=BOUNDS[int(values["bound"])],
    )


def _pairs(members: Sequence[Judged]) -> Iterator[Pair]:
    for a, b in itertools.combinations(members, 2):
        difference = paired_difference(a.window_nll, b.window_nll)
        yield Pair(a.pick.budget, a.pick.algorithm, b.pick.algorithm, difference)


def _alike(algorithm: str, pairs: Sequence[Pair]) -> tuple[str, ...]:
    same = [p for p in pairs if not p.difference.distinct and algorithm in (p.first, p.second)]
    return tuple(p.second if p.first == algorithm else p.first for p in same)


def _loss_of(members: Sequence[Judged], algorithm: str) -> float:
    return next(j.loss[0] for j in members if j.pick.algorithm == algorithm)
