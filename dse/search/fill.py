"""Batches that do not fit in memory: such points cannot run, whatever a space asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dse.cost.ledger import Ledger
from dse.cost.machine import machine
from dse.cost.model import memory_fill, sequences
from dse.search.metrics import Meter
from dse.search.shards import Chunk
from dse.space.definition import Limits

FILL: Final = "memory_fill"
"""Bytes held over capacity."""


def with_memory(constraints: Mapping[str, Limits]) -> dict[str, Limits]:
    """The constraints, and that a batch fits in memory."""
    own = constraints.get(FILL, Limits())
    high = 1.0 if own.high is None else min(own.high, 1.0)
    return {**constraints, FILL: Limits(own.low, high)}


def overfull(chunk: Chunk, meter: Meter) -> bool:
    """Whether the batch of some point of a chunk exceeds its memory, by the product's own price."""
    designs = machine(chunk.grid.block(tuple((0, n) for n in chunk.grid.shape)), meter.overrides)
    ledger = Ledger(chunk.rows.stats, designs.ndim, meter.workload)
    batch = sequences(ledger, designs, meter.workload)
    return bool((memory_fill(ledger, designs, meter.workload, batch) > 1.0).any())
