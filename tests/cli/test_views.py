"""Every view of a run tells the same story: on spaces drawn at random, whatever a command shows of a point is what
``front.csv`` says of it, and that is the price by the scalar twin.

`DSE_VIEWS=200 pytest tests/cli/test_views.py` tries as many spaces.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
from abuse.pacing import undrawn
from cost.few import few_ranges
from search.tiny_prefill import prefill_profile

from cli.any_space import OTHER_TEXT, OWN, PROFILE, PROMPTS, any_space, uneven_profile
from cli.conftest import Answer, answer
from dse.charts.labels import label
from dse.cost import ranges
from dse.cost.reference import reference
from dse.cost.reference_budget import reference_budget
from dse.profiles.lookup import select
from dse.profiles.schema import ACCURACY
from dse.profiles.store import write_profile
from dse.space import load_space
from dse.space.definition import Space
from dse.space.names import PRICED

SEEDS = range(int(os.environ.get("DSE_VIEWS", "4")))
RANGED = tuple(f"{name}_{end}" for name in ranges.RANGED for end in ("low", "high"))
SHOWN = (*PRICED, *RANGED, *ACCURACY)
"""What `dse explain` and ``front.csv`` both say of a point."""

RATIOS = {"speedup": "latency_s", "energy_saving": "energy_j", "dram_reduction": "dram_bytes"}


@dataclass(frozen=True)
class Swept:
    """A space and its run ``run``, in a folder of its own; the cells of its front as they are written."""

    seed: int
    folder: Path
    table: dict[str, Any]
    space: Space
    front: pd.DataFrame
    info: dict[str, Any]

    def dse(self, *arguments: object) -> Answer:
        return answer(self.folder, *arguments, columns=200)

    def done(self, *arguments: object) -> Answer:
        """A command that must not fail."""
        answer = self.dse(*arguments)
        assert answer.code == 0, (arguments, answer.stderr)
        return answer

    def written(self, name: str, table: Mapping[str, Any]) -> str:
        (self.folder / name).write_text(tomli_w.dumps(table), encoding="utf-8")
        return name

    def rows(self, run: str = "run") -> pd.DataFrame:
        return cells(self.folder / run / "front.csv")

    @property
    def apart(self) -> bool:
        """Whether batches differ, so that ratios are by the sequence."""
        return self.space.workload.by_sequence

    def chosen(self) -> tuple[int, dict[str, str]]:
        """A row of the front and its number from 1."""
        at = self.seed % len(self.front)
        return at + 1, self.front.iloc[at].to_dict()


def cells(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the profiles that the spaces name, and a base."""
    folder = tmp_path_factory.mktemp("profiles")
    write_profile(folder / PROFILE, uneven_profile())
    write_profile(folder / PROMPTS, prefill_profile(folder))
    other = uneven_profile("tiny-confirmation", 0.97)
    elsewhere = replace(other.provenance, text_sha256="1" * 64)
    write_profile(folder / OTHER_TEXT, replace(other, provenance=elsewhere))
    return folder


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Few ranges; no chart is drawn after a sweep."""
    with few_ranges(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("dse.cli.sweep._draw", undrawn)
        yield


@pytest.fixture(scope="module", params=SEEDS)
def swept(
    request: pytest.FixtureRequest, profiles: Path, quick: None, tmp_path_factory: pytest.TempPathFactory
) -> Swept:
    folder = tmp_path_factory.mktemp("views")
    for name in (PROFILE, PROMPTS, OTHER_TEXT):
        (folder / name).symlink_to(profiles / name)
    (folder / "own.toml").write_text(OWN, encoding="utf-8")
    table = any_space(request.param)
    empty = Swept(request.param, folder, table, None, pd.DataFrame(), {})  # type: ignore[arg-type]
    answer = empty.dse("sweep", empty.written("any.toml", table), "-o", "run", "--json")
    if answer.code == 1 and "satisfies the constraints" in answer.stderr:
        pytest.skip("no point of this space satisfies its constraints")
    assert answer.code == 0, answer.stderr
    with contextlib.chdir(folder):
        space = load_space("any.toml")
    return Swept(request.param, folder, table, space, empty.rows(), answer.json)


def number(cell: str) -> float:
    return float(cell) if cell else math.nan


def close(a: float | None, b: float, rel: float = 1e-9) -> bool:
    a = math.nan if a is None else float(a)
    return math.isclose(a, b, rel_tol=rel) or (a != a and b != b)


def same(told: Mapping[str, Any], row: Mapping[str, str], names: tuple[str, ...] = SHOWN) -> None:
    """A point that a command tells of is that of a row."""
    for name in names:
        assert close(told[name], number(row[name])), (name, told[name], row[name])


def settings(row: Mapping[str, str], space: Space, everything: bool) -> list[str]:
    """``--set`` of a row's knobs and hardware: all of them, or those that have several values in its space."""
    own = str(row["algorithm"])
    axes = {f"{own}.{knob}": values for knob, values in space.algorithms[own].knobs.items()}
    axes |= {f"hardware.{name}": values for name, values in space.axes(own).items()}
    found = ["--set", f"algorithm={own}"]
    for column, values in axes.items():
        if everything or len(values) > 1:
            text = isinstance(values[0], str)
            cell = json.dumps(row[column]) if text else row[column].replace("T", "t").replace("F", "f")
            found += ["--set", f"{column}={cell}"]
    return found


def test_a_row_an_id_and_settings_are_explained_at_one_price(swept: Swept) -> None:
    at, row = swept.chosen()
    story = swept.done("explain", "run", at, "--json").json
    assert story["point"] == row["point"]
    assert story["accuracy"] == row["accuracy"]
    assert story["metrics"]["bound"] == row["bound"]
    assert story["rank"]["on_front"] == (row["on_front"] == "True")
    same(story["metrics"], row)
    assert swept.done("explain", "run", row["point"], "--json").json == story
    of_space = settings(row, swept.space, everything=swept.seed % 2 == 0)
    of_run = settings(row, swept.space, everything=swept.seed % 2 == 1)
    for source, given in (("any.toml", of_space), ("run", of_run)):
        told = swept.done("explain", source, *given, "--json").json
        same(told["metrics"], row)
        for part in ("phases_s", "energy_j", "sensitivity", "ladder", "streams"):
            assert told[part] == story[part], part


def test_parts_add_up_and_the_scalar_twin_agrees(swept: Swept) -> None:
    at, row = swept.chosen()
    story = swept.done("explain", "run", at, "--json").json
    m = story["metrics"]
    for part, whole in (("energy_j", "energy_j"), ("area_mm2", "area_mm2"), ("dram_bytes", "dram_bytes")):
        assert sum(story[part].values()) == pytest.approx(m[whole], rel=1e-9), part
    assert story["alone_s"] - story["overlap_s"] == pytest.approx(m["attention_s"], rel=1e-9)
    rest = max(story["rest_s"].values(), default=0.0)
    assert m["attention_s"] + rest == pytest.approx(m["latency_s"], rel=1e-9)
    assert m["floor_s"] <= m["latency_s"] * (1 + 1e-9)
    w, profile = swept.space.workload, swept.space.profile
    found = select(profile, row["algorithm"], {k: [v] for k, v in story["knobs"].items()}, w.context)
    given = (
        found.settings[0].form, found.counters[0].tolist(), profile.shape, found.mean_context, story["hardware"],
        w.priced(), w.grouped, dict(swept.space.components),
    )  # fmt: skip
    twin = {**reference(*given), **reference_budget(*given)}
    for name in {*twin} & {*PRICED}:
        assert close(twin[name], number(row[name]), 1e-7), (name, twin[name], row[name])


def test_ratios_are_over_the_baseline_that_the_run_names(swept: Swept) -> None:
    base = swept.info["baseline"]
    if "processor" not in base:
        knobs = {f"{base['algorithm']}.{k}": v for k, v in base["knobs"].items()}
        given = {**knobs, **{f"hardware.{k}": v for k, v in base["hardware"].items()}}
        words = [x for k, v in given.items() for x in ("--set", f"{k}={json.dumps(v)}")]
        told = swept.done("explain", "any.toml", *words, "--json").json["metrics"]
        for name in ("latency_s", "energy_j", "dram_bytes", "rest_s", "batch"):
            assert told[name] == pytest.approx(base[name], rel=1e-9), name
    attention_s = base["latency_s"] if base["attention_s"] is None else base["attention_s"]
    for row in swept.front.to_dict("records"):
        each = number(row["batch"]) / base["batch"] if swept.apart else 1.0
        for ratio, price in RATIOS.items():
            mine = number(row[price])
            assert close(number(row[ratio]), base[price] / mine * each if mine else math.nan), ratio
        whole = number(row["attention_s"]) + number(row["rest_s"])
        assert close(number(row["speedup_end_to_end"]), (attention_s + base["rest_s"]) / whole * each)


def test_the_front_is_shown_as_it_is_stored(swept: Swept) -> None:
    stored = (swept.folder / "run/front.csv").read_text().splitlines()
    shown = swept.done("front", "run", "--all", "--format", "csv").stdout.splitlines()
    assert shown[0] == stored[0]
    assert sorted(shown) == sorted(stored)
    by = {row["point"]: row for row in swept.front.to_dict("records")}
    told = swept.done("front", "run", "--json", "--sort", "-latency_s", "--rows", "3").json
    assert [one["on_front"] for one in told] == [True] * len(told)
    longest = sorted((number(r["latency_s"]) for r in by.values() if r["on_front"] == "True"), reverse=True)
    assert [one["latency_s"] for one in told] == longest[:3]
    for one in told:
        row = by[one["point"]]
        assert {c for c in row if row[c] != ""} - {*one} == set()
        for column, value in one.items():
            text = isinstance(value, str | bool)
            assert str(value) == row[column] if text else value == float(row[column]), column


def test_a_run_compares_with_itself_and_with_another_baseline(swept: Swept) -> None:
    found = swept.done("compare", "run", "run", "--json").json
    assert found["differences"] == found["rebased"] == {}
    assert found["hypervolume_difference"] == 0
    front = swept.front[swept.front["on_front"] == "True"]
    assert len(found["a"]["equalled"]) == found["b"]["front"] == len(front)
    other = {**swept.table, "baseline": {"processor": "jetson-nano"}}
    if swept.dse("sweep", swept.written("other.toml", other), "-o", "other", "--json").code:
        return  # its ratios may be beyond a limit
    found = swept.done("compare", "run", "other", "--json").json
    for metric, way in found["objectives"].items():
        best = max if way == "maximize" else min
        assert close(found["b"]["best"][metric], best(map(number, front[metric]))), metric


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn instead of written."""
    drawn: list[Any] = []
    monkeypatch.setattr("dse.charts.style.save", lambda figure, path: drawn.append(figure) or path)
    return drawn


def test_pictures_draw_the_front(swept: Swept, figure: list[Any]) -> None:
    from matplotlib.collections import PathCollection

    y = ("speedup", "energy_j", "area_mm2")[swept.seed % 3]
    swept.done("plot", "run", "-y", y, "-o", "x.svg")
    marks = [
        tuple(place)
        for drawn in figure[0].axes[0].collections
        if isinstance(drawn, PathCollection) and not str(drawn.get_gid() or "").startswith("knee")
        for place in np.asarray(drawn.get_offsets())
    ]
    scales = [(name, label(name).scale) for name in ("nll_increase", y)]
    rows = [tuple(number(row[name]) * scale for name, scale in scales) for _, row in swept.front.iterrows()]
    assert np.asarray(sorted(marks)) == pytest.approx(np.asarray(sorted(rows)), rel=1e-9)
    _, row = swept.chosen()
    told = swept.done(
        "plot", "run", "--kind", "breakdown", "--point", row["point"], "-o", "x.svg", "--json"
    ).json["points"][0]
    assert close(sum(told["energy_j"].values()), number(row["energy_j"]))
    assert sum(told["time_s"].values()) >= number(row["attention_s"]) * (1 - 1e-9)
    told = swept.done("plot", "run", "--kind", "dram", "--point", row["point"], "-o", "x.svg", "--json").json
    assert all(0 < stream["kept"] <= 1 for stream in told["streams"])
    asked = ("--kind", "roofline", "--point", row["point"], "-o", "x.svg")
    answer = swept.dse("plot", "run", *asked)
    assert answer.code == 0 or "their keys and values lie in the buffers" in answer.stderr
    if answer.code == 0:
        (words,) = (text.get_text() for legend in figure[-1].legends for text in legend.get_texts())
        assert 0 < float(re.findall(r"(\d+) % of its roof", words.replace("\n", " "))[0]) <= 100


def test_a_waterfall_ends_in_ratios_of_the_front(
    swept: Swept, figure: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.cli.waterfall._published", lambda system: [])  # the same for every run
    within = {
        name: max(
            (row for row in rows.to_dict("records") if number(row["nll_increase"]) <= 0.3),
            key=lambda row: number(row["speedup"]),
            default=None,
        )
        for name, rows in swept.front.groupby("algorithm")
    }
    dense = within.pop("dense", None)
    mine = max((row for row in within.values() if row), key=lambda row: number(row["speedup"]), default=None)
    if dense is None or mine is None or not swept.space.workload.grouped:
        return
    asked = ("--kind", "waterfall", "--budget", 0.3, "-o", "x.svg", "--json")
    answer = swept.dse("plot", "run", *asked)
    if "bits was not measured" in answer.stderr:
        return
    steps = {step["name"]: step["gain"] for step in answer.json["steps"]}
    for name, ratio in (("over the best dense", "speedup"), ("of a whole step", "speedup_end_to_end")):
        assert close(steps[name], number(mine[ratio]) / number(dense[ratio])), name


def test_the_page_holds_the_front(swept: Swept) -> None:
    swept.done("report", "run", "-o", "page.html", "--no-validation", "--points", 40, "--breakdowns", 2)
    page = (swept.folder / "page.html").read_text(encoding="utf-8")
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    run = json.loads(found[1])["runs"][0]
    columns = {
        name: unpacked(column, run["front"]["rows"]) for name, column in run["front"]["columns"].items()
    }
    for name in swept.front.columns:
        stored = swept.front[name].tolist()
        told = columns.get(name, [None] * len(stored))
        for value, cell in zip(told, stored, strict=True):
            absent = value is None or value != value
            text = isinstance(value, str | bool)
            right = cell == "" if absent else str(value) == cell if text else value == float(cell)
            assert right, (name, value, cell)
    for point, story in run["breakdowns"].items():
        row = swept.front[swept.front["point"] == point].iloc[0]
        for name, metric in (("energy_j", "energy_j"), ("area_mm2", "area_mm2"), ("bytes", "dram_bytes")):
            assert close(sum(story[name].values()), number(row[metric]), 3e-3), name


def unpacked(column: Mapping[str, Any], rows: int) -> list[Any]:
    """The values of a column as the page packs it (`dse.report.columns`)."""
    if "all" in column:
        return [column["all"]] * rows
    if "texts" in column:
        return list(column["texts"])
    if "floats" in column:
        return np.frombuffer(base64.b64decode(column["floats"]), f"<f{column['bits'] // 8}").tolist()
    levels = column["levels"]
    levels = unpacked(levels, 0) if isinstance(levels, dict) else levels
    codes = np.frombuffer(base64.b64decode(column["codes"]), f"<u{column['width'] // 8}")
    return [levels[code] for code in codes.tolist()]


MOST = 12
"""Most points of a space whose every point a study tries."""


def test_a_study_has_the_prices_of_the_sweep(swept: Swept) -> None:
    size = swept.space.size
    sampler, trials = ("grid", size) if size <= MOST else ("random", 6)
    asked = ("--sampler", sampler, "--trials", trials, "--seed", swept.seed, "--storage", "memory")
    answer = swept.dse("study", "any.toml", *asked, "-o", "study", "--json")
    if "satisfies the constraints" in answer.stderr:
        return
    assert answer.code == 0, answer.stderr
    for name in ("latency_s", "energy_j", "dram_bytes", "batch"):
        assert answer.json["baseline"][name] == swept.info["baseline"][name]
    found = swept.rows("study")
    at, row = swept.seed % len(found) + 1, found.iloc[swept.seed % len(found)].to_dict()
    same(swept.done("explain", "study", at, "--json").json["metrics"], row)
    known = {row["point"]: row for row in swept.front.to_dict("records")}
    if sampler == "grid":
        assert set(found["point"]) == set(known)
    whole = ("on_front", "ties", "distinct") if sampler == "random" else ()  # what depends on the other rows
    for row in found.to_dict("records"):
        for column, cell in known.get(row["point"], {}).items():
            if column not in whole and row[column] != cell:
                assert close(number(row[column]), number(cell)), (column, row[column], cell)


def test_a_match_reports_what_explain_says_of_the_other_text(swept: Swept) -> None:
    if swept.table["workload"]["profile"] != PROFILE:
        return
    asked = ("--confirmation", OTHER_TEXT, "--loss", "0.05", "-o", "match", "--json")
    answer = swept.dse("match", "any.toml", *asked)
    if answer.code:  # it takes measured settings only, and there may be none
        assert "no measured value" in answer.stderr or "satisfies the constraints" in answer.stderr
        return
    workload = {**swept.table["workload"], "profile": OTHER_TEXT}
    source = swept.written("confirmed.toml", {**swept.table, "workload": workload})
    base = swept.info["baseline"]
    if not answer.json["rows"]:
        return
    for row in cells(swept.folder / "match/match.csv").head(1).to_dict("records"):
        told = swept.done("explain", source, *settings(row, swept.space, everything=True), "--json").json
        same(told["metrics"], row, ("latency_s", "energy_j", "dram_bytes", "area_mm2", "nll_increase"))
        each = told["metrics"]["batch"] / base["batch"] if swept.apart else 1.0
        assert close(number(row["speedup"]), base["latency_s"] / told["metrics"]["latency_s"] * each)


def test_a_point_alone_is_priced_alike_and_set_is_the_file(swept: Swept) -> None:
    at, row = swept.chosen()
    own = row["algorithm"]
    given = {"workload.batch": 3, "hardware.clock_ghz": 0.9, "components.controller_ns": 44.0}
    words = [x for k, v in given.items() for x in ("--set", f"{k}={v}")]
    point = swept.done("explain", "run", at, *words, "--json").json
    hardware = {k: v for k, v in swept.table["hardware"].items() if k != "for"} | point["hardware"]
    table = {k: v for k, v in swept.table.items() if k not in ("constraints", "baseline")}
    table |= {
        "hardware": hardware, "algorithms": {own: point["knobs"]}, "baseline": {"processor": "titan-xp"},
        "workload": {**table["workload"], "batch": 3}, "objectives": {"maximize": ["speedup"], "minimize": ["area_mm2"]},
        "components": {**table.get("components", {}), "controller_ns": 44.0},
    }  # fmt: skip
    answer = swept.dse("sweep", swept.written("alone.toml", table), "-o", "alone", "--json")
    if answer.code == 1:  # three sequences may not fit in memory
        assert point["metrics"]["memory_fill"] > 1
        return
    assert answer.code == 0, answer.stderr
    front = swept.rows("alone")
    (alone,) = front[front["algorithm"] == own].to_dict("records")
    same(point["metrics"], alone)
    changed = {**table, "workload": {**table["workload"], "batch": 1}}
    typed = ("sweep", swept.written("alone.toml", changed), "--set", "workload.batch=3", "-o", "typed")
    swept.done(*typed)
    assert (swept.folder / "typed/front.csv").read_bytes() == (swept.folder / "alone/front.csv").read_bytes()
    assert (swept.folder / "typed/space.toml").read_bytes() == (
        swept.folder / "alone/space.toml"
    ).read_bytes()
