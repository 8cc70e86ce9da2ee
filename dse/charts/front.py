"""The chart every sweep draws: accuracy loss against speedup, one front per algorithm, dense as the rival."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.findings import gains
from dse.charts.labels import label
from dse.charts.style import COLUMN_INCHES, RIVAL, looks, styled, use_agg
from dse.errors import BadInput, nearest
from dse.search.report import BUDGETS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

LINEAR_BELOW: Final = 1e-3
"""Losses smaller than this (nats) are drawn on a linear scale: dense at 12 bits loses about nothing."""

_LOSSES: Final = ("nll_increase", "nll_increase_distant")
_LOSS_TICKS: Final = (-0.03, -0.01, -0.003, 0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_LETTER_INCHES: Final = 0.052
"""Mean width of a letter in the legend."""

_HATCH: Final = "0.87"
_STROKES: Final[tuple[Any, ...]] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Fronts:
    """What is drawn of one run: its name in the legend, the rows of its `front.csv`, and its title."""

    name: str
    points: pd.DataFrame
    title: str = ""
    note: str = ""
    """What sets this run apart from the others of a chart, for its line in the legend."""


def front_figure(
    runs: Sequence[Fronts],
    *,
    x: str = "nll_increase",
    y: str = "speedup",
    colour: str = "algorithm",
    width: float = COLUMN_INCHES,
    title: str | None = None,
) -> Figure:
    """Fronts of one or several runs over two metrics.

    Each algorithm has a colour and a marker, each further run a stroke of its own. A line joins the points
    that no other point of the same algorithm beats in `x` and `y`; the others are small and pale. Bars are
    the 95 % interval where the run has one.

    Args:
        runs: at least one; several are overlaid.
        x, y: numeric columns of `front.csv`.
        colour: ``"algorithm"``, or a numeric column shown by a colour scale.
        width: inches.
        title: default: the title of the only run.

    Raises:
        BadInput: no rows to draw, or a column that is not there or not numeric.
    """
    use_agg()
    from matplotlib.figure import Figure

    if not runs or all(run.points.empty for run in runs):
        raise BadInput("nothing to draw: the front has no points")
    for run in runs:
        for name in (x, y) if colour == "algorithm" else (x, y, colour):
            _require(run, name)
    with styled():
        figure = Figure(figsize=(width, width), layout="constrained")
        axes = figure.add_subplot()
        look = looks(name for run in runs for name in run.points["algorithm"])
        limits = _scales(axes, runs, x, y)
        handles = _draw(axes, runs, x, y, colour, look, limits)
        axes.set_xlabel(label(x).axis)
        axes.set_ylabel(label(y).axis)
        title = title if title is not None else (runs[0].title if len(runs) == 1 else "")
        title = _wrapped(title, int(14 * width))
        if x in _LOSSES:
            # Lines and gains at the budgets that people ask for.
            _budgets(
                axes,
                runs[0].points if len(runs) == 1 and (x, y) == ("nll_increase", "speedup") else None,
                look,
            )
        if title:
            axes.set_title(title, loc="left", pad=12 if x in _LOSSES else 4)
        for handle in handles:
            handle.set_label(_wrapped(str(handle.get_label()), int((width - 0.5) / _LETTER_INCHES)))
        labels = [str(handle.get_label()).splitlines() for handle in handles]
        longest = max(len(line) for lines in labels for line in lines)
        across = min(4, max(1, int(width / (longest * _LETTER_INCHES + 0.45))))
        # The plot keeps its shape however much the legend has to say.
        legend_inches = 0.145 * math.ceil(sum(map(len, labels)) / across)
        figure.set_size_inches(
            width, min(0.66 * width, 3.4) + 0.14 * (title or "").count("\n") + legend_inches
        )
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=across,
            frameon=False,
            handlelength=2.4,
            columnspacing=1.2,
        )
    return figure


def _wrapped(text: str, letters: int) -> str:
    return "\n".join(textwrap.fill(line, letters) for line in text.splitlines())


def _require(run: Fronts, name: str) -> None:
    import pandas as pd

    numeric = [c for c in run.points.columns if pd.api.types.is_numeric_dtype(run.points[c])]
    if name not in run.points.columns:
        raise BadInput(f"{run.name}: no column {name!r}; {nearest(name, numeric)}")
    if name not in numeric:
        raise BadInput(
            f"{run.name}: column {name!r} holds words, an axis needs numbers; {nearest(name, numeric)}"
        )


def _values(points: pd.DataFrame, name: str) -> FloatArray:
    values: FloatArray = points[name].to_numpy(dtype=float) * label(name).scale
    return values


def _scales(axes: Axes, runs: Sequence[Fronts], x: str, y: str) -> dict[str, tuple[float, float]]:
    """Choose scale and limits of both axes from the data; returns the limits by axis."""
    import numpy as np
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

    limits = {}
    for which, name in (("x", x), ("y", y)):
        columns = (name, f"{name}_low", f"{name}_high")
        values = np.concatenate([_values(run.points, c) for run in runs for c in columns if c in run.points])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        axis = axes.xaxis if which == "x" else axes.yaxis
        set_scale = axes.set_xscale if which == "x" else axes.set_yscale
        if name in _LOSSES:
            set_scale("symlog", linthresh=LINEAR_BELOW, linscale=0.45)
            low = min(-LINEAR_BELOW * 0.8, low * 1.2 if low < 0 else 0.0)
            high = max(BUDGETS[1], high * 1.25)
            ticks = [t for t in _LOSS_TICKS if low <= t <= high]
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))
            axis.set_minor_locator(NullLocator())
        elif low > 0 and (high / low > 30 or (label(name).log and high / low > 5)):
            set_scale("log")
            low, high = low / 1.15, high * 1.15
            if high / low < 30:  # else decades suffice
                ticks = [m * 10.0**e for e in range(-12, 13) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
                axis.set_major_locator(FixedLocator(ticks))
                axis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))
                axis.set_minor_formatter(NullFormatter())
        else:
            margin = 0.06 * (high - low or abs(high) or 1.0)
            low = 0.0 if 0 <= low < 0.5 * high else low - margin
            high += margin
        limits[which] = (low, high)
    axes.set_xlim(*limits["x"])
    axes.set_ylim(*limits["y"])
    return limits


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


def _draw(
    axes: Axes,
    runs: Sequence[Fronts],
    x: str,
    y: str,
    colour: str,
    look: dict[str, tuple[str, str]],
    limits: dict[str, tuple[float, float]],
) -> list[Any]:
    """Points, bars and front lines; returns the legend's handles."""
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    x_up, y_up = label(x).larger_is_better, label(y).larger_is_better
    shaded = False
    scale = None
    if colour != "algorithm":
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm, Normalize, SymLogNorm

        every = np.concatenate([_values(run.points, colour) for run in runs])
        every = every[np.isfinite(every)]
        low, high = (every.min(), every.max()) if len(every) else (0.0, 1.0)
        norm: Normalize = LogNorm(low, high) if low > 0 and high / low > 10 else Normalize(low, high)
        if colour in _LOSSES:
            norm = SymLogNorm(LINEAR_BELOW, linscale=0.45, vmin=low, vmax=high)
        scale = ScalarMappable(norm, colormaps["viridis"].with_extremes(bad="0.8"))
    for number, run in enumerate(runs):
        stroke = _STROKES[number % len(_STROKES)]
        for rank, name in enumerate(sorted(set(run.points["algorithm"]), key=lambda n: (n != RIVAL, n))):
            rows = run.points[run.points["algorithm"] == name]
            xs, ys = _values(rows, x), _values(rows, y)
            ink, marker = look[name]
            stem = ink if scale is None else "0.6"
            tint = scale.to_rgba(_values(rows, colour)) if scale else np.array([ink] * len(rows))
            top = np.arange(len(rows)) if x_up is None or y_up is None else envelope(xs, ys, x_up, y_up)
            rest = np.setdiff1d(np.arange(len(rows)), top)
            z = 3 + rank + 10 * number
            if len(rest):
                pale: Any = {"s": 4, "alpha": 0.3} if scale is None else {"s": 7, "alpha": 0.9}
                axes.scatter(
                    xs[rest], ys[rest], c=tint[rest], marker=marker, linewidths=0.4, zorder=2, **pale
                )
            if x_up is not None and y_up is not None and len(top):
                edge = limits["x"][0] if x_up else limits["x"][1]
                line_x, line_y = np.append(xs[top], edge), np.append(ys[top], ys[top[-1]])
                axes.plot(line_x, line_y, drawstyle="steps-post", color=stem, linestyle=stroke, zorder=z)
                if name == RIVAL and number == 0 and scale is None:
                    floor = limits["y"][0] if y_up else limits["y"][1]
                    axes.fill_between(line_x, line_y, floor, step="post", color="0.92", linewidth=0, zorder=0)
                    shaded = True
            for columns, error in (((f"{x}_low", f"{x}_high"), "xerr"), ((f"{y}_low", f"{y}_high"), "yerr")):
                if all(c in rows for c in columns):
                    middle = xs if error == "xerr" else ys
                    bounds = np.stack(
                        [middle - _values(rows, columns[0]), _values(rows, columns[1]) - middle]
                    )[:, top]
                    bars: Any = {error: np.clip(np.nan_to_num(bounds), 0, None)}
                    axes.errorbar(
                        xs[top], ys[top], **bars, fmt="none", ecolor=stem, elinewidth=0.5, alpha=0.6, zorder=z
                    )
            hollow = number > 0 and marker != "x"
            edges: Any = None if marker == "x" else tint[top] if hollow else "white"
            axes.scatter(
                xs[top],
                ys[top],
                s=13,
                marker=marker,
                facecolors="white" if hollow else tint[top],
                edgecolors=edges,
                linewidths=1.0 if marker == "x" else 0.7 if hollow else 0.35,
                zorder=z + 0.5,
            )
    handles: list[Any] = []
    for name in sorted(look, key=lambda n: (n != RIVAL, n)):
        if any((run.points["algorithm"] == name).any() for run in runs):
            ink, marker = look[name]
            text = f"{name} (the rival)" if name == RIVAL and len(look) > 1 else name
            style: Any = {"linestyle": "-" if scale is None else "none", "marker": marker, "markersize": 4}
            handles.append(Line2D([], [], color=ink if scale is None else "0.3", label=text, **style))
    if len(runs) > 1:
        for number, run in enumerate(runs):
            stroke = _STROKES[number % len(_STROKES)]
            text = f"run: {run.name}" + (f"\n{run.note}" if run.note else "")
            handles.append(Line2D([], [], color="0.35", linestyle=stroke, label=text))
    if shaded and len(look) > 1:
        handles.append(Patch(color="0.92", label="no better than dense"))
    if x in _LOSSES:
        hatch: Any = {"facecolor": "none", "edgecolor": _HATCH, "hatch": "/////", "linewidth": 0}
        handles.append(Patch(label=f"loss below {LINEAR_BELOW:g} nats", **hatch))
    if scale is not None:
        bar = axes.figure.colorbar(scale, ax=axes, pad=0.02, aspect=30)
        bar.set_label(label(colour).axis)
        bar.outline.set_linewidth(0.4)
    return handles


def _budgets(axes: Axes, points: pd.DataFrame | None, look: dict[str, tuple[str, str]]) -> None:
    """Mark the budgets; above each, the best gain over dense within it, in the winner's colour."""
    low, high = axes.get_xlim()
    axes.axvspan(
        low, LINEAR_BELOW, facecolor="none", edgecolor=_HATCH, hatch="/////", linewidth=0, zorder=0.5
    )
    above = axes.get_xaxis_transform()
    for budget in BUDGETS:
        if budget > high:
            continue
        axes.axvline(budget, color="0.55", linestyle=(0, (1, 2)), linewidth=0.6, zorder=1)
        if points is None:
            continue
        best = next((g for g in gains(points, budget) if g.algorithm != RIVAL and g.gain is not None), None)
        if best is not None and best.gain is not None:
            axes.text(
                budget, 1.015, f"{best.gain:.2f}x", transform=above, ha="center", va="bottom", fontsize=6.5,
                color=look[best.algorithm][0],
            )  # fmt: skip
    if points is not None and any(g.algorithm != RIVAL and g.gain is not None for g in gains(points, high)):
        axes.text(
            0.0, 1.015, "over best dense:", transform=axes.transAxes, ha="left", va="bottom", fontsize=6.5
        )
