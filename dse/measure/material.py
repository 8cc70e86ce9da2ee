"""What all settings of a measurement share: the windows of text and the dense pass over them.

A window of context c holds c + 1 tokens: the first 3c/4 are the prompt, processed densely in float32; the
remaining c/4 positions are scored, each predicting its next token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dse.errors import BadInput
from dse.inputs import is_file, read_bytes
from dse.measure.npz import unwritable, writing
from dse.models.protocol import Model
from dse.models.text import Texts

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

SUMS: Final = "checksums.json"
"""File beside the arrays of a dense pass."""

MAX_SUMS: Final = 1 << 16

HEAD_ROWS: Final = 256
HEAD_VALUES: Final = 1 << 24
"""Most rows, and most logits, that are held at a time."""


@dataclass(frozen=True)
class Window:
    """One stretch of text: `tokens` has context + 1 entries."""

    book: str
    start: int
    tokens: IntArray


def windows(texts: Mapping[str, IntArray], part: str, context: int, count: int, seed: int) -> list[Window]:
    """`count` windows of `part` of the tokenised books, spread evenly over the books, at offsets drawn with `seed`.

    Windows never overlap. Where the model expects a token of its own before any text, it takes the place of a
    window's first one. Raises `BadInput` where the text is too short for that many.
    """
    bos = texts.bos if isinstance(texts, Texts) else None
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
            tokens = texts[name][start : start + context + 1]
            if bos is not None:
                tokens = np.concatenate(([bos], tokens[1:]))
            out.append(Window(name, start, tokens))
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
class Expected:
    """What a setting's results on a window are compared with, kept in a folder of arrays.

    Attributes:
        log_probabilities: [T, V] at the scored positions.
        distant: [T] bool: the target needs context further back than `LOCAL_WINDOW` tokens.
    """

    log_probabilities: FloatArray
    distant: NDArray[np.bool_]

    def save(self, folder: Path) -> None:
        """Write every array, then their checksums: a folder that has these is whole. Raises `BadInput`."""
        try:
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise BadInput(f"{folder}: is a symbolic link, which a working folder never holds; remove it")
            (folder / SUMS).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        for one in fields(self):
            with writing(folder / f"{one.name}.npy") as file:
                # Through its method alone: into a file NumPy writes by itself, and says no reason where it cannot.
                np.save(SimpleNamespace(write=file.write), getattr(self, one.name))
        with writing(folder / SUMS) as file:
            file.write(json.dumps(self._sums(folder), indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-mapped, so that processes share one copy. Raises `BadInput`."""
        try:
            # Plain arrays only: `numpy.load` takes an archive under such a name for what it is, too.
            arrays = {
                one.name: np.lib.format.open_memmap(cls._array(folder, one.name), mode="r")
                for one in fields(cls)
            }
        except Exception:  # what NumPy raises on a damaged head is not documented
            raise BadInput(f"{folder}: no dense pass, or damaged; the same command makes it again") from None
        return cls(**arrays)

    @classmethod
    def sound(cls, folder: Path, shapes: Sequence[tuple[int, ...]]) -> bool:
        """Whether all arrays are there as they were written, with the shapes that they must have; reads every byte."""
        try:
            if json.loads(read_bytes(folder / SUMS, MAX_SUMS, "checksums are needed")) != cls._sums(folder):
                return False
            there = cls.load(folder)
        except (OSError, ValueError, RecursionError, BadInput):
            return False
        arrays = [getattr(there, one.name) for one in fields(cls)]
        return [a.shape for a in arrays] == list(shapes) and all(a.dtype.kind in "fb" for a in arrays)

    @staticmethod
    def _array(folder: Path, name: str) -> Path:
        """The file of an array; OSError where it is none: a pipe would be waited for."""
        path = folder / f"{name}.npy"
        if not is_file(path):
            raise FileNotFoundError(path)
        return path

    @classmethod
    def _sums(cls, folder: Path) -> dict[str, str]:
        out = {}
        for one in fields(cls):
            with cls._array(folder, one.name).open("rb") as file:
                out[one.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return out


@dataclass(frozen=True)
class DensePass(Expected):
    """The float32 dense pass over one window: where every algorithm starts and what it is compared with.

    Attributes:
        k, v: [L, H, P, d] of the prompt.
        column_sum: [P] attention probability each prompt token received (all layers, heads, prompt queries).
    """

    k: FloatArray
    v: FloatArray
    column_sum: FloatArray


class NotFinite(BadInput):
    """A model, or an algorithm in it, that gives NaN or infinity."""


def need_finite(model: Model, where: str, *arrays: FloatArray) -> None:
    """Raise `NotFinite` where an array of a pass is not finite; `where` says which."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise NotFinite(
            f"model: {model.name}: {where} are not finite; weights that single precision can carry are needed"
        )


def pass_shapes(model: Model, window: Window) -> list[tuple[int, ...]]:
    """Of the arrays of `DensePass`, in their order."""
    context, shape = len(window.tokens) - 1, model.shape
    prompt = context * 3 // 4
    kept = (shape.layers, shape.kv_heads, prompt, shape.head_dim)
    return [(context - prompt, model.vocabulary), (context - prompt,), kept, kept, (prompt,)]


def log_softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis, in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


def log_probabilities(model: Model, hidden: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Log-probabilities [rows, V] of hidden states [T, D], some rows at a time: memory is bounded for any V."""
    step = max(1, min(HEAD_ROWS, HEAD_VALUES // model.vocabulary))
    for first in range(0, len(hidden), step):
        rows = slice(first, min(first + step, len(hidden)))
        part = log_softmax(model.logits(hidden[rows]))
        need_finite(model, "probabilities of the next token", part)
        yield rows, part


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt after its dense float32 pass: tokens [P], k and v [L, H, P, d], and what `DensePass` calls column_sum."""

    tokens: IntArray
    k: FloatArray
    v: FloatArray
    column_sum: FloatArray


def read_prompt(model: Model, tokens: IntArray) -> ReadPrompt:
    """Read `tokens` [P] densely in blocks of queries."""
    shape = model.shape
    store = (shape.layers, shape.kv_heads, len(tokens), shape.head_dim)
    k, v, column_sum = np.zeros(store, np.float32), np.zeros(store, np.float32), np.zeros(len(tokens))
    for first, stop in _blocks(0, len(tokens)):
        _dense(model, tokens, k, v, first, stop, received=column_sum)
    return ReadPrompt(tokens, k, v, column_sum)


def dense_pass(model: Model, window: Window) -> DensePass:
    """Run the window densely in blocks of queries."""
    tokens = window.tokens
    context = len(tokens) - 1
    prompt = context * 3 // 4
    read = read_prompt(model, tokens[:prompt])
    rest = ((0, 0), (0, 0), (0, context - prompt), (0, 0))
    k, v = np.pad(read.k, rest), np.pad(read.v, rest)
    targets = tokens[prompt + 1 :]
    hidden = _dense(model, tokens, k, v, prompt, context)
    log_p = np.empty((len(targets), model.vocabulary), np.float32)
    for rows, part in log_probabilities(model, hidden):
        log_p[rows] = part
    hidden = _dense(model, tokens, k, v, prompt, context, local=LOCAL_WINDOW)
    near = np.empty(len(targets), np.float32)
    for rows, part in log_probabilities(model, hidden):
        near[rows] = np.take_along_axis(part, targets[rows, None], axis=-1)[:, 0]
    distant = log_p[np.arange(len(targets)), targets] - near > DISTANT_NATS
    return DensePass(log_p, distant, k=read.k, v=read.v, column_sum=read.column_sum)


def _dense(
    model: Model,
    tokens: IntArray,
    k_all: FloatArray,
    v_all: FloatArray,
    first: int,
    stop: int,
    *,
    local: int = 0,
    received: FloatArray | None = None,
) -> FloatArray:
    """Hidden states [T, D] of positions `first` to `stop` after the ones in `k_all` and `v_all` [L, H, N, d].

    These are filled further, and the attention probability that each key receives is added to `received` [N].
    """

    def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
        need_finite(model, f"layer {layer}: queries, keys or values", q, k, v)
        k_all[layer, :, first:stop], v_all[layer, :, first:stop] = k[0], v[0]
        keys, values = k_all[layer, None, :, :stop], v_all[layer, None, :, :stop]
        out, p = attention(q, keys, values, first, local, model.windows[layer])
        if received is not None:
            received[:stop] += p.sum(axis=(0, 1, 2), dtype=np.float64)
        return out

    hidden: FloatArray = model.run(tokens[None, first:stop], np.arange(first, stop), attend)[0]
    return hidden


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, BLOCK):
        yield first, min(first + BLOCK, stop)


def fingerprint(model: Model, window: Window) -> str:
    """Short digest of what a pass over the window depends on: the weights, what computes them, the tokens."""
    engine = "" if model.engine == "numpy" else model.engine
    return hashlib.sha256((model.sha256 + engine).encode() + window.tokens.tobytes()).hexdigest()[:12]


def prepare(model: Model, chosen: Sequence[Window], folder: Path) -> Iterator[Path]:
    """Make the dense pass of every window, once; yields each window's folder as it is ready."""
    for window in chosen:
        # Another model or text may use the same folder: what the pass depends on is part of its name.
        place = folder / f"{window.book}-{window.start}-{len(window.tokens) - 1}-{fingerprint(model, window)}"
        if not DensePass.sound(place, pass_shapes(model, window)):
            dense_pass(model, window).save(place)
        yield place
