"""`study`: search a space with Optuna, alone or beside other processes, from the start or where it stopped."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.errors import BadInput, DseError, nearest
from dse.processes import end_with, this_process, unhurried
from dse.search.seeds import MAX_SEED
from dse.space import load_space
from dse.space.definition import Space
from dse.study.axes import Layout
from dse.study.begin import Inspector, create, front_points
from dse.study.evaluate import Evaluation
from dse.study.ledger import GRACE, MOST_GRACE, MOST_TRIALS, Beats, ask, asked, completed, owner, withdraw
from dse.study.result import StudyResult, result_of
from dse.study.samplers import check_sampler
from dse.study.storage import (
    MEMORY,
    Place,
    Remark,
    check_name,
    is_storages,
    open_storage,
    quiet,
    read_place,
    silent,
    unusable,
)
from dse.study.work import Plan, Progress, Worker, load

if TYPE_CHECKING:
    import optuna
    import pandas as pd


@dataclass(frozen=True)
class Budget:
    """When to stop: after so many more trials, seconds, or trials that added nothing to the hypervolume."""

    trials: int = 100
    seconds: float | None = None
    flat: int | None = None

    def check(self) -> None:
        """Raise BadInput where a number makes no sense."""
        if not 0 <= self.trials <= MOST_TRIALS:
            raise BadInput(f"--trials {str(self.trials)[:40]}: must be 0 to {MOST_TRIALS}")
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
    grace: int = GRACE,
    progress: Progress = lambda done, total: None,
    command: str = "",
    remark: Remark = silent,
    settle: Callable[[], object] = lambda: None,
) -> StudyResult:
    """Add trials to a study of a space, and return all it has found so far.

    With one process, the same space, sampler, seed and versions give the same trials and the same front, whatever the
    storage. A study continued by a second command has the trials of one that was asked for all of them at once,
    except with ``gp`` and ``cmaes``, whose random state ends with their process, and with ``flat`` or ``seconds``.

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
        remark: told what was mended, and which worker failed.
        settle: called when the trials are done, before they are read for the result; a process that shares the place
            it writes to can wait here for its turn, so that who writes last has all of them.

    Raises:
        BadInput: the arguments, or what they refer to, are wrong.
        DseError: no trial satisfied the constraints.
    """
    started = time.perf_counter()
    if not isinstance(space, Space):
        space = load_space(space)
    Budget(trials, seconds, flat).check()
    place = storage if isinstance(storage, Place) else read_place(storage)
    objectives, name = check(
        space, objective=objective, sampler=sampler, name=name, place=place, jobs=jobs, seed=seed, grace=grace
    )
    queued = [] if warm_start is None else front_points(space, continuous, sampler, warm_start, trials)
    plan = Plan(
        space, place, name, objectives, sampler, seed, continuous, seconds, flat, 0, grace, measure
    )  # fmt: skip
    with quiet(), ExitStack() as stack:
        opened = open_storage(place, grace, remark)
        stack.callback(_close, opened)
        try:
            create(opened, plan)
            found = load(plan, opened)
            look = Inspector(space, Layout(space, continuous), len(objectives), place).look
            look(found.get_trials(deepcopy=False))
            for point in queued:
                found.enqueue_trial(point, skip_if_exists=True)
            plan = replace(plan, first=completed(found.get_trials(deepcopy=False)))
            evaluation = Evaluation(plan.space, plan.objectives, plan.measure)
            crew = Crew(plan, found, jobs, remark)
            stopped = _work(crew, Worker(plan, found, evaluation, look), trials, progress)
            settle()
            seen = found.get_trials(deepcopy=False)
            look(seen)
            wanted = asked(found)
        except (DseError, KeyboardInterrupt, OSError):
            raise
        except Exception as error:
            if is_storages(error):
                raise unusable(place, error) from (None if place.secrets else error)
            raise
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
    space: Space,
    *,
    objective: str,
    sampler: str,
    name: str,
    place: Place | None,
    jobs: int,
    seed: int = 0,
    grace: int = GRACE,
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
    if not 0 <= seed <= MAX_SEED:
        raise BadInput(f"--seed {str(seed)[:40]}: must be 0 to {MAX_SEED}")
    if not 1 <= grace <= MOST_GRACE:
        raise BadInput(f"--grace {str(grace)[:40]}: must be 1 to {MOST_GRACE} seconds")
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


class Crew:
    """The processes that do a command's trials: this one, and those it starts.

    Args:
        jobs: how many, this one included.
        remark: told which of them failed, and why.
    """

    def __init__(self, plan: Plan, study: optuna.Study, jobs: int, remark: Remark) -> None:
        self.plan, self.study, self.jobs, self._remark = plan, study, jobs, remark
        self.names = {this_process()}
        self._processes: list[Any] = []
        self._told: Any = None

    def start(self) -> None:
        """Start the others and wait until each has said its name."""
        context = multiprocessing.get_context("spawn")
        self._told = context.SimpleQueue()
        wanted = min(self.jobs, max(1, asked(self.study) - self.plan.first)) - 1
        with unhurried():  # a worker that is still starting has no handler for Ctrl-C yet
            for _ in range(wanted):
                process = context.Process(
                    target=_child, args=(self.plan, self._told, os.getpid()), daemon=True
                )
                self._processes.append(process)
                process.start()
        while len(self.names) <= wanted and any(p.is_alive() for p in self._processes):
            self._listen()
            time.sleep(0.02)

    def _listen(self) -> None:
        while not self._told.empty():
            kind, text = self._told.get()
            if kind == "name":
                self.names.add(text)
            else:
                self._remark(f"a worker process ended early: {text}; the others did its trials")

    def end(self, stop: bool) -> None:
        """Wait for the others to end.

        Args:
            stop: end them, whatever they are doing.
        """
        for process in self._processes:
            if stop and process.pid is not None:
                process.terminate()
        for process in self._processes:
            if process.pid is not None:
                process.join()
        if self._told is not None and not stop:
            self._listen()
            killed = [p for p in self._processes if (p.exitcode or 0) < 0]
            if killed:
                self._remark(
                    f"{len(killed)} of {len(self._processes) + 1} processes were killed (by signal "
                    f"{-killed[0].exitcode}); the others did their trials"
                )


def _work(crew: Crew, worker: Worker, trials: int, progress: Progress) -> str:
    """Ask for the trials and do them; says why it stopped."""
    found, plan = crew.study, crew.plan
    entry = ask(found, trials)
    before = {t.number for t in found.get_trials(deepcopy=False) if t.state.name == "COMPLETE"}
    stopped = ""
    try:
        with ExitStack() as stack:
            if plan.place.kind in ("journal", "grpc"):
                stack.enter_context(Beats(found, this_process(), plan.grace / 4))
            if crew.jobs > 1:
                crew.start()
            stopped = worker.run(progress)
    finally:
        crew.end(stop=not stopped)
        if stopped != "trials":
            # An error on the way here is what the user is told, not that this fails for the same reason.
            with suppress(Exception) if not stopped else nullcontext():
                if not stopped and plan.place.kind == "journal":
                    found = load(plan)  # an interruption may have come while a line was taken in
                done = [
                    t
                    for t in found.get_trials(deepcopy=False)
                    if t.state.name == "COMPLETE" and t.number not in before and owner(t) in crew.names
                ]
                withdraw(found, entry, len(done))
    return stopped


def _child(plan: Plan, told: Any, parent: int) -> None:
    """A worker in a process of its own; the parent has asked for its trials, and it ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(parent)
    me = this_process()
    told.put(("name", me))
    try:
        with quiet(), ExitStack() as stack:
            storage = open_storage(plan.place, plan.grace, create=False)
            stack.callback(_close, storage)
            found = load(plan, storage)
            if plan.place.kind in ("journal", "grpc"):
                stack.enter_context(Beats(found, me, plan.grace / 4))
            look = Inspector(
                plan.space, Layout(plan.space, plan.continuous), len(plan.objectives), plan.place
            ).look
            Worker(plan, found, Evaluation(plan.space, plan.objectives, plan.measure), look).run()
    except Exception as error:
        told.put(("error", _said(plan.place, error)))


def _said(place: Place, error: Exception) -> str:
    """An error of a worker as one line; only one of the storage's is told as such."""
    if isinstance(error, DseError):
        return str(error)
    if is_storages(error):
        return str(unusable(place, error))
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
