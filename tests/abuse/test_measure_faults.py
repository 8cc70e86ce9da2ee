"""Faults that are really brought about while a model is measured: what was finished stays, and the same command goes on.

Every fault ends with the same check: typed again, the command gives the very bytes of an undisturbed measurement.
`DSE_FAULTS=20 DSE_FAULTS_REPORT=faults.json pytest tests/abuse/test_measure_faults.py` repeats each 20 times.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("gguf") is None or find_spec("tokenizers") is None:
    pytest.skip("needs the lm extra", allow_module_level=True)

from abuse.lab import (
    DONE,
    GO,
    Ended,
    again,
    as_mortal,
    end,
    interrupt,
    interrupt_while_starting,
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
from abuse.measure_lab import COMMON, PROBE, RUN, MeasureLab, make_lab, write_model, write_text
from dse.archives import Damaged, read_arrays
from dse.measure.material import DensePass
from dse.outputs import LOCK
from dse.profiles.probes import read_probes

THETA = (
    *("profile", "run", *COMMON, "--algorithm", "top-theta", "--set", "calibration=64", "--set", "k=16"),
    *("--context", "64", "--windows", "1", "--name", "it", "-o"),
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasureLab]:
    needs_proc()
    made = make_lab(tmp_path_factory.mktemp("measuring"))
    made.goes_on(*RUN, "-o", "run")
    shutil.rmtree(made.home / "run")
    yield made
    report()


@pytest.fixture
def out(lab: MeasureLab) -> Iterator[str]:
    yield "run"
    for name in ("run", "tables"):
        shutil.rmtree(lab.home / name, ignore_errors=True)
    for name in ("probes.json", GO):
        (lab.home / name).unlink(missing_ok=True)


def last_line(ended: Ended, code: int = 2) -> str:
    """The one error, whatever progress was told before it."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.stderr, ended
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended
    assert ended.stderr.splitlines()[-1] == errors[0], ended
    return errors[0]


@again
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_at_a_random_moment(lab: MeasureLab, out: str, name: str, jobs: str, repeat: int) -> None:
    process = lab.start(*RUN, "--jobs", jobs, "-o", out, held=True)
    lab.underway(process, out)
    done = lab.shards(out)
    ended = interrupt(process, name)
    assert lab.shards(out) >= done
    if name == "SIGKILL":
        assert ended.code == -signal.SIGKILL
    else:
        assert ended.code == 130, ended
        assert (
            ended.stderr.splitlines()[-1] == f"error: {'interrupted' if name == 'SIGINT' else 'terminated'}"
        )
        assert "Traceback" not in ended.stderr
        assert not (lab.home / out / "shards" / LOCK).exists()
    wait(lambda: not members(process.pid), 10)  # no worker is left behind
    before = lab.made_at(out)
    remarks = lab.goes_on(*RUN, "-o", out)
    assert ("ended without finishing" in remarks) == (name == "SIGKILL")
    assert before.items() <= lab.made_at(out).items()  # none is measured again
    DONE[f"measuring: {name}, {jobs} process{'' if jobs == '1' else 'es'}"] += 1


@again
def test_killed_before_it_had_begun(lab: MeasureLab, out: str, repeat: int) -> None:
    for name in ("SIGTERM", "SIGINT", "SIGKILL"):
        interrupt_while_starting(lab.start(*RUN, "-o", out), name, 1.5)
        DONE[f"measuring: {name} while starting"] += 1
    lab.goes_on(*RUN, "-o", out)


@again
def test_a_killed_worker(lab: MeasureLab, out: str, repeat: int) -> None:
    process = lab.start(*RUN, "--jobs", "2", "-o", out, pace=0.1, held=True)
    lab.underway(process, out, 1)
    done = lab.shards(out)
    os.kill(random.choice(workers(process.pid, b"popen_loky")), signal.SIGKILL)
    let_go(lab.home)
    ended = end(process)
    if ended.code:  # else all had been done
        assert "worker" in last_line(ended, 1)
        assert lab.shards(out) >= done
    wait(lambda: not members(process.pid), 10)
    lab.goes_on(*RUN, "-o", out)
    DONE["measuring: a worker killed"] += 1


@again
def test_a_sleeping_laptop_with_a_clock_that_jumps(lab: MeasureLab, out: str, repeat: int) -> None:
    process = lab.start(*RUN, "--jobs", "2", "-o", out, pace=-0.03, held=True)
    lab.underway(process, out)
    for path in [*(lab.home / out).rglob("*"), lab.home / "tiny" / "model.safetensors"]:
        os.utime(path, random.choice([(0, 0), (2**32, 2**32)]), follow_symlinks=False)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.killpg(process.pid, number)
        time.sleep(0.5)
    let_go(lab.home)
    assert end(process).code == 0
    lab.goes_on(*RUN, "-o", out)
    DONE["measuring: stopped and woken, clock and file times jump"] += 1


@again
def test_two_writers(lab: MeasureLab, out: str, repeat: int) -> None:
    first = lab.start(*RUN, "-o", out, pace=0.1, held=True)
    lock = lab.home / out / "shards" / LOCK
    wait(lambda: first.poll() is not None or (lock.is_file() and lock.read_text() != ""))
    line = one_line(lab.run(*RUN, "-o", out), 2)
    assert f"is being written by process {first.pid} on {os.uname().nodename} since 2" in line
    let_go(lab.home)
    assert end(first).code == 0
    lab.goes_on(*RUN, "-o", out)
    # Without the lock, as studies on many machines share a folder of measurements, they do the work twice at worst.
    shutil.rmtree(lab.home / out)
    ended = [end(process) for process in [lab.start(*RUN, "-o", out, pace=0.0, free=True) for _ in range(2)]]
    assert [e.code for e in ended] == [0, 0], ended
    lab.goes_on(*RUN, "-o", out)
    DONE["measuring: two writers"] += 1


@again
def test_a_folder_that_vanishes(lab: MeasureLab, out: str, repeat: int) -> None:
    process = lab.start(*RUN, "-o", out, pace=0.05, held=True)
    lab.underway(process, out)
    (lab.home / out).rename(lab.home / "elsewhere")
    let_go(lab.home)
    ended = end(process)
    shutil.rmtree(lab.home / "elsewhere")
    if ended.code:
        assert out in last_line(ended)
        assert not (lab.home / out / "it.npz").exists()
    lab.goes_on(*RUN, "-o", out)
    DONE["measuring: working folder taken away"] += 1


@pytest.fixture
def small_disk(lab: MeasureLab) -> Iterator[Path]:
    with mounted(lab.home / "disk", "512k") as place:
        yield place


@again
def test_a_full_disk(lab: MeasureLab, small_disk: Path, repeat: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * random.randrange(300_000, 520_000))
    ended = lab.here(*RUN, "-o", "disk/run")
    if ended.code:
        line = last_line(Ended(ended.code, ended.stdout, ended.stderr))
        assert "disk/run" in line
        assert "no space left on device" in line.lower()
        assert not (small_disk / "run" / "it.npz").exists()
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    lab.goes_on(*RUN, "-o", "disk/run")
    DONE["measuring: disk full"] += 1


@again
def test_a_read_only_disk_and_a_folder_without_permission(
    lab: MeasureLab, small_disk: Path, out: str, repeat: int
) -> None:
    lab.goes_on(*RUN, "-o", "disk/run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (RUN, PROBE, ("profile", "calibrate", "--model", "tiny")):
        place = {"run": "disk/other", "probe": "disk/new/probes.json", "calibrate": "disk/s.npz"}[command[1]]
        answer = lab.here(*command, "-o", place)
        assert "is not writable" in one_line(Ended(answer.code, "", answer.stderr), 2)
    DONE["measuring: disk read-only"] += 1
    if not may_be_mortal():
        return
    lab.goes_on(*RUN, "-o", out)
    (lab.home / "run" / "it.npz").unlink()
    for place in (lab.home / out / "shards", lab.home / out):
        place.chmod(0o555)
        try:
            ended = as_mortal(lab.start_words(*RUN, "-o", out), lab.home)
            assert "not writable" in one_line(Ended(ended.code, "", ended.stderr), 2)
        finally:
            place.chmod(0o755)
    lab.goes_on(*RUN, "-o", out)
    DONE["measuring: no permission"] += 1


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if random.random() < 0.3:
        del content[random.randrange(len(content)) :]
    else:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


@again
def test_damaged_files_of_the_working_folder(lab: MeasureLab, out: str, repeat: int) -> None:
    """Shards and dense passes are measured again; what a bit flip left as it was may stay."""
    lab.goes_on(*RUN, "-o", out)
    shards = [lab.home / out / "shards" / name for name in sorted(lab.shards(out))]
    kept = {path: path.read_bytes() for path in shards}
    for path in [*shards[::2], *(lab.home / out / "dense").rglob("*.*")]:
        damage(path)
    shards[1].unlink()  # so that dense passes are needed again
    lab.goes_on(*RUN, "-o", out)
    for path, content in kept.items():
        if path.read_bytes() != content:
            one = read_arrays(path)
            path.write_bytes(content)
            two = read_arrays(path)
            assert all(np.array_equal(one[name], two[name]) for name in two)
    for place in (lab.home / out / "dense").iterdir():
        shapes = [getattr(DensePass.load(place), one.name).shape for one in fields(DensePass)]
        assert DensePass.sound(place, shapes)
        assert not DensePass.sound(place, [*shapes[:-1], (1,)])
    DONE["measuring: shards and dense passes damaged"] += 1


@again
def test_damaged_tables_are_made_again(lab: MeasureLab, out: str, repeat: int) -> None:
    lab.goes_on(*THETA, out)
    (table,) = (lab.home / out / "tables").glob("*.npz")
    before = table.read_bytes()
    content = bytearray(before)
    del content[random.randrange(len(content)) :]
    table.write_bytes(content)
    shutil.rmtree(lab.home / out / "shards")
    lab.goes_on(*THETA, out)
    assert table.read_bytes() == before
    DONE["measuring: a table damaged"] += 1


def test_no_flipped_bit_changes_what_is_read(lab: MeasureLab, out: str) -> None:
    """Any bit of a shard: the file is refused, or its arrays are the ones written."""
    lab.goes_on(*RUN, "-o", out)
    path = lab.home / out / "shards" / sorted(lab.shards(out))[0]
    whole, right = path.read_bytes(), read_arrays(path)
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.choice(len(whole) * 8, 600, replace=False):
        content = bytearray(whole)
        content[at // 8] ^= 1 << (at % 8)
        path.write_bytes(content)
        try:
            found = read_arrays(path)
        except Damaged:
            refused += 1
            continue
        if found.keys() == right.keys():
            assert all(found[n].dtype == right[n].dtype and np.array_equal(found[n], right[n]) for n in right)
    assert refused > 400


def test_a_profile_that_is_there_is_replaced_only_by_one_that_has_all_it_has(
    lab: MeasureLab, out: str
) -> None:
    lab.goes_on(*RUN, "-o", out)
    path = lab.home / out / "it.npz"
    whole = path.read_bytes()
    write_model(lab.home / "other", seed=9)
    (lab.home / "mine.npz").write_bytes(b"somebody's own")
    other = tuple("other" if word == "tiny" else word for word in RUN)
    for command, content, says in (
        ((*other, "-o", out), whole, "holds 12 results whose shards are not in this folder"),
        ((*RUN, "--seed", "3", "-o", out), whole, "another model, text or seed"),
        ((*RUN, "-o", out), whole[:-1], "choose another --name or --output (or remove it)"),
        ((*RUN[:-2], "--name", "../mine", "-o", out), whole, "--name ../mine: is no name of a file"),
        (("profile", "merge", "run/it.npz", "-o", "run/it.npz"), whole, "is there already; nothing was"),
        (("profile", "train", "--model", "tiny", "-o", "scales.npz"), whole, "is there already; nothing was"),
        (
            ("profile", "calibrate", "--model", "tiny", "-o", "scales.npz"),
            whole,
            "is there already; nothing was",
        ),
    ):
        path.write_bytes(content)
        answer = lab.here(*command)
        assert says in one_line(Ended(answer.code, "", answer.stderr), 2)
        assert path.read_bytes() == content
    path.write_bytes(whole)
    shard = next((lab.home / out / "shards").glob("spatten*"))
    shard.unlink()
    answer = lab.here(*COMMON_OTHERS, "-o", out)
    assert "holds 1 results whose shards" in one_line(Ended(answer.code, "", answer.stderr), 2)
    lab.goes_on(*RUN, "-o", out)  # it is about to be measured again
    (lab.home / "mine.npz").unlink()


COMMON_OTHERS = (
    *("profile", "run", *COMMON, "--algorithm", "dense", "--context", "64", "--windows", "2", "--name", "it"),
)


def test_processes_and_interruptions_leave_no_trace_in_the_numbers(lab: MeasureLab, out: str) -> None:
    lab.goes_on(*RUN, "-o", out)
    for jobs in ("1", "2"):
        shutil.rmtree(lab.home / out)
        assert lab.run(*RUN, "--jobs", jobs, "-o", out).code == 0
        assert (lab.home / out / "it.npz").read_bytes() == lab.whole[*RUN, "-o", out]
    assert lab.here(*RUN, "--pack-only", "--quiet", "-o", out).code == 0
    assert (lab.home / out / "it.npz").read_bytes() == lab.whole[*RUN, "-o", out]


@again
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_probes_killed_at_a_random_moment(lab: MeasureLab, out: str, name: str, repeat: int) -> None:
    path = lab.home / "probes.json"
    process = lab.start(*PROBE, "-o", "probes.json", pace=0.1, held=True)
    wait(lambda: process.poll() is not None or path.exists())
    if random.random() < 0.3:  # the other times the fault comes early
        assert "is being written by process" in one_line(lab.run(*PROBE, "-o", "probes.json"), 2)
    ended = interrupt(process, name)
    assert ended.code == (-signal.SIGKILL if name == "SIGKILL" else 130), ended
    assert 0 < len(read_probes(path).rows) < 12
    lab.goes_on(*PROBE, "-o", "probes.json")
    DONE[f"probing: {name}"] += 1


def test_probes_of_other_material_are_never_mixed(lab: MeasureLab, out: str) -> None:
    """A text whose name stays and whose content changes, another number of questions, a damaged table."""
    write_text(lab.home / "changing.txt", 4000, 3)
    command = [word if word != "own.txt" else "./changing.txt" for word in PROBE]
    some = [
        *command[: command.index("--grid")],
        "--algorithm",
        "dense",
        *command[command.index("--grid") + 2 :],
    ]
    assert lab.run(*some, "-o", "probes.json").code == 0
    path = lab.home / "probes.json"
    before = path.read_bytes()
    write_text(lab.home / "changing.txt", 4000, 4)
    assert "holds probes of another model, text" in last_line(lab.run(*some, "-o", "probes.json"))
    write_text(lab.home / "changing.txt", 4000, 3)
    answer = lab.here(*(word if word != "4" else "5" for word in some), "-o", "probes.json")
    assert "number of questions" in one_line(Ended(answer.code, "", answer.stderr), 2)
    assert path.read_bytes() == before
    flipped = before.replace(b'"same"', b'"sane"')
    path.write_bytes(flipped)
    answer = lab.here(*some, "-o", "probes.json")
    assert "probes.json: checksum" in one_line(Ended(answer.code, "", answer.stderr), 2)
    assert path.read_bytes() == flipped
