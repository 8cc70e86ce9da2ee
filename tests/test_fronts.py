"""`front.csv` read back: no number that no machine has, no value that the space has not."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from profiles.synthetic import profile
from search.brute import price

from dse.checksums import KEY, checksums
from dse.errors import BadInput
from dse.fronts import read_front
from dse.results import read_run, write_run
from dse.search.sweep import SweepResult, sweep
from dse.space import load_space

SPACE = load_space(
    {
        "schema": 1,
        "name": "small",
        "workload": {"profile": "tiny", "context": 128},
        "algorithms": {"alpha": {"threshold": "all", "chunks": ["12"]}, "beta": {"keep": "all"}},
        "hardware": {"base": "topick", "lanes": [4, 8], "layout": ["planes", "token-major"], "for": {"beta": {"lanes": 12}}},
    },
    profile=profile(),
)  # fmt: skip
RESULT = sweep(SPACE, pricer=price)
Change = Callable[[dict[str, str]], None]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", RESULT)
    return tmp_path / "run"


def rewrite(run: Path, algorithm: str, column: str, cell: str, **info: object) -> None:
    """Put a cell into the first row of an algorithm, the checksums made to fit."""
    columns, *rows = csv.reader(StringIO((run / "front.csv").read_text()))
    at = next(i for i, row in enumerate(rows) if row[columns.index("algorithm")] == algorithm)
    rows[at][columns.index(column)] = cell
    text = "\n".join(",".join(row) for row in (columns, *rows)) + "\n"
    (run / "front.csv").write_text(text)
    record = json.loads((run / "run.json").read_text()) | info
    (run / "run.json").write_text(json.dumps(record | {KEY: checksums(SPACE, text, record)}))


@pytest.mark.parametrize(
    ("algorithm", "column", "cell", "message"),
    [
        ("alpha", "speedup", "0", "speedup: found 0 for point"),
        ("alpha", "speedup", "-1.5", "must be above 0"),
        ("beta", "latency_s", "0.0", "latency_s: found 0"),
        ("beta", "energy_j", "1e308", "energy_j: found 1e+308 for point"),
        ("dense", "nll_increase", "-1e61", "must be at most 1e+60"),
        ("alpha", "alpha.threshold", "0.123", "alpha.threshold: found 0.123; the space has"),
        ("alpha", "alpha.threshold", "", "alpha.threshold: found nan; the space has"),
        ("alpha", "alpha.chunks", "6+6", "alpha.chunks: found '6+6'; the space has 12"),
        ("alpha", "hardware.lanes", "12", "hardware.lanes: found 12; the space has 4, 8"),
        ("beta", "hardware.lanes", "8", "hardware.lanes: found 8; the space has 12"),
        ("dense", "hardware.layout", "columns", "hardware.layout: found 'columns'; the space has planes, token-major"),
        ("dense", "hardware.clock_ghz", "0.7", "hardware.clock_ghz: found 0.7; the space has 0.5"),
    ],
)  # fmt: skip
def test_what_no_sweep_of_the_space_gives_is_refused(
    run: Path, algorithm: str, column: str, cell: str, message: str
) -> None:
    rewrite(run, algorithm, column, cell)
    with pytest.raises(BadInput) as caught:
        read_run(run)
    assert message in str(caught.value)
    assert str(run / "front.csv") in str(caught.value)


def test_a_study_may_look_between_the_values_of_an_axis_and_not_beyond(run: Path) -> None:
    low, high = (
        min(SPACE.algorithms["alpha"].knobs["threshold"]),
        max(SPACE.algorithms["alpha"].knobs["threshold"]),
    )
    rewrite(run, "alpha", "alpha.threshold", repr((float(low) + float(high)) / 2), continuous=True)
    read_run(run)
    rewrite(run, "alpha", "alpha.threshold", repr(float(high) * 2), continuous=True)
    with pytest.raises(BadInput, match=r"alpha\.threshold: found"):
        read_run(run)


def test_cells_that_repeat_are_kept_once(run: Path) -> None:
    """A large front fits: text and numbers that are alike share their place, however many rows there are."""
    columns, *rows = csv.reader(StringIO((run / "front.csv").read_text()))
    text = "".join(",".join(row) + "\n" for row in (columns, *(rows * 40)))
    front = read_front(run / "front.csv", text, SPACE)
    alone = read_front(run / "front.csv", (run / "front.csv").read_text(), SPACE)
    assert front.equals(pd.concat([alone] * 40, ignore_index=True))
    assert len({id(value) for value in front["point"]}) == alone["point"].nunique()


@pytest.mark.parametrize(("column", "value"), [("energy_j", 1e100), ("latency_s", 0.0), ("speedup", -1.0)])
def test_what_overflowed_is_never_written(tmp_path: Path, column: str, value: float) -> None:
    """One line names the metric and the point; a finished run that was there stays."""
    write_run(tmp_path / "run", RESULT)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    front = RESULT.front.copy()
    front.loc[front.index[0], column] = value
    with pytest.raises(
        BadInput, match=f"{column}: found .* for point .* no hardware, workload and components"
    ):
        write_run(tmp_path / "run", SweepResult(RESULT.space, front, RESULT.info))
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
