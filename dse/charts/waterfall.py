"""Waterfall: where a published gain goes, one honest step after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dse.charts.sheet import LETTER_INCHES, sheet, wrapped
from dse.charts.style import colours, shade, small
from dse.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS: Final = 27
"""Letters of a line beside the bars."""


@dataclass(frozen=True)
class Step:
    """One bar.

    Attributes:
        name: what is compared. gain: ratio, 1 is no gain. note: what the number rests on.
    """

    name: str
    gain: float
    note: str = ""


def waterfall_figure(steps: Sequence[Step], title: str = "", width: float | None = None) -> Figure:
    """Horizontal bars of gains; between two of them, what the step multiplied the gain by.

    Raises:
        BadInput: fewer than two steps.
    """
    if len(steps) < 2:
        raise BadInput("nothing to draw: a waterfall has at least two steps")
    with sheet(width) as paper:
        wide = paper.wide
        names = [wrapped(s.name + (f"\n{s.note}" if s.note else ""), LETTERS) for s in steps]
        lines = [name.count("\n") + 1 for name in names]
        axes = paper.axes()
        inks = colours()
        gain, loss = inks[0], inks[1]
        places, at = [], 0.0
        for count in lines:
            at += max(1.0, 0.42 * count + 0.25) / 2
            places.append(at)
            at += max(1.0, 0.42 * count + 0.25) / 2
        for i, (step, place) in enumerate(zip(steps, places, strict=True)):
            before = step.gain if i == 0 else steps[i - 1].gain
            ink = shade(0.5) if i == 0 else gain if step.gain >= before else loss
            axes.barh([place], [step.gain], height=0.5, color=shade(0.72) if i else ink, zorder=2)
            if i:
                low, high = sorted((before, step.gain))
                # What this step took or added, in its own colour.
                axes.barh([place], [high - low], left=[low], height=0.5, color=ink, alpha=0.75, zorder=3)
                axes.plot([before, before], [places[i - 1] + 0.25, place - 0.25], color=shade(0.4),
                          linewidth=0.5 * wide, zorder=1)  # fmt: skip
            text = f"{step.gain:.2f}x" + ("" if i == 0 else f"  (×{step.gain / before:.2f})")
            axes.annotate(
                text, (max(step.gain, before), place), xytext=(2 * wide, 0), textcoords="offset points",
                va="center", ha="left", fontsize=small(), color=shade(0.0),
            )  # fmt: skip
        axes.axvline(1.0, color=shade(0.0), linewidth=0.7 * wide, linestyle=(0, (2, 2)), zorder=4)
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(at + 0.1, -0.1)
        beside = max(len(line) for name in names for line in name.splitlines()) * LETTER_INCHES * wide
        # Room for the numbers behind the longest bar.
        share = min(0.6, 14 * LETTER_INCHES * wide / max(0.8, paper.width - beside))
        axes.set_xlim(0, max(s.gain for s in steps) / (1 - share))
        axes.set_xlabel("gain (x)")
        title = paper.title(title)
        paper.figure.set_size_inches(
            paper.width, (0.27 * at + 0.45 + 0.14 * (title.count("\n") + 1 if title else 0)) * wide
        )
        return paper.figure
