"""Which process is which, on this machine and on others: names that no two processes ever share."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

_TRACKERS: Final = "ignore:resource_tracker"
"""What Python's option -W takes: warnings that begin with this word are not shown."""


@cache
def machine() -> str:
    """Names the set of processes among which process ids are unique: host, boot and process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        boot, space = f"{uuid.getnode():x}", 0
    return f"{platform.node()}/{boot[:8]}/{space}"


def _started(pid: int) -> str:
    """When a process started, in the system's ticks; empty where it is gone or the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def this_process() -> str:
    """The name of this process, unlike any other that ever was."""
    pid = os.getpid()
    return f"{machine()}:{pid}:{_started(pid)}"


def is_dead(process: str) -> bool:
    """Whether a process is known to be gone; false where it runs on another machine, or nothing is known."""
    where, _, rest = process.partition(":")
    pid, _, started = rest.partition(":")
    if where != machine() or not pid.isdecimal() or len(pid) > 9:
        return False
    now = _started(int(pid))
    if started and now:
        return now != started
    return is_gone(int(pid))


def is_gone(pid: int) -> bool:
    """Whether no process of this machine has this number, or it has ended and was only not yet asked how."""
    if os.name == "nt":  # there a signal of 0 is Ctrl-C
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's, whom the system may hide
    return _has_proc() and not _started(pid)


@cache
def _has_proc() -> bool:
    return Path(f"/proc/{os.getpid()}/stat").exists()


@contextmanager
def unhurried() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C, not even while they start; this one hears it when the block ends.

    A terminal sends Ctrl-C to all of them; a worker that is still importing would answer with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    _start_trackers()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is started inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_trackers() -> None:
    """Start the processes that clean up after others: older ones let Ctrl-C through again when they start.

    They clean up without a word: what they would say of a command that was interrupted comes after its last line.
    """
    from multiprocessing import resource_tracker

    sys.warnoptions.append(_TRACKERS)  # handed down to processes that are started
    try:
        resource_tracker.ensure_running()
        with suppress(ImportError, AttributeError):
            from joblib.externals.loky.backend import resource_tracker as lokys

            lokys.ensure_running()
    finally:
        sys.warnoptions.remove(_TRACKERS)


@cache
def end_with(parent: int) -> None:
    """Make this process a worker of its parent: it ends when the parent is gone, which cannot end it if it was killed.

    Ctrl-C, which a terminal sends to all of them, is the parent's to answer.

    Args:
        parent: the parent's process id; 0, and this process's own (a thread of it), do nothing.
    """
    if parent in (0, os.getpid()):
        return

    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
