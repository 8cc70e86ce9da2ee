"""Probes as a table for the terminal."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dse.profiles.probes import Probes

QUARTERS: Final = ("oldest", "2nd", "3rd", "newest")
"""Of the depths; columns of the table."""


def quarters(table: Probes) -> tuple[str, ...]:
    """Columns by depth; of fewer than four depths each has one of its own."""
    depths = min((np.array(row.nll).shape[1] for row in table.rows), default=len(QUARTERS))
    return {1: ("oldest",), 2: ("oldest", "newest"), 3: ("oldest", "2nd", "newest")}.get(depths, QUARTERS)


def probe_rows(table: Probes) -> list[dict[str, Any]]:
    """One entry per setting: nats per token of the code by quarter of depth, share said right, tokens alike."""
    from dse.algorithms import registry

    known = registry()
    rows = []
    for row in table.rows:
        nll, right = np.array(row.nll), np.array(row.right)
        parts = [part.mean() for part in np.array_split(nll.mean(axis=0), len(quarters(table)))]
        defaults = known[row.algorithm].defaults() if row.algorithm in known else {}
        rows.append(
            {
                "algorithm": row.algorithm,
                "knobs": {k: v for k, v in row.knobs.items() if v != defaults.get(k)},
                "asked": int(right.size),
                "right": float(right.mean()),
                "nll": float(nll.mean()),
                "nll_by_quarter": [float(x) for x in parts],
                "nll_by_depth": [float(x) for x in nll.mean(axis=0)],
                "same_tokens": float(np.mean(row.same)),
                "never_differed": int(np.count_nonzero(np.array(row.same) == table.tokens)),
                "agreement": float(np.mean(row.agree)),
            }
        )
    return rows


def probe_table(table: Probes, width: int) -> str:
    """Lines that fit `width` characters."""
    from dse.charts.labels import brief
    from dse.cli.table import Column, fixed, layout

    names = quarters(table)
    rows = [
        {
            **row,
            "knobs": " ".join(f"{k}={brief(v)}" for k, v in row["knobs"].items()) or "defaults",
            **dict(zip(names, row["nll_by_quarter"], strict=True)),
            "right": 100 * row["right"],
        }
        for row in probe_rows(table)
    ]
    columns = [
        Column("algorithm", "algorithm", text=str, left=True),
        *(Column(name, name, "nats", text=fixed(2)) for name in names),
        Column("right", "right", "%", text=fixed(0)),
        Column("same_tokens", "same", "tokens", text=fixed(1)),
        Column("agreement", "agree", text=fixed(2), priority=2),
        Column("knobs", "knobs that differ from the defaults", text=str, left=True, shrink_to=20, wrap=True),
    ]
    asked = max((row["asked"] for row in rows), default=0)
    windows = max((len(row.same) for row in table.rows), default=0)
    return "\n".join(
        [
            f"{table.model}, context {table.context}: {asked} questions for four-digit codes of made-up names, by depth; "
            f"{windows} x {table.tokens} tokens written freely",
            *layout(rows, columns, width).lines,
            "oldest to newest: nats per token of the code, by quarter of depth (guessing digits: 2.30); right: said "
            "without a slip",
            "same: tokens like the dense float model's before the first that differs; agree: share of all places",
        ]
    )
