"""Hypervolume over trials: how fast studies find what an exact sweep finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.charts.labels import label
from dse.charts.sheet import sheet
from dse.charts.style import colours, shade
from dse.errors import BadInput
from dse.search.front import hypervolume, nondominated

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_STROKES: Final[tuple[Any, ...]] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Growth:
    """What one study had found after each of its trials.

    Attributes:
        at: [trials], number of the trial or seconds since the first began. volume: [trials], hypervolume so far.
    """

    name: str
    at: tuple[float, ...]
    volume: tuple[float, ...]


def costs_of(table: pd.DataFrame, objectives: Mapping[str, bool]) -> FloatArray:
    """[rows, objectives] with what is maximised negated, so that smaller is better."""
    return np.column_stack(
        [table[name].to_numpy(dtype=np.float64) * (-1.0 if up else 1.0) for name, up in objectives.items()]
    )


def growth(costs: FloatArray, counts: NDArray[np.bool_], reference: Sequence[float]) -> FloatArray:
    """[n] hypervolume of the first 1, 2, ... n rows.

    Args:
        costs: [n, objectives], in the order they were tried.
        counts: [n], whether a row keeps the constraints; others add nothing.
        reference: worst costs that count.
    """
    front = np.empty((0, costs.shape[1]))
    volumes = np.zeros(len(costs))
    volume = 0.0
    for i, row in enumerate(costs):
        useful = counts[i] and np.isfinite(row).all() and (row < reference).all()
        # What an earlier point equals or beats adds nothing.
        if useful and not (front <= row).all(axis=1).any():
            front = np.vstack([front, row])
            front = front[nondominated(front)]
            # The sum is formed anew each time: its last bits may fall, what was found does not.
            volume = max(volume, hypervolume(front, list(reference)))
        volumes[i] = volume
    return volumes


def hypervolume_figure(
    studies: Sequence[Growth],
    exact: Mapping[str, float],
    reference: Mapping[str, float],
    x: str = "trials",
    title: str = "",
    width: float | None = None,
) -> Figure:
    """A line per study; the hypervolume of exact fronts as levels.

    Args:
        exact: name of a sweep -> hypervolume of its front from the same reference point.
        reference: objective -> worst value that counts, in the units of `front.csv`.
        x: ``trials`` or ``seconds``, what `Growth.at` holds.

    Raises:
        BadInput: no study.
    """
    if not studies:
        raise BadInput("nothing to draw: no study among the runs; `dse study` makes one")
    from matplotlib.lines import Line2D

    with sheet(width) as paper:
        wide = paper.wide
        axes = paper.axes()
        handles: list[Any] = []
        inks = colours()
        best = max(exact.values(), default=0.0)
        last = max(one.at[-1] for one in studies)
        for number, one in enumerate(studies):
            kind: Any = {
                "color": inks[number % len(inks)],
                "linestyle": _STROKES[number // len(inks) % len(_STROKES)],
            }
            # Between two trials nothing is found: the line stays level, and after the last one too.
            axes.plot(
                [*one.at, last], [*one.volume, one.volume[-1]], drawstyle="steps-post", zorder=3, **kind
            )
            axes.plot([one.at[-1]], [one.volume[-1]], marker="o", markersize=3.5 * wide, zorder=4, **kind)
            text = f"{one.name}: {len(one.at):,} trials, {one.volume[-1]:.4g}"
            if best:
                text += f", {one.volume[-1] / best:.1%} of the exact front"
            handles.append(Line2D([], [], label=text, marker="o", markersize=3.5 * wide, **kind))
        for number, (name, volume) in enumerate(exact.items()):
            level: Any = {
                "color": shade(0.0), "linewidth": 0.9 * wide, "linestyle": _STROKES[1 + number % (len(_STROKES) - 1)],
            }  # fmt: skip
            axes.axhline(volume, zorder=2, **level)
            handles.append(Line2D([], [], label=f"exact front of {name}: {volume:.4g}", **level))
        words = ", ".join(
            f"{label(m).title} {v * label(m).scale:.3g} {label(m).unit}".rstrip()
            for m, v in reference.items()
        )
        handles.append(Line2D([], [], linestyle="none", label=f"reference point: {words}"))
        axes.set_ylim(0, 1.06 * max(best, *(one.volume[-1] for one in studies)) or 1.0)
        axes.set_xlim(0, last * 1.02 or 1.0)
        axes.set_xlabel("completed trials" if x == "trials" else "time since the first trial began (s)")
        units = " · ".join(label(m).unit or "1" for m in reference)
        axes.set_ylabel(f"hypervolume ({units})")
        return paper.close(title, axes, handles)
