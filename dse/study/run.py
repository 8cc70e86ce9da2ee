"""`study`: search a space with Optuna, alone or beside other processes, from the start or where it stopped."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dse.errors import BadInput, DseError, nearest
from dse.processes import this_process
from dse.space import load_space
from dse.space.definition import Space
from dse.study.axes import Layout
from dse.study.evaluate import Evaluation
from dse.study.ledger import Beats, ask, asked, completed, owner, withdraw
from dse.study.result import StudyResult, result_of
from dse.study.samplers import CONDITIONAL, PointSampler, check_sampler
from dse.study.storage import MEMORY, Place, check_name, open_storage, quiet, read_place, unusable
from dse.study.work import Plan, Progress, Worker, load

if TYPE_CHECKING:
    import optuna
    import pandas as pd

ABOUT: Final = "dse"
"""Attribute of a study: what it searches."""

FORM: Final = 1
"""Version of what a study holds."""


@dataclass(frozen=True)
class Budget:
    """When to stop: after so many more trials, seconds, or trials that added nothing to the hypervolume."""

    trials: int = 100
    seconds: float | None = None
    flat: int | None = None

    def check(self) -> None:
        """Raise BadInput where a number makes no sense."""
        if self.trials < 0:
            raise BadInput(f"--trials {self.trials}: must be 0 or more")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise BadInput(f"--time {self.seconds}: must be a positive number of seconds")
        if self.flat is not None and self.flat < 1:
            raise BadInput(f"--flat {self.flat}: must be 1 or more")


def study(
    space: Space | str | Path | Mapping[str, Any],
    *,
    trials: int = 100,
    seconds: float | None = None,
    flat: int | None = None,
    sampler: str = "local",
    storage: str | Place = MEMORY,
    name: str = "",
    objective: str = "",
    continuous: bool = False,
    warm_start: pd.DataFrame | None = None,
    measure: Callable[..., Any] | None = None,
    jobs: int = 1,
    seed: int = 0,
    grace: int = 60,
    progress: Progress = lambda done, total: None,
    command: str = "",
) -> StudyResult:
    """Add trials to a study of a space, and return all it has found so far.

    Args:
        space: a space, or what `dse.space.load_space` makes one of.
        trials: completed trials to add. Commands on one study work off what all of them asked for together.
        seconds, flat: stop earlier after this time, or when that many trials added nothing to the hypervolume.
        sampler: of `dse.study.samplers.SAMPLERS`.
        storage: see `dse.study.storage.FORMS`.
        name: of the study in its storage; by default the space's name and the start of its digest.
        objective: seek this one of the space's objectives alone, within the constraints.
        continuous: let numeric axes take values between those listed, see `dse.study.axes`.
        warm_start: rows of a ``front.csv`` whose points are tried first.
        measure: measures settings that the profile does not hold, see `dse.study.measuring`.
        jobs: processes; more than one needs a storage that they can share.
        grace: seconds without a sign of life after which a trial is handed to another process.
        progress: called with (trials completed, trials asked for) of this command.

    Raises:
        BadInput: the arguments, or what they refer to, are wrong.
        DseError: no trial satisfied the constraints.
    """
    import optuna

    started = time.perf_counter()
    if not isinstance(space, Space):
        space = load_space(space)
    Budget(trials, seconds, flat).check()
    place = storage if isinstance(storage, Place) else read_place(storage)
    if grace < 1:
        raise BadInput(f"--grace {grace}: must be 1 second or more")
    objectives, name = check(space, objective=objective, sampler=sampler, name=name, place=place, jobs=jobs)
    plan = Plan(
        space, place, name, objectives, sampler, seed, continuous, seconds, flat, 0, grace, measure
    )  # fmt: skip
    with quiet(), ExitStack() as stack:
        opened = open_storage(place, grace)
        stack.callback(_close, opened)
        try:
            _create(opened, plan)
            found = load(plan, opened)
            if warm_start is not None:
                warm(found, plan, warm_start, trials)
            plan = replace(plan, first=completed(found.get_trials(deepcopy=False)))
            evaluation = Evaluation(plan.space, plan.objectives, plan.measure)
            stopped = _work(found, plan, evaluation, trials, jobs, progress)
            seen = found.get_trials(deepcopy=False)
            wanted = asked(found)
        except optuna.exceptions.StorageInternalError as error:
            raise unusable(place, error) from None
        except (DseError, KeyboardInterrupt):
            raise
        except Exception as error:
            if not type(error).__module__.startswith(("sqlalchemy", "grpc", "psycopg", "pg8000")):
                raise
            raise unusable(place, error) from None
    return result_of(
        plan,
        seen,
        evaluation,
        asked=wanted,
        stopped=stopped,
        seconds=time.perf_counter() - started,
        command=command,
    )


def check(
    space: Space, *, objective: str, sampler: str, name: str, place: Place | None, jobs: int
) -> tuple[dict[str, bool], str]:
    """What the study seeks and its name.

    Args:
        place: None where it will be a journal.

    Raises:
        BadInput: one of them is wrong, or they do not go together.
    """
    objectives = _objectives(space, objective)
    check_sampler(sampler, len(objectives))
    if jobs < 1:
        raise BadInput(f"--jobs {jobs}: must be 1 or more")
    if jobs > 1 and place is not None and not place.shared:
        raise BadInput("--jobs: several processes need a storage they can share; memory is not")
    return objectives, check_name(name or f"{space.name}-{space.digest()[:8]}"[-100:])


def _objectives(space: Space, only: str) -> dict[str, bool]:
    if not only:
        return dict(space.objectives)
    if only not in space.objectives:
        raise BadInput(
            f"--objective {only}: is no objective of this space; {nearest(only, space.objectives)}"
        )
    return {only: space.objectives[only]}


def _close(storage: Any) -> None:
    for method in ("remove_session", "close"):
        if hasattr(storage, method):
            getattr(storage, method)()


def _about(plan: Plan) -> dict[str, Any]:
    return {
        "form": FORM,
        "space": plan.space.digest(),
        "objectives": [[k, v] for k, v in plan.objectives.items()],
        "continuous": plan.continuous,
        "measured": plan.measure is not None,
    }


def _create(storage: optuna.storages.BaseStorage, plan: Plan) -> None:
    """Make the study, or see that the one there searches the same.

    Raises:
        BadInput: another space, other objectives, or not a study of dse.
    """
    import optuna

    about = _about(plan)
    try:
        made = optuna.create_study(
            study_name=plan.name,
            storage=storage,
            directions=["maximize" if up else "minimize" for up in plan.objectives.values()],
        )
        made.set_user_attr(ABOUT, about)
        made.set_metric_names(list(plan.objectives))
        return
    except optuna.exceptions.DuplicatedStudyError:
        there = optuna.load_study(study_name=plan.name, storage=storage)
    known = there.user_attrs.get(ABOUT)
    deadline = time.monotonic() + 5
    while known is None and not there.get_trials(deepcopy=False) and time.monotonic() < deadline:
        time.sleep(0.1)  # whoever made it is about to say what it is
        known = there.user_attrs.get(ABOUT)
    if known is None:
        raise BadInput(f"--study-name {plan.name}: there is a study of that name that dse did not make")
    words = {
        "form": "was made by another version of dse",
        "space": "searches another space",
        "objectives": "seeks other objectives",
        "continuous": "was begun with the other setting of --continuous",
        "measured": "was begun with the other setting of --measure",
    }
    for key, text in words.items():
        if known.get(key) != about[key]:
            raise BadInput(f"study {plan.name} {text}; nothing was mixed: give another --study-name")


def warm(found: optuna.Study, plan: Plan, rows: pd.DataFrame, most: int) -> int:
    """Queue the points of a front, spread evenly if there are more than `most`; returns how many.

    Raises:
        BadInput: none of them is a point of this space.
    """
    sampler = found.sampler
    assert isinstance(sampler, PointSampler)
    layout: Layout = sampler.layout
    records = [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
    points = [p for p in map(layout.params, records) if p is not None]
    if not points:
        raise BadInput("--warm-start: none of the run's points is a point of this space")
    if len(points) > most:
        points = [points[round(i * (len(points) - 1) / max(1, most - 1))] for i in range(most)]
    if plan.sampler not in CONDITIONAL:
        # Samplers without conditional parameters learn from trials that have all of them.
        first = [layout.listed(n) for n in _firsts(layout)]
        blank = {k: v for one in reversed(first) for k, v in one.items()}
        points = [blank | p for p in points]
    for point in points:
        found.enqueue_trial(point, skip_if_exists=True)
    return len(points)


def _firsts(layout: Layout) -> list[int]:
    """Number of the first point of every algorithm."""
    numbers, total = [], 0
    for size in layout.sizes.values():
        numbers.append(total)
        total += size
    return numbers


def _work(
    found: optuna.Study, plan: Plan, evaluation: Evaluation, trials: int, jobs: int, progress: Progress
) -> str:
    """Ask for the trials and do them; says why it stopped."""
    entry = ask(found, trials)
    before = {t.number for t in found.get_trials(deepcopy=False) if t.state.name == "COMPLETE"}
    me = this_process()
    mine = {me}
    stopped = "interrupted"
    processes: list[Any] = []
    try:
        with ExitStack() as stack:
            if plan.place.kind in ("journal", "grpc"):
                stack.enter_context(Beats(found, me, plan.grace / 4))
            if jobs > 1:
                processes, mine = _start(plan, jobs - 1, mine)
            stopped = Worker(plan, found, evaluation).run(progress)
    finally:
        for process in processes:
            if stopped == "interrupted":
                process.terminate()
            process.join()
        if stopped not in ("trials",):
            done = [
                t
                for t in found.get_trials(deepcopy=False)
                if t.state.name == "COMPLETE" and t.number not in before and owner(t) in mine
            ]
            withdraw(found, entry, len(done))
    return stopped


def _start(plan: Plan, count: int, mine: set[str]) -> tuple[list[Any], set[str]]:
    """Start more workers on the same study; returns them and the names of all."""
    context = multiprocessing.get_context("spawn")
    names = context.SimpleQueue()
    processes = []
    for _ in range(count):
        process = context.Process(target=_child, args=(plan, names), daemon=True)
        process.start()
        processes.append(process)
    alive: Sequence[Any] = processes
    found = set(mine)
    for process in alive:
        while names.empty() and process.is_alive():
            time.sleep(0.02)
        if not names.empty():
            found.add(names.get())
    return processes, found


def _child(plan: Plan, names: Any) -> None:
    """A worker in a process of its own; the parent has asked for its trials."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    me = this_process()
    names.put(me)
    with quiet(), ExitStack() as stack:
        storage = open_storage(plan.place, plan.grace)
        stack.callback(_close, storage)
        found = load(plan, storage)
        if plan.place.kind in ("journal", "grpc"):
            stack.enter_context(Beats(found, me, plan.grace / 4))
        Worker(plan, found, Evaluation(plan.space, plan.objectives, plan.measure)).run()
