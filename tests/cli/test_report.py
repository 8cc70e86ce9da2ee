from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Dse, snapshot
from cli.test_errors import one_line

RUN = "results/tiny"


@pytest.fixture
def ran(dse: Dse, home: Path) -> Path:
    assert dse("sweep", "tiny.toml", cwd=home).code == 0
    return home


def data(page: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8")
    )
    assert found is not None
    return json.loads(found[1])


def test_a_page_of_a_run_lies_in_it(dse: Dse, ran: Path) -> None:
    answer = dse("report", RUN, "--no-validation", cwd=ran)
    assert (answer.code, answer.stdout, answer.stderr) == (0, f"{RUN}/report.html\n", "")
    found = data(ran / RUN / "report.html")
    (run,) = found["runs"]
    assert run["name"] == found["title"] == "tiny"
    assert len(run["breakdowns"]) == run["front"]["rows"]
    assert run["sample"]["priced"] == run["sample"]["total"]
    assert found["validation"] is None
    assert dse("sweep", "tiny.toml", cwd=ran).code == 0, "the run is still one"


def test_json_says_what_is_on_the_page(dse: Dse, ran: Path) -> None:
    answer = dse(
        "report",
        RUN,
        RUN,
        "-o",
        "two.html",
        "--no-validation",
        "--points",
        "20",
        "--breakdowns",
        "6",
        "--json",
        cwd=ran,
    )
    assert answer.code == 0
    found, runs = answer.json, data(ran / "two.html")["runs"]
    assert found["report"] == "two.html"
    assert found["bytes"] == (ran / "two.html").stat().st_size
    assert [r["name"] for r in found["runs"]] == [r["name"] for r in runs]
    assert len({r["name"] for r in runs}) == 2, "one run twice is told apart"
    assert [r["breakdowns"] for r in found["runs"]] == [len(r["breakdowns"]) for r in runs] == [3, 3]
    assert "stored points are not broken down" in answer.stderr
    for told, run in zip(found["runs"], runs, strict=True):
        assert told["sampled"] == run["sample"]["priced"] == 20
        assert told["drawn"] == run["front"]["rows"] + run["sample"]["points"]["rows"]
        on_front = told["breakdowns"] if told["front"] >= 3 else told["front"]
        assert len(run["breakdowns"]) >= on_front, "those of the front come first"
    assert len(data(ran / "two.html")["comparisons"]) == 1


def test_validation_is_on_the_page(dse: Dse, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dse import validation

    monkeypatch.setattr(validation, "SYSTEMS", {"dense": validation.SYSTEMS["dense"]})  # the others take long
    assert (
        dse("report", RUN, "-o", "a.html", "--points", 0, "--breakdowns", 0, "--title", "Ours", cwd=ran).code
        == 0
    )
    found = data(ran / "a.html")
    assert found["title"] == "Ours"
    (system,) = found["validation"]["systems"]
    told = json.loads(dse("validate", "dense", "--json", cwd=ran).stdout)["rows"]
    assert [row["quantity"] for row in system["rows"]] == [row["quantity"] for row in told]
    assert [row["within"] for row in system["rows"]] == [row["within"] for row in told]
    assert found["runs"][0]["sample"] is None
    assert found["runs"][0]["breakdowns"] == {}


def test_without_its_profile_a_run_is_shown_all_the_same(dse: Dse, ran: Path) -> None:
    (ran / "tiny.npz").unlink()
    answer = dse("report", RUN, "-o", "a.html", "--no-validation", cwd=ran)
    assert answer.code == 0
    assert "no breakdowns and no points but the stored ones: " in answer.stderr
    (run,) = data(ran / "a.html")["runs"]
    assert run["front"]["rows"] > 0
    assert run["sample"] is None
    assert any("tiny.npz" in note for note in run["notes"])


def test_a_report_is_replaced_and_nothing_else(dse: Dse, ran: Path) -> None:
    quick = ("--no-validation", "--points", 0, "--breakdowns", 0)
    assert dse("report", RUN, "-o", "a.html", *quick, "--title", "one", cwd=ran).code == 0
    assert dse("report", RUN, "-o", "a.html", *quick, "--title", "two", cwd=ran).code == 0
    assert data(ran / "a.html")["title"] == "two"
    (ran / "thesis.html").write_text("years of work")
    one_line(
        dse("report", RUN, "-o", "thesis.html", *quick, cwd=ran),
        "thesis.html: is no report of dse; nothing was",
    )
    assert (ran / "thesis.html").read_text() == "years of work"
    assert dse("report", RUN, "-o", "thesis.html", "--replace", *quick, cwd=ran).code == 0
    assert data(ran / "thesis.html")["title"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("results/tini",), "results/tini: "),
        (("tiny.toml",), "tiny.toml: "),
        ((".",), "is not a complete run"),
        ((RUN, "-o", "page.pdf"), "page.pdf: suffix '.pdf'; a report is one of .html, .htm"),
        ((RUN, "-o", "tiny.toml/page.html"), "tiny.toml"),
        ((RUN, "-o", "results"), "results: is a directory"),
        ((RUN, "--points", "-1"), "--points: "),
        ((), "RUNS"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    dse: Dse, ran: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = snapshot(ran)
    one_line(dse("report", *arguments, "--no-validation", "-q", cwd=ran), message)
    assert snapshot(ran) == before


@pytest.mark.parametrize("name", ["run.json", "front.csv", "space.toml"])
def test_a_damaged_run_is_refused(dse: Dse, ran: Path, name: str) -> None:
    path = ran / RUN / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    one_line(dse("report", RUN, "-o", "a.html", "--no-validation", cwd=ran), name)
    assert not (ran / "a.html").exists()


def test_a_study_has_a_page(dse: Dse, ran: Path) -> None:
    answer = dse("study", "tiny.toml", "--trials", 12, "-o", "study", "-q", cwd=ran)
    assert answer.code == 0, answer.stderr
    assert dse("report", "study", RUN, "-o", "a.html", "--no-validation", cwd=ran).code == 0
    study, sweep = data(ran / "a.html")["runs"]
    assert (study["kind"], sweep["kind"]) == ("study", "sweep")
    assert study["sentence"] == "", "of a part of the space nothing is concluded"
    assert len(study["breakdowns"]) == study["front"]["rows"]


def test_runs_of_one_name_go_by_their_paths(dse: Dse, ran: Path) -> None:
    shutil.copytree(ran / RUN, ran / "copy" / "tiny")
    assert (
        dse("report", RUN, "copy/tiny", "-o", "a.html", "--no-validation", "--points", 0, cwd=ran).code == 0
    )
    assert [run["name"] for run in data(ran / "a.html")["runs"]] == [RUN, "copy/tiny"]
