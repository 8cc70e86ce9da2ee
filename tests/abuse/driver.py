"""`dse` with sweeps cut into many small pieces that take their time, so that a fault hits one in the middle.

`python driver.py SECONDS_PER_PIECE ARGUMENTS...`; a negative number makes the wall clock jump by years as well.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from dse.search import sweep as sweeping

# Whoever runs the tests in the background, or under nohup, hands down signals that are not heard.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

sweeping.APART_POINTS, sweeping.KEEP_POINTS, sweeping.TASK_POINTS = 0, 0, (60, 100)
SECONDS = float(sys.argv[1])


def slowly(*arguments: Any) -> Iterator[Any]:
    for done in ORIGINAL(*arguments):
        time.sleep(abs(SECONDS))
        yield done


ORIGINAL = sweeping.compute
sweeping.compute = slowly

if SECONDS < 0:
    REAL, JUMPS = time.time, iter(range(10**9))
    time.time = lambda: REAL() + 3e8 * (-1) ** next(JUMPS)

if __name__ == "__main__":
    from dse.cli import main

    sys.exit(main(sys.argv[2:]))
