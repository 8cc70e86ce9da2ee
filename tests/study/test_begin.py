"""A study is made once, by whoever comes first; what is not dse's, or searches something else, is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.storages.journal import JournalFileBackend

from dse.errors import BadInput
from dse.space.definition import Space
from dse.study.begin import ABOUT, about, create
from dse.study.run import study
from dse.study.storage import quiet, read_place
from dse.study.work import Plan


class Meanwhile(InMemoryStorage):
    """A storage in which another process goes on while this one looks.

    Args:
        looks: after how many looks at the study's attributes or trials the other process writes `said`, and begins a trial.
    """

    def __init__(self, looks: int, said: dict[str, Any]) -> None:
        super().__init__()
        self._looks, self._said = looks, said

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        found = dict(super().get_study_user_attrs(study_id))
        self._look(study_id)
        return found

    def get_all_trials(self, study_id: int, *args: Any, **kwargs: Any) -> list[optuna.trial.FrozenTrial]:
        found = list(super().get_all_trials(study_id, *args, **kwargs))
        self._look(study_id)
        return found

    def _look(self, study_id: int) -> None:
        self._looks -= 1
        if self._looks == 0:
            for key, value in self._said.items():
                self.set_study_user_attr(study_id, key, value)
            self.create_new_trial(study_id)


@pytest.mark.parametrize("looks", range(1, 8))
@pytest.mark.parametrize("ours", [True, False])
def test_a_study_that_another_process_is_making(space: Space, looks: int, ours: bool) -> None:
    plan = Plan(space, read_place("memory"), "shared", {"speedup": True, "quality": False}, "random", 0)
    storage = Meanwhile(looks, {ABOUT: about(plan)} if ours else {"note": "of another program"})
    with quiet():
        optuna.create_study(study_name="shared", storage=storage, directions=["maximize", "minimize"])
        if not ours:
            with pytest.raises(BadInput, match="study of that name that dse did not make"):
                create(storage, plan)
            return
        create(storage, plan)
        there = optuna.load_study(study_name="shared", storage=storage)
    assert there.user_attrs == {ABOUT: about(plan)}
    assert len(there.get_trials()) == 1


def test_a_study_whose_maker_died_before_it_said_what_it_is(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.log"
    study(space, trials=0 + 1, storage=f"journal:{path}")
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first)
    monkeypatch.setattr("dse.study.begin.MAKING_SECONDS", 0.2)
    assert study(space, trials=3, storage=f"journal:{path}").info["trials"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": 2}, "form 2, not 1: was made by a newer version of dse; .* update dse"),
        ({"form": None}, "was made by another version"),
        ({"space": "0" * 64}, "searches another space"),
        ({"objectives": []}, "seeks other objectives"),
    ],
)
def test_a_study_of_another_kind_is_refused(
    space: Space, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    at = f"journal:{tmp_path}/t.log"
    name = study(space, trials=2, storage=at).info["study"]
    with quiet():
        there = optuna.load_study(
            study_name=name,
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "t.log"))),
        )
        there.set_user_attr(ABOUT, {**there.user_attrs[ABOUT], **change})
    with pytest.raises(BadInput, match=message):
        study(space, trials=1, storage=at)


def test_a_study_of_another_program_is_refused(space: Space, tmp_path: Path) -> None:
    at = f"sqlite:///{tmp_path}/t.db"
    with quiet():
        theirs = optuna.create_study(study_name="theirs", storage=at, directions=["maximize", "minimize"])
        theirs.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=2)
    with pytest.raises(BadInput, match="study of that name that dse did not make"):
        study(space, trials=1, storage=at, name="theirs")
    name = study(space, trials=2, storage=at).info["study"]
    with quiet():
        mine = optuna.load_study(study_name=name, storage=at)
        mine.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=1)
    with pytest.raises(
        BadInput, match=r"sqlite:t\.db: trial 2: x: found .*; must be a parameter of this space"
    ):
        study(space, trials=1, storage=at)
