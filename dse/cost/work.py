"""On-chip work of one KV head: seconds each resource is busy, and multiplier passes.

Key and value operands are serialised: an operand wider than a multiplier's key side takes
``ceil(bits / multiplier_bits)`` passes, a query (or probability) wider than its other side multiplies that. A
row of `head_dim` products takes ``ceil(head_dim / multipliers)`` cycles of a lane, or shares a cycle when the
adder tree holds several rows. Lanes take the next token from a shared queue, so they stay balanced.

The selection engine is a quick-select: each pass partitions what is left around a pivot, `select_comparators`
elements a cycle. Expected work over random pivots, k of n kept, a = k / n:

    elements  2 n (1 - a ln a - (1 - a) ln(1 - a))
    passes    H(k) + H(n - k) - 1            (harmonic numbers)
    cycles    elements / comparators + 3.5 passes

within 7 % of simulation for n >= 128 (cycle model of the authors' RTL: Wang et al., HPCA 2021, released
code).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.cost.ledger import ZERO, Ledger
from dse.cost.machine import Machine
from dse.cost.statistics import CHUNK_ORDER

FloatArray = NDArray[np.float64]

PASS_OVERHEAD = 3.5
CONTROLLER_BITS = 16


@dataclass(frozen=True)
class Work:
    """Per KV head, [K, S, ...]: seconds each resource is busy.

    Attributes:
        row_s: what every query row adds to each stage (`row_overhead_cycles`).
        score_s, value_s: multipliers on q x k and on probability x v, the latter with `row_s`: a row leaves the
            last stage (divides) before the next one enters, while other stages take it at once.
        prepare_s: multipliers on estimates, controllers and rebuilt tokens, before anything is fetched.
        exponent_s, lane_s, select_s, rank_s, importance_s, search_s, sort_s: the engines.
        scoreboard_s: Little's law over the tokens that may wait for a later chunk.
        slow_s: the link to slow memory.
    """

    row_s: FloatArray
    score_s: FloatArray
    value_s: FloatArray
    prepare_s: FloatArray
    exponent_s: FloatArray
    lane_s: FloatArray
    select_s: FloatArray
    rank_s: FloatArray
    importance_s: FloatArray
    search_s: FloatArray
    sort_s: FloatArray
    scoreboard_s: FloatArray
    slow_s: FloatArray


def harmonic(x: FloatArray) -> FloatArray:
    """Harmonic numbers of real x >= 0, within 2e-3 from x = 1 and 0.06 at 0."""
    middle = x + 0.5
    return np.asarray(np.log(middle) + np.euler_gamma + 1.0 / (24.0 * middle**2))


def quick_select(elements: FloatArray, kept: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Expected elements partitioned and passes of one selection of the `kept` largest of `elements`."""
    n = np.maximum(elements, 1.0)
    k = np.clip(kept, 0.0, n)
    a = np.clip(k / n, 1e-12, 1 - 1e-12)
    entropy = -(a * np.log(a) + (1 - a) * np.log1p(-a))
    passes = np.maximum(1.0, harmonic(k) + harmonic(n - k) - 1.0)
    return np.where(elements > 0, 2.0 * n * (1.0 + entropy), 0.0), np.where(elements > 0, passes, 0.0)


def selections(ledger: Ledger, name: str) -> tuple[FloatArray, FloatArray]:
    """Elements partitioned and passes per head of all selections of a kind (``select`` or ``rank``)."""
    calls, elements, kept = (ledger.count(f"{name}_{what}") for what in ("calls", "elements", "kept"))
    if not elements.any():
        return ZERO, ZERO
    each = np.maximum(calls, 1e-12)
    partitioned, passes = quick_select(elements / each, kept / each)
    return partitioned * calls, passes * calls


def query_passes(ledger: Ledger, machine: Machine) -> FloatArray:
    return np.asarray(np.ceil(ledger.form(ledger.stats.q_bits) / machine["operand_bits"]))


def score_passes(ledger: Ledger, machine: Machine, total: bool = False) -> FloatArray:
    """(head, token) rows x multiplier passes on q x k, per class or in all."""
    take = ledger.total if total else ledger.count
    rows: FloatArray = ZERO
    for c in range(ledger.stats.chunks):
        bits = ledger.form(ledger.stats.chunk_bits[:, c])
        rows = rows + take(f"qk_rows_{c}") * np.ceil(bits / machine["multiplier_bits"])
    return rows * query_passes(ledger, machine)


def value_passes(ledger: Ledger, machine: Machine, total: bool = False) -> FloatArray:
    """(head, token) rows x multiplier passes on probability x v."""
    rows = ledger.total("pv_rows") if total else ledger.count("pv_rows")
    bits = ledger.form(ledger.stats.v_bits)
    return rows * np.ceil(bits / machine["multiplier_bits"]) * query_passes(ledger, machine)


def prepare_passes(ledger: Ledger, machine: Machine, total: bool = False) -> FloatArray:
    """Multiply-add passes of estimates (query width), controllers (16 bit) and rebuilt tokens (weight width).

    A rebuilt token is one more position through the blocks; its multiply-adds are spread over the KV heads, or
    charged to the model around attention where that is priced too.
    """
    take, shape = (ledger.total if total else ledger.count), ledger.stats.shape
    estimates, learned, rebuilt = take("estimate_macs"), take("controller_macs"), take("rows_rebuilt")
    narrow, wide = machine["multiplier_bits"], machine["operand_bits"]
    passes: FloatArray = ZERO
    if estimates.any():
        query = ledger.form(ledger.stats.q_bits)
        passes = passes + estimates * np.ceil(query / narrow) * query_passes(ledger, machine)
    if learned.any():
        passes = passes + learned * np.ceil(CONTROLLER_BITS / narrow) * np.ceil(CONTROLLER_BITS / wide)
    if rebuilt.any() and ledger.rebuilds:
        position = shape.block_parameters / (shape.layers * shape.kv_heads) * ledger.share
        passes = passes + rebuilt * position * np.ceil(shape.weight_bits / narrow) * query_passes(
            ledger, machine
        )
    return passes


def sort_steps(ledger: Ledger, total: bool = False) -> FloatArray:
    """Elements inserted x levels of a merge over the visible tokens."""
    elements = ledger.total("sort_elements") if total else ledger.count("sort_elements")
    return elements * max(1.0, float(np.log2(max(ledger.stats.n, 2.0))))


def reloaded_bytes(ledger: Ledger, total: bool = False) -> FloatArray:
    """Bytes that come back from slow memory."""
    rows, stats = (ledger.total("rows_reloaded") if total else ledger.count("rows_reloaded")), ledger.stats
    bits = (
        (stats.chunk_bits.sum(axis=1) + stats.v_bits) * stats.shape.head_dim
        + stats.k_scale_bits
        + stats.v_scale_bits
    )
    return rows * ledger.form(bits) / 8 if rows.any() else ZERO


def work(ledger: Ledger, machine: Machine) -> Work:
    """On-chip work of every class, setting and design."""
    dim, cycle, lanes = ledger.stats.shape.head_dim, machine.cycle_s, machine["lanes"]
    fold = np.ceil(dim / machine["multipliers"])
    row_s = fold / np.maximum(1.0, np.floor(machine["multipliers"] / dim)) * cycle
    value_lanes = np.where(machine["value_lanes"] > 0, machine["value_lanes"], lanes)
    comparators = machine["select_comparators"]
    select, select_passes = selections(ledger, "select")
    rank, rank_passes = selections(ledger, "rank")
    lane_work = (
        ledger.count("compares")
        + ledger.count("scalar_ops")
        + ledger.count("margins") * (fold if fold.ndim else float(fold))
    )
    exponents = np.maximum(ledger.count("exponentials"), ledger.count("divisions"))
    waiting: FloatArray = ZERO
    for c in range(1, ledger.stats.chunks):
        waiting = waiting + ledger.count(f"qk_rows_{c}")
    waiting = (
        waiting * ledger.form(ledger.stats.chunk_order == CHUNK_ORDER.index("token"))
        if waiting.any()
        else ZERO
    )
    # Every query row passes each stage a little later than its last product, and holds the last one so long.
    rows = ledger.positions * ledger.stats.shape.group
    own_s = rows * (machine["row_overhead_cycles"] * cycle) if machine["row_overhead_cycles"].any() else ZERO
    steps = ledger.count("search_steps")
    fill = rows * machine.constants["search_fill_cycles"] * np.minimum(steps, 1.0) if steps.any() else ZERO
    return Work(
        row_s=own_s,
        score_s=score_passes(ledger, machine) * (row_s / lanes),
        value_s=value_passes(ledger, machine) * (row_s / value_lanes) + own_s,
        prepare_s=prepare_passes(ledger, machine) * (cycle / (lanes * machine["multipliers"])),
        exponent_s=exponents * (cycle / machine["exponent_units"]),
        lane_s=lane_work * (cycle / lanes),
        select_s=select * (cycle / comparators) + select_passes * (PASS_OVERHEAD * cycle),
        rank_s=rank * (cycle / comparators) + rank_passes * (PASS_OVERHEAD * cycle),
        importance_s=ledger.count("importance_adds") * (cycle / machine["accumulators"]),
        search_s=(steps + fill) * (cycle / machine["search_engines"]),
        sort_s=sort_steps(ledger) * (cycle / comparators),
        scoreboard_s=waiting * (machine.answer_s / (lanes * machine["scoreboard_entries"]))
        if waiting.any()
        else ZERO,
        slow_s=reloaded_bytes(ledger) / (machine["slow_gbps"] * 1e9),
    )
