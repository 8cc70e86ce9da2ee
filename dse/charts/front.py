"""The chart every sweep draws: two metrics of a front, by default accuracy loss against speedup, dense the rival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from dse.charts.findings import gains
from dse.charts.labels import label
from dse.charts.marks import draw_cloud, draw_limits, draw_published, knee, knee_words
from dse.charts.scales import LINEAR_BELOW, LINEAR_SHARE, LOSSES, fit, require, shown
from dse.charts.sheet import sheet
from dse.charts.style import RIVAL, looks, shade, small, style
from dse.errors import BadInput
from dse.search.report import BUDGETS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dse.charts.cloud import Cloud
    from dse.charts.published import Published
    from dse.space.definition import Limits

    FloatArray = NDArray[np.float64]

HATCH: Final = 0.87
_STROKES: Final[tuple[Any, ...]] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
STRETCH: Final = 3.0
"""A cloud stretches an axis of positive values by at most this factor at either end."""

_AREAS: Final = (5.0, 60.0)
"""Smallest and largest marker where size shows a metric, square points."""


@dataclass(frozen=True)
class Fronts:
    """What is drawn of one run.

    Attributes:
        name: in the legend. points: the rows of its `front.csv`. title: over the chart.
        note: what sets this run apart from the others of a chart, for its line in the legend.
        limits: constraints by metric, shaded where an axis shows the metric.
        sampled: some points of the space were tried, not all: no gain over dense is told.
    """

    name: str
    points: pd.DataFrame
    title: str = ""
    note: str = ""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    sampled: bool = False


def front_figure(
    runs: Sequence[Fronts],
    *,
    x: str = "nll_increase",
    y: str = "speedup",
    colour: str = "algorithm",
    size: str = "",
    width: float | None = None,
    title: str | None = None,
    cloud: Cloud | None = None,
    published: Sequence[Published] = (),
) -> Figure:
    """Fronts of one or several runs over two metrics.

    Each algorithm has a colour and a marker, each further run a stroke of its own. A line joins the points
    that no other point of the same algorithm beats in `x` and `y`; the others are small and pale. Bars are
    the 95 % interval where the run has one. With a single run the knee of each front is ringed and spelt out in
    the legend.

    Args:
        runs: at least one; several are overlaid.
        x, y: numeric columns of `front.csv`.
        colour: ``"algorithm"``, or a numeric column shown by a colour scale.
        size: a numeric column shown by the size of the markers; "" for none.
        width: inches; default: that of the style.
        title: default: what the titles of all runs have in common.
        cloud: all points of the space in `x` and `y`, binned under the fronts.
        published: operating points that others printed; those whose metrics are on an axis are marked.

    Raises:
        BadInput: no rows to draw, or a column that is not there or not numeric.
    """
    if not runs or all(run.points.empty for run in runs):
        raise BadInput("nothing to draw: the front has no points")
    for run in runs:
        for name in dict.fromkeys(
            (x, y, *([] if colour == "algorithm" else [colour]), *([size] if size else []))
        ):
            require(run.name, run.points, name)
    with sheet(width) as paper:
        axes = paper.axes()
        look = looks(name for run in runs for name in run.points["algorithm"])
        limits = _limits(axes, runs, x, y, cloud)
        handles = draw_cloud(axes, cloud) if cloud is not None else []
        drawn, shaded = _draw(axes, runs, x, y, colour, size, look, limits, shading=cloud is None)
        handles = _handles(axes, runs, look, colour, size, drawn) + handles
        if shaded and len(look) > 1:
            found = any(run.sampled for run in runs)
            words = "no better than the dense points tried" if found else "no better than dense"
            words += f" in {runs[0].name}" if len(runs) > 1 else ""
            handles.append(_patch(words, color=shade(0.92)))
        handles += draw_published(axes, published, x, y, look)
        handles += draw_limits(axes, _shared(runs), x, y, limits)
        if x in LOSSES:
            hatch: Any = {"facecolor": "none", "edgecolor": shade(HATCH), "hatch": "/////", "linewidth": 0}
            handles.append(_patch(f"loss below {LINEAR_BELOW:g} nats", **hatch))
        axes.set_xlabel(label(x).axis)
        axes.set_ylabel(label(y).axis)
        title = title if title is not None else _common([run.title for run in runs])
        if x in LOSSES:
            # Lines and gains at the budgets that people ask for.
            usual = len(runs) == 1 and (x, y) == ("nll_increase", "speedup") and not runs[0].sampled
            _budgets(axes, runs[0].points if usual else None, look)
        return paper.close(title, axes, handles, pad=12 if x in LOSSES else 4)


def _common(titles: Sequence[str]) -> str:
    """The lines that all titles have."""
    return "\n".join(
        line for line in titles[0].splitlines() if all(line in other.splitlines() for other in titles)
    )


def _shared(runs: Sequence[Fronts]) -> dict[str, Limits]:
    """Constraints that all runs have."""
    return {m: x for m, x in runs[0].limits.items() if all(run.limits.get(m) == x for run in runs)}


def _patch(text: str, **kind: Any) -> Any:
    from matplotlib.patches import Patch

    return Patch(label=text, **kind)


def _limits(
    axes: Axes, runs: Sequence[Fronts], x: str, y: str, cloud: Cloud | None
) -> dict[str, tuple[float, float]]:
    """Scale and limits of both axes, from all that will be drawn."""
    import numpy as np

    limits = {}
    for which, name in (("x", x), ("y", y)):
        columns = (name, *(_interval(name)))
        values = [shown(run.points, c) for run in runs for c in columns if c in run.points]
        found = np.concatenate(values)
        if cloud is not None:
            found = np.append(found, _stretched(found, np.asarray(cloud.bulk(which)) * label(name).scale))
        limits[which] = fit(axes, which, name, found)
    return limits


def _stretched(found: FloatArray, bulk: FloatArray) -> FloatArray:
    """How far a cloud may stretch an axis: the fronts must stay what the chart is about."""
    import numpy as np

    low, high = float(np.nanmin(found)), float(np.nanmax(found))
    if low > 0:
        return np.clip(bulk, low / STRETCH, high * STRETCH)
    return np.clip(bulk, low - (high - low), high + (high - low))


def envelope(x: FloatArray, y: FloatArray, x_up: bool, y_up: bool) -> NDArray[np.intp]:
    """Indices of the points not beaten in both coordinates, best `x` first (of equals, the first)."""
    import numpy as np

    cost, value = (-x if x_up else x), (y if y_up else -y)
    order = np.lexsort((-value, cost))
    order = order[np.isfinite(cost[order]) & np.isfinite(value[order])]
    best = np.maximum.accumulate(value[order]) if len(order) else value[order]
    keep = np.concatenate([[True], best[1:] > best[:-1]]) if len(order) else np.zeros(0, dtype=bool)
    result: NDArray[np.intp] = order[keep]
    return result


@dataclass
class _Drawn:
    """What a legend has to explain: the colour scale, extremes of the size, and the knees by algorithm."""

    scale: Any = None
    sizes: tuple[float, float] = (0.0, 0.0)
    knees: dict[str, str] = field(default_factory=dict)


def _draw(
    axes: Axes,
    runs: Sequence[Fronts],
    x: str,
    y: str,
    colour: str,
    size: str,
    look: dict[str, tuple[str, str]],
    limits: dict[str, tuple[float, float]],
    shading: bool,
) -> tuple[_Drawn, bool]:
    """Points, bars and front lines; returns what the legend explains, and whether dense's side is shaded."""
    import numpy as np

    x_up, y_up = label(x).larger_is_better, label(y).larger_is_better
    both = x_up is not None and y_up is not None
    drawn = _Drawn(_scale(runs, colour) if colour != "algorithm" else None)
    scale, wide = drawn.scale, style().scale
    areas = _areas(runs, size, drawn)
    shaded = False
    for number, run in enumerate(runs):
        stroke = _STROKES[number % len(_STROKES)]
        for rank, name in enumerate(sorted(set(run.points["algorithm"]), key=lambda n: (n != RIVAL, n))):
            rows = run.points[run.points["algorithm"] == name]
            xs, ys = shown(rows, x), shown(rows, y)
            ink, marker = look[name]
            stem = ink if scale is None else shade(0.6)
            tint = scale.to_rgba(shown(rows, colour)) if scale else np.array([ink] * len(rows))
            top = envelope(xs, ys, bool(x_up), bool(y_up)) if both else np.arange(len(rows))
            rest = np.setdiff1d(np.arange(len(rows)), top)
            z = 3 + rank + 10 * number
            if len(rest):
                pale: Any = (
                    {"s": 4 * wide**2, "alpha": 0.3} if scale is None else {"s": 7 * wide**2, "alpha": 0.9}
                )
                axes.scatter(
                    xs[rest], ys[rest], c=tint[rest], marker=marker, linewidths=0.4, zorder=2, **pale
                )
            if both and len(top):
                edge = limits["x"][0] if x_up else limits["x"][1]
                line_x, line_y = np.append(xs[top], edge), np.append(ys[top], ys[top[-1]])
                axes.plot(line_x, line_y, drawstyle="steps-post", color=stem, linestyle=stroke, zorder=z)
                if name == RIVAL and number == 0 and scale is None and shading:
                    floor = limits["y"][0] if y_up else limits["y"][1]
                    axes.fill_between(
                        line_x, line_y, floor, step="post", color=shade(0.92), linewidth=0, zorder=0
                    )
                    shaded = True
            _bars(axes, rows, x, y, top, stem, z)
            hollow = number > 0 and marker != "x"
            edges: Any = None if marker == "x" else tint[top] if hollow else shade(1.0)
            axes.scatter(
                xs[top], ys[top], c=shade(1.0) if hollow else tint[top], edgecolors=edges, marker=marker,
                s=areas(rows)[top] * wide**2, zorder=z + 0.5,
                linewidths=(1.0 if marker == "x" else 0.7 if hollow else 0.35) * wide,
            )  # fmt: skip
            if len(runs) == 1 and both and (found := knee(axes, xs[top], ys[top])) is not None:
                at = int(top[found])
                axes.scatter(
                    xs[at], ys[at], s=3.2 * areas(rows)[at] * wide**2, facecolors="none", edgecolors=stem,
                    linewidths=0.7 * wide, zorder=z + 0.6, gid=f"knee {name}",
                )  # fmt: skip
                drawn.knees[name] = knee_words(run.points, rows.iloc[at])
    return drawn, shaded


def _areas(runs: Sequence[Fronts], size: str, drawn: _Drawn) -> Any:
    """A function rows -> marker areas, square points on paper."""
    import numpy as np

    if not size:
        return lambda rows: np.full(len(rows), 13.0)
    every = np.concatenate([shown(run.points, size) for run in runs])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    drawn.sizes = (low, high)
    span = (high - low) or 1.0

    def areas(rows: pd.DataFrame) -> FloatArray:
        share = np.nan_to_num((shown(rows, size) - low) / span)
        found: FloatArray = _AREAS[0] + (_AREAS[1] - _AREAS[0]) * share
        return found

    return areas


def _scale(runs: Sequence[Fronts], colour: str) -> Any:
    """The colour scale over all values of a column."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize, SymLogNorm

    every = np.concatenate([shown(run.points, colour) for run in runs])
    every = every[np.isfinite(every)]
    low, high = (every.min(), every.max()) if len(every) else (0.0, 1.0)
    norm: Normalize = LogNorm(low, high) if low > 0 and high / low > 10 else Normalize(low, high)
    if colour in LOSSES:
        norm = SymLogNorm(LINEAR_BELOW, linscale=LINEAR_SHARE, vmin=low, vmax=high)
    return ScalarMappable(norm, colormaps["viridis"].with_extremes(bad=shade(0.8)))


def _interval(metric: str) -> tuple[str, ...]:
    """Columns of a metric's 95 % interval. Ranges of prices are no such thing: they shift all points together."""
    return (f"{metric}_low", f"{metric}_high") if metric in LOSSES else ()


def _bars(axes: Axes, rows: pd.DataFrame, x: str, y: str, top: Any, ink: str, z: float) -> None:
    """95 % intervals of the points of the front, on whichever axis has them."""
    import numpy as np

    for name, error in ((x, "xerr"), (y, "yerr")):
        if not _interval(name) or not all(c in rows for c in _interval(name)):
            continue
        low, high = _interval(name)
        middle = shown(rows, name)
        bounds = np.stack([middle - shown(rows, low), shown(rows, high) - middle])[:, top]
        bars: Any = {error: np.clip(np.nan_to_num(bounds), 0, None)}
        axes.errorbar(
            shown(rows, x)[top], shown(rows, y)[top], **bars, fmt="none", ecolor=ink,
            elinewidth=0.5 * style().scale, alpha=0.6, zorder=z,
        )  # fmt: skip


def _handles(
    axes: Axes,
    runs: Sequence[Fronts],
    look: dict[str, tuple[str, str]],
    colour: str,
    size: str,
    drawn: _Drawn,
) -> list[Any]:
    """Legend entries of algorithms, runs and sizes, and the colour bar."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    wide = style().scale
    for name in sorted(look, key=lambda n: (n != RIVAL, n)):
        if any((run.points["algorithm"] == name).any() for run in runs):
            ink, marker = look[name]
            text = f"{name} (the rival)" if name == RIVAL and len(look) > 1 else name
            if name in drawn.knees:
                text += f"; ringed: {drawn.knees[name]}"
            line: Literal["-", "none"] = "-" if drawn.scale is None else "none"
            handles.append(
                Line2D([], [], color=ink if drawn.scale is None else shade(0.3), label=text, linestyle=line,
                       marker=marker, markersize=4 * wide)
            )  # fmt: skip
    if len(runs) > 1:
        for number, run in enumerate(runs):
            stroke = _STROKES[number % len(_STROKES)]
            text = f"run: {run.name}" + (f"\n{run.note}" if run.note else "")
            handles.append(Line2D([], [], color=shade(0.35), linestyle=stroke, label=text))
    if size:
        low, high = drawn.sizes
        words = f"size: {label(size).axis}, {low:.3g} to {high:.3g}"
        handles.append(
            Line2D([], [], color=shade(0.5), linestyle="none", marker="o", markersize=5 * wide, label=words)
        )
    if drawn.scale is not None:
        bar = axes.figure.colorbar(drawn.scale, ax=axes, pad=0.02, aspect=30)
        bar.set_label(label(colour).axis)
        bar.outline.set_linewidth(0.4)
    return handles


def _budgets(axes: Axes, points: pd.DataFrame | None, look: dict[str, tuple[str, str]]) -> None:
    """Mark the budgets; above each, the best gain over dense within it, in the winner's colour."""
    low, high = axes.get_xlim()
    axes.axvspan(
        low, LINEAR_BELOW, facecolor="none", edgecolor=shade(HATCH), hatch="/////", linewidth=0, zorder=0.5
    )
    above = axes.get_xaxis_transform()
    words: Any = {"va": "bottom", "fontsize": small()}
    for budget in BUDGETS:
        if budget > high:
            continue
        axes.axvline(budget, color=shade(0.55), linestyle=(0, (1, 2)), linewidth=0.6, zorder=1)
        if points is None:
            continue
        best = next((g for g in gains(points, budget) if g.algorithm != RIVAL and g.gain is not None), None)
        if best is not None and best.gain is not None:
            ink = look[best.algorithm][0]
            axes.text(budget, 1.015, f"{best.gain:.2f}x", transform=above, ha="center", color=ink, **words)
    if points is not None and any(g.algorithm != RIVAL and g.gain is not None for g in gains(points, high)):
        axes.text(0.0, 1.015, "over best dense:", transform=axes.transAxes, ha="left", **words)
