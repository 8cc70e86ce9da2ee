"""Calibrates the thresholds of Top-Theta on a model's own attention, and keeps them for later runs.

One pass over calibration windows: every layer's thresholds come from its own scores, and its
attention then goes on with the exact top k of every row, so that later layers are calibrated on what they will
see (the published rule). With thresholds on probabilities the weight that is missing goes to the mean value,
as in the published runs. Everything is float32: operand widths matter at run time only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from dse.algorithms.contract import Algorithm, FloatArray, visible_keys
from dse.algorithms.operands import weigh
from dse.algorithms.thresholds import (
    Rests,
    Thresholds,
    length_groups,
    pooled_rests,
    pooled_thresholds,
    probabilities,
)
from dse.algorithms.top_theta import TopTheta
from dse.archives import Damaged, read_arrays
from dse.errors import BadInput
from dse.measure.material import Window, need_finite, windows
from dse.measure.npz import write_arrays
from dse.measure.tables import Setup
from dse.models.arrays import IntArray
from dse.models.protocol import Model

REVISION: Final = 1
"""Raised whenever the same recipe would give other tables."""

SHORTEST: Final = 16
STEPS: Final = 4
"""Lengths that rows are pooled around: from `SHORTEST`, this many per doubling."""

CALIBRATION_TOKENS: Final = 8192
"""Tokens of text in all: 8 windows of 1024, fewer of longer ones."""

TABLES: Final = ("theta", "gamma", "mean", "log")


def lengths_up_to(longest: int) -> IntArray:
    """16, 20, 24, 28, 32, 40, ... up to `longest`, which is the last one."""
    out = []
    size = SHORTEST
    while size < longest:
        out += [size + size * step // STEPS for step in range(STEPS)]
        size *= 2
    return np.array([*(length for length in out if length < longest), longest], np.int64)


def calibrate_thresholds(
    model: Model, tokens: IntArray, placement: str, aims: Sequence[int], sigma: float, rule: str = "mean"
) -> Thresholds:
    """Thresholds from calibration text `tokens` [B, T], for `aims` entries per row of every layer.

    Compensations of the denominator come along where thresholds are on logits (``placement = "pre"``).
    Memory grows with B x T x (T / 4) at most: 8 windows of 1024 tokens take 0.3 GB beside the model.
    """
    shape = model.shape
    length = tokens.shape[1]
    lengths = lengths_up_to(length)
    store = (shape.layers, shape.kv_heads, shape.group, len(lengths))
    tables = {name: np.full(store, np.nan) for name in TABLES}

    def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
        need_finite(model, f"layer {layer}: queries, keys or values", q, k, v)
        visible = visible_keys(np.arange(length), length, model.windows[layer])
        count = np.count_nonzero(visible, axis=-1)
        mean = (visible / count[:, None]).astype(v.dtype) @ v if placement == "post" else v
        grouped = q.reshape(len(q), shape.kv_heads, shape.group, length, shape.head_dim)
        out = np.empty_like(grouped)
        for h in range(shape.kv_heads):
            one = slice(h, h + 1)
            for c, rows in length_groups(count, lengths):
                scores = grouped[:, one, :, rows] @ k[:, one, None, : rows.stop].swapaxes(-1, -2)
                scores *= shape.head_dim**-0.5
                scores[..., ~visible[rows, : rows.stop]] = -np.inf
                x = probabilities(scores) if placement == "post" else scores
                theta, own = pooled_thresholds(x, count[rows], aims[layer], sigma, rule)
                tables["theta"][layer, one, :, c] = theta
                kept = x > own[..., None]
                if placement == "post":
                    p = np.where(kept, x, 0)
                    out[:, one, :, rows] = (1 - p.sum(axis=-1, keepdims=True)) * mean[:, one, None, rows]
                else:
                    rests = pooled_rests(scores, count[rows], aims[layer], theta)
                    for name in ("gamma", "mean", "log"):
                        tables[name][layer, one, :, c] = getattr(rests, name)
                    p = probabilities(np.where(kept, x, -np.inf))
                    out[:, one, :, rows] = 0
                out[:, one, :, rows] += weigh(p, v[:, one, : rows.stop])
        return out.reshape(q.shape)

    model.run(tokens, np.arange(length), attend)
    rests = None
    if placement == "pre":
        rests = Rests(tables["gamma"], tables["mean"], tables["log"])
    return Thresholds(placement, tuple(aims), lengths, tables["theta"], rests)


def _windows(algorithm: Algorithm, setup: Setup) -> list[Window]:
    length = algorithm.integer("calibration")
    count = max(CALIBRATION_TOKENS // length, 2)
    return windows(setup.texts, "calibration", length, count, seed=0)


def _recipe(algorithm: Algorithm, setup: Setup) -> str:
    """Everything the thresholds of `algorithm` follow from, as canonical JSON."""
    assert isinstance(algorithm, TopTheta)
    chosen = _windows(algorithm, setup)
    digest = hashlib.sha256(np.stack([w.tokens[:-1] for w in chosen]).astype("<i8").tobytes())
    return json.dumps(
        {
            "revision": REVISION,
            "model": setup.model.sha256,
            "text": digest.hexdigest(),
            "windows": [[w.book, w.start, len(w.tokens) - 1] for w in chosen],
            "placement": algorithm.text("placement"),
            "k": algorithm.aims(setup.model.shape.layers),
            "sigma": algorithm.number("sigma"),
            "rule": algorithm.text("rule"),
        },
        sort_keys=True,
    )


def path(algorithm: Algorithm, setup: Setup) -> Path:
    """Where the thresholds of this setting lie: settings that differ in nothing they follow from share a file."""
    if setup.given:
        return setup.given
    digest = hashlib.sha256(_recipe(algorithm, setup).encode()).hexdigest()
    return setup.folder / f"{algorithm.name}-{digest[:16]}.npz"


def make(algorithm: Algorithm, setup: Setup, path: Path) -> None:
    """Calibrate on the calibration part of the text: about half a minute for the shipped model."""
    recipe = _recipe(algorithm, setup)
    wanted = json.loads(recipe)
    tokens = np.stack([w.tokens[:-1] for w in _windows(algorithm, setup)])
    found = calibrate_thresholds(
        setup.model, tokens, wanted["placement"], wanted["k"], wanted["sigma"], wanted["rule"]
    )
    save_thresholds(path, found, recipe)


def save_thresholds(path: Path, thresholds: Thresholds, recipe: str) -> None:
    """Write tables and the recipe they were made by, replacing the file in one step."""
    arrays = {
        "recipe": np.array(recipe),
        "placement": np.array(thresholds.placement),
        "k": np.array(thresholds.k),
        "lengths": thresholds.lengths,
        "theta": thresholds.theta,
    }
    if thresholds.rests:
        arrays |= {name: getattr(thresholds.rests, name) for name in TABLES[1:]}
    write_arrays(path, arrays)


def load(path: Path) -> Thresholds:
    """The tables at `path`; `BadInput` where it is no file of thresholds."""
    try:
        data = read_arrays(path)
        numbers = [data[name] for name in ("k", "lengths", *TABLES) if name in data or name not in TABLES[1:]]
        if any(a.dtype.kind not in "if" or np.isposinf(a).any() for a in numbers) or data["k"].ndim != 1:
            raise Damaged("other than numbers")
        rests = Rests(*(data[name] for name in TABLES[1:])) if TABLES[1] in data else None
        k = tuple(int(x) for x in data["k"])
        return Thresholds(str(data["placement"]), k, data["lengths"], data["theta"], rests)
    except (Damaged, ValueError) as error:
        raise BadInput(f"{path}: no thresholds ({error}); delete it and they are calibrated again") from None
