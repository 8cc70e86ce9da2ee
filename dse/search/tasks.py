"""Pieces of a sweep: what a worker is given, and what it does with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dse.search.hunt import Hunter
from dse.search.identity import Identity
from dse.search.metrics import Meter
from dse.search.shards import Chunk, Found, Goal, Ranges, cut, fastest_latencies, search

FloatArray = NDArray[np.float64]

BLOCKS_PER_TASK: Final = 8


@dataclass(frozen=True)
class Task:
    """A piece of a sweep: settings of a chunk on some designs.

    Attributes:
        blocks: priced one after the other; None where the price is taken apart.
        settings: rows of the chunk. part, parts: which part of the outer combinations.
        known: costs that points of the algorithm are known to reach.
    """

    chunk: Chunk
    meter: Meter
    goal: Goal
    identity: Identity
    blocks: tuple[Ranges, ...] | None
    settings: tuple[int, int] = (0, 0)
    part: int = 0
    parts: int = 1
    known: FloatArray | None = None
    skip: bool = True


def do(task: Task) -> Found:
    """What the points of a task came to."""
    chunk, meter, goal, identity = task.chunk, task.meter, task.goal, task.identity
    if task.blocks is not None:
        return search(chunk, task.blocks, meter, goal, identity)
    first, last = task.settings
    rows = np.arange(last - first)
    part = replace(
        chunk, first=chunk.first + first, knobs=chunk.knobs[first:last], rows=chunk.rows.take(rows + first)
    )
    hunter = Hunter(part, meter, goal, identity, task.known, task.skip)
    return hunter.search(rows, task.part, task.parts)


def belongs(piece: Found, task: Task) -> bool:
    """Whether what was read from a file can be what a task came to: all it names is in the task's reach."""
    chunk = task.chunk
    settings, designs = len(chunk.knobs), math.prod(chunk.grid.shape)
    named = np.array([*piece.setting.tolist(), *piece.fastest], dtype=np.intp) - chunk.first
    inside = not len(named) or (named.min() >= 0 and named.max() < settings)
    known = not len(piece.design) or (piece.design.min() >= 0 and piece.design.max() < designs)
    points = piece.evaluated + sum(piece.excluded.values())
    return bool(
        inside
        and known
        and piece.costs.shape[1] == len(task.goal.objectives)
        and points <= settings * designs
    )


def fastest_of(given: tuple[Chunk, tuple[Ranges, ...], Meter, Goal]) -> dict[int, float]:
    return fastest_latencies(*given)


def latencies(task: Task, part: Found) -> list[tuple[int, float]]:
    """Setting numbers and latencies (to the last bit, costs are rounded) of what a task found."""
    chunk = task.chunk
    if not len(part.setting):
        return []
    rows = chunk.rows.take(part.setting - chunk.first)
    found = task.meter.measure(rows, chunk.grid.rows(part.design), ["latency_s"], 1)["latency_s"]
    values = np.broadcast_to(found, part.setting.shape)
    return list(zip(part.setting.tolist(), values.tolist(), strict=True))


def groups(chunk: Chunk) -> Iterator[tuple[Ranges, ...]]:
    """The blocks of a chunk in groups that are worth sending to a worker."""
    blocks = tuple(cut((len(chunk.knobs), *chunk.grid.shape)))
    for start in range(0, len(blocks), BLOCKS_PER_TASK):
        yield blocks[start : start + BLOCKS_PER_TASK]
