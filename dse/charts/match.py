"""Algorithms at equal accuracy: what each gains over dense within a budget, and whether it kept to the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dse.charts.style import RIVAL, looks, styled, use_agg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dse.search.match import Judged, Match

WIDTH_INCHES: Final = 7.16
"""Two columns of a paper."""

_SPREAD: Final = 0.9
"""Share of a budget's stretch of the axis that its algorithms are spread over."""

_LOSS_TOP: Final = 4.0
"""Losses beyond so many budgets are drawn at the edge."""


def match_figure(match: Match, title: str, width: float = WIDTH_INCHES) -> Figure:
    """Two panels over the budgets: speedup over dense at the same budget, and loss on the confirmation text.

    Every algorithm has its colour, marker and place beside each budget; hollow marks are oracles. Bars are 95 %
    intervals. Letters over the losses: algorithms that share one cannot be told apart.
    """
    use_agg()
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(row.pick.algorithm for row in match.rows))
    names.sort(key=lambda n: (n != RIVAL, _oracle(match, n), n))
    look = looks(names)
    across = 5
    lines = -(-len(names) // across)
    with styled():
        figure = Figure(figsize=(width, 2.75 + 0.16 * lines + 0.12 * title.count("\n")), layout="constrained")
        left, right = figure.subplots(1, 2)
        _panel(left, match, names, look, _gain)
        _panel(right, match, names, look, _loss)
        left.axhline(1, color="0.55", linewidth=0.6, zorder=1)
        left.set_ylabel("speedup over dense at the same budget (x)")
        right.axhline(1, color="0.55", linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
        right.set_ylabel("loss on the confirmation text, in budgets")
        right.set_title(
            "bars: 95 % intervals; same letter: losses alike", loc="left", pad=3, color="0.3", fontsize=6.5
        )
        low, high = right.get_ylim()
        right.set_ylim(max(low, -1.0), min(high, _LOSS_TOP) * 1.12)
        _letters(right, match, names, min(high, _LOSS_TOP))
        for axes in (left, right):
            axes.set_xticks(range(len(match.budgets)), [f"{b:g}" for b in match.budgets])
            axes.set_xlim(-0.5, len(match.budgets) - 0.5)
            axes.set_xlabel("accuracy budget (nats per token)")
            for edge in range(1, len(match.budgets)):
                axes.axvline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
        figure.suptitle(title, x=0.01, ha="left", fontsize=7)
        handles = []
        for name in names:
            ink, marker = look[name]
            oracle = _oracle(match, name)
            text = f"{name} (the rival)" if name == RIVAL else f"{name} (oracle)" if oracle else name
            face = "white" if oracle else ink
            style: Any = {"marker": marker, "markersize": 4, "linestyle": "none", "markerfacecolor": face}
            handles.append(Line2D([], [], color=ink, label=text, **style))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(across, len(names)), frameon=False
        )
    return figure


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
    for row in match.rows:
        mean, low, high = value(row)
        if mean != mean:
            continue
        ink, marker = look[row.pick.algorithm]
        x = _place(match, names, row)
        if high > low:
            axes.plot([x, x], [low, min(high, 2 * _LOSS_TOP)], color=ink, linewidth=0.7, alpha=0.7, zorder=2)
        drawn = min(mean, _LOSS_TOP) if value is _loss else mean
        face = "white" if row.pick.oracle else ink
        axes.plot(
            [x], [drawn], marker=marker, markersize=4.5, markerfacecolor=face, markeredgecolor=ink,
            markeredgewidth=1.0 if marker == "x" else 0.6, linestyle="none", zorder=3,
        )  # fmt: skip


def _letters(axes: Axes, match: Match, names: list[str], top: float) -> None:
    for row in match.rows:
        axes.text(
            _place(match, names, row), top * 1.115, row.letters, ha="center", va="top", fontsize=4.2, color="0.3",
            rotation=90,
        )  # fmt: skip
