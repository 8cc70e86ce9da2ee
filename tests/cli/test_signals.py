"""Asked to end at the worst moments: in a destructor, in a module that is loading, twice, in a forked child."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dse.cli import app, main
from dse.cli.environment import Environment
from dse.cli.signals import Asked, asked_to_end

SIGNALS = [("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "terminated")]


@pytest.fixture(autouse=True)
def as_from_a_terminal() -> object:
    """Whoever runs the tests may hand down signals that are ignored."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    assert {number: signal.getsignal(number) for number in usual} == usual, "handlers were left behind"
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("name", "word"), SIGNALS)
def test_the_word(name: str, word: str) -> None:
    with asked_to_end() as asked:
        assert asked.word == ""
        with pytest.raises(KeyboardInterrupt):
            interrupted(getattr(signal, name))
    assert asked.word == word


def interrupted(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


class Stubborn:
    """Python cannot let an exception out of a destructor: it prints it, and goes on."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(100):
            time.sleep(0.001)


@pytest.mark.parametrize(("name", "word"), SIGNALS)
def test_lost_in_a_destructor(name: str, word: str, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()

    def lose() -> None:
        Stubborn(getattr(signal, name))
        time.sleep(30)

    with asked_to_end() as asked, pytest.raises(KeyboardInterrupt):
        lose()
    assert asked.word == word
    assert time.monotonic() - started < 20
    assert capfd.readouterr().err == ""


def test_other_losses_are_told_as_ever() -> None:
    told = []
    before, sys.unraisablehook = sys.unraisablehook, told.append
    try:
        with asked_to_end():

            class Broken:
                def __del__(self) -> None:
                    raise ValueError("of its own")

            Broken()
    finally:
        sys.unraisablehook = before
    assert [lost.exc_type for lost in told] == [ValueError]


@pytest.mark.parametrize(("name", "word"), SIGNALS)
@pytest.mark.parametrize(
    "other", [SyntaxError("(unicode error)"), ImportError("half loaded"), OSError(9, "bad file")]
)
def test_turned_into_another_error(
    monkeypatch: pytest.MonkeyPatch, name: str, word: str, other: Exception
) -> None:
    """Loading `unicodedata` while a literal is compiled turns any error of its own into a SyntaxError."""

    def convert(*_: object, **__: object) -> None:
        try:
            interrupted(getattr(signal, name))
        except KeyboardInterrupt:
            raise other from None

    monkeypatch.setattr(app.group, "main", convert)
    out, err = io.StringIO(), io.StringIO()
    assert main(["list"], Environment(out, err)) == 130
    assert err.getvalue() == f"error: {word}\n"


def test_an_error_that_nobody_asked_for_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SyntaxError("of its own")

    monkeypatch.setattr(app.group, "main", fail)
    err = io.StringIO()
    assert main(["list"], Environment(io.StringIO(), err)) == 1
    assert "of its own" in err.getvalue()


def test_while_the_command_line_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "main", lambda *_: interrupted(signal.SIGTERM))
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "error: terminated\n"


def test_ignored_signals_stay_ignored() -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        with asked_to_end() as asked:
            for number in before:
                os.kill(os.getpid(), number)
            time.sleep(0.01)
        assert asked.word == ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_thread_changes_nothing() -> None:
    found: list[Asked] = []

    def inside() -> None:
        with asked_to_end() as asked:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            found.append(asked)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert [asked.word for asked in found] == [""]


TWICE = """
import os, signal, sys, time
from dse.cli.signals import PATIENCE_S, asked_to_end
with asked_to_end():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except KeyboardInterrupt:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        print("letting go", flush=True)
        time.sleep(PATIENCE_S)
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(5)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_asking_twice_means_the_same_and_insisting_ends_it_at_once(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", TWICE, name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-getattr(signal, name), "letting go\n", "")


AT_EXIT = """
import atexit, os, signal, time
from dse.cli import main
from dse.cli import app
signal.signal(signal.SIGINT, signal.default_int_handler)

@atexit.register
def late():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

class Last:
    kill, pid, number = staticmethod(os.kill), os.getpid(), signal.SIGINT
    def __del__(self):
        self.kill(self.pid, self.number)

last = Last()

def interrupted(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)

app.group.main = interrupted
raise SystemExit(main())
"""


def test_a_signal_that_wrappers_hand_on_while_python_shuts_down() -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_commands_inside_one_another_hear_the_same() -> None:
    with asked_to_end() as outer, asked_to_end() as inner:
        with pytest.raises(KeyboardInterrupt):
            interrupted(signal.SIGTERM)
        assert inner.word == outer.word == "terminated"


def test_a_forked_child_ends_without_a_word() -> None:
    with asked_to_end() as asked:
        child = os.fork()
        if child == 0:
            try:
                interrupted(signal.SIGTERM)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert asked.word == ""
