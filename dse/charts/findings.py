"""What a front says in one sentence, with dense attention as the rival at the same accuracy budget.

The comparison is between the best point of each algorithm that stays within a budget and the best *dense*
point that stays within the same budget, each with hardware of its own within the space's constraints. A space
without dense points gets a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.labels import brief
from dse.charts.style import RIVAL
from dse.search.report import BUDGETS, WORTH

if TYPE_CHECKING:
    import pandas as pd

LEADING_BUDGET: Final = 0.01


@dataclass(frozen=True)
class Gain:
    """The best point of one algorithm within a budget.

    Attributes:
        point: its row of the front; None where no setting stays within the budget.
        gain: its speedup over the best dense point within the same budget; None without either.
    """

    algorithm: str
    point: pd.Series[Any] | None
    gain: float | None


def gains(points: pd.DataFrame, budget: float) -> list[Gain]:
    """Each algorithm's best speedup at `nll_increase <= budget`, dense first, then the largest gain first."""
    best: dict[str, pd.Series[Any] | None] = {}
    for name, rows in points.groupby("algorithm", sort=True):
        within = rows[rows["nll_increase"] <= budget]
        best[str(name)] = within.iloc[int(within["speedup"].argmax())] if len(within) else None
    rival = best.get(RIVAL)
    result = []
    for name, point in best.items():
        ratio = None if point is None or rival is None else float(point["speedup"]) / float(rival["speedup"])
        result.append(Gain(name, point, ratio))
    return sorted(result, key=lambda g: (g.algorithm != RIVAL, -(g.gain or 0.0), g.algorithm))


def widths(point: pd.Series[Any]) -> str:
    """Operand widths of a dense point for reading: `8-bit`, `6/8-bit` (K/V); "" where unknown."""
    k, v = (_number(point.get(f"{RIVAL}.{name}")) for name in ("k_bits", "v_bits"))
    if k is None and v is None:
        return ""
    if k == v or v is None or k is None:
        return f"{k if k is not None else v:g}-bit"
    return f"{k:g}/{v:g}-bit"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number else None


def sentence(points: pd.DataFrame, budget: float | None = None) -> str:
    """One sentence: what pays over dense at a budget, by how much, and what does not.

    Args:
        points: rows as in `front.csv`.
        budget: nats per token; default: 0.01, or the next larger of `BUDGETS` that a sparse point (or, without
            any, a dense one) stays within.
    """
    if points.empty:
        return "No point of this space meets its constraints."
    if "speedup" not in points or "nll_increase" not in points or points["nll_increase"].isna().all():
        return f"{int(points['on_front'].sum())} points are on the front; accuracy was not measured."
    start = ""
    if budget is None:
        others = points[points["algorithm"] != RIVAL]
        least = float((others if others["nll_increase"].notna().any() else points)["nll_increase"].min())
        budget = next((b for b in BUDGETS if b >= max(least, LEADING_BUDGET)), least)
        if budget > LEADING_BUDGET and len(others):
            start = f"No sparse setting stays within {LEADING_BUDGET:g} nats per token; "
    found = gains(points, budget)
    start = f"{start}at {budget:.3g}: " if start else f"At {budget:.3g} nats per token: "
    sparse = [g for g in found if g.algorithm != RIVAL]
    rival = next((g for g in found if g.algorithm == RIVAL), None)
    if rival is None:
        parts = [
            f"{g.algorithm} {g.point['speedup']:.2f}x over the baseline"
            for g in sparse
            if g.point is not None
        ]
        return start + ", ".join(parts) + "; the space has no dense points, so nothing is said about dense."
    if rival.point is None:
        return (
            start + "no dense point of this space stays within it, so there is no rival to measure against."
        )
    dense = f"the best dense ({widths(rival.point)})" if widths(rival.point) else "the best dense"
    if not sparse:
        times = f"{rival.point['speedup']:.2f}x"
        return f"{start}{dense} runs {times} as fast as the baseline; the space has no other algorithm."
    pays = [g for g in sparse if g.gain is not None and g.gain >= WORTH]
    idle = [g for g in sparse if g.gain is not None and g.gain < WORTH]
    out = [g.algorithm for g in sparse if g.point is None]
    parts = []
    for i, g in enumerate(pays):
        parts.append(f"{g.algorithm} {g.gain:.2f}x" + (f" over {dense}" if i == 0 else ""))
    for i, g in enumerate(idle):
        over = f" of {dense}" if i == 0 and not pays else ""
        parts.append(f"{g.algorithm} does not pay here ({g.gain:.2f}x{over})")
    if out:
        parts.append(f"no setting of {' or '.join(out)} stays within it")
    tail = _whole_step(pays[0].point, rival.point) if pays else _elsewhere(points)
    return start + ", ".join(parts) + tail + "."


def _elsewhere(points: pd.DataFrame) -> str:
    """Where a sparse point does beat every dense point of no more loss, if any does within the largest budget."""
    if "speedup_best_dense" not in points:
        return ""
    rows = points[(points["algorithm"] != RIVAL) & (points["nll_increase"] <= max(BUDGETS))]
    if "best_dense_as_accurate" in rows:
        rows = rows[rows["best_dense_as_accurate"].astype(bool)]
    rows = rows[rows["speedup_best_dense"] >= WORTH]
    if rows.empty:
        return f"; nor does any sparse point up to {max(BUDGETS):g}"
    best = rows.iloc[int(rows["speedup_best_dense"].argmax())]
    gain, loss = float(best["speedup_best_dense"]), float(best["nll_increase"])
    return f"; the most one gains up to {max(BUDGETS):g} is {gain:.2f}x, {best['algorithm']} at a loss of {loss:.2g}"


def _whole_step(point: pd.Series[Any] | None, rival: pd.Series[Any]) -> str:
    """The honest tail: what the leader's gain over dense is worth in a whole step of the model."""
    if point is None:
        return ""
    mine, theirs = _number(point.get("speedup_end_to_end")), _number(rival.get("speedup_end_to_end"))
    share = _number(rival.get("attention_share"))
    if mine is None or theirs is None or share is None:
        return ""
    return f"; of a whole step that is {mine / theirs:.2f}x, attention being {share:.0%} of it under dense"


def abbreviations(columns: Sequence[str]) -> dict[str, str]:
    """The shortest prefix that tells each dotted column's last name from the others': `a.keep` -> `k`."""
    names = {c: c.rpartition(".")[2] for c in columns}
    short = {}
    for column, name in names.items():
        others = [n for c, n in names.items() if c != column]
        length = next(
            (i for i in range(1, len(name)) if not any(other.startswith(name[:i]) for other in others)),
            len(name),
        )
        short[column] = name[:length]
    return short


def short_knobs(row: Any, names: Mapping[str, str]) -> str:
    """Knob values of a row in one line: `threshold=0.001 6+6 stream`.

    Words speak for themselves and go without their name; `k_bits` and `v_bits` that agree become `8-bit`.

    Args:
        row: a row of `front.csv` (anything indexed by column).
        names: the dotted columns to show, and how each is called.
    """
    values = {c: row[c] for c in names if brief(row[c]) != ""}
    parts = []
    k, v = (next((c for c in values if c.endswith(end)), None) for end in (".k_bits", ".v_bits"))
    if k is not None and v is not None and values[k] == values[v]:
        parts.append(f"{brief(values[k])}-bit")
        del values[k], values[v]
    for column, value in values.items():
        speaks = isinstance(value, str) and (not value.isdigit())
        parts.append(brief(value) if speaks else f"{names[column]}={brief(value)}")
    return " ".join(parts)


def varying(points: pd.DataFrame, prefix: str) -> list[str]:
    """The dotted columns under `prefix` that take more than one value among the rows that have them."""
    return [
        c for c in points.columns if c.startswith(prefix) and points[c].dropna().astype(str).nunique() > 1
    ]
