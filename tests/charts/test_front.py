from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from charts.conftest import made_front
from dse.charts.cloud import Cloud
from dse.charts.front import STRETCH, Fronts, envelope, front_figure
from dse.charts.style import COLUMN_INCHES, looks, save
from dse.errors import BadInput
from dse.space.definition import Limits

TITLE = "tiny, decode, context 1024, batch 1\nbaseline: dense 12-bit on topick-gqa"


def svg(path: Path, runs: list[Fronts], **options: object) -> str:
    save(front_figure(runs, **options), path)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_the_suffix_chooses_the_format_and_the_bytes_repeat(
    tmp_path: Path, front: pd.DataFrame, suffix: str, magic: bytes
) -> None:
    files = [
        save(front_figure([Fronts("a", front, TITLE)]), tmp_path / f"{n}{suffix}") for n in ("one", "two")
    ]
    first, second = (path.read_bytes() for path in files)
    assert first.startswith(magic)
    assert first == second
    assert b"Date" not in first
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"one{suffix}", f"two{suffix}"]


def test_text_of_an_svg_stays_text_and_says_what_is_drawn(tmp_path: Path, front: pd.DataFrame) -> None:
    text = svg(tmp_path / "front.svg", [Fronts("a", front, TITLE)])
    words = re.findall(r"<text[^>]*>(?:<tspan[^>]*>)?([^<]+)", text)
    for expected in (
        "accuracy loss (nats per token)", "speedup over the baseline (x)", "dense (the rival)",
        "token-picker", "spatten", "no better than dense", "loss below 0.001 nats", "over best dense:", "1.60x",
    ):  # fmt: skip
        assert expected in words
    assert "tiny, decode, context 1024, batch 1" in words


def test_a_knee_is_ringed_and_spelt_out(tmp_path: Path, front: pd.DataFrame) -> None:
    assert "spatten; ringed" not in svg(tmp_path / "none.svg", [Fronts("a", front)])
    middle = front["spatten.keep"] == 0.5
    front.loc[middle, ["nll_increase", "speedup"]] = 0.02, 1.6
    assert "spatten; ringed: keep=0.5" in svg(tmp_path / "one.svg", [Fronts("a", front)])


def test_legible_at_one_column(front: pd.DataFrame) -> None:
    figure = front_figure([Fronts("a", front, TITLE)])
    assert figure.get_size_inches()[0] == COLUMN_INCHES
    sizes = [text.get_size() for text in figure.findobj(match=lambda a: hasattr(a, "get_fontsize"))]  # type: ignore[attr-defined]
    assert min(sizes) >= 6


@pytest.mark.parametrize("width", [2.5, COLUMN_INCHES, 7.0])
@pytest.mark.parametrize("name", ["a", "a-run-with-a-long-name-0123abcd"])
def test_nothing_is_drawn_over_by_the_legend_or_cut_off(front: pd.DataFrame, name: str, width: float) -> None:
    second = Fronts(name + "-2", front, TITLE, "over dense, 12-bit, on topick-gqa")
    figure = front_figure([Fronts(name, front, TITLE), second], width=width, title=TITLE)
    figure.draw_without_rendering()
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_tightbbox()
    assert axes is not None
    assert legend.y1 <= axes.y0
    page = figure.bbox
    for box in (legend, axes):
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y1 <= page.y1 + 1


def test_several_runs_are_told_apart_by_stroke_and_named(tmp_path: Path, front: pd.DataFrame) -> None:
    text = svg(tmp_path / "two.svg", [Fronts("short", front), Fronts("long", made_front(1.3))])
    assert "run: short" in text
    assert "run: long" in text
    assert "stroke-dasharray" in text


def test_any_numeric_column_can_be_an_axis_or_the_colour(tmp_path: Path, front: pd.DataFrame) -> None:
    text = svg(
        tmp_path / "other.svg", [Fronts("a", front)], x="energy_j", y="area_mm2", colour="nll_increase"
    )
    for expected in ("energy (µJ)", "area without DRAM (mm²)", "accuracy loss (nats per token)"):
        assert expected in text


@pytest.mark.parametrize("rows", [1, 2], ids=["one-point", "two-points"])
def test_tiny_fronts_are_drawn(tmp_path: Path, front: pd.DataFrame, rows: int) -> None:
    assert save(front_figure([Fronts("a", front.head(rows))]), tmp_path / "a.png").exists()


def test_points_without_measured_accuracy_do_not_stop_a_chart(tmp_path: Path, front: pd.DataFrame) -> None:
    front.loc[front.index[:3], ["nll_increase", "nll_increase_low", "nll_increase_high"]] = np.nan
    assert save(front_figure([Fronts("a", front)]), tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "nll_incraese"}, "a: no column 'nll_incraese'; did you mean 'nll_increase'?"),
        ({"y": "bound"}, "a: column 'bound' holds words, an axis needs numbers"),
        ({"colour": "watts"}, "a: no column 'watts'"),
    ],
    ids=["misspelt", "words", "unknown-colour"],
)
def test_a_wrong_column_is_named_with_the_nearest_right_one(
    front: pd.DataFrame, options: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        front_figure([Fronts("a", front)], **options)  # type: ignore[arg-type]


def test_an_empty_front_is_refused(front: pd.DataFrame) -> None:
    with pytest.raises(BadInput, match="nothing to draw"):
        front_figure([Fronts("a", front.head(0))])


@pytest.mark.parametrize("name", ["front.jpg", "front", "front.pgn"])
def test_an_unknown_suffix_is_refused_and_nothing_is_written(
    tmp_path: Path, front: pd.DataFrame, name: str
) -> None:
    with pytest.raises(BadInput, match=r"a chart is one of \.png, \.svg, \.pdf"):
        save(front_figure([Fronts("a", front)]), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_algorithms_keep_their_look_and_never_share_one() -> None:
    names = ["token-picker", "spatten", "dense", "mine", *(f"other-{i}" for i in range(6))]
    look = looks(names)
    assert looks(["spatten"])["spatten"] == look["spatten"]
    assert len(set(look.values())) == len(look)


coordinates = arrays(
    np.float64, st.shared(st.integers(0, 30), key="n"), elements=st.integers(-5, 5).map(float)
)


@given(coordinates, coordinates, st.booleans(), st.booleans())
def test_the_envelope_is_the_set_of_unbeaten_values(
    x: np.ndarray, y: np.ndarray, x_up: bool, y_up: bool
) -> None:  # type: ignore[type-arg]
    better_x, better_y = (x if x_up else -x), (y if y_up else -y)
    unbeaten = {
        (a, b)
        for a, b in zip(x, y, strict=True)
        if not any(
            (p >= (a if x_up else -a))
            and (q >= (b if y_up else -b))
            and (p > (a if x_up else -a) or q > (b if y_up else -b))
            for p, q in zip(better_x, better_y, strict=True)
        )
    }
    chosen = envelope(x, y, x_up, y_up)
    assert {(x[i], y[i]) for i in chosen} == unbeaten
    assert len(chosen) == len(unbeaten)


def test_runs_of_one_workload_share_its_title(tmp_path: Path, front: pd.DataFrame) -> None:
    first, second = Fronts("a", front, TITLE), Fronts("b", front, TITLE.replace("1024", "512"))
    text = svg(tmp_path / "two.svg", [first, second])
    assert "baseline: dense 12-bit on topick-gqa" in text
    assert "context" not in text


def test_constraints_are_shaded_where_all_runs_have_them(tmp_path: Path, front: pd.DataFrame) -> None:
    tight, loose = ({"nll_increase": Limits(None, high)} for high in (0.1, 0.2))
    alike = [Fronts(n, front, limits=tight) for n in ("a", "b")]
    assert "outside the constraints: above 0.1" in svg(tmp_path / "alike.svg", alike)
    apart = [alike[0], Fronts("b", front, limits=loose)]
    assert "outside the constraints" not in svg(tmp_path / "apart.svg", apart)


def test_a_cloud_leaves_the_fronts_their_room(front: pd.DataFrame) -> None:
    plain = front_figure([Fronts("a", front)]).axes[0].get_ylim()
    slow = np.float32(np.geomspace(1e-4, 3.0, 5000))
    cloud = Cloud("nll_increase", "speedup", np.full_like(slow, 0.01), slow, 5000, 5000)
    with_cloud = front_figure([Fronts("a", front)], cloud=cloud).axes[0]
    low, high = with_cloud.get_ylim()
    assert low <= float(front["speedup"].min())
    assert high <= plain[1] * STRETCH
    ends = with_cloud.transScale.transform([(0.01, low), (0.01, 0.9), (0.01, 3.2), (0.01, high)])[:, 1]
    assert (ends[2] - ends[1]) / (ends[3] - ends[0]) > 0.4, "the fronts fill the chart"
