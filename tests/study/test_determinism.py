"""The same space, sampler and seed give the same trials and the same front, wherever the trials are kept."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest
from cost.few import few_ranges

from dse.results import front_csv
from dse.space.definition import Space
from dse.study.result import StudyResult
from dse.study.run import study
from dse.study.samplers import NEEDS, SAMPLERS
from dse.study.storage import quiet

TRIALS = 16


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with few_ranges():
        yield


ON_DISK = ("local", "tpe", "nsga2")
"""Samplers of three kinds (ours; one that learns from all trials; one that keeps generations) that SQLite is asked for:
it writes every parameter through to the disk."""

INSTALLED = [s for s in SAMPLERS if s not in NEEDS or find_spec(NEEDS[s][0]) is not None]


def _same(a: StudyResult, b: StudyResult) -> bool:
    return a.trials.equals(b.trials) and front_csv(a.front) == front_csv(b.front)


def _study(
    space: Space, sampler: str, storage: str = "memory", trials: int = TRIALS, seed: int = 3
) -> StudyResult:
    objective = "speedup" if sampler == "cmaes" else ""
    return study(space, trials=trials, sampler=sampler, storage=storage, seed=seed, objective=objective)


@pytest.mark.parametrize("sampler", INSTALLED)
def test_a_study_is_the_same_again_and_in_every_storage(space: Space, tmp_path: Path, sampler: str) -> None:
    whole = _study(space, sampler)
    assert _same(whole, _study(space, sampler))
    storages = [f"journal:{tmp_path}/t.log"]
    if sampler in ON_DISK:
        storages.append(f"sqlite:///{tmp_path}/t.db")
    for storage in storages:
        assert _same(whole, _study(space, sampler, storage)), storage
    if sampler != "local":  # which begins with the same points whatever the seed
        assert not whole.trials.equals(_study(space, sampler, seed=4).trials)


@pytest.mark.parametrize("sampler", [s for s in INSTALLED if s not in ("gp", "cmaes")])
def test_a_study_in_two_commands_is_that_in_one(space: Space, tmp_path: Path, sampler: str) -> None:
    at = f"journal:{tmp_path}/t.log"
    _study(space, sampler, at, TRIALS // 2)
    assert _same(_study(space, sampler), _study(space, sampler, at, TRIALS // 2))


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_a_study_is_never_opened(space: Space, tmp_path: Path) -> None:
    """Optuna's CMA-ES unpickles a state that it finds in trials."""
    pytest.importorskip("cmaes")
    at, path = f"sqlite:///{tmp_path}/t.db", tmp_path / "t.db"
    found = _study(space, "cmaes", at)
    with quiet():
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        for trial in storage.get_all_trials(0 + storage.get_study_id_from_name(found.info["study"])):
            assert not [k for k in trial.system_attrs if "optimizer" in k]
        there = optuna.load_study(study_name=found.info["study"], storage=storage)
        evil = pickle.dumps(Payload(tmp_path / "run by a pickle")).hex()
        last = there.trials[-1]
        there.add_trial(
            optuna.trial.create_trial(
                params=last.params,
                distributions=last.distributions,
                values=last.values,
                user_attrs=last.user_attrs,
                system_attrs={**last.system_attrs, "cma:optimizer:0": evil},
            )
        )
    assert _study(space, "cmaes", at, 5).info["trials"] == TRIALS + 5
    assert not (tmp_path / "run by a pickle").exists()


def test_an_earlier_study_of_this_process_leaves_nothing_to_wait_for(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lost the disk in the middle of a trial, and asks again in the same notebook, is not kept waiting."""
    from dse.study.work import Worker

    at = f"journal:{tmp_path}/t.log"
    done = Worker._objective

    def dies(self: Worker, trial: Any) -> tuple[float, ...]:
        values = done(self, trial)
        if trial.number == 3:
            monkeypatch.setattr(type(self.study), "tell", lambda *a, **k: None)
            raise KeyboardInterrupt
        return values

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "_objective", dies)
        with pytest.raises(KeyboardInterrupt):
            study(space, trials=6, storage=at)
    monkeypatch.undo()
    assert study(space, trials=6, storage=at).info["trials"] == 9
