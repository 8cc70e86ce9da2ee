"""`dse` with trials that take their time, so that a fault hits a study in the middle.

`python study_driver.py SECONDS_PER_TRIAL ARGUMENTS...`; workers that it starts are as slow. A negative number makes the
wall clock jump by years as well. While the command is held back, trial number LAST, and any after it, comes to no end.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pacing

if __name__ == "__main__":  # not in its workers
    pacing.load_quietly()

from dse.cli import study as command
from dse.study.work import Worker

LAST = 23
SECONDS = float(sys.argv[1])
ORIGINAL = Worker._objective


def slowly(self: Worker, trial: Any) -> tuple[float, ...]:
    values = ORIGINAL(self, trial)
    time.sleep(abs(SECONDS))
    if trial.number >= LAST:
        pacing.held()
    return values


Worker._objective = slowly  # type: ignore[method-assign]
command._draw = pacing.undrawn

if SECONDS < 0:
    from optuna.storages.journal import _storage

    pacing.jumping()
    _storage.datetime = pacing.Jumping  # type: ignore[misc]

if __name__ == "__main__":
    from dse.cli import main

    pacing.answer()
    sys.exit(main(sys.argv[2:]))
