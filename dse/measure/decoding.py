"""An algorithm decoding inside the model: token by token from a dense prompt, sequences side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dse.algorithms.contract import Algorithm, Attended, Call, FloatArray, IntArray, Prompt, Run
from dse.algorithms.quantize import Scales
from dse.errors import BadInput
from dse.measure.attended import check
from dse.measure.material import ReadPrompt
from dse.models.protocol import Model

Observer = Callable[[int, int, FloatArray, FloatArray, FloatArray, Attended], None]
"""Called with layer, position, q [B, Hq, R + 1, d], k and v [B, H, R + 1, d] and what the algorithm made of them."""


class Decoding:
    """A decode in progress: any algorithm, whether it keeps state or not.

    `prompt` is where it starts, its `tokens` included; `observe` sees every layer of every step.
    """

    def __init__(
        self, model: Model, algorithm: Algorithm, prompt: Prompt, observe: Observer | None = None
    ) -> None:
        self.model, self.algorithm = model, algorithm
        self.observe = observe
        batch, self.position = prompt.tokens.shape
        self.tokens = np.zeros((batch, prompt.capacity), np.int64)
        """[B, capacity]: the prompt and what was taken since."""
        self.tokens[:, : self.position] = prompt.tokens
        self.run = algorithm.start(prompt) if algorithm.stateful else Stateless(algorithm, prompt)

    def step(self, tokens: IntArray) -> FloatArray:
        """Take `tokens` [B], the next of every sequence; returns the last hidden states [B, D], at them."""
        shape, position = self.model.shape, self.position
        self.tokens[:, position] = tokens
        positions = np.full((len(tokens), 1), position)
        again = self.run.step(position, tokens)
        if again is not None:
            positions = np.concatenate([again, positions], axis=1)

        def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
            grouped = q.reshape(len(q), shape.kv_heads, shape.group, *q.shape[2:])
            attended = self.run.attend(layer, grouped, k, v)
            check(self.algorithm, attended, grouped)
            if self.observe is not None:
                self.observe(layer, position, q, k, v, attended)
            return attended.out.reshape(q.shape)

        fed = np.take_along_axis(self.tokens, positions, axis=1)
        hidden = self.model.run(fed, positions, attend)[:, -1]
        self.position += 1
        return hidden


class Stateless(Run):
    """A run of an algorithm that keeps nothing from query to query: the cache is kept for it."""

    def __init__(self, algorithm: Algorithm, prompt: Prompt) -> None:
        self.algorithm, self.prompt = algorithm, prompt
        batch, heads, self.position, dim = prompt.k[0].shape
        self.cache = np.zeros((2, len(prompt.k), batch, heads, prompt.capacity, dim), np.float32)
        for layer, (k, v) in enumerate(zip(prompt.k, prompt.v, strict=True)):
            self.cache[0, layer, :, :, : self.position] = k
            self.cache[1, layer, :, :, : self.position] = v

    def step(self, position: int, tokens: IntArray) -> None:
        self.position = position

    def attend(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> Attended:
        now = self.position
        self.cache[0, layer, :, :, now], self.cache[1, layer, :, :, now] = k[:, :, 0], v[:, :, 0]
        seen = self.cache[:, layer, :, :, : now + 1]
        return self.algorithm.attend(
            Call(
                layer=layer,
                layers=self.cache.shape[1],
                q=q,
                k=seen[0],
                v=seen[1],
                first=now,
                context=self.prompt.context,
                scales=self.prompt.scales[layer],
                window=self.prompt.windows[layer] if self.prompt.windows else 0,
            )
        )


def prompt_of(
    model: Model,
    read: Sequence[ReadPrompt],
    scales: Sequence[Scales],
    capacity: int,
    context: int,
    ahead: Callable[[], FloatArray] | None = None,
) -> Prompt:
    """Where sequences start whose prompts, all as long, were read densely.

    `ahead` is `Prompt.attention`; left out, nothing is known of what follows, and an oracle is refused.
    """

    def unknown() -> FloatArray:
        raise BadInput(
            "an oracle needs the text that follows, and here there is none yet; leave its settings out"
        )

    layers = range(model.shape.layers)
    return Prompt(
        k=[np.stack([one.k[layer] for one in read]) for layer in layers],
        v=[np.stack([one.v[layer] for one in read]) for layer in layers],
        group=model.shape.group,
        capacity=capacity,
        context=context,
        column_sum=np.stack([one.column_sum for one in read]),
        scales=scales,
        tokens=np.stack([one.tokens for one in read]),
        embed=model.embed,
        windows=model.windows,
        attention=ahead or unknown,
    )
