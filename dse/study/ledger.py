"""Who asked for how many trials, who is working on which, and what becomes of those whose process died.

Every command enters what it asks for in the study; the sum is what all of them work towards together, so a killed
process's share is done by the others, or by the next command. Trials are numbered by the storage without gaps or
doubles: a trial goes ahead only while fewer unfailed trials than asked for precede it. Two processes that start
the last trial at once thus agree, without a lock, which of them keeps it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from dse.processes import is_dead
from dse.study.storage import RETRIES

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

ASKED: Final = "asked."
BEAT: Final = "beat."
WORKER: Final = "worker"
"""Attribute of a trial: the worker that has it, and the trial's number (a retried trial is a copy of the lost one)."""

MOST_TRIALS: Final = 1_000_000_000
"""Most trials that one command may ask for."""

GRACE: Final = 60
MOST_GRACE: Final = 86_400
"""Seconds of silence after which a trial is handed on, unless said otherwise, and at most."""

NAMELESS_SECONDS: Final = 5.0
"""Age at which a trial that nobody has put a name to is lost: between the two there is one write."""


class Surplus(Exception):
    """A trial that was started beyond what was asked for."""


def ask(study: Study, trials: int) -> str:
    """Ask for `trials` more; returns the key of the entry."""
    key = f"{ASKED}{uuid.uuid4().hex}"
    study.set_user_attr(key, trials)
    return key


def asked(study: Study) -> int:
    """Trials asked for by all commands together."""
    return sum(int(v) for k, v in study.user_attrs.items() if k.startswith(ASKED))


def withdraw(study: Study, key: str, done: int) -> None:
    """Take back what a command asked for and did not do."""
    study.set_user_attr(key, min(done, int(study.user_attrs[key])))


def completed(trials: Sequence[FrozenTrial]) -> int:
    """Completed trials."""
    return sum(t.state.name == "COMPLETE" for t in trials)


def under_way(trials: Sequence[FrozenTrial]) -> int:
    """Completed and running trials."""
    return sum(t.state.name in ("COMPLETE", "RUNNING") for t in trials)


def claim(study: Study, number: int) -> None:
    """Raise `Surplus` where the trial with this number is one too many."""
    before = sum(
        t.number < number and t.state.name not in ("FAIL", "PRUNED") for t in study.get_trials(deepcopy=False)
    )
    if before >= asked(study):
        raise Surplus


def owner(trial: FrozenTrial) -> str:
    """The worker that has a trial; empty where none has said so yet."""
    entry = trial.user_attrs.get(WORKER)
    if isinstance(entry, list) and len(entry) == 2 and entry[1] == trial.number:
        return str(entry[0])
    return ""


def own(trial: Any, worker: str) -> None:
    """Enter `worker` as the one that has a trial."""
    trial.set_user_attr(WORKER, [worker, trial.number])


class Beats:
    """A thread that counts up this worker's entry in the study, for storages that know no heartbeat.

    The count goes through the study, so others see it wherever they are; only that it changes matters, so their
    clocks need not agree.
    """

    def __init__(self, study: Study, worker: str, every: float) -> None:
        self._study, self._key, self._every = study, BEAT + worker, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        count = 0
        while not self._stop.is_set():
            with contextlib.suppress(Exception):  # the storage is gone for a moment: the next step says so
                self._study.set_user_attr(self._key, count)
            count += 1
            self._stop.wait(self._every)

    def __enter__(self) -> Beats:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


class Watch:
    """Finds running trials whose process is gone and hands them on.

    Args:
        grace: seconds without a sign of life after which a trial is lost.
        heartbeat: whether the storage itself watches trials that have an owner.
    """

    def __init__(
        self, study: Study, grace: float, heartbeat: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._study, self._grace, self._heartbeat, self._clock = study, grace, heartbeat, clock
        self._seen: dict[str, tuple[Any, float]] = {}
        self._begun = False

    def _silent(self, key: str, sign: Any, grace: float) -> bool:
        """Whether a sign of life has not changed for some time, as seen from here."""
        now = self._clock()
        last, since = self._seen.get(key, (None, now))
        if key not in self._seen or last != sign:
            self._seen[key] = (sign, now)
            return False
        return now - since > grace

    def look(self, trials: Sequence[FrozenTrial], worker: str) -> int:
        """Fail over what is lost; returns how many trials that were. Called while `worker` has no trial."""
        lost = 0
        beats = None
        first, self._begun = not self._begun, True
        for trial in trials:
            if trial.state.name != "RUNNING":
                continue
            who = owner(trial)
            if who == worker and not first:
                continue
            if who == worker:
                stale = True  # left by an earlier study of this process: this one has not begun a trial yet
            elif not who:
                stale = self._silent(f"trial {trial.number}", 0, min(NAMELESS_SECONDS, self._grace))
            elif is_dead(who):
                stale = True
            elif self._heartbeat:
                stale = False
            else:
                beats = self._study.user_attrs if beats is None else beats
                stale = self._silent(who, beats.get(BEAT + who), self._grace)
            if stale:
                lost += self._hand_on(trial)
        return lost

    def _hand_on(self, trial: FrozenTrial) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.storages import RetryHeartbeatStaleTrialCallback
        from optuna.trial import TrialState

        storage = self._study._storage
        try:
            if not storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL):
                return False
        except UpdateFinishedTrialError:
            return False  # another process was faster, or the trial was only slow and is done
        RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(self._study, storage.get_trial(trial._trial_id))
        return True
