"""The journal of a study's trials: Optuna's format, one JSON object a line, written so that faults leave it whole.

A line is appended by one write under a lock that the system releases however its holder ends. What a full disk or
a kill left unfinished is cut off again, under the lock, before anything follows it. Every line says which writer it
is from (``by``) and ends with a checksum (``crc``) of itself and that writer's lines before it, so flipped bits and
lines that were changed, dropped, doubled or swapped are noticed and named. Optuna reads past the two keys. Lines
without them (Optuna's own, those of older versions) are taken as they are, and lines lost at the end cannot be
noticed here (`dse.study.directory` counts them); that no wrong value reaches a front does not rest on checksums, see `dse.study.result`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from optuna.storages.journal import BaseJournalBackend

from dse.errors import BadInput, DseError
from dse.inputs import check_tame, is_file
from dse.results import INFO, JOURNAL
from dse.study.storage import Remark, silent

MAX_JOURNAL: Final = 1 << 30
MAX_LINE: Final = 1 << 20
"""Most bytes of a journal and of one of its lines; a trial has about 3000 in a dozen lines."""

START: Final = b'{"op_code":'
"""How every line begins."""

SET_VALUES: Final = 6
"""Optuna's code of the operation that ends a trial: the only one whose numbers may be infinite."""

_SEAL = re.compile(rb',"by":"([0-9a-f]{8})","crc":"([0-9a-f]{8})"\}\n')
_SEAL_BYTES = len(',"by":"01234567","crc":"01234567"}\n')


class Journal(BaseJournalBackend):
    """A journal file, as Optuna's `JournalStorage` takes it.

    Args:
        remark: told what was mended.
        create: make the file where there is none.
        reading: only look at it: nothing is made, mended, locked or appended, and it may be closed to writing.

    Attributes:
        line: number of the line that was read last.

    Raises:
        BadInput: the file is none that can be read and written, its disk has no locks, or it holds something else.
    """

    def __init__(
        self, path: Path, remark: Remark = silent, create: bool = True, reading: bool = False
    ) -> None:
        self.path, self._remark, self._reading = path, remark, reading
        self.line = 0
        self._offset = 0
        self._sums: dict[
            bytes, tuple[int, int, int]
        ] = {}  # writer -> where its last line begins, sums before and after
        self._by = secrets.token_hex(4).encode()
        self._sum = zlib.crc32(self._by)
        self._pending: tuple[int, bytes, int] | None = None  # what is written last: its end, seal and sum
        self._file: tuple[int, int] | None = None
        with self._open(create) as handle:
            about = os.fstat(handle)
            self._file = (about.st_dev, about.st_ino)
            begin = _at(handle, 0, len(START))
            if begin != START[: len(begin)]:
                raise BadInput(f"{path}:1: is no journal of trials; nothing was changed, name another file")
            if not reading:
                self._mend(handle)

    @contextmanager
    def _open(self, create: bool = False) -> Iterator[int]:
        """The file, locked against other writers where it may be written."""
        flags = os.O_RDONLY if self._reading else os.O_RDWR | os.O_APPEND
        flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            with suppress(OSError):  # a pipe would be opened and waited for
                if not stat.S_ISREG(os.stat(self.path).st_mode):
                    raise BadInput(
                        f"{self.path}: is a {_kind(self.path)}, no journal of trials; take it away, or choose "
                        "another place"
                    )
            handle = os.open(self.path, flags | (os.O_CREAT if create and not self._reading else 0), 0o666)
        except OSError as error:
            raise self._failed(error) from None
        try:
            self._check(handle)
            if not self._reading:
                self._lock(handle)
            yield handle
        except OSError as error:
            raise self._failed(error) from None
        finally:
            os.close(handle)

    def _check(self, handle: int) -> int:
        """The file's size, if it is the one that was opened first."""
        about = os.fstat(handle)
        if self._file not in (None, (about.st_dev, about.st_ino)) or about.st_size < self._offset:
            raise BadInput(f"{self.path}: was replaced or cut while in use; run the command again")
        if about.st_size > MAX_JOURNAL:
            raise BadInput(f"{self.path}: has more than {MAX_JOURNAL} bytes, the most allowed; begin another")
        return about.st_size

    def _lock(self, handle: int) -> None:
        """Wait for the lock of the open file; closing it lets go."""
        try:
            import fcntl
        except ImportError:  # a system without such locks: one write appends, which does not come apart
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            # Unlocked, the line that another machine is writing would look unfinished, and be cut off.
            raise BadInput(
                f"{self.path}: its disk has no locks ({(error.strerror or str(error)).lower()}), so processes would "
                "damage each other's trials; put the directory on another disk with --output, or name a database "
                "with --storage"
            ) from None

    def _failed(self, error: OSError) -> DseError:
        """What is wrong with the file, as one line."""
        reason = (error.strerror or str(error)).lower()
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE) and self._file is not None:
            return BadInput(f"{self.path}: is gone; its folder was taken away while trials were being added")
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            return DseError(
                f"{self.path}: cannot be written: {reason}; what was completed is kept, make room and run the "
                "command again"
            )
        return BadInput(f"{self.path}: cannot be read{'' if self._reading else ' and written'}: {reason}")

    def _mend(self, handle: int) -> None:
        """Finish or cut off a last line whose writer ended while writing it; the lock says that it did."""
        size = os.fstat(handle).st_size
        if size == 0 or _at(handle, size - 1, 1) == b"\n":
            return
        tail = _at(handle, max(0, size - MAX_LINE), MAX_LINE)
        begin = tail.rfind(b"\n") + 1
        rest = tail[begin:]
        if rest[: len(START)] != START[: len(rest)]:
            return  # damage of another kind: reading names it
        if _SEAL.fullmatch(rest[1 - _SEAL_BYTES :] + b"\n"):
            os.write(handle, b"\n")  # nothing but its end is missing
            return
        os.ftruncate(handle, size - len(rest))
        number = _lines(handle, size - len(rest)) + 1
        self._remark(
            f"{self.path}:{number}: was not finished by whoever wrote it (an interruption or a full disk) and is "
            "removed; nothing before it is lost"
        )

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from a number on.

        Raises:
            BadInput: a line is damaged, or the file is gone.
        """
        if log_number_from != self.line:
            self.line, self._offset = 0, 0
            self._sums = {}
        try:
            file = open(self.path, "rb")  # noqa: SIM115  (closed below)
        except OSError as error:
            raise self._failed(error) from None
        with file:
            size = self._check(file.fileno())
            file.seek(self._offset)
            while self._offset < size:
                line = file.readline(MAX_LINE + 1)
                if not line.endswith(b"\n") and len(line) <= MAX_LINE:
                    return  # being written
                log = self._read(line)
                self.line += 1
                self._offset += len(line)
                if self.line > log_number_from:
                    yield log

    def _read(self, line: bytes) -> dict[str, Any]:
        """One operation, its checksum and form checked."""
        seal = _SEAL.fullmatch(line[-_SEAL_BYTES:])
        if seal:
            begin, once, last = self._sums.get(seal[1], (-1, 0, zlib.crc32(seal[1])))
            before = once if begin == self._offset else last  # an interruption makes a line be read again
            found = zlib.crc32(line[:-_SEAL_BYTES], before)
            if f"{found:08x}".encode() != seal[2]:
                raise self.damaged(self.line + 1, "it, or a line before it, does not fit its checksum")
            self._sums[seal[1]] = (self._offset, before, found)
        try:
            log = json.loads(line.decode("utf-8"), parse_constant=_infinite)
        except (ValueError, RecursionError):
            raise self.damaged(self.line + 1, "not JSON") from None
        if not seal and isinstance(log, dict) and log.keys() & {"by", "crc"}:
            raise self.damaged(self.line + 1, "its checksum cannot be read")
        if not isinstance(log, dict) or type(log.get("op_code")) is not int:
            raise self.damaged(self.line + 1, "no operation on a study")
        tame = dict(log)
        if log["op_code"] == SET_VALUES and isinstance(log.get("values"), list):
            tame["values"] = [v for v in log["values"] if v not in (math.inf, -math.inf)]
        check_tame(tame, lambda path, what: self.damaged(self.line + 1, f"{'.'.join(path)}: {what}"))
        return log

    def damaged(self, number: int, what: str) -> BadInput:
        """The error about a line, and how to save what can be saved."""
        name = self.path.name
        # A record beside it tells of more lines, and would have the rest refused.
        told = name == JOURNAL and is_file(self.path.with_name(INFO))
        if number == 1:
            away = f"it and {INFO}" if told else "it"
            save = f"nothing of it can be read: take {away} away, and the same command begins anew"
        else:
            save = (
                f"the {number - 1} lines before it can be saved: head -n {number - 1} {name} > whole && "
                f"mv whole {name}{f' && rm -f {INFO}' if told else ''}"
            )
        return BadInput(f"{self.path}:{number}: is damaged ({what}); {save}")

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations: all of them, or none.

        Raises:
            DseError: the file is gone, cannot be written, or is only looked at.
        """
        if self._reading:
            raise DseError(f"{self.path}: is only read here; nothing was written")
        with self._open() as handle:
            # Ctrl-C may come between writing and noting so: what the file holds decides.
            if self._pending is not None:
                end, seal, total = self._pending
                if _at(handle, end - len(seal), len(seal)) == seal:
                    self._sum = total
                self._pending = None
            total, lines, seal = self._sum, [], b""
            for log in logs:
                body = json.dumps(log, separators=(",", ":")).encode()[:-1]
                total = zlib.crc32(body, total)
                seal = b',"by":"%s","crc":"%08x"}\n' % (self._by, total)
                lines.append(body + seal)
            self._mend(handle)
            content = b"".join(lines)
            before = os.fstat(handle).st_size
            self._pending = (before + len(content), seal, total)
            try:
                left = content
                while left:
                    left = left[os.write(handle, left) :]
                os.fsync(handle)
            except BaseException:
                if os.fstat(handle).st_size != before + len(content):
                    os.ftruncate(handle, before)
                raise


def _at(handle: int, start: int, count: int) -> bytes:
    """Bytes of a file; where it is appended to does not move."""
    os.lseek(handle, start, os.SEEK_SET)
    parts = []
    while count and (part := os.read(handle, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _kind(path: Path) -> str:
    mode = os.stat(path).st_mode
    return "directory" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"


def finished_lines(path: Path) -> tuple[int, bool]:
    """How many lines of a journal were finished, and whether nothing follows them; none where there is no file.

    Raises:
        OSError: it is no file, or cannot be read.
    """
    if not path.exists():
        return 0, True
    if not is_file(path):
        raise OSError(f"{path}: is no file")
    with path.open("rb") as file:
        handle = file.fileno()
        size = os.fstat(handle).st_size
        return _lines(handle, size), size == 0 or _at(handle, size - 1, 1) == b"\n"


def _lines(handle: int, size: int) -> int:
    """Lines in the first bytes of a file."""
    return sum(_at(handle, at, min(1 << 20, size - at)).count(b"\n") for at in range(0, size, 1 << 20))


def _infinite(text: str) -> float:
    if text == "NaN":
        _refuse()
    return float(text)


def _refuse() -> NoReturn:
    raise ValueError("NaN")
