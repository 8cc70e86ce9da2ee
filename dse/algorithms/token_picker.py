"""Token-Picker: keys arrive in bit chunks, a token is dropped once its probability bound is small enough.

After b chunks of a two's-complement key the unread remainder of every element lies in [0, 2**r_b - 1], so the
score lies between P + 2**r_b-ish margins that depend on the query alone. With the running denominator D of
lower bounds, p'' = exp(upper) / D bounds the token's softmax probability from above; p'' <= threshold drops
the token: neither its remaining chunks nor its value are fetched.

Source: Park et al., "Token-Picker: Accelerating Attention in Text Generation with Minimized Memory Transfer
via Probability Estimation", DAC 2024 (abstract read in full; chunking and bounds from secondary descriptions;
margins in closed form and the visiting orders are ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Attended, BoolArray, Call, FloatArray, Knob
from dse.algorithms.layers import LAYERS, Layered
from dse.algorithms.operands import per_head, softmax_over
from dse.algorithms.quantize import chunk_values, parse_chunks, to_integers
from dse.errors import BadInput
from dse.profiles.schema import Form, Knobs

QUERIES: Final = 128
"""Queries that are decided side by side in a stream: few enough that their bounds stay in cache."""


class TokenPicker(Layered):
    """Probability-bounded pruning with on-demand key chunks."""

    name = "token-picker"
    summary = "drops a token when the upper bound of its probability falls to the threshold"
    source = "Park et al., DAC 2024"
    knobs = (
        Knob("threshold", 1e-3, "probability bound at or under which a token is dropped", 1e-8, 0.5),
        Knob("margin", 1.0, "scale of the score margins; below 1 the bound is no longer sure", 0.0, 1.0),
        Knob("chunks", "4+4+4", "widths of the key chunks, most significant first"),
        Knob(
            "order",
            "sink-recent",
            "visiting order: first token then newest to oldest, or oldest to newest",
            choices=("sink-recent", "chronological"),
        ),
        Knob(
            "mode",
            "stream",
            "stream: decide token by token with the denominator so far; breadth: chunk by chunk over the row",
            choices=("stream", "breadth"),
        ),
        Knob("lag", 256, "stream: tokens that go by before a further chunk is there; 0: none", 0, 4096),
        Knob("recheck", False, "test survivors again with the final denominator before fetching values"),
        LAYERS,
    )
    layered = ("threshold", "margin")

    @classmethod
    def check(cls, knobs: Mapping[str, object], where: str) -> Knobs:
        settings = super().check(knobs, where)
        try:
            parse_chunks(str(settings["chunks"]))
        except ValueError:
            raise BadInput(
                f"{where}.chunks: {settings['chunks']!r} is no list of widths; "
                "write them most significant first, 2 to 16 bits in all, such as '4+4+4'"
            ) from None
        return settings

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits of every key chunk, most significant first."""
        return parse_chunks(self.text("chunks"))

    def form(self) -> Form:
        stream = self.text("mode") == "stream"
        return Form(
            k_chunk_bits=self.widths,
            v_bits=sum(self.widths),
            q_bits=sum(self.widths),
            v_after="token" if stream and not self.settings["recheck"] else "row",
            chunk_order="token" if stream else "row",
            lag=self.integer("lag") if stream else -1,
        )

    def attend_layer(self, call: Call) -> Attended:
        bits = sum(self.widths)
        batch, heads, group, queries, dim = call.q.shape
        step_q = call.scales.q[bits][None, :, :, None, None].astype(call.q.dtype)
        step_k = call.scales.k[bits][None, :, None, None].astype(call.q.dtype)
        step_v = call.scales.v[bits][None, :, None, None].astype(call.q.dtype)
        q = to_integers(call.q, step_q, bits)
        k = to_integers(call.k, step_k, bits)
        unit = step_q * step_k[:, :, None] * dim**-0.5  # logits per integer product, [1, H, G, 1, 1]
        visible = call.visible()
        lower, margin = score_bounds(q, k, unit, self.widths, self.number("margin"))
        decide = stream_decisions if self.text("mode") == "stream" else breadth_decisions
        fetched, survivors, ln_d = decide(
            lower,
            margin,
            visible,
            float(np.log(self.number("threshold"))),
            lag=self.integer("lag"),
            sink_first=self.text("order") == "sink-recent",
        )
        exact = lower[-1]
        if self.settings["recheck"]:
            again = exact > ln_d + np.log(self.number("threshold"))
            again |= exact == np.where(survivors, exact, -np.inf).max(axis=-1, keepdims=True)
            survivors &= again
        p = softmax_over(exact, survivors)
        v = to_integers(call.v, step_v, bits) * step_v
        out = p.reshape(batch, heads, group * queries, -1) @ v
        answers = sum(per_head(mask) for mask in fetched)
        rows = float(batch * group * queries)
        work = {
            "exponentials": 2.0 * answers,  # one pair (upper, lower) per chunk answer
            "compares": answers,
            "margins": rows * len(self.widths),
            "divisions": rows,
            "row_waits": rows * (len(self.widths) if self.text("mode") == "breadth" else 0),
        }
        if self.settings["recheck"]:
            work["compares"] = answers + per_head(survivors)
            work["row_waits"] += rows
        return Attended(out.reshape(call.q.shape), fetched, survivors, work)


def score_bounds(
    q: FloatArray, k: FloatArray, unit: FloatArray, widths: tuple[int, ...], margin_scale: float
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Lower score bounds after every chunk, and the width of the interval above them.

    Args:
        q: [B, H, G, T, d] integers, `k` [B, H, N, d] integers of sum(widths) bits.
        unit: logits per unit of the integer product, broadcast to [B, H, G, T, 1].

    Returns:
        lower: per chunk, [B, H, G, T, N], in logits; the last one is the exact score.
        width: per chunk, [B, H, G, T, 1]: upper bound minus lower bound, the same for every token.
    """
    batch, heads, group, queries, dim = q.shape
    flat = q.reshape(batch, heads, group * queries, dim)
    positive = np.maximum(q, 0).sum(axis=-1, keepdims=True)
    negative = np.minimum(q, 0).sum(axis=-1, keepdims=True)
    left = sum(widths)
    partial: FloatArray | None = None
    lower, width = [], []
    for bits, chunk in zip(widths, chunk_values(k, widths), strict=True):
        left -= bits
        product = flat @ (chunk * 2.0**left).swapaxes(-1, -2)
        partial = product if partial is None else partial + product
        scores = partial.reshape(batch, heads, group, queries, -1)
        remainder = margin_scale * (2.0**left - 1)
        if left:
            bound = scores + remainder * negative
            bound *= unit
        else:
            bound = scores * unit
        lower.append(bound)
        width.append(remainder * (positive - negative) * unit)
    return lower, width


def breadth_decisions(
    lower: list[FloatArray],
    width: list[FloatArray],
    visible: BoolArray,
    ln_threshold: float,
    *,
    lag: int = 0,
    sink_first: bool = True,
) -> tuple[list[BoolArray], BoolArray, FloatArray]:
    """Every live token takes a chunk, then all are tested with the denominator of the whole row.

    The token with the largest lower bound always stays, so that no row ends empty (at thresholds above
    1/n a flat row would). `lag` and `sink_first` have no meaning here.

    Returns: per chunk the tokens that fetched it, the survivors (all [B, H, G, T, N]), and ln D [..., 1].
    """
    alive = np.broadcast_to(visible, lower[0].shape).copy()
    reference = np.where(visible, lower[-1], -np.inf).max(axis=-1, keepdims=True)
    current = np.zeros_like(lower[0])
    fetched = []
    ln_d = reference
    for low, span in zip(lower, width, strict=True):
        fetched.append(alive)
        np.copyto(current, np.exp(np.minimum(low - reference, 0.0)), where=alive)
        ln_d = reference + np.log(current.sum(axis=-1, keepdims=True))
        best = np.where(alive, low, -np.inf).max(axis=-1, keepdims=True)
        alive = alive & ((low + span > ln_d + ln_threshold) | (low == best))
    return fetched, alive, ln_d


def stream_decisions(
    lower: list[FloatArray],
    width: list[FloatArray],
    visible: BoolArray,
    ln_threshold: float,
    *,
    lag: int,
    sink_first: bool,
) -> tuple[list[BoolArray], BoolArray, FloatArray]:
    """Tokens are decided as their answers come in, with every answer that came before.

    Time is counted in tokens. The first chunk of the i-th token in visiting order arrives at time i, for every
    token, because first chunks are asked for in advance. A token that stays undecided asks for its next chunk,
    which arrives `lag` later (at once if `lag` is 0: the token is finished before the next one starts). A test
    uses the latest lower bound of every token that has answered so far, its own included; of answers that
    arrive together, those of older tokens come first.

    A row that would end empty (flatter than the threshold) keeps the token visited first.

    A stretch of `lag` times is one array operation: which answers arrive in it was decided before it began.
    `event_loop` in the tests is the plain simulation that this must equal.

    Returns: as `breadth_decisions`.
    """
    shape = lower[0].shape
    masks = [np.zeros(shape, bool) for _ in range(len(lower) + 1)]  # chunk b was asked for; last: survivors
    ln_d = np.empty((*shape[:-1], 1), lower[0].dtype)
    for begin in range(0, shape[-2], QUERIES):
        part = slice(begin, begin + QUERIES)
        seen = visible[part]
        first, places = (int(row.nonzero()[0][-1]) for row in (seen[0], seen[-1]))
        places += 1
        keys = slice(places)
        reference = np.where(seen[:, keys], lower[-1][..., part, keys], -np.inf).max(axis=-1)
        # Tokens in visiting order along axis 0, so that a stretch of tokens is one block of memory.
        low = [_visiting_order(a[..., part, keys], first, sink_first) for a in lower]
        above = [reference + ln_threshold - span[..., part, 0] for span in width]
        weight = []  # exp(lower bound - reference): what a token adds to the denominator
        for score in low:
            term = score - reference
            np.minimum(term, 0.0, out=term)
            weight.append(np.exp(term, out=term))
        asked = [np.zeros(low[0].shape, bool) for _ in masks]
        own = np.arange(places)[:, None] <= first + np.arange(len(seen))
        asked[0][:] = (_visiting_order(seen[:, keys], first, sink_first) & own)[:, None, None, None]
        d = _in_flight(low, weight, above, asked, lag) if lag else _depth_first(low, weight, above, asked)
        # A row flatter than the threshold may lose every token: then the first one visited is taken after all.
        empty = ~asked[-1].any(axis=0)
        if empty.any():
            taken = (np.arange(places)[:, None, None, None, None] == asked[0].argmax(axis=0)) & empty
            for mask in asked:
                mask |= taken
        for whole, mask in zip(masks, asked, strict=True):
            whole[..., part, keys] = _key_order(mask, first, sink_first)
        with np.errstate(divide="ignore"):
            ln_d[..., part, 0] = np.log(d) + reference
    return masks[:-1], masks[-1], ln_d


def _newest_first(reversed_keys: NDArray[Any], first: int) -> NDArray[Any]:
    """A view [..., T, N - 1] of [..., T, N] rows with keys reversed, each begun at its own newest key.

    Query t begins first + t keys before the end, one step later in memory per row less one: a diagonal. Where
    a row runs out the view shows entries of the next row that no query may see.
    """
    *outer, row, item = reversed_keys.strides
    keys = reversed_keys.shape[-1]
    start = reversed_keys[..., keys - 1 - first :]
    shape = (*reversed_keys.shape[:-1], keys - 1)
    return np.lib.stride_tricks.as_strided(start, shape, (*outer, row - item, item))


def _visiting_order(a: NDArray[Any], first: int, sink_first: bool) -> NDArray[Any]:
    """[..., T, N] by key to [N, ..., T] by place in the visiting order of each query."""
    if not sink_first:
        return np.ascontiguousarray(np.moveaxis(a, -1, 0))
    out = np.empty((a.shape[-1], *a.shape[:-1]), a.dtype)
    out[0] = a[..., 0]
    out[1:] = np.moveaxis(_newest_first(np.ascontiguousarray(a[..., ::-1]), first), -1, 0)
    return out


def _key_order(mask: BoolArray, first: int, sink_first: bool) -> BoolArray:
    """The inverse of `_visiting_order` for masks that are False at places beyond a query's last."""
    if not sink_first:
        return np.moveaxis(mask, 0, -1)
    out = np.zeros((*mask.shape[1:], len(mask)), bool)
    _newest_first(out, first)[...] = np.moveaxis(mask[1:], 0, -1)
    out = np.ascontiguousarray(out[..., ::-1])
    out[..., 0] = mask[0]
    return out


def _depth_first(
    low: list[FloatArray], weight: list[FloatArray], above: list[FloatArray], asked: list[BoolArray]
) -> FloatArray:
    """Fill `asked[1:]` when every token is finished before the next one; returns the final denominator."""
    d = np.zeros(low[0].shape[1:], low[0].dtype)
    for token in range(len(low[0])):
        current = np.zeros_like(d)
        for b, bar in enumerate(above):
            alive = asked[b][token]
            np.copyto(current, weight[b][token], where=alive)
            with np.errstate(divide="ignore"):
                asked[b + 1][token] = alive & (low[b][token] > np.log(d + current) + bar)
        d += current
    return d


def _in_flight(
    low: list[FloatArray], weight: list[FloatArray], above: list[FloatArray], asked: list[BoolArray], lag: int
) -> FloatArray:
    """Fill `asked[1:]` when later chunks arrive `lag` tokens after they were asked for."""
    tokens, chunks = len(low[0]), len(low)
    d = np.zeros(low[0].shape[1:], low[0].dtype)
    span = min(lag, tokens)
    stretches = -(-tokens // lag)
    gained, before = (np.empty((span, *d.shape), d.dtype) for _ in range(2))
    for now in range(stretches + chunks - 1):
        # What arrives in this stretch: chunk b of the tokens of b stretches ago. Times run from 0 to span - 1.
        arriving: list[tuple[int, slice, FloatArray]] = []
        for b in range(chunks - 1, -1, -1):  # older tokens first
            start = (now - b) * lag
            stop = min(start + lag, tokens)
            if start < 0 or start >= tokens:
                continue
            part, times = slice(start, stop), slice(stop - start)
            more = weight[b][part] - weight[b - 1][part] if b else weight[b][part].copy()
            more *= asked[b][part]
            if arriving:
                gained[times] += more
            else:
                gained[times] = more
                gained[stop - start :] = 0
            np.copyto(more, gained[times])
            arriving.append((b, part, more))
        if not arriving:
            continue
        total = _running_sum(gained, before)
        before -= gained
        for b, part, known in arriving:
            known += before[: part.stop - part.start]
            known += d
            with np.errstate(divide="ignore"):
                np.log(known, out=known)
            known += above[b]
            np.logical_and(asked[b][part], low[b][part] > known, out=asked[b + 1][part])
        # At the last time of a whole stretch something may arrive; before the end of a cut one nothing is missing.
        d = d + before[-1] + gained[-1] if span == lag else d + total
    return d


def _running_sum(terms: FloatArray, out: FloatArray) -> FloatArray:
    """Sums along axis 0 up to and with each entry, as `np.cumsum` but row by row, which is several times faster.

    Returns the last one.
    """
    out[0] = terms[0]
    for before, row, place in zip(out[:-1], terms[1:], out[1:], strict=True):
        np.add(before, row, out=place)
    last: FloatArray = out[-1].copy()
    return last
