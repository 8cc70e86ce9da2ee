"""Two fronts from one reference point, and what lies between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dse.charts.labels import label
from dse.charts.scales import fit
from dse.charts.sheet import sheet
from dse.charts.style import colours, shade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dse.search.compare import Comparison, Side


def compare_figure(
    comparison: Comparison, x: str = "", y: str = "", title: str = "", width: float | None = None
) -> Figure:
    """Both fronts over two shared objectives, the hypervolumes they span shaded, the better part of each in its colour.

    Filled marks are points that nothing of the other front dominates, hollow ones are dominated by it.

    Args:
        x, y: objectives; default: the last two, the minimised one on the x axis.
    """
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = sorted(comparison.objectives, key=lambda m: comparison.objectives[m])
    x, y = x or names[0], y or next(m for m in reversed(names) if m != (x or names[0]))
    two = len(comparison.objectives) == 2
    with sheet(width) as paper:
        wide = paper.wide
        axes = paper.axes()
        sides = (comparison.a, comparison.b)
        corner = {m: comparison.reference[m] * label(m).scale for m in (x, y)}
        for which, metric in (("x", x), ("y", y)):
            values = [s.points[metric].to_numpy(dtype=float) * label(metric).scale for s in sides]
            fit(axes, which, metric, np.concatenate([*values, [corner[metric]]]))
        handles: list[Any] = []
        inks = colours()
        for side, ink, marker in zip(sides, inks, ("o", "s"), strict=False):
            xs, ys = (side.points[m].to_numpy(dtype=float) * label(m).scale for m in (x, y))
            if two:
                order = np.argsort(-xs if comparison.objectives[x] else xs, kind="stable")
                line_x, line_y = np.append(xs[order], corner[x]), np.append(ys[order], ys[order][-1])
                axes.plot(line_x, line_y, drawstyle="steps-post", color=ink, zorder=3)
                axes.fill_between(line_x, line_y, corner[y], step="post", color=ink, alpha=0.12, linewidth=0)
            for hollow in (True, False):
                mine = side.dominated == hollow
                axes.plot(
                    xs[mine], ys[mine], linestyle="none", marker=marker, markersize=4 * wide, markeredgecolor=ink,
                    markerfacecolor=shade(1.0) if hollow else ink, markeredgewidth=0.7 * wide, zorder=5 - hollow,
                )  # fmt: skip
            text = f"{side.name}: {len(side.points)} points, {int(side.dominated.sum())} dominated (hollow)"
            handles.append(Line2D([], [], color=ink, marker=marker, markersize=4 * wide, label=text))
        axes.plot(
            [corner[x]],
            [corner[y]],
            marker="+",
            color=shade(0.2),
            markersize=6 * wide,
            zorder=6,
            clip_on=False,
        )
        words = f"reference point ({corner[x]:.3g}, {corner[y]:.3g})"
        handles.append(
            Line2D([], [], color=shade(0.2), marker="+", linestyle="none", markersize=6 * wide, label=words)
        )
        if two:
            change = f"hypervolume {comparison.a.hypervolume:.4g} and {comparison.b.hypervolume:.4g} ({comparison.change:+.1%})"
            handles.append(Patch(facecolor=shade(0.6), alpha=0.3, label=change))
        axes.set_xlabel(label(x).axis)
        axes.set_ylabel(label(y).axis)
        return paper.close(title, axes, handles)


def summary(side: Side) -> str:
    """How many points of each algorithm the other front leaves standing: `dense 3 of 6, spatten 0 of 2`."""
    return ", ".join(f"{name} {left} of {count}" for name, (count, left) in side.algorithms.items())
