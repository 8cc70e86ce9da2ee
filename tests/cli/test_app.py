from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from cli.conftest import Dse
from dse.cli import app, main
from dse.cli.environment import Environment, Stdout, StdoutLost, plain
from dse.errors import BadInput, DseError, ExitCode

COMMANDS = [name for name in app.COMMANDS if name != "profile"]


def test_without_a_command_the_help_is_shown(dse: Dse) -> None:
    assert dse().stdout == dse("--help").stdout
    assert dse().code == ExitCode.DONE


def test_help_lists_every_command_with_what_it_does(dse: Dse) -> None:
    text = dse("--help").stdout
    for name, (_, summary) in app.COMMANDS.items():
        assert f"{name} " in text
        assert summary.split(" (")[0][:40] in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(dse: Dse, name: str) -> None:
    answer = dse(name, "--help")
    assert answer.code == ExitCode.DONE
    assert f"Usage: dse {name}" in answer.stdout
    assert answer.stderr == ""
    assert all(len(line) <= 100 for line in answer.stdout.splitlines())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"completion"}))  # whose output is a script
def test_shared_options_are_spelt_the_same_everywhere(dse: Dse, name: str) -> None:
    text = dse(name, "--help").stdout
    for option in ("--json", "-q, --quiet", "--debug"):
        assert option in text


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "matplotlib", "optuna", "moocore", "joblib", "dse.space", "dse.profiles")
    code = (
        "import sys; from dse.cli import main; main(['--help']);"
        f"print(*[m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_a_true_process_gives_the_same_error_and_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dse", "sweeep"], capture_output=True, text=True, cwd=tmp_path, env=_env()
    )
    assert done.returncode == ExitCode.BAD_INPUT
    assert done.stdout == ""
    assert done.stderr == "error: dse: no command 'sweeep'; did you mean 'sweep'?\n"


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dse", "list", "algorithms"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=_env(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == ExitCode.DONE
    process.stderr.close()


def _env() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(app.LazyGroup, "get_command", lambda self, ctx, name: command)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            BadInput("a.toml: threshold: 2; must be below 1"),
            2,
            "error: a.toml: threshold: 2; must be below 1",
        ),
        (DseError("two\nlines"), 1, "error: two lines"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (ValueError("odd"), 1, "error: ValueError: odd (add --debug to see where)"),
        (PermissionError(13, "Permission denied", "x/run.json"), 2, "error: x/run.json: permission denied"),
        (OSError(28, "No space left on device"), 1, "error: no space left on device"),
    ],
    ids=["bad-input", "failed", "interrupted", "unexpected", "permission", "disk-full"],
)
def test_every_error_is_one_line_with_its_exit_code(
    dse: Dse, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    _raising(monkeypatch, error)
    answer = dse("sweep")
    assert answer.code == code
    assert answer.stderr.startswith(line) or answer.stderr.strip().endswith(line)
    assert answer.stderr.strip().count("\n") == 0
    assert answer.stdout == ""


def test_debug_shows_the_traceback(dse: Dse, monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(monkeypatch, BadInput("a.toml: wrong"))
    text = dse("--debug", "sweep").stderr
    assert "Traceback" in text
    assert text.endswith("error: a.toml: wrong\n")


def test_a_pipe_that_breaks_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    err = io.StringIO()
    assert main(["--help"], Environment(Closed(), err)) == ExitCode.DONE
    assert err.getvalue() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["--version"], ["list", "algorithms"], ["check", "nope"]])
def test_a_full_disk_behind_stdout_is_named(command: list[str], unbuffered: str) -> None:
    environment = {**_env(), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dse", *command], stdout=full, stderr=subprocess.PIPE, text=True,
            env=environment, timeout=60, check=False,
        )  # fmt: skip
    if command[0] == "check":  # it has an error of its own, and nothing to print
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        return
    assert (done.returncode, done.stderr) == (
        1,
        "error: stdout: cannot be written: no space left on device\n",
    )


def test_stdout_is_the_stream_it_wraps() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    whole = io.StringIO()
    Stdout(whole).write("a")
    assert (whole.getvalue(), Stdout(whole).isatty()) == ("a", False)
    with pytest.raises(StdoutLost, match="stdout: cannot be written: no space left"):
        Stdout(Full()).write("a")


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.rmdir({str(gone)!r}); from dse.cli import main; raise SystemExit(main(['sweep', 'topick']))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=gone, capture_output=True, text=True, env=_env(), timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2,
        "error: the working directory is gone; change to one that is there\n",
    )


def test_a_chart_library_without_a_place_for_its_cache_is_silent(tmp_path: Path) -> None:
    code = "from dse.charts.sheet import sheet\nwith sheet() as paper: paper.axes()"
    (tmp_path / "file").touch()
    at = {
        "MPLCONFIGDIR": str(tmp_path / "file" / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "file" / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**_env(), **at}, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_json_is_strict() -> None:
    out = io.StringIO()
    Environment(out, io.StringIO(), json=True).print_json(
        {"a": float("nan"), "b": [float("inf"), 1, True, "µ"]}
    )
    assert out.getvalue() == '{\n  "a": null,\n  "b": [\n    null,\n    1,\n    true,\n    "µ"\n  ]\n}\n'


def test_plain_unpacks_numpy() -> None:
    import numpy as np

    value = {"a": np.float32(0.5), "b": np.array([1, 2]), "c": np.bool_(True), "d": (np.int64(3), None)}
    assert plain(value) == {"a": 0.5, "b": [1, 2], "c": True, "d": [3, None]}


def test_with_json_text_goes_to_stderr_and_quiet_drops_it() -> None:
    out, err = io.StringIO(), io.StringIO()
    environment = Environment(out, err, json=True)
    environment.print("for reading")
    assert (out.getvalue(), err.getvalue()) == ("", "for reading\n")
    environment.quiet = True
    environment.print("for reading")
    environment.remark("a remark")
    assert err.getvalue() == "for reading\n"


def test_colour_only_where_it_is_wanted() -> None:
    plain_stream = Environment(io.StringIO(), io.StringIO())
    assert plain_stream.style("x", bold=True) == "x"
    assert Environment(io.StringIO(), io.StringIO(), colour=True).style("x", bold=True) == "\x1b[1mx\x1b[0m"


def test_progress_shows_rate_and_time_left_on_a_terminal_only() -> None:
    err = io.StringIO()
    with Environment(io.StringIO(), err, progress=True).progress_bar() as move:
        move(0, 1000)
        time.sleep(0.25)
        move(400, 1000)
    assert "40%" in err.getvalue()
    assert "points/s" in err.getvalue()
    silent = io.StringIO()
    for environment in (
        Environment(io.StringIO(), silent),
        Environment(io.StringIO(), silent, progress=True, quiet=True),
    ):
        with environment.progress_bar() as move:
            move(1, 2)
    assert silent.getvalue() == ""
