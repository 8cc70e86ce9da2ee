"""Being asked to end: Ctrl-C, SIGTERM and SIGHUP end a command in one line, whatever it is just doing.

Only the standard library is imported here: this stands before everything that takes time to load.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PATIENCE_S: Final = 1.0
"""Signals that follow the first within this time mean the same: wrappers hand on what a terminal sends to all."""

_AGAIN_S: Final = 0.05
"""How long to leave a place that cannot be interrupted before asking again."""

_BY_DEFAULT: Final = (signal.SIG_DFL, signal.default_int_handler)


@dataclass
class Asked:
    """What somebody has asked this process to do.

    Attributes:
        word: ``"interrupted"`` (Ctrl-C) or ``"terminated"`` (by another process, or the closing terminal); empty
            while nobody has asked.
    """

    word: str = ""


@dataclass
class _Listener:
    """Answers signals for one block.

    Attributes:
        since: when somebody asked. over: the block has ended: there is nothing to let go any more.
        before: signal -> the handler it had.
    """

    asked: Asked = field(default_factory=Asked)
    since: float | None = None
    over: bool = False
    before: dict[int, Any] = field(default_factory=dict)
    home: int = field(default_factory=os.getpid)
    again: threading.Timer | None = None

    def hear(self, number: int, frame: FrameType | None) -> None:
        bounced = self.since is not None and time.monotonic() - self.since < PATIENCE_S
        insists = (self.since is not None or self.over) and not bounced
        if insists or os.getpid() != self.home:  # a forked worker has nothing to let go
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if bounced or self.over:
            return
        self.since = time.monotonic()
        self.asked.word = "interrupted" if number == signal.SIGINT else "terminated"
        raise KeyboardInterrupt

    def rest(self) -> None:
        """Nothing of Python is left that could answer, or hang: who has asked gets the exit code that says so."""
        if self.since is not None:
            for number in self.before:
                signal.signal(number, signal.SIG_IGN)

    def hear_of_loss(self, lost: UnraisableHookArgs) -> bool:
        """Ask again where the interrupt fell into a destructor, or into a callback of the import system."""
        if not (self.asked.word and issubclass(lost.exc_type, KeyboardInterrupt)):
            return False
        number = signal.SIGINT if self.asked.word == "interrupted" else signal.SIGTERM
        self.asked.word, self.since = "", None
        self.again = threading.Timer(_AGAIN_S, os.kill, (self.home, number))
        self.again.daemon = True
        self.again.start()
        return True


_CURRENT: list[_Listener] = []


@contextmanager
def asked_to_end(for_good: bool = False) -> Iterator[Asked]:
    """Inside, Ctrl-C, SIGTERM and SIGHUP raise `KeyboardInterrupt`: what is held is let go, workers end with it.

    Whoever asks again after `PATIENCE_S` ends the process at once. Where a signal is ignored (`nohup`) or handled
    already, and in threads, nothing changes. The `Asked` tells who asked; where it says that somebody did, any other
    error is a consequence: modules that are interrupted while they load may turn it into one of their own.

    Args:
        for_good: the process ends with the block: signals are not handed back to Python, which would answer them with a
            traceback while it shuts down.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Asked()
        return
    if _CURRENT:
        yield _CURRENT[-1].asked
        return
    listener, hook = _Listener(), sys.unraisablehook

    def not_raised(lost: UnraisableHookArgs, /) -> Any:
        if not listener.hear_of_loss(lost):
            hook(lost)

    if for_good:
        atexit.register(listener.rest)  # registered before all others, it comes after them
    _CURRENT.append(listener)
    try:
        sys.unraisablehook = not_raised
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            one = getattr(signal, name, None)
            if one is not None and signal.getsignal(one) in _BY_DEFAULT:
                listener.before[one] = signal.signal(one, listener.hear)
        yield listener.asked
    finally:
        listener.over = True  # first of all: from here on nothing is raised
        if listener.again is not None:
            listener.again.cancel()
        _CURRENT.remove(listener)
        sys.unraisablehook = hook
        if not for_good:
            for one, handler in listener.before.items():
                signal.signal(one, handler)
