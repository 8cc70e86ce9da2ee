"""SpAtten's summarisation stage: the cascade over the layers of a prompt.

All queries of the prompt run through a layer, head by head and query by query; each gives its probabilities to the
importance of the tokens it saw. Before the next layer the most important tokens are kept; the others have no query,
key or value in any later layer. Heads go the same way, by the magnitude of their outputs.

Source: Wang, Zhang, Han, HPCA 2021 (arXiv 2012.09852), sections III-A to III-D and algorithm 2. The paper's prompts
are read in both directions; here a query sees what came before it, and so:

- a token's importance is by default the mean over the queries that could see it, since the plain sum (the paper's)
  favours the first tokens only for being seen more often;
- a query keeps floor(`value_keep` x tokens it sees) values;
- the last `recent` tokens stay, without which the prompt would have no continuation.

The first layer has no scores and keeps every token. A pruned head fetches and computes nothing more, but its keys
and values are written: a later step may need them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.algorithms.contract import Attended, BoolArray, FloatArray, IntArray
from dse.algorithms.operands import softmax_over
from dse.algorithms.prompt import Note, Passage, PromptRun
from dse.algorithms.quantize import to_integers
from dse.errors import BadInput

if TYPE_CHECKING:
    from dse.algorithms.spatten import SpAtten


def largest_of_each(p: FloatArray, keep: IntArray, visible: BoolArray) -> BoolArray:
    """[..., T, N]: the `keep` [T] largest visible entries of every row; of equal ones the later.

    `p` is 0 or more, 0 where not visible, and no row keeps more than it sees.
    """
    size = p.shape[-1]
    places = np.broadcast_to((size - keep)[:, None], (*p.shape[:-1], 1))
    bar = np.take_along_axis(np.sort(p, axis=-1), places, axis=-1)
    kept = p > bar
    ties = (p == bar) & visible
    missing = keep - np.count_nonzero(kept, axis=-1)
    many = np.count_nonzero(ties, axis=-1) > missing
    if many.any():
        place = np.cumsum(ties[many][:, ::-1], axis=-1)[:, ::-1]
        ties[many] &= place <= missing[many][:, None]
    return np.asarray(kept | ties)


class SpAttenPrompt(PromptRun):
    """A prompt of one window. Importance is shared by all heads, as in the paper."""

    def __init__(self, algorithm: SpAtten, passage: Passage) -> None:
        self.algorithm, self.passage = algorithm, passage
        heads, group, length = passage.kv_heads, passage.group, passage.length
        start = algorithm.text("importance")
        if start == "empty":
            raise BadInput(
                f"{algorithm.name}.importance: 'empty' says how decoding begins and has no meaning in a prompt; "
                "use 'prompt-mean' or 'prompt'"
            )
        self.mean = start == "prompt-mean"
        self.ratios = algorithm.token_ratios(passage.layers)
        self.kept_heads = [
            max(1, math.floor(r * heads * group + 1e-9)) for r in algorithm.head_ratios(passage.layers)
        ]
        self.value_keep = algorithm.number("value_keep")
        self.confidence = algorithm.number("confidence")
        self.lsb = algorithm.widths[1] if len(algorithm.widths) == 2 else 0
        self.alive: IntArray = np.arange(length)
        self.heads_alive: BoolArray = np.ones((heads, group), bool)
        self.head_importance = np.zeros((heads, group))
        self.received = np.zeros(length)
        self.asked = np.zeros(length)

    def importance(self) -> FloatArray:
        """[N] probability received so far, in all or per query that saw the token (and layer)."""
        return self.received / np.maximum(self.asked, 1) if self.mean else self.received

    def _prune_tokens(self, layer: int) -> int:
        """Keep the most important tokens; returns how many elements the selection looked at."""
        entering = len(self.alive)
        keep = max(1, math.floor(self.ratios[layer] * self.passage.length + 1e-9))
        if layer == 0 or keep >= entering:
            return 0
        score = self.importance()[self.alive]
        score[entering - min(self.algorithm.integer("recent"), keep) :] = np.inf
        self.alive = self.alive[np.sort(np.argpartition(score, entering - keep)[entering - keep :])]
        return entering

    def _prune_heads(self, layer: int) -> int:
        """Keep the strongest query heads; returns how many heads the selection looked at."""
        entering, keep = int(self.heads_alive.sum()), self.kept_heads[layer]
        if layer == 0 or keep >= entering:
            return 0
        score = np.where(self.heads_alive, self.head_importance, -np.inf).ravel()
        left = np.zeros(score.shape, bool)
        left[np.argpartition(score, len(score) - keep)[len(score) - keep :]] = True
        self.heads_alive = left.reshape(self.heads_alive.shape)
        return entering

    def attend(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray, note: Note) -> FloatArray:
        ranked_tokens, ranked_heads = self._prune_tokens(layer), self._prune_heads(layer)
        alive, scales = self.alive, self.passage.scales[layer]
        k_bits, v_bits = sum(self.algorithm.widths), self.algorithm.integer("v_bits")
        step_q, step_k, step_v = scales.q[12], scales.k[k_bits], scales.v[v_bits]
        out = np.zeros_like(q)
        ranks: dict[str, Any] = {
            "rank_calls": (ranked_tokens > 0) + (ranked_heads > 0),
            "rank_elements": ranked_tokens + ranked_heads,
            "rank_kept": len(alive) * (ranked_tokens > 0) + self.kept_heads[layer] * (ranked_heads > 0),
        }
        window = self.passage.windows[layer]
        for h in range(len(k)):
            # One selection per layer, spread over the KV heads.
            work = {name: count / len(k) for name, count in ranks.items()}
            unit = step_q[h][:, None, None].astype(q.dtype)
            queries = to_integers(q[h][:, alive], unit, 12) * unit * q.dtype.type(q.shape[-1] ** -0.5)
            integers = to_integers(k[h, alive], np.asarray(step_k[h], k.dtype), k_bits)
            keys = integers * step_k[h].astype(k.dtype)
            first_keys = keys
            if self.lsb:
                first_keys = np.floor(integers / 2.0**self.lsb) * 2.0**self.lsb * step_k[h].astype(k.dtype)
            values = to_integers(v[h, alive], np.asarray(step_v[h], v.dtype), v_bits) * step_v[h].astype(
                v.dtype
            )
            for begin in range(0, len(alive), self.passage.block):
                end = min(begin + self.passage.block, len(alive))
                tokens = alive[:end]
                visible = tokens <= alive[begin:end, None]
                if window:
                    visible &= tokens > alive[begin:end, None] - window
                attended = self._block(
                    h,
                    queries[:, begin:end],
                    first_keys[:end],
                    keys[:end],
                    values[:end],
                    visible,
                    tokens,
                    work,
                )
                out[h][:, alive[begin:end]] = attended.out[0, 0]
                note(h, attended, self._spread(visible, tokens))
                work = {}
        return out

    def _spread(self, mask: BoolArray, tokens: IntArray) -> BoolArray:
        """[..., n] over `tokens` to [..., N] over the positions of the prompt."""
        full = np.zeros((*mask.shape[:-1], self.passage.length), bool)
        full[..., tokens] = mask
        return full

    def _block(
        self,
        head: int,
        queries: FloatArray,
        first_keys: FloatArray,
        keys: FloatArray,
        values: FloatArray,
        visible: BoolArray,
        tokens: IntArray,
        work: dict[str, Any],
    ) -> Attended:
        """Queries [G, T, d] of a KV head over keys and values [n, d] of `tokens` [n]; adds to the importances."""
        group, count, dim = queries.shape
        heads = self.heads_alive[head]
        p = softmax_over((queries.reshape(-1, dim) @ first_keys.T).reshape(group, count, -1), visible)
        flat = np.zeros((group, count), bool)
        if self.lsb:
            flat = (p.max(axis=-1) < self.confidence) & heads[:, None]
            g, t = np.nonzero(flat)
            if len(g):
                p[g, t] = softmax_over(queries[g, t] @ keys.T, visible[t])
        p *= heads[:, None, None]
        seen = np.count_nonzero(visible, axis=-1)
        kept: BoolArray | None = None
        prunes_values = self.value_keep < 1
        keep = np.maximum(1, np.floor(self.value_keep * seen + 1e-9).astype(np.int64))
        weights = p
        if prunes_values:
            kept = largest_of_each(p, keep, visible) & heads[:, None, None]
            weights = np.where(kept, p, 0)
        out = (weights.reshape(group * count, -1) @ values).reshape(group, count, dim)
        self.received[tokens] += p.sum(axis=(0, 1), dtype=np.float64)
        if head == 0:
            self.asked[tokens] += visible.sum(axis=0)
        self.head_importance[head] += np.abs(out).sum(axis=(1, 2))
        active = float(heads.sum())
        pairs, again = active * float(seen.sum()), float(seen[np.nonzero(flat)[1]].sum())
        passes = float(flat.sum())
        work = work | {
            "exponentials": pairs + again,
            "divisions": pairs + again,
            "compares": active * count if self.lsb else 0.0,
            "importance_adds": pairs * (min(self.ratios) < 1)
            + active * count * dim * (self.algorithm.number("head_keep") < 1),
            "select_calls": active * count * prunes_values,
            "select_elements": pairs * prunes_values,
            "select_kept": active * float(keep.sum()) * prunes_values,
            "second_passes": passes,
            "row_waits": active * count * (prunes_values or self.lsb > 0) + passes,
        }
        everyone = bool(heads.all())
        asked = None if everyone else self._spread(visible & heads[:, None, None], tokens)[None, None]
        masks: list[BoolArray | None] = [asked]
        if self.lsb:
            masks.append(self._spread(visible & flat[..., None], tokens)[None, None])
        v_mask = asked if kept is None else self._spread(kept, tokens)[None, None]
        return Attended(out[None, None], masks, v_mask, work)
