"""Damaged journals and databases of studies: mended where that is safe, else named, and never a wrong front."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from abuse.lab import again, one_line
from abuse.test_study_faults import StudyLab, check_front, done
from abuse.test_study_faults import lab as lab  # a fixture
from abuse.test_study_faults import out as out  # a fixture
from dse.results import read_run


@pytest.fixture(scope="session")
def finished(lab: StudyLab) -> Path:
    """A study of 20 trials, to be copied."""
    assert lab.run("finished", "--trials", "20").code == 0
    return lab.home / "finished"


@again
@pytest.mark.parametrize(
    "kind", ["cut", "cut between lines", "flipped", "zeros", "doubled", "dropped", "swapped"]
)
def test_a_damaged_journal(lab: StudyLab, out: str, finished: Path, kind: str, repeat: int) -> None:
    """It is mended where that is safe, else the line is named, and the advice given saves all before it."""
    shutil.copytree(finished, lab.home / out)
    path = lab.home / out / "trials.log"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    at = random.randrange(1, len(lines) - 1)
    if kind == "cut":
        begin = random.randrange(len(content) - len(lines[-1]), len(content) - 1)
        path.write_bytes(content[: begin + 1])
    elif kind == "cut between lines":
        path.write_bytes(b"".join(lines[:-at]))
    elif kind == "flipped":
        changed = bytearray(content)
        changed[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
    elif kind == "zeros":
        begin = random.randrange(len(content))
        path.write_bytes(content[:begin] + bytes(512) + content[begin + 512 :])
    else:
        {
            "doubled": lambda: lines.insert(at, lines[at]),
            "dropped": lambda: lines.pop(at),
            "swapped": lambda: lines.insert(at, lines.pop(at + 1)),
        }[kind]()
        path.write_bytes(b"".join(lines))
    ended = lab.run(out, "--trials", "1")
    if kind == "cut":
        assert ended.code == 0, ended
        if path.read_bytes()[: len(content)] != content:
            assert f"trials.log:{len(lines)}: was not finished" in ended.stderr
    elif kind == "cut between lines":
        assert "its end is missing" in one_line(ended, 2)
        (lab.home / out / "run.json").unlink()
        ended = lab.run(out, "--trials", "1")
    elif ended.code == 0:
        same = content.startswith(b"".join(path.read_bytes().splitlines(keepends=True)[: len(lines) - 1]))
        # Whitespace is no content.
        assert same or kind in ("dropped", "flipped"), ended
    else:
        line = one_line(ended, 2)
        found = re.search(r"trials\.log:(\d+): is (damaged|no journal)", line)
        assert found, line
        saved = int(found[1]) - 1
        advice = re.search(
            r"head -n \d+ trials\.log > whole && mv whole trials\.log && rm -f run\.json", line
        )
        if saved:
            assert advice, line
            subprocess.run(advice[0], shell=True, cwd=lab.home / out, check=True)
        else:
            assert "no journal" in line or "take it and run.json away" in line
            path.unlink()
            (lab.home / out / "run.json").unlink()
        assert content.startswith(path.read_bytes() if saved else b"")
        ended = lab.run(out, "--trials", "1")
    assert ended.code == 0, ended
    check_front(lab.space, read_run(lab.home / out).front)
    done(f"journal {kind}")


@again
def test_a_damaged_database(lab: StudyLab, out: str, repeat: int) -> None:
    base = lab.home / "trials.db"
    base.unlink(missing_ok=True)
    more = ("--storage", "sqlite:///trials.db", "--trials")
    assert lab.run(out, *more, "12").code == 0
    content = bytearray(base.read_bytes())
    for _ in range(3):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    base.write_bytes(content)
    ended = lab.run(out, *more, "1")
    if ended.code:
        assert "trials.db" in one_line(ended, 2)
    else:
        check_front(lab.space, read_run(lab.home / out).front)
    done("database damaged")


def test_values_changed_in_a_database_do_not_reach_the_front(lab: StudyLab, out: str) -> None:
    """Better values make no front, worse ones lose no point of it, and it is said which trial is meant."""
    base = lab.home / "changed.db"
    base.unlink(missing_ok=True)
    more = ("--storage", "sqlite:///changed.db", "--trials")
    assert lab.run(out, *more, "12").code == 0
    before = (lab.home / out / "front.csv").read_bytes()
    assert "other values" not in lab.run(out, *more, "0").stderr
    with closing(sqlite3.connect(base)) as opened:
        opened.execute("UPDATE trial_values SET value = value * 1.25 WHERE trial_id % 3 = 0")
        opened.execute("UPDATE trial_values SET value = value * 0.5 WHERE trial_id % 3 = 1")
        opened.commit()
    ended = lab.run(out, *more, "0")
    assert ended.code == 0, ended
    assert (lab.home / out / "front.csv").read_bytes() == before
    assert re.search(
        r"sqlite:changed.db: holds other values for 8 of 12 trials .* \(trial \d: ", ended.stderr
    ), ended


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "link", "text"])
def test_what_is_no_journal_is_named_and_left_alone(
    lab: StudyLab, out: str, finished: Path, kind: str
) -> None:
    shutil.copytree(finished, lab.home / out)
    path = lab.home / out / "trials.log"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        try:
            os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero: never ends
        except PermissionError:
            pytest.skip("needs the right to make a device")
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    else:
        path.write_text("dear diary", encoding="utf-8")
    before = path.lstat()
    line = one_line(lab.run(out, "--trials", "1"), 2)
    assert "trials.log" in line
    assert (path.lstat().st_ino, path.lstat().st_size) == (before.st_ino, before.st_size)
