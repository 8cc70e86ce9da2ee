"""Measure an algorithm whose queries do not depend on each other: a window's scored positions all at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dse.algorithms.contract import Algorithm, Call, FloatArray
from dse.algorithms.quantize import Scales
from dse.measure.attended import attend as checked
from dse.measure.counting import Tally
from dse.measure.material import DensePass, Window, attention
from dse.measure.outcome import ERROR_WINDOWS, Errors, Gathered, Score
from dse.models.protocol import Model


def score_stateless(
    model: Model,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    chosen: Sequence[Window],
    folders: Sequence[Path],
) -> Score:
    """Run `algorithm` over the last quarter of `chosen`, whose dense passes lie in `folders`."""
    shape = model.shape
    tally, errors, gathered = Tally(shape.layers, shape.kv_heads), Errors(), Gathered()
    steps = 0
    for number, (window, folder) in enumerate(zip(chosen, folders, strict=True)):
        dense = DensePass.load(folder)
        context, prompt = len(window.tokens) - 1, dense.k.shape[2]
        positions = np.arange(prompt, context)
        steps += len(positions)

        def attend(
            layer: int,
            q: FloatArray,
            k: FloatArray,
            v: FloatArray,
            dense: DensePass = dense,
            context: int = context,
            prompt: int = prompt,
            compared: bool = number < ERROR_WINDOWS,
        ) -> FloatArray:
            k = np.concatenate([dense.k[layer], k[0]], axis=1)[None]
            v = np.concatenate([dense.v[layer], v[0]], axis=1)[None]
            grouped = q.reshape(1, shape.kv_heads, shape.group, -1, shape.head_dim)
            out = np.empty_like(grouped)
            sliding = model.windows[layer]
            for h in range(shape.kv_heads):  # one KV head at a time stays in cache
                one = slice(h, h + 1)
                call = Call(
                    layer=layer,
                    layers=shape.layers,
                    q=grouped[:, one],
                    k=k[:, one],
                    v=v[:, one],
                    first=prompt,
                    context=context,
                    scales=scales[layer].head(h),
                    first_head=h,
                    window=sliding,
                )
                attended = checked(algorithm, call)
                out[:, one] = attended.out
                tally.add(layer, one, attended, call.visible())
            if compared:
                errors.add(out.reshape(q.shape), attention(q, k, v, prompt, window=sliding)[0])
            return out.reshape(q.shape)

        hidden = model.run(window.tokens[None, prompt:context], positions, attend)
        gathered.add(model, window, dense, hidden[0])
    return gathered.finish(errors.mean, tally, steps)
