from __future__ import annotations

import json
from pathlib import Path

import pytest
from search.test_match import CONFIRMATION, SELECTION

from cli.conftest import Dse, snapshot
from dse.profiles.store import write_profile

SPACE = """\
schema = 1
[workload]
profile = "tiny.npz"
context = 1024
[algorithms.token-picker]
threshold = [1e-4, 1e-3, 1e-2]
[algorithms.spatten]
keep = [0.3, 0.9]
[hardware]
base = "topick-gqa"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_profile(tmp_path / "tiny.npz", SELECTION)
    (tmp_path / "tiny.toml").write_text(SPACE)
    return tmp_path


def test_one_command_chooses_judges_and_writes(dse: Dse, place: Path) -> None:
    write_profile(place / "tiny-confirmation.npz", CONFIRMATION)
    answer = dse("match", "tiny.toml", cwd=place)
    assert answer.code == 0, answer.stderr
    assert "settings chosen on tiny, figures from tiny-confirmation (12 windows)" in answer.stdout
    assert "one design" in answer.stdout
    assert "Within 0.1 nats: " in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 100
    folder = place / "results" / "tiny-match"
    assert sorted(p.name for p in folder.iterdir()) == [
        "match.csv", "match.json", "match.png", "match.svg", "settings.toml", "space.toml",
    ]  # fmt: skip
    first = snapshot(folder)
    again = dse("match", "tiny.toml", "--json", cwd=place)
    assert again.json == json.loads((folder / "match.json").read_text())
    assert snapshot(folder) == first
    assert b"token-picker" in first["match.svg"]


def test_the_confirmation_profile_lies_beside_the_profile_wherever_the_command_runs(
    dse: Dse, place: Path, tmp_path: Path
) -> None:
    sub = tmp_path / "sub"
    sub.mkdir()
    for name in ("tiny.npz", "tiny.toml"):
        (place / name).rename(sub / name)
    answer = dse("match", "sub/tiny.toml", "--loss", "0.01", cwd=tmp_path)
    assert answer.code == 2
    assert "confirmation profile 'sub/tiny-confirmation.npz': not there" in answer.stderr
    assert answer.stderr.rstrip().endswith("--confirmation tiny-confirmation/tiny-confirmation.npz")
    write_profile(sub / "tiny-confirmation.npz", CONFIRMATION)
    answer = dse("match", "sub/tiny.toml", "--loss", "0.01", cwd=tmp_path)
    assert answer.code == 0, answer.stderr
    assert "figures from tiny-confirmation" in answer.stdout


def test_every_query_head_for_itself_is_marked(dse: Dse, place: Path) -> None:
    write_profile(place / "tiny-confirmation.npz", CONFIRMATION)
    answer = dse("match", "tiny.toml", "--set", "workload.grouped=false", "-o", "m", cwd=place)
    assert "as if every query head had its own keys and values" in " ".join(answer.stdout.split())
    assert json.loads((place / "m" / "match.json").read_text())["grouped"] is False


def test_without_a_confirmation_profile_the_commands_that_make_one_are_named(dse: Dse, place: Path) -> None:
    answer = dse("match", "tiny.toml", "--all", cwd=place)
    assert answer.code == 2
    assert (
        "dse match tiny.toml --loss 0.003,0.01,0.03,0.1 --all --settings-only -o settings.toml"
        in answer.stderr
    )
    assert "--part confirmation --name tiny-confirmation --context 1024 --model none" in answer.stderr
    assert not (place / "results").exists()


def test_settings_only_prints_or_writes_a_grid(dse: Dse, place: Path) -> None:
    printed = dse("match", "tiny.toml", "--settings-only", "--loss", "0.01", cwd=place)
    assert printed.code == 0
    assert printed.stdout.count("[[grid]]") >= 3
    assert dse("match", "tiny.toml", "--settings-only", "--loss", "0.01", "-o", "s.toml", cwd=place).code == 0
    assert (place / "s.toml").read_text() == printed.stdout
    refused = dse("match", "tiny.toml", "--settings-only", "-o", ".", cwd=place)
    assert refused.code == 2
    assert "is a directory" in refused.stderr


@pytest.mark.parametrize("loss", ["a,b", "0.01;0.03", "0", "-1,0.1", "nan", ","])
def test_budgets_are_numbers(dse: Dse, place: Path, loss: str) -> None:
    answer = dse("match", "tiny.toml", "--loss", loss, cwd=place)
    assert answer.code == 2
    assert f"--loss {loss}: must be positive numbers" in answer.stderr


@pytest.mark.parametrize("space", ["quickstart", "equal-budget", "topick"])
def test_what_a_shipped_space_chooses_was_measured_on_other_text(
    dse: Dse, space: str, tmp_path: Path
) -> None:
    answer = dse("match", space, "-o", "found", cwd=tmp_path)
    assert answer.code == 0, answer.stderr
    assert "figures from smollm2-135m-confirmation (16 windows)" in answer.stdout
