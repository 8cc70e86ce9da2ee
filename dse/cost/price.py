"""The price of points: latency, energy, area, as arrays over settings and designs.

Unit of work: attention of one decode step, all layers and KV heads, all sequences of the batch. A *task* is
one KV head of one layer of one sequence, with the query heads that share it. Its phases:

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

With H heads in flight the phases of different tasks overlap. No resource can be used more than fully, and H
tasks at a time cannot pass faster than H in T, so a task follows another after a *period*

    P = max(R, T / H),   R = the busiest resource's time over all phases,

and a step of N tasks takes the first in full and a period for every further one: ``sum(P) + mean(T - P)``.
With H = 1 this is the plain sum; it never grows with H.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.budget import Buffers, areas, buffers, energies, multiply_j, powers
from dse.cost.ledger import ZERO, Ledger
from dse.cost.machine import Machine, machine
from dse.cost.memory import Traffic, traffic
from dse.cost.statistics import CHUNK_ORDER, V_AFTER, Statistics
from dse.cost.work import Work, prepare_passes, score_passes, value_passes, work
from dse.cost.workload import Workload
from dse.errors import BadInput, nearest
from dse.hardware import dram

FloatArray = NDArray[np.float64]

METRICS: Final = (
    "latency_s", "floor_s", "energy_j", "dram_bytes", "area_mm2", "power_w", "power_chip_w", "bound",
    "rest_s", "rest_energy_j",
)  # fmt: skip

BOUNDS: Final = (
    "memory", "multipliers", "value multipliers", "exponents", "lane logic", "selection", "ranking",
    "importance", "search", "sorting", "scoreboard", "slow memory", "latency",
)  # fmt: skip
"""Names of the codes in `bound`: the busiest resource, or ``latency`` where too few heads are in flight to
fill it."""


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


def schedule(ledger: Ledger, m: Machine, moved: Traffic, done: Work) -> Schedule:
    """Phases of one task of every class, setting and design."""
    stats = ledger.stats

    def switch(flags: NDArray[np.bool_]) -> FloatArray:
        return np.asarray(float(flags[0])) if (flags == flags[0]).all() else ledger.form(flags)

    by_row = switch(stats.v_after == V_AFTER.index("row"))
    by_token = switch(stats.v_after == V_AFTER.index("token"))
    passes = switch(stats.chunk_order == CHUNK_ORDER.index("row"))
    own_array = np.where(m["value_lanes"] > 0, 1.0, 0.0)
    own_array = np.asarray(own_array.flat[0]) if (own_array == own_array.flat[0]).all() else own_array

    def only(mask: FloatArray, value: FloatArray) -> FloatArray:
        """`value` where the mask is 1; a scalar 0 where it nowhere is, so that shapes stay small."""
        if not mask.any() or not np.any(value):
            return ZERO
        return value if mask.ndim == 0 else np.asarray(mask * value)

    along = 1.0 - by_row
    value_memory = moved.value_s + moved.write_s
    shared, apart = only(1.0 - own_array, done.value_s), only(own_array, done.value_s)
    waits, levels = _waits(ledger, m)
    start = m.memory.start_ns * 1e-9 + m.constants["controller_ns"] * 1e-9
    fetches_meta = ledger.count("meta_read_bytes")
    second_passes = np.minimum(ledger.count("second_passes"), stats.shape.group / stats.sharing)
    drains = ledger.count("row_waits") / stats.sharing
    return Schedule(
        prepare={
            "memory": moved.meta_s,
            "multipliers": done.prepare_s,
            "search": done.search_s,
            "slow memory": done.slow_s,
        },
        first={
            "memory": total(moved.key_s, moved.refetch_s, only(along, value_memory)),
            "multipliers": total(done.score_s, only(along, shared)),
            "value multipliers": only(along, apart),
            "exponents": done.exponent_s,
            "lane logic": done.lane_s,
            "scoreboard": done.scoreboard_s,
            "answers": waits,
        },
        second={
            "memory": only(by_row, value_memory),
            "multipliers": only(by_row, shared),
            "value multipliers": only(by_row, apart),
        },
        series={
            "start of metadata": np.minimum(fetches_meta, 1.0) * start if fetches_meta.any() else ZERO,
            "start of K": np.asarray(start),
            "start of V": only(by_row, np.asarray(start)),
            "start of second passes": only(passes, second_passes * start) if second_passes.any() else ZERO,
            "last answers": levels + only(by_token, np.minimum(ledger.count("v_rows"), 1.0) * m.answer_s),
            "selection": done.select_s,
            "row drain": drains * (m.constants["row_drain_cycles"] * m.cycle_s) if drains.any() else ZERO,
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
    tokens = stats.streams
    window = ledger.form(np.clip(np.where(stats.lag < 0, tokens, stats.lag + 1), 1.0, max(tokens, 1.0)))
    trips: FloatArray = ZERO
    levels: FloatArray = ZERO
    for c in range(1, stats.chunks):
        rows = ledger.count(f"k_rows_{c}")
        if not rows.any() or not in_order.any():
            continue
        asked = np.minimum(rows / tokens, 1.0)
        trips = trips + tokens / window * (1.0 - (1.0 - asked) ** window) * ledger.form(in_order)
        levels = levels + np.minimum(rows, 1.0) * ledger.form(in_order)
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

    @property
    def tasks(self) -> float:
        return float(self.ledger.stats.shape.layers * self.ledger.stats.shape.kv_heads * self.workload.batch)


def parts(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
) -> Parts:
    """The intermediates of `price`, on the axes they depend on."""
    m = machine(design, overrides)
    ledger = Ledger(stats, m.ndim)
    moved, done = traffic(ledger, m), work(ledger, m)
    return Parts(ledger, m, workload, moved, done, schedule(ledger, m, moved, done), buffers(m))


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
        into `BOUNDS`. All but `rest_*` are attention only; `rest_*` are the remaining model.

    Raises:
        BadInput: a parameter or metric is unknown or missing.
        DseError: a counter that is not zero has no price.
    """
    for name in metrics:
        if name not in METRICS:
            raise BadInput(f"price: {name}: no such metric; {nearest(name, METRICS)}")
    p = parts(stats, design, workload, overrides)
    found: dict[str, FloatArray] = {}
    batch, m, ledger = workload.batch, p.machine, p.ledger
    energy = energies(ledger, m, p.traffic, p.buffers)
    area = areas(ledger, m, p.buffers)
    ledger.close()
    wants_energy = not {"energy_j", "power_w", "power_chip_w"}.isdisjoint(metrics)
    if wants_energy or "latency_s" in metrics:
        found["latency_s"] = latency(p)
    if "floor_s" in metrics:
        found["floor_s"] = floor(p)
    if "dram_bytes" in metrics:
        found["dram_bytes"] = total(*(ledger.heads(np.asarray(b)) for b in p.traffic.bytes.values())) * batch
    if "area_mm2" in metrics:
        found["area_mm2"] = total(*area.values())
    if wants_energy:
        power = powers(m, area, p.buffers)
        off_chip = total(*(v for k, v in energy.items() if k.startswith("dram "))) * batch
        on_chip = total(*(v for k, v in energy.items() if not k.startswith("dram "))) * batch
        always = total(*(v for k, v in power.items() if k != "dram background"))
        energy_j = total(always, power["dram background"]) * found["latency_s"]
        energy_j = energy_j + total(off_chip, on_chip)
        if "energy_j" in metrics:
            found["energy_j"] = energy_j
        if "power_w" in metrics:
            found["power_w"] = energy_j / found["latency_s"]
        if "power_chip_w" in metrics:
            found["power_chip_w"] = on_chip / found["latency_s"] + always
    if "bound" in metrics:
        found["bound"] = bound(p)
    if "rest_s" in metrics or "rest_energy_j" in metrics:
        found["rest_s"], found["rest_energy_j"] = rest(p)
    return {name: found[name] for name in METRICS if name in metrics}


def latency(p: Parts) -> FloatArray:
    """Seconds of attention in one step.

    The sum over classes of ``w ((1 - 1/N) max(R, T / H) + T / N)``: the first task, which is the mean task, in
    full, and a period for every further one. Only a product, a maximum and a sum per class have the full shape,
    and they are taken a cache-sized block at a time.
    """
    weights = p.ledger.weights * p.workload.batch
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
    waiting = (p.schedule.alone_s() / p.machine["heads_in_flight"] * weights).sum(axis=0)
    return np.asarray(np.where(waiting > best, float(BOUNDS.index("latency")), code).astype(np.int8))


def floor(p: Parts) -> FloatArray:
    """Compulsory bytes at peak bandwidth, or compulsory multiply-adds at peak rate, whichever is longer."""
    ledger, m, dim = p.ledger, p.machine, p.ledger.stats.shape.head_dim
    asked = ledger.heads(np.asarray(p.traffic.useful_bytes)) / m.peak_bytes_s
    value_lanes = np.where(m["value_lanes"] > 0, m["value_lanes"], 0.0)
    passes = total(score_passes(ledger, m, total=True), value_passes(ledger, m, total=True)) * dim
    passes = passes + prepare_passes(ledger, m, total=True)
    rate = (m["lanes"] + value_lanes) * m["multipliers"] / m.cycle_s
    return longest(asked, passes / rate) * p.workload.batch


def rest(p: Parts) -> tuple[FloatArray, FloatArray]:
    """Seconds and joules of the remaining model; weights are streamed once per step for the whole batch."""
    m, shape = p.machine, p.ledger.stats.shape
    parameters = shape.block_parameters + shape.head_parameters
    size = parameters * shape.weight_bits / 8
    atoms = size / m.memory.atom_bytes
    window = np.maximum(
        1.0, np.minimum(m["outstanding_requests"], m["key_buffer_kib"] * 512 / m.memory.atom_bytes)
    )
    per_page = m.memory.page_bytes / m.memory.atom_bytes
    each = dram.atom_ns(m.memory, m.ports, window, per_page, ZERO) * 1e-9 / m.ports
    wide = np.ceil(shape.weight_bits / m["multiplier_bits"]) * np.ceil(8 / m["operand_bits"])
    passes = parameters * wide * p.workload.batch
    lanes = m["lanes"] + m["value_lanes"]
    seconds = longest(atoms * each, passes * m.cycle_s / (lanes * m["multipliers"]))
    opened = atoms / per_page * m.memory.activation_pj
    moved = (size * 8 * m.memory.bit_pj + opened) * 1e-12
    # Weights pass through the key buffer: written once, read for every sequence.
    buffered = size * (p.buffers.write_j_byte["key"] + p.workload.batch * p.buffers.read_j_byte["key"])
    always = powers(m, areas(p.ledger, m, p.buffers), p.buffers)
    joules = total(moved, buffered, passes * multiply_j(m)) + total(*always.values()) * seconds
    return seconds, joules
