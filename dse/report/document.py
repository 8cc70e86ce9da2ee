"""The page as one HTML file: its parts put in place, nothing in it that a browser would fetch or run unasked."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from dse.errors import BadInput

SUFFIXES: Final = (".html", ".htm")
GENERATOR: Final = "dse report"
"""What a page of ours calls its maker; only such a file is replaced unasked."""

_MARK: Final = f'<meta name="generator" content="{GENERATOR}">'
_HEAD: Final = 4096
"""Bytes of a file in which the mark must lie."""

SCRIPTS: Final = ("data", "scale", "chart", "theme", "filters", "detail", "tables", "main")
"""Our scripts in the order they run."""


def render(data: Mapping[str, Any], title: str) -> str:
    """The page.

    Args:
        data: plain values, see `dse.report.content`.
        title: of the window.
    """
    scripts = [*charting(), *(_part(f"{name}.js") for name in SCRIPTS)]
    policy = "; ".join((
        "default-src 'none'",  # nothing is fetched
        "script-src " + " ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        "style-src 'unsafe-inline'",  # the chart styles its own elements
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ))  # fmt: skip
    parts = {
        "generator": _MARK,
        "policy": policy,
        "title": html.escape(title),
        "style": _part("page.css"),
        "data": embedded(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # One pass: what is put in is not searched again.
    return re.sub(r"@@(\w+)@@", lambda match: parts[match[1]], _part("page.html"))


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in, nor begin another."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def charting() -> tuple[str, ...]:
    """The scripts of the charting library, as it ships them."""
    from bokeh.resources import Resources

    library = Resources(
        mode="inline", components=["bokeh", "bokeh-gl", "bokeh-api"], minified=True, log_level="error"
    )
    # "<!--" and "</script" would end an element early; the library writes no such thing, and none may slip in.
    return tuple(
        re.sub(r"<(?=!--|/?script)", r"\\x3c", script, flags=re.IGNORECASE) for script in library.js_raw
    )


def library_version() -> str:
    """Name and version of the charting library."""
    import bokeh

    return f"Bokeh {bokeh.__version__}"


@cache
def _part(name: str) -> str:
    return (resources.files("dse.report") / "page" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def check_output(path: Path, replace: bool = False) -> None:
    """Raise BadInput unless a report may be written to a file there; writes nothing.

    Whether a file may be written there at all is the command line's to check (`dse.cli.places.check_file`).
    """
    if path.suffix.lower() not in SUFFIXES:
        found = f"suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise BadInput(f"{path}: {found}; a report is one of {', '.join(SUFFIXES)}")
    if path.exists() and not replace and not is_report(path):
        raise BadInput(
            f"{path}: is no report of dse; nothing was overwritten, choose another file with --output, or --replace it"
        )


def is_report(path: Path) -> bool:
    """Whether a file is a page of ours."""
    try:
        with path.open("rb") as file:
            return _MARK.encode("ascii") in file.read(_HEAD)
    except OSError:
        return False


def write(path: Path, page: str) -> None:
    """Write a page whole or not at all.

    Raises:
        BadInput: the place cannot be written.
    """
    from dse.results import write_text

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
