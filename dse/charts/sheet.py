"""What all charts share: a figure in the style around, a title that fits it, and a legend under everything."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.style import Style, style, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER_INCHES: Final = 0.052
"""Mean width of a letter in a legend on paper."""

LINE_INCHES: Final = 0.145
"""Height of a line of a legend on paper."""

TITLE_LETTERS: Final = 14
"""Letters of a title per inch of paper."""

PAGE_LETTERS: Final = 17
"""The same where the title begins at the edge of the figure instead of the plot's."""

PLOT_SHARE: Final = 0.66
"""Height of a plot over its width, ..."""

PLOT_INCHES: Final = 3.4
"""... but at most this on paper, however wide."""


@dataclass(frozen=True)
class Sheet:
    """A figure that is being drawn.

    Attributes:
        width: inches. style: that it is drawn in.
    """

    figure: Figure
    width: float
    style: Style

    @property
    def wide(self) -> float:
        """Size of text and lines over those of a paper."""
        return self.style.scale

    def axes(self) -> Axes:
        """The only plot."""
        return self.figure.add_subplot()

    def title(self, text: str, over: Axes | None = None, pad: float = 4) -> str:
        """Put a title over a plot, or over the whole figure; returns it in lines that fit."""
        letters = TITLE_LETTERS if over is not None else PAGE_LETTERS
        text = wrapped(text, int(letters * self.width / self.wide))
        if over is not None:
            over.set_title(text, loc="left", pad=pad * self.wide)
        elif text:
            self.figure.suptitle(text, x=0.01, ha="left", fontsize=self.style.font)
        return text

    def close(
        self, title: str, over: Axes, handles: Sequence[Any], height: float | None = None, pad: float = 4
    ) -> Figure:
        """Title and legend of a chart whose plots are drawn; the figure then has its size.

        Args:
            height: inches on paper of the figure without title and legend; default: by its width.
        """
        title = self.title(title, over, pad)
        usual = min(PLOT_SHARE * self.width, PLOT_INCHES * self.wide)
        legend_below(self.figure, handles, usual if height is None else height * self.wide, title)
        return self.figure


@contextmanager
def sheet(width: float | None = None, page: bool = False) -> Iterator[Sheet]:
    """A new figure, drawn in the style around.

    Args:
        width: inches; default: one column, or with `page` both.
    """
    with styled() as chosen:
        from matplotlib.figure import Figure

        width = width or (chosen.page if page else chosen.width)
        yield Sheet(Figure(figsize=(width, width), layout="constrained"), width, chosen)


def legend_below(figure: Figure, handles: Sequence[Any], height: float, title: str = "") -> None:
    """Put a legend under everything, in as many columns as fit; the figure grows so that plots keep their shape.

    Args:
        height: inches of the figure without legend and title.
        title: what stands over the plots, for the room it takes.
    """
    scale = style().scale
    width = figure.get_size_inches()[0]
    letter, line = LETTER_INCHES * scale, LINE_INCHES * scale
    for handle in handles:
        handle.set_label(wrapped(str(handle.get_label()), int((width - 0.5 * scale) / letter)))
    labels = [str(handle.get_label()).splitlines() for handle in handles]
    rows = 0
    if labels:
        longest = max(len(words) for lines in labels for words in lines)
        across = min(4, max(1, int(width / (longest * letter + 0.45 * scale))))
        rows = math.ceil(sum(map(len, labels)) / across)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=across, frameon=False, handlelength=2.4,
            columnspacing=1.2,
        )  # fmt: skip
    above = 0.14 * scale * (title.count("\n") if title else 0)
    figure.set_size_inches(width, height + above + line * rows)


def wrapped(text: str, letters: int) -> str:
    """Every line of `text` in lines of at most so many letters."""
    return "\n".join(textwrap.fill(line, letters) for line in text.splitlines())
