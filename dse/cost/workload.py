"""What is run: phase, context, batch, and how much of the model is priced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dse.errors import BadInput, nearest

PHASES: Final = ("decode", "prefill")
SCOPES: Final = ("attention", "model")

LARGEST: Final = 0
"""Batch that stands for the largest whose keys and values fit in memory."""


@dataclass(frozen=True)
class Workload:
    """One step of a model: one generated token per sequence, or one prompt per sequence.

    Attributes:
        phase: ``decode``, the generation of one token per sequence, or ``prefill``, a pass over a prompt.
        context: context length the profile was measured at: the length of a prompt, and the tokens that memory
            must hold. 0 stands for the mean visible tokens of the statistics.
        batch: sequences taken together; each has its own keys and values, weights are shared. `LARGEST` is as
            many as fit in memory, which then differs from design to design.
        scope: ``attention``, or ``model``: projections, feed-forward and output head too, whose weights are
            streamed once per step and which rebuilt tokens pass through like the new one.
        query_tile: consecutive queries of a prompt that share a fetch; the statistics must be those of that tile
            (`dse.profiles.profile.Profile.at_tile`). 1 in decode.
    """

    phase: str = "decode"
    context: int = 0
    batch: int = 1
    scope: str = "attention"
    query_tile: int = 1

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise BadInput(f"workload: phase: found {self.phase!r}; {nearest(self.phase, PHASES)}")
        if self.scope not in SCOPES:
            raise BadInput(f"workload: scope: found {self.scope!r}; {nearest(self.scope, SCOPES)}")
        for name, value, least in (
            ("batch", self.batch, LARGEST),
            ("context", self.context, 0),
            ("query_tile", self.query_tile, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BadInput(f"workload: {name}: found {value!r}; must be an integer from {least}")
        if self.phase == "decode" and self.query_tile != 1:
            raise BadInput(
                f"workload: query_tile: found {self.query_tile}; decode has one query per sequence"
            )
