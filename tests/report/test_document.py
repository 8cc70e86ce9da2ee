from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dse.errors import BadInput
from dse.report.breakdown import reduced
from dse.report.content import Part, comparisons, content
from dse.report.document import check_output, embedded, is_report, render, write

EVIL = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&amp; @@data@@"


class Reader(HTMLParser):
    """Tags, scripts and the policy of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.title = ""
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._open == "title":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    @property
    def data(self) -> Any:
        (text,) = (text for attributes, text in self.scripts if attributes.get("id") == "data")
        return json.loads(text)

    @property
    def policy(self) -> str:
        return next(
            str(a["content"]) for tag, a in self.tags if a.get("http-equiv") == "Content-Security-Policy"
        )


@pytest.fixture(scope="module")
def evil(part: Part) -> Reader:
    named = replace(
        part, name=EVIL, place=EVIL, run=replace(part.run, space=replace(part.run.space, description=EVIL))
    )
    return Reader(render(content(EVIL, [named], None, "a chart"), EVIL))


def test_a_hostile_name_stays_text(evil: Reader) -> None:
    assert evil.title == EVIL
    assert evil.data["title"] == evil.data["runs"][0]["name"] == EVIL
    assert EVIL in evil.data["runs"][0]["space"]
    assert not [tag for tag, _ in evil.tags if tag == "img"]
    assert not any("alert" in text for attributes, text in evil.scripts if "id" not in attributes)


def test_only_our_scripts_may_run_and_nothing_may_be_fetched(evil: Reader) -> None:
    policy = {rule.split()[0]: rule.split()[1:] for rule in evil.policy.split("; ")}
    ran = [text for attributes, text in evil.scripts if attributes.get("type") != "application/json"]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in ran]
    assert policy["script-src"] == [f"'sha256-{digest}'" for digest in digests]
    assert policy["default-src"] == ["'none'"]
    assert not {"connect-src", "font-src", "frame-src", "worker-src"} & set(policy), (
        "these follow default-src"
    )
    assert policy["img-src"] == ["data:"]
    assert all("src" not in attributes for attributes, _ in evil.scripts)
    assert not [a for tag, a in evil.tags if tag in ("link", "iframe", "base", "object", "form")]


def test_json_cannot_end_its_element() -> None:
    text = embedded({"a": EVIL})
    assert not re.search(r"[<>&]", text)
    assert json.loads(text) == {"a": EVIL}


def test_the_mark_of_a_report_is_found_whatever_its_title(tmp_path: Path) -> None:
    page = render({"title": ""}, html.escape(EVIL) * 100)
    write(tmp_path / "sub" / "a.html", page)
    assert is_report(tmp_path / "sub/a.html")
    assert (tmp_path / "sub/a.html").read_text(encoding="utf-8") == page
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.html"]


def test_what_is_no_report_is_not_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "thesis.html"
    other.write_text("<p>years of work, made with dse report</p>")
    with pytest.raises(BadInput, match="no report of dse; nothing was overwritten"):
        check_output(other)
    check_output(other, replace=True)
    check_output(tmp_path / "new.html")
    for path, message in (
        (tmp_path, "suffix"),
        (tmp_path / "a.pdf", r"suffix '\.pdf'"),
        (tmp_path / "a", "no suffix"),
    ):
        with pytest.raises(BadInput, match=message):
            check_output(path)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot be written"):
        write(tmp_path / "file" / "a.html", "x")


def test_what_the_page_says_of_a_run(part: Part) -> None:
    found = content("a title", [part], None, "a chart")
    (run,) = found["runs"]
    facts = dict(map(tuple, run["provenance"]))
    assert part.run.info["space_digest"] in facts["space"]
    assert part.run.info["profile"]["checksum"] in facts["profile"]
    assert part.space is not None
    assert part.space.profile.provenance.text_sha256 in facts["text"]
    assert facts["seed"] == str(part.run.info["seed"])
    assert all(version in facts["versions"] for version in part.run.info["versions"].values())
    assert [part.run.info["command"], "dse sweep space.toml --seed 0 -o again"] == [
        c for _, c in run["commands"]
    ]
    assert run["front"]["rows"] == len(part.run.front)
    names = [c["name"] for c in found["columns"]]
    assert {"speedup", "nll_increase", "hardware.lanes", "token-picker.threshold"} <= set(names)
    latency = next(c for c in found["columns"] if c["name"] == "latency_s")
    assert (latency["unit"], latency["scale"], latency["better"]) == ("µs", 1e6, "less")
    assert next(iter(found["looks"])) == "dense", "the rival comes first"
    assert len({(v["light"], v["marker"]) for v in found["looks"].values()}) == len(found["looks"])


def test_every_pair_of_runs_is_compared_and_what_does_not_compare_is_said(part: Part) -> None:
    other = replace(part, name="other")
    alone = replace(
        part, name="alone", run=replace(part.run, space=replace(part.run.space, objectives={"speedup": True}))
    )
    found = comparisons([part, other, alone])
    assert [(c["a"]["name"], c["b"]["name"]) for c in found] == [
        ("tiny", "other"),
        ("tiny", "alone"),
        ("other", "alone"),
    ]
    same = found[0]
    assert same["change"] == 0
    assert same["differences"] == []
    assert same["a"]["dominated"] == same["b"]["dominated"] == []
    assert same["a"]["hypervolume"] == same["joint"] > 0
    assert set(same["reference"]) == set(part.run.space.objectives)
    assert "shares 1 objectives" in found[1]["refused"]


def test_a_breakdown_adds_up(part: Part) -> None:
    from dse.cli.points import point_of_row
    from dse.cost.explain import explain

    assert part.space is not None
    row, point = part.run.front.iloc[0], point_of_row(part.run, part.space, 0, ())
    found = reduced(explain(point.stats, point.design, point.workload, point.components))
    assert sum(found["time_s"].values()) - found["overlap_s"] == pytest.approx(row["attention_s"], rel=2e-3)
    assert sum(found["energy_j"].values()) == pytest.approx(row["energy_j"], rel=2e-3)
    assert sum(found["area_mm2"].values()) == pytest.approx(row["area_mm2"], rel=2e-3)
    assert list(found["energy_j"].values()) == sorted(found["energy_j"].values(), reverse=True)
