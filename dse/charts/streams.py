"""DRAM efficiency against the fraction of rows kept: every stream of every point, and rows kept at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.sheet import sheet
from dse.charts.style import RIVAL, looks, shade
from dse.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TURNS: Final[tuple[Any, ...]] = ((0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), "-")
LEAST: Final = 1e-3
"""Fractions kept below this are not drawn."""


@dataclass(frozen=True)
class Stream:
    """Rows of one kind that a point fetches.

    Attributes:
        what: ``K chunk 1``, ``V``. kept: rows over visible tokens, in prefill those of each tile. efficiency: of the peak bandwidth.
    """

    algorithm: str
    what: str
    kept: float
    efficiency: float


def streams_figure(
    streams: Sequence[Stream],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    width: float | None = None,
) -> Figure:
    """Efficiency over kept fraction.

    Args:
        streams: one mark each: filled for values, hollow for chunks of keys.
        curves: name in the legend -> (kept fractions, efficiencies), drawn as lines.

    Raises:
        BadInput: neither streams nor curves.
    """
    if not streams and not curves:
        raise BadInput("nothing to draw: no point fetches a part of its rows")
    from matplotlib.lines import Line2D

    with sheet(width) as paper:
        wide = paper.wide
        axes = paper.axes()
        look = looks(s.algorithm for s in streams)
        handles: list[Any] = []
        for number, (name, (kept, efficiency)) in enumerate(curves.items()):
            line: Any = {
                "color": shade(0.35),
                "linestyle": _TURNS[number % len(_TURNS)],
                "linewidth": 0.9 * wide,
            }
            axes.plot(kept, [100 * e for e in efficiency], zorder=2, **line)
            handles.append(Line2D([], [], label=name, **line))
        for name in sorted({s.algorithm for s in streams}, key=lambda n: (n != RIVAL, n)):
            ink, marker = look[name]
            marker = "X" if marker == "x" else marker  # one that can be hollow
            kind: Any = {
                "marker": marker, "markersize": 3.6 * wide, "markeredgecolor": ink,
                "markeredgewidth": 0.7 * wide, "linestyle": "none",
            }  # fmt: skip
            for values in (True, False):
                mine = [
                    s
                    for s in streams
                    if s.algorithm == name and (s.what == "V") == values and s.kept >= LEAST
                ]
                face = ink if values else "none"
                axes.plot(
                    [s.kept for s in mine], [100 * s.efficiency for s in mine], zorder=3, alpha=0.85,
                    markerfacecolor=face, **kind,
                )  # fmt: skip
            handles.append(Line2D([], [], label=name, markerfacecolor=ink, **kind))
        for face, text in ((shade(0.35), "filled: values"), ("none", "hollow: chunks of keys")):
            marks: Any = {
                "marker": "o",
                "markersize": 3.6 * wide,
                "markerfacecolor": face,
                "linestyle": "none",
            }
            handles.append(Line2D([], [], label=text, markeredgecolor=shade(0.35), **marks))
        axes.set_xscale("log")
        axes.set_ylim(0, 100)
        low = min(
            [s.kept for s in streams if s.kept >= LEAST] + [k for kept, _ in curves.values() for k in kept]
        )
        axes.set_xlim(low / 1.3, 1.3)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("rows fetched / visible tokens")
        axes.set_ylabel("of the peak bandwidth (%)")
        return paper.close(title, axes, handles)
