"""The price of points: latency, energy, area, as arrays over settings and designs.

Unit of work: one decode step (or one prompt), all layers and KV heads, all sequences of the batch; attention
alone, or the whole model (`dse.cost.model`). A *task* is one KV head of one layer of one sequence, with the
query heads that share it. Its phases:

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

With H heads in flight the phases of different tasks overlap. No resource can be used more than fully, and H
tasks at a time cannot pass faster than H in T, so a task follows another after a *period*

    P = max(R, T / H),   R = the busiest resource's time over all phases.

A layer's queries come from the layer before it, so a layer's tasks (KV heads x batch) end before the next
layer's begin: each layer takes its first task in full and a period for every further one. With N tasks in a
layer a step takes ``sum(P) + sum(T - P) / N`` over all tasks. With H = 1 this is the plain sum; it never grows
with H.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.budget import Buffers, areas, buffers, energies, powers
from dse.cost.ledger import ZERO, Ledger
from dse.cost.machine import Machine, machine
from dse.cost.memory import Traffic, traffic
from dse.cost.model import Rest, batch_limit, memory_fill, rest, sequences
from dse.cost.statistics import CHUNK_ORDER, V_AFTER, Statistics
from dse.cost.work import Work, prepare_passes, score_passes, value_passes, work
from dse.cost.workload import Workload
from dse.errors import BadInput, nearest
from dse.hardware.parameters import SOFTMAXES

FloatArray = NDArray[np.float64]

METRICS: Final = (
    "latency_s", "floor_s", "energy_j", "dram_bytes", "area_mm2", "power_w", "power_chip_w", "bound",
    "attention_s", "attention_energy_j", "rest_s", "rest_energy_j", "tokens_per_s", "batch", "batch_limit",
    "memory_fill",
)  # fmt: skip

BOUNDS: Final = (
    "memory", "multipliers", "value multipliers", "exponents", "lane logic", "selection", "ranking",
    "importance", "search", "sorting", "scoreboard", "slow memory", "latency", "weights", "projections",
)  # fmt: skip
"""Names of the codes in `bound`: the busiest resource, or ``latency`` where too few heads are in flight to
fill it; ``weights`` (memory) or ``projections`` (multipliers) where the model around attention takes longer."""


BLOCK: Final = 1 << 15
"""Points combined at a time, so that a few arrays of them stay in a core's cache."""


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
        busy: {resource: seconds} over all phases, keyed by `BOUNDS`.
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


@dataclass(frozen=True)
class Parts:
    """Everything a price is made of, kept for `dse.cost.explain`."""

    ledger: Ledger
    machine: Machine
    workload: Workload
    traffic: Traffic
    work: Work
    schedule: Schedule
    buffers: Buffers
    batch: FloatArray
    rest: Rest

    @property
    def tasks(self) -> FloatArray:
        """Tasks of a layer."""
        return self.batch * float(self.ledger.stats.shape.kv_heads)

    @property
    def in_flight(self) -> FloatArray:
        """Tasks that overlap: heads in flight, at most those of a layer."""
        return np.asarray(np.minimum(self.machine["heads_in_flight"], self.tasks))

    @property
    def whole(self) -> bool:
        """Whether the model around attention is part of the unit of work."""
        return self.workload.scope == "model"


def parts(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
) -> Parts:
    """The intermediates of `price`, on the axes they depend on."""
    m = machine(design, overrides)
    ledger = Ledger(stats, m.ndim, workload)
    moved, done, banks = traffic(ledger, m), work(ledger, m), buffers(m)
    batch = sequences(ledger, m, workload)
    return Parts(
        ledger, m, workload, moved, done, schedule(ledger, m, moved, done), banks, batch,
        rest(ledger, m, workload, batch, banks),
    )  # fmt: skip


def price(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    metrics: Collection[str] = METRICS,
    overrides: Mapping[str, float] | None = None,
) -> dict[str, FloatArray]:
    """Metrics of every setting on every design.

    Args:
        stats: S settings.
        design: every name of `dse.hardware.parameters.PARAMETERS` -> scalar, or array whose axis 0 is the
            settings' (size 1 or S) and whose further axes broadcast against each other.
        workload: phase and batch.
        metrics: which of `METRICS` to compute; cheap ones come back on the axes they depend on.
        overrides: component constants by name.

    Returns:
        name -> array that broadcasts to [S, ...]: seconds, joules, bytes, mm2, watts; `bound` holds indices
        into `BOUNDS`. In scope ``attention`` all but `rest_*` are attention only; in scope ``model`` they are
        the whole model, `attention_*` and `rest_*` its two parts.

    Raises:
        BadInput: a parameter or metric is unknown or missing.
        DseError: a counter that is not zero has no price.
    """
    for name in metrics:
        if name not in METRICS:
            raise BadInput(f"price: {name}: no such metric; {nearest(name, METRICS)}")
    p = parts(stats, design, workload, overrides)
    wanted = set(metrics)
    batch, m, ledger = p.batch, p.machine, p.ledger
    energy = energies(ledger, m, p.traffic, p.buffers)
    area = areas(ledger, m, p.buffers)
    ledger.close()
    found: dict[str, FloatArray] = {"batch": batch}
    powered = {"energy_j", "power_w", "power_chip_w", "attention_energy_j"}
    if wanted & {"latency_s", "attention_s", "tokens_per_s", *powered}:
        found["attention_s"] = latency(p)
        found["latency_s"] = total(found["attention_s"], p.rest.seconds) if p.whole else found["attention_s"]
    if "tokens_per_s" in wanted:
        each = float(workload.context or stats.n) if workload.phase == "prefill" else 1.0
        found["tokens_per_s"] = batch * each / found["latency_s"]
    if "floor_s" in wanted:
        found["floor_s"] = floor(p)
    if "dram_bytes" in wanted:
        moved = total(*(ledger.heads(np.asarray(b)) for b in p.traffic.bytes.values())) * batch
        found["dram_bytes"] = moved + p.rest.dram_bytes if p.whole else moved
    if "area_mm2" in wanted:
        found["area_mm2"] = total(*area.values())
    if wanted & {*powered, "rest_energy_j"}:
        found |= _energy(p, energy, area, found)
    if "bound" in wanted:
        found["bound"] = bound(p)
    if "rest_s" in wanted:
        found["rest_s"] = p.rest.seconds
    if "batch_limit" in wanted:
        found["batch_limit"] = batch_limit(ledger, m, workload)
    if "memory_fill" in wanted:
        found["memory_fill"] = memory_fill(ledger, m, workload, batch)
    return {name: found[name] for name in METRICS if name in wanted}


def _energy(
    p: Parts,
    energy: Mapping[str, FloatArray],
    area: dict[str, FloatArray],
    found: Mapping[str, FloatArray],
) -> dict[str, FloatArray]:
    """Joules and watts; without ``latency_s`` in `found` only those of the model around attention."""
    power = powers(p.machine, area, p.buffers)
    always = total(*(v for k, v in power.items() if k != "dram background"))
    background = power["dram background"]
    standing = total(always, background)
    result = {"rest_energy_j": total(p.rest.dram_j, p.rest.chip_j) + standing * p.rest.seconds}
    if "latency_s" not in found:
        return result
    off_chip = total(*(v for k, v in energy.items() if k.startswith("dram "))) * p.batch
    on_chip = total(*(v for k, v in energy.items() if not k.startswith("dram "))) * p.batch
    attention = total(off_chip, on_chip) + standing * found["attention_s"]
    joules = total(attention, result["rest_energy_j"]) if p.whole else attention
    chip = total(on_chip, p.rest.chip_j) if p.whole else on_chip
    return result | {
        "attention_energy_j": attention,
        "energy_j": joules,
        "power_w": joules / found["latency_s"],
        "power_chip_w": chip / found["latency_s"] + always,
    }


def latency(p: Parts) -> FloatArray:
    """Seconds of attention in one step.

    The sum over classes of ``w ((1 - 1/N) max(R, T / H) + T / N)`` with N tasks in a layer: the first of them,
    which is the mean task, in full, and a period for every further one. Only a product, a maximum and a sum per class have the full shape,
    and they are taken a cache-sized block at a time.
    """
    weights = p.ledger.weights * p.batch
    alone, busiest = (_all_axes(v, weights.ndim) for v in (p.schedule.alone_s(), p.schedule.busiest_s()))
    further, first = weights * (1.0 - 1.0 / p.tasks), weights / p.tasks
    waits, works = further * alone, further * busiest
    once = (first * alone).sum(axis=0)
    share = _all_axes(1.0 / p.machine["heads_in_flight"], once.ndim)
    step = np.empty(np.broadcast_shapes(waits.shape[1:], works.shape[1:], share.shape))
    outer = 0
    while step[(0,) * outer].size > BLOCK and outer < step.ndim - 1:
        outer += 1
    spare = np.empty(step.shape[outer:])
    for at in np.ndindex(step.shape[:outer]):
        block, portion = step[at], _block(share, at)
        np.add(_block(once, at), 0.0, out=block)
        for k in range(p.ledger.stats.classes):
            np.multiply(_block(waits[k], at), portion, out=spare)
            np.maximum(spare, _block(works[k], at), out=spare)
            np.add(block, spare, out=block)
    return step


def _all_axes(values: FloatArray, ndim: int) -> FloatArray:
    """The array with leading axes of size 1 up to `ndim`."""
    return values.reshape((1,) * (ndim - values.ndim) + values.shape)


def _block(values: FloatArray, at: tuple[int, ...]) -> FloatArray:
    """One index of the leading axes of an array that may have size 1 there."""
    found: FloatArray = values[tuple(i if size > 1 else 0 for i, size in zip(at, values.shape, strict=False))]
    return found


def bound(p: Parts) -> FloatArray:
    """Index into `BOUNDS` of what sets the time."""
    weights = p.ledger.weights
    best: FloatArray = np.full((), -1.0)
    code: FloatArray = ZERO
    for name, busy in p.schedule.busy.items():
        seconds = np.asarray((busy * weights).sum(axis=0)) if np.any(busy) else ZERO
        code = np.where(seconds > best, float(BOUNDS.index(name)), code)
        best = np.maximum(best, seconds)
    waiting = (p.schedule.alone_s() / p.in_flight * weights).sum(axis=0)
    code = np.where(waiting > best, float(BOUNDS.index("latency")), code)
    if p.whole:
        around = np.where(
            p.rest.memory_s >= p.rest.compute_s,
            float(BOUNDS.index("weights")),
            float(BOUNDS.index("projections")),
        )
        code = np.where(p.rest.seconds > np.maximum(best, waiting) * p.batch, around, code)
    return np.asarray(code.astype(np.int8))


def floor(p: Parts) -> FloatArray:
    """Compulsory bytes at peak bandwidth, or compulsory multiply-adds at peak rate, whichever is longer."""
    ledger, m, dim = p.ledger, p.machine, p.ledger.stats.shape.head_dim
    asked = ledger.heads(np.asarray(p.traffic.useful_bytes)) / m.peak_bytes_s * p.batch
    value_lanes = np.where(m["value_lanes"] > 0, m["value_lanes"], 0.0)
    passes = total(score_passes(ledger, m, total=True), value_passes(ledger, m, total=True)) * dim
    passes = passes + prepare_passes(ledger, m, total=True)
    rate = (m["lanes"] + value_lanes) * m["multipliers"] / m.cycle_s
    works = passes / rate * p.batch
    if p.whole:
        asked, works = total(asked, p.rest.dram_bytes / m.peak_bytes_s), total(works, p.rest.compute_s)
    return longest(asked, works)
