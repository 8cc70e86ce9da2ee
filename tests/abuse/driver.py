"""`dse` with sweeps cut into many small pieces that take their time, so that a fault hits one in the middle.

`python driver.py SECONDS_PER_PIECE ARGUMENTS...`; a negative number makes the wall clock jump by years as well.
"""

from __future__ import annotations

import sys

import pacing

if __name__ == "__main__":  # not in its workers
    pacing.load_quietly()

from dse import results
from dse.cli import sweep as command
from dse.search import sweep as sweeping

SECONDS = float(sys.argv[1])


command._draw = pacing.undrawn
vars(sweeping).update(pacing.PIECES)
sweeping.compute = pacing.slowly(sweeping.compute, abs(SECONDS))
results.write_run = pacing.at_last(results.write_run)

if SECONDS < 0:
    pacing.jumping()

if __name__ == "__main__":
    from dse.cli import main

    pacing.answer()
    sys.exit(main(sys.argv[2:]))
