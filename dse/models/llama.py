"""The engine under the name it had when it ran Llama networks only."""

from __future__ import annotations

from dse.models.decoder import Decoder as Llama
from dse.models.decoder import Layer, Weights, dense_attention

__all__ = ["Layer", "Llama", "Weights", "dense_attention"]
