from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from profiles.synthetic import profile

from dse.errors import BadInput, DseError
from dse.profiles.store import write_profile
from dse.results import write_run
from dse.search import engine as engines
from dse.search import sweep as sweeping
from dse.search.keep import FOLDER, Pieces
from dse.search.shards import Found
from dse.search.sweep import sweep
from dse.space import load_space

PROFILE = profile()
TABLE: dict[str, Any] = {
    "schema": 1,
    "name": "kept",
    "workload": {"profile": "tiny", "context": 128},
    "algorithms": {"alpha": {"threshold": "all", "chunks": ["6+6", "12"]}, "beta": {}},
    "hardware": {
        "base": "topick", "lanes": [4, 8, 16, 32], "dram_channels": [1, 2, 4, 8], "multipliers": [4, 8, 16],
        "heads_in_flight": [1, 2, 4], "exponent_units": [1, 4],
    },
    "objectives": {"maximize": ["speedup"], "minimize": ["nll_increase", "energy_j"]},
    "constraints": {"area_mm2": {"max": 40}},
}  # fmt: skip


@pytest.fixture
def _in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small spaces are taken apart, cut into many pieces and kept, as large ones are."""
    monkeypatch.setattr(sweeping, "APART_POINTS", 0)
    monkeypatch.setattr(sweeping, "KEEP_POINTS", 0)
    monkeypatch.setattr(sweeping, "TASK_POINTS", (60, 100))


def test_a_piece_survives_the_disk(tmp_path: Path) -> None:
    piece = Found(
        np.array([[1.0, -0.0], [2.5, 3.0]]), np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([0, 7]),
        np.array([5, 1 << 40]), np.array([1, 9]), evaluated=10, infeasible=3, broken={"area_mm2": 3},
        closest=(0.5, {"area_mm2": 1.25}), fastest={3: 1e-6}, excluded={"dominated": 1 << 50},
    )  # fmt: skip
    Pieces(tmp_path, {"space": "a"}).save(4, piece)
    (found,) = (again := Pieces(tmp_path, {"space": "a"}).load()).values()
    assert list(again) == [4]
    for name, value in vars(piece).items():
        assert np.array_equal(getattr(found, name), value), name


def test_a_damaged_piece_counts_as_not_done(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, {"space": "a"})
    for number in range(3):
        pieces.save(number, Found.nothing(2))
    path = tmp_path / FOLDER / "000001.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert sorted(pieces.load()) == [0, 2]


def _saved(**change: Any) -> dict[str, Any]:
    """The arrays of a piece of two rows, some of them changed."""
    numbers = {
        "evaluated": 10, "infeasible": 3, "broken": {"area_mm2": 3}, "excluded": {}, "fastest": [[0, 1e-6]],
        "closest": [None, {}],
    }  # fmt: skip
    arrays = {
        "costs": np.array([[1.0, -2.0], [2.5, -3.0]]), "area": np.ones(2), "energy": np.ones(2),
        "setting": np.array([0, 1]), "design": np.array([5, 6]), "count": np.array([1, 9]),
        "numbers": np.array(json.dumps({**numbers, **change.pop("counts", {})})),
    }  # fmt: skip
    return {name: array for name, array in {**arrays, **change}.items() if array is not None}


STRANGE: dict[str, dict[str, Any]] = {
    "an array more": {"more": np.ones(1)},
    "an array less": {"area": None},
    "fewer rows": {"energy": np.ones(1)},
    "more axes": {"costs": np.ones((2, 2, 2))},
    "single precision": {"costs": np.ones((2, 2), np.float32)},
    "numbers as objects": {"setting": np.array([0, 1], dtype=object)},
    "not a number": {"costs": np.array([[1.0, np.nan], [1.0, 2.0]])},
    "infinite": {"costs": np.array([[1.0, -np.inf], [1.0, 2.0]])},
    "counted nothing": {"count": np.array([0, 1])},
    "negative": {"counts": {"evaluated": -1}},
    "a truth value": {"counts": {"infeasible": True}},
    "a fraction": {"counts": {"excluded": {"dominated": 0.5}}},
    "a setting that is no number": {"counts": {"fastest": [["0", 1e-6]]}},
    "a setting beyond all": {"counts": {"fastest": [[1e300, 1e-6]]}},
    "a latency in words": {"counts": {"fastest": [[0, "nan"]]}},
    "a latency below nothing": {"counts": {"fastest": [[0, -5.0]]}},
    "a distance in words": {"counts": {"closest": ["nan", {}]}},
    "beyond 64 bits": {"counts": {"evaluated": 1 << 70}},
    "a list": {"numbers": np.array("[]")},
    "no JSON": {"numbers": np.array("nan")},
    "deep": {"numbers": np.array("[" * 5000)},
    "bytes": {"numbers": np.array(b"{}")},
}


@pytest.mark.parametrize("change", STRANGE)
def test_a_strange_piece_counts_as_not_done(tmp_path: Path, change: str) -> None:
    pieces = Pieces(tmp_path, {"space": "a"})
    path = tmp_path / FOLDER / "000001.npz"
    np.savez(path, **_saved())
    assert list(pieces.load()) == [1]
    np.savez(path, **_saved(**STRANGE[change]))
    assert list(pieces.load()) == []


def test_what_is_no_file_counts_as_not_done(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, {"space": "a"})
    folder = tmp_path / FOLDER
    os.mkfifo(folder / "000001.npz")
    (folder / "000002.npz").symlink_to("/dev/zero")
    (folder / "000003.npz").mkdir()
    np.savez_compressed(folder / "000004.npz", **_saved())  # might unpack to anything
    np.savez(folder / "5.npz", **_saved())
    np.savez(folder / "1e1000.npz", **_saved())
    assert pieces.load() == {}


@pytest.mark.usefixtures("_in_pieces")
def test_pieces_that_reach_beyond_the_space_are_computed_again(tmp_path: Path) -> None:
    space = load_space(TABLE, profile=PROFILE)
    whole = sweep(space)
    for name, value in (
        ("setting", 1000),
        ("setting", -1),
        ("design", 1 << 40),
        ("design", -1),
        ("costs", None),
    ):
        _stop_after(space, tmp_path, 3)
        path = sorted((tmp_path / FOLDER).glob("*.npz"))[0]
        with np.load(path, allow_pickle=False) as data:
            content = {key: data[key] for key in data.files}
        content[name] = content[name][:, :1] if value is None else np.full_like(content[name], value)
        np.savez(path, **content)
        resumed = sweep(space, keep=tmp_path)
        pd.testing.assert_frame_equal(whole.front, resumed.front)
        write_run(tmp_path, resumed)
        shutil.rmtree(tmp_path)


@pytest.mark.usefixtures("_in_pieces")
def test_pieces_that_do_not_add_up_to_the_space_are_refused(tmp_path: Path) -> None:
    space = load_space(TABLE, profile=PROFILE)
    _stop_after(space, tmp_path, 3)
    path = sorted((tmp_path / FOLDER).glob("*.npz"))[0]
    with np.load(path, allow_pickle=False) as data:
        content = {key: data[key] for key in data.files}
    numbers = json.loads(str(content["numbers"]))
    numbers["evaluated"], numbers["excluded"] = 1, {}
    np.savez(path, **{**content, "numbers": np.array(json.dumps(numbers))})
    with pytest.raises(DseError, match=r"come to \d+ points, the space has \d+; --fresh"):
        sweep(space, keep=tmp_path)


@pytest.mark.usefixtures("_in_pieces")
@pytest.mark.parametrize(
    ("change", "named"),
    [({"space": "x"}, "another space"), ({"profile": "x"}, "another profile"), ({"dse": "9"}, "another dse")],
)
def test_what_changed_is_named_and_nothing_is_touched(
    tmp_path: Path, change: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load_space(TABLE, profile=PROFILE)
    _stop_after(space, tmp_path, 2)
    before = {p.name: p.read_bytes() for p in (tmp_path / FOLDER).iterdir()}
    content = sweeping._Run._content
    monkeypatch.setattr(sweeping._Run, "_content", lambda self, n: {**content(self, n), **change})
    with pytest.raises(BadInput, match=f"unfinished sweep with {named}"):
        sweep(space, keep=tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / FOLDER).iterdir()} == before


class _Stop(Exception):
    pass


def _stop_after(space: Any, directory: Path, pieces: int) -> None:
    """A sweep that stops after some pieces."""
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == pieces:
            raise _Stop

    with pytest.raises(_Stop):
        sweep(space, keep=directory, progress=progress)


@pytest.mark.usefixtures("_in_pieces")
def test_a_stopped_sweep_goes_on_with_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space(TABLE, profile=PROFILE)
    whole = sweep(space)
    _stop_after(space, tmp_path, 5)
    done: list[Any] = []
    real = sweeping.compute
    monkeypatch.setattr(
        sweeping, "compute", lambda f, pieces, jobs, engine: real(_noting(f, done), pieces, jobs, engine)
    )
    resumed = sweep(space, keep=tmp_path)
    count = len(_Tasks(space))
    assert len([d for d in done if d.goal.objectives == space.objectives]) == count - 5
    pd.testing.assert_frame_equal(whole.front, resumed.front)
    for name in ("evaluated", "excluded", "infeasible", "hypervolume"):
        assert whole.info[name] == resumed.info[name]
    write_run(tmp_path, resumed)
    assert not (tmp_path / FOLDER).exists()


def _noting(function: Any, done: list[Any]) -> Any:
    def noted(task: Any) -> Any:
        done.append(task)
        return function(task)

    return noted


def _Tasks(space: Any) -> list[Any]:
    run = sweeping._Run(space, None, 1, "loky", None, True, None)
    return run.tasks(run.goal)


DRIVER = """
import sys, time
from pathlib import Path
from dse.results import write_run
from dse.search import sweep as sweeping
from dse.space import load_space
sweeping.APART_POINTS, sweeping.KEEP_POINTS, sweeping.TASK_POINTS = 0, 0, (60, 100)
table, out = Path(sys.argv[1]), Path(sys.argv[2])
slow = lambda done, total: time.sleep(0.02)
write_run(out, sweeping.sweep(load_space(table), keep=out, progress=slow))
"""


def test_kill_at_any_moment_and_go_on(tmp_path: Path) -> None:
    import tomli_w

    write_profile(tmp_path / "tiny.npz", PROFILE)
    file = tmp_path / "kept.toml"
    file.write_text(tomli_w.dumps({**TABLE, "workload": {"profile": "tiny.npz", "context": 128}}))
    command = [sys.executable, "-c", DRIVER, str(file)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    chance, kills = random.Random(1), 0
    killed = tmp_path / "killed"
    while kills < 2:
        process = subprocess.Popen([*command, str(killed)])
        pieces = len(list(killed.glob(f"{FOLDER}/*.npz")))
        while process.poll() is None and len(list(killed.glob(f"{FOLDER}/*.npz"))) < pieces + 2:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        assert len(list(killed.glob(f"{FOLDER}/*.npz"))) >= pieces + 2
    assert kills == 2
    subprocess.run([*command, str(killed)], check=True)
    assert (killed / "front.csv").read_bytes() == (tmp_path / "whole" / "front.csv").read_bytes()


@pytest.mark.usefixtures("_in_pieces")
@pytest.mark.parametrize("engine", ["threading", "loky"])
def test_engines_find_the_same_front(engine: str) -> None:
    space = load_space(TABLE, profile=PROFILE)
    alone, together = sweep(space), sweep(space, jobs=2, engine=engine)
    pd.testing.assert_frame_equal(alone.front, together.front)
    assert alone.info["excluded_by"] == together.info["excluded_by"]


def test_engines_that_are_not() -> None:
    for engine in ("thread", "loky:tcp://x", "dask:"):
        with pytest.raises(BadInput, match="no such engine"):
            engines.check_engine(engine, 1)


def _slow(number: int) -> int:
    time.sleep(0.1)
    return number * number


def test_dask_finishes_when_a_worker_is_killed() -> None:
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        engine = f"dask:{cluster.scheduler_address}"
        found: dict[int, int] = {}
        for number, value in engines.compute(_slow, [(n, n) for n in range(30)], 1, engine):
            found[number] = value
            if len(found) == 5:
                os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        assert found == {n: n * n for n in range(30)}


@pytest.mark.usefixtures("_in_pieces")
def test_dask_finds_the_same_front() -> None:
    pytest.importorskip("distributed", reason="needs dask[distributed]")
    space = load_space(TABLE, profile=PROFILE)
    alone, together = sweep(space), sweep(space, jobs=2, engine="dask")
    pd.testing.assert_frame_equal(alone.front, together.front)
