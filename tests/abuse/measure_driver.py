"""`dse profile` whose results are taken in slowly, so that a fault hits a measurement in the middle.

`python measure_driver.py SECONDS_PER_RESULT ARGUMENTS...`; a negative number makes the wall clock jump by years as
well, and FREE before it takes the lock of the working folder away, as in studies, which share one.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from dse.measure import job as measuring
from dse.search import engine

# Whoever runs the tests in the background, or under nohup, hands down signals that are not heard.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

measuring.CALIBRATION_TEXT = "calibration.txt"  # type: ignore[misc]
FREE = sys.argv[1] == "FREE"
SECONDS, *ARGUMENTS = sys.argv[1 + FREE :]
sys.argv[1:] = ARGUMENTS  # as profiles remember it


def slowly(*arguments: Any) -> Iterator[Any]:
    for done in ORIGINAL(*arguments):
        time.sleep(abs(float(SECONDS)))
        yield done


ORIGINAL = engine.compute
engine.compute = slowly

if float(SECONDS) < 0:
    REAL, JUMPS = time.time, iter(range(10**9))
    time.time = lambda: REAL() + 3e8 * (-1) ** next(JUMPS)

if __name__ == "__main__":
    from dse.cli import main
    from dse.cli import profile as commands

    if FREE:
        commands.held = lambda *arguments: nullcontext()
    sys.exit(main(ARGUMENTS))
