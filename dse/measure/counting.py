"""From masks to counters: what one layer's attention touched, per KV head.

Masks are counted as packed bits, 64 tokens a word: a union is an OR of words, the rows of a stream are the ones in
them and its runs the ones whose lower neighbour is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Attended, BoolArray
from dse.profiles.schema import (
    HISTOGRAM_BINS,
    HISTOGRAMS,
    MAX_CHUNKS,
    QUERY_TILES,
    counter_columns,
    tile_columns,
)

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Words = NDArray[np.uint64]

COLUMNS: Final = {name: i for i, name in enumerate(counter_columns())}
TILE_COLUMNS: Final = {name: i for i, name in enumerate(tile_columns())}

_ONES: Final = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def pack(mask: BoolArray) -> Words:
    """[..., N] to words [..., N // 64 + 1], the first token in the lowest bit; the last bit is always 0."""
    size = mask.shape[-1]
    out = np.zeros((*mask.shape[:-1], (size // 64 + 1) * 8), np.uint8)
    out[..., : -(-size // 8)] = np.packbits(mask, axis=-1, bitorder="little")
    return out.view("<u8")


def ones(words: Words) -> IntArray:
    """Ones in every word."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words))
    found: IntArray = _ONES[words.view(np.uint8)].reshape(*words.shape, 8).sum(axis=-1)
    return found


def _shifted(words: Words) -> Words:
    """Every bit moved to the next token."""
    out = words << np.uint64(1)
    out[..., 1:] |= words[..., :-1] >> np.uint64(63)
    return out


def _per_head(words: Words) -> FloatArray:
    """Ones for every index of axis 1."""
    axes = tuple(axis for axis in range(words.ndim) if axis != 1)
    return np.asarray(ones(words).sum(axis=axes, dtype=np.int64), float)


def rows_and_runs(words: Words) -> tuple[FloatArray, FloatArray]:
    """Tokens, and maximal runs of consecutive tokens, of packed [B, H, ..., W], summed to [H]."""
    return _per_head(words), _per_head(words & ~_shifted(words))


def run_lengths(words: Words) -> IntArray:
    """Lengths of all runs of packed [..., W], rows concatenated."""
    edges = words ^ _shifted(words)
    bits = np.unpackbits(edges.view(np.uint8), axis=-1, bitorder="little")
    # A row begins outside a run and its last bit is 0: begins and ends take turns.
    places = np.flatnonzero(bits.view(np.bool_))
    return np.asarray(places[1::2] - places[0::2])


def histogram(values: IntArray) -> FloatArray:
    """Counts in the schema's power-of-two bins."""
    _, exponent = np.frexp(values.ravel().astype(np.float64))
    return np.bincount(np.minimum(exponent, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS).astype(float)


def _over_group(words: Words) -> Words:
    """[B, H, G, T, W] to [B, H, T, W]: wanted by any query head of the group."""
    return np.asarray(np.bitwise_or.reduce(words, axis=2))


def joined(words: Words, queries: int) -> Words:
    """[..., T, W] to [..., ceil(T / queries), W]: wanted by any of every `queries` consecutive queries."""
    count, width = words.shape[-2:]
    missing = -count % queries
    if missing:
        nothing = np.zeros((*words.shape[:-2], missing, width), words.dtype)
        words = np.concatenate([words, nothing], axis=-2)
    return np.asarray(np.bitwise_or.reduce(words.reshape(*words.shape[:-2], -1, queries, width), axis=-2))


class Tally:
    """Running totals of one setting: counters [L, H, columns] and histograms [L, H, 2, bins]."""

    def __init__(self, layers: int, heads: int) -> None:
        self.counters = np.zeros((layers, heads, len(COLUMNS)))
        self.histograms = np.zeros((layers, heads, len(HISTOGRAMS), HISTOGRAM_BINS))

    def add(self, layer: int, heads: slice, attended: Attended, visible: BoolArray) -> None:
        """Add one call's events; `visible` [T, N] says what a mask of `None` stands for."""
        batch, _, group, queries, _ = attended.out.shape
        table = self.counters[layer, heads]
        asked = {}
        for rows_name, runs_name, words, times in streams(attended, visible):
            rows, spans = rows_and_runs(words)
            union_rows, union_spans = rows_and_runs(union := _over_group(words))
            share = group if words.shape[2] == 1 else 1  # one row of words stands for all heads of the group
            asked[rows_name] = rows * (times * share)
            table[:, COLUMNS[f"group.{rows_name}"]] += union_rows * times
            table[:, COLUMNS[f"group.{runs_name}"]] += union_spans * times
            table[:, COLUMNS[f"head.{rows_name}"]] += asked[rows_name]
            table[:, COLUMNS[f"head.{runs_name}"]] += spans * (times * share)
            if rows_name == "v_rows":
                self._add_histograms(layer, heads, union, times)
        table[:, COLUMNS["group.rows_written"]] += batch * queries
        table[:, COLUMNS["head.rows_written"]] += batch * queries * group
        for c in range(MAX_CHUNKS):
            if f"qk_rows_{c}" not in attended.work and f"k_rows_{c}" in asked:
                table[:, COLUMNS[f"qk_rows_{c}"]] += asked[f"k_rows_{c}"]
        if "pv_rows" not in attended.work:
            table[:, COLUMNS["pv_rows"]] += asked["v_rows"]
        for name, total in attended.work.items():
            table[:, COLUMNS[name]] += total

    def _add_histograms(self, layer: int, heads: slice, union: Words, times: int) -> None:
        table = self.histograms[layer, heads]
        for h in range(len(table)):
            mine = union[:, min(h, union.shape[1] - 1)]
            table[h, 0] += histogram(ones(mine).sum(axis=-1, dtype=np.int64)) * times
            table[h, 1] += histogram(run_lengths(mine)) * times

    def means(self, steps: int) -> tuple[FloatArray, FloatArray]:
        """Counters per step, and histograms that sum to 1 (0 where nothing was counted)."""
        total = self.histograms.sum(axis=-1, keepdims=True)
        return self.counters / steps, self.histograms / np.maximum(total, 1e-300)


def streams(attended: Attended, visible: BoolArray) -> Iterator[tuple[str, str, Words, int]]:
    """Every K chunk and V: names of its counters, packed masks [B, H, G, T, W], and how many windows they stand for.

    A mask of `None` is the same for all windows and heads: its words are [1, 1, 1, T, W].
    """
    everything = pack(visible)[None, None, None]
    batch = attended.out.shape[0]
    for c, mask in enumerate((*attended.k_masks, attended.v_mask)):
        last = c == len(attended.k_masks)
        names = ("v_rows", "v_runs") if last else (f"k_rows_{c}", f"k_runs_{c}")
        yield (*names, everything, batch) if mask is None else (*names, pack(mask), 1)


class TileTally(Tally):
    """Also counts what tiles of consecutive queries fetch together.

    Attributes:
        tiles: [len(QUERY_TILES), L, H, len(tile_columns())].
    """

    def __init__(self, layers: int, heads: int) -> None:
        super().__init__(layers, heads)
        self.tiles = np.zeros((len(QUERY_TILES), layers, heads, len(TILE_COLUMNS)))

    def add(self, layer: int, heads: slice, attended: Attended, visible: BoolArray) -> None:
        """As `Tally.add`; the first query of every call but the first must begin a tile of the largest size."""
        super().add(layer, heads, attended, visible)
        group = attended.out.shape[2]
        table = self.tiles[:, layer, heads]
        for rows_name, runs_name, words, times in streams(attended, visible):
            share = group if words.shape[2] == 1 else 1
            before = 1
            for level, tile in enumerate(QUERY_TILES):
                words = joined(words, tile // before)
                before = tile
                for scope, of, factor in (("group", _over_group(words), 1), ("head", words, share)):
                    rows, spans = rows_and_runs(of)
                    table[level, :, TILE_COLUMNS[f"{scope}.{rows_name}"]] += rows * (times * factor)
                    table[level, :, TILE_COLUMNS[f"{scope}.{runs_name}"]] += spans * (times * factor)
