"""SpAtten: cascade token and head pruning, local value pruning, progressive quantisation of keys.

Tokens collect importance (the attention probability they receive, over heads, layers and decode steps); each
layer keeps the most important ones and later layers never see the rest in this step. Keys are fetched at MSB
width first; a query head whose largest probability stays under `confidence` fetches the LSBs of its row and
computes it again. After the softmax only the largest probabilities fetch their values.

Source: Wang, Zhang, Han, "SpAtten: Efficient Sparse Attention Architecture with Cascade Token and Head
Pruning", HPCA 2021 (arXiv 2012.09852), read in full; schedules and rounding as in the authors' published
workload traces. The paper prunes fine-tuned GPT-2 models; here nothing is fine-tuned. The current token is
always kept, which the paper leaves unsaid and decoding requires; `recent` extends that protection (ours).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import (
    Algorithm,
    Attended,
    BoolArray,
    FloatArray,
    Knob,
    Prompt,
    Run,
)
from dse.algorithms.operands import softmax_over
from dse.algorithms.prompt import Passage
from dse.algorithms.quantize import parse_chunks, to_integers
from dse.algorithms.spatten_prompt import SpAttenPrompt
from dse.errors import BadInput
from dse.profiles.schema import Form

IntArray = NDArray[np.integer[Any]]


def keep_ratios(schedule: str, average: float, front: float, layers: int) -> list[float]:
    """Ratio kept in each layer, never rising with depth.

    `schedule` is ``"linear"`` (from 1.5 to 0.5 times the average deviation allowed around `average`, the
    paper's r_start + r_end = 2 r_avg), ``"constant"``, or an explicit list of steps
    ``"0:1,2:0.9,5:0.6"`` (from layer 2 on keep 0.9, ...), in which case `average` and `front` are ignored.
    Elsewhere the first ceil(front * layers) layers stay dense.

    Raises:
        ValueError: the list cannot be read, or a ratio is not in (0, 1] or rises.
    """
    if ":" in schedule:
        steps = [part.split(":") for part in schedule.split(",")]
        starts = [(int(layer), float(ratio)) for layer, ratio in steps]
        if [s[0] for s in starts] != sorted({s[0] for s in starts}) or starts[0][0] < 0:
            raise ValueError("layers must rise")
        ratios = [1.0] * layers
        for start, ratio in starts:
            if not 0 < ratio <= 1:
                raise ValueError(f"ratio {ratio} is not in (0, 1]")
            ratios[start:] = [ratio] * max(layers - start, 0)
        if any(later > earlier for earlier, later in zip(ratios, ratios[1:], strict=False)):
            raise ValueError("a pruned token cannot come back: ratios must not rise")
        return ratios
    dense = min(math.ceil(front * layers - 1e-9), layers)
    pruned = layers - dense
    spread = min(average, 1 - average) / 2 if schedule == "linear" and pruned > 1 else 0.0
    slope = [average + spread * (1 - 2 * i / max(pruned - 1, 1)) for i in range(pruned)]
    return [1.0] * dense + slope


class SpAtten(Algorithm):
    """Cascade pruning with progressive quantisation."""

    name = "spatten"
    summary = "keeps the most important tokens and heads per layer; few key bits first, more where unsure"
    source = "Wang et al., HPCA 2021"
    stateful = True
    knobs = (
        Knob("keep", 0.5, "mean token keep ratio of the layers behind the dense front", 0.01, 1.0),
        Knob("schedule", "linear", "keep ratio over layers: linear, constant, or steps '0:1,2:0.9,5:0.6'"),
        Knob("front", 0.15, "fraction of layers, from the first, that keep all tokens", 0.0, 1.0),
        Knob("head_keep", 1.0, "mean head keep ratio behind the dense 30 % of layers", 0.1, 1.0),
        Knob("value_keep", 1.0, "fraction of surviving tokens whose values a head fetches", 0.01, 1.0),
        Knob("chunks", "8+4", "MSB and LSB widths of keys ('8' alone: no second pass)"),
        Knob("v_bits", 8, "width of values", 2, 16),
        Knob("confidence", 0.1, "largest probability under which a head fetches its LSBs", 0.0, 1.0),
        Knob("recent", 1, "most recent tokens that are always kept (1: the current one)", 1, 4096),
        Knob(
            "importance",
            "prompt-mean",
            "importance at the first decode step: means over the prompt's queries that saw the token, plain sums "
            "over them (the paper's), or nothing",
            choices=("prompt-mean", "prompt", "empty"),
        ),
    )

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        super().__init__(knobs, where)
        where = where or self.name
        try:
            self.widths = parse_chunks(self.text("chunks"))
            if len(self.widths) > 2:
                raise ValueError
        except ValueError:
            raise BadInput(
                f"{where}.chunks: {self.text('chunks')!r} is no MSB width or MSB+LSB pair such as '8+4'"
            ) from None
        schedule = self.text("schedule")
        if schedule not in ("linear", "constant"):
            try:
                if ":" not in schedule:
                    raise ValueError("expected linear, constant or steps such as '0:1,2:0.9,5:0.6'")
                last = max(int(part.split(":")[0]) for part in schedule.split(","))
                keep_ratios(schedule, 1.0, 0.0, last + 1)
            except ValueError as error:
                raise BadInput(f"{where}.schedule: {schedule!r}: {error}") from None

    def token_ratios(self, layers: int) -> list[float]:
        return keep_ratios(self.text("schedule"), self.number("keep"), self.number("front"), layers)

    def head_ratios(self, layers: int) -> list[float]:
        return keep_ratios("linear", self.number("head_keep"), 0.30, layers)

    def form(self) -> Form:
        return Form(
            k_chunk_bits=self.widths,
            v_bits=self.integer("v_bits"),
            q_bits=12,
            v_after="row" if self.number("value_keep") < 1 else "none",
            chunk_order="row",
        )

    def start(self, prompt: Prompt) -> SpAttenRun:
        return SpAttenRun(self, prompt)

    def start_prompt(self, passage: Passage) -> SpAttenPrompt:
        return SpAttenPrompt(self, passage)


class SpAttenRun(Run):
    """A decode of `B` windows in step. Importance is shared by all heads, as in the paper."""

    def __init__(self, algorithm: SpAtten, prompt: Prompt) -> None:
        self.algorithm = algorithm
        self.prompt = prompt
        layers = len(prompt.k)
        batch, heads, length, dim = prompt.k[0].shape
        self.dim, self.dtype = dim, prompt.k[0].dtype
        self.windows = tuple(prompt.windows) or (0,) * layers
        self.ratios = algorithm.token_ratios(layers)
        self.kept_heads = [
            max(1, math.floor(r * heads * prompt.group + 1e-9)) for r in algorithm.head_ratios(layers)
        ]
        self.value_keep = algorithm.number("value_keep")
        self.lsb = algorithm.widths[1] if len(algorithm.widths) == 2 else 0
        self.k_bits = sum(algorithm.widths)
        self.v_bits = algorithm.integer("v_bits")
        shape = (batch, heads, prompt.capacity, dim)
        self.k_full = [np.zeros(shape, self.dtype) for _ in range(layers)]
        self.k_msb = [np.zeros(shape, self.dtype) for _ in range(layers)] if self.lsb else self.k_full
        self.v = [np.zeros(shape, self.dtype) for _ in range(layers)]
        for layer in range(layers):
            self._store(layer, slice(0, length), prompt.k[layer], prompt.v[layer])
        self.importance = np.zeros((batch, prompt.capacity))
        start = algorithm.text("importance")
        if start != "empty":
            seen = queries_that_saw(length, self.windows) if start == "prompt-mean" else 1
            self.importance[:, :length] = prompt.column_sum / seen
        # Without scores the first step keeps every token, as the published workloads do.
        self.scored = start != "empty"
        self.position = -1
        self.alive: BoolArray = np.zeros((batch, 0), bool)
        self.seen = self.alive  # ... and in the layer's window
        self.heads_alive: BoolArray = np.zeros((batch, heads, prompt.group), bool)
        self.head_importance = np.zeros((batch, heads, prompt.group))

    def _store(self, layer: int, where: slice, k: FloatArray, v: FloatArray) -> None:
        """Quantise [B, H, n, d] into the cache; the first bits of a key are its integer with the rest floored."""
        scales = self.prompt.scales[layer]
        step_k = scales.k[self.k_bits][None, :, None, None].astype(self.dtype)
        step_v = scales.v[self.v_bits][None, :, None, None].astype(self.dtype)
        integers = to_integers(k, step_k, self.k_bits)
        self.k_full[layer][:, :, where] = integers * step_k
        if self.lsb:
            self.k_msb[layer][:, :, where] = np.floor(integers / 2.0**self.lsb) * 2.0**self.lsb * step_k
        self.v[layer][:, :, where] = to_integers(v, step_v, self.v_bits) * step_v

    def step(self, position: int, tokens: IntArray) -> None:
        self.scored |= self.position >= 0
        self.position = position
        self.alive = np.ones((len(self.alive), position + 1), bool)
        self.heads_alive = np.ones_like(self.heads_alive)
        self.head_importance[:] = 0

    def _prune_tokens(self, layer: int) -> float:
        """Keep the layer's most important tokens; returns how many elements the selection looked at."""
        count = self.position + 1
        keep = min(count, max(1, math.floor(self.ratios[layer] * self.prompt.context + 1e-9)))
        if self.ratios[layer] >= 1 or (layer and self.ratios[layer] == self.ratios[layer - 1]):
            return 0.0
        entering = float(self.alive[0].sum())
        if keep >= entering or not self.scored:
            return 0.0
        score = np.where(self.alive, self.importance[:, :count], -np.inf)
        recent = min(self.algorithm.integer("recent"), keep)
        score[:, count - recent :] = np.inf
        chosen = _largest(score, keep)
        self.alive = np.zeros_like(self.alive)
        np.put_along_axis(self.alive, chosen, True, axis=-1)
        return entering

    def _prune_heads(self, layer: int) -> float:
        """Keep the layer's strongest query heads; returns how many heads the selection looked at."""
        keep = self.kept_heads[layer]
        flat = self.heads_alive.reshape(len(self.heads_alive), -1)
        entering = int(flat[0].sum())
        if layer == 0 or keep >= entering:
            return 0.0
        score = np.where(flat, self.head_importance.reshape(flat.shape), -np.inf)
        flat = np.zeros_like(flat)
        np.put_along_axis(flat, _largest(score, keep), True, axis=-1)
        self.heads_alive = flat.reshape(self.heads_alive.shape)
        return float(entering)

    def attend(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> Attended:
        count = self.position + 1
        self._store(layer, slice(count - 1, count), k, v)
        ranked_tokens = self._prune_tokens(layer)
        ranked_heads = self._prune_heads(layer)
        window = self.windows[layer]
        self.seen = self.alive & (np.arange(count) >= count - window) if window else self.alive
        batch, heads = q.shape[:2]
        step_q = self.prompt.scales[layer].q[12][None, :, :, None].astype(self.dtype)
        queries = to_integers(q[:, :, :, 0], step_q, 12) * step_q
        queries *= self.dim**-0.5
        p = self._probabilities(queries, self.k_msb[layer][:, :, :count])
        flat = np.zeros(p.shape[:3], bool)
        if self.lsb:
            flat = (p.max(axis=-1) < self.algorithm.number("confidence")) & self.heads_alive
            b, h, g = np.nonzero(flat)
            if len(b):
                keys = self.k_full[layer][b, h, :count]
                scores = np.matmul(keys, queries[b, h, g][..., None])[..., 0]
                p[b, h, g] = softmax_over(scores, self.seen[b])
        p *= self.heads_alive[..., None]
        tokens = self.seen[:, None, None, :] & self.heads_alive[..., None]
        values, selected, kept = self._keep_values(p, tokens)
        out = np.where(values, p, 0).astype(self.dtype) @ self.v[layer][:, :, :count]
        self.importance[:, :count] += p.sum(axis=(1, 2))
        self.head_importance += np.abs(out).sum(axis=-1)
        survivors = tokens.sum(axis=(0, 2, 3), dtype=np.float64)
        again = (tokens & flat[..., None]).sum(axis=(0, 2, 3), dtype=np.float64)
        active = self.heads_alive.sum(axis=(0, 2), dtype=np.float64)
        passes = flat.sum(axis=(0, 2), dtype=np.float64)
        share = batch / heads  # one selection per layer and step, spread over the KV heads
        prunes_values = self.value_keep < 1
        pruned_heads = self.algorithm.number("head_keep") < 1
        work: dict[str, Any] = {
            "exponentials": survivors + again,
            "divisions": survivors + again,
            "compares": active if self.lsb else 0.0,
            "importance_adds": survivors * (min(self.ratios) < 1) + active * self.dim * pruned_heads,
            "select_calls": active * prunes_values,
            "select_elements": selected,
            "select_kept": kept,
            "rank_calls": share * ((ranked_tokens > 0) + (ranked_heads > 0)),
            "rank_elements": share * (ranked_tokens + ranked_heads),
            "rank_kept": share
            * (
                float(self.alive[0].sum()) * (ranked_tokens > 0) + self.kept_heads[layer] * (ranked_heads > 0)
            ),
            "second_passes": passes,
            "row_waits": active * (prunes_values or self.lsb > 0) + passes,
        }
        masks: list[BoolArray | None] = [tokens[:, :, :, None]]
        if self.lsb:
            masks.append((tokens & flat[..., None])[:, :, :, None])
        return Attended(out[:, :, :, None], masks, values[:, :, :, None], work)

    def _probabilities(self, queries: FloatArray, keys: FloatArray) -> FloatArray:
        scores = queries @ keys.swapaxes(-1, -2)
        return softmax_over(scores, self.seen[:, None, None, :])

    def _keep_values(self, p: FloatArray, tokens: BoolArray) -> tuple[BoolArray, FloatArray, FloatArray]:
        """The `value_keep` largest probabilities of every head; also elements in and out, per KV head."""
        none = np.zeros(p.shape[1])
        if self.value_keep >= 1:
            return tokens, none, none
        entering = np.count_nonzero(self.seen, axis=-1)  # of every text: windows may hold different numbers
        active = self.heads_alive.sum(axis=2, dtype=np.float64)
        chosen = np.zeros_like(tokens)
        score = np.where(tokens, p, -1.0)
        elements, kept = none.copy(), none.copy()
        for count in np.unique(entering):
            rows = entering == count
            nominal = self.prompt.context if count == self.position + 1 else count
            keep = min(int(count), max(1, math.floor(self.value_keep * nominal + 1e-9)))
            most = np.zeros(score[rows].shape, bool)
            np.put_along_axis(most, _largest(score[rows], keep), True, axis=-1)
            chosen[rows] = most
            elements += active[rows].sum(axis=0) * count
            kept += active[rows].sum(axis=0) * keep
        chosen &= tokens
        return chosen, elements, kept


def queries_that_saw(length: int, windows: Sequence[int]) -> FloatArray:
    """[length]: how many queries of a prompt saw each token, on average over layers with these sliding windows."""
    after = length - np.arange(length)
    seen: FloatArray = np.mean([np.minimum(after, window or length) for window in windows], axis=0)
    return seen


def _largest(score: FloatArray, keep: int) -> IntArray:
    """Indices of exactly `keep` largest entries along the last axis."""
    size = score.shape[-1]
    if keep >= size:
        return np.broadcast_to(np.arange(size), score.shape)
    return np.argpartition(score, size - keep, axis=-1)[..., size - keep :]
