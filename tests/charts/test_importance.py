"""Importance of parameters: shares sum to one, what decides nothing gets nothing, and the chart names its method."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli.synthetic import synthetic_profile

from dse.charts.importance import FRONT, Trial, drawn_from, importance_figure, importances, trials_of
from dse.charts.style import save
from dse.errors import BadInput
from dse.space import Space, load_space
from dse.study.axes import Layout

OBJECTIVES = {"speedup": True, "nll_increase": False}


@pytest.fixture(scope="module")
def space() -> Space:
    table: dict[str, Any] = {
        "schema": 1,
        "workload": {"profile": "tiny", "context": 1024},
        "algorithms": {
            "token-picker": {"threshold": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], "chunks": ["4+4+4", "6+6", "12"]},
            "spatten": {"keep": [0.3, 0.5, 0.7, 0.9], "value_keep": [0.3, 0.6, 1.0]},
        },
        "hardware": {
            "base": "topick-gqa", "lanes": [12, 24, 48, 96], "dram_channels": [2, 4, 8], "search_engines": [1, 2, 4],
        },
        "constraints": {"nll_increase": {"max": 0.3}},
    }  # fmt: skip
    return load_space(table, profile=synthetic_profile())


def fabricated(layout: Layout, count: int, decides: str) -> list[Trial]:
    """Random points whose objectives follow one parameter and nothing else."""
    random = np.random.default_rng(0)
    total = sum(layout.sizes.values())
    found = []
    for number in random.integers(0, total, count).tolist():
        params = layout.listed(number)
        value = float(params[decides]) if decides in params else -1.0
        found.append(Trial(params, (value, -value)))
    return found


def test_the_parameter_that_decides_gets_nearly_all(space: Space) -> None:
    layout = Layout(space)
    found = importances(layout, OBJECTIVES, fabricated(layout, 2000, "hardware.lanes"))
    assert set(found) == {FRONT, "speedup", "nll_increase"}
    for shares in found.values():
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) >= 0
        assert shares["hardware.lanes"] > 0.8
        assert shares["hardware.search_engines"] < 0.05
        assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_a_knob_that_only_some_points_have_can_decide(space: Space) -> None:
    layout = Layout(space)
    trials = [Trial(t.params, t.values[:1]) for t in fabricated(layout, 800, "token-picker.threshold")]
    shares = importances(layout, {"speedup": True}, trials)["speedup"]
    assert next(iter(shares)) == "token-picker.threshold"
    assert shares["spatten.keep"] < 0.05


def test_drawn_points_are_distinct_and_priced_as_a_sweep_prices_them(space: Space) -> None:
    layout, trials, count = drawn_from(space, 300, seed=3)
    assert count == sum(min(100, size) for size in layout.sizes.values())
    assert 50 <= len(trials) <= count
    assert len({tuple(sorted(t.params.items())) for t in trials}) == len(trials)
    assert [t.params for t in drawn_from(space, 40, seed=3)[1]] == [
        t.params for t in drawn_from(space, 40, seed=3)[1]
    ]
    from dse.search.sweep import sweep

    front = sweep(space).front
    best = max(t.values[0] for t in trials)
    assert best <= front["speedup"].max() * (1 + 1e-9)
    shares = importances(layout, OBJECTIVES, trials)
    # A search engine is used by A3 alone: here it does nothing but cost area, which nobody seeks.
    assert shares["speedup"]["hardware.search_engines"] < 0.08
    assert shares["nll_increase"]["hardware.search_engines"] < 0.08


def test_trials_are_read_back_from_their_table(space: Space) -> None:
    layout = Layout(space)
    rows = []
    for number in range(0, sum(layout.sizes.values()), 17):
        params = layout.listed(number)
        point = layout.point(params)
        rows.append({**point.columns(), "feasible": number % 2 == 0, "speedup": 1.5, "nll_increase": 0.25})
    frame = pd.DataFrame(rows)
    path_text = frame.to_csv(index=False)
    table = pd.read_csv(io.StringIO(path_text), dtype=str, keep_default_na=False)
    found = trials_of(layout, table, list(OBJECTIVES))
    kept = [n for n in range(0, sum(layout.sizes.values()), 17) if n % 2 == 0]
    assert [t.params for t in found] == [layout.listed(n) for n in kept]
    assert {t.values for t in found} == {(1.5, 0.25)}
    table.loc[0, "hardware.lanes"] = "13"
    with pytest.raises(BadInput, match=re.escape("hardware.lanes: found '13'")):
        trials_of(layout, table, list(OBJECTIVES))


def test_too_few_points_are_refused(space: Space) -> None:
    layout = Layout(space)
    with pytest.raises(BadInput, match="12 points keep the constraints; at least 50"):
        importances(layout, OBJECTIVES, fabricated(layout, 12, "hardware.lanes"))


def test_bars_of_a_panel_sum_to_a_hundred(tmp_path: Path) -> None:
    names = ["algorithm", "hardware.lanes", "a:hardware.lanes", *(f"a.knob{i}" for i in range(15))]
    shares = {name: 0.3 if i < 3 else 0.1 / (len(names) - 3) for i, name in enumerate(names)}
    figure = importance_figure({FRONT: shares, "speedup": shares}, "tiny\nPED-ANOVA: how")
    for axes in figure.axes:
        assert sum(p.get_width() for p in axes.patches) == pytest.approx(100)  # type: ignore[attr-defined]
        assert len(axes.patches) == 13
    text = save(figure, tmp_path / "a.svg").read_text(encoding="utf-8")
    for expected in (
        "which algorithm",
        "lanes of a",
        "6 others together",
        "to be on the front (%)",
        "PED-ANOVA: how",
    ):
        assert expected in text
    with pytest.raises(BadInput, match="nothing to draw"):
        importance_figure({})


def test_a_rare_value_counts_no_more_than_others(space: Space) -> None:
    """Values are compared as they are: nothing is smoothed into the gaps between them."""
    layout = Layout(space)
    trials = fabricated(layout, 2000, "hardware.lanes")
    # Three of four channels left out, but for a few points: they decide nothing all the same.
    rare = [t for i, t in enumerate(trials) if t.params["hardware.dram_channels"] == 8 or i % 20 == 0]
    shares = importances(layout, {"speedup": True}, [Trial(t.params, t.values[:1]) for t in rare])["speedup"]
    assert shares["hardware.lanes"] > 0.7
    assert shares["hardware.dram_channels"] < 0.05
