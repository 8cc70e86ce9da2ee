"""Controllers of ADORE-style caches: how much each token of the text matters to the one that comes next.

All controllers answer the same question, before the forward pass of token t: a score for every token i <= t,
larger for tokens worth having. One answer serves all layers and heads. Only some could exist in a machine:

=============  ================================================================  ==========================
name           score of token i at step t                                        in a machine?
=============  ================================================================  ==========================
gru            learned, from token ids alone                                     yes: what ADORE proposes
accumulated    attention received so far in the sparse run (heavy hitters)       yes
window         recency                                                           yes
random         drawn anew at every step, with a seed                             yes: the floor
oracle         dense attention of t on i, mean over layers and heads             no: the ceiling of selection
future         largest dense attention on i from t on, over `horizon` tokens     no: the ceiling of eviction
=============  ================================================================  ==========================

The GRU: e_i is the frozen input embedding at unit RMS, h_i = GRU(e_i, h_(i-1)); q_t = Wq h_t,
k_i = Wk [h_i; e_i], u_i = wu . [h_i; e_i]; score = q_t . k_i / sqrt(c) + u_i + r[bucket(t - i)]. k_i and u_i are
computed once, when token i arrives, and kept at 16 bit: c + 1 values per token. Published is only that ADORE's
controller is a GRU that predicts the importance of all tokens for the current one (Zhang et al., Findings of
ACL 2024; abstract and secondary descriptions); inputs, sizes, read-out and loss are ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from dse.algorithms.contract import FloatArray, IntArray, Prompt
from dse.errors import BadInput

CONTROLLERS: Final = ("gru", "accumulated", "window", "random", "oracle", "future")

VALUE_BYTES: Final = 2
"""Stored width of a controller's key values: 16 bit."""

ID_BYTES: Final = 4
"""Stored width of a token id, which rebuilding reads."""

BUCKETS: Final = 10
"""Recency buckets: distances 0, 1-2, 3-6, ... by powers of two, everything from 511 on in the last one."""


@dataclass(frozen=True)
class GruWeights:
    """A trained controller of model width D, state width h and key width c.

    Attributes:
        input: [D, 3 h] and recurrent: [h, 3 h], gates side by side: reset, update, candidate.
        input_bias, recurrent_bias: [3 h].
        query: [h, c]; key: [h + D, c]; bias: [h + D].
        recency: [BUCKETS].
    """

    input: FloatArray
    recurrent: FloatArray
    input_bias: FloatArray
    recurrent_bias: FloatArray
    query: FloatArray
    key: FloatArray
    bias: FloatArray
    recency: FloatArray

    def __post_init__(self) -> None:
        state, wide = self.recurrent.shape
        dim, keys = len(self.input), self.key.shape[-1]
        wanted = {
            "input": (dim, 3 * state),
            "recurrent": (state, 3 * state),
            "input_bias": (wide,),
            "recurrent_bias": (wide,),
            "query": (state, keys),
            "key": (state + dim, keys),
            "bias": (state + dim,),
            "recency": (BUCKETS,),
        }
        for name, shape in wanted.items():
            found = getattr(self, name)
            if found.shape != shape or not np.isfinite(found).all():
                raise ValueError(f"{name}: found {found.shape}; finite numbers {shape} would be right")

    @property
    def dim(self) -> int:
        return len(self.input)

    @property
    def state(self) -> int:
        return len(self.recurrent)

    @property
    def keys(self) -> int:
        return int(self.key.shape[1])

    @property
    def size(self) -> int:
        return sum(int(getattr(self, f.name).size) for f in fields(self))

    @property
    def token_macs(self) -> int:
        """Multiply-adds when a token arrives: one GRU cell, its query, its key and its bias."""
        cell = 3 * self.state * (self.dim + self.state)
        return cell + self.state * self.keys + (self.state + self.dim) * (self.keys + 1)


def unit_rms(embedded: FloatArray) -> FloatArray:
    """[..., D] rows scaled to a root mean square of 1."""
    size = np.sqrt(np.square(embedded).mean(axis=-1, keepdims=True))
    out: FloatArray = embedded / np.maximum(size, 1e-12)
    return out


def sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow at either end."""
    out: FloatArray = 0.5 * (np.tanh(0.5 * x) + 1)
    return out


def gru_cell(weights: GruWeights, fed: FloatArray, state: FloatArray) -> FloatArray:
    """One step: `fed` [B, 3 h] is embedding @ input + input_bias, `state` [B, h]; returns the new state [B, h]."""
    size = weights.state
    back = state @ weights.recurrent + weights.recurrent_bias
    gates = sigmoid(fed[:, : 2 * size] + back[:, : 2 * size])
    reset, update = gates[:, :size], gates[:, size:]
    candidate = np.tanh(fed[:, 2 * size :] + reset * back[:, 2 * size :])
    out: FloatArray = candidate + update * (state - candidate)
    return out


def buckets(distance: IntArray) -> IntArray:
    """Recency bucket of distances t - i >= 0: floor(log2(distance + 1)), at most the last one."""
    exponent = np.frexp((distance + 1).astype(np.float64))[1].astype(np.int64) - 1
    return np.asarray(np.minimum(exponent, BUCKETS - 1))


class Controller(ABC):
    """One controller for `B` windows in lock-step. `scores` is called once per step, positions rising by one."""

    watches: bool = False
    """Whether the controller wants to see the sparse run's attention (`observe`)."""

    @abstractmethod
    def scores(self, position: int, tokens: IntArray) -> FloatArray:
        """Scores [B, position + 1] before the forward pass of `tokens` [B] at `position`."""

    def observe(self, positions: IntArray, received: FloatArray) -> None:
        """Attention probability `received` [B, S] by the tokens at `positions` [B, S] in one layer of this step."""
        raise NotImplementedError(f"{type(self).__name__} does not watch the run")

    def work(self, position: int) -> dict[str, float]:
        """What the scores of one step of one window take, by counter name; metadata as plain bytes."""
        return {}


class Gru(Controller):
    """The learned controller."""

    def __init__(self, weights: GruWeights, prompt: Prompt) -> None:
        if prompt.embed is None:
            raise BadInput("controller: 'gru' reads token embeddings, and this run has none")
        self.weights, self.embed = weights, prompt.embed
        batch, length = prompt.tokens.shape
        self.state = np.zeros((batch, weights.state), weights.input.dtype)
        self.key = np.zeros((batch, prompt.capacity, weights.keys), weights.input.dtype)
        self.bias = np.zeros((batch, prompt.capacity), weights.input.dtype)
        embedded = unit_rms(self._embedded(prompt.tokens))
        fed = embedded @ weights.input + weights.input_bias
        states = np.zeros((batch, length, weights.state), weights.input.dtype)
        for i in range(length):
            self.state = gru_cell(weights, fed[:, i], self.state)
            states[:, i] = self.state
        self._keep(slice(0, length), np.concatenate([states, embedded], axis=-1))

    def _embedded(self, tokens: IntArray) -> FloatArray:
        out = self.embed(tokens)
        if out.shape[-1] != self.weights.dim:
            raise BadInput(
                f"controller: trained for embeddings of width {self.weights.dim}, the model's are "
                f"{out.shape[-1]} wide; train one with 'dse profile train'"
            )
        return out

    def _keep(self, where: slice, features: FloatArray) -> None:
        """Store the keys and biases of [B, T, h + D] features."""
        self.key[:, where] = features @ self.weights.key
        self.bias[:, where] = features @ self.weights.bias

    def scores(self, position: int, tokens: IntArray) -> FloatArray:
        weights = self.weights
        embedded = unit_rms(self._embedded(tokens))
        self.state = gru_cell(weights, embedded @ weights.input + weights.input_bias, self.state)
        here = slice(position, position + 1)
        self._keep(here, np.concatenate([self.state, embedded], axis=-1)[:, None])
        query = self.state @ weights.query * weights.keys**-0.5
        count = position + 1
        out: FloatArray = np.matmul(self.key[:, :count], query[:, :, None])[:, :, 0]
        out += self.bias[:, :count]
        out += weights.recency[buckets(position - np.arange(count))]
        return out

    def work(self, position: int) -> dict[str, float]:
        """One cell and one key for the new token, one product and four scalar operations for every token.

        The nonlinearities of the cell are an exponential and a division each. The weights and all keys are
        read (a batch that shares the weights is overcharged), one key is written, with the token id that
        rebuilding will need.
        """
        weights, count = self.weights, position + 1
        row = (weights.keys + 1) * VALUE_BYTES
        return {
            "controller_macs": weights.token_macs + count * weights.keys,
            "scalar_ops": 4.0 * count + 12.0 * weights.state,
            "exponentials": 3.0 * weights.state,
            "divisions": 3.0 * weights.state,
            "meta_read_bytes": float(count * row + weights.size * VALUE_BYTES),
            "meta_write_bytes": float(row + ID_BYTES),
        }


class Accumulated(Controller):
    """Attention a token has received so far, per layer and query head; a released token keeps what it had."""

    watches = True

    def __init__(self, prompt: Prompt) -> None:
        batch, length = prompt.column_sum.shape
        self.total = np.zeros((batch, prompt.capacity))
        self.total[:, :length] = prompt.column_sum
        self.rows = np.arange(batch)[:, None]

    def scores(self, position: int, tokens: IntArray) -> FloatArray:
        return self.total[:, : position + 1].copy()

    def observe(self, positions: IntArray, received: FloatArray) -> None:
        self.total[self.rows, positions] += received


class Recency(Controller):
    """The newest tokens."""

    def __init__(self, prompt: Prompt) -> None:
        self.batch = len(prompt.k[0])

    def scores(self, position: int, tokens: IntArray) -> FloatArray:
        return np.broadcast_to(np.arange(position + 1.0), (self.batch, position + 1))


class Random(Controller):
    """Uniform scores, drawn anew at every step."""

    def __init__(self, prompt: Prompt, seed: int) -> None:
        self.batch, self.seed = len(prompt.k[0]), seed

    def scores(self, position: int, tokens: IntArray) -> FloatArray:
        return np.random.default_rng([self.seed, position]).random((self.batch, position + 1))


class Oracle(Controller):
    """Largest dense attention over the `horizon` tokens from the current one on (1: the current one's own).

    The rows come from the float32 dense run of the same window, [B, T, N] for its last T tokens.
    """

    def __init__(self, prompt: Prompt, horizon: int) -> None:
        if prompt.attention is None:
            raise BadInput("controller: an oracle needs the dense run's attention, and this run has none")
        self.rows, self.horizon = prompt.attention(), horizon
        self.first = prompt.capacity - self.rows.shape[1]

    def scores(self, position: int, tokens: IntArray) -> FloatArray:
        at = position - self.first
        ahead = self.rows[:, at : at + self.horizon, : position + 1]
        out: FloatArray = ahead.max(axis=1)
        return out


def controller(
    name: str, prompt: Prompt, *, weights: GruWeights | None, seed: int, horizon: int
) -> Controller:
    """The controller `name` (one of `CONTROLLERS`) at the end of `prompt`.

    Raises:
        BadInput: ``gru`` without weights or for another model; an oracle where no dense attention is at hand.
    """
    if name == "gru":
        if weights is None:
            raise BadInput("controller: 'gru' needs trained weights; train them with 'dse profile train'")
        return Gru(weights, prompt)
    others: dict[str, Callable[[], Controller]] = {
        "accumulated": lambda: Accumulated(prompt),
        "window": lambda: Recency(prompt),
        "random": lambda: Random(prompt, seed),
        "oracle": lambda: Oracle(prompt, 1),
        "future": lambda: Oracle(prompt, horizon),
    }
    return others[name]()
