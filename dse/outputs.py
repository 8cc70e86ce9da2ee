"""Files and folders that are written: whole or not at all, and by one process at a time.

A file is written under a temporary name beside its place, forced to the disk, and renamed. The temporary name says
which process it belongs to, so what a dead one left behind can be told from what a living one is writing.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

from dse.errors import BadInput
from dse.processes import is_dead, is_gone, machine, this_process

LOCK: Final = ".writer"
"""File of a run directory that says who is writing it."""

SUFFIX: Final = ".tmp"
OLD_SECONDS: Final = 86_400.0
"""Age from which a temporary file whose process cannot be asked for is taken to be left over."""

_WAIT: Final = 0.05
_NAMING: Final = 2.0


_OWNER = re.compile(r"\..*\.([0-9a-f]{8})-([0-9]{1,9})-[0-9a-f]{8}\.tmp", re.DOTALL)


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when the block ends well, and otherwise leaves no trace.

    Raises:
        OSError: the place cannot be written; the old file, if there was one, is as it was.
    """
    if path.exists() and not path.is_file():  # a rename would put a file in the place of a device or a pipe
        raise OSError(errno.EEXIST, "is not a regular file", str(path))
    # A cut name: what is added must not make too long a name of one that just fits.
    temporary = path.with_name(f".{path.name[:60]}.{_tag()}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            _to_disk(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, so that a reader sees all of it or the old one."""
    with atomic(path) as file:
        file.write(text.encode("utf-8"))


def write_together(directory: Path, texts: Mapping[str, str]) -> None:
    """Replace files that belong together, none before the content of all is on the disk.

    The one named last is taken away first and put in its place last: a folder that has it has all of one kind.

    Raises:
        OSError: the place cannot be written; where the disk was full, the old files are as they were.
    """
    with ExitStack() as stack:
        opened = {}
        for name in reversed(list(texts)):  # contexts are left in the opposite order: renamed as listed
            opened[name] = stack.enter_context(atomic(directory / name))
            opened[name].write(texts[name].encode("utf-8"))
        for file in opened.values():
            _to_disk(file)
        (directory / list(texts)[-1]).unlink(missing_ok=True)


def clean(directory: Path) -> int:
    """Remove temporary files whose process is gone; returns how many.

    One of a living process stays, one of another machine stays for a day.
    """
    count = 0
    for path in directory.glob(f".*{SUFFIX}"):
        owner = _OWNER.fullmatch(path.name)
        try:
            if owner is not None and owner[1] == _tag():
                left = is_gone(int(owner[2]))
            else:
                left = time.time() - path.lstat().st_mtime > OLD_SECONDS
            if left:
                path.unlink()
                count += 1
        except OSError:
            continue  # not ours to remove, or removed by another
    return count


@cache
def _tag() -> str:
    return f"{zlib.crc32(machine().encode()):08x}"


@dataclass(frozen=True)
class Hold:
    """A folder that this process alone writes.

    Attributes:
        left: who held it before and ended without letting go, in words; empty where nobody did.
    """

    directory: Path
    left: str = ""


_HELD: dict[Path, Hold] = {}


@contextmanager
def hold(directory: Path, wait_s: float = 0.0) -> Iterator[Hold]:
    """Keep other processes from writing a run directory; it is made where there is none.

    The system lets go of it when the process ends, however it ends. Holding it twice in one process is no conflict.

    Args:
        wait_s: seconds to wait for a process that is about to finish.

    Raises:
        BadInput: another process holds it; the message says which, where and since when.
        OSError: the place cannot be written.
    """
    place = Path(os.path.realpath(directory))  # of links that lead in a circle `resolve` makes a RuntimeError
    if place in _HELD:
        yield _HELD[place]
        return
    if directory.is_symlink() and not directory.exists():
        raise BadInput(f"{directory}: is a link that leads nowhere; remove it, or choose another directory")
    made = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    handle, before = _acquire(directory, wait_s)
    held = Hold(directory, before)
    _HELD[place] = held
    try:
        clean(directory)
        yield held
    finally:
        del _HELD[place]
        with suppress(OSError):
            (directory / LOCK).unlink(missing_ok=True)  # while it is still ours: no other's is taken away
        os.close(handle)
        with suppress(OSError):
            for one in made:
                one.rmdir()  # nothing came of it


def _acquire(directory: Path, wait_s: float) -> tuple[int, str]:
    """The open lock file, and who left it behind."""
    path = directory / LOCK
    until = time.monotonic() + wait_s
    named = time.monotonic() + _NAMING  # who has only just got it has not yet said who it is
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        handle = os.open(path, flags, 0o666)
        taken = False
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BadInput(f"{path}: is no regular file, and says who writes there; remove it")
            about = _about(handle)
            free = _lock(handle, about)
            if free and _is(handle, path):
                _enter(handle)
                taken = True
                left = f"{_words(about)} ended without finishing" if about else ""
                return handle, left
        finally:
            if not taken:
                os.close(handle)
        if free:
            continue  # whoever had it took the file away between our opening and our locking
        if time.monotonic() >= (until if about else max(until, named)):
            raise BadInput(
                f"{directory}: is being written by {_words(about)}; wait for it, or choose another directory with "
                "--output"
            )
        time.sleep(_WAIT)


def _lock(handle: int, about: Mapping[str, Any]) -> bool:
    """Whether the lock is ours now."""
    try:
        import fcntl

        # A lock of the process, not of the file: a forked worker that outlives this process does not keep it.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):  # no such locks here: what the file says has to do
        return not about or is_dead(str(about.get("process")))


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _about(handle: int) -> dict[str, Any]:
    """What a lock file says; empty where it says nothing."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        about = json.loads(os.read(handle, 4096).decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _enter(handle: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    about = {"pid": os.getpid(), "host": platform.node(), "since": since, "process": this_process()}
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(about).encode())


def _words(about: Mapping[str, Any]) -> str:
    if not about:
        return "another process"
    return f"process {about.get('pid')} on {about.get('host')} since {about.get('since')}"
