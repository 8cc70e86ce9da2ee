"""The price of points: latency, energy, area, as arrays over settings and designs.

Unit of work: one decode step (or one prompt), all layers and KV heads, all sequences of the batch; attention
alone, or the whole model (`dse.cost.model`). It is made of tasks, each one KV head of one layer of one sequence;
`dse.cost.schedule` says how long one takes alone, ``T``, and how busy it keeps every resource.

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
from dse.cost.schedule import Schedule, longest, schedule, total
from dse.cost.statistics import Statistics
from dse.cost.work import Work, prepare_passes, score_passes, value_passes, work
from dse.cost.workload import Workload
from dse.errors import BadInput, nearest

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
