"""`dse explain`: on points of a run, on changed ones, on points described key by key."""

from __future__ import annotations

import csv
import io
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomli_w

from cli.conftest import Dse
from dse.cli.environment import Environment
from dse.cli.explain_text import _changes
from dse.cli.points import _row, find_point
from dse.errors import BadInput
from dse.hardware.presets import load_preset
from dse.results import Run, read_run

RUN = "results/tiny"
AGAINST = "results/against"


def front(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / RUN / "front.csv").read_text())))


def story(dse: Dse, folder: Path, *arguments: object) -> Any:
    answer = dse("explain", *arguments, "--json", cwd=folder)
    assert answer.code == 0, answer.stderr
    return answer.json


def test_a_point_of_a_run_is_explained_at_the_price_it_was_swept_with(dse: Dse, swept: Path) -> None:
    for number, row in enumerate(front(swept), 1):
        found = story(dse, swept, RUN, number)
        assert found["point"] == row["point"]
        assert found["algorithm"] == row["algorithm"]
        for name in ("latency_s", "energy_j", "area_mm2", "dram_bytes", "nll_increase", "floor_s"):
            assert found["metrics"][name] == pytest.approx(float(row[name]), rel=1e-9), name
        assert found["metrics"]["bound"] == row["bound"] == found["ladder"][0]["name"]
        assert found["rank"]["on_front"] == (row["on_front"] == "True")
        for name in ("latency_s", "energy_j", "area_mm2"):
            least, most = (found["metrics"][f"{name}_{end}"] for end in ("low", "high"))
            assert least <= found["metrics"][name] <= most
        if number == 4:
            break


def test_ids_may_be_cut_short(dse: Dse, swept: Path) -> None:
    row = front(swept)[-1]
    assert story(dse, swept, RUN, row["point"])["point"] == row["point"]
    assert story(dse, swept, RUN, row["point"][:6])["point"] == row["point"]


def test_set_changes_a_point(dse: Dse, swept: Path) -> None:
    own = story(dse, swept, RUN, 1)
    other = story(dse, swept, RUN, 1, "--set", "hardware.lanes=3", "--set", "workload.batch=2")
    assert other["changed"]
    assert other["rank"] is None
    assert other["hardware"] == {**own["hardware"], "lanes": 3}
    assert other["metrics"]["latency_s"] > own["metrics"]["latency_s"]
    dear = story(dse, swept, RUN, 1, "--set", "components.hbm2_bit_pj=30")
    assert dear["metrics"]["energy_j"] > 2 * own["metrics"]["energy_j"]
    assert dear["sources"]["energy_j"]["dram key"][0]["source"] == "overridden"


def test_a_doubled_parameter_does_what_the_sensitivity_says(dse: Dse, swept: Path) -> None:
    own = story(dse, swept, RUN, 1)
    change = next(c for c in own["sensitivity"] if c["parameter"] == "lanes")
    other = story(dse, swept, RUN, 1, "--set", f"hardware.lanes={change['instead']}")
    for key, name in (("latency", "latency_s"), ("energy", "energy_j"), ("area", "area_mm2")):
        assert other["metrics"][name] / own["metrics"][name] - 1 == pytest.approx(change[key], abs=1e-9)


def test_a_space_and_a_preset_take_their_point_from_set(dse: Dse, home: Path) -> None:
    found = story(dse, home, "tiny.toml", "--set", "token-picker.threshold=1e-3", "--set", "hardware.lanes=7")
    assert found["algorithm"] == "token-picker"
    assert found["knobs"]["threshold"] == 1e-3
    assert found["hardware"]["lanes"] == 7
    assert story(dse, home, "tiny.toml")["algorithm"] == "dense"
    assert story(dse, home, "dense-array")["hardware"]["lanes"] == 8


def test_against_a_processor_the_machine_is_the_one_of_the_space(
    against: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(against)
    space = read_run(AGAINST).space
    stated = {name: values[0] for name, values in space.hardware.items() if len(values) == 1}
    assert (stated["clock_ghz"], stated["dram_channels"], stated["key_buffer_kib"]) == (1.0, 2, 77.0)
    of_picker = {**stated, "clock_ghz": 0.7}
    for algorithm, own in (("dense", stated), ("token-picker", of_picker)):
        asked = [f"algorithm={algorithm}"]
        assert find_point("against.toml", "", asked).design == {**own, "lanes": 5}  # swept: the base's
        for source in ("against.toml", AGAINST):
            found = find_point(source, "", [*asked, "hardware.lanes=24", "hardware.clock_ghz=0.9"])
            assert found.design == {**own, "lanes": 24, "clock_ghz": 0.9}


def test_a_swept_parameter_is_the_baselines_and_any_other_the_spaces(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    text = Path("tiny.toml").read_text()
    Path("tiny.toml").write_text(text + "\n[baseline.hardware]\nlanes = 7\nclock_ghz = 2.0\n")
    found = find_point("tiny.toml", "", ["algorithm=token-picker"]).design
    assert found["lanes"] == 7
    assert found["clock_ghz"] == load_preset("topick-gqa")["clock_ghz"]


def test_knobs_of_one_value_are_the_ones_of_the_space(against: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(against)
    knobs = find_point("against.toml", "", ["algorithm=token-picker"]).knobs
    assert (knobs["chunks"], knobs["margin"]) == ("6+6", 0.5)
    knobs = find_point("against.toml", "", ["token-picker.margin=1"]).knobs
    assert (knobs["chunks"], knobs["margin"]) == ("6+6", 1)


@pytest.mark.parametrize("base", ["kept", "edited", "broken", "gone"])
def test_a_run_asks_what_only_the_file_of_its_base_says(
    against_own: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(against_own)
    change_base(against_own, base)
    with pytest.raises(BadInput, match=r"hardware\.lanes: has several values, .*sub/own\.toml") as refused:
        find_point(AGAINST, "", ["algorithm=dense"])
    asked = str(refused.value).split("such as ")[1]
    assert asked == "--set hardware.lanes=24"
    assert find_point(AGAINST, "", ["algorithm=dense", "hardware.lanes=24"]).design["lanes"] == 24


def test_a_space_asks_what_nothing_says(against_own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(against_own)
    table = tomllib.loads((Path(AGAINST) / "space.toml").read_text())
    for base, why in (
        ("sub/none.toml", "no preset or file 'sub/none.toml'"),
        (None, "the space has no base"),
    ):
        table["hardware"] |= {"base": base} if base else {}
        if base is None:
            del table["hardware"]["base"]
        Path("full.toml").write_text(tomli_w.dumps(table))
        with pytest.raises(BadInput, match=f"space 'against': hardware.lanes: has several values, and {why}"):
            find_point("full.toml", "", [])


@pytest.mark.parametrize("base", ["kept", "edited", "broken", "gone"])
def test_a_point_of_a_run_needs_its_base_for_sources_only(
    against_own: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(against_own)
    change_base(against_own, base)
    found = find_point(AGAINST, "1", ())
    assert found.components == {"exponent_um2": 5000}
    kept = {"exponent_um2": ("preset sub/own.toml: a die photo", "measured")}
    assert found.origins == (kept if base == "kept" else {})


def change_base(folder: Path, how: str) -> None:
    """Leave the base's file as the run found it, edit it, make it invalid, or take it away."""
    path = folder / "sub/own.toml"
    text = path.read_text()
    changed = {
        "edited": text.replace("lanes = 5", "lanes = 6").replace("value = 5000", "value = 6000"),
        "broken": text.replace("lanes = 5", "lanes = -5"),
    }
    assert changed.get(how) != text
    if how in changed:
        path.write_text(changed[how])
    elif how == "gone":
        path.unlink()


def test_the_largest_batch_is_said_as_the_space_says_it(dse: Dse, home: Path) -> None:
    found = story(dse, home, "tiny.toml", "--set", "workload.batch=max")
    assert found["workload"]["batch"] == "max"
    assert found["metrics"]["batch"] == found["metrics"]["batch_limit"] > 1
    assert story(dse, home, "tiny.toml", "--set", "workload.batch=3")["workload"]["batch"] == 3


def test_rows_and_ids_are_never_taken_for_each_other() -> None:
    ids = [f"{n:012x}" for n in range(0x0A0000000000, 0x0A0000000000 + 150)]
    ids[119], ids[29], ids[39], ids[3] = "119aaaaaaaaa", "120bbbbbbbbb", "107ccccccccc", "107ddddddddd"
    ids[104], ids[9] = "105eeeeeeeee", "123456789012"
    run = Run(Path("run"), None, pd.DataFrame({"point": ids}), {})  # type: ignore[arg-type]
    for row, name in enumerate(ids):
        assert _row(run, name) == row
        text = str(row + 1)
        others = [i for i in ids if i != name and len(text) > 2 and i.startswith(text)]
        if not others:
            assert _row(run, text) == row
            continue
        with pytest.raises(BadInput) as refused:
            _row(run, text)
        assert all(i in str(refused.value) for i in (name, *others))
    for text in ("119", "120", "107", "123"):
        with pytest.raises(BadInput, match=f"'{text}' is the number of the row of point"):
            _row(run, text)
    assert _row(run, "105") == 104  # the row, and the only id that begins so
    assert (_row(run, "119a"), _row(run, "120b"), _row(run, "1234")) == (119, 29, 9)
    with pytest.raises(BadInput, match="begins the ids of"):
        _row(run, "0a0")


def test_a_parameter_that_does_something_is_not_listed_as_without_effect() -> None:
    out = io.StringIO()
    same = {"energy": 0.0, "area": 0.0, "value": "a"}
    changes = [
        {"parameter": "dram", "instead": "b", "latency": 0.5, **same},
        {"parameter": "dram", "instead": "c", "latency": 0.0, **same},
        {"parameter": "softmax", "instead": "b", "latency": 0.0, **same},
    ]
    _changes(Environment(out, io.StringIO(), columns=100), changes)
    assert out.getvalue().splitlines()[-1] == "no effect: softmax"


def test_constants_of_a_preset_name_it_and_give_way_to_set(dse: Dse, home: Path) -> None:
    found = story(dse, home, "spatten")
    (unit,) = found["sources"]["area_mm2"]["exponents"]
    assert unit["value"] == 96200
    assert unit["source"].startswith("preset spatten: softmax 0.791 mm2")
    other = story(dse, home, "spatten", "--set", "components.exponent_um2=1000")
    (unit,) = other["sources"]["area_mm2"]["exponents"]
    assert (unit["value"], unit["source"]) == (1000, "overridden")
    assert other["area_mm2"]["exponents"] < found["area_mm2"]["exponents"] / 50


def test_parts_add_up_to_the_whole(dse: Dse, swept: Path) -> None:
    for extra in ((), ("--set", "workload.batch=3")):
        found = story(dse, swept, RUN, 2, *extra)
        assert sum(found["energy_j"].values()) == pytest.approx(found["metrics"]["energy_j"])
        assert sum(found["area_mm2"].values()) == pytest.approx(found["metrics"]["area_mm2"])
        for table in ("energy_j", "area_mm2"):
            for name in found[table]:
                known = found["sources"]["power_w"] | found["sources"][table]
                assert name in known or found[table][name] == 0, name


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_no_line_is_wider_than_the_window(dse: Dse, swept: Path, columns: int) -> None:
    answer = dse("explain", RUN, 1, cwd=swept, columns=columns)
    assert answer.code == 0
    assert max(map(len, answer.stdout.splitlines())) <= columns
    for title in (
        "time:",
        "memory:",
        "energy:",
        "area:",
        "constants",
        "what a change",
        "what binds next",
        "rank",
    ):
        assert title in answer.stdout, title


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RUN,), "which point? give an id or a row number"),
        ((RUN, "99999"), "rows go from 1 to"),
        ((RUN, "zzzzzz"), "no point 'zzzzzz'"),
        ((RUN, "1", "--set", "hardware.lane=3"), "did you mean 'lanes'"),
        ((RUN, "1", "--set", "hardware.lanes=0"), "lanes: found 0; must be an integer from 1"),
        ((RUN, "1", "--set", "spaten.keep=0.3"), "did you mean 'spatten'"),
        ((RUN, "1", "--set", "workload.profile=x"), "no such key"),
        ((RUN, "1", "--set", "components.exponent=3"), "no such constant; did you mean 'exponent_pj'"),
        ((RUN, "1", "--set", "token-picker.threshold=[1e-3,1e-4]"), "=[1e-3,1e-4]: must be one value"),
        ((RUN, "1", "--set", "token-picker.threshold={a=1}"), "must be one value"),
        ((RUN, "1", "--set", "token-picker.threshold=nan"), "numbers must be finite"),
        ((RUN, "1", "--set", "token-picker.threshold=-inf"), "numbers must be finite"),
        ((RUN, "1", "--set", "token-picker.margin=true"), "must be a number"),
        ((RUN, "1", "--set", "token-picker.margin=9007199254740993"), "at most 2**53"),
        ((RUN, "1", "--set", 'token-picker.chunks=["6+6"]'), "must be one value"),
        ((RUN, "1", "--set", "token-picker.chunks=true"), "must be text; measured: "),
        ((RUN, "1", "--set", "token-picker=1"), "must be token-picker.KEY=VALUE"),
        (
            ("tiny.toml", "--set", "dense.k_bits=8", "--set", "algorithm=spatten"),
            "a point has one algorithm; found dense before",
        ),
        (("tiny.toml", "3"), "belongs to a run's directory"),
        (("topik",), "no such run directory, space or preset; did you mean 'topick'"),
        (("results",), "is not a run"),
    ],
)
def test_wrong_input_is_one_line(dse: Dse, swept: Path, arguments: tuple[str, ...], message: str) -> None:
    answer = dse("explain", *arguments, cwd=swept)
    assert answer.code == 2
    assert answer.stderr.startswith("error: ")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
