"""Faults that are really brought about: whatever happens to a study, completed trials stay, and it goes on.

Every fault ends with the same check: the command typed again ends with exactly the trials that were asked for, and every
row of its front is the price of its own point. `DSE_FAULTS=20 DSE_FAULTS_REPORT=faults.json pytest
tests/abuse/test_study_faults.py` repeats each 20 times; the counts go into the report of test_faults.py.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from cli.synthetic import synthetic_profile

from abuse.lab import (
    DONE,
    GO,
    SPACE,
    TIMES,
    Ended,
    again,
    as_mortal,
    end,
    here,
    interrupt,
    interrupt_while_starting,
    launch,
    let_go,
    may_be_mortal,
    members,
    mounted,
    needs_proc,
    one_line,
    report,
    wait,
    workers,
)
from abuse.pacing import undrawn
from dse.cli import study as command
from dse.outputs import LOCK
from dse.profiles.store import write_profile
from dse.results import read_run
from dse.search.evaluate import evaluate
from dse.space import load_space
from dse.space.definition import Space

DRIVER = Path(__file__).with_name("study_driver.py")
ASKED = 24
FILES = ["front.csv", "front.png", "run.json", "space.toml", "trials.csv", "trials.log"]


COMPLETE = re.compile(rb'\{"op_code":6,[^\n]*"state":1,[^\n]*\}\n')


@dataclass
class StudyLab:
    """A folder with a space and its profile."""

    home: Path
    space: Space

    def words(self, out: str, *more: str, pace: float = 0.03) -> list[str]:
        return [sys.executable, str(DRIVER), str(pace), "study", "space.toml", "-o", out, *more]

    def start(self, out: str, *more: str, pace: float = 0.03, held: bool = False) -> subprocess.Popen[str]:
        return launch(self.words(out, *more, pace=pace), self.home, held)

    def run(self, out: str, *more: str) -> Ended:
        """A command in this process, which has everything imported already."""
        with mock.patch.object(command, "_draw", undrawn):
            return here(self.home, "study", "space.toml", "-o", out, *more)

    def completed(self, out: str) -> int:
        """Trials that the journal says are complete."""
        path = self.home / out / "trials.log"
        return len(COMPLETE.findall(path.read_bytes())) if path.is_file() else 0

    def asked(self, out: str) -> int:
        """Trials that the journal says were asked for by all commands."""
        path = self.home / out / "trials.log"
        lines = path.read_bytes().splitlines() if path.is_file() else []
        found = [json.loads(line)["user_attr"] for line in lines if b'"asked.' in line]
        return sum({key: value for entry in found for key, value in entry.items()}.values())

    def underway(self, process: subprocess.Popen[str], out: str, least: int = 3) -> None:
        """Wait until some more trials are complete, and a little longer."""
        least += self.completed(out)
        wait(lambda: process.poll() is not None or self.completed(out) >= least)
        time.sleep(random.random() * 0.1)

    def right(self, out: str, trials: int) -> None:
        """The run has so many trials, is whole, and every row of its front is the price of its own point."""
        run = read_run(self.home / out)
        assert run.info["trials"] == run.info["asked"] == trials
        assert len(pd.read_csv(self.home / out / "trials.csv")) == trials
        check_front(self.space, run.front)

    def goes_on(self, out: str, total: int = ASKED) -> str:
        """The same study, asked for what is missing, ends with `total` trials and leaves nothing else; its remarks."""
        ended = self.run(out, "--trials", str(total - max(self.asked(out), self.completed(out))))
        assert ended.code == 0, ended
        self.right(out, total)
        assert sorted(p.name for p in (self.home / out).iterdir()) == FILES
        return ended.stderr


def check_front(space: Space, front: pd.DataFrame) -> None:
    """Every row is the price of its own point, and what it says of dominance is so."""
    points = []
    for row in front.to_dict("records"):
        owned = {f"{row['algorithm']}.{knob}" for knob in space.algorithms[str(row["algorithm"])].knobs}
        owned |= {f"hardware.{name}" for name in space.hardware}
        points.append({"algorithm": row["algorithm"], **{str(k): v for k, v in row.items() if k in owned}})
    told = evaluate(space, points)
    assert told["point"].tolist() == front["point"].tolist()
    assert told["feasible"].all()
    for metric in [*space.objectives, "latency_s", "energy_j", "area_mm2"]:
        assert front[metric].to_numpy() == pytest.approx(told[metric].to_numpy(), rel=1e-9), metric


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyLab]:
    needs_proc()
    home = tmp_path_factory.mktemp("study-lab")
    write_profile(home / "tiny.npz", synthetic_profile())
    (home / "space.toml").write_text(SPACE, encoding="utf-8")
    yield StudyLab(home, load_space(home / "space.toml"))
    report()


@pytest.fixture
def small_disk(lab: StudyLab) -> Iterator[Path]:
    with mounted(lab.home / "disk", "256k") as place:
        yield place


@pytest.fixture
def out(lab: StudyLab) -> Iterator[str]:
    yield "run"
    shutil.rmtree(lab.home / "run", ignore_errors=True)
    (lab.home / GO).unlink(missing_ok=True)


def done(what: str) -> None:
    DONE[f"study: {what}"] += 1


@again
@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("SIGKILL", "1"), ("SIGKILL", "2"), ("SIGINT", "1"), ("SIGINT", "2"), ("SIGTERM", "2"), ("SIGHUP", "1"),
        *([("SIGTERM", "1"), ("SIGHUP", "2")] if TIMES > 1 else []),
    ],
)  # fmt: skip
def test_killed_at_a_random_moment(lab: StudyLab, out: str, name: str, jobs: str, repeat: int) -> None:
    process = lab.start(out, "--jobs", jobs, "--trials", str(ASKED), held=True)
    lab.underway(process, out)
    before = lab.completed(out)
    ended = interrupt(process, name)
    if name == "SIGKILL":
        assert ended.code == -signal.SIGKILL
    else:
        said = one_line(ended, 130)
        assert said == f"error: {'interrupted' if name == 'SIGINT' else 'terminated'}"
        assert not (lab.home / out / LOCK).exists()
    wait(lambda: not members(process.pid), 15)  # no worker is left behind
    assert lab.completed(out) >= before
    if name == "SIGKILL":  # it could take nothing back: what it asked for is owed
        assert lab.run(out, "--trials", "0").code == 0
        lab.right(out, ASKED)
    else:
        lab.goes_on(out)
    done(f"{name}, {jobs} process{'' if jobs == '1' else 'es'}")


@again
def test_killed_before_it_had_begun(lab: StudyLab, out: str, repeat: int) -> None:
    for name in ("SIGTERM", "SIGINT", "SIGKILL"):
        interrupt_while_starting(lab.start(out, "--trials", "2"), name, 2.0)
        done(f"{name} while starting")
    owed = lab.run(out, "--trials", "0")
    if owed.code:
        assert "no trial is complete yet" in one_line(owed, 1)
    lab.goes_on(out, lab.completed(out) + 1)


@again
def test_a_killed_worker(lab: StudyLab, out: str, repeat: int) -> None:
    process = lab.start(out, "--jobs", "2", "--trials", str(ASKED), held=True)
    lab.underway(process, out)
    (worker,) = workers(process.pid, b"spawn_main")
    os.kill(worker, signal.SIGKILL)
    let_go(lab.home)
    ended = end(process)
    assert ended.code == 0, ended
    assert "Traceback" not in ended.stderr
    lab.right(out, ASKED)
    if "processes were killed (by signal 9)" not in ended.stderr:
        assert lab.completed(out) == ASKED  # it had just done its last trial
    wait(lambda: not members(process.pid), 15)
    done("a worker killed")


@again
def test_two_commands_at_once(lab: StudyLab, out: str, repeat: int) -> None:
    """They do together what both were asked for, and whoever writes last has all of it."""
    pair = [lab.start(out, "--trials", str(ASKED // 2), "--seed", str(n), held=True) for n in (1, 2)]
    wait(lambda: lab.completed(out) > 0 or any(p.poll() is not None for p in pair))
    fresh = lab.run(out, "--fresh")
    assert "--fresh: another command is adding trials to it" in one_line(fresh, 2)
    let_go(lab.home)
    for process in pair:
        ended = end(process)
        assert ended.code == 0, ended
    lab.right(out, ASKED)
    lab.goes_on(out, read_run(lab.home / out).info["trials"])
    done("two commands at once")


@again
def test_stopped_and_woken(lab: StudyLab, out: str, repeat: int) -> None:
    """Who sleeps longer than the grace time finds its trial handed on, and goes on with another."""
    first = lab.start(out, "--trials", str(ASKED // 2), "--grace", "1", pace=0.2)
    second = lab.start(out, "--trials", str(ASKED // 2), "--grace", "1", pace=0.2)
    wait(lambda: lab.completed(out) > 2)
    os.killpg(first.pid, signal.SIGSTOP)
    time.sleep(3.0)
    os.killpg(first.pid, signal.SIGCONT)
    for process in (first, second):
        ended = end(process)
        assert ended.code == 0, ended
        assert "Traceback" not in ended.stderr
    lab.right(out, ASKED)
    done("stopped and woken")


@again
def test_a_clock_that_jumps(lab: StudyLab, out: str, repeat: int) -> None:
    """Neither who is alive nor what is written rests on a clock or a file time; charts over time are drawn all the same."""
    process = lab.start(out, "--jobs", random.choice("12"), "--trials", str(ASKED), pace=-0.03, held=True)
    lab.underway(process, out)
    for path in [*(lab.home / out).rglob("*"), lab.home / "tiny.npz"]:
        os.utime(path, random.choice([(0, 0), (2**32, 2**32)]))
    let_go(lab.home)
    ended = end(process)
    assert ended.code == 0, ended
    lab.right(out, ASKED)
    drawn = here(lab.home, "plot", out, "--kind", "hypervolume", "-o", f"{out}/h.png")
    assert drawn.code == 0, drawn
    (lab.home / out / "h.png").unlink()
    lab.goes_on(out, ASKED + 1)
    done("clock and file times jump")


@again
def test_a_folder_that_vanishes(lab: StudyLab, out: str, repeat: int) -> None:
    process = lab.start(out, "--trials", str(ASKED), "--jobs", random.choice("12"), held=True)
    lab.underway(process, out)
    (lab.home / out).rename(lab.home / "elsewhere")
    let_go(lab.home)
    ended = end(process)
    if ended.code:
        assert f"{out}/trials.log: is gone" in one_line(ended, 2)
        assert not (lab.home / out).exists()
    assert lab.completed("elsewhere") > 0
    shutil.rmtree(lab.home / out, ignore_errors=True)
    (lab.home / "elsewhere").rename(lab.home / out)  # found again
    lab.goes_on(out)
    done("run directory taken away")


@again
def test_a_full_disk(lab: StudyLab, small_disk: Path, repeat: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * random.randrange(190_000, 250_000))
    ended = lab.run("disk/run", "--trials", "12", "--jobs", random.choice("12"))
    if ended.code:
        assert "no space left" in ended.stderr.lower()
        assert len([line for line in ended.stderr.splitlines() if line.startswith("error: ")]) == 1, ended
        assert "Traceback" not in ended.stderr
    assert not list(small_disk.rglob("*.tmp"))
    log = small_disk / "run" / "trials.log"
    assert not log.exists() or log.read_bytes()[-1:] in (b"", b"\n")
    kept = lab.completed("disk/run")
    ballast.unlink()
    again = lab.run("disk/run", "--trials", "0")
    if again.code == 0:
        assert read_run(small_disk / "run").info["trials"] >= kept
    else:
        assert "no trial is complete yet" in one_line(again, 1)
    assert lab.run("disk/run", "--trials", "1").code == 0
    check_front(lab.space, read_run(small_disk / "run").front)
    done("disk full")


@again
def test_without_permission(lab: StudyLab, out: str, repeat: int) -> None:
    if not may_be_mortal():
        pytest.skip("needs setpriv")

    def run(*more: str) -> Ended:
        return as_mortal(lab.words(out, *more, pace=0), lab.home)

    lab.home.chmod(0o555)
    try:
        assert "is not writable" in one_line(run(), 2)
    finally:
        lab.home.chmod(0o755)
    lab.goes_on(out, 4)
    (lab.home / out / "trials.log").chmod(0o000)
    assert "trials.log: cannot be read and written: permission denied" in one_line(run(), 2)
    (lab.home / out / "trials.log").chmod(0o644)
    (lab.home / out).chmod(0o555)
    try:
        assert "is not writable" in one_line(run("--fresh"), 2)
    finally:
        (lab.home / out).chmod(0o755)
    lab.goes_on(out, 5)
    done("no permission")


@again
def test_a_read_only_disk(lab: StudyLab, small_disk: Path, repeat: int) -> None:
    assert lab.run("disk/run", "--trials", "3").code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for more in ((), ("--fresh",)):
        assert "not writable" in one_line(lab.run("disk/run", *more), 2)
    lab.right("disk/run", 3)
    done("disk read-only")
