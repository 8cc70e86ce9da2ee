"""`dse explain`: on points of a run, on changed ones, on points described key by key."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cli.conftest import Dse
from dse.cli.environment import Environment
from dse.cli.explain_text import _changes
from dse.cli.points import _row
from dse.errors import BadInput
from dse.results import Run

RUN = "results/tiny"


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
