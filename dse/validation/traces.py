"""SpAtten's published operating points: what the released workload traces of its GPT-2 runs fetch.

The two pruned traces (released with Wang et al., HPCA 2021) follow schedules that this module replays: a prompt of
992 tokens, 32 generated, 64 elements per head. Sums over all heads and steps equal the files' exactly, which
`dse.validation.spatten` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from dse.profiles.schema import Form
from dse.validation.bench import Work, scattered, shape

STEPS: Final = range(993, 1025)
"""Visible tokens of the 32 generated ones."""

MEAN: Final = sum(STEPS) / len(STEPS)
NOMINAL: Final = 1024
"""Length the schedules are fractions of."""

DIM: Final = 64


@dataclass(frozen=True)
class Head:
    """One head of one step: visible tokens, keys kept, value rows kept."""

    visible: int
    keys: int
    values: int


@dataclass(frozen=True)
class Trace:
    """One model's schedule.

    Attributes:
        layers, heads: of the model. keep: keys kept in a layer, given the visible tokens.
        active: heads left in a layer. value_keep: rows of V kept of the keys.
    """

    layers: int
    heads: int
    keep: Callable[[int, int], int]
    active: Callable[[int], int]
    value_keep: float

    def replay(self) -> tuple[Head, ...]:
        """Every head of every step; the first step has no importance scores yet and prunes values only."""
        found = []
        for visible in STEPS:
            for layer in range(self.layers):
                keys = visible if visible == STEPS[0] else self.keep(layer, visible)
                of = NOMINAL if keys == visible else keys
                head = Head(visible, keys, int(self.value_keep * of))
                found += [head] * self.active(layer)
        return tuple(found)

    @property
    def dense_operations(self) -> float:
        """Operations (2 per multiply-add) of dense attention over all steps."""
        return 4.0 * DIM * self.layers * self.heads * sum(STEPS)


def _medium_keep(layer: int, visible: int) -> int:
    for first, kept in ((11, 307), (5, 614), (3, 819), (2, 921)):
        if layer >= first:
            return kept
    return visible


def _small_keep(layer: int, visible: int) -> int:
    for first, kept in ((6, 102), (2, 204), (1, 716), (0, 921)):
        if layer >= first:
            return kept
    return visible


MEDIUM: Final = Trace(24, 16, _medium_keep, lambda layer: 16 if layer < 16 else 13 if layer < 22 else 10, 0.3)
SMALL: Final = Trace(12, 12, _small_keep, lambda layer: 12, 0.2)


@lru_cache(maxsize=16)
def generation(trace: Trace, form: Form, second_passes: float = 0.0) -> Work:
    """All steps of a trace as one piece of work: a layer with every head of every step.

    Args:
        second_passes: fraction of heads that fetch the second chunk of K and compute their scores again.
    """
    each = []
    for head in trace.replay():
        keys, values, visible = float(head.keys), float(head.values), float(head.visible)
        counts = {
            "k_rows_0": keys, "k_runs_0": scattered(keys, visible), "qk_rows_0": keys,
            "v_rows": values, "v_runs": scattered(values, visible), "pv_rows": values,
            "exponentials": keys * (1 + second_passes), "divisions": keys, "importance_adds": keys,
            "select_calls": 1.0, "select_elements": keys, "select_kept": values, "row_waits": 1.0,
            "rows_written": 1.0,
        }  # fmt: skip
        if second_passes:
            counts |= {
                "k_rows_1": second_passes * keys, "k_runs_1": second_passes * scattered(keys, visible),
                "qk_rows_1": second_passes * keys, "second_passes": second_passes,
            }  # fmt: skip
        each.append(counts)
    return Work(form, MEAN, shape(1, len(each)), each)
