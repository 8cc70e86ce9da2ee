"""The prompt phase of an algorithm that decides over the whole prompt, layer by layer.

Algorithms without state need none of this: their `attend` takes a prompt's queries like any others. One that drops
tokens from later layers sees the prompt at once, one layer after the other, and says what it touched block by block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dse.algorithms.contract import Attended, BoolArray, FloatArray, IntArray
from dse.algorithms.quantize import Scales

Note = Callable[[int, Attended, BoolArray], None]
"""Takes a KV head, what a block of its queries touched, and [T, N] which tokens they could have."""


@dataclass(frozen=True)
class Passage:
    """What is known of a prompt before its first layer.

    Attributes:
        layers, kv_heads, group: of the model.
        length: tokens of the prompt, N.
        block: queries of one note, a multiple of every query tile.
        scales: quantisation scales per layer.
        windows: per layer, how many tokens a query may see at most (0: all before it).
    """

    layers: int
    kv_heads: int
    group: int
    length: int
    block: int
    scales: Sequence[Scales]
    windows: Sequence[int]


class PromptRun(ABC):
    """One prompt on its way through the layers.

    Attributes:
        alive: positions of the tokens that are left, rising: all N before the first layer.
    """

    alive: IntArray

    @abstractmethod
    def attend(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray, note: Note) -> FloatArray:
        """One layer, first to last: q [H, G, N, d], k and v [H, N, d] to [H, G, N, d], zero where no token is left.

        Leaves in `alive` the tokens that had queries, keys and values in this layer. Blocks of each head's notes
        come in order and hold `Passage.block` queries, the last one fewer.
        """


@runtime_checkable
class Summarises(Protocol):
    """An algorithm with state and a prompt phase of its own."""

    def start_prompt(self, passage: Passage) -> PromptRun:
        """Begin a prompt."""
        ...
