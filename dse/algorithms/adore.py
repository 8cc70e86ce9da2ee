"""ADORE-style decoding: a cache of constant size, tokens released from it and brought back when they matter.

Before every forward pass a controller scores all tokens of the text for the one that comes next. The released
tokens with the highest scores come back: rebuilt, as further query positions of the same forward pass (their
keys and values are computed anew, in the context that is cached now), or reloaded from slow memory, where they
were kept. After the pass the `cache` best tokens stay. Positions are the original ones, one selection serves
all layers and heads, and a rebuilt token sees what is cached before its own position.

A rebuilt token is not a restored one: its first layer is exact, deeper ones saw a sparse context. Whatever the
controller, nothing is lost while the cache holds the whole text, or while all released tokens are rebuilt in
every step.

What is known of ADORE (Zhang et al., "Adaptive Token Release", Findings of ACL 2024, arXiv 2407.02328), by
confidence: *abstract*: constant cache, release and rebuild, an ideal top-K attention as the aim, throughput up
to 221.8 % higher. *Secondary descriptions*: a GRU scores all tokens for the current one, the top-R released
ones are modelled concurrently with it, one selection for all layers, slicing by matrix products. *Nobody
published*: sizes, inputs, loss, positions, prompt, code. This is therefore a reconstruction. The paper also
tunes its language model, **we do not**: accuracies here are not the paper's, and of its results only the
sentence with the 221.8 % can be quoted.

The prompt is processed densely and then cut to the `cache` best tokens (how the paper does it is unknown).

Counting. A step's cached rows are fetched once for all positions of the pass; like dense decoding's, the
count includes the current token's row, while rows that are being rebuilt or reloaded are at hand. Freed slots
are filled in place, so that the cached rows are one stretch of memory. What happens once per step (controller,
both selections) is spread evenly over layers and KV heads, so that totals are right. A rebuilt token counts
once for every layer and KV head: a price charges it a pass through all blocks. Every row that was computed or
reloaded is written; reloading also writes each new token's copy to slow memory. The controllers ``window``
and ``random`` select without ranking, and oracles pay for ranking but not for knowing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dse.algorithms.contract import (
    Algorithm,
    Attended,
    BoolArray,
    FloatArray,
    IntArray,
    Knob,
    Prompt,
    Run,
)
from dse.algorithms.controllers import CONTROLLERS, ID_BYTES, GruWeights, controller
from dse.algorithms.operands import WIDTHS, largest
from dse.algorithms.quantize import FLOAT_BITS, to_integers
from dse.errors import BadInput
from dse.profiles.schema import Form

UNRANKED = ("window", "random")
"""Controllers whose choice takes no top-k selection."""


class Adore(Algorithm):
    """A cache of `cache` tokens, of which `rebuild` released ones come back in every step."""

    name = "adore"
    summary = "keeps a constant number of tokens for all layers; recomputes released ones that matter again"
    source = "ADORE-style, after Zhang et al., Findings of ACL 2024"
    stateful = True
    needs = "controller"
    knobs = (
        Knob("cache", 256, "tokens that stay cached", 1, 1e6),
        Knob("rebuild", 4, "released tokens that come back in every step", 0, 4096),
        Knob(
            "restore",
            "rebuild",
            "how they come back: computed anew beside the current token, or read from slow memory",
            choices=("rebuild", "reload"),
        ),
        Knob("controller", "gru", "what scores the tokens", choices=CONTROLLERS),
        Knob("recent", 8, "newest tokens that always stay (accumulated: half of the cache at least)", 1, 1e6),
        Knob("sinks", 4, "first tokens that always stay", 0, 1e6),
        Knob(
            "slice",
            "index",
            "how rows are dropped: overwritten in place, moved, or by products with 0/1 matrices (the paper's)",
            choices=("index", "gather", "matmul"),
        ),
        Knob("horizon", 64, "tokens ahead that the controller 'future' looks", 1, 1e6),
        Knob("seed", 0, "of the controller 'random'", 0, 2**31 - 1),
        *WIDTHS,
    )

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        super().__init__(knobs, where)
        where = where or self.name
        chooses = self.text("controller")
        if chooses != "gru":
            self.needs = ""
        self.weights: GruWeights | None = None
        self.recent = self.integer("recent")
        if chooses == "accumulated":
            self.recent = max(self.recent, self.integer("cache") // 2)
        if self.recent + self.integer("sinks") > self.integer("cache"):
            raise BadInput(
                f"{where}.cache: {self.integer('cache')} tokens cannot hold {self.recent} recent ones and "
                f"{self.integer('sinks')} sinks; make the cache larger or keep fewer of these"
            )
        for knob, owner in (("horizon", "future"), ("seed", "random")):
            if chooses != owner and self.settings[knob] != self.defaults()[knob]:
                raise BadInput(
                    f"{where}.{knob}: changes nothing with controller = {chooses!r}; only {owner!r} has it"
                )

    def prepare(self, table: object) -> None:
        if not isinstance(table, GruWeights):
            raise TypeError(f"{self.name}: needs GruWeights, got {type(table).__name__}")
        self.weights = table

    def form(self) -> Form:
        return Form(
            k_chunk_bits=(self.integer("k_bits"),),
            v_bits=self.integer("v_bits"),
            q_bits=self.integer("q_bits"),
            releases=True,
        )

    def start(self, prompt: Prompt) -> AdoreRun:
        return AdoreRun(self, prompt)


class AdoreRun(Run):
    """A decode of `B` windows in lock-step.

    Cached tokens lie in slots 0 .. c - 1 of every layer; those of the pass under way follow, the current one
    last. `slots` [B, c] are the positions of the cached ones.
    """

    def __init__(self, algorithm: Adore, prompt: Prompt) -> None:
        self.algorithm, self.scales, self.group = algorithm, prompt.scales, prompt.group
        self.layers = len(prompt.k)
        self.batch, self.heads, self.length, self.dim = prompt.k[0].shape
        self.dtype = prompt.k[0].dtype
        self.cache, self.back = algorithm.integer("cache"), algorithm.integer("rebuild")
        self.reloads = algorithm.text("restore") == "reload"
        self.windows = tuple(prompt.windows) or (0,) * self.layers
        self.controller = controller(
            algorithm.text("controller"),
            prompt,
            weights=algorithm.weights,
            seed=algorithm.integer("seed"),
            horizon=algorithm.integer("horizon"),
        )
        self.ranks = algorithm.text("controller") not in UNRANKED
        room = min(self.cache + self.back + 1, prompt.capacity)
        shape = (self.batch, self.heads, room, self.dim)
        self.k = [np.empty(shape, self.dtype) for _ in range(self.layers)]
        self.v = [np.empty(shape, self.dtype) for _ in range(self.layers)]
        self.prompt: Prompt | None = prompt
        self.slow = [self._slow(prompt, layer) for layer in range(self.layers)] if self.reloads else []
        self.position = -1
        self.slots: IntArray = np.zeros((self.batch, 0), np.int64)

    def _slow(self, prompt: Prompt, layer: int) -> FloatArray:
        """Slow memory of one layer: keys and values [2, B, H, N, d] as they were first computed."""
        out = np.zeros((2, self.batch, self.heads, prompt.capacity, self.dim), self.dtype)
        out[:, :, :, : self.length] = self._stored(layer, prompt.k[layer], prompt.v[layer])
        return out

    def _stored(self, layer: int, k: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Keys and values [B, H, n, d] at the widths they are stored in."""
        scales = self.scales[layer]
        return self._rounded(k, scales.k, "k_bits"), self._rounded(v, scales.v, "v_bits")

    def _rounded(self, x: FloatArray, table: Mapping[int, FloatArray], knob: str) -> FloatArray:
        bits = self.algorithm.integer(knob)
        if bits >= FLOAT_BITS:
            return x
        if bits not in table:
            raise BadInput(f"{self.algorithm.name}.{knob}: no calibrated scale for {bits} bits")
        scale = table[bits].astype(self.dtype)
        step = scale.reshape(1, *scale.shape, *(1,) * (x.ndim - 1 - scale.ndim))
        return to_integers(x, step, bits) * step

    def _protected(self, positions: IntArray) -> BoolArray:
        """Which tokens may not be released in this step: the newest ones, the current one among them, and sinks."""
        newest = positions > self.position - self.algorithm.recent
        return np.asarray(newest | (positions < self.algorithm.integer("sinks")))

    def step(self, position: int, tokens: IntArray) -> IntArray | None:
        scores = self.controller.scores(position, tokens)
        if self.position < 0:
            self.position = position - 1  # what the prompt's end protects
            value = np.where(self._protected(np.arange(position)), np.inf, scores[:, :position])
            self.slots = np.nonzero(largest(value, self.cache))[1].reshape(self.batch, -1)
        elif self.prompt is not None:
            self.prompt = None  # its keys and values are no longer needed
        self.position = position
        cached = self.slots.shape[1]
        returning = min(self.back, position - cached)
        candidates = scores[:, :position].astype(np.float64)
        np.put_along_axis(candidates, self.slots, -np.inf, axis=1)
        self.returning = np.nonzero(largest(candidates, returning))[1].reshape(self.batch, returning)
        current = np.full((self.batch, 1), position)
        self.places = np.concatenate([self.slots, self.returning, current], axis=1)
        self._release(scores)
        self.asking = current if self.reloads else self.places[:, cached:]
        self.seen = {window: self._seen(window) for window in set(self.windows)}
        self.work = {window: self._work(window) for window in set(self.windows)}
        return None if self.reloads or not returning else self.returning

    def _release(self, scores: FloatArray) -> None:
        """Which of the tokens of this step stay, and how rows move: from `sources` to `targets` of window `rows`."""
        value = np.take_along_axis(scores, self.places, axis=1)
        kept = largest(np.where(self._protected(self.places), np.inf, value), self.cache)
        cached = min(self.cache, self.places.shape[1])
        self.rows, self.targets = np.nonzero(~kept[:, :cached])
        self.sources = np.nonzero(kept[:, cached:])[1] + cached
        self.cached = self.slots.shape[1]
        self.slots = self.places[:, :cached].copy()
        self.slots[self.rows, self.targets] = self.places[self.rows, self.sources]

    def _seen(self, window: int) -> BoolArray | None:
        """[B, Q, S]: which slots every query position sees; None where all see all."""
        if self.asking.shape[1] == 1 and not window:
            return None
        seen = self.places[:, None, :] <= self.asking[:, :, None]
        if window:
            seen &= self.places[:, None, :] > self.asking[:, :, None] - window
        return np.asarray(seen)

    def _work(self, window: int) -> tuple[BoolArray, dict[str, Any]]:
        """What a layer with this sliding window fetches [B, 1, 1, 1, rows], and its counters per KV head."""
        batch, group, seen = self.batch, self.group, self.seen[window]
        queries, size = self.asking.shape[1], self.places.shape[1]
        returning = self.returning.shape[1]
        fetched = np.ones((batch, size), bool) if seen is None else seen.any(axis=1)
        fetched = np.delete(fetched, np.s_[self.cached : self.cached + returning], axis=1)
        pairs = float(batch * queries * size if seen is None else np.count_nonzero(seen))
        share = batch / (self.layers * self.heads)
        once = self.controller.work(self.position)
        full = size > self.cache
        k_bits, v_bits = self.algorithm.integer("k_bits"), self.algorithm.integer("v_bits")
        moved = macs = 0.0
        if full and self.algorithm.text("slice") == "gather":
            moved = batch * (returning + 1) * (k_bits + v_bits) * self.dim / 8
        if full and self.algorithm.text("slice") == "matmul":
            macs = batch * 2.0 * self.cache * size * self.dim
        rebuilt, reloaded = (0, returning) if self.reloads else (returning, 0)
        copied = (returning + 1) * (self.reloads and self.back > 0)
        read = share * (once.get("meta_read_bytes", 0.0) + ID_BYTES * rebuilt)
        written = share * once.get("meta_write_bytes", 0.0)
        work: dict[str, Any] = {
            "qk_rows_0": pairs * group,
            "pv_rows": pairs * group,
            "exponentials": pairs * group + share * once.get("exponentials", 0.0),
            "divisions": batch * queries * group + share * once.get("divisions", 0.0),
            "importance_adds": batch * size * group * self.controller.watches,
            "controller_macs": share * once.get("controller_macs", 0.0) + macs,
            "scalar_ops": share * once.get("scalar_ops", 0.0),
            "select_calls": share * self.ranks * (returning > 0),
            "select_elements": share * self.ranks * (returning > 0) * (self.position - self.cached),
            "select_kept": share * self.ranks * returning,
            "rank_calls": share * self.ranks * full,
            "rank_elements": share * self.ranks * full * size,
            "rank_kept": share * self.ranks * full * self.cache,
        }
        for scope, times in (("group", 1), ("head", group)):
            work |= {
                f"{scope}.rows_rebuilt": float(batch * rebuilt),  # one pass per token, however heads share
                f"{scope}.rows_reloaded": float(batch * reloaded * times),
                f"{scope}.rows_written": float(batch * copied * times),
                f"{scope}.meta_read_bytes": read + moved * times,
                f"{scope}.meta_write_bytes": written + moved * times,
            }
        return fetched[:, None, None, None], work

    def _fill(self, layer: int, k: FloatArray, v: FloatArray) -> int:
        """Put the rows of this step into the layer's slots; returns how many there are then."""
        size, cached = int(self.places.shape[1]), self.cached
        keys, values = self.k[layer], self.v[layer]
        if self.prompt is not None:
            index = self.places[:, None, :cached, None]
            old = (np.take_along_axis(x[layer], index, axis=2) for x in (self.prompt.k, self.prompt.v))
            keys[:, :, :cached], values[:, :, :cached] = self._stored(layer, *old)
        k, v = self._stored(layer, k, v)
        if self.reloads:
            slow, index = self.slow[layer], self.returning[:, None, :, None]
            slow[0, :, :, self.position], slow[1, :, :, self.position] = k[:, :, 0], v[:, :, 0]
            keys[:, :, cached : size - 1] = np.take_along_axis(slow[0], index, axis=2)
            values[:, :, cached : size - 1] = np.take_along_axis(slow[1], index, axis=2)
            cached = size - 1
        keys[:, :, cached:size], values[:, :, cached:size] = k, v
        return size

    def attend(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> Attended:
        size = self._fill(layer, k, v)
        keys, values = self.k[layer], self.v[layer]
        queries = q.shape[3]
        q = self._rounded(q, self.scales[layer].q, "q_bits") * np.asarray(self.dim**-0.5, self.dtype)
        flat = q.reshape(self.batch, self.heads, self.group * queries, self.dim)
        p = flat @ keys[:, :, :size].swapaxes(-1, -2)
        seen = self.seen[self.windows[layer]]
        by_query = p.reshape(self.batch, self.heads, self.group, queries, size)
        if seen is not None:
            np.copyto(by_query, -np.inf, where=~seen[:, None, None])
        p -= p.max(axis=-1, keepdims=True)
        np.exp(p, out=p)
        total = p.sum(axis=-1, keepdims=True)
        out = p @ values[:, :, :size]
        out /= total
        if self.controller.watches:
            p /= total
            self.controller.observe(self.places, by_query[:, :, :, -1].sum(axis=(1, 2), dtype=np.float64))
        keys[self.rows, :, self.targets] = keys[self.rows, :, self.sources]
        values[self.rows, :, self.targets] = values[self.rows, :, self.sources]
        fetched, work = self.work[self.windows[layer]]
        mask = np.broadcast_to(fetched, (self.batch, self.heads, self.group, 1, fetched.shape[-1]))
        return Attended(out.reshape(q.shape), (mask,), mask, work)
