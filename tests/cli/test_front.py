from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from cli.conftest import Dse

RUN = "results/tiny"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_shows_what_nothing_dominates(dse: Dse, swept: Path) -> None:
    answer = dse("front", RUN, cwd=swept)
    on_front = [row for row in rows((swept / RUN / "front.csv").read_text()) if row["on_front"] == "True"]
    body = [line for line in answer.stdout.splitlines()[2:] if not line.startswith(("knobs:", "*"))]
    assert len(body) == len(on_front)
    assert [line.split()[0] for line in body].count("dense") == sum(
        r["algorithm"] == "dense" for r in on_front
    )


@pytest.mark.parametrize("columns", [64, 80, 100, 140, 250])
def test_no_line_is_wider_than_the_window(dse: Dse, swept: Path, columns: int) -> None:
    answer = dse("front", RUN, "--all", "--rows", 0, cwd=swept, columns=columns)
    table = [line for line in answer.stdout.splitlines() if not line.startswith(("knobs:", "*"))]
    assert max(map(len, table)) <= columns


def test_csv_holds_every_column_and_json_the_same_rows(dse: Dse, swept: Path) -> None:
    full = rows((swept / RUN / "front.csv").read_text())
    as_csv = rows(dse("front", RUN, "--format", "csv", "--all", cwd=swept).stdout)
    as_json = dse("front", RUN, "--json", "--all", cwd=swept).json
    assert sorted(r["point"] for r in as_csv) == sorted(r["point"] for r in full)
    assert list(as_csv[0]) == list(full[0])
    assert [r["point"] for r in as_json] == [r["point"] for r in as_csv]
    assert "spatten.keep" not in next(r for r in as_json if r["algorithm"] == "dense")
    assert as_json[0]["speedup"] == float(as_csv[0]["speedup"])


def test_json_has_the_knobs_that_explain_has(dse: Dse, swept: Path) -> None:
    """Whole numbers stay whole, also in columns that other algorithms leave empty."""
    found = dse("front", RUN, "--json", "--all", cwd=swept).json
    for row in [found[0], next(r for r in found if r["algorithm"] == "dense"), found[-1]]:
        story = dse("explain", RUN, row["point"], "--json", cwd=swept).json
        for knob, value in story["knobs"].items():
            told = row[f"{row['algorithm']}.{knob}"]
            assert told == value
            assert isinstance(told, int) or not isinstance(value, int), (knob, told)


def test_csv_prints_what_front_csv_says(dse: Dse, swept: Path) -> None:
    said = (swept / RUN / "front.csv").read_text().splitlines()
    shown = dse("front", RUN, "--format", "csv", "--all", cwd=swept).stdout.splitlines()
    assert shown[0] == said[0]
    assert sorted(shown) == sorted(said)
    # A part of a column prints as the whole does.
    some = rows(dse("front", RUN, "--format", "csv", "--all", "--algorithm", "dense", "--columns",
                    "point,dense.k_bits,spatten.keep", cwd=swept).stdout)  # fmt: skip
    known = {row["point"]: row for row in rows("\n".join(said))}
    assert some
    assert all(row.items() <= known[row["point"]].items() for row in some)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("f.csv", ("--json",), "f.csv: suffix '.csv' stands against --json; leave one of them out"),
        ("f.json", ("--format", "csv"), "f.json: suffix '.json' stands against --format csv"),
        ("f.csv", ("--format", "table"), "f.csv: suffix '.csv' stands against --format table"),
        ("f.json", ("--format", "table"), "f.json: suffix '.json' stands against --format table"),
        ("f.csv", ("--format", "json"), "f.csv: suffix '.csv' stands against --format json"),
    ],
)
def test_a_suffix_that_says_otherwise_is_refused(
    dse: Dse, swept: Path, tmp_path: Path, name: str, options: tuple[str, ...], message: str
) -> None:
    answer = dse("front", RUN, *options, "-o", tmp_path / name, cwd=swept)
    assert (answer.code, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert message in answer.stderr
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "form"), [("f.csv", "csv"), ("f.json", "json"), ("f", "csv"), ("f.dat", "table")]
)
def test_a_format_may_stand_beside_another_name(
    dse: Dse, swept: Path, tmp_path: Path, name: str, form: str
) -> None:
    assert dse("front", RUN, "--format", form, "-o", tmp_path / name, cwd=swept).code == 0
    assert (tmp_path / name).read_text()


def test_points_that_nothing_dominates_come_first(dse: Dse, swept: Path) -> None:
    flags = [r["on_front"] for r in dse("front", RUN, "--json", "--all", cwd=swept).json]
    assert flags == sorted(flags, reverse=True)
    assert True in flags


def test_columns_sorting_algorithms_and_row_limits(dse: Dse, swept: Path) -> None:
    answer = dse("front", RUN, "--format", "csv", "--all", "--algorithm", "dense", "--sort", "-speedup",
                 "--columns", "algorithm,speedup", "--rows", 2, cwd=swept)  # fmt: skip
    found = rows(answer.stdout)
    assert [list(r) for r in found] == [["algorithm", "speedup"]] * 2
    assert {r["algorithm"] for r in found} == {"dense"}
    assert float(found[0]["speedup"]) > float(found[1]["speedup"])


def test_a_long_front_is_thinned_and_says_so(dse: Dse, swept: Path) -> None:
    answer = dse("front", RUN, "--rows", 3, cwd=swept)
    assert "3 of " in answer.stderr
    assert "--rows 0 shows all" in answer.stderr


@pytest.mark.parametrize(("name", "start"), [("a.csv", "point,"), ("a.json", "["), ("a.txt", "algorithm")])
def test_a_file_by_its_suffix(dse: Dse, swept: Path, tmp_path: Path, name: str, start: str) -> None:
    answer = dse("front", RUN, "-o", tmp_path / name, cwd=swept)
    assert answer.stdout == ""
    assert (tmp_path / name).read_text().startswith(start)
    if name.endswith("json"):
        assert json.loads((tmp_path / name).read_text())


def test_colour_only_on_request(dse: Dse, swept: Path) -> None:
    assert "\x1b" not in dse("front", RUN, cwd=swept).stdout
    assert "\x1b[1m" in dse("front", RUN, cwd=swept, colour=True).stdout


def test_a_run_that_shares_no_fetches_says_so(dse: Dse, home: Path, swept: Path) -> None:
    assert dse("sweep", "tiny.toml", "--set", "workload.grouped=false", "-o", "apart", cwd=home).code == 0
    note = "as if every query head had its own keys and values"
    assert note in dse("front", "apart", cwd=home).stderr
    assert note not in dse("front", RUN, cwd=swept).stderr
    about = dse("check", "tiny.toml", "--set", "workload.grouped=false", cwd=home).stdout
    assert note in " ".join(about.split())
