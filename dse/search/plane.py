"""Planes: all designs of one setting that share their outer axes, cut into tiles and priced from `Terms`.

A plane is memory combinations x compute combinations x heads in flight, each point of it standing for one point
per combination of the inert axes. Both sides are cut into cells of a few
neighbours; a *tile* is a cell of one side with a cell of the other, at every number of heads in flight. The
least and greatest entries of the cells bound all metrics of a tile's points, at the cost of pricing one point.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.search.priced import Loose, Priced, Sides
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

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "latency_s": ("time",), "attention_s": ("time",), "rest_s": ("rest",), "model_s": ("time", "rest"),
    "attention_share": ("time", "rest"), "energy_j": ("time", "joule", "watt"), "area_mm2": ("mm2",),
    "power_w": ("time", "joule", "watt"), "power_chip_w": ("time", "chip_joule", "chip_watt"),
    "dram_bytes": ("byte",),
}  # fmt: skip


def cell_size(length: int, most: int) -> int:
    """The largest divisor of `length` that is at most `most`."""
    return next(size for size in range(min(length, most), 0, -1) if length % size == 0)


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
        return self.size[0] * self.size[1] * len(self.terms.flights) * self.terms.copies

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

    @cached_property
    def phase(self) -> str | None:
        """The phase that takes time, where it is the only one, nothing goes on beside it, and what comes in series
        takes every point the same time."""
        if self.terms.tasks <= 1.0 or "time" not in self.roles:
            return None
        both = [tables for tables in self._tables if tables]
        phases = {role for role in PHASES for tables in both if role in tables}
        series = [tables["series"] for tables in both if "series" in tables]
        if len(phases) != 1 or any("beside" in tables for tables in both):
            return None
        return phases.pop() if all((t == t[:, :1, :1, :1]).all() for t in series) else None

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
        return Loose(Sides(*sides), self.terms, self.roles, self.phase)

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
        """Flat numbers (in the grid) of points by tile, place within its cells, and heads in flight: [n, copies]."""
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
        if not t.shape:
            return np.zeros((len(tile), 1), dtype=np.intp)
        first = np.ravel_multi_index(numbers, t.shape)
        copies = np.zeros(1, dtype=np.intp)
        for axis in t.inert:
            step = math.prod(t.shape[axis + 1 :])
            copies = (copies[:, None] + step * np.arange(t.shape[axis])).reshape(-1)
        return np.asarray(first[:, None] + copies, dtype=np.intp)


def _lengths(terms: Terms, axes: Sequence[int]) -> list[int]:
    return [terms.shape[a] for a in axes]


def _lifted(table: FloatArray, memory: bool) -> FloatArray:
    """A side's table [..., side] with room for the other side's axis."""
    return table[..., None] if memory else table[..., None, :]
