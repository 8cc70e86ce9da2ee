"""A decoder-only transformer in NumPy float32, with its attention left open.

Each block is x += p1(Wo attention(rope(Wq n1(x)), rope(Wk n1(x)), Wv n1(x))), then
x += p2(Wd (act(Wg n2(x)) * Wu n2(x))), with RMS norms n1 and n2, rotary positions on half-split dimensions and
grouped key/value heads. What families of models add to it is optional: biases of queries, keys and values (Qwen2),
RMS norms over each query and key head before rotation (Qwen3, Gemma 3), norms p1 and p2 after either half (Gemma 2
and 3), GELU in place of SiLU, a scaled embedding, layers that see only a window of the last tokens and rotate with
a base of their own, a score scale other than 1 / sqrt(d), soft-capped logits, an output head of its own.
Sources: Llama, arXiv:2302.13971; rotary positions, arXiv:2104.09864; Qwen2, arXiv:2407.10671; Qwen3,
arXiv:2505.09388; Gemma 2, arXiv:2408.00118; Gemma 3, arXiv:2503.19786.

Axes: B windows, T positions, D model width, Hq query heads, Hkv key/value heads, d head width, V vocabulary.
Query head h reads key/value head h // (Hq / Hkv).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import FloatArray, IntArray
from dse.models.protocol import AnyFloat, Attend
from dse.models.tokenizer import Tokenizer
from dse.profiles.schema import ModelShape

HEAD_ROWS: Final = 256
"""Most positions per block of the output head: bounds the temporary memory and keeps it in cache."""

HEAD_VALUES: Final = 1 << 24
"""Most logits of one block: 64 MB, whatever the vocabulary."""

ACTIVATIONS: Final = ("silu", "gelu")


@dataclass(frozen=True)
class Layer:
    """The weights of one block. Matrices are [out, in]: x @ W.T is as fast as x @ W in BLAS."""

    attention_norm: FloatArray  # [D]
    qkv: FloatArray  # [(Hq + 2 Hkv) d, D]: query, key, value heads side by side: one product for all
    output: FloatArray  # [D, Hq d]
    feed_forward_norm: FloatArray  # [D]
    gate_up: FloatArray  # [2 F, D]
    down: FloatArray  # [D, F]
    qkv_bias: FloatArray | None = None  # [(Hq + 2 Hkv) d]
    query_norm: FloatArray | None = None  # [d]
    key_norm: FloatArray | None = None  # [d]
    attention_post_norm: FloatArray | None = None  # [D]
    feed_forward_post_norm: FloatArray | None = None  # [D]


@dataclass(frozen=True)
class Weights:
    """Everything a network is made of."""

    embedding: FloatArray  # [V, D]
    layers: tuple[Layer, ...]
    final_norm: FloatArray  # [D]
    head: FloatArray  # [V, D]; the embedding itself when tied


class Decoder:
    """The network.

    Attributes:
        shape: its geometry.
        windows: per layer, the keys a query sees (itself and those right before it), 0 for all of them.
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
        activation: str = "silu",
        embedding_scale: float = 1.0,
        query_scale: float = 1.0,
        logit_cap: float = 0.0,
        windows: Sequence[int] = (),
        window_rope_base: float | None = None,
        name: str = "in-memory",
        sha256: str = "",
        make_tokenizer: Callable[[], Tokenizer] | None = None,
    ) -> None:
        """`rope_factors` [d / 2] divide the rotary frequencies; layers with a window use `window_rope_base`
        without factors where it is given. Queries are multiplied by `query_scale`, so that scores are
        q . k / sqrt(d) in every family. `logit_cap` > 0 makes logits cap * tanh(logits / cap).
        """
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r}: one of {ACTIVATIONS}")
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
        self.windows = tuple(windows) or (0,) * len(weights.layers)
        if len(self.windows) != len(weights.layers) or min(self.windows, default=0) < 0:
            raise ValueError("windows: one per layer, none negative")
        self.context = context
        self.name = name
        self.sha256 = sha256
        self.engine = "numpy"
        self._make_tokenizer = make_tokenizer
        self._epsilon = np.float32(norm_epsilon)
        self._gelu = activation == "gelu"
        self._embedding_scale = np.float32(embedding_scale)
        self._query_scale = np.float32(query_scale)
        self._logit_cap = np.float32(logit_cap)
        full = Rotation(head_dim, rope_base, rope_factors)
        local = full if window_rope_base is None else Rotation(head_dim, window_rope_base)
        self._rotations = tuple(local if window else full for window in self.windows)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that comes with the weights; BadInput when there is none."""
        if self._make_tokenizer is None:
            raise BadInput(f"model: {self.name}: has no tokenizer; load a model from disk")
        return self._make_tokenizer()

    def embed(self, tokens: IntArray) -> FloatArray:
        """[..., T] token ids to [..., T, D]. Raises `BadInput` for a token that the model has not."""
        if len(tokens.reshape(-1)) and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise BadInput(
                f"model: {self.name}: its tokenizer gives token {tokens.max()}, it has {self.vocabulary}; "
                "the tokenizer of this very model is needed"
            )
        embedded: FloatArray = self.weights.embedding[tokens]
        if self._embedding_scale != 1:
            embedded *= self._embedding_scale  # fancy indexing made a copy
        return embedded

    def run(self, tokens: IntArray, positions: IntArray, attend: Attend) -> FloatArray:
        """Runs new tokens [B, T] at `positions` [T] or [B, T] through all layers -> [B, T, D], before the final norm.

        The network keeps no keys and values: `attend` gets those of the new positions, after rotation, and
        returns what attention over all it has kept gives.

        Raises:
            BadInput: a position past those the model was trained for.
        """
        check_positions(self.name, self.context, positions)
        x = self.embed(tokens)
        for layer in range(self.shape.layers):
            x = self.finish(layer, x, attend(layer, *self.qkv(layer, x, positions)))
        return x

    def qkv(
        self, layer: int, x: FloatArray, positions: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Queries, keys and values of a layer's input, each contiguous.

        x [B, T, D], positions [T] or [B, T] -> q [B, Hq, T, d], k and v [B, Hkv, T, d], after rotation. Queries
        are not divided by sqrt(d): scores are q . k / sqrt(d).
        """
        w = self.weights.layers[layer]
        s = self.shape
        batch, length, _ = x.shape
        y = self._norm(x, w.attention_norm).reshape(-1, self.dim) @ w.qkv.T
        if w.qkv_bias is not None:
            y += w.qkv_bias
        heads = y.reshape(batch, length, s.query_heads + 2 * s.kv_heads, s.head_dim).transpose(0, 2, 1, 3)
        q, k, v = np.split(heads, (s.query_heads, s.query_heads + s.kv_heads), axis=1)
        if w.query_norm is not None:
            q = self._norm(q, w.query_norm)
        if w.key_norm is not None:
            k = self._norm(k, w.key_norm)
        cos, sin = self._rotations[layer].at(positions)
        q = _rotate(q, cos, sin)
        if self._query_scale != 1:
            q *= self._query_scale
        return q, _rotate(k, cos, sin), np.ascontiguousarray(v)

    def finish(self, layer: int, x: FloatArray, attended: AnyFloat) -> FloatArray:
        """The rest of the block: x [B, T, D] and attended [B, Hq, T, d] -> the next layer's x [B, T, D].

        `x` is not changed.
        """
        w = self.weights.layers[layer]
        batch, heads, length, width = attended.shape
        mixed = attended.transpose(0, 2, 1, 3).reshape(batch * length, heads * width)
        rows: FloatArray = mixed.astype(np.float32, copy=False) @ w.output.T
        if w.attention_post_norm is not None:
            rows = self._norm(rows, w.attention_post_norm)
        y = x + rows.reshape(x.shape)
        both = self._norm(y, w.feed_forward_norm).reshape(-1, self.dim) @ w.gate_up.T
        half = both.shape[1] // 2
        active = (_gelu_times if self._gelu else _silu_times)(both[:, :half], both[:, half:])
        rows = active @ w.down.T
        if w.feed_forward_post_norm is not None:
            rows = self._norm(rows, w.feed_forward_post_norm)
        y += rows.reshape(x.shape)
        return y

    def logits(self, x: FloatArray) -> FloatArray:
        """Final norm and output head: [..., D] -> [..., V].

        The result is large (200 MB for 1024 positions of a 49152-token vocabulary): `nll` keeps one block.
        """
        rows = self._norm(x, self.weights.final_norm).reshape(-1, self.dim)
        out: FloatArray = np.empty((len(rows), self.vocabulary), dtype=np.float32)
        for block in self._head_blocks(len(rows)):
            np.matmul(rows[block], self.weights.head.T, out=out[block])
        if self._logit_cap:
            out /= self._logit_cap
            np.tanh(out, out=out)
            out *= self._logit_cap
        return out.reshape(*x.shape[:-1], self.vocabulary)

    def nll(self, x: FloatArray, targets: IntArray) -> FloatArray:
        """Negative log-likelihood (nats) [...] of `targets` [...]; x [..., D] is the last layer's output."""
        rows, flat = x.reshape(-1, self.dim), targets.reshape(-1)
        out: FloatArray = np.empty(len(rows), dtype=np.float32)
        for block in self._head_blocks(len(rows)):
            logits = self.logits(rows[block])
            peak = logits.max(axis=-1)
            chosen = np.take_along_axis(logits, flat[block, None], axis=-1)[:, 0]
            logits -= peak[:, None]
            np.exp(logits, out=logits)
            out[block] = np.log(logits.sum(axis=-1)) + peak - chosen
        return out.reshape(targets.shape)

    def forward_dense(self, tokens: IntArray, *, first_position: int = 0, row_block: int = 64) -> FloatArray:
        """Dense causal pass: tokens [B, T] -> the last layer's output [B, T, D], before the final norm."""

        def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
            return dense_attention(q, k, v, row_block=row_block, window=self.windows[layer])

        return self.run(tokens, first_position + np.arange(tokens.shape[-1], dtype=np.int64), attend)

    def _head_blocks(self, rows: int) -> list[slice]:
        step = max(1, min(HEAD_ROWS, HEAD_VALUES // self.vocabulary))
        return [slice(first, first + step) for first in range(0, rows, step)]

    def _norm(self, x: FloatArray, weight: FloatArray) -> FloatArray:
        mean = np.einsum("...d,...d->...", x, x) / np.float32(x.shape[-1])
        y: FloatArray = x * (np.float32(1) / np.sqrt(mean + self._epsilon))[..., None]
        y *= weight
        return y


def check_positions(name: str, context: int, positions: IntArray) -> None:
    """Raises `BadInput` where a position is past the `context` that model `name` was trained for."""
    last = int(positions.max(initial=0))
    if last >= context:
        raise BadInput(
            f"model: {name}: token {last + 1} is past the {context} it was trained for; measure a shorter context"
        )


class Rotation:
    """Cosines and sines of rotary positions: angle = position * base ** (-2 i / d) / factors[i]."""

    def __init__(self, width: int, base: float, factors: FloatArray | None = None) -> None:
        # Angles are formed in double precision: in single, position 4096 is off by 2e-4 radians.
        exponents = np.arange(width // 2, dtype=np.float64) * (2.0 / width)
        divisors = np.ones(width // 2) if factors is None else factors.astype(np.float64)
        self._frequencies = float(base) ** -exponents / divisors
        self._table = self._make(256)

    def _make(self, length: int) -> tuple[FloatArray, FloatArray]:
        angles = np.arange(length, dtype=np.float64)[:, None] * self._frequencies
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def at(self, positions: IntArray) -> tuple[FloatArray, FloatArray]:
        """[T, d / 2] for positions [T], [B, 1, T, d / 2] for [B, T]; the table grows to the largest one."""
        last = int(positions.max(initial=0))
        if int(positions.min(initial=0)) < 0:
            raise ValueError("positions must not be negative")
        if last >= len(self._table[0]):
            self._table = self._make(1 << last.bit_length())
        rows = positions if positions.ndim == 1 else positions[:, None]
        return self._table[0][rows], self._table[1][rows]


def dense_attention(
    q: FloatArray, k: FloatArray, v: FloatArray, *, row_block: int = 64, window: int = 0
) -> FloatArray:
    """Causal softmax attention: q [B, Hq, T, d], k and v [B, Hkv, S, d] -> [B, Hq, T, d].

    The T queries are the last of the S tokens; with `window` > 0 each sees that many keys at most, its own the
    last. Rows are taken in blocks, so that keys no row of a block sees are never multiplied (half of the work at
    large T) and the scores stay in cache.
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
        start = max(0, past + first + 1 - window) if window else 0
        queries = grouped[:, :, :, first : first + rows].reshape(batch, kv_heads, group * rows, width)
        scores = queries @ k[:, :, start:seen].swapaxes(-1, -2)
        scores = scores.reshape(batch, kv_heads, group, rows, seen - start)
        future = np.triu(np.ones((rows, rows), dtype=np.bool_), 1)
        scores[..., seen - start - rows :][..., future] = -np.inf
        if window and seen - start > window:  # then the last row sees less than the block holds
            distance = (past + first + np.arange(rows))[:, None] - np.arange(start, seen)
            scores[..., distance >= window] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        block = scores.reshape(batch, kv_heads, group * rows, seen - start) @ v[:, :, start:seen]
        np.divide(
            block.reshape(batch, kv_heads, group, rows, width), total, out=out[:, :, :, first : first + rows]
        )
    return out.reshape(batch, heads, length, width)


def _rotate(x: FloatArray, cos: FloatArray, sin: FloatArray) -> FloatArray:
    """Rotates dimension i with i + d/2 by its position's angle: x [B, H, T, d], cos and sin [..., T, d / 2]."""
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
    return _gated(gate, np.negative(gate), up)


def _gelu_times(gate: FloatArray, up: FloatArray) -> FloatArray:
    """gelu(gate) * up in its tanh form: (1 + tanh(u)) / 2 is sigmoid(2 u), u = sqrt(2 / pi) (g + 0.044715 g^3)."""
    y = gate * gate
    y *= np.float32(-2 * np.sqrt(2 / np.pi) * 0.044715)
    y -= np.float32(2 * np.sqrt(2 / np.pi))
    y *= gate
    return _gated(gate, y, up)


def _gated(gate: FloatArray, minus: FloatArray, up: FloatArray) -> FloatArray:
    """gate / (1 + exp(minus)) * up, in the place of `minus`."""
    with np.errstate(over="ignore"):  # exp overflows to infinity far below zero, where the gate is 0: x / inf
        np.exp(minus, out=minus)
    minus += np.float32(1)
    np.divide(gate, minus, out=minus)
    minus *= up
    return minus
