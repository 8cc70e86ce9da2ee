from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli.conftest import Dse, snapshot


def test_a_sweep_shows_the_front_draws_it_and_says_what_it_found(dse: Dse, home: Path) -> None:
    answer = dse("sweep", "tiny.toml", cwd=home)
    assert answer.code == 0
    run = home / "results" / "tiny"
    assert sorted(p.name for p in run.iterdir()) == ["front.csv", "front.png", "run.json", "space.toml"]
    lines = answer.stdout.splitlines()
    assert (
        lines[0]
        == "tiny, decode, context 1024, batch 1, attention alone; baseline: dense, 12-bit, on topick-gqa"
    )
    assert lines[1].split() == ["algorithm", "vs", "best", "speedup", "accuracy", "loss", "ppl", "energy", "area",
                                "bound", "knobs"]  # fmt: skip
    assert re.match(
        r"At 0\.01 nats per token: token-picker \d\.\d\dx over the best dense \(\d+-bit\), ", lines[-1]
    )
    assert "All of it is in results/tiny." in lines[-2]
    assert all(len(line) <= 100 for line in lines[:-2])


def test_json_is_the_object_of_run_json_and_stdout_holds_nothing_else(dse: Dse, home: Path) -> None:
    answer = dse("sweep", "tiny.toml", "--json", cwd=home)
    assert answer.json == json.loads((home / "results" / "tiny" / "run.json").read_text())
    assert answer.json["status"] == "complete"
    assert answer.json["command"] == "dse sweep tiny.toml"
    assert answer.json["points"] == answer.json["evaluated"]
    assert "At 0.01 nats" in answer.stderr


def test_quiet_leaves_errors_only_on_stderr(dse: Dse, home: Path) -> None:
    assert dse("sweep", "tiny.toml", "--json", "--quiet", cwd=home).stderr == ""


def test_a_complete_run_is_shown_again_and_fresh_computes_it_again(dse: Dse, home: Path) -> None:
    first = dse("sweep", "tiny.toml", cwd=home)
    before = snapshot(home)
    again = dse("sweep", "tiny.toml", cwd=home)
    assert snapshot(home) == before
    assert again.stdout == first.stdout
    assert "shown again" in again.stderr
    fresh = dse("sweep", "tiny.toml", "--fresh", cwd=home)
    assert "shown again" not in fresh.stderr
    after = snapshot(home)
    for name in ("front.csv", "front.png", "space.toml"):  # run.json holds the time it took
        assert after[f"results/tiny/{name}"] == before[f"results/tiny/{name}"]


def test_a_deleted_chart_is_drawn_again(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    chart = home / "results" / "tiny" / "front.png"
    drawn = chart.read_bytes()
    chart.unlink()
    dse("sweep", "tiny.toml", cwd=home)
    assert chart.read_bytes() == drawn


def test_a_run_that_is_computed_again_is_drawn_again(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    run = home / "results" / "tiny"
    drawn = (run / "front.png").read_bytes()
    info = json.loads((run / "run.json").read_text())
    del info["sha256"]
    info["versions"]["dse"] = "0.0.1"
    (run / "run.json").write_text(json.dumps(info))
    (run / "front.png").write_bytes(b"of another run")
    assert "computing it again" in dse("sweep", "tiny.toml", cwd=home).stderr
    assert (run / "front.png").read_bytes() == drawn


def test_an_override_changes_the_space_and_the_directory(dse: Dse, home: Path) -> None:
    answer = dse("sweep", "tiny.toml", "--set", "hardware.lanes=24", "--json", cwd=home)
    (run,) = (home / "results").iterdir()
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", run.name)
    assert tomllib.loads((run / "space.toml").read_text())["hardware"]["lanes"] == 24
    assert answer.json["command"] == "dse sweep tiny.toml --set hardware.lanes=24"


def test_the_resolved_space_of_a_run_gives_the_same_run(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    dse("sweep", "results/tiny/space.toml", "--set", 'workload.profile="tiny.npz"', "-o", "again", cwd=home)
    assert (home / "again" / "front.csv").read_text() == (home / "results" / "tiny" / "front.csv").read_text()


@pytest.mark.parametrize("engine", ["threading", "loky"])
def test_workers_change_nothing(dse: Dse, home: Path, swept: Path, engine: str) -> None:
    answer = dse("sweep", "tiny.toml", "--jobs", 2, "--engine", engine, "-o", "parallel", cwd=home)
    assert answer.code == 0
    expected = (swept / "results" / "tiny" / "front.csv").read_text()
    assert (home / "parallel" / "front.csv").read_text() == expected


def test_a_space_that_nothing_fits_fails_and_leaves_nothing(dse: Dse, home: Path) -> None:
    answer = dse("sweep", "tiny.toml", "--set", "constraints.area_mm2={max=0.1}", cwd=home)
    assert answer.code == 1
    assert answer.stderr.startswith("error: ")
    assert "area_mm2" in answer.stderr
    assert not (home / "results").exists()


def test_a_true_process(home: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dse", "sweep", "tiny.toml", "--json"],
        cwd=home, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["space"] == "tiny"
    assert "\x1b" not in done.stderr


def test_a_reference_that_no_point_beats_is_said(dse: Dse, home: Path) -> None:
    answer = dse("sweep", "tiny.toml", "--set", "objectives.reference.speedup=100", "-o", "far", cwd=home)
    assert answer.code == 0
    assert "note: the hypervolume is 0: no point is better than objectives.reference" in answer.stderr
    assert "hypervolume is 0" not in dse("sweep", "tiny.toml", "-o", "near", cwd=home).stderr
    for value in ("-1e61", "1e308"):
        answer = dse("sweep", "tiny.toml", "--set", f"objectives.reference.speedup={value}", cwd=home)
        assert answer.code == 2
        assert "objectives.reference.speedup: found" in answer.stderr
        assert answer.stderr.endswith("must be at most 1e+60 in size\n")
