"""The journal of trials: what is written is whole, what is damaged is named, what others wrote is taken."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from dse.errors import BadInput, DseError
from dse.space.definition import Space
from dse.study.journal import Journal
from dse.study.run import study
from dse.study.storage import quiet


def _op(number: int) -> dict[str, Any]:
    return {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"n": number}}


def _numbers(journal: Journal) -> list[int]:
    return [log["user_attr"]["n"] for log in journal.read_logs(journal.line)]


def test_writers_take_turns_and_each_reads_all(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "t.log"), Journal(tmp_path / "t.log")
    for number in range(6):
        (one, other)[number % 2].append_logs([_op(number)])
    assert _numbers(one) == _numbers(other) == list(range(6))
    other.append_logs([_op(6), _op(7)])
    assert _numbers(one) == [6, 7]
    assert _numbers(Journal(tmp_path / "t.log")) == list(range(8))


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    Journal(path).append_logs([_op(n) for n in range(3)])
    content = path.read_bytes()
    for at in range(0, len(content) - 1):  # the last end of a line is put back
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        with pytest.raises(BadInput, match=r"t\.log:[123]: is (damaged|no journal)"):
            list(Journal(path).read_logs(0))


def test_an_unfinished_line_is_finished_or_cut_and_what_follows_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    Journal(path).append_logs([_op(0), _op(1)])
    content = path.read_bytes()
    for length in range(content.index(b"\n") + 2, len(content)):
        path.write_bytes(content[:length])
        told: list[str] = []
        mended = Journal(path, told.append)
        mended.append_logs([_op(2)])
        assert _numbers(mended) == ([0, 1, 2] if length == len(content) - 1 else [0, 2])
        assert bool(told) == (length < len(content) - 1)
        assert all("t.log:2: was not finished" in text for text in told)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.log"
    journal = Journal(path)
    journal.append_logs([_op(0)])
    content = path.read_bytes()
    write, room = os.write, [20]

    def full(handle: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        some, room[0] = data[: room[0]], 0
        return write(handle, some)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(DseError, match="no space left on device; what was completed is kept"):
            journal.append_logs([_op(1)])
    assert path.read_bytes() == content
    journal.append_logs([_op(2)])
    assert _numbers(journal) == [0, 2]


def test_an_interruption_after_the_write_breaks_no_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "t.log")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append_logs([_op(0)])
    journal.append_logs([_op(1)])
    assert _numbers(journal) == [0, 1]


def test_a_journal_taken_away_or_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    journal = Journal(path)
    journal.append_logs([_op(0)])
    path.rename(tmp_path / "else.log")
    for use in (lambda: journal.append_logs([_op(1)]), lambda: list(journal.read_logs(0))):
        with pytest.raises(BadInput, match="is gone"):
            use()
    Journal(path)
    with pytest.raises(BadInput, match="was replaced"):
        journal.append_logs([_op(1)])


def test_reading_leaves_a_journal_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.log"
    Journal(path).append_logs([_op(0), _op(1)])
    content = path.read_bytes()[:-20]  # somebody is writing the second line
    path.write_bytes(content)
    opened = os.open

    def readable(file: Any, flags: int, *more: Any, **options: Any) -> int:
        if file == path and flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(file, flags, *more, **options)

    monkeypatch.setattr(os, "open", readable)
    told: list[str] = []
    journal = Journal(path, told.append, reading=True)
    assert _numbers(journal) == [0]
    with pytest.raises(DseError, match="is only read here"):
        journal.append_logs([_op(2)])
    assert (path.read_bytes(), told) == (content, [])
    with pytest.raises(BadInput, match="cannot be read"):
        Journal(tmp_path / "none.log", reading=True)
    (tmp_path / "diary.log").write_text("dear diary")
    with pytest.raises(BadInput, match="is no journal"):
        Journal(tmp_path / "diary.log", reading=True)


def test_a_disk_without_locks_is_refused_and_nothing_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "t.log"
    journal = Journal(path)
    journal.append_logs([_op(0), _op(1)])
    content = path.read_bytes()[:-20]  # another machine is writing the second line
    path.write_bytes(content)

    def none(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    for use in (lambda: journal.append_logs([_op(2)]), lambda: Journal(path)):
        with pytest.raises(
            BadInput, match=r"t\.log: its disk has no locks \(no locks available\).*--output.*--storage"
        ):
            use()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        "[]", "{}", '{"op_code":"x"}', '{"op_code":6,"values":[NaN]}', '{"op_code":2,"user_attr":{"n":1e999}}',
        '{"op_code":2,"x":' + "[" * 40 + "]" * 40 + "}", '{"op_code":2,"x":' + "[" * 99_999 + "}", '{"op_code":2,"x":"\\u001b[2J"}',
        '{"op_code":99,"worker_id":"w"}', '{"op_code":8,"worker_id":"w","trial_id":[],"user_attr":{}}',
    ],
)  # fmt: skip
def test_a_line_that_is_not_tame_is_named(space: Space, tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.log"
    study(space, trials=1, storage=f"journal:{path}")
    before = path.read_bytes()
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    number = before.count(b"\n") + 1
    with pytest.raises(BadInput, match=rf"t\.log:{number}: is damaged"):
        study(space, trials=1, storage=f"journal:{path}")


def test_what_optuna_writes_is_read_and_the_other_way_round(space: Space, tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    name = study(space, trials=4, storage=f"journal:{path}").info["study"]
    with quiet():
        theirs = optuna.load_study(
            study_name=name, storage=optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        )
        assert len(theirs.trials) == 4
        theirs.set_user_attr("note", "seen by another program")
    assert study(space, trials=3, storage=f"journal:{path}").info["trials"] == 7


def test_an_older_journal_without_checksums_goes_on(space: Space, tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    whole = study(space, trials=8)
    study(space, trials=4, storage=f"journal:{path}")
    logs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    bare = [{k: v for k, v in log.items() if k not in ("by", "crc")} for log in logs]
    path.write_text("".join(json.dumps(log) + "\n" for log in bare), encoding="utf-8")
    assert study(space, trials=4, storage=f"journal:{path}").trials.equals(whole.trials)
