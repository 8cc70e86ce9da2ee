from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from cli.conftest import Dse
from dse.profiles.store import shipped_profiles
from dse.space import shipped_spaces

KINDS = ("algorithms", "hardware", "processors", "parameters", "components", "profiles")


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


def test_processors_are_listed_with_every_value_its_unit_and_its_source(dse: Dse) -> None:
    entries = {e["name"]: e for e in dse("list", "processors", "--json").json}
    assert set(entries) >= {
        "titan-xp",
        "xeon-e5-2640-v4",
        "jetson-nano",
        "a100-40gb",
        "a100-80gb",
        "h100-sxm",
        "h200",
    }
    titan = entries["titan-xp"]
    assert titan["layer_launch_us"] == pytest.approx(402)
    assert titan["parameters"]["memory_gbps"]["value"] == titan["memory_gbps"] == 547.7
    assert titan["parameters"]["operand_bits"]["value"] == 32
    assert all(
        v["source"] and v["confidence"] and v["unit"]
        for e in entries.values()
        for v in e["parameters"].values()
    )


def test_a_processor_as_the_baseline_is_named_and_its_nature_said(dse: Dse, home: Path) -> None:
    override = ("--set", "baseline.processor=titan-xp")
    answer = dse("check", "tiny.toml", *override, cwd=home)
    assert answer.code == 0
    assert "baseline     titan-xp, 32-bit\n" in answer.stdout
    assert "the baseline titan-xp spends" in answer.stderr
    baseline = dse("check", "tiny.toml", *override, "--json", cwd=home).json["baseline"]
    assert baseline["processor"] == "titan-xp"
    assert baseline["bound"] == "launches"
    assert baseline["launch_share"] > 0.9
    assert baseline["parameters"]["power_w"] == 88
    quiet = dse(
        "check",
        "tiny.toml",
        "--set",
        "baseline.processor=a100-40gb",
        "--set",
        "workload.batch=4096",
        cwd=home,
    )
    assert "spends" not in quiet.stderr
    wrong = dse("check", "tiny.toml", "--set", "baseline.processor=titanxp", cwd=home)
    assert wrong.code == 2
    assert (
        "--set baseline.processor: no processor or file 'titanxp'; did you mean 'titan-xp'?" in wrong.stderr
    )


def test_a_run_against_a_processor_records_and_shows_it(dse: Dse, home: Path) -> None:
    answer = dse("sweep", "tiny.toml", "--set", "baseline.processor=titan-xp", "-o", "run", cwd=home)
    assert answer.code == 0, answer.stderr
    assert "baseline: titan-xp, 32-bit" in answer.stdout + answer.stderr
    info = json.loads((home / "run" / "run.json").read_text())
    assert info["baseline"]["processor"] == "titan-xp"
    assert info["baseline"]["latency_s"] > 0
    assert any("titan-xp" in note for note in info["notes"])
    resolved = tomllib.loads((home / "run" / "space.toml").read_text())["baseline"]
    assert resolved["processor"] == "titan-xp"
    assert resolved["parameters"]["launch_us"] == 33.5
    again = dse("sweep", "run/space.toml", "-o", "run", "--json", cwd=home)
    assert again.code == 0, again.stderr
    assert again.json["space_digest"] == info["space_digest"]
    assert dse("plot", "run", "-o", "front.svg", cwd=home).code == 0


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
    if name == "prefill" and "smollm2-135m-prefill" not in shipped_profiles():
        assert "holds 'decode'" in answer.stderr
        pytest.skip("no profile of prompts is shipped with this checkout")
    assert answer.code == 0, answer.stderr
    # These two say so in their names: most of their points are left out by proof.
    most = {"billion": 5_000_000_000, "trillion": 5_000_000_000_000}
    assert 1_000 <= answer.json["points"] <= most.get(name, 5_000_000)
    assert answer.json["name"] == name
    assert answer.json["description"]
    assert not any(entry["interpolated"] for entry in answer.json["algorithms"].values())
