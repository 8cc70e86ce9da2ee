"""Symmetric linear quantisation: integers, scales, bit chunks.

Static scales come from calibration text (one per layer and head, or per channel); dynamic ones are one per
stored token. Rounding is to nearest, zero point 0, range [-2**(b-1), 2**(b-1) - 1], as in Token-Picker
(DAC 2024) and SpAtten (HPCA 2021), which both use linear symmetric quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

FLOAT_BITS: Final = 32
"""Width that stands for "left in float32"."""

SCALE_BITS: Final = 16
"""Stored width of a per-token scale (fp16)."""


@dataclass(frozen=True)
class Scales:
    """Calibrated scales of one layer: by operand width in bits.

    `q` [H, G], `k` and `v` [H], `k_channel` and `v_channel` [H, d]; every value is the size of one step.
    """

    q: Mapping[int, FloatArray]
    k: Mapping[int, FloatArray]
    v: Mapping[int, FloatArray]
    k_channel: Mapping[int, FloatArray]
    v_channel: Mapping[int, FloatArray]

    def head(self, h: int) -> Scales:
        """The scales of KV head `h` alone (leading axis kept, of length 1)."""

        def cut(table: Mapping[int, FloatArray]) -> dict[int, FloatArray]:
            return {bits: array[h : h + 1] for bits, array in table.items()}

        return Scales(cut(self.q), cut(self.k), cut(self.v), cut(self.k_channel), cut(self.v_channel))


def to_integers(x: FloatArray, scale: FloatArray, bits: int) -> FloatArray:
    """`x` as `bits`-bit integers held in its own float type; `scale` broadcasts against `x`."""
    top = float(2 ** (bits - 1))
    out = np.rint(x / scale)
    np.clip(out, -top, top - 1, out=out)
    return out


def token_scale(x: FloatArray, bits: int) -> FloatArray:
    """One scale per row, [..., 1]: largest magnitude over the last axis, rounded up to fp16 as it is stored."""
    peak = np.abs(x).max(axis=-1, keepdims=True) / (2 ** (bits - 1) - 1)
    half = peak.astype(np.float16)
    half = np.where(half < peak, np.nextafter(half, np.float16(np.inf)), half)
    positive: FloatArray = np.maximum(half, np.finfo(np.float16).tiny).astype(x.dtype)
    return positive


def rounded(x: FloatArray, bits: int, granularity: str, head: FloatArray, channel: FloatArray) -> FloatArray:
    """`x` [B, H, N, d] after quantisation and back.

    `granularity` is ``"head"`` (static, `head` [H]), ``"channel"`` (static, `channel` [H, d]) or ``"token"``
    (one fp16 scale per row, computed from the row).
    """
    if bits >= FLOAT_BITS:
        return x
    if granularity == "head":
        scale = head[None, :, None, None]
    elif granularity == "channel":
        scale = channel[None, :, None, :]
    else:
        scale = token_scale(x, bits)
    scale = scale.astype(x.dtype)
    return to_integers(x, scale, bits) * scale


def parse_chunks(text: str) -> tuple[int, ...]:
    """``"4+4+4"`` -> (4, 4, 4), most significant first. Raises ValueError where it is no such list."""
    widths = tuple(int(part) for part in text.split("+"))
    if any(w < 1 for w in widths) or not 2 <= sum(widths) <= 16 or len(widths) > 12:
        raise ValueError(text)
    return widths


def chunk_values(integers: FloatArray, widths: tuple[int, ...]) -> list[FloatArray]:
    """Cut two's-complement integers into chunks, most significant first.

    The first chunk is signed, the others are unsigned; with r_b bits left after chunk b the integers equal
    sum_b 2**r_b * chunk_b, and dropping the tail leaves a remainder between 0 and 2**r_b - 1.
    """
    left = sum(widths)
    rest = integers
    out = []
    for width in widths:
        left -= width
        chunk = np.floor(rest / 2.0**left) if left else rest
        out.append(chunk)
        rest = rest - chunk * 2.0**left
    return out
