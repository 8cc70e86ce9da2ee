"""Exactly the trials asked for, whoever does them and whoever dies."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from dse.processes import is_dead, this_process
from dse.space.definition import Space
from dse.study.ledger import Surplus, Watch, ask, asked, claim, own, owner, withdraw
from dse.study.run import study
from dse.study.storage import open_storage, quiet, read_place
from dse.study.work import ACCURACY


def _study() -> optuna.Study:
    return optuna.create_study(storage=optuna.storages.InMemoryStorage())


def test_a_trial_beyond_what_was_asked_is_surplus_until_one_before_it_fails() -> None:
    made = _study()
    key = ask(made, 2)
    trials = [made.ask() for _ in range(3)]
    claim(made, trials[0].number)
    claim(made, trials[1].number)
    with pytest.raises(Surplus):
        claim(made, trials[2].number)
    made.tell(trials[0], state=optuna.trial.TrialState.FAIL)
    claim(made, trials[2].number)
    withdraw(made, key, 1)
    assert asked(made) == 1
    ask(made, 4)
    assert asked(made) == 5


def test_a_dead_process_is_known_on_its_own_machine_only() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    from dse.processes import _started, machine

    name = f"{machine()}:{child.pid}:{_started(child.pid)}"
    try:
        assert not is_dead(name)
    finally:
        child.kill()
        child.wait()
    assert is_dead(name)
    assert not is_dead(name.replace(machine(), "elsewhere/00000000/1"))
    assert not is_dead(this_process())
    assert is_dead(f"{machine()}:{os.getpid()}:1")  # the number was given to another process since


def test_trials_of_silent_workers_are_handed_on_with_their_parameters() -> None:
    made = _study()
    now = [0.0]
    watch = Watch(made, 10, False, clock=lambda: now[0])
    with quiet():
        lost = made.ask()
        lost.suggest_float("x", 0, 1)
        own(lost, "elsewhere/00000000/1:5:1")
        made.set_user_attr("beat.elsewhere/00000000/1:5:1", 0)
        nobody = made.ask()
        for at, beat, handed in ((0, 0, 0), (4, 1, 0), (9, 1, 1), (20, 1, 1), (60, 1, 0)):
            now[0] = float(at)
            made.set_user_attr("beat.elsewhere/00000000/1:5:1", beat)
            assert watch.look(made.get_trials(), "me") == handed, at
        states = [t.state.name for t in made.get_trials()]
        assert states == ["FAIL", "FAIL", "WAITING", "WAITING"]
        retried = made.get_trials()[3]
        assert owner(retried) == ""  # it carries the lost one's entry, but that is not its own
        params = [t.params for t in made.get_trials() if t.params]
        assert params == [made.get_trials()[0].params] * 2
    assert nobody.number == 1


GATED = """
import pathlib, sys, time
from dse.study.work import Worker
objective, started = Worker._objective, []

def gated(self, trial):
    values = objective(self, trial)
    started.append(trial.number)
    deadline = time.monotonic() + 100
    while len(started) > 1 and not pathlib.Path("go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return values

Worker._objective = gated
from dse.cli import main
sys.exit(main())
"""
"""The command, but after its first trial a worker stays in the second until there is a file ``go``."""


def _worker(folder: Path, storage: str, trials: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", GATED, "study", "tiny.toml", "--trials", str(trials)]
    command += ["--study-name", "shared", "--json", "-q", *more]
    where = {"PYTHONPATH": str(Path(__file__).parents[2]), "DSE_STORAGE": storage, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **where},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _owners(trials: list[Any], state: str) -> set[str]:
    """Workers with a trial in this state whose outcome is known, so that it waits for ``go`` or is done."""
    return {owner(t) for t in trials if t.state.name == state and ACCURACY in t.user_attrs} - {""}


def _two_and_one_dies(home: Path, url: str, each: int) -> None:
    """Two processes on one new study, one killed within a trial: the other does all that both were asked for."""
    with quiet():
        workers = [_worker(home, url, each, "-o", f"w{n}", "--seed", str(n), "--grace", "5") for n in (1, 2)]
        try:
            storage = open_storage(read_place(url), 5)
            deadline = time.monotonic() + 90
            trials: list[Any] = []
            while len(_owners(trials, "COMPLETE")) < 2 or len(_owners(trials, "RUNNING")) < 2:
                for worker in workers:
                    assert worker.poll() is None, worker.communicate()[1]
                assert time.monotonic() < deadline, "the workers did not get going"
                time.sleep(0.2)
                with contextlib.suppress(KeyError):  # no study yet
                    trials = optuna.load_study(study_name="shared", storage=storage).get_trials()
            survivor, victim = workers
            victim.kill()
            victim.communicate(timeout=30)
            (home / "go").touch()
            out, err = survivor.communicate(timeout=90)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        assert survivor.returncode == 0, err
        found = optuna.load_study(study_name="shared", storage=storage).get_trials()
    assert f'"trials": {2 * each}' in out
    done = [t for t in found if t.state.name == "COMPLETE"]
    assert len(done) == 2 * each
    assert not [t for t in found if t.state.name == "RUNNING"]
    assert len({owner(t) for t in done}) == 2
    (lost,) = (t for t in found if t.state.name == "FAIL" and owner(t).split(":")[1] == str(victim.pid))
    assert lost.params
    assert lost.params in [t.params for t in done if t.number > lost.number]


def test_two_processes_on_a_journal(home: Path) -> None:
    _two_and_one_dies(home, f"journal:{home}/shared.log", 6)


def _postgresql_programs() -> Path | None:
    """The directory that holds the programs of a PostgreSQL server."""
    found = shutil.which("initdb")
    usual = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: (len(p.parent.name), p.parent.name)
    )
    return Path(found).resolve().parent if found else (usual[-1] if usual else None)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of this test's own; its URL, with a password."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server: Debian's package `postgresql` is not installed")
    pytest.importorskip("psycopg2", reason="PostgreSQL needs the driver psycopg2")
    # A path of its own: sockets have short names, and the other user below may not enter the test's directory.
    data = Path(tempfile.mkdtemp(prefix="dse-pg-", dir="/tmp"))
    who: dict[str, Any] = {"cwd": data, "timeout": 60, "stdin": subprocess.DEVNULL}
    ctl = [str(programs / "pg_ctl"), "-D", f"{data}/db", "-w", "-t", "30"]
    try:
        (data / "pw").write_text("not:a@secret", encoding="utf-8")
        if os.geteuid() == 0:  # the server refuses to run as root
            nobody = pwd.getpwnam("nobody")
            for path in (data, data / "pw"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            who |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        init = [str(programs / "initdb"), "-N", "-D", f"{data}/db", "-U", "dse", "-A", "scram-sha-256"]
        subprocess.run([*init, f"--pwfile={data}/pw"], check=True, capture_output=True, **who)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {data} -c fsync=off"
        start = [*ctl, "-o", options, "-l", f"{data}/log", "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **who)
        yield f"postgresql://dse:not%3Aa%40secret@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(OSError, ValueError):  # no such file: it is not running
            server = int((data / "db" / "postmaster.pid").read_text(encoding="ascii").split()[0])
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([*ctl, "-m", "immediate", "stop"], check=False, capture_output=True, **who)
            if (data / "db" / "postmaster.pid").exists():
                os.kill(server, signal.SIGKILL)
        shutil.rmtree(data, ignore_errors=True)


def test_two_processes_on_postgresql(home: Path, postgresql: str) -> None:
    _two_and_one_dies(home, postgresql, 6)
    written = [path for path in (home / "w1").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert b"secret" not in path.read_bytes(), path


def test_jobs_share_what_was_asked(space: Space, tmp_path: Path) -> None:
    found = study(space, trials=16, jobs=2, storage=f"journal:{tmp_path}/t.log", grace=5)
    assert found.info["trials"] == 16
    assert found.info["asked"] == 16


def _answers(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until something listens on a port."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert server.poll() is None
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.1)


def test_a_grpc_proxy(space: Space, tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="the proxy needs grpcio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "from optuna.storages import RDBStorage, run_grpc_proxy_server as run;"
        f"run(RDBStorage('sqlite:///{tmp_path}/p.db'), host='127.0.0.1', port={port})"
    )
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stderr=subprocess.DEVNULL)
    try:
        _answers(server, port)
        found = study(space, trials=6, storage=f"grpc://127.0.0.1:{port}")
        again = study(space, trials=4, storage=f"grpc://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()
    assert (found.info["trials"], again.info["trials"]) == (6, 10)
