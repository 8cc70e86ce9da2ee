"""Attend to recent tokens and to every n-th older one."""

import numpy as np

from dse.algorithms.contract import Algorithm, Attended, Call, Knob
from dse.algorithms.operands import WIDTHS, masked_scores, operands, per_head, row_count, softmax_over, weigh
from dse.profiles.schema import Form


class Strided(Algorithm):
    name = "strided"
    summary = "recent tokens and every n-th older one, whatever the query"
    source = "an example"
    knobs = (
        Knob("recent", 64, "most recent tokens kept, the current one included", 1, 1e6),
        Knob("stride", 4, "one in so many of the older tokens is kept", 1, 1e6),
        *WIDTHS,  # k_bits, v_bits, q_bits
    )

    def form(self) -> Form:  # how keys and values are stored
        return Form((self.integer("k_bits"),), self.integer("v_bits"), self.integer("q_bits"))

    def attend(self, call: Call) -> Attended:
        q, k, v = operands(self, call)  # rounded to their widths
        position = call.first + np.arange(q.shape[3])[:, None]
        token = np.arange(k.shape[2])
        near = position - token < self.integer("recent")
        kept = call.visible() & (near | (token % self.integer("stride") == 0))
        mask = np.broadcast_to(kept, (*q.shape[:4], len(token)))  # what was fetched: keys and values alike
        out = weigh(softmax_over(masked_scores(q, k, kept), mask), v)
        return Attended(out, (mask,), mask, {"exponentials": per_head(mask), "divisions": row_count(call)})
