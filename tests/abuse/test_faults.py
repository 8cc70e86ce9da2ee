"""Faults that are really brought about: whatever happens to a sweep, what was finished stays, and it goes on.

Every fault ends with the same check: typed again, the command gives the very front of a sweep that nothing happened to.
`DSE_FAULTS=20 DSE_FAULTS_REPORT=faults.json pytest tests/abuse/test_faults.py` repeats each 20 times.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from cli.synthetic import synthetic_profile

from abuse.lab import (
    DONE,
    GO,
    SPACE,
    Ended,
    again,
    as_mortal,
    end,
    environment,
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
from abuse.pacing import PIECES, undrawn
from dse.cli import sweep as command
from dse.outputs import LOCK
from dse.profiles.store import write_profile
from dse.search import sweep as sweeping

DRIVER = Path(__file__).with_name("driver.py")
FOLDER = ".pieces"


@dataclass
class Lab:
    """A folder with a space and its profile, and the front that the space has."""

    home: Path
    front: bytes

    def command(self, out: str, *more: str, pace: float = 0.03) -> list[str]:
        return [sys.executable, str(DRIVER), str(pace), "sweep", "space.toml", "-o", out, *more]

    def start(self, out: str, *more: str, pace: float = 0.03, held: bool = False) -> subprocess.Popen[str]:
        return launch(self.command(out, *more, pace=pace), self.home, held)

    def run(self, out: str, *more: str) -> Ended:
        """A command in this process, which has everything imported already."""
        with mock.patch.multiple(sweeping, **PIECES), mock.patch.object(command, "_draw", undrawn):
            return here(self.home, "sweep", "space.toml", "-o", out, *more)

    def pieces(self, out: str) -> set[str]:
        return {p.name for p in (self.home / out / FOLDER).glob("*.npz")}

    def underway(self, process: subprocess.Popen[str], out: str, least: int = 2) -> None:
        """Wait until some pieces are done, and a little longer."""
        least += len(self.pieces(out))
        wait(lambda: process.poll() is not None or len(self.pieces(out)) >= least)
        time.sleep(random.random() * 0.1)

    def goes_on(self, out: str, *more: str) -> str:
        """The command typed again gives the front of an undisturbed sweep and leaves nothing else; what it remarked."""
        again = self.run(out, *more)
        assert again.code == 0, again
        assert (self.home / out / "front.csv").read_bytes() == self.front
        assert sorted(p.name for p in (self.home / out).iterdir()) == [
            "front.csv",
            "front.png",
            "run.json",
            "space.toml",
        ]
        return again.stderr


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    needs_proc()
    home = tmp_path_factory.mktemp("lab")
    write_profile(home / "tiny.npz", synthetic_profile())
    (home / "space.toml").write_text(SPACE, encoding="utf-8")
    made = Lab(home, b"")
    assert made.run("whole").code == 0
    made.front = (home / "whole" / "front.csv").read_bytes()
    yield made
    report()


@pytest.fixture
def out(lab: Lab) -> Iterator[str]:
    yield "run"
    shutil.rmtree(lab.home / "run", ignore_errors=True)
    (lab.home / GO).unlink(missing_ok=True)


@again
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_at_a_random_moment(lab: Lab, out: str, name: str, jobs: str, repeat: int) -> None:
    process = lab.start(out, "--jobs", jobs, held=True)
    lab.underway(process, out)
    done = lab.pieces(out)
    ended = interrupt(process, name)
    assert lab.pieces(out) >= done
    if name == "SIGKILL":
        assert ended.code == -signal.SIGKILL
    else:
        assert ended.code == 130
        assert ended.stderr == f"error: {'interrupted' if name == 'SIGINT' else 'terminated'}\n"
        assert not (lab.home / out / LOCK).exists()
    wait(lambda: not members(process.pid), 10)  # no worker is left behind
    remarks = lab.goes_on(out)
    assert ("ended without finishing" in remarks) == (name == "SIGKILL")
    DONE[f"{name}, {jobs} process{'' if jobs == '1' else 'es'}"] += 1


@again
def test_killed_before_it_had_begun(lab: Lab, out: str, repeat: int) -> None:
    for name in ("SIGTERM", "SIGINT", "SIGKILL"):
        interrupt_while_starting(lab.start(out), name, 1.5)
        DONE[f"{name} while starting"] += 1
    lab.goes_on(out)


@again
def test_a_killed_worker(lab: Lab, out: str, repeat: int) -> None:
    process = lab.start(out, "--jobs", "2", held=True)
    lab.underway(process, out)
    done = lab.pieces(out)
    os.kill(random.choice(workers(process.pid, b"popen_loky")), signal.SIGKILL)
    let_go(lab.home)
    ended = end(process)
    if ended.code:  # else they had just done the last piece
        assert "worker" in one_line(ended, 1)
        assert lab.pieces(out) >= done
    wait(lambda: not members(process.pid), 10)
    lab.goes_on(out)
    DONE["a worker killed"] += 1


@again
def test_a_sleeping_laptop(lab: Lab, out: str, repeat: int) -> None:
    process = lab.start(out, "--jobs", "2")
    lab.underway(process, out)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.killpg(process.pid, number)
        time.sleep(1.0)
    assert end(process).code == 0
    lab.goes_on(out)
    DONE["stopped and woken"] += 1


@again
def test_a_clock_that_jumps(lab: Lab, out: str, repeat: int) -> None:
    process = lab.start(out, pace=-0.03, held=True)
    lab.underway(process, out)
    for path in [*(lab.home / out).rglob("*"), lab.home / "tiny.npz"]:
        os.utime(path, random.choice([(0, 0), (2**32, 2**32)]))
    process.send_signal(signal.SIGKILL)
    end(process)
    lab.goes_on(out)
    DONE["clock and file times jump"] += 1


@again
def test_two_writers(lab: Lab, out: str, repeat: int) -> None:
    first = lab.start(out, held=True)
    wait(lambda: (lab.home / out / LOCK).is_file() or first.poll() is not None)
    wait(lambda: first.poll() is not None or (lab.home / out / LOCK).read_text() != "")
    line = one_line(lab.run(out), 2)
    assert f"is being written by process {first.pid} on {os.uname().nodename} since 2" in line
    let_go(lab.home)
    assert end(first).code == 0
    lab.goes_on(out)
    # At the same moment, one of them wins, and what is there is whole.
    shutil.rmtree(lab.home / out)
    ended = [end(process) for process in [lab.start(out) for _ in range(3)]]
    assert [e.code for e in ended].count(0) >= 1, ended
    for loser in (e for e in ended if e.code):
        assert "is being written by process" in one_line(loser, 2)
    lab.goes_on(out)
    DONE["two and three writers"] += 1


@again
def test_a_folder_that_vanishes(lab: Lab, out: str, repeat: int) -> None:
    process = lab.start(out, held=True)
    lab.underway(process, out)
    (lab.home / out).rename(lab.home / "elsewhere")
    let_go(lab.home)
    ended = end(process)
    shutil.rmtree(lab.home / "elsewhere")
    if ended.code:
        assert out in one_line(ended, 2)
    lab.goes_on(out)
    DONE["run directory taken away"] += 1


@pytest.fixture
def small_disk(lab: Lab) -> Iterator[Path]:
    with mounted(lab.home / "disk", "256k") as place:
        yield place


@again
def test_a_full_disk(lab: Lab, small_disk: Path, repeat: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * random.randrange(150_000, 250_000))
    ended = lab.run("disk/run")
    if ended.code == 0:
        assert (small_disk / "run" / "run.json").is_file()
    else:
        assert "no space left" in ended.stderr.lower()
        assert len([line for line in ended.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert "Traceback" not in ended.stderr
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    assert lab.run("disk/run").code == 0
    assert (small_disk / "run" / "front.csv").read_bytes() == lab.front
    # A complete run outlives one that is to replace it.
    before = {p.name: p.read_bytes() for p in (small_disk / "run").iterdir()}
    free = shutil.disk_usage(small_disk).free
    ballast.write_bytes(b"x" * max(0, free - 8192))
    ended = lab.run("disk/run", "--fresh")
    if ended.code:
        assert {p.name: p.read_bytes() for p in (small_disk / "run").iterdir() if p.name in before} == before
    DONE["disk full"] += 1


def test_output_that_goes_nowhere(lab: Lab) -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "dse", "front", "whole", "--json"], cwd=lab.home, stdout=full, text=True,
            stderr=subprocess.PIPE, env=environment(), check=False,
        )  # fmt: skip
    assert one_line(Ended(process.returncode, "", process.stderr), 1).endswith("no space left on device")


@again
def test_without_permission(lab: Lab, out: str, repeat: int) -> None:
    if not may_be_mortal():
        pytest.skip("needs setpriv")

    def run(*more: str) -> Ended:
        return as_mortal(lab.command(out, *more, pace=0.0), lab.home)

    lab.home.chmod(0o555)
    try:
        assert "is not writable" in one_line(run(), 2)
    finally:
        lab.home.chmod(0o755)
    lab.goes_on(out)
    (lab.home / out).chmod(0o555)
    try:
        assert "is not writable" in one_line(run("--fresh"), 2)
    finally:
        (lab.home / out).chmod(0o755)
    lab.goes_on(out)
    DONE["no permission"] += 1


@again
def test_a_read_only_disk(lab: Lab, small_disk: Path, repeat: int) -> None:
    assert lab.run("disk/run").code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "not writable" in one_line(lab.run("disk/other"), 2)
    assert "not writable" in one_line(lab.run("disk/run", "--fresh"), 2)
    assert (small_disk / "run" / "front.csv").read_bytes() == lab.front
    DONE["disk read-only"] += 1


@again
def test_damaged_files(lab: Lab, out: str, repeat: int) -> None:
    """A finished run one of whose files lost its end or has bits flipped is noticed and made again."""
    lab.goes_on(out)
    for name in ("front.csv", "run.json"):
        path = lab.home / out / name
        content = bytearray(path.read_bytes())
        if random.random() < 0.5:
            del content[random.randrange(len(content) - 2) :]
        else:
            for _ in range(20):
                content[random.randrange(len(content))] ^= 1 << 7  # no text any more
        path.write_bytes(content)
        shown = subprocess.run(
            [sys.executable, "-m", "dse", "front", out], cwd=lab.home, capture_output=True, text=True,
            env=environment(), check=False,
        )  # fmt: skip
        assert name in one_line(Ended(shown.returncode, shown.stdout, shown.stderr), 2)
        lab.goes_on(out)
        DONE[f"{name} damaged"] += 1


@again
def test_damaged_pieces(lab: Lab, out: str, repeat: int) -> None:
    process = lab.start(out, held=True)
    lab.underway(process, out, 6)
    process.kill()
    end(process)
    for path in (lab.home / out / FOLDER).glob("*.npz"):
        content = bytearray(path.read_bytes())
        if random.random() < 0.3:
            del content[random.randrange(len(content)) :]
        else:
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
        DONE["pieces damaged"] += 1
    lab.goes_on(out)
