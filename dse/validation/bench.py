"""Published workloads as statistics, and their price on shipped presets.

A paper rarely publishes more than kept counts of a mean head. `heads` turns such counts into the statistics
that `dse.cost.price` takes, with the same names a measured profile has; nothing here computes a time or an
energy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dse.cost.explain import explain
from dse.cost.price import price
from dse.cost.statistics import Statistics, statistics
from dse.cost.workload import Workload
from dse.errors import DseError
from dse.hardware.components import COMPONENTS
from dse.hardware.parameters import HardwareValue
from dse.hardware.presets import load_constants, load_preset
from dse.profiles.schema import FETCH_COUNTERS, WORK_COUNTERS, Form, ModelShape, counter_columns

Counts = Mapping[str, float]


def shape(
    layers: int, heads: int, head_dim: int = 64, block: int = 0, head: int = 0, bits: int = 8
) -> ModelShape:
    """A model whose query heads each have keys and values of their own; `block`, `head`: parameters."""
    return ModelShape(layers, heads, heads, head_dim, block, head, bits)


def scattered(rows: float, n: float) -> float:
    """Runs of `rows` kept of `n` tokens independently of each other."""
    return rows * (1.0 - rows / n) + rows / n if n else 0.0


def dense_counts(n: float, queries: float = 1.0) -> dict[str, float]:
    """Counters of dense attention of one head: `queries` rows over n tokens, keys and values fetched once."""
    return {
        "k_rows_0": n, "k_runs_0": 1, "v_rows": n, "v_runs": 1, "qk_rows_0": queries * n, "pv_rows": queries * n,
        "exponentials": queries * n, "divisions": queries * n,
    }  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A published workload: one head's counters, or a list of heads', for one form.

    Attributes:
        form: operand widths and order. n: visible tokens. shape: geometry; one KV head per query head.
        counts: counters by name (no scope); one mapping for all heads, or one per layer and head in order.
    """

    form: Form
    n: float
    shape: ModelShape
    counts: Counts | Sequence[Counts]

    def each(self) -> list[Counts]:
        """Counters of every head, layer by layer."""
        wide = self.shape.layers * self.shape.kv_heads
        return [self.counts] * wide if isinstance(self.counts, Mapping) else list(self.counts)

    def with_counts(self, **more: float) -> Work:
        """The same work with further counters in every head."""
        return replace(self, counts=[{**counts, **more} for counts in self.each()])

    def statistics(self) -> Statistics:
        """What the price takes: heads that are all alike are one load class, so nothing is approximated."""
        each = self.each()
        if len(each) != self.shape.layers * self.shape.kv_heads:
            raise DseError(
                f"validation: {len(each)} heads counted; must be {self.shape.layers * self.shape.kv_heads}"
            )
        times = Counter(tuple(sorted(counts.items())) for counts in each)
        columns = counter_columns()
        table = np.zeros((len(times), len(columns)))
        for i, counts in enumerate(times):
            for name, value in counts:
                if name in FETCH_COUNTERS:
                    for scope in ("group", "head"):
                        table[i, columns.index(f"{scope}.{name}")] = value
                elif name in WORK_COUNTERS:
                    table[i, columns.index(name)] = value
                else:
                    raise DseError(f"validation: {name}: no such counter")
        group = self.shape.group
        classes = replace(self.shape, layers=1, kv_heads=len(times), query_heads=len(times) * group)
        found = statistics([self.form], table.reshape(1, 1, len(times), -1), classes, self.n, classes=0)
        return replace(found, shape=self.shape, weights=np.asarray([list(times.values())], dtype=np.float64))


def general_constants(preset: str) -> dict[str, float]:
    """The values that the constants of a preset's own have for every other machine."""
    return {name: COMPONENTS[name].value for name in load_constants(preset)}


@dataclass(frozen=True)
class Bench:
    """A shipped preset with its own constants, and what a row changes of either, which the row must state."""

    preset: str
    changes: Mapping[str, HardwareValue] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)

    @property
    def design(self) -> dict[str, HardwareValue]:
        return load_preset(self.preset) | dict(self.changes)

    @property
    def components(self) -> dict[str, float]:
        """Constants in force beside the general ones."""
        return load_constants(self.preset) | dict(self.constants)

    def price(self, work: Work, batch: int = 1, scope: str = "attention") -> dict[str, float]:
        """Every metric of the price as a number."""
        workload = Workload(batch=batch, scope=scope)
        found = price(work.statistics(), self.design, workload, overrides=self.components)
        return {name: float(np.ravel(value)[0]) for name, value in found.items()}

    def story(self, work: Work, batch: int = 1) -> dict[str, dict[str, float]]:
        """Where time, energy and area go, as `dse.cost.explain.explain`."""
        return explain(work.statistics(), self.design, Workload(batch=batch), self.components)
