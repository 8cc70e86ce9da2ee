"""Measure an algorithm that decides from what it saw before: token by token, all windows side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from dse.algorithms.contract import Algorithm, Attended, FloatArray, visible_keys
from dse.algorithms.quantize import Scales
from dse.measure.counting import Tally
from dse.measure.decoding import Decoding, prompt_of
from dse.measure.material import DensePass, ReadPrompt, Window, attention
from dse.measure.outcome import ERROR_WINDOWS, Errors, Gathered, Score
from dse.measure.traces import mean_attention
from dse.models.protocol import Model

ERROR_STRIDE: Final = 4
"""Outputs are compared at every fourth step."""


def score_stateful(
    model: Model,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    chosen: Sequence[Window],
    folders: Sequence[Path],
) -> Score:
    """Run `algorithm` over the last quarter of `chosen`, whose dense passes lie in `folders`."""
    shape = model.shape
    tally, errors, gathered = Tally(shape.layers, shape.kv_heads), Errors(), Gathered()
    passes = [DensePass.load(folder) for folder in folders]
    tokens = np.stack([w.tokens for w in chosen])
    context, first = len(chosen[0].tokens) - 1, passes[0].k.shape[2]
    prompt = prompt_of(
        model,
        [ReadPrompt(w.tokens[:first], p.k, p.v, p.column_sum) for w, p in zip(chosen, passes, strict=True)],
        scales,
        capacity=context,
        context=context,
        ahead=lambda: np.stack(
            [mean_attention(model, w.tokens[:-1], p.k, p.v) for w, p in zip(chosen, passes, strict=True)]
        ),
    )
    compared = min(ERROR_WINDOWS, len(chosen))
    cache = np.zeros((2, shape.layers, compared, shape.kv_heads, context, shape.head_dim), np.float32)
    for layer in range(shape.layers):
        cache[0, layer, :, :, :first] = prompt.k[layer][:compared]
        cache[1, layer, :, :, :first] = prompt.v[layer][:compared]

    def observe(
        layer: int, position: int, q: FloatArray, k: FloatArray, v: FloatArray, attended: Attended
    ) -> None:
        sliding = model.windows[layer]
        tally.add(layer, slice(None), attended, visible_keys(np.array([position]), position + 1, sliding))
        cache[0, layer, :, :, position] = k[:compared, :, -1]
        cache[1, layer, :, :, position] = v[:compared, :, -1]
        if position % ERROR_STRIDE == 0:
            seen = cache[:, layer, :, :, : position + 1]
            full, _ = attention(q[:compared, :, -1:], seen[0], seen[1], position, window=sliding)
            errors.add(attended.out.reshape(q.shape)[:compared, :, -1:], full)

    decoding = Decoding(model, algorithm, prompt, observe)
    del prompt
    hidden = [decoding.step(tokens[:, position]) for position in range(first, context)]
    states = np.stack(hidden, axis=1)
    for number, window in enumerate(chosen):
        gathered.add(model, window, passes[number], states[number])
    return gathered.finish(errors.mean, tally, (context - first) * len(chosen))
