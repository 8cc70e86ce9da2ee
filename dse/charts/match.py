"""Algorithms at equal accuracy: what each gains over dense within a budget, and whether it kept to the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dse.charts.sheet import sheet
from dse.charts.style import RIVAL, looks, shade, small, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dse.search.match import Judged, Match

HEIGHT_INCHES: Final = 4.6
"""On paper, without title and legend."""

_SPREAD: Final = 0.9
"""Share of a budget's stretch of the axis that its algorithms are spread over."""

_LOSS_TOP: Final = 4.0
"""Losses beyond so many budgets are drawn at the edge."""


def match_figure(match: Match, title: str, width: float | None = None) -> Figure:
    """Two panels over the budgets: speedup over dense at the same budget, and loss on the confirmation text.

    Every algorithm has its colour, marker and place beside each budget; hollow marks are oracles. Bars are 95 %
    intervals. Letters over the losses: algorithms that share one cannot be told apart.
    """
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(row.pick.algorithm for row in match.rows))
    names.sort(key=lambda n: (n != RIVAL, _oracle(match, n), n))
    with sheet(width, page=True) as paper:
        wide = paper.wide
        look = looks(names)
        above, below = paper.figure.subplots(2, 1, sharex=True)
        _panel(above, match, names, look, _gain)
        _panel(below, match, names, look, _loss)
        above.axhline(1, color=shade(0.55), linewidth=0.6 * wide, zorder=1)
        above.set_ylabel("speedup over dense\nat the same budget (x)")
        below.axhline(1, color=shade(0.55), linewidth=0.6 * wide, linestyle=(0, (1, 2)), zorder=1)
        below.set_ylabel("loss on the confirmation\ntext, in budgets")
        low, high = below.get_ylim()
        below.set_ylim(max(low, -1.0), min(high, _LOSS_TOP) * 1.05)
        _letters(below, match, names)
        for axes in (above, below):
            axes.set_xlim(-0.5, len(match.budgets) - 0.5)
            for edge in range(1, len(match.budgets)):
                axes.axvline(edge - 0.5, color=shade(0.9), linewidth=0.6 * wide, zorder=0)
        below.set_xticks(range(len(match.budgets)), [f"{b:g}" for b in match.budgets])
        below.set_xlabel("accuracy budget (nats per token)")
        handles = []
        for name in names:
            ink, marker = look[name]
            oracle = _oracle(match, name)
            text = f"{name} (the rival)" if name == RIVAL else f"{name} (oracle)" if oracle else name
            face = shade(1.0) if oracle else ink
            kind: Any = {"marker": marker, "markersize": 4 * wide, "linestyle": "none"}
            handles.append(Line2D([], [], color=ink, label=text, markerfacecolor=face, **kind))
        handles.append(
            Line2D([], [], color=shade(0.3), linewidth=0.7 * wide, label="bars: 95\u00a0% intervals")
        )
        handles.append(Line2D([], [], linestyle="none", label="same letter: losses alike"))
        return paper.close(title, above, handles, HEIGHT_INCHES)


def _oracle(match: Match, name: str) -> bool:
    return all(row.pick.oracle for row in match.rows if row.pick.algorithm == name)


def _place(match: Match, names: list[str], row: Judged) -> float:
    step = _SPREAD / max(1, len(names) - 1)
    offset = names.index(row.pick.algorithm) * step - _SPREAD / 2 if len(names) > 1 else 0.0
    return match.budgets.index(row.pick.budget) + offset


def _gain(row: Judged) -> tuple[float, float, float]:
    return row.gain, row.gain, row.gain


def _loss(row: Judged) -> tuple[float, float, float]:
    mean, low, high = (value / row.pick.budget for value in row.loss)
    return mean, low, high


def _panel(axes: Axes, match: Match, names: list[str], look: dict[str, tuple[str, str]], value: Any) -> None:
    wide = style().scale
    for row in match.rows:
        mean, low, high = value(row)
        if mean != mean:
            continue
        ink, marker = look[row.pick.algorithm]
        x = _place(match, names, row)
        if high > low:
            axes.plot(
                [x, x], [low, min(high, 2 * _LOSS_TOP)], color=ink, linewidth=0.7 * wide, alpha=0.7, zorder=2
            )
        drawn = min(mean, _LOSS_TOP) if value is _loss else mean
        face = shade(1.0) if row.pick.oracle else ink
        axes.plot(
            [x], [drawn], marker=marker, markersize=4.5 * wide, markerfacecolor=face, markeredgecolor=ink,
            markeredgewidth=(1.0 if marker == "x" else 0.6) * wide, linestyle="none", zorder=3,
        )  # fmt: skip


def _letters(axes: Axes, match: Match, names: list[str]) -> None:
    for row in match.rows:
        axes.text(
            _place(match, names, row), 1.02, row.letters, ha="center", va="bottom", fontsize=0.93 * small(),
            color=shade(0.3), rotation=90, transform=axes.get_xaxis_transform(),
        )  # fmt: skip
