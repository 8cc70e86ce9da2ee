"""Being asked to end: Ctrl-C, SIGTERM and SIGHUP end a command in one line, whatever it is just doing.

Only the standard library is imported here: this stands before everything that takes time to load.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_HANDLED_BY_DEFAULT: Final = (signal.SIG_DFL, signal.default_int_handler)

_AGAIN_S: Final = 0.05
"""How long to leave a place that cannot be interrupted before asking again."""


@dataclass
class Asked:
    """What somebody has asked this process to do.

    Attributes:
        word: ``"interrupted"`` (Ctrl-C) or ``"terminated"`` (by another process, or the closing terminal); empty
            while nobody has asked.
    """

    word: str = ""


@contextmanager
def asked_to_end() -> Iterator[Asked]:
    """Inside, Ctrl-C, SIGTERM and SIGHUP raise `KeyboardInterrupt`: what is held is let go, workers end with it.

    A second SIGTERM or SIGHUP ends the process at once. Where a signal is ignored (`nohup`) or handled already, and
    in threads, nothing changes. The `Asked` tells apart who asked; where it says that somebody did, any other error
    is a consequence: modules that are interrupted while they load may turn it into one of their own.
    """
    asked = Asked()
    here = os.getpid()
    before = {}

    def end(number: int, frame: FrameType | None) -> None:
        again = asked.word and number != signal.SIGINT
        if again or os.getpid() != here:  # a forked worker has nothing to let go
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.word = "interrupted" if number == signal.SIGINT else "terminated"
        raise KeyboardInterrupt

    def not_raised(lost: UnraisableHookArgs) -> None:
        """Ask again where the interrupt fell into a destructor, or into a callback of the import system."""
        if not (asked.word and issubclass(lost.exc_type, KeyboardInterrupt)):
            hook(lost)
            return
        number = signal.SIGINT if asked.word == "interrupted" else signal.SIGTERM
        asked.word = ""
        timer = threading.Timer(_AGAIN_S, os.kill, (here, number))
        timer.daemon = True
        timer.start()

    hook = sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            one = getattr(signal, name, None)
            if one is not None and signal.getsignal(one) in _HANDLED_BY_DEFAULT:
                before[one] = signal.signal(one, end)
        sys.unraisablehook = not_raised
    try:
        yield asked
    finally:
        if threading.current_thread() is threading.main_thread():
            sys.unraisablehook = hook
        for one, handler in before.items():
            signal.signal(one, handler)
