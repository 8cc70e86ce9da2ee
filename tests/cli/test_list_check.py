from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Dse
from dse.profiles.store import shipped_profiles
from dse.space import shipped_spaces

KINDS = ("algorithms", "hardware", "parameters", "components", "profiles")


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_fits_the_window_and_its_json_is_an_array_of_named_entries(dse: Dse, kind: str) -> None:
    answer = dse("list", kind)
    assert answer.code == 0
    assert max(map(len, answer.stdout.splitlines())) <= 100
    entries = dse("list", kind, "--json").json
    assert isinstance(entries, list)
    names = [entry["name"] for entry in entries]
    assert len(set(names)) == len(names)
    for name in names:
        assert name in answer.stdout


def test_lists_hold_what_a_space_may_name(dse: Dse) -> None:
    assert {"dense", "token-picker", "spatten"} <= {
        e["name"] for e in dse("list", "algorithms", "--json").json
    }
    assert {"topick", "topick-gqa"} <= {e["name"] for e in dse("list", "hardware", "--json").json}
    assert {"lanes", "dram_channels"} <= {e["name"] for e in dse("list", "parameters", "--json").json}
    assert all(e["source"] and e["confidence"] for e in dse("list", "components", "--json").json)


def test_check_says_how_large_a_space_is_without_running_it(dse: Dse, home: Path) -> None:
    answer = dse("check", "tiny.toml", cwd=home)
    assert answer.code == 0
    assert answer.stdout.startswith("tiny: 48 points\n")
    assert "dense, 12-bit, on topick-gqa" in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 100
    assert not (home / "results").exists()
    about = dse("check", "tiny.toml", "--json", cwd=home).json
    assert about["points"] == 48
    assert sum(entry["points"] for entry in about["algorithms"].values()) == 48


def test_check_counts_what_a_sweep_evaluates(dse: Dse, home: Path) -> None:
    points = dse("check", "tiny.toml", "--json", cwd=home).json["points"]
    assert dse("sweep", "tiny.toml", "--json", cwd=home).json["evaluated"] == points


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_space_is_valid_and_ends_in_seconds(dse: Dse, name: str) -> None:
    if not shipped_profiles():
        pytest.skip("no profile is shipped with this checkout")
    answer = dse("check", name, "--json")
    assert answer.code == 0, answer.stderr
    assert 1_000 <= answer.json["points"] <= 5_000_000
    assert answer.json["name"] == name
    assert answer.json["description"]
    assert not any(entry["interpolated"] for entry in answer.json["algorithms"].values())
