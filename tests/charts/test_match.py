from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from search.test_match import FOUND

from dse.charts.match import match_figure
from dse.charts.style import save, shade
from dse.search.match import Match


def with_an_oracle(match: Match) -> Match:
    """SpAtten renamed: the chart takes oracles by what they are called."""
    rows = [
        replace(r, pick=replace(r.pick, algorithm=r.pick.algorithm.replace("spatten", "oracle-top-k")))
        for r in match.rows
    ]
    return replace(match, rows=tuple(rows))


def test_the_same_comparison_is_the_same_file(tmp_path: Path) -> None:
    for suffix in ("png", "svg"):
        one, two = (save(match_figure(FOUND, "title"), tmp_path / f"{n}.{suffix}") for n in (1, 2))
        assert one.read_bytes() == two.read_bytes()


def test_text_says_what_is_drawn(tmp_path: Path) -> None:
    svg = save(match_figure(with_an_oracle(FOUND), "a title\nof two lines"), tmp_path / "m.svg").read_text()
    words = set(re.findall(r">([^<>]+)</text>", svg))
    assert {"dense (the rival)", "token-picker", "oracle-top-k (oracle)"} <= words
    assert {f"{b:g}" for b in FOUND.budgets} <= words
    assert {row.letters for row in FOUND.rows} <= words
    assert "accuracy budget (nats per token)" in words
    assert "a title" in words


def test_every_pick_has_a_mark_in_both_panels() -> None:
    figure = match_figure(with_an_oracle(FOUND), "")
    left, right = figure.axes
    for axes, drawn in ((left, [r for r in FOUND.rows if r.gain == r.gain]), (right, FOUND.rows)):
        marks = [line for line in axes.lines if line.get_marker() not in ("", "None")]
        assert len(marks) == len(drawn)
        hollow = [m for m in marks if m.get_markerfacecolor() == shade(1.0)]
        assert len(hollow) == sum(r.pick.algorithm == "spatten" for r in drawn)
        low, high = axes.get_ylim()
        assert all(low <= float(m.get_ydata()[0]) <= high for m in marks)
    places = [float(m.get_xdata()[0]) for m in left.lines if m.get_marker() not in ("", "None")]
    assert len(set(places)) == len(places)  # nothing is drawn over anything else
