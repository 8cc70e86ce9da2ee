"""The table of a study's trials, drawn: what no study writes is refused in one line, and nothing is changed."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from cli.conftest import Dse

from dse.checksums import KEY
from dse.outputs import write_together
from dse.results import read_run
from dse.space.definition import Space
from dse.study.directory import prepared, write
from dse.study.run import study
from dse.study.trials import TRIALS, read_trials

COUNT = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, space: Space) -> Path:
    """A study's run directory, to be copied."""
    path = tmp_path_factory.mktemp("made") / "run"
    with prepared(path, space, "made") as place:
        write(path, study(space, trials=COUNT, sampler="random", storage=place, name="made"))
    return path


@pytest.fixture
def run(made: Path, home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def unsealed(run: Path) -> None:
    """As older versions wrote it: without the table's checksum."""
    info = json.loads((run / "run.json").read_text())
    del info[KEY][TRIALS]
    (run / "run.json").write_text(json.dumps(info))


def put(run: Path, column: str, cell: str) -> None:
    """A cell of the first feasible trial."""
    columns, *rows = csv.reader(StringIO((run / TRIALS).read_text()))
    at = next(i for i, row in enumerate(rows) if row[columns.index("feasible")] == "True")
    rows[at][columns.index(column)] = cell
    (run / TRIALS).write_text("".join(",".join(row) + "\n" for row in (columns, *rows)))


def plot(dse: Dse, run: Path, kind: str, *more: str) -> str:
    """The one line that a chart is refused with."""
    answer = dse("plot", run, "-k", kind, *more, "-o", run.parent / "x.svg", cwd=run.parent)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1), answer
    assert not (run.parent / "x.svg").exists()
    return answer.stderr


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("speedup", "1e300", "speedup: found '1e300'; must be a number of at most 1e+60"),
        ("speedup", "nan", "speedup: found 'nan'"),
        ("speedup", "inf", "speedup: found 'inf'"),
        ("nll_increase", "fast", "nll_increase: found 'fast'"),
        ("nll_increase", "", "nll_increase: found ''"),
        ("algorithm", "spaten", "did you mean 'spatten'"),
        ("feasible", "yes", "feasible: found 'yes'; must be True or False"),
        ("trial", "one", "trial: found 'one'; must be a whole number"),
        ("trial", "99999", "larger than the one before"),
        ("trial", "9" * 5000, "trial: found '9999"),
    ],
)
@pytest.mark.parametrize("kind", ["hypervolume", "importance"])
def test_what_no_study_writes_is_refused(
    dse: Dse, run: Path, kind: str, column: str, cell: str, message: str
) -> None:
    unsealed(run)
    put(run, column, cell)
    line = plot(dse, run, kind)
    assert message in line
    assert f"{TRIALS}:" in line


def test_a_changed_digit_is_noticed(dse: Dse, run: Path) -> None:
    put(run, "speedup", "1.5")
    assert "trials.csv: was changed since it was written" in plot(dse, run, "hypervolume")
    unsealed(run)
    assert len(read_trials(read_run(run))) == COUNT


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("make", "message"),
    [(_pipe, "is a device or a pipe"), (Path.mkdir, "is a directory"), (_binary, "is not text"), (Path.touch, "is damaged"),
     (lambda path: path.write_text("trial,algorithm,feasible,speedup,nll_increase\n"), "no trial"),
     (lambda path: None, "no such file")],
)  # fmt: skip
def test_what_is_no_table_is_refused(
    dse: Dse, run: Path, make: Callable[[Path], object], message: str
) -> None:
    (run / TRIALS).unlink()
    make(run / TRIALS)
    assert message in plot(dse, run, "hypervolume")


def test_a_study_of_one_objective_is_read(space: Space, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = write(out, study(space, trials=20, sampler="random", objective="speedup"))
    assert len(read_trials(run)) == 20


def test_a_chart_leaves_the_study_as_it_is(dse: Dse, run: Path) -> None:
    """Somebody may be adding to it, or it may be closed to writing."""
    with open(run / "trials.log", "ab") as file:
        file.write(b'{"op_code":4,"worker_id"')  # a line that is being written
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    words = ("plot", run, "-k", "hypervolume", "-x", "seconds", "-o", run.parent / "h.svg")
    answer = dse(*words)
    assert answer.code == 0, answer.stderr
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_all_files_of_a_run_are_replaced_together(
    space: Space, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []

    def seen(directory: Path, texts: dict[str, str]) -> None:
        written.append(list(texts))
        write_together(directory, texts)

    monkeypatch.setattr("dse.results.write_together", seen)
    before = (run / "front.csv").read_bytes()
    write(run, study(space, trials=5, storage=f"journal:{run / 'trials.log'}", name="made"))
    assert written == [["space.toml", "front.csv", TRIALS, "run.json"]]
    assert before
    assert len(read_trials(read_run(run))) == COUNT + 5


@pytest.mark.parametrize("word", ["", "\x1b[2J"])
def test_what_is_no_name_is_refused(dse: Dse, home: Path, word: str) -> None:
    for words in (("study", word), ("study", "tiny.toml", "--warm-start", word)):
        answer = dse(*words, cwd=home)
        assert (answer.code, "\x1b" in answer.stderr) == (2, False)
        assert "must be the name of" in answer.stderr or "printable" in answer.stderr
