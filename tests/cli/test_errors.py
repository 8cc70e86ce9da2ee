"""What a user can get wrong: exit code 2, one line on stderr that names the place and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import TINY, Dse, snapshot

RUN = "results/tiny"

SPACES = {
    "misspelt-key": (("batch = 1", ""), ("context = 1024", "contxt = 1024"), "workload.contxt: unknown key"),
    "misspelt-knob": (
        ("threshold", "treshold"),
        "token-picker.treshold: unknown knob; did you mean 'threshold'?",
    ),
    "misspelt-hardware": (("lanes = [", "lane = ["), "hardware.lane: unknown key; did you mean 'lanes'?"),
    "wrong-type": (
        ("context = 1024", 'context = "long"'),
        "workload.context: found 'long'; must be a whole number",
    ),
    "empty-axis": (("lanes = [24, 48]", "lanes = []"), "hardware.lanes: "),
    "unknown-algorithm": (("token-picker]", "token-piker]"), "did you mean 'token-picker'?"),
    "knob-out-of-range": (("1e-4, 1e-3, 1e-2", "1e-4, 0.3"), "token-picker.threshold: "),
    "hardware-out-of-range": (("lanes = [24, 48]", "lanes = [24, 5000]"), "hardware.lanes: "),
    "unknown-preset": (('"topick-gqa"', '"topik"'), "did you mean 'topick'?"),
    "unknown-context": (("context = 1024", "context = 2048"), "workload.context: found 2048"),
    "unknown-profile": (('"tiny.npz"', '"smollm9"'), "workload.profile: "),
    "contradicting-constraint": (("max = 0.3 }", "max = 0.3, min = 1 }"), "no point can satisfy both"),
    "no-toml": (("[hardware]", "[hardware"), "tiny.toml: not TOML: "),
    "wrong-schema": (("schema = 1", "schema = 7"), "schema: found 7; must be 1"),
}


def one_line(answer: object, message: str) -> None:
    code, stdout, stderr = answer.code, answer.stdout, answer.stderr  # type: ignore[attr-defined]
    assert code == 2
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert message in stderr


@pytest.mark.parametrize("command", ["sweep", "check"])
@pytest.mark.parametrize("case", SPACES.values(), ids=SPACES.keys())
def test_a_wrong_space(dse: Dse, home: Path, case: tuple[object, ...], command: str) -> None:
    *changes, message = case
    text = TINY
    for old, new in changes:  # type: ignore[misc]
        text = text.replace(old, new)
    assert text != TINY
    (home / "tiny.toml").write_text(text, encoding="utf-8")
    before = snapshot(home)
    one_line(dse(command, "tiny.toml", cwd=home), str(message))
    assert snapshot(home) == before


COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown-command": (("swep",), "dse: no command 'swep'; did you mean 'sweep'?"),
    "unknown-option": (("sweep", "--job", "2"), "dse sweep: no option '--job'; did you mean '--jobs'?"),
    "unknown-top-option": (("--vresion",), "dse: no option '--vresion'; did you mean '--version'?"),
    "not-a-number": (("sweep", "tiny.toml", "--jobs", "many"), "dse sweep: --jobs: 'many' is not a valid integer"),
    "too-small": (("sweep", "tiny.toml", "--jobs", "0"), "dse sweep: --jobs: 0 is not in the range"),
    "option-without-value": (("sweep", "tiny.toml", "--set"), "option '--set' requires an argument"),
    "surplus-argument": (("sweep", "tiny.toml", "more"), "dse sweep: got unexpected extra argument (more)"),
    "missing-argument": (("front",), "dse front: RUN is missing; see `dse front --help`"),
    "unknown-engine": (("sweep", "tiny.toml", "--engine", "lokky"), "did you mean 'loky'?"),
    "missing-space": (("sweep", "nothing.toml"), "nothing.toml: no such file"),
    "unknown-space": (("sweep", "quikstart"), "did you mean 'quickstart'?"),
    "space-is-a-directory": (("sweep", "./"), "is a directory"),
    "bad-override": (("sweep", "tiny.toml", "--set", "hardware.lanes"), "--set hardware.lanes: "),
    "override-unknown-key": (("sweep", "tiny.toml", "--set", "hardware.lnes=4"), "--set hardware.lnes: unknown key"),
    "missing-run": (("front", "results/nothing"), "results/nothing: no such run"),
    "plot-missing-run": (("plot", "results/nothing"), "results/nothing: no such run"),
    "plot-unknown-suffix": (("plot", RUN, "-o", "a.gif"), "a.gif: suffix '.gif'"),
    "plot-unknown-column": (("plot", RUN, "-y", "spedup"), "no column 'spedup'; did you mean 'speedup'?"),
    "front-unknown-column": (("front", RUN, "--columns", "spedup"), "no column 'spedup'; did you mean 'speedup'?"),
    "front-unknown-sort": (("front", RUN, "--sort", "-spedup"), "no column 'spedup'"),
    "front-unknown-algorithm": (("front", RUN, "--algorithm", "densse"), "did you mean 'dense'?"),
    "front-unknown-suffix": (("front", RUN, "-o", "a.xlsx"), "a.xlsx: suffix '.xlsx'"),
    "list-unknown-kind": (("list", "space"), "dse list: no kind 'space'; did you mean 'spaces'?"),
    "output-is-a-file": (("sweep", "tiny.toml", "-o", "tiny.npz"), "tiny.npz: is not a directory"),
    "output-below-a-file": (("sweep", "tiny.toml", "-o", "tiny.npz/run"), "is not a directory"),
    "output-holds-other-files": (("sweep", "tiny.toml", "-o", "."), "nothing was overwritten"),
    "chart-below-a-file": (("plot", RUN, "-o", "tiny.npz/a.png"), "tiny.npz/a.png: cannot be written"),
    "table-below-a-file": (("front", RUN, "-o", "tiny.npz/a.csv"), "tiny.npz/a.csv: cannot be written"),
    "run-of-another-space": (
        ("sweep", "tiny.toml", "--set", "hardware.lanes=12", "-o", RUN),
        "results/tiny: holds a run of another space",
    ),
    "fresh-over-another-space": (
        ("sweep", "tiny.toml", "--fresh", "--set", "hardware.lanes=12", "-o", RUN),
        "results/tiny: holds a run of another space",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_wrong_command_line(dse: Dse, swept: Path, case: tuple[tuple[str, ...], str]) -> None:
    arguments, message = case
    before = snapshot(swept)
    one_line(dse(*arguments, cwd=swept), message)
    assert snapshot(swept) == before


@pytest.mark.parametrize("name", ["run.json", "front.csv", "space.toml"])
def test_a_damaged_run_is_named(dse: Dse, home: Path, name: str) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    path = home / RUN / name
    path.write_text(path.read_text()[:40], encoding="utf-8")
    one_line(dse("front", RUN, cwd=home), name)
