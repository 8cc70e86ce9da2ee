"""A Llama-architecture network in NumPy float32, with its attention left open.

Each block is x += Wo attention(rope(Wq n1(x)), rope(Wk n1(x)), Wv n1(x)), then
x += Wd (silu(Wg n2(x)) * Wu n2(x)), with RMS norms n1 and n2, rotary positions on half-split dimensions,
grouped key/value heads, and an output head that shares the embedding unless the file has one of its own
(Touvron et al., arXiv:2302.13971; rotary positions: Su et al., arXiv:2104.09864).

Axes: B windows, T positions, D model width, Hq query heads, Hkv key/value heads, d head width, V vocabulary.
Query head h reads key/value head h // (Hq / Hkv).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import FloatArray, IntArray
from dse.models.catalog import DEFAULT_MODEL, KNOWN_MODELS, find_model
from dse.models.gguf import GgufFile
from dse.models.protocol import Attend
from dse.models.tokenizer import Tokenizer
from dse.profiles.schema import ModelShape

ARCHITECTURE: Final = "llama"

HEAD_ROWS: Final = 256
"""Positions per block of the output head: bounds the temporary memory and keeps it in cache."""


@dataclass(frozen=True)
class Layer:
    """The weights of one block. Matrices are [out, in]: x @ W.T is as fast as x @ W in BLAS."""

    attention_norm: FloatArray  # [D]
    qkv: FloatArray  # [(Hq + 2 Hkv) d, D]: query, key, value heads side by side: one product for all
    output: FloatArray  # [D, Hq d]
    feed_forward_norm: FloatArray  # [D]
    gate_up: FloatArray  # [2 F, D]
    down: FloatArray  # [D, F]


@dataclass(frozen=True)
class Weights:
    """Everything a network is made of."""

    embedding: FloatArray  # [V, D]
    layers: tuple[Layer, ...]
    final_norm: FloatArray  # [D]
    head: FloatArray  # [V, D]; the embedding itself when tied


class Llama:
    """The network.

    Attributes:
        shape: its geometry.
        vocabulary, dim: V and D.
        context: positions it was trained for.
        name, sha256: of the weights; a network made in memory has the checksum "".
    """

    def __init__(
        self,
        weights: Weights,
        *,
        query_heads: int,
        kv_heads: int,
        head_dim: int,
        context: int = 8192,
        rope_base: float = 10000.0,
        rope_factors: FloatArray | None = None,
        norm_epsilon: float = 1e-5,
        name: str = "in-memory",
        sha256: str = "",
        file: GgufFile | None = None,
    ) -> None:
        self.weights = weights
        self.vocabulary, self.dim = weights.embedding.shape
        block = sum(
            matrix.size
            for layer in weights.layers
            for matrix in (layer.qkv, layer.output, layer.gate_up, layer.down)
        )
        self.shape = ModelShape(
            layers=len(weights.layers),
            query_heads=query_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            block_parameters=block,
            head_parameters=self.vocabulary * self.dim,
        )
        self.windows = (0,) * len(weights.layers)
        self.context = context
        self.name = name
        self.sha256 = sha256
        self._file = file
        self._epsilon = np.float32(norm_epsilon)
        # Angles are formed in double precision: in single, position 4096 is off by 2e-4 radians.
        exponents = np.arange(head_dim // 2, dtype=np.float64) * (2.0 / head_dim)
        factors = np.ones(head_dim // 2) if rope_factors is None else rope_factors.astype(np.float64)
        self._frequencies = float(rope_base) ** -exponents / factors
        self._rotations: tuple[FloatArray, FloatArray] = self._rotation_table(256)

    @classmethod
    def load(cls, name_or_path: str | Path = DEFAULT_MODEL) -> Llama:
        """Reads a model by catalogue name or path of a GGUF file; the catalogue's default when not given.

        Raises:
            BadInput: missing, damaged, or not a plain Llama network.
        """
        path = find_model(name_or_path)
        file = GgufFile(path)
        for known in KNOWN_MODELS:
            if known.name == name_or_path:
                if file.sha256 != known.sha256:
                    raise BadInput(f"{path}: not the known file {known.file}; run `{known.install}` again")
                return _from_gguf(file, known.name)
        return _from_gguf(file, path.stem)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer from the same file as the weights; BadInput when there is none."""
        if self._file is None:
            raise BadInput(f"model: {self.name}: has no tokenizer; load a GGUF file")
        return Tokenizer(self._file)

    def embed(self, tokens: IntArray) -> FloatArray:
        """[..., T] token ids to [..., T, D]."""
        embedded: FloatArray = self.weights.embedding[tokens]
        return embedded

    def qkv(
        self, layer: int, x: FloatArray, positions: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Queries, keys and values of a layer's input, each contiguous.

        x [B, T, D], positions [T] or [B, T] -> q [B, Hq, T, d], k and v [B, Hkv, T, d], after rotation. Queries are not
        scaled: scores are q . k / sqrt(d).
        """
        w = self.weights.layers[layer]
        s = self.shape
        batch, length, _ = x.shape
        y = self._norm(x, w.attention_norm).reshape(-1, self.dim) @ w.qkv.T
        heads = y.reshape(batch, length, s.query_heads + 2 * s.kv_heads, s.head_dim).transpose(0, 2, 1, 3)
        cos, sin = self._rotation(positions)
        q = _rotate(heads[:, : s.query_heads], cos, sin)
        k = _rotate(heads[:, s.query_heads : s.query_heads + s.kv_heads], cos, sin)
        return q, k, np.ascontiguousarray(heads[:, s.query_heads + s.kv_heads :])

    def finish(self, layer: int, x: FloatArray, attended: FloatArray) -> FloatArray:
        """The rest of the block: x [B, T, D] and attended [B, Hq, T, d] -> the next layer's x [B, T, D].

        `x` is not changed.
        """
        w = self.weights.layers[layer]
        batch, heads, length, width = attended.shape
        rows = attended.transpose(0, 2, 1, 3).reshape(batch * length, heads * width)
        y = x + (rows @ w.output.T).reshape(x.shape)
        both = self._norm(y, w.feed_forward_norm).reshape(-1, self.dim) @ w.gate_up.T
        half = both.shape[1] // 2
        y += (_silu_times(both[:, :half], both[:, half:]) @ w.down.T).reshape(x.shape)
        return y

    def run(self, tokens: IntArray, positions: IntArray, attend: Attend) -> FloatArray:
        """All layers over tokens [B, T] at `positions` [T] or [B, T]; attention is `attend`'s: [B, T, D]."""
        x = self.embed(tokens)
        for layer in range(self.shape.layers):
            x = self.finish(layer, x, attend(layer, *self.qkv(layer, x, positions)))
        return x

    def logits(self, x: FloatArray) -> FloatArray:
        """Final norm and output head: [..., D] -> [..., V].

        The result is large (200 MB for 1024 positions of a 49152-token vocabulary): `nll` keeps one block.
        """
        rows = self._norm(x, self.weights.final_norm).reshape(-1, self.dim)
        out: FloatArray = np.empty((len(rows), self.vocabulary), dtype=np.float32)
        for first in range(0, len(rows), HEAD_ROWS):
            block = slice(first, first + HEAD_ROWS)
            np.matmul(rows[block], self.weights.head.T, out=out[block])
        return out.reshape(*x.shape[:-1], self.vocabulary)

    def nll(self, x: FloatArray, targets: IntArray) -> FloatArray:
        """Negative log-likelihood (nats) [...] of `targets` [...]; x [..., D] is the last layer's output."""
        rows, flat = x.reshape(-1, self.dim), targets.reshape(-1)
        out: FloatArray = np.empty(len(rows), dtype=np.float32)
        for first in range(0, len(rows), HEAD_ROWS):
            block = slice(first, first + HEAD_ROWS)
            logits = self.logits(rows[block])
            peak = logits.max(axis=-1)
            chosen = np.take_along_axis(logits, flat[block, None], axis=-1)[:, 0]
            logits -= peak[:, None]
            np.exp(logits, out=logits)
            out[block] = np.log(logits.sum(axis=-1)) + peak - chosen
        return out.reshape(targets.shape)

    def forward_dense(self, tokens: IntArray, *, first_position: int = 0, row_block: int = 64) -> FloatArray:
        """Dense causal pass: tokens [B, T] -> the last layer's output [B, T, D], before the final norm."""
        positions = first_position + np.arange(tokens.shape[-1], dtype=np.int64)
        x = self.embed(tokens)
        for layer in range(self.shape.layers):
            q, k, v = self.qkv(layer, x, positions)
            x = self.finish(layer, x, dense_attention(q, k, v, row_block=row_block))
        return x

    def _norm(self, x: FloatArray, weight: FloatArray) -> FloatArray:
        mean = np.einsum("...d,...d->...", x, x) / np.float32(x.shape[-1])
        y: FloatArray = x * (np.float32(1) / np.sqrt(mean + self._epsilon))[..., None]
        y *= weight
        return y

    def _rotation_table(self, length: int) -> tuple[FloatArray, FloatArray]:
        angles = np.arange(length, dtype=np.float64)[:, None] * self._frequencies
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _rotation(self, positions: IntArray) -> tuple[FloatArray, FloatArray]:
        """Cosines and sines [T, d / 2] or [B, 1, T, d / 2]; the table grows to the largest position."""
        last = int(positions.max(initial=0))
        if int(positions.min(initial=0)) < 0:
            raise ValueError("positions must not be negative")
        if last >= len(self._rotations[0]):
            self._rotations = self._rotation_table(1 << last.bit_length())
        cos, sin = self._rotations
        if positions.ndim == 2:
            positions = positions[:, None]
        return cos[positions], sin[positions]


def dense_attention(q: FloatArray, k: FloatArray, v: FloatArray, *, row_block: int = 64) -> FloatArray:
    """Causal softmax attention: q [B, Hq, T, d], k and v [B, Hkv, S, d] -> [B, Hq, T, d].

    The T queries are the last of the S tokens. Rows are taken in blocks, so that keys after a block are never
    multiplied (half of the work at large T) and the scores stay in cache.
    """
    batch, heads, length, width = q.shape
    kv_heads, tokens = k.shape[1], k.shape[2]
    group = heads // kv_heads
    past = tokens - length
    grouped = q.reshape(batch, kv_heads, group, length, width) * np.float32(width**-0.5)
    out: FloatArray = np.empty((batch, kv_heads, group, length, width), dtype=np.float32)
    for first in range(0, length, row_block):
        rows = min(row_block, length - first)
        seen = past + first + rows
        queries = grouped[:, :, :, first : first + rows].reshape(batch, kv_heads, group * rows, width)
        scores = queries @ k[:, :, :seen].swapaxes(-1, -2)
        scores = scores.reshape(batch, kv_heads, group, rows, seen)
        future = np.triu(np.ones((rows, rows), dtype=np.bool_), 1)
        scores[..., seen - rows :][..., future] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        block = scores.reshape(batch, kv_heads, group * rows, seen) @ v[:, :, :seen]
        np.divide(
            block.reshape(batch, kv_heads, group, rows, width), total, out=out[:, :, :, first : first + rows]
        )
    return out.reshape(batch, heads, length, width)


def _rotate(x: FloatArray, cos: FloatArray, sin: FloatArray) -> FloatArray:
    """Rotates dimension i with i + d/2 by its position's angle: x [B, H, T, d], cos and sin [T, d / 2] or [B, 1, T, d / 2]."""
    half = x.shape[-1] // 2
    out: FloatArray = np.empty(x.shape, dtype=np.float32)
    a, b = x[..., :half], x[..., half:]
    np.multiply(a, cos, out=out[..., :half])
    out[..., :half] -= b * sin
    np.multiply(b, cos, out=out[..., half:])
    out[..., half:] += a * sin
    return out


def _silu_times(gate: FloatArray, up: FloatArray) -> FloatArray:
    """gate * sigmoid(gate) * up."""
    y = np.negative(gate)
    with np.errstate(over="ignore"):  # exp overflows to infinity far below zero, where silu is 0: x / inf
        np.exp(y, out=y)
    y += np.float32(1)
    np.divide(gate, y, out=y)
    y *= up
    return y


def _from_gguf(file: GgufFile, name: str) -> Llama:
    architecture = file.require("general.architecture", str)
    if architecture != ARCHITECTURE:
        raise BadInput(
            f"{file.path}: general.architecture: found {architecture!r}; {ARCHITECTURE!r} is supported"
        )
    count = _counts(file)
    layers, dim, heads = count["block_count"], count["embedding_length"], count["attention.head_count"]
    hidden, kv_heads = count["feed_forward_length"], count["attention.head_count_kv"]
    width = file.get("llama.attention.key_length", dim // heads)
    _refuse_variants(file, width)
    if heads % kv_heads or width < 2 or width % 2:
        raise BadInput(
            f"{file.path}: {heads} query heads, {kv_heads} KV heads of width {width}; "
            "whole groups and an even width would be right"
        )
    embedding_shape = (_vocabulary(file), dim)
    wanted = {"token_embd.weight", "output_norm.weight"}

    def tensor(key: str, *shape: int) -> FloatArray:
        wanted.add(key)
        return file.tensor(key, shape)

    read = []
    for i in range(layers):
        block = f"blk.{i}."
        q = _unpermute(tensor(block + "attn_q.weight", heads * width, dim), heads)
        k = _unpermute(tensor(block + "attn_k.weight", kv_heads * width, dim), kv_heads)
        v = tensor(block + "attn_v.weight", kv_heads * width, dim)
        gate = tensor(block + "ffn_gate.weight", hidden, dim)
        up = tensor(block + "ffn_up.weight", hidden, dim)
        read.append(
            Layer(
                attention_norm=tensor(block + "attn_norm.weight", dim),
                qkv=np.concatenate((q, k, v)),
                output=tensor(block + "attn_output.weight", dim, heads * width),
                feed_forward_norm=tensor(block + "ffn_norm.weight", dim),
                gate_up=np.concatenate((gate, up)),
                down=tensor(block + "ffn_down.weight", dim, hidden),
            )
        )
    factors = None
    if "rope_freqs.weight" in file.tensors:
        factors = tensor("rope_freqs.weight", width // 2)
        if not np.all(factors > 0):
            raise BadInput(
                f"{file.path}: rope_freqs.weight: found factors <= 0; positive ones would be right"
            )
    embedding = tensor("token_embd.weight", *embedding_shape)
    head = tensor("output.weight", *embedding_shape) if "output.weight" in file.tensors else embedding
    weights = Weights(embedding, tuple(read), tensor("output_norm.weight", dim), head)
    if extra := sorted(file.tensors.keys() - wanted):
        raise BadInput(
            f"{file.path}: tensor {extra[0]!r} is not part of a plain Llama network ({len(extra)} such); "
            "this variant is not supported"
        )
    return Llama(
        weights,
        query_heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        context=count["context_length"],
        rope_base=_positive(file, "llama.rope.freq_base", 10000.0),
        rope_factors=factors,
        norm_epsilon=_positive(file, "llama.attention.layer_norm_rms_epsilon", 1e-5),
        name=name,
        sha256=file.sha256,
        file=file,
    )


def _counts(file: GgufFile) -> dict[str, int]:
    keys = (
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "context_length",
        "attention.head_count",
    )
    counts = {key: file.require(f"llama.{key}", int) for key in keys}
    counts["attention.head_count_kv"] = file.get("llama.attention.head_count_kv", counts[keys[-1]])
    for key, value in counts.items():
        if value < 1:
            raise BadInput(f"{file.path}: llama.{key}: found {value}; at least 1 would be right")
    return counts


def _positive(file: GgufFile, key: str, default: float) -> float:
    value = file.get(key, default)
    if not 0.0 < value < np.inf:
        raise BadInput(f"{file.path}: {key}: found {value}; a positive number would be right")
    return value


def _refuse_variants(file: GgufFile, width: int) -> None:
    """Refuses what would change the arithmetic without changing any tensor's name."""
    standard: dict[str, Any] = {
        "llama.rope.dimension_count": width,
        "llama.attention.value_length": width,
        "llama.rope.scaling.type": "none",
        "llama.attention.sliding_window": 0,
        "llama.attention.causal": True,
        "llama.expert_count": 0,
    }
    for key, value in standard.items():
        found = file.get(key, value)
        if found != value:
            raise BadInput(f"{file.path}: {key}: found {found!r}; only {value!r} is supported")


def _vocabulary(file: GgufFile) -> int:
    info = file.tensors.get("token_embd.weight")
    if info is None or len(info.shape) != 2:
        raise BadInput(f"{file.path}: tensor 'token_embd.weight' is missing or no matrix; the model needs it")
    return info.shape[0]


def _unpermute(w: FloatArray, heads: int) -> FloatArray:
    """Undoes llama.cpp's row order of Q and K [heads d, D].

    Its converter interleaves the two halves of each head, for a rotation of neighbouring dimensions; put
    back, the rotation of half-split dimensions applies.
    """
    rows, columns = w.shape
    return w.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
