"""One worker of a study: takes trials until enough are completed, time is up, or nothing is gained any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dse.processes import this_process
from dse.search.front import hypervolume, nondominated
from dse.space.definition import Space
from dse.study.axes import Layout, Point
from dse.study.evaluate import Evaluation, Measure, Outcome
from dse.study.ledger import (
    Surplus,
    Watch,
    asked,
    claim,
    completed,
    own,
    under_way,
)
from dse.study.local import starts
from dse.study.samplers import CONDITIONAL, PointSampler
from dse.study.storage import Place, open_storage

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

POINT: Final = "point"
ACCURACY: Final = "accuracy"
DUPLICATE: Final = "duplicate_of"
"""Attributes of a trial: the id of its point, where its accuracy is from, and the trial that had the point before."""

SAMPLER: Final = "sampler"
"""Attribute of a trial: the sampler at work when it was made, and its seed. Those of older versions have none."""

FLAT: Final = 1e-4
"""A hypervolume that grew by less than this share was flat."""

IDLE_SECONDS: Final = 0.2

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know; goes to other processes whole.

    Attributes:
        objectives: metric -> maximised?
        seconds: time budget of this command; flat: trials without gain after which it stops; None: no such limit.
        first: completed trials when the command began.
        grace: seconds after which a silent process counts as lost.
    """

    space: Space
    place: Place
    name: str
    objectives: Mapping[str, bool]
    sampler: str
    seed: int
    continuous: bool = False
    seconds: float | None = None
    flat: int | None = None
    first: int = 0
    grace: int = 60
    measure: Measure | None = None


def load(plan: Plan, storage: Any = None) -> Study:
    """The study, with the plan's sampler."""
    import optuna

    layout = Layout(plan.space, plan.continuous)
    return optuna.load_study(
        study_name=plan.name,
        storage=storage if storage is not None else open_storage(plan.place, plan.grace, create=False),
        sampler=PointSampler(plan.sampler, plan.seed, layout, starts(plan.space, layout)),
    )


class Book:
    """The completed trials by their points, kept up with the study.

    Args:
        where: parameters -> the point they stand for.
        check: raises where a trial is none of this study's.
    """

    def __init__(
        self, where: Callable[[Mapping[str, Any]], Point], check: Callable[[Sequence[FrozenTrial]], None]
    ) -> None:
        self.found: dict[Point, FrozenTrial] = {}
        self._where, self._check = where, check
        self._read: set[int] = set()

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what was completed since."""
        self._check(trials)
        for trial in trials:
            if trial.number not in self._read and trial.state.name == "COMPLETE":
                self._read.add(trial.number)
                self.found.setdefault(self._where(trial.params), trial)


class Worker:
    """Takes and completes trials of a study in this process.

    Args:
        check: raises where a trial is none of this study's.
    """

    def __init__(
        self,
        plan: Plan,
        study: Study,
        evaluation: Evaluation,
        check: Callable[[Sequence[FrozenTrial]], None],
    ) -> None:
        self.plan, self.study = plan, study
        sampler = study.sampler
        assert isinstance(sampler, PointSampler)
        self.layout = sampler.layout
        self.name = this_process()
        self.evaluation = evaluation
        self.book = Book(self.where, check)
        self.flat = plan.sampler not in CONDITIONAL
        self._size = sum(self.layout.sizes.values())
        self._ends = None if plan.seconds is None else time.monotonic() + plan.seconds

    def where(self, params: Mapping[str, Any]) -> Point:
        """The point that a trial's parameters stand for."""
        return self.layout.point(params, anywhere=self.plan.measure is not None)

    def run(self, progress: Progress = lambda done, total: None) -> str:
        """Work until there is nothing left to do; says why it stopped.

        Returns:
            ``trials``, ``time``, ``flat`` or ``exhausted`` (a grid that visited every point).
        """
        from optuna.storages._heartbeat import is_heartbeat_enabled

        heartbeat = bool(is_heartbeat_enabled(self.study._storage))
        watch = Watch(self.study, self.plan.grace, heartbeat)
        while True:
            trials = self.study.get_trials(deepcopy=False)
            if self.plan.place.shared and watch.look(trials, self.name):
                trials = self.study.get_trials(deepcopy=False)
            self.book.update(trials)
            done, wanted = completed(trials), asked(self.study)
            progress(min(done, wanted) - self.plan.first, max(0, wanted - self.plan.first))
            reason = self._reason(trials, done, wanted)
            if reason:
                return reason
            if under_way(trials) >= wanted:
                # Others have the rest; stay until it is done, in case one of them dies.
                time.sleep(IDLE_SECONDS)
                if heartbeat:
                    self._fail_stale()
                continue
            if heartbeat:
                self._fail_stale()
            self._one()

    def _one(self) -> None:
        """Take a trial and complete it, unless it was one too many, or was handed on while this process slept."""
        from optuna.storages._heartbeat import get_heartbeat_thread
        from optuna.trial import TrialState

        trial = self.study.ask()
        try:
            with get_heartbeat_thread(trial._trial_id, self.study._storage):
                values = self._objective(trial)
            self.study.tell(trial, values)
        except Surplus:
            self.study.tell(trial, state=TrialState.FAIL)
        except BaseException as error:
            with suppress(Exception):
                if isinstance(error, Exception) and self._is_over(trial):
                    return
                self.study.tell(trial, state=TrialState.FAIL)
            raise

    def _is_over(self, trial: Trial) -> bool:
        """Whether somebody else has ended a trial."""
        return bool(self.study._storage.get_trial(trial._trial_id).state.is_finished())

    def _fail_stale(self) -> None:
        from optuna.storages import fail_stale_trials

        fail_stale_trials(self.study)

    def _reason(self, trials: Sequence[FrozenTrial], done: int, wanted: int) -> str:
        if done >= wanted:
            return "trials"
        if self._ends is not None and time.monotonic() >= self._ends:
            return "time"
        if self.plan.flat is not None and done - self.plan.first >= self.plan.flat and self._is_flat(trials):
            return "flat"
        if self.plan.sampler == "grid" and len(self.book.found) >= self._size:
            return "exhausted"
        return ""

    def _is_flat(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the last trials added nothing to the hypervolume."""
        assert self.plan.flat is not None
        # By number: clocks jump.
        finished = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: t.number)
        good = [is_feasible(t) for t in finished]
        if not any(good):
            return False
        signs = np.array([-1.0 if up else 1.0 for up in self.plan.objectives.values()])
        costs = np.array([t.values for t in finished], dtype=np.float64) * signs
        before = np.arange(len(finished)) < len(finished) - self.plan.flat
        usable = np.array(good)
        front = costs[usable][nondominated(costs[usable])]
        span = np.where(
            front.max(axis=0) > front.min(axis=0), np.ptp(front, axis=0), np.abs(front).max(axis=0)
        )
        reference = (front.max(axis=0) + 0.1 * np.where(span > 0, span, 1.0)).tolist()
        now = hypervolume(costs[usable], reference)
        return now <= hypervolume(costs[usable & before], reference) * (1 + FLAT)

    def _objective(self, trial: Trial) -> tuple[float, ...]:
        own(trial, self.name)
        claim(self.study, trial.number)
        params = self.layout.suggest(trial, self.flat)
        point = self.where(params)
        known = self.book.found.get(point)
        if known is None:
            outcome = self.evaluation.outcome(point)
        else:
            trial.set_user_attr(DUPLICATE, known.number)
            about = known.user_attrs
            outcome = Outcome(about[POINT], about[ACCURACY], tuple(known.values), known.constraints)
        trial.set_user_attr(SAMPLER, [self.plan.sampler, self.plan.seed])
        trial.set_user_attr(POINT, outcome.point)
        trial.set_user_attr(ACCURACY, outcome.accuracy)
        for name, value in outcome.constraints.items():
            trial.set_constraint(name, value)
        return outcome.values


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a completed trial keeps every constraint."""
    return all(value <= 0 for value in trial.constraints.values())
