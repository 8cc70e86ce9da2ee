"""Workers, and the processes that clean up after them, have no word of their own."""

from __future__ import annotations

import subprocess
import sys

LOSES = """
import os, sys
from dse.processes import unhurried
with unhurried():
    pass
from multiprocessing import resource_tracker
from joblib.externals.loky.backend import resource_tracker as lokys
resource_tracker.register("/no-such-semaphore", "semaphore")
lokys.register("/no/such/folder", "folder")
print(sys.warnoptions)
sys.stdout.flush()
os._exit(0)  # nothing is given back: the trackers find it left over
"""


def test_trackers_clean_up_without_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSES], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
