"""Has any scored text been seen in calibration? Compared by runs of tokens, whatever file they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dse.archives import Damaged, read_arrays
from dse.errors import BadInput
from dse.measure.material import PARTS, Window
from dse.models.arrays import IntArray

RUN: Final = 32
"""Tokens in a row that make two passages the same."""

PASSAGES: Final = "passages"
"""Array of a scales file: prints of the text it was calibrated on."""

Prints = NDArray[np.uint64]


def prints(tokens: IntArray) -> Prints:
    """A 64-bit print of every run of `RUN` tokens in [T]: [max(T - RUN + 1, 0)]."""
    if len(tokens) < RUN:
        return np.zeros(0, np.uint64)
    rng = np.random.default_rng(RUN)  # fixed odd multipliers: arithmetic modulo 2**64
    weights = rng.integers(0, 2**63, RUN, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    runs = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.uint64) + np.uint64(1), RUN)
    total = np.zeros(len(runs), np.uint64)
    for column in range(RUN):
        total += runs[:, column] * weights[column]
    total ^= total >> np.uint64(29)
    return total


def calibration_prints(texts: Mapping[str, IntArray]) -> Prints:
    """Prints of the whole calibration part of `texts`."""
    low, high = PARTS["calibration"]
    return joined(tokens[int(len(tokens) * low) : int(len(tokens) * high)] for tokens in texts.values())


def joined(passages: Iterable[IntArray]) -> Prints:
    """Prints of several passages."""
    return np.concatenate([prints(np.asarray(passage)) for passage in passages])


def scales_prints(path: Path) -> Prints:
    """Prints that a file of scales carries; empty where it carries none."""
    try:
        found = read_arrays(path).get(PASSAGES)
    except Damaged:
        return np.zeros(0, np.uint64)
    return (
        np.zeros(0, np.uint64)
        if found is None or found.dtype.kind != "u"
        else found.astype(np.uint64).ravel()
    )


def refuse_overlap(scored: Sequence[Window], seen: Prints) -> None:
    """Raises `BadInput` where a scored window holds `RUN` tokens in a row that calibration has seen."""
    for window in scored:
        hits = np.flatnonzero(np.isin(prints(window.tokens), seen))
        if len(hits):
            raise BadInput(
                f"text: {window.book!r}: tokens {window.start + hits[0]} to {window.start + hits[0] + RUN} were "
                "calibrated on, so nothing may be scored there; take another part or another text"
            )
