"""`dse profile` whose results are taken in slowly, so that a fault hits a measurement in the middle.

`python measure_driver.py SECONDS_PER_RESULT ARGUMENTS...`; a negative number makes the wall clock jump by years as
well, and FREE before it takes the lock of the working folder away, as in studies, which share one.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

import pacing

if __name__ == "__main__":  # not in its workers
    pacing.load_quietly()

from dse.measure import job as measuring
from dse.measure import probe as probing
from dse.measure import run as measured
from dse.search import engine

measuring.CALIBRATION_TEXT = "calibration.txt"  # type: ignore[misc]
SETTINGS = 12
"""Of the grid that the lab measures."""
FREE = sys.argv[1] == "FREE"
WORD, *ARGUMENTS = sys.argv[1 + FREE :]
sys.argv[1:] = ARGUMENTS  # as profiles remember it

engine.compute = pacing.slowly(engine.compute, abs(float(WORD)))
measured.pack = pacing.at_last(measured.pack)
probing.write_probes = pacing.at_last(probing.write_probes, lambda path, table: len(table.rows) == SETTINGS)

if float(WORD) < 0:
    pacing.jumping()

if __name__ == "__main__":
    from dse.cli import main
    from dse.cli import profile as commands

    if FREE:
        commands.held = lambda *arguments: nullcontext()
    pacing.answer()
    sys.exit(main(ARGUMENTS))
