"""What is run: phase, context and batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dse.errors import BadInput, nearest

PHASES: Final = ("decode",)


@dataclass(frozen=True)
class Workload:
    """One step of a model.

    Attributes:
        phase: ``decode``, the generation of one token per sequence.
        context: context length the profile was measured at; for the record, prices use the mean visible
        tokens.
        batch: sequences decoded together; each has its own keys and values, weights are shared.
    """

    phase: str = "decode"
    context: int = 0
    batch: int = 1

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise BadInput(f"workload: phase: found {self.phase!r}; {nearest(self.phase, PHASES)}")
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise BadInput(f"workload: batch: found {self.batch!r}; must be an integer from 1")
