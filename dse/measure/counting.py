"""From masks to counters: what one layer's attention touched, per KV head."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Attended, BoolArray
from dse.algorithms.operands import per_head
from dse.profiles.schema import HISTOGRAM_BINS, HISTOGRAMS, MAX_CHUNKS, counter_columns

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

COLUMNS: Final = {name: i for i, name in enumerate(counter_columns())}


def runs(mask: BoolArray) -> IntArray:
    """Number of maximal runs of True along the last axis."""
    starts = mask[..., 1:] & ~mask[..., :-1]
    found: IntArray = starts.sum(axis=-1) + mask[..., 0]
    return found


def runs_per_head(mask: BoolArray) -> FloatArray:
    """Number of runs along the last axis for each index of axis 1."""
    return per_head(mask[..., 1:] & ~mask[..., :-1]) + per_head(mask[..., :1])


def run_lengths(mask: BoolArray) -> IntArray:
    """Lengths of all runs of True along the last axis, rows concatenated."""
    padded = np.zeros((mask[..., 0].size, mask.shape[-1] + 2), np.int8)
    padded[:, 1:-1] = mask.reshape(len(padded), -1)
    edges = np.flatnonzero(np.diff(padded.ravel()))
    return edges[1::2] - edges[0::2]


def histogram(values: IntArray) -> FloatArray:
    """Counts in the schema's power-of-two bins."""
    exponent = np.zeros(values.size, np.int64)
    positive = values.ravel() > 0
    exponent[positive] = np.floor(np.log2(values.ravel()[positive])).astype(np.int64) + 1
    return np.bincount(np.minimum(exponent, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS).astype(float)


def _union(mask: BoolArray) -> BoolArray:
    """[B, H, G, T, N] to [B, H, T, N]: wanted by any query head of the group."""
    union = mask[:, :, 0].copy()
    for g in range(1, mask.shape[2]):
        union |= mask[:, :, g]
    return union


class Tally:
    """Running totals of one setting: counters [L, H, columns] and histograms [L, H, 2, bins]."""

    def __init__(self, layers: int, heads: int) -> None:
        self.counters = np.zeros((layers, heads, len(COLUMNS)))
        self.histograms = np.zeros((layers, heads, len(HISTOGRAMS), HISTOGRAM_BINS))

    def add(self, layer: int, heads: slice, attended: Attended, visible: BoolArray) -> None:
        """Add one call's events; `visible` [T, N] says what a mask of `None` stands for."""
        batch, _, group, queries, _ = attended.out.shape
        table = self.counters[layer, heads]
        streams = [(f"k_rows_{c}", f"k_runs_{c}", m) for c, m in enumerate(attended.k_masks)]
        streams.append(("v_rows", "v_runs", attended.v_mask))
        asked = {}
        for rows_name, runs_name, mask in streams:
            if mask is None:
                rows, spans = float(visible.sum()) * batch, float(runs(visible).sum()) * batch
                table[:, COLUMNS[f"group.{rows_name}"]] += rows
                table[:, COLUMNS[f"group.{runs_name}"]] += spans
                table[:, COLUMNS[f"head.{rows_name}"]] += rows * group
                table[:, COLUMNS[f"head.{runs_name}"]] += spans * group
                asked[rows_name] = np.full(len(table), rows * group)
                continue
            union = _union(mask)
            asked[rows_name] = per_head(mask)
            table[:, COLUMNS[f"group.{rows_name}"]] += per_head(union)
            table[:, COLUMNS[f"group.{runs_name}"]] += runs_per_head(union)
            table[:, COLUMNS[f"head.{rows_name}"]] += asked[rows_name]
            table[:, COLUMNS[f"head.{runs_name}"]] += runs_per_head(mask)
        self._add_histograms(layer, heads, attended.v_mask, visible, batch)
        table[:, COLUMNS["group.rows_written"]] += batch * queries
        table[:, COLUMNS["head.rows_written"]] += batch * queries * group
        for c in range(MAX_CHUNKS):
            if f"qk_rows_{c}" not in attended.work and f"k_rows_{c}" in asked:
                table[:, COLUMNS[f"qk_rows_{c}"]] += asked[f"k_rows_{c}"]
        if "pv_rows" not in attended.work:
            table[:, COLUMNS["pv_rows"]] += asked["v_rows"]
        for name, total in attended.work.items():
            table[:, COLUMNS[name]] += total

    def _add_histograms(
        self, layer: int, heads: slice, mask: BoolArray | None, visible: BoolArray, batch: int
    ) -> None:
        table = self.histograms[layer, heads]
        if mask is None:
            count = histogram(visible.sum(axis=-1)) * batch
            table[:, 0] += count
            table[:, 1] += count  # one run per query, as long as the context
            return
        union = _union(mask)
        for h in range(len(table)):
            table[h, 0] += histogram(union[:, h].sum(axis=-1))
            table[h, 1] += histogram(run_lengths(union[:, h]))

    def means(self, steps: int) -> tuple[FloatArray, FloatArray]:
        """Counters per step, and histograms that sum to 1 (0 where nothing was counted)."""
        total = self.histograms.sum(axis=-1, keepdims=True)
        return self.counters / steps, self.histograms / np.maximum(total, 1e-300)
