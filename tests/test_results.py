from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from profiles.synthetic import DEFAULTS, fields, profile, settings
from search.brute import price

from dse import checksums, results
from dse.errors import BadInput
from dse.profiles.profile import build_profile
from dse.results import check_directory, default_output, existing_run, front_csv, read_run, write_run
from dse.search.sweep import SweepResult, sweep
from dse.space import load_space

PROFILE = profile()
TABLE: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "workload": {"profile": "tiny", "context": 128},
    "algorithms": {"alpha": {"threshold": "all", "chunks": ["12"]}, "beta": {"keep": "all"}},
    "hardware": {"base": "topick", "lanes": [4, 8], "layout": ["planes", "token-major"]},
}


def small(*overrides: str) -> SweepResult:
    return sweep(load_space(TABLE, overrides, profile=PROFILE), pricer=price)


RESULT = small()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", RESULT)
    return tmp_path / "run"


def test_round_trip(run: Path) -> None:
    back = read_run(run)
    assert {k: v for k, v in back.info.items() if k != "sha256"} == RESULT.info
    assert set(back.info["sha256"]) == {"front.csv", "run.json", "space.toml"}
    assert back.space.plain() == RESULT.space.plain()
    assert sorted(p.name for p in run.iterdir()) == ["front.csv", "run.json", "space.toml"]
    assert list(back.front.columns) == list(RESULT.front.columns)
    assert back.front["point"].tolist() == RESULT.front["point"].tolist()
    assert back.front["on_front"].dtype == bool
    for column in RESULT.front.select_dtypes("number").columns:
        assert back.front[column].astype(float).equals(RESULT.front[column].astype(float)), column
    # A text that looks like a number stays text, an empty cell is missing.
    chunks = back.front["alpha.chunks"]
    assert set(chunks.dropna()) == {"12"}
    assert chunks.isna().sum() == (back.front["algorithm"] != "alpha").sum()
    text = (run / "front.csv").read_text().splitlines()
    column = text[0].split(",").index("dense.k_bits")
    assert {line.split(",")[column] for line in text[1:]} <= {"", "4", "8", "12"}


def test_a_front_too_large_to_be_read_back_is_not_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    monkeypatch.setattr(results, "MAX_FRONT", 1000)
    with pytest.raises(BadInput, match=r"front\.csv: would have more than 1000 bytes"):
        write_run(run, RESULT)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_another_table_is_written_together_with_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(run, RESULT, {"more.csv": "a\n1\n"})
    assert json.loads((run / "run.json").read_text())["sha256"]["more.csv"] == checksums.of_text("a\n1\n")
    before = {p.name: p.read_bytes() for p in run.iterdir()}

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="no space left"):
        write_run(run, RESULT, {"more.csv": "a\n2\n"})
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", "a\r\nb\r\n", "a\x0bb\u2028c\n\n", "ab\ncd\n\n\ne"])
def test_a_checksum_does_not_depend_on_the_pieces(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()
    for piece in (1 << 20, 3, 1, 0):
        monkeypatch.setattr(checksums, "_PIECE", piece)
        assert checksums.of_text(text) == whole


def test_a_complete_run_is_shown_again_and_can_be_replaced(run: Path) -> None:
    space = RESULT.space
    again = existing_run(run, space)
    assert again is not None
    assert again.info == read_run(run).info
    before = (run / "front.csv").read_bytes()
    (run / "front.png").write_bytes(b"png")
    write_run(run, small())
    assert (run / "front.csv").read_bytes() == before
    assert (run / "front.png").exists()


def test_a_run_by_another_version_is_not_shown_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_version", lambda: "99")
    assert existing_run(run, RESULT.space) is None


def test_a_studys_run_is_never_touched(run: Path) -> None:
    _info(run, kind="study")
    with pytest.raises(BadInput, match="holds the run of a study; nothing was overwritten"):
        existing_run(run, RESULT.space)


def test_a_knob_may_be_an_empty_text(tmp_path: Path) -> None:
    """No text of the row's own algorithm is a text; no cell of another algorithm's row is nothing."""
    rows = [replace(s, knobs={**s.knobs, "layers": layers}) if s.algorithm == "beta" else s
            for s in settings() for layers in (("", "0-1") if s.algorithm == "beta" else ("",))]  # fmt: skip
    defaults = {**DEFAULTS, "beta": {"keep": 0.5, "layers": ""}}
    named = build_profile(**{**fields(0, rows), "defaults": defaults})
    table = {**TABLE, "algorithms": {"beta": {"keep": "all", "layers": ["", "0-1"]}}}
    result = sweep(load_space(table, profile=named), pricer=price)
    front = write_run(tmp_path / "run", result).front
    own = front["algorithm"] == "beta"
    assert front.loc[own, "beta.layers"].tolist() == result.front.loc[own, "beta.layers"].tolist()
    assert "" in set(front.loc[own, "beta.layers"])
    assert front.loc[~own, "beta.layers"].isna().all()


def test_another_spaces_run_is_never_touched(run: Path) -> None:
    other = small("workload.batch=2")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    for action in (lambda: existing_run(run, other.space), lambda: write_run(run, other)):
        with pytest.raises(BadInput, match=r"holds a run of another space .* nothing was overwritten"):
            action()
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


@pytest.mark.parametrize("name", ["thesis.tex", "run.json", "front.csv"])
def test_a_foreign_directory_is_never_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(BadInput, match="and no run; nothing was overwritten"):
        write_run(tmp_path, RESULT)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_foreign_space_file_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("schema = 1\ncolour = 3\n")
    with pytest.raises(BadInput, match=r"colour: unknown key.*nothing was overwritten"):
        write_run(tmp_path, RESULT)


def test_an_interrupted_run_may_be_finished(run: Path) -> None:
    (run / "run.json").unlink()
    assert existing_run(run, RESULT.space) is None
    with pytest.raises(BadInput, match=r"not a complete run \(run.json is missing\)"):
        read_run(run)
    write_run(run, RESULT)
    assert existing_run(run, RESULT.space) is not None


def test_a_damaged_run_of_the_same_space_may_be_replaced(run: Path) -> None:
    (run / "front.csv").write_text("point\n")
    assert existing_run(run, RESULT.space) is None
    write_run(run, RESULT)
    assert existing_run(run, RESULT.space) is not None


def test_empty_and_hidden_content_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("x")
    assert existing_run(tmp_path, RESULT.space) is None
    write_run(tmp_path, RESULT)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is not a directory"):
        check_directory(tmp_path / "file", RESULT.space)
    with pytest.raises(BadInput, match="is not a directory"):
        check_directory(tmp_path / "file" / "deep" / "run", RESULT.space)


def test_a_directory_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(BadInput, match="is not writable"):
        check_directory(tmp_path, RESULT.space)
    with pytest.raises(BadInput, match="cannot be created"):
        check_directory(tmp_path / "new", RESULT.space)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BadInput, match="cannot write: no space left on device"):
        write_run(tmp_path / "run", RESULT)
    assert list(tmp_path.iterdir()) == []


def _info(run: Path, **changes: Any) -> None:
    info = json.loads((run / "run.json").read_text()) | changes
    (run / "run.json").write_text(json.dumps({k: v for k, v in info.items() if v is not ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": ...}, "run.json: points: missing"),
        ({"points": "many"}, "run.json: points: found 'many'; must be int"),
        ({"status": "done"}, "run.json: status: found 'done'"),
        ({"front": 0}, "run.json: front: 0, but front.csv has"),
        ({"space_digest": "0"}, "run.json: space_digest: does not match space.toml"),
        ({"hypervolume": float("nan")}, "run.json: is not JSON"),
        ({"baseline": ...}, "run.json: baseline: missing"),
        (
            {"objectives": {"speedup": "minimize"}},
            "run.json: objectives: found speedup = 'minimize'; must be as in",
        ),
        ({"objectives": {"energy_j": "minimize"}}, "run.json: objectives: found energy_j = 'minimize'"),
        ({"reference_point": {"speedup": 0.0}}, "run.json: reference_point: nll_increase is missing"),
        (
            {"objectives": {"speedup": "maximize"}},
            "run.json: objectives: nll_increase is missing; must be as in",
        ),
        ({"objectives": {}}, "run.json: objectives: speedup is missing; must be as in"),
        ({"hypervolume": -5}, "run.json: hypervolume: found -5; must not be negative"),
        ({"hypervolume": True}, "run.json: hypervolume: found True; must be float"),
        ({"kind": "study"}, "run.json: study: found None; must be str"),
    ],
)
def test_a_strange_record_is_refused(run: Path, changes: dict[str, Any], message: str) -> None:
    _info(run, **changes)
    with pytest.raises(BadInput) as caught:
        read_run(run)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["latency_s", "energy_j", "dram_bytes", "rest_s", "attention_s", "batch"])
@pytest.mark.parametrize("value", [0, -1.0, True, "1", [1], None, ...])
def test_a_baseline_that_no_ratio_can_be_over_is_refused(run: Path, key: str, value: Any) -> None:
    baseline = RESULT.info["baseline"] | {key: value}
    _info(run, sha256=..., baseline={k: v for k, v in baseline.items() if v is not ...})
    may_be = {
        "dram_bytes": (0,),
        "rest_s": (0,),
        "attention_s": (None, ...),
        "batch": (...,),
    }
    if any(value is v for v in may_be.get(key, ())):
        assert read_run(run).info["baseline"].get(key, ...) == value
        return
    with pytest.raises(BadInput, match=rf"run\.json: baseline\.{key}: found .*; must be a number "):
        read_run(run)


def test_a_study_may_seek_one_objective_alone(run: Path) -> None:
    about = {
        "kind": "study",
        "study": "s",
        "sampler": "local",
        "trials": 3,
        "continuous": False,
        "sha256": ...,
    }
    for goal in ({"speedup": "maximize"}, {"nll_increase": "minimize"}):
        _info(run, **about, objectives=goal)
        assert read_run(run).info["objectives"] == goal
    _info(run, **about, objectives={})
    with pytest.raises(BadInput, match="objectives: speedup is missing"):
        read_run(run)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("run.json", "{", "[", "run.json: is not JSON"),
        ("front.csv", "on_front", "onfront", "front.csv: column 'on_front' is missing"),
        ("front.csv", "True", "yes", "front.csv:2: on_front: holds what does not belong there"),
        ("front.csv", ",4,", ",four,", "holds what does not belong there"),
        ("front.csv", "\n", "\n1,2,3\n", "front.csv"),
        ("space.toml", "schema = 1", "schema = ", "not TOML"),
        ("space.toml", "batch = 1", "batch = 3", "space_digest: does not match"),
    ],
)
def test_changed_files_are_refused(run: Path, name: str, old: str, new: str, message: str) -> None:
    path = run / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BadInput) as caught:
        read_run(run)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["front.csv", "run.json", "space.toml"])
def test_a_digit_that_changed_is_noticed(run: Path, name: str) -> None:
    """Wherever one digit of a run became another one, the run is refused, or says what it said before."""
    text = (run / name).read_text()
    before = read_run(run)
    places = [at for at, c in enumerate(text) if c.isdigit()]
    assert len(places) > 30
    refused: list[str] = []
    for at in places[:: max(1, len(places) // 60)]:
        (run / name).write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
        try:
            after = read_run(run)
        except BadInput as error:
            refused.append(str(error))
            continue
        # A name, a path or a comment: nothing that decides a number.
        assert after.info == before.info
        assert after.front.equals(before.front)
        assert after.space.digest() == before.space.digest()
    assert len(refused) > (20 if name == "space.toml" else 50)
    assert all(name in message for message in refused if name != "space.toml")


def test_where_the_profile_lies_and_how_lines_end_does_not_count(run: Path) -> None:
    path = run / "space.toml"
    path.write_text(path.read_text().replace('profile = "tiny"', 'profile = "elsewhere/tiny.npz"'))
    (run / "front.csv").write_bytes((run / "front.csv").read_bytes().replace(b"\n", b"\r\n"))
    (run / "run.json").write_text(json.dumps(json.loads((run / "run.json").read_text())))
    assert read_run(run).space.workload.profile == "elsewhere/tiny.npz"
    path.write_text(path.read_text().replace('name = "small"', 'name = "great"'))
    with pytest.raises(BadInput, match=r"space\.toml: was changed since it was written"):
        read_run(run)


def test_a_run_of_an_older_version_has_no_checksums(run: Path) -> None:
    _info(run, sha256=...)
    assert "sha256" not in read_run(run).info


def test_why_a_run_is_computed_again_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert existing_run(run, RESULT.space, said.append) is not None
    assert said == []
    with monkeypatch.context() as patch:
        patch.setattr(results, "_version", lambda: "99")
        assert existing_run(run, RESULT.space, said.append) is None
    assert "computed this run, and this is dse 99; computing it again" in said.pop()
    _info(run, seed=7)
    assert existing_run(run, RESULT.space, said.append) is None
    assert "run.json: was changed since it was written" in said[0]
    assert said[0].endswith("; computing it again")


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such run"):
        read_run(tmp_path / "none")
    with pytest.raises(BadInput, match=r"space\.toml is missing"):
        read_run(tmp_path)


def test_the_default_place_tells_changed_spaces_apart() -> None:
    assert default_output(RESULT.space) == Path("results/small")
    changed = load_space(TABLE, ["workload.batch=2"], profile=PROFILE)
    assert default_output(changed) == Path(f"results/small-{changed.digest()[:8]}")


def test_csv_keeps_every_digit() -> None:
    table = pd.DataFrame({"point": ["1e5"], "alpha.x": [1 / 3], "alpha.n": [3.0], "speedup": [0.1 + 0.2]})
    assert front_csv(table) == "point,alpha.x,alpha.n,speedup\n1e5,0.3333333333333333,3,0.30000000000000004\n"
