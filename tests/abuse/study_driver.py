"""`dse` with trials that take their time, so that a fault hits a study in the middle.

`python study_driver.py SECONDS_PER_TRIAL ARGUMENTS...`; workers that it starts are as slow.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

from dse.cli import study as command
from dse.results import Run
from dse.study.work import Worker

# Whoever runs the tests in the background, or under nohup, hands down signals that are not heard.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

SECONDS = float(sys.argv[1])
ORIGINAL = Worker._objective


def slowly(self: Worker, trial: Any) -> tuple[float, ...]:
    values = ORIGINAL(self, trial)
    time.sleep(SECONDS)
    return values


def undrawn(run: Run) -> None:
    """Stands for the chart, which takes longer than all the rest."""
    (run.directory / "front.png").write_bytes(b"drawn")


Worker._objective = slowly  # type: ignore[method-assign]
command._draw = undrawn

if __name__ == "__main__":
    from dse.cli import main

    sys.exit(main(sys.argv[2:]))
