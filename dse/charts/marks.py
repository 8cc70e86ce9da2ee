"""What a chart of fronts shows besides fronts: knees, constraints, published points, and all the points behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dse.charts.findings import short_knobs, varying
from dse.charts.labels import label
from dse.charts.style import shade, style

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from dse.charts.cloud import Cloud
    from dse.charts.published import Published
    from dse.space.definition import Limits

    FloatArray = NDArray[np.float64]

SHARPEST: Final = 0.1
"""A knee stands out from the line between the ends of its front by this share of the front's extent."""

CELL_POINTS: Final = 1.6
"""Side of a cell of a binned cloud, in points on paper."""


def knee(axes: Axes, x: FloatArray, y: FloatArray) -> int | None:
    """Which point of a front bends it most: the one farthest from the line between its ends, as drawn.

    Args:
        x, y: a front in order, in data coordinates of axes whose scales and limits are set.

    Returns:
        None where the front has fewer than three points, or no corner to speak of.
    """
    import numpy as np

    if len(x) < 3:
        return None
    drawn = axes.transScale.transform(np.column_stack([x, y]))
    span = drawn.max(axis=0) - drawn.min(axis=0)
    if not (span > 0).all():
        return None
    places = (drawn - drawn[0]) / span
    along = places[-1] / np.hypot(*places[-1])
    distance = places[:, 0] * along[1] - places[:, 1] * along[0]
    # The better corner has the first point's x and the last one's y: a knee bends towards it.
    outward = distance * np.sign(-places[-1, 1] * along[0])
    at = int(np.argmax(outward))
    return at if outward[at] >= SHARPEST and 0 < at < len(x) - 1 else None


def knee_words(points: pd.DataFrame, row: pd.Series[Any]) -> str:
    """The knobs of a point, in words: those that differ among the points of its algorithm."""
    name = str(row["algorithm"])
    columns = varying(points[points["algorithm"] == name], f"{name}.")
    return short_knobs(row, {c: c.rpartition(".")[2] for c in columns}) or str(row.get("point", ""))


def draw_limits(
    axes: Axes,
    limits: Mapping[str, Limits],
    x: str,
    y: str,
    extent: Mapping[str, tuple[float, float]],
) -> list[Any]:
    """Shade what the constraints on the two metrics exclude; returns the legend's handles."""
    from matplotlib.patches import Patch

    kind: Any = {"facecolor": "#D55E00", "alpha": 0.10, "linewidth": 0, "zorder": 0.4}
    words = []
    for which, metric in (("x", x), ("y", y)):
        known = limits.get(metric)
        if known is None:
            continue
        span = axes.axvspan if which == "x" else axes.axhspan
        low, high = extent[which]
        scale = label(metric).scale
        for bound, beyond, sign in ((known.high, high, "above"), (known.low, low, "below")):
            if bound is None or not low < bound * scale < high:
                continue
            span(bound * scale, beyond, **kind)
            unit = label(metric).unit
            words.append(f"{sign} {bound * scale:g} {unit}".rstrip())
    return [Patch(label=f"outside the constraints: {', '.join(words)}", **kind)] if words else []


def draw_published(
    axes: Axes, published: Sequence[Published], x: str, y: str, look: Mapping[str, tuple[str, str]]
) -> list[Any]:
    """Stars at operating points with both metrics, stars on the frame at those with one; returns the handles."""
    from matplotlib.lines import Line2D

    handles = []
    for point in published:
        if point.algorithm not in look:
            continue
        at_x, at_y = point.values.get(x), point.values.get(y)
        if at_x is None and at_y is None:
            continue
        transform: Any = axes.transData
        words = []
        if at_x is not None:
            at_x *= label(x).scale
            words.append(f"{at_x:.3g} {label(x).unit}".rstrip())
        else:
            transform = axes.get_yaxis_transform()
        if at_y is not None:
            at_y *= label(y).scale
            words.append(f"{at_y:.3g} {label(y).unit}".rstrip())
        else:
            transform = axes.get_xaxis_transform()
        ink = look[point.algorithm][0]
        kind: Any = {
            "marker": "*", "markersize": 7 * style().scale, "markerfacecolor": shade(1.0), "markeredgecolor": ink,
            "markeredgewidth": 0.8 * style().scale, "linestyle": "none",
        }  # fmt: skip
        inside = _inside(axes, at_x, at_y)
        if inside:
            axes.plot(
                [1.0 if at_x is None else at_x], [1.0 if at_y is None else at_y], transform=transform,
                clip_on=False, zorder=60, **kind,
            )  # fmt: skip
        else:
            words.append("beyond this chart")
        text = f"published: {point.algorithm} {', '.join(words)} ({point.source})"
        handles.append(Line2D([], [], label=text, **kind))
    return handles


def _inside(axes: Axes, x: float | None, y: float | None) -> bool:
    return all(
        value is None or low <= value <= high
        for value, (low, high) in ((x, axes.get_xlim()), (y, axes.get_ylim()))
    )


def draw_cloud(axes: Axes, cloud: Cloud) -> list[Any]:
    """All points of a space as cells, darker where there are more; returns the legend's handles."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.patches import Patch

    width, height = axes.figure.get_size_inches()  # type: ignore[union-attr]
    cells = [
        max(20, int(72 * inches * 0.75 / (CELL_POINTS * style().scale))) for inches in (width, 0.7 * height)
    ]
    transform = axes.transScale
    corners = transform.transform(np.column_stack([axes.get_xlim(), axes.get_ylim()]))
    edges = [np.linspace(corners[0, i], corners[1, i], cells[i] + 1) for i in (0, 1)]
    counts = np.zeros((cells[0], cells[1]))
    scales = (label(cloud.x).scale, label(cloud.y).scale)
    with np.errstate(invalid="ignore", divide="ignore"):
        places = transform.transform(np.column_stack([cloud.xs * scales[0], cloud.ys * scales[1]]))
    counts, _, _ = np.histogram2d(places[:, 0], places[:, 1], bins=edges)
    back = transform.inverted()
    x_edges = back.transform(np.column_stack([edges[0], np.full(len(edges[0]), corners[0, 1])]))[:, 0]
    y_edges = back.transform(np.column_stack([np.full(len(edges[1]), corners[0, 0]), edges[1]]))[:, 1]
    tones = LinearSegmentedColormap.from_list("cloud", [shade(0.86), shade(0.45)])
    shown = np.ma.masked_equal(counts.T, 0)
    if shown.count():
        axes.pcolormesh(
            x_edges, y_edges, shown, cmap=tones, norm=LogNorm(1, max(2.0, float(counts.max()))), zorder=0.8,
            rasterized=True, linewidth=0,
        )  # fmt: skip
    few = len(cloud.xs) < cloud.drawn
    words = (
        f"within the constraints: {len(cloud.xs):,} of {cloud.drawn:,} points"
        if few
        else f"{cloud.drawn:,} points"
    )
    share = "" if cloud.drawn == cloud.total else f" (a sample of {cloud.total:,})"
    return [Patch(color=shade(0.65), label=f"{words}{share}, darker: more")]
