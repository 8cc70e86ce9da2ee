"""What one measured setting gave, and the shard file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.archives import Arrays, Damaged, read_arrays
from dse.measure.counting import Tally
from dse.measure.material import Expected, Window, log_probabilities
from dse.measure.npz import write_arrays
from dse.models.protocol import Model
from dse.profiles.schema import HISTOGRAM_BINS, HISTOGRAMS, QUERY_TILES, counter_columns, tile_columns

FloatArray = NDArray[np.floating[Any]]

ERROR_WINDOWS: Final = 4
"""Windows (the first ones) on which attention outputs are compared with dense ones."""


@dataclass
class Score:
    """What one setting did over all windows.

    Attributes:
        nll: [W, T] negative log-likelihood of every scored target; `dense_nll` likewise, `distant` [W, T] bool.
        kl: [W, T] KL(dense || setting), nats; `agree` [W, T] bool: same most likely token.
        output_error: mean of |o - o_dense| / |o_dense| per query head over the compared calls.
        counters: [L, H, columns] per decode step (prefill: per prompt); histograms [L, H, 2, bins].
        tile_counters: prefill only, [tiles, L, H, columns]: fetches when a tile of queries shares them.
    """

    nll: FloatArray
    dense_nll: FloatArray
    distant: NDArray[np.bool_]
    kl: FloatArray
    agree: NDArray[np.bool_]
    output_error: float
    counters: FloatArray
    histograms: FloatArray
    tile_counters: FloatArray | None = None

    def not_finite(self) -> str:
        """The name of a result that is not finite everywhere, as it is kept; empty where all are."""
        with np.errstate(over="ignore"):
            kept = {
                name: np.asarray(value).astype(np.float32)
                for name, value in vars(self).items()
                if value is not None
            }
        return next((name for name, values in kept.items() if not np.isfinite(values).all()), "")


class Errors:
    """Mean relative error of attention outputs."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, out: FloatArray, dense: FloatArray) -> None:
        """Compare [..., T, d] outputs of the same inputs, head by head."""
        gap = np.sqrt(np.square(out - dense).sum(axis=(-1, -2), dtype=np.float64))
        size = np.sqrt(np.square(dense).sum(axis=(-1, -2), dtype=np.float64))
        self.total += float((gap / np.maximum(size, 1e-30)).sum())
        self.count += gap.size

    @property
    def mean(self) -> float:
        return self.total / max(self.count, 1)


class Gathered:
    """Per-window results as they come in."""

    def __init__(self) -> None:
        self.rows: list[tuple[NDArray[Any], ...]] = []

    def add(self, model: Model, window: Window, dense: Expected, hidden: FloatArray) -> None:
        """Score `hidden` [T, D], the last layer's output at the window's last T positions."""
        targets = window.tokens[len(window.tokens) - len(hidden) :]
        parts = []
        for rows, log_p in log_probabilities(model, hidden):
            reference = np.asarray(dense.log_probabilities[rows])
            target, at = targets[rows], np.arange(len(log_p))
            kl = (np.exp(reference) * (reference - log_p)).sum(axis=-1, dtype=np.float64)
            agree = reference.argmax(axis=-1) == log_p.argmax(axis=-1)
            nll, dense_nll = -log_p[at, target], -reference[at, target]
            parts.append((nll.astype(np.float64), dense_nll.astype(np.float64), kl, agree))
        nll, dense_nll, kl, agree = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.rows.append((nll, dense_nll, np.asarray(dense.distant), kl, agree))

    def finish(self, error: float, tally: Tally, steps: int) -> Score:
        nll, dense_nll, distant, kl, agree = (np.stack(column) for column in zip(*self.rows, strict=True))
        return Score(nll, dense_nll, distant, kl, agree, error, *tally.means(steps))


def save_score(path: Path, result: Score, header: str) -> None:
    """Write one shard, replacing it in one step; `header` says which setting and material it belongs to."""
    tiles: dict[str, Any] = {}
    if result.tile_counters is not None:
        tiles["tile_counters"] = result.tile_counters.astype(np.float32)
    arrays = {
        "header": np.array(header),
        "nll": result.nll.astype(np.float32),
        "dense_nll": result.dense_nll.astype(np.float32),
        "distant": result.distant,
        "kl": result.kl.astype(np.float32),
        "agree": result.agree,
        "output_error": np.array(result.output_error),
        "counters": result.counters.astype(np.float32),
        "histograms": result.histograms.astype(np.float32),
        **tiles,
    }
    write_arrays(path, arrays)


def read_header(path: Path) -> str | None:
    """What the shard at `path` says it belongs to; None where it cannot be read. No other array is unpacked."""
    try:
        return str(read_arrays(path, only=("header",))["header"])
    except Damaged:
        return None


def load_score(path: Path, header: str, heads: tuple[int, int]) -> Score | None:
    """The shard at `path`; None where it is missing, damaged, or belongs to something else.

    `heads` are the model's layers and KV heads.
    """
    try:
        data = read_arrays(path)
        if str(data["header"]) != header:
            return None
        tiles = data.get("tile_counters")
        if not _sound(data, json.loads(header), heads):
            return None
        fields: dict[str, Any] = {name: data[name] for name in KINDS}
    except Damaged:
        return None
    fields["output_error"] = float(fields["output_error"])
    for name in ("nll", "dense_nll", "kl"):
        fields[name] = fields[name].astype(np.float64)
    return Score(**fields, tile_counters=tiles)


KINDS: Final = {
    "nll": "f", "dense_nll": "f", "distant": "b", "kl": "f", "agree": "b", "output_error": "f", "counters": "f",
    "histograms": "f",
}  # fmt: skip
"""Arrays of a shard and the kinds of their dtypes."""


def _sound(data: Arrays, header: Mapping[str, Any], heads: tuple[int, int]) -> bool:
    """Whether a shard's arrays have the shapes that belong together, and hold finite numbers only."""
    if any(data[name].dtype.kind != kind for name, kind in KINDS.items()):
        return False
    context, prefill = header["context"], header.get("phase") == "prefill"
    scored = context // 4 if prefill else context - context * 3 // 4
    steps = (len(header["windows"]), scored)
    shapes = {
        **dict.fromkeys(("nll", "dense_nll", "distant", "kl", "agree"), steps),
        "output_error": (),
        "counters": (*heads, len(counter_columns())),
        "histograms": (*heads, len(HISTOGRAMS), HISTOGRAM_BINS),
    }
    if prefill:
        shapes["tile_counters"] = (len(QUERY_TILES), *heads, len(tile_columns()))
    elif "tile_counters" in data:
        return False
    return all(data[name].shape == shape and np.isfinite(data[name]).all() for name, shape in shapes.items())
