"""Quest: whole pages of the cache are kept or skipped, by a bound on the best score a page can hold.

Every full page of keys has a summary, the element-wise minimum and maximum of its keys. The largest score a
key of the page can have is at most sum_j max(q_j * min_j, q_j * max_j); each query head fetches the pages with
the largest bounds, and always the page of the current token. Layers 0 and 1 stay dense.

Source: Tang et al., "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", ICML 2024, and
its published code for what the text leaves open (the last page counts against the budget; no estimate while
the whole cache fits the budget). Query heads that share a KV head select by themselves, the fetch is their
union. Counted here: the sign of q_j tells which of the two products is larger, so a page costs d
multiply-adds; summaries have the width of keys; the page of the current token is fetched in every step, so
its summary is made (2 d comparisons per key) and written once, when it is full.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dse.algorithms.contract import Attended, Call, FloatArray, Knob
from dse.algorithms.layers import LAYERS, Layered
from dse.algorithms.operands import (
    WIDTHS,
    largest,
    masked_scores,
    operands,
    pair_count,
    per_head,
    plain_form,
    row_count,
    softmax_over,
    weigh,
)
from dse.errors import BadInput
from dse.profiles.schema import Form


def page_bounds(q: FloatArray, keys: FloatArray, page: int) -> FloatArray:
    """Largest score, not divided by sqrt(d), that any key of a page can have.

    Args:
        q: [B, H, G, T, d]; `keys` [B, H, N, d].
        page: tokens per page.

    Returns: [B, H, G, T, N // page], for the full pages.
    """
    batch, heads, group, queries, dim = q.shape
    full = keys.shape[2] // page
    paged = keys[:, :, : full * page].reshape(batch, heads, full, page, dim)
    low, high = paged.min(axis=3), paged.max(axis=3)
    flat = q.reshape(batch, heads, group * queries, dim)
    bounds: FloatArray = np.maximum(flat, 0) @ high.swapaxes(-1, -2) + np.minimum(flat, 0) @ low.swapaxes(
        -1, -2
    )
    return bounds.reshape(batch, heads, group, queries, full)


class Quest(Layered):
    """Page selection by key extremes."""

    name = "quest"
    summary = "fetches the pages of tokens whose largest possible score is highest"
    source = "Tang et al., ICML 2024"
    knobs = (
        Knob("budget", 256, "tokens a query head may fetch; whole pages, the current one included", 1, 1e6),
        Knob("page", 16, "tokens per page", 1, 1024),
        Knob("dense_layers", 2, "first layers that fetch everything", 0, 1000),
        LAYERS,
        *WIDTHS,
    )
    layered = ("budget",)

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        super().__init__(knobs, where)
        if self.integer("budget") < self.integer("page"):
            raise BadInput(
                f"{where or self.name}.budget: {self.integer('budget')} tokens are less than one page; "
                f"at least {self.integer('page')}"
            )

    def form(self) -> Form:
        return plain_form(self)

    def attend_layer(self, call: Call) -> Attended:
        q, k, v = operands(self, call)
        batch, _, group, queries, dim = call.q.shape
        visible = call.visible()
        scores = masked_scores(q, k, visible)
        rows = row_count(call)
        if call.layer < self.integer("dense_layers"):
            seen = np.broadcast_to(visible, scores.shape)
            work: dict[str, Any] = {"exponentials": pair_count(call), "divisions": rows}
            return Attended(weigh(softmax_over(scores, seen), v), (None,), None, work)
        page = self.integer("page")
        budget = self.integer("budget") // page
        position = call.first + np.arange(queries)
        current = position // page  # the page of the query itself, always kept
        bounds = page_bounds(q, k, page)
        pages = np.arange(bounds.shape[-1])
        oldest = visible.argmax(axis=-1) // page  # the first page of which the layer still sees anything
        older = current - oldest
        bounds[..., (pages >= current[:, None]) | (pages < oldest[:, None])] = -np.inf
        estimated = (older >= budget) & (budget > 1)
        chosen = np.where((older < budget)[:, None], bounds > -np.inf, largest(bounds, budget - 1))
        of_token = np.arange(k.shape[2]) // page
        padded = np.concatenate([chosen, np.zeros((*chosen.shape[:-1], 1), bool)], axis=-1)
        kept = (padded[..., of_token] | (of_token == current[:, None])) & visible
        out = weigh(softmax_over(scores, kept), v)
        candidates = float(older[estimated].sum()) * batch  # summaries read, over B and T
        closing = float(np.count_nonzero((position + 1) % page == 0)) * batch  # pages that fill up
        summary_bytes = 2 * dim * self.integer("k_bits") / 8
        calls = float(np.count_nonzero(estimated)) * batch * group
        work = {
            "exponentials": per_head(kept),
            "divisions": rows,
            "compares": closing * page * 2 * dim,
            "estimate_macs": candidates * group * dim,
            "select_calls": calls,
            "select_elements": candidates * group,
            "select_kept": calls * (budget - 1),
            "group.meta_read_bytes": candidates * summary_bytes,
            "head.meta_read_bytes": candidates * summary_bytes * group,
            "group.meta_write_bytes": closing * summary_bytes,
            "head.meta_write_bytes": closing * summary_bytes * group,
        }
        return Attended(out, (kept,), kept, work)
