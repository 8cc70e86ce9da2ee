"""Measure the prompt phase: a prompt goes through an algorithm, and a dense model reads on from what it left.

Bucket c is a prompt of exactly c tokens, whose last layer's hidden states are not looked at. The next c / 4 tokens
are scored by the float model with dense attention over the keys and values of the prompt as the algorithm's pass
computed them (in float: what a cache of fewer bits loses is measured in decode), and over their own. A token that
was pruned from some layer on has no key and no value there. The loss is compared with that of the same tokens
after a dense float prompt. A window therefore holds c + c / 4 + 1 tokens.

Counters are per prompt; fetches also per tile of consecutive queries that are left in a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dse.algorithms.contract import Algorithm, Attended, BoolArray, Call, FloatArray, IntArray
from dse.algorithms.prompt import Note, Passage, PromptRun, Summarises
from dse.algorithms.quantize import Scales
from dse.errors import BadInput
from dse.measure.attended import attend as checked
from dse.measure.counting import TileTally
from dse.measure.material import (
    DISTANT_NATS,
    LOCAL_WINDOW,
    SINKS,
    Expected,
    Window,
    fingerprint,
    log_probabilities,
    need_finite,
    windows,
)
from dse.measure.outcome import ERROR_WINDOWS, Errors, Gathered, Score
from dse.models.protocol import Model
from dse.profiles.schema import QUERY_TILES

BLOCK: Final = QUERY_TILES[-1]
"""Queries handed to an algorithm at once."""

ERROR_STRIDE: Final = 8
"""Outputs are compared at every eighth query."""


def prefill_windows(
    texts: Mapping[str, IntArray], part: str, context: int, count: int, seed: int
) -> list[Window]:
    """`count` windows of `context` prompt tokens and what is scored after them; arguments as `material.windows`.

    Raises:
        BadInput: the context is no multiple of 4, or the text is too short.
    """
    if context < 4 or context % 4:
        raise BadInput(
            f"context {context}: must be a multiple of 4; a quarter of it is scored after the prompt"
        )
    return windows(texts, part, context + context // 4, count, seed)


def prompt_length(window: Window) -> int:
    """Tokens of a window's prompt."""
    return (len(window.tokens) - 1) * 4 // 5


@dataclass
class Cache:
    """Keys and values that a prompt left: per layer [H, n, d], and the positions [n] of their tokens."""

    k: list[FloatArray]
    v: list[FloatArray]
    positions: list[IntArray]


def dense(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    queries: IntArray,
    tokens: IntArray,
    window: int = 0,
    local: int = 0,
) -> FloatArray:
    """Float attention of q [Hq, T, d] at positions `queries` [T] over k, v [H, n, d] at `tokens` [n], both rising.

    `window` is the layer's; `local` > 0 hides keys further back than that, except the first `material.SINKS`.
    """
    heads, _, dim = k.shape
    grouped = q.reshape(heads, -1, *q.shape[1:])
    out = np.empty_like(grouped)
    for begin in range(0, len(queries), BLOCK):
        part = slice(begin, begin + BLOCK)
        known = slice(0, int(np.searchsorted(tokens, queries[part][-1], side="right")))
        distance = queries[part, None] - tokens[known]
        hidden = distance < 0
        if window:
            hidden |= distance >= window
        if local:
            hidden |= (distance >= local) & (tokens[known] >= SINKS)
        for h in range(heads):
            block = grouped[h, :, part]
            scores = block.reshape(-1, dim) @ k[h, known].T
            scores *= dim**-0.5
            scores.reshape(*block.shape[:2], -1)[:, hidden] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            out[h, :, part] = (scores @ v[h, known]).reshape(block.shape)
    return out.reshape(q.shape)


def read_on(model: Model, window: Window, cache: Cache, local: int = 0) -> FloatArray:
    """[T, D] hidden states of the tokens after the prompt, read densely over `cache` and themselves."""
    first, last = prompt_length(window), len(window.tokens) - 1
    positions = np.arange(first, last)

    def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
        keys = np.concatenate([cache.k[layer], k[0]], axis=1)
        values = np.concatenate([cache.v[layer], v[0]], axis=1)
        tokens = np.concatenate([cache.positions[layer], positions])
        return dense(q[0], keys, values, positions, tokens, model.windows[layer], local)[None]

    hidden: FloatArray = model.run(window.tokens[None, first:last], positions, attend)[0]
    return hidden


def reference(model: Model, window: Window) -> Expected:
    """The dense float prompt and what follows it."""
    positions = np.arange(prompt_length(window))
    cache = Cache([], [], [])

    def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
        need_finite(model, f"layer {layer}: queries, keys or values", q, k, v)
        cache.k.append(k[0])
        cache.v.append(v[0])
        cache.positions.append(positions)
        return dense(q[0], k[0], v[0], positions, positions, model.windows[layer])[None]

    model.run(window.tokens[None, : len(positions)], positions, attend)
    targets = window.tokens[len(positions) + 1 :]
    full = np.empty((len(targets), model.vocabulary), np.float32)
    for rows, part in log_probabilities(model, read_on(model, window, cache)):
        full[rows] = part
    gain = np.take_along_axis(full, targets[:, None], axis=-1)[:, 0]
    for rows, part in log_probabilities(model, read_on(model, window, cache, LOCAL_WINDOW)):
        gain[rows] -= np.take_along_axis(part, targets[rows, None], axis=-1)[:, 0]
    return Expected(full, gain > DISTANT_NATS)


def prepare_prefill(model: Model, chosen: Sequence[Window], folder: Path) -> Iterator[Path]:
    """Make the reference of every window, once; yields each window's folder as it is ready."""
    for window in chosen:
        # Another model or text may use the same folder: what the reference depends on is part of its name.
        place = (
            folder
            / f"prefill-{window.book}-{window.start}-{prompt_length(window)}-{fingerprint(model, window)}"
        )
        scored = len(window.tokens) - 1 - prompt_length(window)
        if not Expected.sound(place, [(scored, model.vocabulary), (scored,)]):
            reference(model, window).save(place)
        yield place


def start_prompt(algorithm: Algorithm, passage: Passage) -> PromptRun:
    """The prompt phase of a setting.

    Raises:
        BadInput: it keeps state from token to token and has no prompt phase, or a knob has no meaning there.
    """
    if isinstance(algorithm, Summarises):
        return algorithm.start_prompt(passage)
    if algorithm.stateful:
        raise BadInput(f"{algorithm.name}: has no prompt phase; measure it in decode")
    return _Stateless(algorithm, passage)


def check_prefill(algorithm: Algorithm) -> None:
    """Raise `BadInput` where a setting cannot be measured on a prompt."""
    start_prompt(algorithm, Passage(1, 1, 1, 1, BLOCK, (), (0,)))


class _Stateless(PromptRun):
    """The prompt of an algorithm whose queries do not depend on each other."""

    def __init__(self, algorithm: Algorithm, passage: Passage) -> None:
        self.algorithm, self.passage = algorithm, passage
        self.alive = np.arange(passage.length)

    def attend(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray, note: Note) -> FloatArray:
        passage = self.passage
        out = np.empty_like(q)
        for h in range(len(k)):  # one KV head at a time stays in cache
            scales = passage.scales[layer].head(h)
            for first in range(0, passage.length, passage.block):
                stop = min(first + passage.block, passage.length)
                call = Call(
                    layer=layer,
                    layers=passage.layers,
                    q=q[None, h : h + 1, :, first:stop],
                    k=k[None, h : h + 1, :stop],
                    v=v[None, h : h + 1, :stop],
                    first=first,
                    context=passage.length,
                    scales=scales,
                    first_head=h,
                    window=passage.windows[layer],
                )
                attended = checked(self.algorithm, call)
                out[h, :, first:stop] = attended.out[0, 0]
                note(h, attended, call.visible())
        return out


def score_prefill(
    model: Model,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    chosen: Sequence[Window],
    folders: Sequence[Path],
) -> Score:
    """Run `algorithm` over the prompts of `chosen`, whose references lie in `folders`.

    The result's losses are those of the tokens after the prompts; its counters are per prompt.

    Raises:
        BadInput: as `start_prompt`.
    """
    shape = model.shape
    tally, errors, gathered = TileTally(shape.layers, shape.kv_heads), Errors(), Gathered()
    for number, (window, folder) in enumerate(zip(chosen, folders, strict=True)):
        length = prompt_length(window)
        passage = Passage(
            layers=shape.layers,
            kv_heads=shape.kv_heads,
            group=shape.group,
            length=length,
            block=BLOCK,
            scales=scales,
            windows=model.windows,
        )
        run = start_prompt(algorithm, passage)
        cache = _prompt(model, window, run, tally, errors if number < ERROR_WINDOWS else None)
        gathered.add(model, window, Expected.load(folder), read_on(model, window, cache))
    result = gathered.finish(errors.mean, tally, len(chosen))
    result.tile_counters = tally.tiles / len(chosen)
    return result


def _prompt(model: Model, window: Window, run: PromptRun, tally: TileTally, errors: Errors | None) -> Cache:
    """One prompt through the model; what it leaves."""
    shape, length = model.shape, prompt_length(window)
    cache = Cache([], [], [])

    def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
        def note(head: int, attended: Attended, visible: BoolArray) -> None:
            tally.add(layer, slice(head, head + 1), attended, visible)

        entering = run.alive
        out = run.attend(layer, q[0].reshape(shape.kv_heads, shape.group, length, -1), k[0], v[0], note)
        out = out.reshape(q.shape[1:])
        if errors is not None:
            some = run.alive[::ERROR_STRIDE]
            keys, values = k[0][:, entering], v[0][:, entering]
            errors.add(out[:, some], dense(q[0][:, some], keys, values, some, entering, model.windows[layer]))
        left = run.alive
        cache.k.append(k[0][:, left])
        cache.v.append(v[0][:, left])
        cache.positions.append(left)
        return out[None]

    model.run(window.tokens[None, :length], np.arange(length), attend)
    return cache
