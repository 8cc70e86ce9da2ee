"""Parallel coordinates: every point of a front as a line over knobs, hardware and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dse.charts.labels import brief, label
from dse.charts.scales import LOSSES
from dse.charts.sheet import sheet, wrapped
from dse.charts.style import RIVAL, looks, shade, small
from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_AXES: Final = 8
"""Axes chosen when none are named; more crowd a page."""

_METRICS: Final = ("nll_increase", "speedup", "energy_saving", "area_mm2")


def usual_axes(points: pd.DataFrame, objectives: Sequence[str] = ()) -> list[str]:
    """Hardware that differs among the points, then the objectives and what people ask for besides."""
    hardware = [c for c in points.columns if c.startswith("hardware.") and c != "hardware.pe_count"]
    varied = [c for c in hardware if points[c].astype(str).nunique() > 1]
    metrics = [m for m in dict.fromkeys((*objectives, *_METRICS)) if m in points and points[m].nunique() > 1]
    room = max(0, MOST_AXES - len(metrics))
    varied.sort(key=lambda c: -points[c].astype(str).nunique())
    return [c for c in hardware if c in varied[:room]] + metrics


def parallel_figure(
    points: pd.DataFrame, columns: Sequence[str], title: str = "", width: float | None = None
) -> Figure:
    """One line per point, coloured by algorithm; points that something dominates are pale.

    Each axis runs from its least to its greatest value, better upwards where there is a better; texts are spread
    evenly. A point without a value on an axis leaves it out.

    Raises:
        BadInput: fewer than two axes, an unknown column, or no points.
    """
    from matplotlib.lines import Line2D

    if points.empty:
        raise BadInput("nothing to draw: the front has no points")
    for column in columns:
        if column not in points:
            raise BadInput(f"no column {column!r}; {nearest(column, map(str, points.columns))}")
    if len(columns) < 2:
        raise BadInput("parallel: fewer than two axes differ among the points; name some with --columns")
    with sheet(width, page=True) as paper:
        wide = paper.wide
        axes = paper.axes()
        look = looks(points["algorithm"])
        places = [_places(points, column) for column in columns]
        shifts = _shifts(points)
        for row in range(len(points)):
            name = str(points["algorithm"].iloc[row])
            on = bool(points["on_front"].iloc[row])
            line = [(i, p[0][row]) for i, p in enumerate(places) if p[0][row] == p[0][row]]
            xs, ys = [x for x, _ in line], [y + shifts[name] for _, y in line]
            kind: Any = (
                {"alpha": 0.85, "linewidth": 1.0 * wide} if on else {"alpha": 0.25, "linewidth": 0.6 * wide}
            )
            axes.plot(xs, ys, color=look[name][0], zorder=3 if on else 2, **kind)
        letters = int(0.8 * paper.width / len(columns) / (0.058 * wide))
        for i, (_, low, high, marks) in enumerate(places):
            axes.axvline(i, color=shade(0.4), linewidth=0.6 * wide, zorder=1)
            for at, text in marks or ((0.0, low), (1.0, high)):
                box: Any = {"facecolor": shade(1.0), "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
                axes.text(i + 0.03, at, text, fontsize=small(), va="center", ha="left", zorder=6, bbox=box)
        names = [_name(column, letters) for column in columns]
        axes.set_xticks(range(len(columns)), names)
        axes.set_xlim(-0.1, len(columns) - 0.62)
        axes.set_ylim(-0.06, 1.06)
        axes.set_yticks([])
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="x", length=0)
        handles = [
            Line2D(
                [],
                [],
                color=look[name][0],
                label=f"{name} (the rival)" if name == RIVAL and len(look) > 1 else name,
            )
            for name in sorted(look, key=lambda n: (n != RIVAL, n))
            if (points["algorithm"] == name).any()
        ]
        if not points["on_front"].all():
            handles.append(
                Line2D(
                    [], [], color=shade(0.4), alpha=0.3, linewidth=0.6 * wide, label="dominated by another"
                )
            )
        if any(label(c).larger_is_better is not None for c in columns):
            handles.append(Line2D([], [], linestyle="none", label="metrics: better is up"))
        lines = max(name.count("\n") + 1 for name in names)
        return paper.close(title, axes, handles, 2.4 + 0.12 * lines)


def _shifts(points: pd.DataFrame) -> dict[str, float]:
    """A hair of difference between the algorithms, so that lines through the same place can be told apart."""
    names = sorted(set(points["algorithm"]))
    return {name: 0.008 * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}


def _name(column: str, letters: int) -> str:
    """A column's name and unit, cut into lines."""
    known = label(column)
    title = known.title if known.unit else known.title.rpartition(".")[2]
    return wrapped(title, max(6, letters)) + (f"\n({known.unit})" if known.unit else "")


def _places(points: pd.DataFrame, column: str) -> tuple[list[float], str, str, list[tuple[float, str]]]:
    """Heights of the points on an axis, 0 to 1; the texts at its ends; where its few values lie, if they are few."""
    import math

    import pandas as pd

    known = label(column)
    values = points[column]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        texts = sorted({str(v) for v in values.dropna()})
        last = max(1, len(texts) - 1)
        found = [texts.index(str(v)) / last if v == v and v is not None else math.nan for v in values]
        return found, "", "", [(i / last, text) for i, text in enumerate(texts)]
    scaled = [float(v) * known.scale for v in values]
    real = [v for v in scaled if math.isfinite(v)]
    low, high = (min(real), max(real)) if real else (0.0, 1.0)
    logarithmic = low > 0 and high / low > 8 and column not in LOSSES
    flip = known.larger_is_better is False

    def place(v: float) -> float:
        if not math.isfinite(v):
            return math.nan
        if high == low:
            return 0.5
        share = math.log(v / low) / math.log(high / low) if logarithmic else (v - low) / (high - low)
        return 1 - share if flip else share

    few = sorted(set(real))
    shown = {v: brief(float(f"{v:.3g}")) for v in few}
    marks = [(place(v), shown[v]) for v in few] if "." in column and len(few) <= 6 else []
    ends = (shown.get(high, ""), shown.get(low, "")) if flip else (shown.get(low, ""), shown.get(high, ""))
    return [place(v) for v in scaled], ends[0], ends[1], marks
