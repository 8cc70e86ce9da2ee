"""What all fault suites share: repetitions and their counts, processes to hurt, small disks, a user without privileges."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cli.conftest import answer

from abuse.pacing import HELD

REPO = Path(__file__).parents[2]
TIMES = int(os.environ.get("DSE_FAULTS", "1"))
DONE: Counter[str] = Counter()
"""Fault -> how often it was brought about."""

SPACE = """\
schema = 1

[workload]
profile = "tiny.npz"
context = 1024

[algorithms.token-picker]
threshold = [1e-4, 1e-3, 1e-2]
chunks = ["4+4+4", "6+6"]

[algorithms.spatten]
keep = [0.3, 0.5, 0.9]

[hardware]
base = "topick-gqa"
lanes = [8, 16, 24, 48]
dram_channels = [2, 4, 8]
multipliers = [16, 32, 64]

[objectives]
maximize = ["speedup"]
minimize = ["nll_increase", "energy_j"]
"""


@dataclass
class Ended:
    code: int
    stdout: str
    stderr: str


GO: Final = "go"
"""File in a lab's folder that lets commands come to an end that were held back."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def launch(words: Sequence[str], home: Path, held: bool = False) -> subprocess.Popen[str]:
    """A driver's command in a session of its own, so that its group can be asked for what is left of it.

    Args:
        held: it comes to no end before `let_go`.
    """
    before = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # handed down: Python itself cannot be interrupted while it starts
    try:
        return subprocess.Popen(
            words, cwd=home, env={**environment(), HELD: GO if held else ""}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def here(home: Path, *words: str) -> Ended:
    """A command in this process, which has everything imported already."""
    done = answer(home, *words)
    return Ended(done.code, done.stdout, done.stderr)


def let_go(home: Path) -> None:
    """Let commands of a folder come to their end."""
    (home / GO).touch()


def interrupt(process: subprocess.Popen[str], name: str) -> Ended:
    """Send a signal as the world does: Ctrl-C reaches every process of the terminal."""
    number = getattr(signal, name)
    if name == "SIGINT":
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return end(process)


def interrupt_while_starting(process: subprocess.Popen[str], name: str, seconds: float) -> None:
    """Send a signal within so many seconds: the command ends by it, in one line, or as if nothing had been."""
    time.sleep(random.random() * seconds)
    ended = interrupt(process, name)
    assert ended.code in (130, -getattr(signal, name), 0), ended
    assert "Traceback" not in ended.stderr, ended
    if ended.code == 130:
        assert ended.stderr.splitlines()[-1] in ("error: interrupted", "error: terminated"), ended
    wait(lambda: not members(process.pid), 15)


def end(process: subprocess.Popen[str]) -> Ended:
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, out, err)


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def members(group: int) -> list[int]:
    """Living processes of a process group; a session's first process names it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry.parent.name))
    return found


def workers(group: int, word: bytes) -> list[int]:
    """Living processes of a group whose command line has a word."""
    found = []
    for pid in members(group):
        with suppress(OSError):
            if word in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def one_line(ended: Ended, code: int) -> str:
    assert ended.code == code, ended
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended
    assert lines[0].startswith("error: "), ended
    return lines[0]


def again(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("repeat", range(TIMES), ids=str)(test)


def needs_proc() -> None:
    """Skip where nothing tells which processes there are."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")


def report() -> None:
    """Write the counts to where DSE_FAULTS_REPORT says, beside those of other suites."""
    name = os.environ.get("DSE_FAULTS_REPORT")
    if name:
        path = Path(name)
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps({**before, **DONE}, indent=2) + "\n", encoding="utf-8")


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A file system of `size` in a folder that is made and taken away again; skips where it may not be mounted."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        place.rmdir()
        pytest.skip("needs the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def may_be_mortal() -> bool:
    """Whether a command can be run as one whom permissions bind."""
    return os.geteuid() != 0 or shutil.which("setpriv") is not None


def as_mortal(command: Sequence[str], home: Path) -> Ended:
    """A command, run without what lets root pass by permissions."""
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*prefix, *command], cwd=home, capture_output=True, text=True, env=environment(), check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)
