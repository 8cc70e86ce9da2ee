"""Published operating points: the numbers that `dse validate` recomputes, where they compare."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from dse.charts.front import Fronts, front_figure
from dse.charts.labels import METRICS as LABELS
from dse.charts.labels import label
from dse.charts.published import OPERATING_POINTS, SAME, Published, operating_points
from dse.charts.style import save
from dse.hardware.parameters import PARAMETERS
from dse.hardware.presets import preset_names
from dse.hardware.processors import processor_names
from dse.space import load_space
from dse.space.names import METRICS
from dse.validation import validate

ROWS = {
    # (algorithm, column, number): the validated quantity it is
    ("token-picker", SAME, 2.28): "speedup",
    ("token-picker", "dram_reduction", 2.57): "off-chip access, dense over pruned",
    ("token-picker", "energy_saving", 2.41): "energy, dense over pruned",
    ("a3", SAME, 1.85): "speedup over base, BERT, conservative",
    ("a3", SAME, 5.69): "speedup over base, BERT, aggressive",
    ("mnnfast", SAME, 3.65): "speedup of one thread",
}


def test_numbers_are_those_that_are_validated() -> None:
    published = {(r.system, r.quantity): r.published for r in validate(sorted({name for name, _, _ in ROWS}))}
    marked = {(p.algorithm, m, v) for p in OPERATING_POINTS for m, v in p.values.items()}
    for (name, column, number), quantity in ROWS.items():
        assert published[name, quantity] == number
        assert (name, column, number) in marked


def test_every_point_names_what_exists() -> None:
    for point in OPERATING_POINTS:
        assert set(point.values) <= set(METRICS)
        assert point.base in ("", *preset_names())
        assert point.processor in ("", *processor_names())
        assert point.source


@pytest.mark.parametrize(
    ("overrides", "columns"),
    [
        ((), {SAME, "speedup", "dram_reduction", "energy_saving"}),
        (("baseline.k_bits=8", "baseline.v_bits=8"), {SAME}),
        (('hardware.base="topick-gqa"',), {SAME}),
        (('baseline.processor="titan-xp"',), {SAME}),
    ],
    ids=["its-own", "narrower-rival", "another-machine", "a-processor"],
)
def test_ratios_are_marked_only_over_the_baseline_they_were_printed_for(
    overrides: tuple[str, ...], columns: set[str]
) -> None:
    (point,) = operating_points(load_space("topick", overrides))
    assert point.algorithm == "token-picker"
    assert set(point.values) == columns


def test_a_point_beyond_the_axes_is_said_not_drawn(tmp_path: Path, front: pd.DataFrame) -> None:
    marks = [
        Published("token-picker", {"speedup": 2.28}, "one"),
        Published("spatten", {"speedup": 162.0}, "two"),
    ]
    figure = front_figure([Fronts("a", front)], published=marks)
    assert sum(line.get_marker() == "*" for line in figure.axes[0].lines) == 1
    text = save(figure, tmp_path / "a.svg").read_text(encoding="utf-8")
    words = " ".join(re.findall(r"<(?:text|tspan)[^>]*>([^<]+)", text))
    assert "published: token-picker 2.28 x (one)" in words
    assert "published: spatten 162 x, beyond this chart (two)" in words


def test_no_label_repeats_its_unit() -> None:
    for name, parameter in PARAMETERS.items():
        known = label(f"hardware.{name}")
        assert known.unit == parameter.unit
        unit = parameter.unit.lower().replace("/", "p")
        assert not unit or unit not in known.title.lower().split()
        assert f"{unit}s" not in known.title.lower().split() or not unit
    for metric in METRICS:
        assert metric in LABELS
