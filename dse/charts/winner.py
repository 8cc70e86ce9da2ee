"""Winner map: over two axes of workload or hardware, which algorithm is best within a loss budget, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.findings import gains
from dse.charts.labels import brief
from dse.charts.style import RIVAL, legend_below, looks, shade, small, styled, use_agg, wrapped
from dse.errors import BadInput
from dse.search.report import WORTH

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FULL: Final = 2.0
"""From this gain over the best dense on a cell has its algorithm's full colour."""

PALEST: Final = 0.2


@dataclass(frozen=True)
class Cell:
    """One space of a map.

    Attributes:
        x, y: its values of the two axes, as texts.
        winner: the sparse algorithm with the fastest point within the budget; "" where none has one.
        gain: its speedup over the best dense point within the same budget; None without a rival.
    """

    x: str
    y: str
    winner: str
    gain: float | None

    @property
    def pays(self) -> bool:
        """Whether the gain is larger than what component constants are known to."""
        return self.gain is not None and self.gain >= WORTH


def cell(points: pd.DataFrame, budget: float, x: object, y: object) -> Cell:
    """The winner among the rows of a `front.csv`."""
    sparse = [g for g in gains(points, budget) if g.algorithm != RIVAL and g.point is not None]
    best = max(sparse, key=lambda g: float(g.point["speedup"]) if g.point is not None else 0.0, default=None)
    return Cell(brief(x), brief(y), best.algorithm if best else "", best.gain if best else None)


def winner_figure(
    cells: Sequence[Cell],
    x: str,
    y: str,
    budget: float,
    title: str = "",
    width: float | None = None,
) -> Figure:
    """A grid of cells in the winners' colours, deeper for a larger gain, hatched where dense does as well.

    Args:
        cells: their texts, in the order first met, are the ticks of the axes.
        x, y: names of the axes, units in them.

    Raises:
        BadInput: no cells.
    """
    if not cells:
        raise BadInput("nothing to draw: the map has no cells")
    use_agg()
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    with styled() as chosen:
        width = width or chosen.width
        wide = chosen.scale
        xs, ys = (list(dict.fromkeys(getattr(c, which) for c in cells)) for which in ("x", "y"))
        figure = Figure(figsize=(width, width), layout="constrained")
        axes = figure.add_subplot()
        look = looks(c.winner for c in cells if c.winner)
        ground = to_rgb(shade(1.0))
        for one in cells:
            at = (xs.index(one.x) - 0.5, ys.index(one.y) - 0.5)
            ink = to_rgb(look[one.winner][0]) if one.winner else to_rgb(shade(0.75))
            depth = PALEST
            if one.pays and one.gain is not None:
                depth = PALEST + (0.85 - PALEST) * min(1.0, (one.gain - 1) / (FULL - 1))
            tone = tuple(g + (i - g) * depth for i, g in zip(ink, ground, strict=True))
            axes.add_patch(Rectangle(at, 1, 1, facecolor=tone, edgecolor=shade(1.0), linewidth=1.0 * wide))
            if not one.pays:
                hatch: Any = {"facecolor": "none", "edgecolor": shade(0.6), "hatch": "////", "linewidth": 0}
                axes.add_patch(Rectangle(at, 1, 1, **hatch))
            text = "none" if not one.winner else "no dense" if one.gain is None else f"{one.gain:.2f}x"
            box: Any = {"facecolor": tone, "edgecolor": "none", "pad": 1.2} if not one.pays else None
            axes.text(at[0] + 0.5, at[1] + 0.5, text, ha="center", va="center", fontsize=small(), bbox=box)
        axes.set_xlim(-0.5, len(xs) - 0.5)
        axes.set_ylim(-0.5, len(ys) - 0.5)
        axes.set_xticks(range(len(xs)), xs)
        axes.set_yticks(range(len(ys)), ys)
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        handles: list[Any] = [
            Patch(facecolor=look[name][0], label=name)
            for name in sorted({c.winner for c in cells if c.winner})
        ]
        if any(not c.pays for c in cells):
            words = f"dense as fast (gain below {WORTH:g}x) or faster"
            handles.append(
                Patch(facecolor="none", edgecolor=shade(0.6), hatch="////", linewidth=0, label=words)
            )
        note = f"fastest sparse algorithm within {budget:g} nats per token, over the best dense"
        title = wrapped(f"{title}\n{note}" if title else note, int(14 * width / wide))
        axes.set_title(title, loc="left", pad=4 * wide)
        legend_below(figure, handles, min(0.62 * width, (0.55 + 0.36 * len(ys)) * wide), title)
    return figure
