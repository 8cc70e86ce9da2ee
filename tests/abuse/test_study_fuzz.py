"""Journals and records of studies that came from elsewhere, mutated: each is gone on with, or refused in one line.

Where it is gone on with, every row of the front is the price of its own point. `DSE_FUZZ=10000` as for test_fuzz.py.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from cli.conftest import TINY
from cli.synthetic import synthetic_profile
from hypothesis import given
from hypothesis import strategies as st

from abuse import mutants
from abuse.conftest import TALLIES, Tally, Yard
from abuse.pacing import undrawn
from abuse.test_fuzz import share
from abuse.test_study_faults import check_front
from dse.cli import study as command
from dse.profiles.store import write_profile
from dse.results import read_run
from dse.space import load_space
from dse.space.definition import Space

GO_ON = ("study", "tiny.toml", "-o", "fuzzed", "--trials", "1", "--time", "0.5", "--grace", "1")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, Space]]:
    """A yard whose run is a study's."""
    home = tmp_path_factory.mktemp("farm")
    write_profile(home / "tiny.npz", synthetic_profile())
    (home / "tiny.toml").write_text(TINY, encoding="utf-8")
    made = Yard(home, b"", {})
    with mock.patch.object(command, "_draw", undrawn):
        answer, _ = made.dse("study", "tiny.toml", "-o", "run", "--trials", "12")
        assert answer.code == 0, answer
        made.run = {path.name: path.read_bytes() for path in (home / "run").iterdir()}
        yield made, load_space(home / "tiny.toml")


def judged(farm: tuple[Yard, Space], what: str, files: dict[str, bytes], *commands: tuple[str, ...]) -> None:
    """Run commands on the study with these files in place of its own."""
    yard, space = farm
    yard.put_run("fuzzed", files)
    for words in commands:
        answer = yard.judge("studies", what, *words)
        if answer.code == 0 and words[0] == "study":
            check_front(space, read_run(yard.home / "fuzzed").front)
    shutil.rmtree(yard.home / "fuzzed", ignore_errors=True)


@share(0.06)
@given(mutants.mutations)
def test_journals_on_a_bad_disk(farm: tuple[Yard, Space], changes: list[tuple[str, int, int, str]]) -> None:
    content = mutants.damage(farm[0].run["trials.log"], changes)
    judged(farm, f"trials.log: {changes!r}", {"trials.log": content}, GO_ON)


LINES = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["drop", "double", "swap"]), st.integers(0, 10_000)),
    max_size=2,
)
NUMBERS = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from([0, 1, -1, 0.5, 1.0001, 2, 1e9, -1e300])), max_size=3
)


@share(0.10)
@given(mutants.json_changes, st.integers(0, 10_000), LINES, NUMBERS, st.integers(0, 3))
def test_journals_made_up(
    farm: tuple[Yard, Space],
    changes: list[tuple[int, str, object]],
    at: int,
    lines: list[tuple[int, str, int]],
    numbers: list[tuple[int, float]],
    chance: int,
) -> None:
    """Whoever makes one up leaves the checksums out: an older version wrote none."""
    logs = [json.loads(line) for line in farm[0].run["trials.log"].splitlines()]
    for log in logs:
        del log["by"], log["crc"]
    if chance == 0:
        logs[at % len(logs)] = mutants.mutate_json(logs[at % len(logs)], changes)
    for where, kind, other in lines if chance == 1 else ():
        if kind == "drop":
            del logs[where % len(logs)]
        elif kind == "double":
            logs.insert(other % len(logs), logs[where % len(logs)])
        else:
            a, b = where % len(logs), other % len(logs)
            logs[a], logs[b] = logs[b], logs[a]
    if chance > 1:  # values and parameters that look right
        told = [log for log in logs if log["op_code"] in (5, 6)]
        for where, factor in numbers:
            log = told[where % len(told)]
            if log["op_code"] == 6 and log.get("values"):
                log["values"][0] *= factor
            elif log["op_code"] == 5:
                log["param_value_internal"] *= factor
    content = "".join(json.dumps(log) + "\n" for log in logs).encode()
    what = f"trials.log: {(chance, at, changes, lines, numbers)!r}"
    judged(farm, what, {"trials.log": content}, GO_ON)


@share(0.04)
@given(mutants.json_changes, st.booleans())
def test_records_of_studies_made_up(
    farm: tuple[Yard, Space], changes: list[tuple[int, str, object]], only: bool
) -> None:
    record = mutants.mutate_json(json.loads(farm[0].run["run.json"]), changes)
    files = {"run.json": json.dumps(record).encode()}
    judged(
        farm,
        f"run.json: {changes!r}",
        files,
        *((("front", "fuzzed"),) if only else (GO_ON, ("front", "fuzzed"))),
    )


def test_the_studies_were_no_walkover(farm: tuple[Yard, Space]) -> None:
    tally = TALLIES.get("studies", Tally())
    if "DSE_FUZZ" not in os.environ and tally.total < 60:
        pytest.skip("some of this file's tests were left out")
    assert tally.valid > 0.05 * tally.total
    assert tally.refused > 0.1 * tally.total
    assert not Path("fuzzed").exists()
