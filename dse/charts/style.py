"""How every chart looks and is saved: sizes, colours, and files that are the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN_INCHES: Final = 3.5
"""Width of one column of a two-column paper."""

RIVAL: Final = "dense"
"""The algorithm all others must beat: drawn in black, under the others."""

# Okabe and Ito, "Color Universal Design" (2008): colours that stay apart for every kind of colour vision.
# Yellow is left out (too faint on white); black is the rival's.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "<", ">")

# Algorithms in the order they entered the tool, so that one keeps its colour from chart to chart.
_ORDER: Final = ("token-picker", "spatten", "top-theta", "mnnfast", "a3", "adore")

FORMATS: Final = ("png", "svg", "pdf")

_METADATA: Final[Mapping[str, Mapping[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

_RC: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same text on every machine
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "savefig.dpi": 300,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dse",
    "pdf.fonttype": 42,
}


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each algorithm; no two algorithms share both.

    Known algorithms keep theirs in every chart; others take what is left, in alphabetical order.
    """
    wanted = sorted(set(names) - {RIVAL})
    order = [*_ORDER, *(name for name in wanted if name not in _ORDER)]
    result = {
        name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(order)
        if name in wanted
    }
    result[RIVAL] = ("#000000", "x")
    return result


def use_agg() -> None:
    """Draw without a display, and keep matplotlib's chatter about caches off the terminal."""
    import logging

    import matplotlib

    matplotlib.use("Agg")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def styled() -> AbstractContextManager[None]:
    """Draw and save in this style, whatever the user's own matplotlib settings say."""
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault, **_RC}
    settings.pop("backend", None)
    return matplotlib.rc_context(settings)


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
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with styled():
            figure.savefig(part, format=form, metadata=dict(_METADATA[form]))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
        raise BadInput(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    return path
