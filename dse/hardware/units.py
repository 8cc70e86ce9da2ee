"""Units that are easily mistaken for one another: what a number that makes no sense was probably meant to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MISTAKEN: Final[Mapping[str, tuple[tuple[str, float], ...]]] = {
    "GHz": (("Hz", 1e-9), ("kHz", 1e-6), ("MHz", 1e-3)),
    "KiB": (("bytes", 2.0**-10), ("MiB", 2.0**10), ("GiB", 2.0**20)),
    "GiB": (("bytes", 2.0**-30), ("KiB", 2.0**-20), ("MiB", 2.0**-10)),
    "GB/s": (("B/s", 1e-9), ("kB/s", 1e-6), ("TB/s", 1e3)),
    "nm": (("m", 1e9), ("mm", 1e6), ("um", 1e3)),
    "pJ": (("J", 1e12), ("nJ", 1e3), ("fJ", 1e-3)),
    "ns": (("s", 1e9), ("us", 1e3), ("ps", 1e-3)),
    "um2": (("m2", 1e12), ("mm2", 1e6), ("nm2", 1e-6)),
    "mm2": (("m2", 1e6), ("um2", 1e-6)),
    "mW": (("W", 1e3), ("uW", 1e-3)),
}
"""Unit -> (unit that is written instead, how many of the first one of it is)."""

CHANNEL_GBPS: Final = 64.0
"""No shipped device has a channel half as fast: beyond, the sum of all channels may be meant."""

MOST_CHANNELS: Final = 64

BUFFER_KIB: Final = 4096.0
"""On-chip buffers of one head are smaller; a number like this may count bytes."""


def meant(unit: str, value: float, low: float, high: float) -> str:
    """``; did you mean 1 (1e+09 Hz)?`` where a value out of range is in range in another unit, else nothing."""
    if low <= value <= high or not value > 0:
        return ""
    fitting = [
        (value * factor, other) for other, factor in MISTAKEN.get(unit, ()) if low <= value * factor <= high
    ]
    for written, factor in (("GB/s", 1.0), ("B/s", 1e-9)) if unit == "GB/s" else ():
        total = value * factor
        count = _channels(total)
        if total > high and count <= MOST_CHANNELS and low <= total / count <= high:
            fitting.append((total / count, f"{written} over {count} channels"))
    if not fitting:
        return ""
    # Of several the roundest: 196608 is 192 KiB in bytes rather than anything else.
    right, other = min(fitting, key=lambda found: len(f"{found[0]:.9g}"))
    return f"; did you mean {right:.9g} ({value:.9g} {other})?"


def question(name: str, unit: str, value: float) -> str:
    """What to ask about a value that is valid and yet hardly meant; empty for others."""
    if unit == "KiB" and value > BUFFER_KIB:
        return f"{name} = {value:g} is {value / 1024:g} MiB for each head; did you mean {value / 1024:g} ({value:g} bytes)?"
    if name == "dram_channel_gbps" and value > CHANNEL_GBPS:
        count = _channels(value)
        return (
            f"{name} = {value:g} GB/s is of one channel; did you mean {value / count:g} on {count} channels?"
        )
    return ""


def _channels(value: float) -> int:
    """The least power of two of channels that share a bandwidth, each as fast as channels are."""
    count = 1
    while value / count > CHANNEL_GBPS / 2:
        count *= 2
    return count
