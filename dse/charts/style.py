"""How every chart looks and is saved: sizes, colours, and files that are the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dse.errors import BadInput, nearest
from dse.outputs import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN_INCHES: Final = 3.5
"""Width of one column of a two-column paper."""

PAGE_INCHES: Final = 7.16
"""Width of both columns."""


@dataclass(frozen=True)
class Style:
    """Where a chart will be seen.

    Attributes:
        width, page: inches of a chart that needs one column, and of one that needs the page.
        font: points of the text; everything else follows from it.
        dark: light on dark.
    """

    name: str
    width: float = COLUMN_INCHES
    page: float = PAGE_INCHES
    font: float = 7.0
    dark: bool = False

    @property
    def scale(self) -> float:
        """Size of the text over that of a paper."""
        return self.font / 7.0


STYLES: Final[dict[str, Style]] = {
    style.name: style
    for style in (
        Style("paper"),
        # Stretched to a slide of 13.3 inches the text has 21 points.
        Style("slide", width=6.4, page=8.0, font=10.0),
        Style("dark", width=6.4, page=8.0, font=10.0, dark=True),
    )
}

_current: ContextVar[Style] = ContextVar("style", default=STYLES["paper"])

RIVAL: Final = "dense"
"""The algorithm all others must beat: drawn in black, under the others."""

# Okabe and Ito, "Color Universal Design" (2008): colours that stay apart for every kind of colour vision.
# Yellow is left out (too faint on white); black is the rival's.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
# The same hues, lighter, for a dark ground.
_LIGHT: Final = ("#5AA9E6", "#F58A4B", "#3FC79A", "#E59BCB", "#A9DCF7", "#F2C14E", "#A6A6A6")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "<", ">")

# Algorithms in the order they entered the tool, so that one keeps its colour from chart to chart.
_ORDER: Final = ("token-picker", "spatten", "top-theta", "mnnfast", "a3", "adore")

FORMATS: Final = ("png", "svg", "pdf")

_METADATA: Final[Mapping[str, Mapping[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

_GROUND: Final = 0.09
"""Lightness of a dark ground."""


def style() -> Style:
    """The style that is drawn in."""
    return _current.get()


def shade(level: float) -> str:
    """A grey for matplotlib, 0 the ink and 1 the ground, whichever of them is dark."""
    return f"{level if not style().dark else 0.96 - (0.96 - _GROUND) * level:.3f}"


def small() -> float:
    """Points of the smallest text."""
    return 6.5 * style().scale


def _rc(chosen: Style) -> dict[str, Any]:
    points, wide = chosen.font, chosen.scale
    settings: dict[str, Any] = {
        "font.family": "DejaVu Sans",  # ships with matplotlib: the same text on every machine
        "font.size": points,
        "axes.titlesize": points,
        "axes.labelsize": points,
        "xtick.labelsize": 6.5 * wide,
        "ytick.labelsize": 6.5 * wide,
        "legend.fontsize": 6.5 * wide,
        "axes.linewidth": 0.6 * wide,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.1 * wide,
        "lines.markersize": 4 * wide,
        "xtick.major.width": 0.6 * wide,
        "ytick.major.width": 0.6 * wide,
        "savefig.dpi": 300,
        "hatch.linewidth": 0.5 * wide,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "dse",
        "pdf.fonttype": 42,
    }
    if chosen.dark:
        ground, ink = f"{_GROUND}", "0.93"
        settings |= dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), ground)
        settings |= dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink
        )
    return settings


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each algorithm; no two algorithms share both.

    Known algorithms keep theirs in every chart; others take what is left, in alphabetical order.
    """
    wanted = sorted(set(names) - {RIVAL})
    order = [*_ORDER, *(name for name in wanted if name not in _ORDER)]
    inks = colours()
    result = {
        name: (inks[i % len(inks)], _MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(order)
        if name in wanted
    }
    result[RIVAL] = ("#000000" if not style().dark else "#FFFFFF", "x")
    return result


def colours() -> tuple[str, ...]:
    """Colours that stay apart for every kind of colour vision, on the ground of this style."""
    return _LIGHT if style().dark else _COLOURS


def _quietly_without_display() -> None:
    """Draw without a display, and keep matplotlib's chatter about caches off the terminal."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # first: it speaks while it loads

    import matplotlib

    matplotlib.use("Agg")


@contextmanager
def styled(chosen: str | Style | None = None) -> Iterator[Style]:
    """Draw in a style (default: the one around, else paper), whatever the user's own matplotlib settings say.

    Raises:
        BadInput: no such style.
    """
    _quietly_without_display()
    import matplotlib

    if isinstance(chosen, str):
        if chosen not in STYLES:
            raise BadInput(f"style: found {chosen!r}; {nearest(chosen, STYLES)}")
        chosen = STYLES[chosen]
    found = chosen or style()
    settings: Any = {**matplotlib.rcParamsDefault, **_rc(found)}
    settings.pop("backend", None)
    token = _current.set(found)
    try:
        with matplotlib.rc_context(settings):
            yield found
    finally:
        _current.reset(token)


def chart_format(path: Path) -> str:
    """The format a file name asks for.

    Raises:
        BadInput: the suffix is none of `FORMATS`.
    """
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        found = f"suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise BadInput(f"{path}: {found}; a chart is one of .png, .svg, .pdf ({nearest(suffix, FORMATS)})")
    return suffix


def save(figure: Figure, path: Path) -> Path:
    """Write `figure`, replacing the file whole; the same chart gives the same bytes (no dates, fixed ids).

    Raises:
        BadInput: unknown suffix, or the place cannot be written.
    """
    form = chart_format(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file, styled():
            figure.savefig(file, format=form, metadata=dict(_METADATA[form]))
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    return path
