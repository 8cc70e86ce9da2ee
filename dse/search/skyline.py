"""What a front already rules out: a quick, safe test of whether points can still matter.

Costs are compared with a little room (`ROOM`), far more than rounding and far less than anything physical: what
is ruled out is worse by more than that, so points that only tie with the front are never ruled out, and bounds
that rounding has nudged stay on the safe side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

ROOM = 1e-9
"""Relative; prices taken apart and prices in one piece agree to about 1e-14."""

WITNESSES = 64
"""Most front points compared one by one where three or four objectives vary."""


class Skyline:
    """The part of a front that matters to one setting.

    A setting has some costs of its own (its accuracy), the same on every design. Front points no worse in
    those rule out whatever they beat in the others.
    """

    def __init__(self, costs: FloatArray, own: Sequence[float], own_at: Sequence[int], others: Sequence[int]):
        """Args: costs [n, objectives] of a front; the setting's own costs and their columns; other columns."""
        rows = costs[(costs[:, list(own_at)] <= np.asarray(own)).all(axis=1)]
        self.better = bool((rows[:, list(own_at)] < np.asarray(own)).any())
        left = rows[:, list(others)]
        self.count = len(left)
        self.kind = len(others)
        if not self.count or not self.kind:
            return
        order = np.lexsort([left[:, j] for j in reversed(range(self.kind))])
        left = left[order]
        if self.kind == 2:
            left = np.stack([left[:, 0], np.minimum.accumulate(left[:, 1])], axis=1)
        elif self.kind > 2 and len(left) > WITNESSES:
            strong = [int(left[:, j].argmin()) for j in range(self.kind)]
            even = np.linspace(0, len(left) - 1, WITNESSES - len(strong)).astype(np.intp)
            left = left[np.unique([*strong, *even.tolist()])]
        self.left = left

    def rules_out(self, costs: Sequence[FloatArray], room: float = ROOM) -> BoolArray:
        """Which points (or bounds), by their other costs, are strictly dominated; infinite ones are too.

        `room`: relative, how far off the costs may be.
        """
        if not self.kind:
            raise ValueError("a setting without other costs is ruled out as a whole or not at all")
        out = ~np.isfinite(costs[0])
        for values in costs[1:]:
            out |= ~np.isfinite(values)
        if not self.count:
            return out
        with np.errstate(invalid="ignore"):  # infinite ones are out already
            tight = [values - (np.abs(values) * room + 1e-300) for values in costs]
        if self.kind == 1:
            return np.asarray(out | (self.left[0, 0] <= tight[0]))
        if self.kind == 2:
            at = np.searchsorted(self.left[:, 0], tight[0], side="right") - 1
            beaten = (at >= 0) & (self.left[np.maximum(at, 0), 1] <= tight[1])
            return np.asarray(out | beaten)
        for witness in self.left:
            beaten = witness[0] <= tight[0]
            for value, values in zip(witness[1:], tight[1:], strict=True):
                beaten &= value <= values
            out |= beaten
        return out
