"""Files made to do harm: refused with one line, nothing run, nothing written elsewhere, soon and in little memory."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.conftest import TINY, Answer

from abuse import mutants
from abuse.conftest import Yard
from dse.search.keep import FOLDER, Pieces
from dse.search.shards import Found


class Payload:
    """Pickles into a call that leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "executed"
    os.system(f"touch {path}")
    assert path.exists()  # the payload would work
    path.unlink()
    yield path
    assert not path.exists()


def refused(answer: Answer) -> str:
    assert answer.code == 2, answer
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith("error: ")
    return answer.stderr


def arrays(yard: Yard) -> dict[str, Any]:
    with np.load(io.BytesIO(yard.profile), allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


CHECK = ("check", "tiny.toml", "--set", 'workload.profile="./evil.npz"')


@pytest.mark.parametrize("name", ["header", "counters", "histograms", "mean_context", "scales.k.8"])
def test_a_pickle_inside_a_profile(yard: Yard, mark: Path, name: str) -> None:
    evil = arrays(yard) | {name: np.array([Payload(mark)], dtype=object)}
    (yard.home / "evil.npz").write_bytes(mutants.pack(evil))
    assert "dtype object" in refused(yard.dse(*CHECK)[0])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_pickle_in_place_of_a_profile(yard: Yard, mark: Path, compressed: bool) -> None:
    import joblib

    if compressed:
        joblib.dump(Payload(mark), yard.home / "evil.npz", compress=3)
    else:
        (yard.home / "evil.npz").write_bytes(pickle.dumps(Payload(mark)))
    assert "not a readable profile" in refused(yard.dse(*CHECK)[0])


def test_a_pickle_among_finished_pieces(tmp_path: Path, mark: Path) -> None:
    pieces = Pieces(tmp_path, {"space": "a"})
    for number in range(2):
        pieces.save(number, Found.nothing(2))
    path = tmp_path / FOLDER / "000001.npz"
    with np.load(path, allow_pickle=False) as data:
        content = {name: data[name] for name in data.files}
    np.savez(path, **{**content, "costs": np.array([Payload(mark)], dtype=object)})
    assert list(pieces.load()) == [0]
    path.write_bytes(pickle.dumps(Payload(mark)))
    assert list(pieces.load()) == [0]


@pytest.mark.parametrize("name", ["../evil.npy", "/evil.npy", "counters.npy/../../evil.npy", "__init__.py"])
def test_an_archive_that_would_climb_out(yard: Yard, name: str) -> None:
    with (
        zipfile.ZipFile(yard.home / "evil.npz", "w") as new,
        zipfile.ZipFile(io.BytesIO(yard.profile)) as old,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member))
        new.writestr(name, b"evil")
    assert "do not belong" in refused(yard.dse(*CHECK)[0])


NAMES = [
    "../evil",
    "..",
    ".",
    "/evil",
    "a/b",
    "a\\\\b",
    ".hidden",
    "-o",
    "a" * 101,
    "a b",
    "a\\nb",
    "\\u202etxt",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_would_be_a_path(yard: Yard, name: str) -> None:
    (yard.home / "evil.toml").write_text(f'name = "{name}"\n{TINY}', encoding="utf-8")
    assert "name: " in refused(yard.dse("sweep", "evil.toml")[0])
    text = yard.run["space.toml"].decode().replace('name = "tiny"', f'name = "{name}"')
    yard.put_run("evil", {"space.toml": text.encode()})
    assert "name: " in refused(yard.dse("front", "evil")[0])


@pytest.mark.parametrize(
    "name", ["front.csv", "run.json", "space.toml", FOLDER, ".writer", "trials.log", "anything"]
)
@pytest.mark.parametrize("command", ["sweep", "study"])
def test_a_link_in_a_run_directory(yard: Yard, tmp_path: Path, name: str, command: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    target = precious if name == FOLDER else precious / "thesis.tex"
    yard.put_run("evil", {})
    (yard.home / "evil" / name).unlink(missing_ok=True)
    (yard.home / "evil" / name).symlink_to(target)
    more = ("--trials", "1") if command == "study" else ("--fresh",)
    answer = refused(yard.dse(command, "tiny.toml", "-o", "evil", *more)[0])
    assert "is a symbolic link" in answer or name in answer
    assert (yard.home / "evil" / name).is_symlink()
    assert {p.name: p.read_text() for p in precious.iterdir()} == {"thesis.tex": "years of work"}
    shutil.rmtree(yard.home / "evil")


def test_a_profile_that_grows_without_end(yard: Yard) -> None:
    def packed(shape: tuple[int, ...], body: bytes) -> str:
        (yard.home / "evil.npz").write_bytes(mutants.claim(yard.profile, "counters", shape, body))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = refused(yard.dse(*CHECK)[0])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
        return line

    # One stored counter stands for all of them, so a small array becomes a large one.
    assert "unpacks to" in packed((1, 1, 1, 1, 1 << 20), bytes(4 << 20))
    assert "does not fit" in packed((1 << 40, 1 << 20), b"")
    assert "does not fit" in packed((-1, 5), b"")
    assert "does not fit" in packed((0, 1 << 60), bytes(64))


BOMBS: dict[str, str] = {
    "deep lists": "x = " + "[" * 100_000 + "]" * 100_000,
    "deep tables": "x = " + "{a=" * 100_000,
    "a dotted key": ".".join(["a"] * 100_000) + " = 1",
    "a dotted header": "[" + ".".join(["a"] * 100_000) + "]",
    "many dotted keys": "".join(f"[a.b.c.d.e.f.g.h.i.j.k{i}]\na.b.c.d.e.f.g.h.i.j.k = 1\n" for i in range(15_000)),
    "a long number": "x = " + "9" * 1_000_000,
    "a long hexadecimal number": "x = 0x" + "f" * 1_000_000,
    "a long text": 'x = "' + "x" * 1_000_000 + '"',
    "many values": "x = [" + "1," * 500_000 + "]",
    "many keys": "".join(f"k{i} = 1\n" for i in range(80_000)),
    "many tables": "[[x]]\n" * 150_000,
    "a large file": "#" * 50_000_000,
    "an axis without end": TINY.replace("[24, 48]", "{ linear = [1, 2], points = 1000000000000 }"),
    "a step of nothing": TINY.replace("[24, 48]", "{ range = [1.0, 4.0], step = 5e-324 }"),
    "axes that multiply": TINY.replace(
        "lanes = [24, 48]",
        "\n".join(
            f"{name} = {{ linear = [1.5, 4.0], points = 5000 }}"
            for name in ("clock_ghz", "key_buffer_kib", "value_buffer_kib", "slow_gbps", "overhead_pj_per_op", "memory_gib")
        ),
    ),
    "settings that multiply": TINY.replace("[1e-4, 1e-3, 1e-2]", "{ log = [1e-4, 1e-2], points = 9999 }").replace(
        'chunks = ["4+4+4", "6+6"]', "margin = { linear = [0.5, 1.0], points = 9999 }"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_within_limits_that_the_system_enforces(yard: Yard, name: str) -> None:
    """In a process that may have 1 GB of address space, write nothing and take two seconds of processor time for it."""
    (yard.home / "bomb.toml").write_text(BOMBS[name], encoding="utf-8")

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))

    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dse", "check", "bomb.toml"], cwd=yard.home, env=environment, capture_output=True,
        text=True, preexec_fn=limits, check=False, timeout=60,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    refused(Answer(done.returncode, done.stdout, done.stderr))
    assert spent < 3.5, (
        f"{spent:.1f} s, {time.monotonic() - start:.1f} s by the clock"
    )  # starting Python included
