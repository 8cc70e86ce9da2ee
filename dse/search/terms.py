"""A price taken apart: tables on few axes whose sums and maxima are the price of every point.

`dse.cost.price` charges each resource by itself, so every second, joule, watt and square millimetre is a table
over the few axes it depends on: a fetch over the memory's axes, a product over the lanes'. `terms` reads these
tables once for a whole grid of designs. A block of designs is then priced by combining slices, and *bounded* by
combining the least (or greatest) entries of the same slices: everything is a sum, a maximum or a product of
numbers that are not negative, so a bound needs no assumption about which way an axis pulls.

Axes fall into groups. Heads in flight divide a task's time and nothing else. What depends on a memory axis (`M`)
and what depends on a compute axis (`C`) meet only in sums and maxima; an axis that some single table shares with
both sides is an outer one (`O`). An axis that no table depends on is *inert* for these settings (the comparators
of an algorithm that selects nothing): its points are priced together and counted one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.budget import areas, energies, powers
from dse.cost.price import parts
from dse.cost.statistics import Statistics
from dse.cost.workload import LARGEST, Workload

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

HEADS: Final = "heads_in_flight"
MEMORY: Final = frozenset(
    {"dram", "dram_channels", "dram_channel_gbps", "memory_gib", "layout", "row_bus", "outstanding_requests"}
)
"""Axes that start on the memory side; which side an axis starts on decides speed, never a result."""

PHASES: Final = ("first", "second", "prepare")
TIMES: Final = (*PHASES, "beside", "busy")
SUMS: Final = ("series", "joule", "chip_joule", "watt", "chip_watt", "mm2", "byte")
"""Roles whose tables are added; those of `TIMES` and ``rest`` are a resource each, the longest counts."""

FLIGHT_ROLES: Final = ("watt", "chip_watt", "mm2")
"""Roles whose tables may depend on the heads in flight."""


class Inseparable(Exception):
    """A price has a table that `terms` cannot place; such a space is priced block by block instead."""


@dataclass(frozen=True)
class Term:
    """One table: [K or 1, S or 1, axis or 1, ...], K load classes of S settings."""

    role: str
    values: FloatArray

    @property
    def axes(self) -> frozenset[int]:
        """Design axes it depends on."""
        return frozenset(i for i, n in enumerate(self.values.shape[2:]) if n > 1)


@dataclass(frozen=True)
class Terms:
    """All tables of some settings on a grid of designs.

    Attributes:
        shape: lengths of the swept axes. heads: the axis of heads in flight, None where it is not swept.
        flights: its values (one value where it is not swept).
        outer, memory, compute, inert: axes by group, in the grid's order.
        tasks: tasks of a step, see `dse.cost.price`. batch: sequences.
        whole: whether the model around attention is part of the unit of work.
        tokens: tokens of a sequence a step is worth.
    """

    terms: tuple[Term, ...]
    shape: tuple[int, ...]
    heads: int | None
    flights: FloatArray
    outer: tuple[int, ...]
    memory: tuple[int, ...]
    compute: tuple[int, ...]
    inert: tuple[int, ...]
    tasks: float
    batch: float
    whole: bool
    tokens: float

    def length(self, axes: Sequence[int]) -> int:
        """Number of combinations of some axes."""
        return math.prod(self.shape[a] for a in axes)

    @property
    def copies(self) -> int:
        """Points that every priced one stands for: combinations of the inert axes."""
        return self.length(self.inert)

    def side(self, role: str, setting: int, outer: IntArray, memory: bool) -> FloatArray:
        """The tables of a role on one side, combined: [K, outer, side].

        Args:
            outer: flat numbers of combinations of the outer axes.
            memory: the memory side's, else the compute side's (with what depends on neither).

        K is 1 where all classes agree. `FLIGHT_ROLES` have no classes; there the first axis is that of the
        heads in flight, of size 1 where they do not matter.
        """
        mine = self.memory if memory else self.compute
        other = frozenset(self.compute if memory else self.memory)
        chosen = []
        for term in self.terms:
            if term.role != role or term.axes & other:
                continue
            if bool(term.axes & frozenset(self.memory)) == memory:
                chosen.append(self._spread(term.values, setting, outer, mine))
        if not chosen:
            return np.zeros((1, len(outer), self.length(mine)))
        result = chosen[0]
        for part in chosen[1:]:
            result = result + part if role in SUMS else np.maximum(result, part)
        wanted = (result.shape[0], len(outer), self.length(mine))
        return np.ascontiguousarray(np.broadcast_to(result, wanted))

    def _spread(self, values: FloatArray, setting: int, outer: IntArray, mine: Sequence[int]) -> FloatArray:
        """One table as [K or heads, outer, mine]; where it depends on none of mine, of size 1 there."""
        table = values[:, setting if values.shape[1] > 1 else 0]
        if self.heads is not None:
            by_heads = np.moveaxis(table, 1 + self.heads, 0)
            table = by_heads[0][..., None] if len(by_heads) == 1 else by_heads[:, 0][..., None]
            # A swept axis of size 1 stands in for the one taken away, so that axis numbers stay what they are.
            table = np.moveaxis(table, -1, 1 + self.heads)
        others = [i for i in range(1, table.ndim) if i - 1 not in self.outer and i - 1 not in mine]
        table = table.transpose(0, *(1 + a for a in (*self.outer, *mine)), *others)
        table = table.reshape(table.shape[: 1 + len(self.outer) + len(mine)])
        if self.outer:
            at: tuple[IntArray, ...] = np.unravel_index(outer, [self.shape[a] for a in self.outer])
            sizes: tuple[int, ...] = table.shape[1 : 1 + len(self.outer)]
            index: list[Any] = [n if s > 1 else 0 * n for n, s in zip(at, sizes, strict=True)]
            table = table[(slice(None), *index)]
        else:
            table = table[:, None]
        if any(n > 1 for n in table.shape[2:]):
            table = np.broadcast_to(table, (*table.shape[:2], *(self.shape[a] for a in mine)))
        found: FloatArray = table.reshape(*table.shape[:2], -1)
        return found


def terms(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    swept: Sequence[str],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
) -> Terms:
    """The tables of S settings on a grid.

    Args:
        design: every parameter, a scalar or an array along its own axis (axis 0 is the settings').
        swept: names of the axes 1 to n of `design`.

    Raises:
        DseError: a counter that is not zero has no price.
        Inseparable: the batch differs from design to design, or a time follows the heads in flight.
    """
    if workload.batch == LARGEST:
        raise Inseparable
    p = parts(stats, design, workload, overrides)
    ledger, m = p.ledger, p.machine
    energy = energies(ledger, m, p.traffic, p.buffers)
    area = areas(ledger, m, p.buffers)
    ledger.close()
    power = powers(m, area, p.buffers)
    ndim = 2 + len(swept)
    weights = ledger.weights * p.batch
    found: list[Term] = []

    def note(role: str, values: ArrayLike) -> None:
        array = np.asarray(values, dtype=np.float64)
        array = array.reshape((1,) * (ndim - array.ndim) + array.shape)
        if array.any():
            found.append(Term(role, array))

    s = p.schedule
    for role, table in (
        ("first", s.first), ("second", s.second), ("prepare", s.prepare), ("series", s.series),
        ("beside", s.beside), ("busy", s.busy),
    ):  # fmt: skip
        for seconds in table.values():
            note(role, np.asarray(seconds) * weights)
    for name, joules in energy.items():
        note("joule", np.asarray(joules) * p.batch)
        if not name.startswith("dram "):
            note("chip_joule", np.asarray(joules) * p.batch)
    for name, watts in power.items():
        note("watt", watts)
        if name != "dram background":
            note("chip_watt", watts)
    for mm2 in area.values():
        note("mm2", mm2)
    for size in p.traffic.bytes.values():
        note("byte", ledger.heads(np.asarray(size)) * p.batch)
    note("rest", p.rest.memory_s)
    note("rest", p.rest.compute_s)
    if p.whole:
        note("joule", p.rest.dram_j)
        note("joule", p.rest.chip_j)
        note("chip_joule", p.rest.chip_j)
        note("byte", p.rest.dram_bytes)
    shape = tuple(_length(design[name]) for name in swept)
    heads = swept.index(HEADS) if HEADS in swept else None
    if any(t.role not in FLIGHT_ROLES and heads in t.axes for t in found):
        raise Inseparable
    outer, memory, compute, inert = _groups(found, shape, swept, heads)
    return Terms(
        terms=tuple(found),
        shape=shape,
        heads=heads,
        flights=np.asarray(design[HEADS], dtype=np.float64).reshape(-1),
        outer=outer,
        memory=memory,
        compute=compute,
        inert=inert,
        tasks=float(np.asarray(p.tasks).reshape(-1)[0]),
        batch=float(np.asarray(p.batch).reshape(-1)[0]),
        whole=p.whole,
        tokens=float(workload.context or stats.n) if workload.phase == "prefill" else 1.0,
    )


def _length(values: Any) -> int:
    return int(np.asarray(values).size)


def _groups(
    found: Sequence[Term], shape: Sequence[int], swept: Sequence[str], heads: int | None
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Outer, memory, compute and inert axes such that no table depends on both memory and compute."""
    used = frozenset().union(*(t.axes for t in found)) | {heads}
    inert = {i for i in range(len(shape)) if i not in used}
    memory = {i for i, name in enumerate(swept) if name in MEMORY} - inert
    compute = set(range(len(shape))) - memory - {heads} - inert
    mixed = sorted({t.axes - {heads} for t in found}, key=lambda axes: (len(axes), sorted(axes)))
    for axes in mixed:
        left, right = axes & memory, axes & compute
        if left and right:
            fewer = min((left, right), key=lambda side: math.prod(shape[a] for a in side))
            memory -= fewer
            compute -= fewer
    outer = set(range(len(shape))) - memory - compute - {heads} - inert
    return tuple(sorted(outer)), tuple(sorted(memory)), tuple(sorted(compute)), tuple(sorted(inert))
