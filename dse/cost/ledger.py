"""Counters on their way into a price, with a record of which were charged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dse.cost.statistics import COUNTERS, Statistics
from dse.cost.workload import Workload
from dse.errors import DseError

FloatArray = NDArray[np.float64]

ZERO = np.zeros(())


class Ledger:
    """Statistics shaped to broadcast against designs of `ndim` axes.

    Counters come as [K, S, 1, ...] (`count`) or summed over the heads as [S, 1, ...] (`total`); a counter
    that is zero everywhere comes as a scalar 0, so that what depends on it stays small. `close` raises if a
    counter that is not zero was never asked for: every counted action must have a price.

    Attributes:
        rebuilds: whether the multiply-adds of rebuilt tokens are attention's to pay, or the model's (`rest`).
        prefill: whether a task is a prompt's pass, in tiles of queries, and not one token's step.
        positions: queries of a task, tiles: groups of them that share a fetch: [K, S, 1, ...], or 1 in decode.
        tile: queries of a tile.
        population: rows that the fetches of a task range over, those of each tile counted again.
    """

    def __init__(self, stats: Statistics, ndim: int, workload: Workload | None = None) -> None:
        workload = workload or Workload()
        self.stats = stats
        self.rebuilds = workload.scope == "attention"
        self.prefill = workload.phase == "prefill"
        self.ones = (1,) * (ndim - 1)
        self.asked: set[str] = set()
        self.weights = self._per_class(stats.weights)
        self.positions = self.tiles = self.tile = np.ones(())
        self.population: FloatArray = np.asarray(stats.streams)
        if self.prefill:
            own = stats.counters["rows_written"] * self.share
            self.positions = np.maximum(self._per_class(own), 1.0)
            self.tile = np.minimum(float(workload.query_tile), self.positions)
            self.tiles = np.ceil(self.positions / self.tile)
            # A tile ranges over what its last query sees.
            self.population = self.tiles * (stats.streams + (self.tile - 1.0) / 2.0 * stats.streams / stats.n)

    @property
    def share(self) -> float:
        """Passes of a token over its counts: a count of each query head is one pass."""
        return self.stats.sharing / self.stats.shape.group

    def _per_class(self, values: FloatArray) -> FloatArray:
        return np.ascontiguousarray(values.T).reshape(*values.T.shape, *self.ones)

    def count(self, name: str) -> FloatArray:
        """Mean per head of each class, [K, S, 1, ...]."""
        self.asked.add(name)
        values = self.stats.counters[name]
        return self._per_class(values) if values.any() else ZERO

    def total(self, name: str) -> FloatArray:
        """Sum over all heads of the model, [S, 1, ...]."""
        self.asked.add(name)
        values = self.stats.counters[name]
        if not values.any():
            return ZERO
        return np.asarray((values * self.stats.weights).sum(axis=1).reshape(-1, *self.ones))

    def form(self, values: NDArray[np.generic]) -> FloatArray:
        """One number per setting, [S, 1, ...]."""
        return np.asarray(values, dtype=np.float64).reshape(-1, *self.ones)

    def heads(self, values: FloatArray) -> FloatArray:
        """Sum of a per-class quantity over all heads: [K, S, ...] -> [S, ...]."""
        if values.ndim == 0:
            return values
        return np.asarray((values * self.weights).sum(axis=0))

    def close(self) -> None:
        """Check that every counter that is not zero was charged.

        Raises:
            DseError: one was not.
        """
        left = [name for name in COUNTERS if name not in self.asked and self.stats.counters[name].any()]
        if left:
            raise DseError(
                f"price: {left[0]}: counted {self.stats.counters[left[0]].max():g} times, has no price"
            )
