"""MNNFast (Jang et al., ISCA 2019) and what later papers make of it, on the preset `mnnfast`."""

from __future__ import annotations

from typing import Final

from dse.profiles.schema import Form
from dse.validation.bench import Bench, Work, dense_counts, scattered, shape
from dse.validation.measured import at_loss, profiles, reduction
from dse.validation.row import Row
from dse.validation.spatten import LENGTHS, MODELS, TASKS

PAPER: Final = "Jang et al., ISCA 2019"
SKIPPED: Final = 0.97
"""Rows of V whose probability is below 0.1 on bAbI."""

TABLE: Final = "Wang et al., HPCA 2021, Table III"

BREAKDOWN: Final = {"inner product": 0.067, "exponentials": 0.204, "weighted sum": 0.052}
"""Fig. 9a: time of one thread with streaming, without skipping, as fractions of the baseline's."""


DIM: Final = 64
"""Outputs of a query, each divided once by the sum of its row: the lazy softmax."""

DIVISIONS: Final = (
    "each query divides its weights or its 64 outputs, whichever are fewer: delaying the division saves nothing in a "
    "row shorter than the output"
)


def prompt(length: float, heads: int, skipped: float, always_lazy: bool = False) -> Work:
    """One layer: every query over every key, and over the rows of V that are not skipped.

    `always_lazy`: outputs are divided even where the row is shorter than they are.
    """
    divisions = DIM if always_lazy else min(length, DIM)
    counts = dense_counts(length, length)
    counts |= {
        "pv_rows": length * length * (1 - skipped),
        "divisions": length * divisions,
        "compares": length * length,
    }
    return Work(Form((12,), 12, 12), length, shape(1, heads), counts)


def throughput(bench: Bench, always_lazy: bool = False) -> float:
    """Mean operations per second of 22 BERT tasks, counted as dense attention's at two per multiply-add."""
    speeds = [
        4.0
        * length
        * length
        * DIM
        * heads
        / bench.price(prompt(length, heads, SKIPPED, always_lazy))["latency_s"]
        for _, heads in MODELS.values()
        for length in TASKS.values()
    ]
    return sum(speeds) / len(speeds)


def rows() -> list[Row]:
    """Speedup from the published breakdown, rows skipped, and projected throughput."""
    bench = Bench("mnnfast")
    tokens = 1000.0
    kept = tokens * (1 - SKIPPED)
    dense = Work(Form((12,), 12, 12), tokens, shape(1, 1), dense_counts(tokens))
    some = Work(Form((12,), 12, 12), tokens, shape(1, 1), dense_counts(tokens)
                | {"v_rows": kept, "v_runs": scattered(kept, tokens), "pv_rows": kept, "compares": tokens})  # fmt: skip
    share = (
        bench.story(some)["busy_s"]["value multipliers"] / bench.story(dense)["busy_s"]["value multipliers"]
    )
    left = BREAKDOWN["inner product"] + BREAKDOWN["exponentials"] + BREAKDOWN["weighted sum"] * share
    result = [
        Row("mnnfast", "speedup of one thread", 3.65, 1 / left, f"{PAPER}, Fig. 9",
            "its own breakdown with streaming; the share of the weighted sum that 97 % skipped rows leave is priced",
            "identity", "x", 0.02),
    ]  # fmt: skip
    for title, each, lazy in (
        ("projected throughput, one operation per multiply-add", 1, False),
        ("projected throughput, two operations per multiply-add", 2, False),
        ("projected throughput, two operations, outputs always divided", 2, True),
    ):
        result.append(
            Row("mnnfast", title, 120.0, throughput(bench, lazy) * each / 2e9, TABLE,
                f"the table counts A3, and so perhaps this, at one; q x k binds, so skipped rows of V save no time; "
                f"{'64 divisions of each query in a row' if lazy else DIVISIONS}; {LENGTHS}", "independent", "GOP/s")
        )  # fmt: skip
    for name, profile in profiles().items():
        values = reduction(profile, "pv_rows")
        for context, found, series in at_loss(profile, "mnnfast", "threshold", 0.01, values, "nll_increase"):
            result.append(
                Row("mnnfast", f"rows of V skipped in {name}, context {context}", 100 * SKIPPED, 100 * (1 - 1 / found),
                    f"{PAPER}, section III-B", f"published on bAbI at threshold 0.1, 0.87 % accuracy lost; ours at 0.01 "
                    f"nats lost; {series}", "independent", "%")
            )  # fmt: skip
    return result
