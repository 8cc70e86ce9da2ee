"""A front as text: which rows, which columns, and how each prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dse.charts.findings import abbreviations, short_knobs, varying
from dse.charts.labels import brief, label
from dse.cli.environment import Environment
from dse.cli.table import Column, fixed, layout, significant

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_ROWS: Final = 30

_times = fixed(2)


def _loss(value: Any) -> str:
    """`(mean, low, high)` as `0.0123 ±0.0021`; four decimals resolve a quarter of the smallest budget."""
    mean, low, high = value
    if mean != mean:
        return "-"
    if low != low or high != high:
        return f"{mean:.4f}"
    return f"{mean:.4f} ±{max(high - mean, mean - low):.4f}"


def _against_dense(value: Any) -> str:
    """`(speedup, as accurate)`; a star where no dense point is as accurate as this one."""
    speedup, as_accurate = value
    return _times(speedup) + ("" if as_accurate or speedup != speedup else "*")


_WIDE: Final = 130
"""Below this width knobs go by their shortest names, explained under the table."""

_COLUMNS: Final = (
    Column("point", "point", text=str, left=True, priority=6),
    Column("algorithm", "algorithm", text=str, left=True),
    Column("best", "vs best", "dense x", text=_against_dense),
    Column("speedup", "speedup", "x", text=_times),
    Column("speedup_end_to_end", "end to", "end x", text=_times, priority=7),
    Column("loss", "accuracy loss", "nats/token", text=_loss),
    Column("perplexity", "ppl", text=significant, priority=4),
    Column("energy_saving", "energy", "x less", text=_times, priority=2),
    Column("area_mm2", "area", "mm²", text=significant, priority=1),
    Column("bound", "bound", text=str, left=True, priority=3),
    Column("knobs", "knobs", text=str, left=True, shrink_to=12),
    Column("hardware", "hardware", text=str, left=True, shrink_to=20, priority=8),
    Column("latency_s", "latency", "µs", text=lambda v: significant(v * 1e6), priority=10),
    Column("power_w", "power", "W", text=significant, priority=9),
)


def in_order(points: pd.DataFrame) -> pd.DataFrame:
    """Rows that nothing dominates first, each part from the smallest loss to the largest."""
    keys = [c for c in ("nll_increase", "speedup", "point") if c in points]
    flipped = points.assign(_off=~points["on_front"].astype(bool))
    return flipped.sort_values(["_off", *keys], kind="stable").drop(columns="_off")


def thin(points: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most `rows` rows spread evenly over `points`, first and last kept; 0 keeps all."""
    if rows <= 0 or len(points) <= rows:
        return points
    if rows == 1:
        return points.iloc[:1]
    step = (len(points) - 1) / (rows - 1)
    return points.iloc[[round(i * step) for i in range(rows)]]


def print_front(
    environment: Environment,
    points: pd.DataFrame,
    *,
    rows: int = DEFAULT_ROWS,
    everything: bool = False,
    columns: Sequence[str] = (),
    among: pd.DataFrame | None = None,
) -> None:
    """Print a front as a table that fits the width.

    Args:
        points: rows of `front.csv`, in the order to show.
        rows: most rows; the choice is spread over the front (0: all).
        everything: rows that are on their algorithm's front only are shown too, dimmed.
        columns: columns of `front.csv` to show instead of the usual ones.
        among: all rows of the run: what varies among them is what tells points apart.
    """
    whole = points if among is None else among
    shown = points if everything else points[points["on_front"].astype(bool)]
    thinned = thin(shown, rows)
    knobs = {name: _names(environment, varying(whole, f"{name}.")) for name in thinned["algorithm"].unique()}
    hardware = _names(environment, varying(whole, "hardware."))
    entries: list[dict[str, Any]] = []
    nan = float("nan")
    for row in thinned.to_dict("records"):
        name = str(row["algorithm"])
        entry: dict[str, Any] = {str(k): v for k, v in row.items()}
        entry["knobs"] = short_knobs(row, knobs[name])
        entry["hardware"] = short_knobs(row, hardware)
        entry["best"] = (row.get("speedup_best_dense", nan), bool(row.get("best_dense_as_accurate", True)))
        entry["loss"] = tuple(row.get(f"nll_increase{end}", nan) for end in ("", "_low", "_high"))
        entries.append(entry)
    wanted: Sequence[Column] = _COLUMNS
    if columns:
        wanted = [_plain_column(name, points) for name in columns]
    table = layout(entries, wanted, environment.columns)
    for number, line in enumerate(table.lines):
        if number < table.headers:
            environment.print(environment.style(line, bold=True))
        elif not thinned.iloc[number - table.headers]["on_front"]:
            environment.print(environment.style(line, dim=True))
        else:
            environment.print(line)
    if not columns:
        _explain(environment, knobs, entries)
        if any(not as_accurate for _, as_accurate in (entry["best"] for entry in entries)):
            star = "* no dense point of this space is as accurate: against the most accurate one"
            environment.print(environment.style(star, dim=True))
    if len(thinned) < len(shown):
        environment.remark(f"{len(thinned)} of {len(shown)} points shown; --rows 0 shows all")
    if table.omitted and columns:
        environment.remark(f"no room for: {', '.join(table.omitted)} (a wider window, or --format csv)")


def _names(environment: Environment, columns: Sequence[str]) -> dict[str, str]:
    if environment.columns < _WIDE:
        return abbreviations(columns)
    return {c: c.rpartition(".")[2] for c in columns}


def _explain(
    environment: Environment, knobs: dict[str, dict[str, str]], entries: Sequence[dict[str, Any]]
) -> None:
    """Say what the short knob names that were printed stand for."""
    meaning: dict[str, set[str]] = {}
    for entry in entries:
        printed = {part.split("=")[0] for part in str(entry["knobs"]).split() if "=" in part}
        for column, short in knobs[str(entry["algorithm"])].items():
            name = column.rpartition(".")[2]
            if short in printed and short != name:
                meaning.setdefault(short, set()).add(name)
    if meaning:
        text = ", ".join(
            f"{short} = {' or '.join(sorted(names))}" for short, names in sorted(meaning.items())
        )
        environment.print(environment.style(f"knobs: {text}", dim=True))


def _plain_column(name: str, points: pd.DataFrame) -> Column:
    import pandas as pd

    known = label(name)
    numeric = pd.api.types.is_numeric_dtype(points[name]) and not pd.api.types.is_bool_dtype(points[name])
    parameter = "." in name

    def text(value: Any) -> str:
        if parameter or not numeric:
            return brief(value)
        return significant(float(value) * known.scale)

    owner, _, last = name.rpartition(".")
    title, unit = (owner, last) if parameter else (name, known.unit)
    return Column(name, title, unit, text=text, left=not numeric, priority=1)
