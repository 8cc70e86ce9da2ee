"""Loss and gradient of the GRU controller, by hand: the only network this project trains.

Forward and backward follow `dse.algorithms.controllers`; a finite-difference test holds them together. Axes:
B sequences, T tokens, D embedding, h state, c key, R query rows drawn from the T.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import numpy as np

from dse.algorithms.contract import BoolArray, FloatArray, IntArray
from dse.algorithms.controllers import BUCKETS, GruWeights, buckets, sigmoid

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8


def initial(dim: int, state: int, keys: int, rng: np.random.Generator) -> GruWeights:
    """Random weights of variance 1 / inputs, zero biases."""

    def matrix(rows: int, columns: int) -> FloatArray:
        return np.asarray(rng.standard_normal((rows, columns)) / np.sqrt(rows), np.float32)

    zeros = np.zeros(3 * state, np.float32)
    return GruWeights(
        input=matrix(dim, 3 * state),
        recurrent=matrix(state, 3 * state),
        input_bias=zeros,
        recurrent_bias=zeros.copy(),
        query=matrix(state, keys),
        key=matrix(state + dim, keys),
        bias=np.zeros(state + dim, np.float32),
        recency=np.zeros(BUCKETS, np.float32),
    )


class _States:
    """The GRU over whole sequences: states, and what the way back needs."""

    def __init__(self, weights: GruWeights, embedded: FloatArray) -> None:
        """`embedded` [B, T, D] at unit RMS."""
        self.weights, self.embedded = weights, embedded
        batch, length, dim = embedded.shape
        size = weights.state
        # Time leads: every step then works on one block of memory.
        self.inputs = np.ascontiguousarray(embedded.swapaxes(0, 1)).reshape(-1, dim)
        fed = (self.inputs @ weights.input + weights.input_bias).reshape(length, batch, 3 * size)
        self.gates = np.empty((length, batch, 2 * size), fed.dtype)  # reset, update
        self.candidate = np.empty((length, batch, size), fed.dtype)
        self.back = np.empty((length, batch, size), fed.dtype)  # recurrent part of the candidate
        self.states = np.zeros((length + 1, batch, size), fed.dtype)
        for t in range(length):
            state = self.states[t]
            back = state @ weights.recurrent + weights.recurrent_bias
            gates = sigmoid(fed[t, :, : 2 * size] + back[:, : 2 * size])
            self.gates[t], self.back[t] = gates, back[:, 2 * size :]
            candidate = np.tanh(fed[t, :, 2 * size :] + gates[:, :size] * self.back[t])
            self.candidate[t] = candidate
            self.states[t + 1] = candidate + gates[:, size:] * (state - candidate)

    @property
    def out(self) -> FloatArray:
        """[B, T, h]"""
        return self.states[1:].swapaxes(0, 1)

    def gradient(self, wanted: FloatArray) -> dict[str, FloatArray]:
        """Gradients of the cell's weights from those of all states, `wanted` [B, T, h]."""
        size, weights = self.weights.state, self.weights
        length, batch = self.candidate.shape[:2]
        arriving = np.ascontiguousarray(wanted.swapaxes(0, 1))
        fed = np.empty((length, batch, 3 * size), arriving.dtype)
        through = np.empty_like(fed)
        later = np.zeros((batch, size), arriving.dtype)
        turned = np.ascontiguousarray(weights.recurrent.T)
        for t in range(length - 1, -1, -1):
            later += arriving[t]
            reset, update = self.gates[t, :, :size], self.gates[t, :, size:]
            candidate, state = self.candidate[t], self.states[t]
            inner = later * (1 - update) * (1 - candidate * candidate)
            fed[t, :, :size] = inner * self.back[t] * reset * (1 - reset)
            fed[t, :, size : 2 * size] = later * (state - candidate) * update * (1 - update)
            fed[t, :, 2 * size :] = inner
            through[t] = fed[t]
            through[t, :, 2 * size :] *= reset
            later = later * update + through[t] @ turned
        flat_fed, flat_through = fed.reshape(-1, 3 * size), through.reshape(-1, 3 * size)
        return {
            "input": self.inputs.T @ flat_fed,
            "input_bias": flat_fed.sum(axis=0),
            "recurrent": self.states[:-1].reshape(-1, size).T @ flat_through,
            "recurrent_bias": flat_through.sum(axis=0),
        }


def states(weights: GruWeights, embedded: FloatArray) -> FloatArray:
    """GRU states [B, T, h] over embeddings [B, T, D] at unit RMS."""
    return _States(weights, embedded).out


def loss_and_gradient(
    weights: GruWeights, embedded: FloatArray, rows: IntArray, labels: BoolArray, pos_weight: float
) -> tuple[float, dict[str, FloatArray]]:
    """Mean binary cross-entropy over all pairs (query t in `rows`, token i <= t), and its gradient.

    Args:
        embedded: [B, T, D], unit RMS.
        rows: [R] query positions, the same in every sequence.
        labels: [B, R, T]; entries after the query are ignored.
        pos_weight: weight of a pair whose label is True.
    """
    length, size, scale = embedded.shape[1], weights.state, weights.keys**-0.5
    cell = _States(weights, embedded)
    features = np.concatenate([cell.out, embedded], axis=-1)
    key, bias = features @ weights.key, features @ weights.bias
    states = cell.out[:, rows]
    query = states @ weights.query * scale
    distance = rows[:, None] - np.arange(length)
    past = distance >= 0
    bucket = buckets(np.maximum(distance, 0))
    scores = query @ key.swapaxes(1, 2) + bias[:, None, :] + weights.recency[bucket]
    chance = sigmoid(scores)
    pairs = len(embedded) * np.count_nonzero(past)
    softplus = np.logaddexp(0, scores)  # of the negative: softplus - scores
    each = np.where(labels, pos_weight * (softplus - scores), softplus)
    loss = float((each * past).sum(dtype=np.float64) / pairs)
    slope = np.where(labels, pos_weight * (chance - 1), chance) * (past / pairs).astype(scores.dtype)

    to_query = slope @ key * scale
    to_key, to_bias = slope.swapaxes(1, 2) @ query, slope.sum(axis=1)
    to_states = to_key @ weights.key[:size].T + to_bias[..., None] * weights.bias[:size]
    to_states[:, rows] += to_query @ weights.query.T
    flat = features.reshape(-1, features.shape[-1])
    gradient = cell.gradient(to_states)
    gradient["query"] = states.reshape(-1, size).T @ to_query.reshape(-1, weights.keys)
    gradient["key"] = flat.T @ to_key.reshape(-1, weights.keys)
    gradient["bias"] = flat.T @ to_bias.ravel()
    gradient["recency"] = np.bincount(bucket.ravel(), slope.sum(axis=0).ravel(), BUCKETS).astype(scores.dtype)
    return loss, gradient


class AdamW:
    """Adam with decoupled weight decay on matrices (Loshchilov and Hutter, ICLR 2019)."""

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.mean: dict[str, FloatArray] = {}
        self.square: dict[str, FloatArray] = {}

    def step(self, weights: GruWeights, gradient: dict[str, FloatArray], rate: float) -> GruWeights:
        """The weights after one update."""
        self.steps += 1
        new = {}
        for name in (f.name for f in fields(weights)):
            w, g = getattr(weights, name), gradient[name]
            self.mean[name] = BETAS[0] * self.mean.get(name, 0 * g) + (1 - BETAS[0]) * g
            self.square[name] = BETAS[1] * self.square.get(name, 0 * g) + (1 - BETAS[1]) * g * g
            mean = self.mean[name] / (1 - BETAS[0] ** self.steps)
            square = self.square[name] / (1 - BETAS[1] ** self.steps)
            decayed = w * (1 - rate * self.decay) if w.ndim > 1 else w
            new[name] = (decayed - rate * mean / (np.sqrt(square) + EPSILON)).astype(w.dtype)
        return GruWeights(**new)
