"""Run one setting inside the model and record what it lost and what it touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Algorithm, Call, Prompt
from dse.algorithms.quantize import Scales
from dse.measure.counting import Tally
from dse.measure.material import DensePass, Window, attention, log_softmax
from dse.measure.npz import UNREADABLE
from dse.models.llama import Llama
from dse.profiles.schema import HISTOGRAM_BINS, HISTOGRAMS, counter_columns

FloatArray = NDArray[np.floating[Any]]

ERROR_WINDOWS: Final = 4
"""Windows (the first ones) on which attention outputs are compared with dense ones."""

ERROR_STRIDE: Final = 4
"""A stateful algorithm is compared at every fourth step."""


@dataclass
class Score:
    """What one setting did over all windows.

    Attributes:
        nll: [W, T] negative log-likelihood of every scored target; `dense_nll` likewise, `distant` [W, T] bool.
        kl: [W, T] KL(dense || setting), nats; `agree` [W, T] bool: same most likely token.
        output_error: mean of |o - o_dense| / |o_dense| per query head over the compared calls.
        counters: [L, H, columns] per decode step; histograms [L, H, 2, bins].
    """

    nll: FloatArray
    dense_nll: FloatArray
    distant: NDArray[np.bool_]
    kl: FloatArray
    agree: NDArray[np.bool_]
    output_error: float
    counters: FloatArray
    histograms: FloatArray


class _Errors:
    """Mean relative error of attention outputs."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, out: FloatArray, dense: FloatArray) -> None:
        """Compare [..., T, d] outputs of the same inputs, head by head."""
        gap = np.sqrt(np.square(out - dense).sum(axis=(-1, -2), dtype=np.float64))
        size = np.sqrt(np.square(dense).sum(axis=(-1, -2), dtype=np.float64))
        self.total += float((gap / np.maximum(size, 1e-30)).sum())
        self.count += gap.size

    @property
    def mean(self) -> float:
        return self.total / max(self.count, 1)


def score(
    model: Llama,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    chosen: Sequence[Window],
    folders: Sequence[Path],
) -> Score:
    """Measure `algorithm` over `chosen`, whose dense passes lie in `folders`."""
    run = _score_stateful if algorithm.stateful else _score_stateless
    return run(model, algorithm, scales, chosen, folders)


class _Gathered:
    """Per-window results as they come in."""

    def __init__(self) -> None:
        self.rows: list[tuple[NDArray[Any], ...]] = []

    def add(self, window: Window, dense: DensePass, log_p: FloatArray) -> None:
        targets = window.tokens[len(window.tokens) - len(log_p) :]
        rows = np.arange(len(targets))
        reference = np.asarray(dense.log_probabilities)
        kl = (np.exp(reference) * (reference - log_p)).sum(axis=-1, dtype=np.float64)
        agree = reference.argmax(axis=-1) == log_p.argmax(axis=-1)
        nll, dense_nll = -log_p[rows, targets], -reference[rows, targets]
        self.rows.append((nll.astype(np.float64), dense_nll.astype(np.float64), dense.distant, kl, agree))

    def finish(self, error: float, tally: Tally, steps: int) -> Score:
        nll, dense_nll, distant, kl, agree = (np.stack(column) for column in zip(*self.rows, strict=True))
        return Score(nll, dense_nll, distant, kl, agree, error, *tally.means(steps))


def _score_stateless(
    model: Llama,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    chosen: Sequence[Window],
    folders: Sequence[Path],
) -> Score:
    """All scored positions of a window at once: no query depends on another one's decisions."""
    shape = model.shape
    tally, errors, gathered = Tally(shape.layers, shape.kv_heads), _Errors(), _Gathered()
    steps = 0
    for number, (window, folder) in enumerate(zip(chosen, folders, strict=True)):
        dense = DensePass.load(folder)
        context, prompt = len(window.tokens) - 1, dense.k.shape[2]
        positions = np.arange(prompt, context)
        steps += len(positions)
        x = model.embed(window.tokens[None, prompt:context])
        for layer in range(shape.layers):
            q, k, v = model.qkv(layer, x, positions)
            k = np.concatenate([dense.k[layer], k[0]], axis=1)[None]
            v = np.concatenate([dense.v[layer], v[0]], axis=1)[None]
            grouped = q.reshape(1, shape.kv_heads, shape.group, len(positions), shape.head_dim)
            out = np.empty_like(grouped)
            for h in range(shape.kv_heads):  # one KV head at a time stays in cache
                one = slice(h, h + 1)
                call = Call(
                    layer,
                    shape.layers,
                    grouped[:, one],
                    k[:, one],
                    v[:, one],
                    prompt,
                    context,
                    scales[layer].head(h),
                )
                attended = algorithm.attend(call)
                out[:, one] = attended.out
                tally.add(layer, one, attended, call.visible())
            if number < ERROR_WINDOWS:
                errors.add(out.reshape(q.shape), attention(q, k, v, prompt)[0])
            x = model.finish(layer, x, out.reshape(q.shape))
        gathered.add(window, dense, log_softmax(model.logits(x[0])))
    return gathered.finish(errors.mean, tally, steps)


def _score_stateful(
    model: Llama,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    chosen: Sequence[Window],
    folders: Sequence[Path],
) -> Score:
    """Position by position, all windows side by side: every decision sees the state the last one left."""
    shape = model.shape
    tally, errors, gathered = Tally(shape.layers, shape.kv_heads), _Errors(), _Gathered()
    passes = [DensePass.load(folder) for folder in folders]
    context, prompt = len(chosen[0].tokens) - 1, passes[0].k.shape[2]
    k0 = [np.stack([p.k[layer] for p in passes]) for layer in range(shape.layers)]
    v0 = [np.stack([p.v[layer] for p in passes]) for layer in range(shape.layers)]
    start = Prompt(k0, v0, shape.group, context, context, np.stack([p.column_sum for p in passes]), scales)
    run = algorithm.start(start)
    compared = min(ERROR_WINDOWS, len(chosen))
    cache = np.zeros((2, shape.layers, compared, shape.kv_heads, context, shape.head_dim), np.float32)
    for layer in range(shape.layers):
        cache[0, layer, :, :, :prompt], cache[1, layer, :, :, :prompt] = (
            k0[layer][:compared],
            v0[layer][:compared],
        )
    del k0, v0, start
    tokens = np.stack([w.tokens for w in chosen])
    hidden = []
    for position in range(prompt, context):
        run.step(position)
        x = model.embed(tokens[:, position : position + 1])
        visible = np.ones((1, position + 1), bool)
        for layer in range(shape.layers):
            q, k, v = model.qkv(layer, x, np.array([position]))
            grouped = q.reshape(len(chosen), shape.kv_heads, shape.group, 1, shape.head_dim)
            attended = run.attend(layer, grouped, k[:, :, 0], v[:, :, 0])
            tally.add(layer, slice(None), attended, visible)
            cache[0, layer, :, :, position], cache[1, layer, :, :, position] = (
                k[:compared, :, 0],
                v[:compared, :, 0],
            )
            out = attended.out.reshape(q.shape)
            if position % ERROR_STRIDE == 0:
                full, _ = attention(
                    q[:compared],
                    cache[0, layer, :, :, : position + 1],
                    cache[1, layer, :, :, : position + 1],
                    position,
                )
                errors.add(out[:compared], full)
            x = model.finish(layer, x, out)
        hidden.append(x[:, 0])
    states = np.stack(hidden, axis=1)
    for number, window in enumerate(chosen):
        gathered.add(window, passes[number], log_softmax(model.logits(states[number])))
    return gathered.finish(errors.mean, tally, (context - prompt) * len(chosen))


def save_score(path: Path, result: Score, header: str) -> None:
    """Write one shard, replacing it in one step; `header` says which setting and material it belongs to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as handle:
        np.savez_compressed(
            handle,
            header=np.array(header),
            nll=result.nll.astype(np.float32),
            dense_nll=result.dense_nll.astype(np.float32),
            distant=result.distant,
            kl=result.kl.astype(np.float32),
            agree=result.agree,
            output_error=np.array(result.output_error),
            counters=result.counters.astype(np.float32),
            histograms=result.histograms.astype(np.float32),
        )
    temporary.replace(path)


def read_header(path: Path) -> str | None:
    """What the shard at `path` says it belongs to; None where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return str(data["header"])
    except UNREADABLE:
        return None


def load_score(path: Path, header: str) -> Score | None:
    """The shard at `path`; None where it is missing, unreadable, or belongs to something else."""
    names = ("nll", "dense_nll", "distant", "kl", "agree", "output_error", "counters", "histograms")
    try:
        with np.load(path, allow_pickle=False) as data:
            if str(data["header"]) != header:
                return None
            fields = {name: data[name] for name in names}
    except UNREADABLE:
        return None
    shape = fields["counters"].shape
    if len(shape) != 3 or shape[2] != len(counter_columns()):
        return None
    if fields["histograms"].shape != (*shape[:2], len(HISTOGRAMS), HISTOGRAM_BINS):
        return None
    if not all(np.isfinite(fields[name]).all() for name in names):
        return None
    fields["output_error"] = float(fields["output_error"])
    for name in ("nll", "dense_nll", "kl"):
        fields[name] = fields[name].astype(np.float64)
    return Score(**fields)
