"""What the measuring code asks of a language model: nothing but positions in, attention out of its hands.

Axes: B windows, T positions, N cached keys, D model width, Hq query heads, H key/value heads, d head width,
V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dse.models.arrays import FloatArray, IntArray
from dse.profiles.schema import ModelShape

AnyFloat = NDArray[np.floating[Any]]


class Attend(Protocol):
    """Attention of one layer, done by the caller of `Model.run`."""

    def __call__(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray, /) -> AnyFloat:
        """q [B, Hq, T, d], k and v [B, H, T, d] of the positions that run, after position encoding.

        Queries are not scaled, scores are q . k / sqrt(d): a model with another scale multiplies its queries
        so that this holds. Returns the attention output [B, Hq, T, d].
        """
        ...


class Model(Protocol):
    """A decoder-only language model that keeps no cache: whoever runs it keeps keys and values."""

    name: str
    sha256: str
    """Of the weights."""
    engine: str
    """What computes it: results of different engines are kept apart."""
    shape: ModelShape
    vocabulary: int
    windows: tuple[int, ...]
    """Per layer, how many tokens (itself included) a position may see; 0: all before it."""

    def embed(self, tokens: IntArray) -> FloatArray:
        """[..., T] token ids to [..., T, D], as the first layer gets them."""
        ...

    def run(self, tokens: IntArray, positions: IntArray, attend: Attend) -> FloatArray:
        """All layers over tokens [B, T] at `positions` [T] or [B, T]: hidden states [B, T, D]."""
        ...

    def logits(self, hidden: FloatArray) -> FloatArray:
        """Final norm and output head: [..., D] to [..., V]."""
        ...
