"""Dense attention of a model as one matrix per window: what a policy for all layers can at best know.

Rows are averaged over layers and query heads. Controllers are trained on them, and oracles are given them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dse.algorithms.contract import FloatArray, IntArray
from dse.measure.material import attention, need_finite
from dse.models.protocol import Model

QUERIES: Final = 128
"""Queries of one block: their scores stay in cache, and keys after the block are never multiplied."""


def mean_attention(
    model: Model, tokens: IntArray, k: FloatArray | None = None, v: FloatArray | None = None
) -> FloatArray:
    """Attention probabilities [T - P, T] (float32) of `tokens` [T] after a prompt of P tokens.

    `k` and `v` [L, H, P, d] are the prompt's cache; without them P is 0 and every row is made. Costs one dense
    pass over the T - P positions.
    """
    shape = model.shape
    first = 0 if k is None else k.shape[2]
    positions = np.arange(first, len(tokens))
    total = np.zeros((len(positions), len(tokens)), np.float32)

    def attend(layer: int, q: FloatArray, new_k: FloatArray, new_v: FloatArray) -> FloatArray:
        need_finite(model, f"layer {layer}: queries, keys or values", q, new_k, new_v)
        if k is not None and v is not None:
            new_k = np.concatenate([k[layer, None], new_k], axis=2)
            new_v = np.concatenate([v[layer, None], new_v], axis=2)
        out = np.empty_like(q)
        for start in range(0, len(positions), QUERIES):
            stop = min(start + QUERIES, len(positions))
            keys = first + stop
            out[:, :, start:stop], p = attention(
                q[:, :, start:stop],
                new_k[:, :, :keys],
                new_v[:, :, :keys],
                first + start,
                window=model.windows[layer],
            )
            total[start:stop, :keys] += p.reshape(-1, stop - start, keys).sum(axis=0)
        return out

    model.run(tokens[None, first:], positions, attend)
    total /= shape.layers * shape.query_heads
    return total
