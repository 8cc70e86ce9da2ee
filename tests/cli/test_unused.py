"""An option is heeded or refused: nothing that is typed is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Dse
from dse.cli.app import COMMANDS
from dse.cli.plot import KINDS, OPTIONS

RUN = "results/tiny"

VALUES = {
    "x": "speedup", "y": "speedup", "colour": "speedup", "size": "speedup", "points": "1", "budget": "0.1",
    "algorithm": "spatten", "knob": "keep", "by": "chunks", "over": "workload.batch=1", "overrides": "workload.batch=2",
    "columns": "speedup,energy_j", "samples": "60", "seed": "1",
}  # fmt: skip


def refused(dse: Dse, swept: Path, *arguments: str) -> str:
    answer = dse(*arguments, cwd=swept)
    assert answer.code == 2, (arguments, answer)
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    return answer.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_chart_refuses_what_it_does_not_heed(dse: Dse, swept: Path, kind: str) -> None:
    for name, option in OPTIONS.items():
        if name not in KINDS[kind].takes:
            words = [option, VALUES[name]] if name in VALUES else [option]
            line = refused(dse, swept, "plot", RUN, "--kind", kind, "-o", "never.svg", *words)
            assert f"dse plot: {option}: has no effect here; it is for --kind " in line
    assert not (swept / "never.svg").exists()


def test_every_option_of_charts_is_heeded_by_some_kind() -> None:
    assert {name for kind in KINDS.values() for name in kind.takes} == set(OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plot", RUN, "--kind", "breakdown", "--point", "1", "--budget", "0.1"), "--budget: has no effect here"),
        (("plot", RUN, RUN, "--kind", "winner", "--set", "workload.batch=2"), "--set: has no effect here"),
        (("plot", RUN, "--kind", "winner", "--over", "workload.batch=1,1"), "1 appears twice"),
        (("plot", RUN, "--kind", "winner", "--over", "hardware.lanes=1", "--over", "hardware.lanes=2"), "named twice"),
        (("plot", RUN, "--kind", "winner", "--budget", "nan", "--over", "workload.batch=1"), "must be a finite number"),
        (("plot", RUN, "--kind", "parallel", "--columns", "speedup,speedup"), "'speedup' appears twice"),
        (("front", RUN, "--columns", "speedup,speedup"), "'speedup' appears twice"),
        (("front", RUN, "--columns", ",,"), "no column ''"),
        (("front", RUN, "--sort", "-"), "no column ''"),
        (("front", RUN, "--json", "--format", "csv"), "--format csv: stands beside --json"),
        (("check", "tiny.toml", "--set", "hardware.lanes=8", "--set", "hardware.lanes=16"), "takes the place of --set hardware.lanes=8"),
        (("check", "tiny.toml", "--set", "hardware.lanes=8", "--set", "hardware={}"), "takes the place of --set hardware.lanes=8"),
        (("explain", RUN, "5", "--set", "hardware.lanes=8", "--set", "hardware.lanes=16"), "takes the place of"),
        (("sweep", "tiny.toml", "--engine", "dask:tcp://127.0.0.1:1", "--jobs", "2"), "--jobs: has no effect here; the scheduler's"),
        (("validate", "dense", "--brief", "--json"), "--brief: has no effect here"),
        (("compare", RUN, RUN, "--rows", "3", "--json"), "--rows: has no effect here"),
        (("match", "tiny.toml", "--settings-only", "--replace"), "--replace: has no effect here"),
        (("match", "tiny.toml", "--settings-only", "--confirmation", "x"), "--confirmation: has no effect here"),
        (("match", "tiny.toml", "--settings-only", "--json"), "--json: has no effect here"),
        (("match", "tiny.toml", "--loss", "0.01,0.01"), "must be positive numbers, each once"),
        (("match", "tiny.toml", "--loss", "0.01,"), "must be positive numbers, each once"),
        (("explain", RUN, "\u00b9"), "no point"),
        (("explain", RUN, "9" * 5000), "rows go from 1 to"),
        (("explain", RUN, "1", "--set", "hardware.lanes=5000"), "--set hardware: lanes: found 5000"),
        (("explain", RUN, "1", "--set", "components.multiply_8_pj=-1"), "--set components: multiply_8_pj: found -1"),
        (("sweep", "tiny.toml", "--jobs", "99999999"), "is not in the range 1<=x<=1024"),
        (("sweep", "tiny.toml", "--seed", "99999999999999999999"), "is not in the range 0<=x<=4294967295"),
    ],
)  # fmt: skip
def test_what_says_nothing_or_two_things_is_refused(
    dse: Dse, swept: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(dse, swept, *arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_debug_shows_a_traceback_of_every_command(dse: Dse, swept: Path, name: str) -> None:
    """Of a wrong option, wherever --debug stands, and of whatever else is wrong."""
    wrong = {
        "sweep": ("nothing.toml",), "study": ("nothing.toml",), "front": ("nothing",), "explain": ("nothing",),
        "plot": ("nothing",), "compare": ("nothing", "nothing"), "report": ("nothing",), "profile": ("show", "nothing"),
        "validate": ("nothing",), "list": ("nothing",), "match": ("nothing.toml",), "check": ("nothing.toml",),
        "completion": ("nothing",),
    }  # fmt: skip
    for words in (
        (name, *wrong[name], "--debug"),
        ("--debug", name, *wrong[name]),
        (name, "--nothing", "--debug"),
    ):
        answer = dse(*words, cwd=swept)
        assert answer.code == 2, words
        assert answer.stderr.startswith("Traceback"), words
        assert answer.stderr.splitlines()[-1].startswith("error: ")
        quiet = dse(*(word for word in words if word != "--debug"), cwd=swept)
        assert "Traceback" not in quiet.stderr
        assert quiet.stderr == answer.stderr.splitlines()[-1] + "\n"


def test_a_font_without_a_sign_is_said_in_one_line(dse: Dse, swept: Path, tmp_path: Path) -> None:
    answer = dse("plot", RUN, "--title", "\u65e5", "-o", tmp_path / "a.png", cwd=swept)
    assert answer.code == 0
    assert all(line.startswith("note: ") and "Glyph" in line for line in answer.stderr.splitlines())
    assert answer.stderr


def test_an_algorithm_that_is_not_on_the_front_is_no_blank_answer(dse: Dse, swept: Path) -> None:
    every = dse("front", RUN, "--all", "--json", cwd=swept).json
    beaten = {row["algorithm"] for row in every} - {row["algorithm"] for row in every if row["on_front"]}
    for name in {row["algorithm"] for row in every}:
        answer = dse("front", RUN, "--algorithm", name, "--json", cwd=swept)
        assert bool(answer.json) is (name not in beaten)
        assert ("--all shows those on its own" in answer.stderr) is (name in beaten)
