"""Text tables that fit: pick columns by priority, align numbers, never leave wrapping to the terminal.

A column says how it prints and how much it is wanted. Where the width does not hold all of them, the least
wanted go first, and the caller is told which, so that it can say so.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GAP = "  "
MISSING = "-"


def significant(value: Any, digits: int = 3) -> str:
    """`value` with `digits` significant digits, without an exponent between 1e-4 and 1e6.

    >>> significant(1234.5), significant(0.012345), significant(2.0), significant(3e-7)
    ('1234', '0.0123', '2.00', '3.00e-7')
    """
    if value is None or value == "":
        return MISSING
    if isinstance(value, (bool, str)):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return MISSING
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    if number == 0:
        return "0"
    if not 1e-4 <= abs(number) < 1e6:
        mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    # Round first: 9.996 has one digit before the point until it is rounded to 10.0.
    rounded = float(f"{number:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{number:.{decimals}f}"


def fixed(decimals: int) -> Callable[[Any], str]:
    """A formatter with a fixed number of decimals, so that points line up and differences show."""

    def text(value: Any) -> str:
        if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
            return MISSING
        return f"{float(value):.{decimals}f}"

    return text


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: entry of a row it shows.
        title: first header line.
        unit: second header line.
        text: how a value prints.
        left: align left (words) instead of right (numbers).
        priority: 0 always stays; of the others the largest goes first.
        shrink_to: a column of words may be made narrower, down to this width (0: never).
        wrap: words that do not fit go on below, in the last column only; else they end in an ellipsis.
    """

    key: str
    title: str
    unit: str = ""
    text: Callable[[Any], str] = significant
    left: bool = False
    priority: int = 0
    shrink_to: int = 0
    wrap: bool = False


@dataclass(frozen=True)
class Table:
    """What was laid out: `lines[:headers]` are the header, then a line per row (more where words wrap).

    `omitted` names the columns that did not fit.
    """

    lines: list[str]
    headers: int
    omitted: list[str] = field(default_factory=list)


def layout(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], width: int) -> Table:
    """Lay `rows` out in at most `width` characters a line (columns of priority 0 stay whatever happens)."""
    cells = {c.key: [c.text(row.get(c.key)) for row in rows] for c in columns}
    kept = [
        c for c in columns if not rows or any(text != MISSING for text in cells[c.key]) or c.priority == 0
    ]
    natural = {c.key: max([len(c.title), len(c.unit), *map(len, cells[c.key])]) for c in kept}
    omitted: list[str] = []

    def least() -> int:
        floor = (
            min(natural[c.key], max(c.shrink_to, len(c.title))) if c.shrink_to else natural[c.key]
            for c in kept
        )
        return sum(floor) + len(GAP) * (len(kept) - 1)

    while least() > width and any(c.priority for c in kept):
        victim = max(reversed(kept), key=lambda c: c.priority)
        kept.remove(victim)
        omitted.append(victim.key)

    widths = dict(natural)
    spare = width - len(GAP) * (len(kept) - 1) - sum(natural[c.key] for c in kept)
    for c in sorted((c for c in kept if c.shrink_to), key=lambda c: -natural[c.key]):
        if spare >= 0:
            break
        widths[c.key] = max(min(natural[c.key], max(c.shrink_to, len(c.title))), natural[c.key] + spare)
        spare += natural[c.key] - widths[c.key]

    def line(texts: Sequence[str]) -> str:
        placed = (
            _cut(text, widths[c.key]).ljust(widths[c.key]) if c.left else text.rjust(widths[c.key])
            for c, text in zip(kept, texts, strict=True)
        )
        return GAP.join(placed).rstrip()

    lines = [line([c.title for c in kept])]
    if any(c.unit for c in kept):
        lines.append(line([c.unit for c in kept]))
    headers = len(lines)
    for i in range(len(rows)):
        texts = [cells[c.key][i] for c in kept]
        more: list[str] = []
        if kept and kept[-1].wrap and len(texts[-1]) > widths[kept[-1].key]:
            texts[-1], *more = textwrap.wrap(texts[-1], widths[kept[-1].key])
        lines.append(line(texts))
        indent = sum(widths[c.key] + len(GAP) for c in kept[:-1])
        lines += [" " * indent + text for text in more]
    return Table(lines, headers, omitted)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
