"""What all settings of a measurement share: the windows of text and the dense pass over them.

A window of context c holds c + 1 tokens: the first 3c/4 are the prompt, processed densely in float32; the
remaining c/4 positions are scored, each predicting its next token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.errors import BadInput
from dse.models.llama import Llama

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]

PARTS: Final = {"calibration": (0.02, 0.12), "selection": (0.12, 0.55), "confirmation": (0.55, 0.98)}
"""Which fraction of every book each part of a study may see; they do not overlap."""

LOCAL_WINDOW: Final = 128
"""Tokens a short-context dense model sees when tokens that need distant context are looked for."""

SINKS: Final = 4
"""First tokens it sees as well: without them the model breaks down whatever the text."""

DISTANT_NATS: Final = 0.5
BLOCK: Final = 256
"""Queries of one block of the dense pass."""


@dataclass(frozen=True)
class Window:
    """One stretch of text: `tokens` has context + 1 entries."""

    book: str
    start: int
    tokens: IntArray


def windows(texts: Mapping[str, IntArray], part: str, context: int, count: int, seed: int) -> list[Window]:
    """`count` windows of `part` of the tokenised books, spread evenly over the books, at offsets drawn with `seed`.

    Windows never overlap. Raises `BadInput` where the text is too short for that many.
    """
    names = sorted(texts)
    rng = np.random.default_rng([seed, sorted(PARTS).index(part), context])
    out: list[Window] = []
    for i, name in enumerate(names):
        share = count // len(names) + (i < count % len(names))
        low, high = (int(len(texts[name]) * f) for f in PARTS[part])
        slot = (high - low) // max(share, 1)
        if share and slot < context + 1:
            raise BadInput(
                f"windows: {share} of {context + 1} tokens do not fit into the {part} part of {name!r} "
                f"({high - low} tokens); ask for fewer windows or a shorter context"
            )
        for j in range(share):
            start = low + j * slot + int(rng.integers(0, slot - context))
            out.append(Window(name, start, texts[name][start : start + context + 1]))
    return out


def attention(
    q: FloatArray, k: FloatArray, v: FloatArray, first: int, local: int = 0, window: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Float attention of [B, Hq, T, d] queries at positions `first`... over [B, H, N, d]: output and probabilities.

    `local` > 0 hides keys further back than that, except the first `SINKS`; `window` > 0 is the layer's own
    sliding window. Probabilities are [B, H, G * T, N].
    """
    batch, _, queries, dim = q.shape
    heads, keys = k.shape[1:3]
    scores = q.reshape(batch, heads, -1, dim) @ k.swapaxes(-1, -2)
    scores *= dim**-0.5
    distance = (first + np.arange(queries))[:, None] - np.arange(keys)[None, :]
    hidden = distance < 0
    if local:
        hidden |= (distance >= local) & (np.arange(keys) >= SINKS)
    if window:
        hidden |= distance >= window
    scores.reshape(batch, heads, -1, queries, keys)[..., hidden] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return (scores @ v).reshape(q.shape), scores


@dataclass(frozen=True)
class DensePass:
    """The float32 dense pass over one window: where every algorithm starts and what it is compared with.

    Attributes:
        k, v: [L, H, P, d] of the prompt.
        column_sum: [P] attention probability each prompt token received (all layers, heads, prompt queries).
        log_probabilities: [T, V] at the scored positions.
        distant: [T] bool: the target needs context further back than `LOCAL_WINDOW` tokens.
    """

    k: FloatArray
    v: FloatArray
    column_sum: FloatArray
    log_probabilities: FloatArray
    distant: NDArray[np.bool_]

    FIELDS = ("k", "v", "column_sum", "log_probabilities", "distant")

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.FIELDS:
            temporary = folder / f".{name}.npy"
            np.save(temporary, getattr(self, name))
            temporary.replace(folder / f"{name}.npy")

    @classmethod
    def load(cls, folder: Path) -> DensePass:
        """Memory-mapped, so that processes share one copy. Raises FileNotFoundError."""
        return cls(*(np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in cls.FIELDS))


def log_softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis, in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


def dense_pass(model: Llama, window: Window) -> DensePass:
    """Run the window densely in blocks of queries."""
    context = len(window.tokens) - 1
    prompt = context * 3 // 4
    shape = model.shape
    store = (shape.layers, shape.kv_heads, context, shape.head_dim)
    k_all, v_all = np.zeros(store, np.float32), np.zeros(store, np.float32)
    column_sum = np.zeros(prompt)
    for first, stop in _blocks(0, prompt):
        positions = np.arange(first, stop)
        x = model.embed(window.tokens[None, first:stop])
        for layer in range(shape.layers):
            q, k, v = model.qkv(layer, x, positions)
            k_all[layer, :, first:stop], v_all[layer, :, first:stop] = k[0], v[0]
            out, p = attention(q, k_all[layer, None, :, :stop], v_all[layer, None, :, :stop], first)
            column_sum[:stop] += p.sum(axis=(0, 1, 2), dtype=np.float64)
            x = model.finish(layer, x, out)
    log_p = _scored(model, window, k_all, v_all, prompt, 0)
    targets = window.tokens[prompt + 1 :]
    rows = np.arange(len(targets))
    near = _scored(model, window, k_all.copy(), v_all.copy(), prompt, LOCAL_WINDOW)
    distant = log_p[rows, targets] - near[rows, targets] > DISTANT_NATS
    return DensePass(k_all[:, :, :prompt].copy(), v_all[:, :, :prompt].copy(), column_sum, log_p, distant)


def _scored(
    model: Llama, window: Window, k_all: FloatArray, v_all: FloatArray, prompt: int, local: int
) -> FloatArray:
    """Log-probabilities of the scored positions after the prompt in `k_all` and `v_all` (filled further here)."""
    context = len(window.tokens) - 1
    x = model.embed(window.tokens[None, prompt:context])
    for layer in range(model.shape.layers):
        q, k, v = model.qkv(layer, x, np.arange(prompt, context))
        k_all[layer, :, prompt:], v_all[layer, :, prompt:] = k[0], v[0]
        out, _ = attention(q, k_all[layer, None], v_all[layer, None], prompt, local)
        x = model.finish(layer, x, out)
    return log_softmax(model.logits(x[0]))


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, BLOCK):
        yield first, min(first + BLOCK, stop)


def prepare(model: Llama, chosen: Sequence[Window], folder: Path) -> Iterator[Path]:
    """Make the dense pass of every window, once; yields each window's folder as it is ready."""
    for window in chosen:
        place = folder / f"{window.book}-{window.start}-{len(window.tokens) - 1}"
        try:
            DensePass.load(place)
        except (FileNotFoundError, ValueError):
            dense_pass(model, window).save(place)
        yield place
