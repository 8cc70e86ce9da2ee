"""Planes: all designs of one setting that share their outer axes, cut into tiles and priced from `Terms`.

A plane is memory combinations x compute combinations x heads in flight. Both sides are cut into cells of a few
neighbours; a *tile* is a cell of one side with a cell of the other, at every number of heads in flight. The
least and greatest entries of the cells bound all metrics of a tile's points, at the cost of pricing one point.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.search.terms import PHASES, Terms

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

RAW: Final = (
    "latency_s", "attention_s", "rest_s", "model_s", "attention_share", "energy_j", "area_mm2", "power_w",
    "power_chip_w", "dram_bytes",
)  # fmt: skip
"""What a plane prices; ``model_s`` is attention and the model around it in either scope."""

MEMORY_CELL: Final = 8
COMPUTE_CELL: Final = 64
"""Neighbours in a cell, at most: enough for long inner loops, few enough for tight bounds."""

WHOLE_CELL: Final = 2048
"""Most compute combinations in a cell where every point is evaluated and nothing is bounded."""

SLACK: Final = 1e-5
"""Relative; far more than single precision loses on the some forty additions, products and maxima of a metric."""

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "latency_s": ("time",), "attention_s": ("time",), "rest_s": ("rest",), "model_s": ("time", "rest"),
    "attention_share": ("time", "rest"), "energy_j": ("time", "joule", "watt"), "area_mm2": ("mm2",),
    "power_w": ("time", "joule", "watt"), "power_chip_w": ("time", "chip_joule", "chip_watt"),
    "dram_bytes": ("byte",),
}  # fmt: skip


def cell_size(length: int, most: int) -> int:
    """The largest divisor of `length` that is at most `most`."""
    return next(size for size in range(min(length, most), 0, -1) if length % size == 0)


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

    def __init__(self, sides: Sides, terms: Terms, roles: Collection[str]) -> None:
        super().__init__(sides, terms, {*roles} - {"time"})
        if "time" not in roles:
            return
        times = ("series", *PHASES)
        classes = max((len(t) for r in (*times, "beside", "busy") for t in sides._both(r)), default=1)
        self.alone: list[FloatArray] = []
        self.busy: list[FloatArray] = []
        for k in range(classes):
            phases = [_longest(sides.of_class(role, k)) for role in PHASES]
            alone = _total([*sides.of_class("series", k), *(p for p in phases if p is not None)])
            beside = _longest(sides.of_class("beside", k))
            self.alone.append(alone if beside is None else np.maximum(alone, beside))
            busy = _longest(sides.of_class("busy", k))
            self.busy.append(np.zeros_like(self.alone[-1][:1, :1, :1]) if busy is None else busy)
        self.waits = self.alone[0]
        together = _total(self.alone)
        # A layer of a single task has no further ones: its time is all there is.
        self.lone = terms.tasks <= 1.0
        self.first = together if self.lone else together * (1.0 / (terms.tasks - 1.0))

    def attention_s(self, heads: float) -> FloatArray:
        if self.lone:
            return self.first
        seconds, share = self.first, 1.0 / heads
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


class Plane:
    """Planes of one setting at several outer combinations.

    Attributes:
        outer: flat numbers of the outer combinations.
        memory, compute: lengths of the sides; cells: their numbers per side; size: neighbours in a cell.
    """

    def __init__(
        self, terms: Terms, setting: int, outer: IntArray, metrics: Collection[str], bounded: bool = True
    ) -> None:
        self.terms, self.outer = terms, outer
        self.metrics = tuple(dict.fromkeys(metrics))
        self.roles = {role for name in self.metrics for role in _NEEDS[name]}
        if terms.whole and "time" in self.roles:
            self.roles.add("rest")
        self.memory, self.compute = terms.length(terms.memory), terms.length(terms.compute)
        self.size = (
            cell_size(self.memory, MEMORY_CELL),
            cell_size(self.compute, COMPUTE_CELL if bounded else WHOLE_CELL),
        )
        self.cells = (self.memory // self.size[0], self.compute // self.size[1])
        wanted = {*self.roles} - {"time"}
        if "time" in self.roles:
            wanted |= {*PHASES, "series", "beside", "busy"}
        self._tables: tuple[dict[str, FloatArray], dict[str, FloatArray]] = ({}, {})
        for role in sorted(wanted):
            for memory, tables in ((True, self._tables[0]), (False, self._tables[1])):
                table = terms.side(role, setting, outer, memory)
                if table.any():
                    size = self.size[0 if memory else 1]
                    tables[role] = table.reshape(*table.shape[:2], -1, size)

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Outer combinations, memory cells, compute cells."""
        return (len(self.outer), *self.cells)

    @property
    def points_per_tile(self) -> int:
        return self.size[0] * self.size[1] * len(self.terms.flights)

    @cached_property
    def _loose(self) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """The tables of `loose`; times of all tasks of a layer but the first."""
        further = 1.0 - 1.0 / self.terms.tasks if self.terms.tasks > 1.0 else 1.0
        times = {*PHASES, "series", "beside", "busy"}
        kind: Any = np.float32 if self.precise else np.float64

        def cast(tables: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
            return {
                role: np.asarray(t * further if role in times else t, dtype=kind)
                for role, t in tables.items()
            }

        return cast(self._tables[0]), cast(self._tables[1])

    @cached_property
    def precise(self) -> bool:
        """Whether single precision holds every entry (and products of two of them) to its full digits."""
        return all(
            float(t.max()) < 1e15 and float(np.min(t, where=t > 0, initial=1.0)) > 1e-15
            for tables in self._tables
            for t in tables.values()
        )

    def loose(self, tiles: IntArray) -> Loose:
        """Prices of tiles to about `SLACK`, [tiles, memory, compute]."""
        outer, left, right = np.unravel_index(tiles, self.tiles)
        sides = []
        for tables, cells, memory in ((self._loose[0], left, True), (self._loose[1], right, False)):
            if len(tiles) == 1:  # a view
                o, c = int(outer[0]), int(cells[0])
                picked = {role: table[:, o : o + 1, c] for role, table in tables.items()}
            else:
                picked = {role: table[:, outer, cells] for role, table in tables.items()}
            sides.append({role: _lifted(table, memory) for role, table in picked.items()})
        return Loose(Sides(*sides), self.terms, self.roles)

    def points(self, tiles: IntArray, memory: IntArray, compute: IntArray) -> Priced:
        """Exact prices of single points by tile and place within its cells, [points, 1, 1]."""
        outer, left, right = np.unravel_index(tiles, self.tiles)
        left_tables, right_tables = (
            {
                role: _lifted(table[:, outer, cell, place][:, :, None], side)
                for role, table in tables.items()
            }
            for tables, cell, place, side in (
                (self._tables[0], left, memory, True), (self._tables[1], right, compute, False)
            )
        )  # fmt: skip
        return Priced(Sides(left_tables, right_tables), self.terms, self.roles)

    def bounds(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Least and greatest value of every metric in every tile, [outer, memory cells, compute cells].

        They hold up to rounding; users leave room for it.
        """
        low, high = (
            Priced(
                Sides(
                    {r: _lifted(pick(t, axis=3), True) for r, t in self._tables[0].items()},
                    {r: _lifted(pick(t, axis=3), False) for r, t in self._tables[1].items()},
                ),
                self.terms,
                self.roles,
            )
            for pick in (np.min, np.max)
        )
        flights = self.terms.flights
        order = np.argsort(flights)
        least: dict[str, FloatArray] = {}
        most: dict[str, FloatArray] = {}

        def note(name: str, a: FloatArray | float, b: FloatArray | float) -> None:
            least[name] = np.minimum(least[name], a) if name in least else np.asarray(a)
            most[name] = np.maximum(most[name], b) if name in most else np.asarray(b)

        plain = [m for m in self.metrics if m not in ("power_w", "power_chip_w", "attention_share")]
        ratios = [m for m in self.metrics if m not in plain]
        base = [*plain, *(("latency_s", "attention_s") if ratios else ())]
        for flight in order.tolist():
            heads = float(flights[flight])
            a, b = (side.metrics(base, flight, heads) for side in (low, high))
            for name in plain:
                note(name, a[name], b[name])
            for name in ratios:
                if name == "attention_share":
                    x, y = a["attention_s"], b["attention_s"]
                    note(name, x / (x + high.rest), y / (y + low.rest))
                    continue
                fixed, watt = ("fixed", "watt") if name == "power_w" else ("chip", "chip_watt")
                note(
                    name,
                    low.sides.at(watt, flight) + getattr(low, fixed) / b["latency_s"],
                    high.sides.at(watt, flight) + getattr(high, fixed) / a["latency_s"],
                )
        return {
            name: (np.broadcast_to(least[name], self.tiles), np.broadcast_to(most[name], self.tiles))
            for name in self.metrics
        }

    def designs(self, tile: IntArray, memory: IntArray, compute: IntArray, flight: IntArray) -> IntArray:
        """Flat numbers (in the grid) of points by tile, place within its cells, and heads in flight."""
        t = self.terms
        outer, left, right = np.unravel_index(tile, self.tiles)
        numbers = [np.zeros(len(tile), dtype=np.intp) for _ in t.shape]
        for flat, axes in (
            (self.outer[outer], t.outer),
            (left * self.size[0] + memory, t.memory),
            (right * self.size[1] + compute, t.compute),
        ):
            if axes:
                for axis, number in zip(axes, np.unravel_index(flat, _lengths(t, axes)), strict=True):
                    numbers[axis] = number
        if t.heads is not None:
            numbers[t.heads] = flight
        return np.ravel_multi_index(numbers, t.shape) if t.shape else np.zeros(len(tile), dtype=np.intp)


def _lengths(terms: Terms, axes: Sequence[int]) -> list[int]:
    return [terms.shape[a] for a in axes]


def _lifted(table: FloatArray, memory: bool) -> FloatArray:
    """A side's table [..., side] with room for the other side's axis."""
    return table[..., None] if memory else table[..., None, :]
