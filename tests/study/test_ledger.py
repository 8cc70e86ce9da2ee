"""Exactly the trials asked for, whoever does them and whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from dse.space.definition import Space
from dse.study.ledger import Surplus, Watch, ask, asked, claim, is_dead, own, owner, this_worker, withdraw
from dse.study.run import study
from dse.study.storage import quiet

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


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
    from dse.study.ledger import _started, machine

    name = f"{machine()}:{child.pid}:{_started(child.pid)}"
    try:
        assert not is_dead(name)
    finally:
        child.kill()
        child.wait()
    assert is_dead(name)
    assert not is_dead(name.replace(machine(), "elsewhere/00000000/1"))
    assert not is_dead(this_worker())
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
        for at, beat, handed in ((0, 0, 0), (8, 1, 0), (16, 1, 1), (30, 1, 1), (60, 1, 0)):
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


def _worker(folder: Path, storage: str, trials: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", "import sys; from dse.cli import main; sys.exit(main())"]
    command += [
        "study",
        "tiny.toml",
        "--trials",
        str(trials),
        "--study-name",
        "shared",
        "--json",
        "-q",
        *more,
    ]
    where = {"PYTHONPATH": str(Path(__file__).parents[2]), "DSE_STORAGE": storage, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **where},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(storage: Any, least: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = optuna.load_study(study_name="shared", storage=storage())
        except KeyError:
            found = None
        if found is not None and sum(t.state.is_finished() for t in found.get_trials()) >= least:
            return
        time.sleep(0.2)
    raise AssertionError("the workers did not get going")


def _two_and_one_dies(home: Path, url: str, storage: Any, each: int) -> None:
    """Two processes on one study, one killed midway: the other does all that both were asked for."""
    with quiet():
        one = _worker(home, url, each, "-o", "one", "--seed", "1", "--grace", "5")
        two = _worker(home, url, each, "-o", "two", "--seed", "2", "--grace", "5")
        try:
            _wait_for(storage, 3)
            deadline = time.monotonic() + 60
            while asked(optuna.load_study(study_name="shared", storage=storage())) < 2 * each:
                assert time.monotonic() < deadline, "the second did not ask"
                time.sleep(0.1)
            two.send_signal(signal.SIGKILL)
            two.communicate()
            out, err = one.communicate(timeout=240)
        finally:
            for process in (one, two):
                process.kill()
                process.wait()
        assert one.returncode == 0, err
        found = optuna.load_study(study_name="shared", storage=storage()).get_trials()
    done = [t for t in found if t.state.name == "COMPLETE"]
    assert len(done) == 2 * each
    assert not [t for t in found if t.state.name == "RUNNING"]
    assert len({owner(t) for t in done}) == 2
    assert f'"trials": {2 * each}' in out


def test_two_processes_on_a_journal(home: Path) -> None:
    path = home / "shared.log"

    def storage() -> Any:
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        return optuna.storages.JournalStorage(backend)

    _two_and_one_dies(home, f"journal:{path}", storage, 12)


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL server of this test's own; its URL, with a password."""
    if not BINARIES:
        pytest.skip("no PostgreSQL server: Debian's package `postgresql` is not installed")
    pytest.importorskip("psycopg2", reason="PostgreSQL needs the driver psycopg2")
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        as_user = ["runuser", "-u", "postgres", "--"]
    import tempfile

    data = Path(tempfile.mkdtemp(prefix="dse-pg-", dir="/tmp"))
    if as_user:
        shutil.chown(data, "postgres")
    (data / "pw").write_text("not:a@secret", encoding="utf-8")
    os.chmod(data / "pw", 0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bin_ = BINARIES[-1]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {data} -c fsync=off"
    init = [str(bin_ / "initdb"), "-D", f"{data}/db", "-U", "dse", "-A", "scram-sha-256"]
    subprocess.run([*as_user, *init, f"--pwfile={data}/pw"], check=True, capture_output=True, cwd=data)
    ctl = [*as_user, str(bin_ / "pg_ctl"), "-D", f"{data}/db", "-w"]
    subprocess.run(
        [*ctl, "-o", options, "-l", f"{data}/log", "start"], check=True, stdout=subprocess.DEVNULL, cwd=data
    )
    try:
        yield f"postgresql://dse:not%3Aa%40secret@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*ctl, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=data)
        shutil.rmtree(data, ignore_errors=True)


def test_two_processes_on_postgresql(home: Path, postgresql: str) -> None:
    def storage() -> Any:
        return optuna.storages.RDBStorage(postgresql.replace("postgresql://", "postgresql+psycopg2://"))

    _two_and_one_dies(home, postgresql, storage, 12)
    for path in (home / "one").rglob("*"):
        if path.is_file():
            assert b"secret" not in path.read_bytes(), path


def test_jobs_share_what_was_asked(space: Space, tmp_path: Path) -> None:
    found = study(space, trials=16, jobs=2, storage=f"journal:{tmp_path}/t.log", grace=5)
    assert found.info["trials"] == 16
    assert found.info["asked"] == 16


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
        found = study(space, trials=6, storage=f"grpc://127.0.0.1:{port}")
        again = study(space, trials=4, storage=f"grpc://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()
    assert (found.info["trials"], again.info["trials"]) == (6, 10)
