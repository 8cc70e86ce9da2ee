from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from cli.conftest import Answer, Dse, snapshot

from dse.cli import study as command
from dse.errors import BadInput, DseError
from dse.profiles.profile import Profile
from dse.results import read_run
from dse.search.evaluate import evaluate
from dse.search.seeds import MAX_SEED
from dse.search.sweep import sweep
from dse.space import load_space
from dse.space.definition import Limits, Space
from dse.study.directory import prepared, write
from dse.study.evaluate import violation
from dse.study.measuring import join
from dse.study.result import SAME, samplers
from dse.study.run import _said, study
from dse.study.storage import read_place


def test_values_are_the_metrics_and_constraints_are_optunas_own(space: Space, tmp_path: Path) -> None:
    import optuna

    at = f"sqlite:///{tmp_path}/s.db"
    found = study(space, trials=20, sampler="random", storage=at)
    trials = optuna.load_study(study_name=found.info["study"], storage=at)
    assert trials.metric_names == ["speedup", "nll_increase"]
    feasible = found.trials.set_index("trial")["feasible"]
    for trial in trials.get_trials():
        assert set(trial.constraints) == {"nll_increase", "memory_fill"}
        assert feasible[trial.number] == (trial.constraints["nll_increase"] <= 0)
        assert (trial.values[1] <= 0.3) == feasible[trial.number]
    best = {t.number for t in trials.best_trials}
    shown = set(found.front[found.front["on_front"]]["point"])
    assert {found.trials.set_index("trial").loc[n, "point"] for n in best} == shown


def test_a_batch_that_does_not_fit_in_memory_is_infeasible(space: Space) -> None:
    crowded = load_space(
        space.plain(), ["workload.batch=2000", "hardware.memory_gib=[1, 2, 64]"], profile=space.profile
    )
    found = study(crowded, trials=40, sampler="random")
    assert {True, False} == set(found.trials["feasible"])
    names = [c for c in found.trials.columns if "." in c]
    points = [
        {k: v for k, v in row.items() if v == v and (k == "algorithm" or k in names)}
        for row in found.trials.to_dict("records")
    ]
    told = evaluate(crowded, points)
    assert (told["feasible"].to_numpy() == found.trials["feasible"].to_numpy()).all()
    assert (told["memory_fill"] > 1).any()
    assert not found.trials["feasible"][told["memory_fill"] > 1].any()


def test_the_dense_points_a_study_happened_to_see_are_no_rival(space: Space) -> None:
    seen = study(space, trials=20, sampler="random").info["conclusion"]
    whole = sweep(space).info["conclusion"]
    assert any(b["gain"] is not None for b in whole["budgets"])
    assert not seen["exact"]
    assert any(b["fastest"] for b in seen["budgets"])
    for budget in seen["budgets"]:
        assert budget["gain"] is None
        assert budget["sparsity_pays"] is None
        for entry in budget["fastest"].values():
            assert entry["gain"] is None
            assert entry["speedup_best_dense"] > 0


def test_duplicates_are_answered_and_not_evaluated(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    from dse.study.evaluate import Evaluation

    asked: list[Any] = []
    outcome = Evaluation.outcome

    def counted(self: Evaluation, point: Any) -> Any:
        asked.append(point)
        return outcome(self, point)

    monkeypatch.setattr(Evaluation, "outcome", counted)
    found = study(space, trials=space.size + 20, sampler="random")
    assert found.info["trials"] == space.size + 20
    assert len(asked) == len(set(asked)) == found.info["evaluated"] <= space.size
    assert found.info["duplicates"] == found.info["trials"] - len(asked)
    table = found.trials.set_index("trial")
    for number, row in table[table["duplicate_of"].notna()].iterrows():
        assert row["duplicate_of"] < number
        assert (
            table.loc[row["duplicate_of"], ["point", "speedup"]].tolist()
            == row[["point", "speedup"]].tolist()
        )


def test_a_warm_start_tries_the_front_first(space: Space) -> None:
    exact = sweep(space)
    front = exact.front[exact.front["on_front"]]
    for sampler in ("tpe", "nsga2"):
        found = study(space, trials=len(front), warm_start=front, sampler=sampler)
        assert set(found.trials["point"]) == set(front["point"])
        assert found.hypervolume == pytest.approx(
            study(space, trials=space.size, sampler="grid").hypervolume, rel=1e-9
        )
    with pytest.raises(BadInput, match="none of the run's points"):
        study(space, trials=1, warm_start=front.assign(algorithm="other"))


def test_flat_and_time_stop_and_take_back_the_rest(space: Space, tmp_path: Path) -> None:
    at = f"journal:{tmp_path}/t.log"
    found = study(space, trials=10_000, flat=10, storage=at, sampler="random")
    assert found.info["stopped"] == "flat"
    assert 10 <= found.info["trials"] == found.info["asked"] < 10_000
    found = study(space, trials=10_000, seconds=0.5, storage=at, sampler="random")
    assert found.info["stopped"] == "time"
    assert found.info["trials"] == found.info["asked"]
    more = study(space, trials=3, storage=at)
    assert more.info["trials"] == found.info["trials"] + 3


def test_a_study_of_something_else_is_named_and_not_mixed(space: Space, tmp_path: Path) -> None:
    at = f"sqlite:///{tmp_path}/s.db"
    study(space, trials=3, storage=at, name="mine")
    advice = "seeks other objectives; nothing was mixed: give another --study-name, and its directory with --output$"
    with pytest.raises(BadInput, match=advice):
        study(space, trials=1, storage=at, name="mine", objective="speedup")
    with pytest.raises(BadInput, match="--continuous"):
        study(space, trials=1, storage=at, name="mine", continuous=True)
    other = load_space(space.plain(), ["hardware.lanes=[24]"], profile=space.profile)
    with pytest.raises(BadInput, match="searches another space"):
        study(other, trials=1, storage=at, name="mine")


def test_between_measured_values_is_interpolated_and_marked(space: Space) -> None:
    found = study(space, trials=40, continuous=True, sampler="random")
    table = found.trials[found.trials["algorithm"] == "token-picker"]
    listed = table["token-picker.threshold"].isin([1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    assert not listed.all()
    assert (table["accuracy"] == np.where(listed, "measured", "interpolated")).all()
    assert found.info["interpolated"] == int((found.trials["accuracy"] == "interpolated").sum())


def test_what_is_measured_on_the_fly_is_measured_once(space: Space, profile: Profile) -> None:
    calls: list[Any] = []

    def measure(algorithm: str, knobs: Any) -> Profile:
        # Stands for a language model: a measured setting under the knobs asked for, with a loss to recognise.
        from dataclasses import replace

        calls.append((algorithm, tuple(knobs.items())))
        row = next(i for i, s in enumerate(profile.settings) if s.algorithm == algorithm)
        setting = replace(profile.settings[row], knobs=dict(knobs))
        settings = (*profile.settings[:row], setting, *profile.settings[row + 1 :])
        accuracy = profile.accuracy.copy()
        accuracy[row, :, 0] = 0.123
        return join(profile, replace(profile, settings=settings, accuracy=accuracy), setting)

    found = study(space, trials=30, continuous=True, sampler="random", measure=measure)
    assert calls
    assert len(calls) == len(set(calls))
    assert set(found.trials["accuracy"]) == {"measured"}
    assert np.isclose(found.trials["nll_increase"], 0.123, atol=1e-9).any()


@pytest.mark.parametrize(
    ("value", "limits", "holds"),
    [
        (3.0, Limits(high=3.0), True), (3.1, Limits(high=3.0), False), (2.0, Limits(low=2.5), False),
        (2.0, Limits(1.0, 3.0), True), (float("nan"), Limits(high=3.0), False), (-1.0, Limits(high=0.0), True),
        (float("inf"), Limits(high=0.0), False),
    ],
)  # fmt: skip
def test_a_violation_is_positive_where_a_limit_is_broken(value: float, limits: Limits, holds: bool) -> None:
    found = violation(value, limits)
    assert (found <= 0) == holds
    assert np.isfinite(found)


@pytest.mark.parametrize("metric", ["latency_s", "nll_increase"])
def test_a_small_value_that_was_changed_is_noticed(space: Space, tmp_path: Path, metric: str) -> None:
    """A latency is a millionth of a second: its difference counts relative to it; a loss may be zero."""
    goals = {"minimize": ["latency_s", "nll_increase"]}
    sought = load_space({**space.plain(), "objectives": goals}, profile=space.profile)

    def notes(trials: int) -> list[str]:
        at = f"sqlite:///{tmp_path}/t.db"
        told = study(sought, trials=trials, sampler="random", storage=at, objective=metric).info["notes"]
        return [note for note in told if "holds other values for" in note]

    assert notes(4) == []
    with closing(sqlite3.connect(tmp_path / "t.db")) as base:
        (value,) = base.execute("SELECT max(value) FROM trial_values").fetchone()
        assert metric != "latency_s" or value * 1e-6 < SAME
        base.execute("UPDATE trial_values SET value = value * 1.000001 WHERE value = ?", (value,))
        base.commit()
    assert len(notes(0)) == 1


def test_a_workers_own_error_is_not_told_as_the_storages() -> None:
    place = read_place("journal:t.log")
    assert _said(place, ZeroDivisionError("division\nby zero")) == "ZeroDivisionError: division by zero"
    assert _said(place, DseError("t.log: is gone")) == "t.log: is gone"
    with pytest.raises(KeyError) as caught:
        optuna.storages.InMemoryStorage().get_study_name_from_id(7)
    assert _said(place, caught.value).startswith("--storage journal:t.log: cannot be used: ")


def test_seeds_are_bounded_as_those_of_commands(space: Space) -> None:
    with pytest.raises(BadInput, match=f"must be 0 to {MAX_SEED}"):
        study(space, trials=1, seed=MAX_SEED + 1)


def test_nothing_feasible_says_what_fails(space: Space) -> None:
    tight = load_space(space.plain(), ["constraints.area_mm2.max=0.001"], profile=space.profile)
    with pytest.raises(DseError, match=r"none of 5 trials satisfies the constraints: area_mm2 by 5 trials"):
        study(tight, trials=5)


def _told(answer: Answer) -> str:
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


def test_the_command_adds_trials_to_its_run(dse: Dse, home: Path) -> None:
    first = dse("study", "tiny.toml", "--trials", 8, "--json")
    assert first.code == 0, first.stderr
    assert first.json["trials"] == 8
    second = dse("study", "tiny.toml", "--trials", 5, "--json")
    assert second.json["trials"] == 13
    folder = home / "results" / "tiny-study"
    run = read_run(folder)
    assert run.info == second.json
    assert len(pd.read_csv(folder / "trials.csv")) == 13
    assert (folder / "front.png").is_file()
    assert dse("front", folder).code == 0
    assert dse("study", "tiny.toml", "--trials", 2, "--fresh", "--json").json["trials"] == 2
    shown = dse("study", "tiny.toml", "--trials", 0)
    assert "2 trials of study tiny-" in shown.stdout


def test_a_sweeps_run_and_another_spaces_are_left_alone(dse: Dse, home: Path) -> None:
    assert dse("sweep", "tiny.toml", "-o", "results/swept").code == 0
    before = (home / "results" / "swept" / "run.json").read_bytes()
    assert "holds a sweep's run" in _told(dse("study", "tiny.toml", "-o", "results/swept"))
    assert (home / "results" / "swept" / "run.json").read_bytes() == before
    warm = dse("study", "tiny.toml", "--trials", 3, "--warm-start", "results/swept", "--json")
    assert warm.json["trials"] == 3
    assert warm.json["command"] == "dse study tiny.toml --trials 3 --warm-start results/swept", "runs again"
    other = dse("study", "tiny.toml", "--set", "hardware.lanes=24", "-o", "results/tiny-study")
    assert "another space" in _told(other)


def _result(folder: Path) -> dict[str, bytes]:
    """What lies in a study's directory, but for the journal, which notes what was asked for."""
    return {k: v for k, v in snapshot(folder / "results" / "tiny-study").items() if k != "trials.log"}


def test_the_result_of_another_study_is_left_alone(
    dse: Dse, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_draw", lambda run: None)
    assert dse("study", "tiny.toml", "--trials", 2, "--sampler", "random").code == 0
    before = _result(home)
    name = read_run(home / "results" / "tiny-study").info["study"]
    refused = dse("study", "tiny.toml", "--trials", 1, "--study-name", "other")
    assert refused.code == 2
    assert (
        f"results/tiny-study: holds study {name}, not other; nothing was overwritten, choose another "
        in _told(refused)
    )
    for other in (("--continuous",), ("--objective", "speedup")):
        assert _told(dse("study", "tiny.toml", "--trials", 1, *other)).endswith(
            "; nothing was mixed: choose another directory with --output\n"
        )
    for url in ("memory", f"sqlite:///{home}/kept.db"):
        line = _told(dse("study", "tiny.toml", "--trials", 1, "--storage", url))
        assert f"holds study {name} of journal:trials.log, not that of {url.partition(':')[0]}" in line
    assert _result(home) == before
    assert not (home / "kept.db").exists()
    afresh = dse("study", "tiny.toml", "--trials", 1, "--study-name", "other", "--fresh", "--json")
    assert (afresh.json["study"], afresh.json["trials"]) == ("other", 1)


def test_another_studys_result_that_came_meanwhile_is_left_alone(space: Space, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with prepared(run, space, "first") as one, prepared(run, space, "second") as two:
        write(run, study(space, trials=1, sampler="random", storage=one, name="first"))
        late = study(space, trials=1, sampler="random", storage=two, name="second")
        before = snapshot(run)
        with pytest.raises(BadInput, match="holds study first, not second; nothing was overwritten"):
            write(run, late)
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sampler", "cmaes"), "single objective"),
        (("--sampler", "tpee"), "did you mean 'tpe'"),
        (("--objective", "speed"), "did you mean 'speedup'"),
        (("--storage", "mysql://me:pw@h/d"), "--storage: must be one of"),
        (("--study-name", "a b; drop"), "--study-name"),
        (("--time", "-1"), "--time -1.0"),
        (("--time", "nan"), "--time nan"),
        (("--flat", "0"), "--flat 0"),
        (("--trials", "-3"), "--trials"),
        (("--storage", "memory", "--jobs", "2"), "several processes need a storage"),
        (("--storage", "memory", "--fresh"), "--fresh"),
        (("--measure",), "--continuous"),
        (("--warm-start", "nowhere"), "nowhere"),
        (("--warm-start", "tiny.toml"), "tiny.toml"),
        (("--time", "inf"), "--time inf"),
        (("--trials", "1e3"), "--trials"),
        (("--trials", 10**30), "--trials"),
        (("--seed", -1), "--seed"),
        (("--seed", 10**30), "--seed"),
        (("--grace", 0), "--grace"),
        (("--grace", 10**30), "--grace"),
        (("--flat", "nan"), "--flat"),
        (("--storage", "journal:."), "is a directory"),
        (("--storage", "journal:/dev/zero"), "is a device"),
        (("--storage", f"journal:{'x' * 300}"), "file name too long"),
        (("--storage", "journal:tiny.toml"), "tiny.toml:1: is no journal"),
        (("--storage", "sqlite:///tiny.toml"), "is no SQLite database"),
        (("--storage", "sqlite:////dev/zero"), "--storage sqlite:/dev/zero: is no file"),
        (("--storage", "sqlite:///."), "--storage sqlite:.: is no file"),
        (("--storage", "sqlite:///tiny.npz?mode=memory"), "--storage"),
        (("--study-name", "../x"), "--study-name"),
        (("--study-name", "x" * 101), "--study-name"),
    ],
)
def test_bad_input_is_one_line(dse: Dse, home: Path, arguments: tuple[str, ...], message: str) -> None:
    before = snapshot(home)
    answer = dse("study", "tiny.toml", *arguments)
    assert answer.code == 2
    assert message in _told(answer)
    assert "pw@" not in answer.stderr
    assert snapshot(home) == before
    assert not (home / "results").exists()


def test_no_password_is_printed_or_written(dse: Dse, home: Path) -> None:
    pytest.importorskip("psycopg2", reason="PostgreSQL needs a driver")
    url = "postgresql://someone:hunter2@127.0.0.1:1/db"
    answer = dse("study", "tiny.toml", "--trials", 2, "--storage", url, "-o", "run", "--debug")
    assert answer.code == 2
    assert "hunter2" not in answer.stdout + answer.stderr
    for path in home.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes()


def test_run_json_says_what_it_is(dse: Dse, home: Path) -> None:
    url = f"sqlite:///{home}/kept.db"
    info = dse("study", "tiny.toml", "--trials", 4, "--storage", url, "--json").json
    assert info["kind"] == "study"
    assert info["storage"] == "sqlite:kept.db"
    assert info["status"] == "complete"
    assert str(home) not in json.dumps(info)


def test_a_study_of_every_point_has_the_front_of_a_sweep(space: Space) -> None:
    """The same columns in the same order, with the same values, interpolated points among them."""
    axes = ["algorithms.token-picker.threshold=[1e-4, 2e-4, 1e-3]", "hardware.lanes=[24, 36]"]
    between = load_space(space.plain(), axes, profile=space.profile)
    exact = sweep(between).front
    assert {"latency_s_low", "energy_j_high", "area_mm2_low", "distinct"} <= set(exact.columns)
    assert set(exact["accuracy"]) == {"measured", "interpolated"}
    found = study(between, trials=between.size, sampler="grid")
    assert list(found.front.columns) == list(exact.columns)
    pd.testing.assert_frame_equal(found.front, exact, check_dtype=False, rtol=1e-9)
    assert found.info["distinct"] == int((exact["on_front"] & exact["distinct"]).sum())


def test_what_made_the_trials_is_recorded(space: Space, tmp_path: Path) -> None:
    at = f"journal:{tmp_path}/t.log"
    alone = study(space, trials=2, sampler="random", storage=at, seed=3).info
    assert (alone["sampler"], alone["seed"]) == ("random", 3)
    assert alone["samplers"] == [{"sampler": "random", "seed": 3, "trials": 2}]
    assert not [note for note in alone["notes"] if "trials are by" in note]
    info = study(space, trials=3, storage=at).info
    assert info["sampler"] == "random, local"
    assert info["samplers"] == [
        {"sampler": "random", "seed": 3, "trials": 2},
        {"sampler": "local", "seed": 0, "trials": 3},
    ]
    (note,) = [note for note in info["notes"] if "trials are by" in note]
    assert "2 by random (seed 3), 3 by local (seed 0)" in note


def test_a_trial_that_does_not_say_what_made_it() -> None:
    """Of an older version, or of a storage that somebody changed."""
    said = [
        ["random", 3],
        None,
        "random",
        ["random"],
        ["other", 3],
        ["random", "3"],
        ["random", -1],
        ["random", 3],
    ]
    trials: list[Any] = [SimpleNamespace(user_attrs={} if s is None else {"sampler": s}) for s in said]
    assert samplers(trials) == [
        {"sampler": "random", "seed": 3, "trials": 2},
        {"sampler": "unknown", "seed": None, "trials": 6},
    ]
