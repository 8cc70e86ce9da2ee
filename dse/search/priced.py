"""Prices of tiles from the tables of their two sides: exactly, or to about `SLACK` in single precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dse.search.terms import PHASES, Terms

FloatArray = NDArray[np.float64]

SLACK: Final = 1e-5
"""Relative; far more than single precision loses on the some forty additions, products and maxima of a metric."""


@dataclass(frozen=True)
class Sides:
    """Tables of some tiles, [K or heads, tiles..., memory, 1] and [K or heads, tiles..., 1, compute].

    A role whose tables are all zero is left out.
    """

    memory: Mapping[str, FloatArray]
    compute: Mapping[str, FloatArray]

    def _both(self, role: str) -> list[FloatArray]:
        return [tables[role] for tables in (self.memory, self.compute) if role in tables]

    def total(self, role: str) -> FloatArray | float:
        """Both sides added."""
        picked = self._both(role)
        return picked[0] + picked[1] if len(picked) == 2 else (picked[0] if picked else 0.0)

    def longest(self, role: str) -> FloatArray | float:
        """The longer of both sides."""
        picked = self._both(role)
        return np.maximum(*picked) if len(picked) == 2 else (picked[0] if picked else 0.0)

    def of_class(self, role: str, number: int) -> list[FloatArray]:
        """The tables of one load class, [tiles..., memory, 1] and [tiles..., 1, compute], where there are any."""
        return [table[number if len(table) > 1 else 0] for table in self._both(role)]

    def at(self, role: str, flight: int) -> FloatArray | float:
        """Both sides added, for one number of heads in flight; [tiles..., memory, compute]."""
        picked = [table[flight if len(table) > 1 else 0] for table in self._both(role)]
        return picked[0] + picked[1] if len(picked) == 2 else (picked[0] if picked else 0.0)


class Priced:
    """Metrics of tiles, one number of heads in flight at a time; what does not depend on it is kept."""

    def __init__(self, sides: Sides, terms: Terms, roles: Collection[str]) -> None:
        self.sides, self.terms = sides, terms
        self.waits: FloatArray | None = None
        if "time" in roles:
            alone = sides.total("series")
            for phase in PHASES:
                alone = alone + sides.longest(phase)
            if "beside" in sides.memory or "beside" in sides.compute:
                alone = np.maximum(alone, sides.longest("beside"))
            works = np.asarray(sides.longest("busy"))
            further = 1.0 - 1.0 / terms.tasks
            alone = np.asarray(alone)
            self.once = np.asarray(_classes(alone) / terms.tasks)
            self.waits, self.works = alone * further, works * further
        self.rest: FloatArray | float = 0.0
        if "rest" in roles or (terms.whole and "time" in roles):
            self.rest = np.asarray(sides.longest("rest"))[0]
        self.fixed = _first(sides.total("joule")) if "joule" in roles else 0.0
        self.chip = _first(sides.total("chip_joule")) if "chip_joule" in roles else 0.0
        self.bytes = _first(sides.total("byte")) if "byte" in roles else 0.0

    def attention_s(self, heads: float) -> FloatArray:
        """Seconds of attention in one step: `dse.cost.price.latency`."""
        assert self.waits is not None
        periods = self.waits * (1.0 / heads)
        np.maximum(periods, self.works, out=periods)
        seconds: FloatArray = periods[0]
        for each in periods[1:]:
            seconds += each
        seconds += self.once
        return seconds

    def metrics(self, names: Collection[str], flight: int, heads: float) -> dict[str, FloatArray]:
        """Raw metrics at one number of heads in flight, each [tiles..., memory, compute] or broadcastable."""
        found: dict[str, FloatArray] = {}
        attention = latency = np.zeros(())
        if self.waits is not None:
            attention = self.attention_s(heads)
            latency = attention + self.rest if self.terms.whole else attention
        energy: FloatArray | None = None
        for name in names:
            if name == "latency_s":
                value: FloatArray | float = latency
            elif name == "attention_s":
                value = attention
            elif name == "rest_s":
                value = self.rest
            elif name == "model_s":
                value = attention + self.rest
            elif name == "attention_share":
                value = attention / (attention + self.rest)
            elif name == "area_mm2":
                value = self.sides.at("mm2", flight)
            elif name == "dram_bytes":
                value = self.bytes
            elif name == "power_chip_w":
                value = self.chip / latency + self.sides.at("chip_watt", flight)
            else:
                if energy is None:
                    energy = np.asarray(self.sides.at("watt", flight) * latency + self.fixed)
                value = energy if name == "energy_j" else energy / latency
            found[name] = np.asarray(value)
        return found


class Loose(Priced):
    """The same, in single precision where it will do, load class by load class, so that its few arrays stay in a core's cache.

    Its times are already those of all tasks but the first, see `Plane.loose`.
    """

    def __init__(self, sides: Sides, terms: Terms, roles: Collection[str], phase: str | None = None) -> None:
        """Args: phase: the only one that takes time, where `Plane.phase` says so."""
        super().__init__(sides, terms, {*roles} - {"time"})
        if "time" not in roles:
            return
        times = ("series", *PHASES)
        classes = max((len(t) for r in (*times, "beside", "busy") for t in sides._both(r)), default=1)
        # A layer of a single task has no further ones: its time is all there is.
        self.lone = terms.tasks <= 1.0
        self.halves: list[tuple[FloatArray | None, FloatArray | None]] = []
        self.alone: list[FloatArray] = []
        self.busy: list[FloatArray] = []
        if phase is not None:
            self._halve(phase, classes)
        for k in range(classes if phase is None else 0):
            phases = [_longest(sides.of_class(role, k)) for role in PHASES]
            alone = _total([*sides.of_class("series", k), *(p for p in phases if p is not None)])
            beside = _longest(sides.of_class("beside", k))
            self.alone.append(alone if beside is None else np.maximum(alone, beside))
            busy = _longest(sides.of_class("busy", k))
            self.busy.append(np.zeros_like(self.alone[-1][:1, :1, :1]) if busy is None else busy)
        self.waits = self.alone[0]
        together = _total(self.alone)
        self.first = together if self.lone else together * (1.0 / (terms.tasks - 1.0))

    def _halve(self, phase: str, classes: int) -> None:
        """The waits and works of each side by themselves: a longest of longest ones is the longest of all."""
        series = self.sides._both("series")
        extra = sum((t[:, :1, :1, :1] for t in series[1:]), series[0][:, :1, :1, :1]) if series else None
        for tables in (self.sides.memory, self.sides.compute):
            wait = tables.get(phase)
            if wait is not None and extra is not None:
                wait = wait + extra
            self.halves.append((wait, tables.get("busy")))
        waits = [w for w, _ in self.halves if w is not None]
        for k in range(classes):
            longest = _longest([w[k % len(w)] for w in waits])  # tables of one class stand for all
            assert longest is not None, "a phase is on a side"
            self.alone.append(longest)

    def attention_s(self, heads: float) -> FloatArray:
        if self.lone:
            return self.first
        seconds, share = self.first, 1.0 / heads
        if self.halves:
            return self._of_halves(share)
        shape = np.broadcast_shapes(*(a.shape for a in (*self.alone, *self.busy)))
        spare, total = (np.empty(shape, dtype=seconds.dtype) for _ in range(2))
        for alone, busy in zip(self.alone, self.busy, strict=True):
            if heads == 1.0:
                np.maximum(alone, busy, out=spare)
            else:
                np.multiply(alone, share, out=spare)
                np.maximum(spare, busy, out=spare)
            seconds = np.add(seconds, spare, out=total)
        return seconds

    def _of_halves(self, share: float) -> FloatArray:
        seconds, sides = self.first, []
        for wait, work in self.halves:
            if wait is not None:
                wait = wait * wait.dtype.type(share)
                sides.append(wait if work is None else np.maximum(wait, work))
            elif work is not None:
                sides.append(work)
        shape = np.broadcast_shapes(seconds.shape, *(s.shape[1:] for s in sides))
        spare, total = (np.empty(shape, dtype=seconds.dtype) for _ in range(2))
        for k in range(len(self.alone)):
            longest = sides[0][k % len(sides[0])]  # tables of one class stand for all
            if len(sides) == 2:
                longest = np.maximum(longest, sides[1][k % len(sides[1])], out=spare)
            seconds = np.add(seconds, longest, out=total)
        return seconds


def _longest(parts: Sequence[FloatArray]) -> FloatArray | None:
    """The longer of both sides; None where there is none."""
    return np.maximum(*parts) if len(parts) == 2 else (parts[0] if parts else None)


def _total(parts: Sequence[FloatArray]) -> FloatArray:
    """The sum, small arrays first so that few additions have the full shape."""
    parts = sorted(parts, key=lambda a: a.size)
    result: FloatArray = parts[0] if parts else np.zeros((1, 1, 1), dtype=np.float32)
    for number, part in enumerate(parts[1:]):
        if number and result.shape == np.broadcast_shapes(result.shape, part.shape):
            np.add(result, part, out=result)
        else:
            result = result + part
    return result


def _classes(values: FloatArray) -> FloatArray:
    """Sum over the load classes, in their order."""
    total: FloatArray = values[0].copy()
    for each in values[1:]:
        total += each
    return total


def _first(values: FloatArray | float) -> FloatArray | float:
    """Without the axis of load classes and that of heads, which such tables do not have."""
    return values if isinstance(values, float) else values[0]
