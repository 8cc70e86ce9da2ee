"""How long one task takes: its phases, what runs beside them, and how busy it keeps every resource.

A *task* is one KV head of one layer of one sequence, with the query heads that share it. Its phases:

    prepare   metadata fetch | search | estimates, controller, rebuilt tokens | slow memory     longest of
              them, then the selection that decides what to fetch (forms that know V at once or by token)
    first     K fetch | q x k | exponents | per-lane logic | scoreboard | waiting for answers   longest of
              them; with ``v_after`` "none" or "token" V fetch and p x v stream along and add to memory and
              multipliers
    select    selection between K and V (``v_after`` "row")
    second    V fetch and writes | p x v (``v_after`` "row")

plus, in series, the start of each stream, the answers the last token waits for, and draining a row that must
be complete. This sum is the task's time alone, ``T``. Ranking, importance and sorting run beside it and only
lengthen it when they are longer than all of it.

In prefill a task is one KV head's pass over a prompt. Its counters are sums over the prompt, fetches those of
tiles of queries; while one tile is computed the next one's first chunk is on its way, so K starts once, but
everything a tile waits for counts once per tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.ledger import ZERO, Ledger
from dse.cost.machine import Machine
from dse.cost.memory import Traffic
from dse.cost.statistics import CHUNK_ORDER, V_AFTER
from dse.cost.work import Work
from dse.hardware.parameters import SOFTMAXES

FloatArray = NDArray[np.float64]


def total(*terms: ArrayLike) -> FloatArray:
    """Sum of broadcastable terms, small ones first so that few additions have the full shape."""
    parts = sorted((np.asarray(t, dtype=np.float64) for t in terms), key=lambda a: a.size)
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def longest(*terms: ArrayLike) -> FloatArray:
    """Maximum of broadcastable terms, small ones first."""
    parts = sorted((np.asarray(t, dtype=np.float64) for t in terms), key=lambda a: a.size)
    result = parts[0]
    for part in parts[1:]:
        result = np.maximum(result, part)
    return result


@dataclass(frozen=True)
class Schedule:
    """Times of one task per class, [K, S, ...], before they are combined.

    Attributes:
        prepare, first, second: phases as {resource: seconds}; the longest counts.
        series: {cause: seconds} added to the phases.
        beside: {resource: seconds} that run beside everything.
        busy: {resource: seconds} over all phases, keyed by `dse.cost.price.BOUNDS`.
    """

    prepare: dict[str, FloatArray]
    first: dict[str, FloatArray]
    second: dict[str, FloatArray]
    series: dict[str, FloatArray]
    beside: dict[str, FloatArray]
    busy: dict[str, FloatArray]

    def alone_s(self) -> FloatArray:
        """Time of a task by itself."""
        phases = total(
            longest(*self.first.values()), longest(*self.second.values()), longest(*self.prepare.values()),
            *self.series.values(),
        )  # fmt: skip
        return longest(phases, *self.beside.values())

    def busiest_s(self) -> FloatArray:
        """Time of the busiest resource."""
        return longest(*self.busy.values())


def switch_all(flags: NDArray[np.bool_]) -> FloatArray:
    """1 where a design has a property; a scalar where all or none have, so that shapes stay small."""
    values = np.where(flags, 1.0, 0.0)
    return np.asarray(values.flat[0]) if (values == values.flat[0]).all() else values


def schedule(ledger: Ledger, m: Machine, moved: Traffic, done: Work) -> Schedule:
    """Phases of one task of every class, setting and design."""
    stats = ledger.stats

    def switch(flags: NDArray[np.bool_]) -> FloatArray:
        return np.asarray(float(flags[0])) if (flags == flags[0]).all() else ledger.form(flags)

    by_row = switch(stats.v_after == V_AFTER.index("row"))
    by_token = switch(stats.v_after == V_AFTER.index("token"))
    passes = switch(stats.chunk_order == CHUNK_ORDER.index("row"))
    own_array = switch_all(m["value_lanes"] > 0)

    def only(mask: FloatArray, value: FloatArray) -> FloatArray:
        """`value` where the mask is 1; a scalar 0 where it nowhere is, so that shapes stay small."""
        if not mask.any() or not np.any(value):
            return ZERO
        return value if mask.ndim == 0 else np.asarray(mask * value)

    along = 1.0 - by_row
    value_memory = moved.value_s + moved.write_s
    shared, apart = only(1.0 - own_array, done.value_s), only(own_array, done.value_s)
    waits, levels = _waits(ledger, m)
    keys, values = moved.keys_away, moved.values_away
    whole_row = switch_all(m["softmax"] == SOFTMAXES.index("row"))
    # Products with V follow the scores, or the complete row.
    later = longest(by_row, whole_row)
    start = m.memory.start_ns * 1e-9 + m.constants["controller_ns"] * 1e-9
    fetches_meta = ledger.count("meta_read_bytes")
    most = moved.rounds * (stats.shape.group / stats.sharing)
    second_passes = np.minimum(ledger.count("second_passes"), most)
    drains = ledger.count("row_waits") / stats.sharing / moved.together
    # A machine that states how long a row holds each stage has said what draining costs.
    drain_s = np.where(m["row_overhead_cycles"] > 0, 0.0, m.constants["row_drain_cycles"]) * m.cycle_s
    again = keys * moved.rounds / ledger.tiles
    waits, levels = waits * again, levels * again
    return Schedule(
        prepare={
            "memory": moved.meta_s,
            "multipliers": done.prepare_s,
            "search": done.search_s,
            "slow memory": done.slow_s,
        },
        first={
            "memory": total(moved.key_s, moved.refetch_s, only(along, value_memory)),
            "multipliers": total(done.score_s, done.row_s, only(1.0 - later, shared)),
            "value multipliers": only(1.0 - later, apart),
            "exponents": only(1.0 - whole_row, done.exponent_s + done.row_s),
            "lane logic": done.lane_s,
            "scoreboard": done.scoreboard_s,
            "answers": waits,
        },
        second={
            "memory": only(by_row, value_memory),
            "multipliers": only(later, shared),
            "value multipliers": only(later, apart),
        },
        series={
            "start of metadata": np.minimum(fetches_meta, 1.0) * keys * start if fetches_meta.any() else ZERO,
            "start of K": keys * start,
            "start of V": only(by_row, moved.rounds * values * start),
            "start of second passes": only(passes, second_passes * keys * start)
            if second_passes.any()
            else ZERO,
            "last answers": levels
            + only(by_token, np.minimum(ledger.count("v_rows"), moved.rounds) * values * m.answer_s),
            "exponents of a row": only(whole_row, done.exponent_s + done.row_s),
            "selection": done.select_s,
            "row drain": drains * drain_s if drains.any() else ZERO,
        },
        beside={"ranking": done.rank_s, "importance": done.importance_s, "sorting": done.sort_s},
        busy={
            "memory": total(moved.even_s, moved.meta_s, moved.write_s, moved.refetch_s),
            "multipliers": total(done.score_s, done.prepare_s, shared),
            "value multipliers": apart,
            "exponents": done.exponent_s,
            "lane logic": done.lane_s,
            "selection": done.select_s,
            "ranking": done.rank_s,
            "importance": done.importance_s,
            "search": done.search_s,
            "sorting": done.sort_s,
            "scoreboard": done.scoreboard_s,
            "slow memory": done.slow_s,
        },
    )


def _waits(ledger: Ledger, m: Machine) -> tuple[FloatArray, FloatArray]:
    """Seconds a head waits for answers because decisions may lag only so far, and after its last token.

    Tokens are decided in order, and no decision may be taken with more than `lag` earlier tokens open. So
    tokens pass in windows of lag + 1, and a window in which any token asks for a further chunk takes one
    round trip to memory for it. The first chunk of every token is asked for in advance.
    """
    stats = ledger.stats
    in_order = stats.chunk_order == CHUNK_ORDER.index("token")
    tokens = ledger.population
    lag, each = ledger.form(stats.lag), tokens / ledger.tiles
    window = np.clip(np.where(lag < 0, each, lag + 1), 1.0, np.maximum(each, 1.0))
    trips: FloatArray = ZERO
    levels: FloatArray = ZERO
    for c in range(1, stats.chunks):
        rows = ledger.count(f"k_rows_{c}")
        if not rows.any() or not in_order.any():
            continue
        asked = np.minimum(rows / tokens, 1.0)
        trips = trips + tokens / window * (1.0 - (1.0 - asked) ** window) * ledger.form(in_order)
        levels = levels + np.minimum(rows, ledger.tiles) * ledger.form(in_order)
    return trips * m.answer_s if trips.any() else ZERO, levels * m.answer_s if levels.any() else ZERO
