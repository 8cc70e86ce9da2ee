from __future__ import annotations

import csv
import io
import itertools
import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.synthetic import synthetic_profile
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.measure.grid import load_grid
from dse.profiles.paired import t_quantile
from dse.profiles.profile import ACCURACY_COLUMN, COLUMN, Profile, build_profile
from dse.search import match_files
from dse.search.alike import groups
from dse.search.match import Pick, choose, leaders, match, measured_only, with_everything
from dse.search.match_files import check_directory, info, settings_toml, table, write_match
from dse.search.sweep import sweep
from dse.space import load_space

WINDOWS = 12
SPACE: dict[str, Any] = {
    "schema": 1,
    "workload": {"profile": "tiny", "context": 1024},
    "algorithms": {
        "token-picker": {"threshold": [1e-4, 2e-4, 1e-3, 1e-2], "chunks": ["4+4+4", "6+6"]},
        "spatten": {"keep": [0.3, 0.5, 0.7, 0.9], "value_keep": "all"},
    },
    "hardware": {"base": "topick-gqa", "lanes": [24, 48]},
}


def with_windows(seed: int, book: str, gain: float = 1.0, **changes: Any) -> Profile:
    """The synthetic profile with losses that vary over windows, most of it shared by all settings."""
    base = synthetic_profile()
    rng = np.random.default_rng(seed)
    given_ = {f: getattr(base, f) for f in base.__dataclass_fields__ if f != "checksum"}
    loss = base.accuracy[:, :, :1] * gain
    shared = rng.normal(0, 0.01, WINDOWS)
    window = loss + shared - shared.mean() + rng.normal(0, 1e-3, (*loss.shape[:2], WINDOWS))
    half = t_quantile(0.975, WINDOWS - 1) * window.std(axis=-1, ddof=1) / math.sqrt(WINDOWS)
    accuracy = base.accuracy.copy()
    for end, sign in (("", 0), ("_low", -1), ("_high", 1)):
        accuracy[..., ACCURACY_COLUMN[f"nll_increase{end}"]] = window.mean(axis=-1) + sign * half
    listed = tuple((book, 5000 * i) for i in range(WINDOWS))
    given_ |= {"window_nll": window, "accuracy": accuracy}
    given_["provenance"] = replace(base.provenance, windows=listed)
    return build_profile(**{**given_, **changes})


SELECTION = with_windows(0, "a", scales={"k.8": np.full((2, 2), 0.5)})
CONFIRMATION = with_windows(1, "b", gain=1.1, name="tiny-confirmation")


def space(**changes: Any) -> Any:
    return load_space({**SPACE, **changes}, profile=SELECTION)


FOUND = match(space(), CONFIRMATION)


def test_the_pick_is_the_fastest_measured_point_within_the_budget() -> None:
    full = sweep(measured_only(space()))
    for row in FOUND.rows:
        pick = row.pick
        within = full.front[
            (full.front["algorithm"] == pick.algorithm) & (full.front["nll_increase"] <= pick.budget)
        ]
        chosen = within[within["point"] == pick.point].iloc[0]
        assert chosen["speedup"] == within["speedup"].max()
        assert pick.loss[0] == chosen["nll_increase"] <= pick.budget
        assert pick.knobs.get("threshold") != 2e-4  # never measured: it would be interpolated
    reached = {(r.pick.budget, r.pick.algorithm) for r in FOUND.rows}
    assert reached | set(FOUND.absent) == set(itertools.product(FOUND.budgets, FOUND.space.algorithms))
    for budget, name in FOUND.absent:
        assert not (full.front[full.front["algorithm"] == name]["nll_increase"] <= budget).any()


def test_figures_come_from_the_confirmation_profile() -> None:
    fetched_less = CONFIRMATION.counters.copy()
    fetched_less[..., COLUMN["group.v_rows"]] *= 0.5
    other = match(space(), with_windows(1, "b", gain=1.1, counters=fetched_less))
    for row, less in zip(
        sorted(FOUND.rows, key=lambda r: (r.pick.budget, r.pick.algorithm)),
        sorted(other.rows, key=lambda r: (r.pick.budget, r.pick.algorithm)),
        strict=True,
    ):
        assert row.pick == less.pick
        assert less.figures["dram_bytes"] < row.figures["dram_bytes"]
        i = next(
            i
            for i, s in enumerate(CONFIRMATION.settings)
            if s.algorithm == row.pick.algorithm and dict(s.knobs) == dict(row.pick.knobs)
        )
        assert row.loss[0] == CONFIRMATION.accuracy[i, 0, ACCURACY_COLUMN["nll_increase"]]
        assert row.loss[0] != row.pick.loss[0]
        assert row.window_nll.tolist() == CONFIRMATION.window_nll[i, 0].tolist()


def test_on_the_same_counts_the_price_is_the_sweeps() -> None:
    front = sweep(measured_only(space())).front.set_index("point")
    for row in FOUND.rows:
        for name in (
            "speedup",
            "energy_saving",
            "dram_reduction",
            "area_mm2",
            "latency_s",
            "speedup_end_to_end",
        ):
            assert row.figures[name] == pytest.approx(front.loc[row.pick.point, name], rel=1e-9)
        assert row.bound == front.loc[row.pick.point, "bound"]


def test_gain_is_over_dense_at_the_same_budget_and_rows_are_ordered_by_it() -> None:
    for budget in FOUND.budgets:
        rows = [r for r in FOUND.rows if r.pick.budget == budget]
        dense = next(r for r in rows if r.pick.algorithm == "dense")
        assert dense.gain == 1
        assert [r.gain for r in rows] == sorted((r.gain for r in rows), reverse=True)
        for r in rows:
            assert r.gain == pytest.approx(dense.figures["latency_s"] / r.figures["latency_s"])


def test_pairs_are_told_apart_window_by_window() -> None:
    """Intervals of single losses overlap widely here; what the windows share cancels in the differences."""
    told = [p for p in FOUND.pairs if p.difference.distinct]
    assert told
    by = {(r.pick.budget, r.pick.algorithm): r for r in FOUND.rows}
    overlapping = 0
    for pair in FOUND.pairs:
        a, b = by[pair.budget, pair.first], by[pair.budget, pair.second]
        gap = a.window_nll - b.window_nll
        t = gap.mean() / (gap.std(ddof=1) / math.sqrt(WINDOWS))
        assert pair.difference.distinct == (abs(t) > t_quantile(0.975, WINDOWS - 1))
        assert (pair.second in a.alike) == (pair.first in b.alike) == (not pair.difference.distinct)
        assert bool(set(a.letters) & set(b.letters)) == (not pair.difference.distinct)
        overlapping += pair.difference.distinct and a.loss[1] < b.loss[2] and b.loss[1] < a.loss[2]
    assert overlapping


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_groups_are_the_maximal_sets_of_alike_names(case: tuple[int, set[tuple[int, int]]]) -> None:
    n, edges = case
    names = [f"n{i}" for i in range(n)]
    joined = {frozenset((f"n{i}", f"n{j}")) for i, j in edges if i != j}
    alike = {a: [b for b in names if frozenset((a, b)) in joined] for a in names}
    cliques = {
        frozenset(c)
        for size in range(1, n + 1)
        for c in itertools.combinations(names, size)
        if all(frozenset(p) in joined for p in itertools.combinations(c, 2))
    }
    maximal = {c for c in cliques if not any(c < d for d in cliques)}
    found = groups(names, alike)
    assert set(found) == maximal
    assert len(found) == len(maximal)


def test_the_leader_is_the_fastest_that_is_neither_dense_nor_an_oracle() -> None:
    by_budget = {b: (row, distinct) for b, row, distinct in leaders(FOUND)}
    assert set(by_budget) == set(FOUND.budgets)
    for budget, (best, distinct) in by_budget.items():
        rows = [r for r in FOUND.rows if r.pick.budget == budget and r.pick.algorithm != "dense"]
        assert best == (max(rows, key=lambda r: r.gain) if rows else None)
        assert not rows or distinct == ("dense" not in max(rows, key=lambda r: r.gain).alike)
    renamed = [
        replace(r, pick=replace(r.pick, algorithm=r.pick.algorithm.replace("token-picker", "oracle-top-k")))
        for r in FOUND.rows
    ]
    for _, best, _ in leaders(replace(FOUND, rows=tuple(renamed))):
        assert best is None or best.pick.algorithm == "spatten"


def test_a_budget_broken_on_the_other_text_is_said() -> None:
    worse = match(space(), with_windows(1, "b", gain=4.0))
    assert {r.kept for r in worse.rows} >= {"no"}
    for r in (*worse.rows, *FOUND.rows):
        expected = "yes" if r.loss[2] <= r.pick.budget else "no" if r.loss[1] > r.pick.budget else "open"
        assert r.kept == expected


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (with_windows(1, "a"), "shares text with 'tiny'"),
        (with_windows(1, "b", scales={"k.8": np.full((2, 2), 0.25)}), "scales k.8 differ"),
        (with_windows(1, "b", contexts=(512,)), "context 1024 was not measured; it holds 512"),
        (
            with_windows(1, "b", provenance=replace(CONFIRMATION.provenance, model_sha256="f" * 64)),
            "measured another model",
        ),
        (
            with_windows(1, "b", provenance=replace(CONFIRMATION.provenance, windows=())),
            "does not say which windows",
        ),
    ],
)
def test_a_confirmation_that_confirms_nothing_is_refused(other: Profile, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        match(space(), other)


def test_missing_settings_are_counted_and_named() -> None:
    keep = [i for i, s in enumerate(CONFIRMATION.settings) if s.algorithm != "spatten"]
    arrays = {f: getattr(CONFIRMATION, f)[keep] for f in ("counters", "histograms", "accuracy", "window_nll")}
    rows = [CONFIRMATION.settings[i] for i in keep]
    defaults = {a: k for a, k in CONFIRMATION.defaults.items() if a != "spatten"}
    partial = with_windows(1, "b", **arrays, settings=rows, defaults=defaults)
    with pytest.raises(
        BadInput, match=r"of \d+ chosen settings are not in it at context 1024, first spatten with"
    ):
        match(space(), partial)


@pytest.mark.parametrize("budget", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_must_be_a_positive_loss(budget: float) -> None:
    with pytest.raises(BadInput, match="must be a positive loss"):
        choose(space(), [budget])


def test_settings_are_a_grid_that_measures_exactly_them(tmp_path: Path) -> None:
    picks, _ = choose(space())
    text = settings_toml(space(), picks, "tiny")
    path = tmp_path / "settings.toml"
    path.write_text(text)
    measured = {(a.name, *sorted(a.settings.items())) for a in load_grid(str(path))}
    wanted = {(p.algorithm, *sorted(p.knobs.items())) for p in picks}
    baseline = space().baseline
    assert measured == wanted | {(baseline.algorithm, *sorted(baseline.knobs.items()))}
    assert len(tomllib.loads(text)["grid"]) == len(measured)


def test_everything_takes_all_measured_settings_of_the_profile() -> None:
    whole = with_everything(space(algorithms={"token-picker": {}}))
    assert list(whole.algorithms) == ["dense", "token-picker", "spatten"]
    picks, found = choose(whole)
    sizes = {a: entry["settings"] for a, entry in found.info["algorithms"].items()}
    assert sum(sizes.values()) == len(SELECTION.settings)
    assert {p.algorithm for p in picks} == set(whole.algorithms)


def test_oracles_are_those_that_say_so() -> None:
    def pick(algorithm: str, **knobs: Any) -> Pick:
        return Pick(0.01, algorithm, knobs, {}, "", (0, 0, 0))

    assert pick("oracle-top-k", k=4).oracle
    assert pick("adore", controller="oracle").oracle
    assert not pick("adore", controller="gru").oracle


def test_a_table_without_rows_has_its_columns() -> None:
    empty, full = (table(one).splitlines()[0] for one in (replace(FOUND, rows=()), FOUND))
    assert empty
    assert full.startswith(f"{empty},")


def test_the_table_and_the_object_agree() -> None:
    rows = list(csv.DictReader(io.StringIO(table(FOUND))))
    about = json.loads(json.dumps(info(FOUND, "dse match tiny"), allow_nan=False))
    assert len(rows) == len(about["rows"]) == len(FOUND.rows)
    for row, entry in zip(rows, about["rows"], strict=True):
        assert (row["algorithm"], float(row["speedup"])) == (entry["algorithm"], entry["speedup"])
        assert row["same_loss"] == entry["same_loss"] != ""
        for knob, value in entry["knobs"].items():
            assert row[f"{entry['algorithm']}.{knob}"] == str(value)
        assert row["hardware.lanes"] == str(entry["hardware"]["lanes"])
    assert about["confirmation"]["name"] == "tiny-confirmation"
    assert about["profile"]["name"] == "tiny"
    assert about["grouped"] is True


def test_the_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "results" / "m"

    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(BadInput, match="No space left"):
        write_match(place, FOUND, "", fail)
    assert list((tmp_path / "results").iterdir()) == []
    write_match(place, FOUND, "first")
    assert sorted(p.name for p in place.iterdir()) == [
        "match.csv",
        "match.json",
        "settings.toml",
        "space.toml",
    ]
    with pytest.raises(BadInput, match="No space left"):
        write_match(place, FOUND, "second", fail)
    assert json.loads((place / "match.json").read_text())["command"] == "first"
    write_match(place, FOUND, "third")
    assert json.loads((place / "match.json").read_text())["command"] == "third"
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["m"]


def test_other_files_beside_a_comparison_are_refused_and_kept(tmp_path: Path) -> None:
    place = tmp_path / "m"
    write_match(place, FOUND, "first")
    (place / "notes.txt").write_text("mine")
    for refuse in (lambda: check_directory(place), lambda: write_match(place, FOUND, "second", replace=True)):
        with pytest.raises(BadInput, match=r"holds 'notes.txt' beside a comparison; move it away"):
            refuse()
    assert (place / "notes.txt").read_text() == "mine"
    assert json.loads((place / "match.json").read_text())["command"] == "first"


def test_a_replacement_that_is_killed_at_any_rename_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "m"

    def draw(folder: Path) -> None:
        (folder / "match.svg").write_text("drawn")

    class Killed(BaseException):
        pass

    renames = 0
    for survived in itertools.count():
        write_match(place, FOUND, "first", draw)
        left = survived

        def rename(source: Path, target: Path) -> None:
            nonlocal left
            if target.parent == place:
                left -= 1
                if left < 0:
                    raise Killed
            Path(source).rename(target)

        with monkeypatch.context() as patch:
            patch.setattr(match_files.os, "replace", rename)
            try:
                write_match(place, FOUND, "second")
                break
            except Killed:
                renames += 1
        if (place / "match.json").exists():  # never beside tables of another comparison
            assert json.loads((place / "match.json").read_text())["command"] == "first"
            assert survived == 0
        assert (place / "match.csv").exists()
        check_directory(place)
    assert renames == 4
    assert sorted(p.name for p in place.iterdir()) == [
        "match.csv",
        "match.json",
        "settings.toml",
        "space.toml",
    ]


def test_what_is_not_its_own_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(BadInput, match=r"holds 'mine.txt' and no comparison"):
        write_match(tmp_path, FOUND, "")
    place = tmp_path / "m"
    write_match(place, FOUND, "")
    other = match(space(hardware={"base": "topick-gqa", "lanes": 24}), CONFIRMATION)
    with pytest.raises(BadInput, match="the comparison of another space"):
        write_match(place, other, "")
    write_match(place, other, "", replace=True)
    assert json.loads((place / "match.json").read_text())["points"] == other.search.info["points"]
    with pytest.raises(BadInput, match=r"holds 'm' and no comparison"):
        write_match(tmp_path, other, "", replace=True)
