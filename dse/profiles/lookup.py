"""Rows of a profile: exact where measured, interpolated between measured numbers, refused elsewhere.

`resolve` decides, without touching an array, which measured rows each requested setting comes from;
`take` gathers (and blends) any slice of them, so that a long list of settings never has to be in memory at
once; `select` is both in one. How values between are found is `dse.profiles.grid`'s.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.errors import BadInput, nearest
from dse.profiles.grid import Grid as Grid
from dse.profiles.grid import Source as Source
from dse.profiles.grid import measured_rows as measured_rows
from dse.profiles.profile import ACCURACY_COLUMN, COLUMN, FloatArray, Profile
from dse.profiles.schema import KnobValue, Setting

MAX_SETTINGS = 50_000
"""Most knob settings one algorithm of a space may list."""


@dataclass(frozen=True)
class Selection:
    """Profile rows at one context, ready to be priced.

    Attributes:
        settings: one per row; interpolated rows carry the knob values asked for.
        counters: float32 [rows, layers, kv_heads, counters].
        histograms: float32 [rows, layers, kv_heads, 2, HISTOGRAM_BINS].
        accuracy: float64 [rows, len(ACCURACY)].
        window_nll: float64 [rows, windows], the windows of this context.
        status: text [rows], ``"measured"`` or ``"interpolated"``.
        mean_context: mean visible tokens of the queries behind every row.
        skipped: combinations dropped because they were not measured (``unmeasured = "skip"``).
    """

    settings: tuple[Setting, ...]
    counters: FloatArray
    histograms: FloatArray
    accuracy: FloatArray
    window_nll: FloatArray
    status: np.ndarray[Any, np.dtype[np.str_]]
    mean_context: float
    skipped: int = 0

    def counter(self, name: str) -> FloatArray:
        """One counter, [rows, layers, kv_heads]."""
        return self.counters[..., COLUMN[name]]

    def metric(self, name: str) -> FloatArray:
        """One accuracy metric, [rows]."""
        return self.accuracy[:, ACCURACY_COLUMN[name]]


@dataclass(frozen=True)
class Resolution:
    """Every requested setting with its source, in product order, and how many were dropped."""

    profile: Profile
    algorithm: str
    context: int
    sources: tuple[Source, ...]
    skipped: int


def axes_of(
    grid: Grid, knobs: Mapping[str, Sequence[KnobValue]], defaults: Mapping[str, KnobValue]
) -> dict[str, list[KnobValue]]:
    """Values per knob: as asked for, else the default, else the only measured value.

    Raises:
        BadInput: an unknown knob, or a knob left out that has no default and several measured values.
    """
    for knob in knobs:
        if knob not in grid.values:
            raise BadInput(f"{grid.algorithm}.{knob}: unknown knob; {nearest(knob, grid.knobs)}")
    axes: dict[str, list[KnobValue]] = {}
    for knob in grid.knobs:
        if knob in knobs:
            axes[knob] = list(knobs[knob])
        elif knob in defaults:
            axes[knob] = [defaults[knob]]
        elif len(grid.values[knob]) == 1:
            axes[knob] = list(grid.values[knob])
        else:
            have = ", ".join(repr(v) for v in grid.values[knob])
            raise BadInput(
                f"{grid.algorithm}.{knob}: has no default in the profile; give it, measured: {have}"
            )
    return axes


def resolve(
    profile: Profile,
    algorithm: str,
    knobs: Mapping[str, Sequence[KnobValue]],
    context: int,
    *,
    defaults: Mapping[str, KnobValue] | None = None,
    skip_unmeasured: bool = False,
) -> Resolution:
    """Sources of the Cartesian product of the listed knob values.

    Args:
        knobs: knob -> values; a knob left out takes its default.
        defaults: knob -> value; None takes the profile's.
        skip_unmeasured: drop (and count) combinations and values that were not measured instead of refusing.

    Raises:
        BadInput: unknown algorithm, context or knob; a value or combination that cannot be had.
    """
    grid = Grid(profile, algorithm, context)
    defaults = profile.defaults.get(algorithm, {}) if defaults is None else defaults
    axes = axes_of(grid, knobs, defaults)
    size = math.prod(len(v) for v in axes.values())
    if size > MAX_SETTINGS:
        raise BadInput(
            f"{algorithm}: {size} knob settings; at most {MAX_SETTINGS} are allowed, shorten an axis"
        )
    sources: list[Source] = []
    reason = ""
    for values in itertools.product(*axes.values()):
        setting = dict(zip(axes, values, strict=True))
        try:
            source = grid.source(setting)
            message = "" if source or reason else f"{algorithm}: {grid.missing(setting)}"
        except BadInput as error:
            source, message = None, str(error)
        if source is not None:
            sources.append(source)
        elif not skip_unmeasured:
            raise BadInput(message)
        reason = reason or message
    if not sources:
        raise BadInput(
            f"{algorithm}: none of the {size} combinations was measured at context {context}: {reason}"
        )
    return Resolution(profile, algorithm, context, tuple(sources), size - len(sources))


def take(resolution: Resolution, start: int = 0, stop: int | None = None) -> Selection:
    """Rows `start` to `stop` of a resolution as arrays."""
    profile = resolution.profile
    at = profile.context_index(resolution.context)
    sources = resolution.sources[start:stop]
    first = np.array([s.rows[0] for s in sources], dtype=np.intp)
    blended = [(i, s) for i, s in enumerate(sources) if len(s.rows) > 1]

    def gather(table: FloatArray, losses: bool = False) -> FloatArray:
        out: FloatArray = table[first, at]
        for i, source in blended:
            weights = source.loss_weights if losses and source.loss_weights else source.weights
            corners = table[list(source.rows), at]
            out[i] = np.tensordot(np.array(weights, dtype=table.dtype), corners, axes=1)
            # Rounding must not carry a blend outside its corners (a fraction above 1, say).
            np.clip(out[i], corners.min(axis=0), corners.max(axis=0), out=out[i])
        return out

    accuracy = gather(profile.accuracy, losses=True)
    for i, source in blended:
        _blend_perplexity(accuracy[i], profile.accuracy[list(source.rows), at], source)
    windows = profile.window_counts[at]
    return Selection(
        settings=tuple(s.setting for s in sources),
        counters=gather(profile.counters),
        histograms=gather(profile.histograms),
        accuracy=accuracy,
        window_nll=gather(profile.window_nll[..., :windows], losses=True),
        status=np.array([s.status for s in sources], dtype="<U12"),
        mean_context=float(profile.mean_context[at]),
        skipped=resolution.skipped,
    )


def _blend_perplexity(row: FloatArray, corners: FloatArray, source: Source) -> None:
    """Replace the perplexities of a blended accuracy row by those that belong to its loss.

    A perplexity is the exponential of a loss, so it is blended geometrically: with the loss of the blend it then
    is the dense perplexity times exp(nll_increase), as where it was measured.
    """
    weights = np.array(source.loss_weights or source.weights)
    absolute, increase = ACCURACY_COLUMN["perplexity"], ACCURACY_COLUMN["perplexity_increase"]
    if not (corners[:, absolute] > 0).all():
        return
    row[absolute] = np.exp(weights @ np.log(corners[:, absolute]))
    dense = weights @ (corners[:, absolute] - corners[:, increase])
    row[increase] = np.clip(row[absolute] - dense, corners[:, increase].min(), corners[:, increase].max())
    row[absolute] = np.clip(row[absolute], corners[:, absolute].min(), corners[:, absolute].max())


def select(
    profile: Profile,
    algorithm: str,
    knobs: Mapping[str, Sequence[KnobValue]],
    context: int,
    *,
    defaults: Mapping[str, KnobValue] | None = None,
    skip_unmeasured: bool = False,
) -> Selection:
    """`resolve` and `take` in one: the rows of a Cartesian product of knob values at one context."""
    return take(
        resolve(profile, algorithm, knobs, context, defaults=defaults, skip_unmeasured=skip_unmeasured)
    )
