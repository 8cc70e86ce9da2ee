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

import numpy as np

from dse.algorithms.contract import Algorithm, Attended, BoolArray, Call, FloatArray, Knob
from dse.algorithms.quantize import chunk_values, parse_chunks, to_integers
from dse.errors import BadInput
from dse.profiles.schema import Form


class TokenPicker(Algorithm):
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
        Knob("lag", 32, "stream: tokens whose answers are still out when a token is decided", 0, 4096),
        Knob("recheck", False, "test survivors again with the final denominator before fetching values"),
    )

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        super().__init__(knobs, where)
        try:
            self.widths = parse_chunks(self.text("chunks"))
        except ValueError:
            raise BadInput(
                f"{where or self.name}.chunks: {self.text('chunks')!r} is no list of widths; "
                "write them most significant first, 2 to 16 bits in all, such as '4+4+4'"
            ) from None

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

    def attend(self, call: Call) -> Attended:
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
        p = np.where(survivors, exact, -np.inf)
        p -= p.max(axis=-1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        v = to_integers(call.v, step_v, bits) * step_v
        out = p.reshape(batch, heads, group * queries, -1) @ v
        answers = sum(_per_head(mask) for mask in fetched)
        rows = float(batch * group * queries)
        work = {
            "exponentials": 2.0 * answers,  # one pair (upper, lower) per chunk answer
            "compares": answers,
            "margins": rows * len(self.widths),
            "divisions": rows,
            "row_waits": rows * (len(self.widths) if self.text("mode") == "breadth" else 0),
        }
        if self.settings["recheck"]:
            work["compares"] = answers + _per_head(survivors)
            work["row_waits"] += rows
        return Attended(out.reshape(call.q.shape), fetched, survivors, work)


def _per_head(mask: BoolArray) -> FloatArray:
    return np.array([np.count_nonzero(mask[:, h]) for h in range(mask.shape[1])], float)


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
    partial: FloatArray = np.zeros((), q.dtype)
    lower, width = [], []
    for bits, chunk in zip(widths, chunk_values(k, widths), strict=True):
        left -= bits
        product = flat @ chunk.swapaxes(-1, -2)
        if left:
            product *= 2.0**left
        partial = partial + product
        remainder = margin_scale * (2.0**left - 1)
        scores = partial.reshape(batch, heads, group, queries, -1)
        lower.append((scores + remainder * negative) * unit if left else scores * unit)
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
    """Tokens are decided one after another, each with the denominator of the tokens already answered.

    The token that is i-th in order sees the final lower bounds of those before position i - lag, and its own.
    All tokens of a stretch of lag + 1 have their denominators ready when the stretch begins, so a stretch is
    one array operation; `reference_stream` in the tests is the plain loop this must equal.

    Returns: as `breadth_decisions`.
    """
    queries, keys = visible.shape
    dtype = lower[0].dtype
    reference = np.where(visible, lower[-1], -np.inf).max(axis=-1)
    # Tokens in visiting order along axis 0, so that a stretch of tokens is one block of memory.
    turn = -1 if sink_first else 1
    low = [np.ascontiguousarray(np.moveaxis(a[..., ::turn], -1, 0)) for a in lower]
    seen = visible.T[::turn]
    bar_above = [reference + ln_threshold - span[..., 0] for span in width]
    weight = []  # exp(lower bound - reference): what a token adds to the denominator
    for score in low:
        term = score - reference
        np.minimum(term, 0.0, out=term)
        weight.append(np.exp(term, out=term))
    shape = low[0].shape
    place = np.broadcast_to(np.arange(keys)[:, None], (keys, queries))
    column = -1
    sink: FloatArray = np.zeros(shape[1:], dtype)
    if sink_first:
        # Key 0 is visited before all others, so it leaves the row's order. It always survives: the only
        # denominator it is compared with is its own.
        column = keys - 1
        newest = keys - seen.sum(axis=0)
        place = place - newest[None, :] + 1
        sink = weight[-1][column].copy()
    sink_known = place > lag
    fetched = [np.zeros(shape, bool) for _ in lower]
    survivors = np.zeros(shape, bool)
    before = np.zeros((keys + lag + 1, *shape[1:]), dtype)  # at i: sum of the weights left of i - lag
    for start in range(0, keys, lag + 1):
        part = slice(start, min(start + lag + 1, keys))
        alive = np.broadcast_to(seen[part, None, None, None], low[0][part].shape).copy()
        if start <= column < part.stop:
            alive[column - start] = False
        base = before[part] + np.where(sink_known[part, None, None, None], sink, 0).astype(dtype)
        current = np.zeros_like(base)
        for b, above in enumerate(bar_above):
            fetched[b][part] = alive
            np.copyto(current, weight[b][part], where=alive)
            bar = base + current
            with np.errstate(divide="ignore"):
                np.log(bar, out=bar)
            bar += above
            alive &= low[b][part] > bar
        survivors[part] = alive
        done = slice(start + lag + 1, part.stop + lag + 1)
        np.cumsum(current, axis=0, out=before[done])
        before[done] += before[start + lag]
    if sink_first:
        for mask in (*fetched, survivors):
            mask[column] = True
    with np.errstate(divide="ignore"):
        ln_d = (np.log(before[-1] + sink) + reference)[..., None]

    def restore(mask: BoolArray) -> BoolArray:
        return np.ascontiguousarray(np.moveaxis(mask[::turn], 0, -1))

    return [restore(m) for m in fetched], restore(survivors), ln_d
