"""Run directories of older versions stay readable; what cannot go on with them says what to do. So do newer ones.

`tests/examples/runs` holds runs as versions before this one wrote them: `first` of the first that wrote any, `prompts`
of the one that first priced prompts. They are never made anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Answer, Dse

RUNS = Path(__file__).parents[1] / "examples" / "runs"
PROMPT_POINTS = 19
FIRST_POINTS = 25


@pytest.fixture(params=sorted(p.name for p in RUNS.iterdir()))
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(RUNS / request.param, tmp_path / "older"))


def content(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def refused(answer: Answer) -> str:
    assert (answer.code, answer.stdout) == (2, "")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


def test_it_is_shown(dse: Dse, older: Path) -> None:
    rows = dse("front", "older", "--json").json
    said = json.loads((older / "run.json").read_text(encoding="utf-8"))
    assert len(rows) == said["front"]
    assert {"point", "speedup", "nll_increase", "algorithm"} <= set(rows[0])
    assert dse("front", "older").code == 0


@pytest.mark.parametrize("kind", ["front", "knobs", "parallel", "breakdown"])
def test_it_is_drawn(dse: Dse, older: Path, kind: str) -> None:
    answer = dse("plot", "older", "--kind", kind, "-o", "older.png")
    if answer.code:  # a picture of what older versions did not write
        assert "sweep" in refused(answer)
    else:
        assert (older.parent / "older.png").stat().st_size > 5_000


def test_it_is_compared_and_reported(dse: Dse, older: Path) -> None:
    answer = dse("compare", "older", Path.cwd() / "results/published/quickstart")
    assert answer.code == 0, answer
    assert "the profiles differ" in answer.stderr
    assert dse("report", "older", "--no-validation", "-o", "older.html").code == 0


def test_what_needs_the_profile_it_was_made_with_says_so(dse: Dse, tmp_path: Path) -> None:
    shutil.copytree(RUNS / "first", tmp_path / "older")
    before = content(tmp_path / "older")
    assert "is not the one this space was run with" in refused(dse("explain", "older", "1"))
    assert "is not the one this space was run with" in refused(dse("sweep", "older/space.toml"))
    assert "holds a run of another space" in refused(dse("sweep", "quickstart", "-o", "older"))
    assert content(tmp_path / "older") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("run.json", '"schema": 1', '"schema": 2'), ("space.toml", "schema = 1", "schema = 2")],
)
def test_a_newer_one_says_what_to_do(dse: Dse, older: Path, file: str, old: str, new: str) -> None:
    text = (older / file).read_text(encoding="utf-8")
    if old not in text:  # the first versions numbered spaces only
        text = text.replace("{", '{"schema": 1,', 1)
    (older / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    before = content(older)
    for command in (("front", "older"), ("plot", "older"), ("explain", "older", "1"), ("report", "older")):
        line = refused(dse(*command))
        assert file in line
        assert "schema" in line
        assert "newer version of dse" in line
    assert content(older) == before
