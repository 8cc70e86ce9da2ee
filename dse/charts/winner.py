"""Winner map: over two axes of workload or hardware, which algorithm is best within a loss budget, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.findings import gains
from dse.charts.labels import brief
from dse.charts.sheet import LETTER_INCHES, TITLE_LETTERS, sheet, wrapped
from dse.charts.style import RIVAL, looks, shade, small
from dse.errors import BadInput
from dse.search.report import WORTH

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FULL: Final = 2.0
"""From this gain over the best dense on a cell has its algorithm's full colour."""

PALEST: Final = 0.2

_HATCHES: Final = {"dense": "xxxx", "even": "////"}


@dataclass(frozen=True)
class Cell:
    """One space of a map.

    Attributes:
        x, y: its values of the two axes, as texts.
        winner: the sparse algorithm with the fastest point within the budget; "" where none has one.
        gain: its speedup over the best dense point within the same budget; None without a rival.
        low, high: what the gain becomes if the losses of the algorithm and of dense lie at the ends of their 95 %
            intervals, whichever is worse (better) for the algorithm; 0 (infinite) where nothing then stays within.
    """

    x: str
    y: str
    winner: str
    gain: float | None
    low: float = 0.0
    high: float = math.inf

    @property
    def verdict(self) -> str:
        """``pays``; ``even`` where the intervals, or too small a gain, leave it open; ``dense``; ``none``."""
        if not self.winner or self.gain is None:
            return "none"
        if self.high < WORTH:
            return "dense"
        return "pays" if self.low >= WORTH else "even"


def _fastest(points: pd.DataFrame, name: str, column: str, budget: float) -> float:
    """Speedup of an algorithm's fastest point whose `column` stays within the budget; NaN for none."""
    rows = points[points["algorithm"] == name]
    if column not in rows:
        column = "nll_increase"
    within = rows[rows[column].fillna(rows["nll_increase"]) <= budget]
    return float(within["speedup"].max()) if len(within) else math.nan


def cell(points: pd.DataFrame, budget: float, x: object, y: object) -> Cell:
    """The winner among the rows of a `front.csv`."""
    sparse = [g for g in gains(points, budget) if g.algorithm != RIVAL and g.point is not None]
    best = max(sparse, key=lambda g: float(g.point["speedup"]) if g.point is not None else 0.0, default=None)
    if best is None or best.gain is None:
        return Cell(brief(x), brief(y), best.algorithm if best else "", None)
    ends = []
    for mine, other in (("nll_increase_high", "nll_increase_low"), ("nll_increase_low", "nll_increase_high")):
        ends.append((_fastest(points, best.algorithm, mine, budget), _fastest(points, RIVAL, other, budget)))
    (unlucky, its_rival), (lucky, another) = ends
    low = 0.0 if math.isnan(unlucky) else unlucky / its_rival
    high = math.inf if math.isnan(another) else lucky / another
    return Cell(brief(x), brief(y), best.algorithm, best.gain, low, high)


def winner_figure(
    cells: Sequence[Cell],
    x: str,
    y: str,
    budget: float,
    title: str = "",
    width: float | None = None,
    ticks: Mapping[str, str] | None = None,
) -> Figure:
    """A grid of cells in the winners' colours, deeper for a larger gain, with the gain and its interval.

    Cells are hatched where the intervals leave open who is faster, and closely hatched where dense is.

    Args:
        cells: their texts, in the order first met, are the ticks of the axes.
        x, y: names of the axes, units in them.
        ticks: value of an axis -> what its tick says instead.

    Raises:
        BadInput: no cells.
    """
    if not cells:
        raise BadInput("nothing to draw: the map has no cells")
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch, Rectangle

    xs, ys = (list(dict.fromkeys(getattr(c, which) for c in cells)) for which in ("x", "y"))
    longest = max(len(line) for c in cells for line in _words(c).splitlines())
    with sheet(width, page=len(xs) * (longest + 2) * LETTER_INCHES > 2.6) as paper:
        wide = paper.wide
        axes = paper.axes()
        look = looks(c.winner for c in cells if c.winner)
        ground = to_rgb(shade(1.0))
        for one in cells:
            at = (xs.index(one.x) - 0.5, ys.index(one.y) - 0.5)
            ink = to_rgb(look[one.winner][0]) if one.winner else to_rgb(shade(0.75))
            pays = one.verdict == "pays"
            depth = PALEST
            if pays and one.gain is not None:
                depth = PALEST + (0.75 - PALEST) * min(1.0, (one.gain - 1) / (FULL - 1))
            tone = tuple(g + (i - g) * depth for i, g in zip(ink, ground, strict=True))
            axes.add_patch(Rectangle(at, 1, 1, facecolor=tone, edgecolor=shade(1.0), linewidth=1.0 * wide))
            if one.verdict in _HATCHES:
                hatch: Any = {"facecolor": "none", "edgecolor": shade(0.6), "linewidth": 0}
                axes.add_patch(Rectangle(at, 1, 1, hatch=_HATCHES[one.verdict], **hatch))
            box: Any = {"facecolor": tone, "edgecolor": "none", "pad": 1.2} if not pays else None
            axes.text(
                at[0] + 0.5, at[1] + 0.5, _words(one), ha="center", va="center", fontsize=small(), bbox=box,
                linespacing=1.15,
            )  # fmt: skip
        axes.set_xlim(-0.5, len(xs) - 0.5)
        axes.set_ylim(-0.5, len(ys) - 0.5)
        said = ticks or {}
        axes.set_xticks(range(len(xs)), [said.get(one, one) for one in xs])
        axes.set_yticks(range(len(ys)), [said.get(one, one) for one in ys])
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_xlabel(x)
        height = min(0.62 * paper.width / wide, 0.55 + 0.42 * len(ys))
        axes.set_ylabel(wrapped(y, max(10, int(TITLE_LETTERS * (height - 0.3)))))
        handles: list[Any] = [
            Patch(facecolor=look[name][0], label=name)
            for name in sorted({c.winner for c in cells if c.winner})
        ]
        verdicts = {c.verdict for c in cells}
        for verdict, words in (
            ("even", "the intervals of the losses leave it open"),
            ("dense", f"dense does as well: no gain of {WORTH:g}x"),
        ):
            if verdict in verdicts:
                kind: Any = {"facecolor": "none", "edgecolor": shade(0.6), "linewidth": 0}
                handles.append(Patch(hatch=_HATCHES[verdict], label=words, **kind))
        note = (
            f"fastest sparse algorithm within {budget:g} nats per token: gain over the best dense, and its range over "
            "the 95\u00a0% intervals of both losses"
        )
        title = f"{title}\n{note}" if title else note
        return paper.close(title, axes, handles, height)


def _words(one: Cell) -> str:
    """The text of a cell: gain and interval."""
    if not one.winner:
        return "none"
    if one.gain is None:
        return "no dense"
    if one.low == one.high:
        return f"{one.gain:.2f}x"
    low = f"{one.low:.2f}" if one.low > 0 else "?"
    high = f"{one.high:.2f}" if math.isfinite(one.high) else "?"
    return f"{one.gain:.2f}x\n{low} – {high}"
