"""The page in a real browser: it answers to pointer and keys, and asks the network for nothing.

Skipped without Playwright (`pip install playwright`, no `playwright install`) or without Chromium on the system, unless
DSE_REQUIRE_BROWSER is set: then that is a failure.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dse.cli.points import point_of_row
from dse.cost.explain import explain
from dse.report.breakdown import reduced
from dse.report.content import Part, content
from dse.report.document import render, write
from dse.report.sample import SETTING, Sample, sample

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
READY = "body[data-ready]"
PATIENCE = 120_000
"""Milliseconds until a page counts as hung, on a machine that has other work."""

NAME = "</script><script>window.hacked = 1</script>"


def missing(reason: str) -> None:
    if os.environ.get("DSE_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the package playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        missing("no Chromium on this system")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@dataclass
class Shown:
    """A page in the browser.

    Attributes:
        complaints: what it wrote on the console, errors it threw, and whatever it asked the network for.
    """

    page: Any
    place: Path
    complaints: list[str] = field(default_factory=list)

    def __call__(self, script: str) -> Any:
        return self.page.evaluate(script)

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def at(self, point: int) -> tuple[float, float]:
        """Where a point is in the window."""
        x, y, left, top = self(
            f"() => {{ const b = document.getElementById('chart').getBoundingClientRect();"
            f" return [...dse.chart.place({point}), b.left, b.top]; }}"
        )
        return x + left, y + top

    def values(self, name: str, points: list[int]) -> list[Any]:
        return list(self(f"() => {points}.map(i => dse.value({name!r}, i))"))

    @cached_property
    def session(self) -> Any:
        """Of the browser's own protocol."""
        return self.page.context.new_cdp_session(self.page)

    @property
    def cpu_s(self) -> float:
        """CPU time of the page's main thread since it was asked for."""
        found = {m["name"]: m["value"] for m in self.session.send("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"])

    @property
    def visible(self) -> list[int]:
        return list(self("() => [...dse.state.visible.keys()].filter(i => dse.state.visible[i])"))

    @property
    def top(self) -> list[int]:
        """Points of the first staircase, from left to right."""
        return list(
            self("() => dse.chart.envelopes[0].line.slice().sort((a, b) => dse.chart.X[a] - dse.chart.X[b])")
        )


@pytest.fixture(scope="module")
def pages(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Shown]]:
    """Opens pages; each must have complained of nothing when all is done."""
    opened: list[Shown] = []
    with contextlib.ExitStack() as stack:

        def show(parts: list[Part], title: str = "a page", **options: Any) -> Shown:
            place = tmp_path_factory.mktemp("page") / "report.html"
            write(place, render(content(title, parts, None, "a chart"), title))
            context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True, **options)
            stack.callback(context.close)
            shown = Shown(context.new_page(), place)
            shown.session.send("Performance.enable", {"timeDomain": "threadTicks"})

            def console(message: Any) -> None:
                # The software renderer of a machine without a GPU tells how slow it is.
                if "GL Driver Message" not in message.text and "setting log level" not in message.text:
                    shown.complaints.append(message.text)

            shown.page.on("console", console)
            shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
            shown.page.on("request", lambda request: shown.complaints.append(f"asked for {request.url}"))
            shown.page.goto(place.as_uri())
            shown.page.wait_for_selector(READY, timeout=PATIENCE)
            assert shown.complaints == [f"asked for {place.as_uri()}"], "the page itself and nothing else"
            shown.complaints.clear()
            opened.append(shown)
            return shown

        yield show
    assert [shown.complaints for shown in opened] == [[]] * len(opened)


@pytest.fixture(scope="module")
def whole(part: Part) -> Part:
    """The run with a sample and breakdowns."""
    assert part.space is not None
    stories = {}
    for row in range(len(part.run.front)):
        point = point_of_row(part.run, part.space, row, ())
        stories[point.name] = reduced(explain(point.stats, point.design, point.workload, point.components))
    return replace(part, sample=sample(part.run, part.space, 10**4), breakdowns=stories)


@pytest.fixture(scope="module")
def kept(pages: Callable[..., Shown], whole: Part) -> Shown:
    return pages([whole, replace(whole, name=NAME, place=NAME)], NAME)


@pytest.fixture
def shown(kept: Shown) -> Shown:
    """A page of two runs, one hostile by name, as it opens."""
    kept.page.reload()
    kept.page.wait_for_selector(READY, timeout=PATIENCE)
    kept.complaints[:] = [c for c in kept.complaints if c != f"asked for {kept.place.as_uri()}"]
    return kept


def test_the_page_holds_every_value_of_the_run(shown: Shown, whole: Part) -> None:
    tables = [("sample", whole.sample.points, 1e-6), ("front", whole.run.front, 0.0)]  # type: ignore[union-attr]
    for kind, table, error in tables:
        first = shown(f"() => dse.tables.find(t => t.kind === {kind!r} && t.run === 0).first")
        for name in (c for c in table.columns if c != SETTING):
            found = shown.values(name, list(range(first, first + len(table))))
            for mine, theirs in zip(found, table[name].tolist(), strict=True):
                if isinstance(theirs, float) and not math.isfinite(theirs):
                    assert mine is None
                else:
                    assert mine == (pytest.approx(theirs, rel=error) if isinstance(theirs, float) else theirs)


def test_a_hostile_name_is_shown_and_does_nothing(shown: Shown) -> None:
    assert shown.text("h1") == NAME
    assert NAME in shown.text("#findings")
    assert shown("() => window.hacked === undefined")
    assert NAME in shown.text("#provenance")


def test_the_pointer_over_a_point_tells_what_it_is(shown: Shown, whole: Part) -> None:
    point = shown.top[1]
    assert not shown.page.is_visible("#tip")
    shown.page.mouse.move(*shown.at(point))
    shown.page.wait_for_selector("#tip", state="visible")
    text = shown.text("#tip")
    (name,) = shown.values("algorithm", [point])
    row = whole.run.front.set_index("point").loc[shown.values("point", [point])[0]]
    for expected in (name, "on the front", "nats per token", " µJ (", "speedup over the baseline", "lanes"):
        assert expected in text
    assert f"{row['speedup']:.3g}"[:3] in text
    shown.page.mouse.move(*(v + 60 for v in shown.at(point)))
    shown.page.mouse.move(2, 2)
    shown.page.wait_for_selector("#tip", state="hidden")


def test_a_click_opens_the_breakdown(shown: Shown, whole: Part) -> None:
    point = shown.top[0]
    (name,) = shown.values("point", [point])
    shown.page.mouse.click(*shown.at(point))
    shown.page.wait_for_selector("#detail code")
    text = shown.text("#detail")
    for expected in (name, "Time by phase", "Energy by component", "Area by component", "Hardware"):
        assert expected in text
    assert re.search(rf"dse explain \S.*{name}$", text), "where to read on"
    for component in list(whole.breakdowns[name]["energy_j"])[:3]:
        assert component in text


def test_arrow_keys_walk_along_the_front_and_enter_opens(shown: Shown) -> None:
    for _ in range(40):
        shown.page.keyboard.press("Tab")
        if shown("() => document.activeElement.id") == "chart":
            break
    assert shown("() => document.activeElement.id") == "chart", "the chart is in the order of TAB"
    assert shown("() => getComputedStyle(document.activeElement).outlineStyle") != "none", (
        "and shows that it is"
    )
    line = shown.top
    walked = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home"):
        shown.page.keyboard.press(key)
        walked.append(shown("() => dse.state.focused"))
    assert walked == [
        line[0],
        line[1],
        line[min(2, len(line) - 1)],
        line[min(2, len(line) - 1) - 1],
        line[-1],
        line[0],
    ]
    shown.page.keyboard.press("ArrowDown")
    other = shown("() => dse.state.focused")
    assert other in shown("() => dse.chart.envelopes[1].line")
    (name,) = shown.values("algorithm", [other])
    assert shown.text("#spoken").startswith(name)
    shown.page.keyboard.press("Enter")
    assert shown("() => document.activeElement.id") == "detail"
    assert shown.values("point", [other])[0] in shown.text("#detail h2")


def test_axes_and_colour_take_any_metric(shown: Shown) -> None:
    offered = shown("() => [...document.querySelectorAll('#x option')].map(o => o.value)")
    assert {
        "speedup",
        "nll_increase",
        "latency_s",
        "energy_j",
        "area_mm2",
        "power_w",
        "hardware.lanes",
    } <= set(offered)
    shown.page.select_option("#x", "area_mm2")
    shown.page.select_option("#y", "energy_j")
    shown.page.select_option("#colour", "latency_s")
    shown.settle()
    point = shown.top[0]
    area, energy = (shown.values(name, [point])[0] for name in ("area_mm2", "energy_j"))
    assert shown(f"() => dse.chart.scales.x.back(dse.chart.X[{point}])") == pytest.approx(area)
    assert shown(f"() => dse.chart.scales.y.back(dse.chart.Y[{point}])") == pytest.approx(energy * 1e6)
    assert "latency (µs)" in shown.text("#legend")
    assert "stored points only" in shown.text("#honest")
    shown.page.mouse.move(*shown.at(point))
    shown.page.wait_for_selector("#tip", state="visible")
    for name in offered:  # not one of them fails
        shown.page.select_option("#y", name)
        shown.settle()


def test_a_box_filters_and_is_taken_away_again(shown: Shown) -> None:
    everything, line = shown.visible, shown.top
    low, high = (shown.at(i) for i in (line[0], line[-1]))
    left, right = sorted((low[0], high[0]))
    upper, lower = sorted((low[1], high[1]))
    shown.page.mouse.move(left - 4, upper - 4)
    shown.page.mouse.down()
    shown.page.mouse.move(right + 4, lower + 4, steps=5)
    shown.page.mouse.up()
    shown.page.wait_for_selector("#brush button")
    box = shown("() => dse.state.brush")
    left_over = shown.visible
    assert set(line) <= set(left_over) < set(everything)
    losses, speeds = (shown.values(name, left_over) for name in ("nll_increase", "speedup"))
    assert all(box["x0"] <= v <= box["x1"] for v in losses)
    assert all(box["y0"] <= v <= box["y1"] for v in speeds)
    stored = int(
        shown(
            "() => [...dse.state.visible.keys()].filter(i => dse.state.visible[i] && dse.kind[i] < 2).length"
        )
    )
    assert shown.text("#shown").startswith(f"Shown: {stored} of ")
    assert "With a filter" in shown.text("#honest")
    shown.page.click("#brush button")
    shown.settle()
    assert shown.visible == everything


def test_sliders_and_ticks_filter_by_hardware_and_knobs(shown: Shown) -> None:
    everything = shown.visible
    low = shown.page.locator("input[data-filter='hardware.lanes'][data-end='low']")
    low.focus()
    shown.page.keyboard.press("ArrowRight")
    shown.settle()
    left_over = shown.visible
    assert set(left_over) < set(everything)
    assert set(shown.values("hardware.lanes", left_over)) == {48}
    shown.page.click("#clear")
    shown.settle()
    assert shown.visible == everything
    shown.page.locator("summary", has_text=re.compile("^token-picker$")).click()
    box = shown.page.locator("label", has_text="4+4+4").locator("input")
    box.uncheck()
    shown.settle()
    assert "4+4+4" not in shown.values("token-picker.chunks", shown.visible)
    names = shown.values("algorithm", shown.visible)
    assert {"dense", "token-picker", "spatten"} <= set(names), "what has no such knob stays"


def test_algorithms_and_runs_can_be_left_out(shown: Shown) -> None:
    shown.page.locator("#legend button", has_text="dense").click()
    shown.settle()
    assert "dense" not in shown.values("algorithm", shown.visible)
    assert shown("() => document.activeElement.textContent.startsWith('dense')"), "focus stays where it was"
    assert shown.page.locator("#legend button", has_text="dense").get_attribute("aria-pressed") == "false"
    shown.page.locator("#legend button", has_text="tiny").click()
    shown.settle()
    assert set(
        shown("() => [...dse.state.visible.keys()].filter(i => dse.state.visible[i]).map(i => dse.run[i])")
    ) == {1}


def test_the_comparison_is_there(shown: Shown) -> None:
    text = shown.text("#comparison")
    for expected in ("hypervolume", "reference point", "are dominated by", "The spaces are the same."):
        assert expected in text


@pytest.mark.parametrize("width", [1400, 800, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_readable_in_light_and_dark(
    pages: Callable[..., Shown], whole: Part, scheme: str, width: int
) -> None:
    shown = pages([whole], color_scheme=scheme)
    shown.page.set_viewport_size({"width": width, "height": 900})
    shown.settle()
    assert shown("() => document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"

    def light(name: str) -> float:
        """Relative luminance (WCAG 2) of a colour of the theme."""
        code = shown(f"() => dse.theme()[{name!r}]").lstrip("#")
        parts = [int(code[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    ground = light("ground")
    assert (ground < 0.1) == (scheme == "dark")
    for name in ("ink", "muted", "accent"):
        bright, dim = sorted((light(name), ground), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{name} is too faint"


def test_a_hundred_thousand_points(
    pages: Callable[..., Shown], part: Part, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed, not asserted: how long it takes depends on what else the machine does."""
    assert part.space is not None
    small = sample(part.run, part.space, 10**6)
    count, rng = 100_000, np.random.default_rng(0)
    points = small.points.iloc[rng.integers(len(small.points), size=count)].reset_index(drop=True)
    metrics = [c for c in points if "." not in c and pd.api.types.is_float_dtype(points[c])]
    points[metrics] *= rng.uniform(
        0.5, 2.0, (count, len(metrics))
    )  # no two alike: the worst case to pack and to draw
    begun = time.perf_counter()
    shown = pages([replace(part, sample=Sample(points, count, 10**9))])
    cpu = shown.cpu_s
    assert f"{count // 1000} 000 random others" in shown.text("#shown")
    assert ", of 1 000 000 000 in the space" in shown.text("#shown"), "what is left out is said"
    redraw = shown(
        "() => { const t = performance.now(); dse.sieve(); dse.chart.draw(); return performance.now() - t; }"
    )
    pointer = shown(
        "() => { const t = performance.now(); dse.chart.near(0, 0); return performance.now() - t; }"
    )
    ready = float(shown("() => document.body.dataset.ready"))
    with capsys.disabled():
        print(
            f"\n100 000 points: page of {shown.place.stat().st_size / 1e6:.1f} MB written and open after "
            f"{time.perf_counter() - begun:.1f} s, interactive {ready / 1e3:.2f} s after it was asked for ({cpu:.2f} s "
            f"of CPU of its main thread), a filter takes {redraw:.0f} ms, a move of the pointer {pointer:.1f} ms"
        )
