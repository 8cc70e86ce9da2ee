"""What the drivers share: a command whose work takes its time, so that a fault hits it in the middle.

A fault has to find the command at work, however slow the machine is: where the environment variable HELD names a file,
a command comes to no end before that file is there.
"""

from __future__ import annotations

import datetime
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

HELD = "DSE_TEST_HELD"
MINUTE = 60.0

PIECES = {"APART_POINTS": 0, "KEEP_POINTS": 0, "TASK_POINTS": (60, 100)}
"""What in `dse.search.sweep` cuts even a small sweep into pieces that are kept."""


def load_quietly() -> None:
    """Let Ctrl-C end this process without a word while it loads what it changes in `dse`.

    A user's command loads nothing before it is ready to answer. Whoever runs the tests under nohup hands down signals
    that are not heard: SIGHUP is heard from here on, SIGINT too.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def answer() -> None:
    """Hear Ctrl-C as a process of Python does that was started from a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def held() -> None:
    """Wait until a command that is held back may go on."""
    name, until = os.environ.get(HELD), time.monotonic() + MINUTE
    while name and not Path(name).exists() and time.monotonic() < until:
        time.sleep(0.01)


def slowly(function: Callable[..., Iterator[Any]], seconds: float) -> Callable[..., Iterator[Any]]:
    """A function whose results come one by one, each after so many seconds."""

    def paced(*arguments: Any) -> Iterator[Any]:
        for result in function(*arguments):
            time.sleep(seconds)
            yield result

    return paced


def undrawn(run: Any) -> None:
    """Stands for the chart of a run, which takes longer than all the rest."""
    (run.directory / "front.png").write_bytes(b"drawn")


def at_last(
    function: Callable[..., Any], is_last: Callable[..., bool] = lambda *_: True
) -> Callable[..., Any]:
    """A function that is not called while the command is held back, where its arguments are those of a last call."""

    def after(*arguments: Any) -> Any:
        if is_last(*arguments):
            held()
        return function(*arguments)

    return after


REAL = time.time
JUMPS = count()


def jumped(seconds: float) -> float:
    """A time that is years ahead or behind, by turns."""
    return seconds + 3e8 * (-1) ** next(JUMPS)


class Jumping(datetime.datetime):
    """Dates by a clock that jumps."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Jumping:
        return cls.fromtimestamp(jumped(REAL()), tz)


def jumping() -> None:
    """Make the wall clock jump by years whenever somebody looks at it."""
    time.time = lambda: jumped(REAL())
