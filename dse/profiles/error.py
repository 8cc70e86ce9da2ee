"""How far off the look-up is between measured values: its leave-one-out error.

Every measured setting whose knob has a measured neighbour on both sides, all other knobs equal, is predicted from
those two as the look-up would, and compared with what was measured. The gap that is bridged so is twice as wide
as the one a user's value falls into, so this errs on the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.errors import BadInput, nearest
from dse.profiles.lookup import Grid, Resolution, Source, take
from dse.profiles.profile import ACCURACY_COLUMN, COLUMN, FloatArray, Profile, canonical, setting_key
from dse.profiles.schema import Setting


@dataclass(frozen=True)
class InterpolationError:
    """Leave-one-out error along one knob.

    Attributes:
        algorithm, knob, context: what was interpolated.
        values: measured values of the knob on its longest line, everything else equal.
        predicted: settings that were predicted from their neighbours.
        loss: median absolute error of `nll_increase`, nats per token.
        perplexity: median absolute error of `perplexity_increase`.
        span: largest minus smallest `perplexity_increase` on the lines that were interpolated along.
        noise: median half width of their 95 % intervals, as a perplexity.
        traffic: median relative error of the bits of keys and values fetched.
    """

    algorithm: str
    knob: str
    context: int
    values: int
    predicted: int
    loss: float
    perplexity: float
    span: float
    noise: float
    traffic: float

    @property
    def share(self) -> float:
        """The error of the perplexity increase as a share of the range spanned."""
        return self.perplexity / self.span if self.span > 0 else 0.0


def interpolation_errors(profile: Profile) -> list[InterpolationError]:
    """The errors of every numeric knob that can be judged, by context, algorithm and knob."""
    found = []
    for context in profile.contexts:
        measured = profile.measured(context)
        for algorithm in profile.algorithms:
            if not measured[profile.rows(algorithm)].any():
                continue
            grid = Grid(profile, algorithm, context)
            for knob in grid.knobs:
                error = interpolation_error(grid, knob)
                if error is not None:
                    found.append(error)
    return found


def interpolation_error(grid: Grid, knob: str) -> InterpolationError | None:
    """The error along one knob; None where no measured value has a neighbour on both sides."""
    profile = grid.profile
    lines = list(_lines(grid, knob))
    settings, sources = [], []
    for line in lines:
        for (low, i), (value, j), (high, k) in zip(line, line[1:], line[2:], strict=False):
            knobs = dict(profile.settings[j].knobs)
            weights, loss_weights = grid.weights({**knobs, knob: value}, (knob,), ((low, high),), (i, k))
            setting = Setting(grid.algorithm, knobs, profile.settings[j].form)
            settings.append(j)
            sources.append(Source(setting, (i, k), weights, loss_weights))
    if not sources:
        return None
    at = profile.context_index(grid.context)
    guess = take(Resolution(profile, grid.algorithm, grid.context, tuple(sources), 0))
    truth = profile.accuracy[settings, at]

    def median(metric: str) -> float:
        m = ACCURACY_COLUMN[metric]
        return float(np.median(np.abs(guess.accuracy[:, m] - truth[:, m])))

    rows = sorted({row for line in lines for _, row in line})
    column = {name: profile.accuracy[rows, at, i] for name, i in ACCURACY_COLUMN.items()}
    halves = (column["nll_increase_high"] - column["nll_increase_low"]) / 2
    forms = [profile.settings[j].form for j in settings]
    fetched = _traffic(profile.counters[settings, at], [(f.k_chunk_bits, f.v_bits) for f in forms])
    guessed = _traffic(guess.counters, [(f.k_chunk_bits, f.v_bits) for f in forms])
    return InterpolationError(
        algorithm=grid.algorithm,
        knob=knob,
        context=grid.context,
        values=max(map(len, lines)),
        predicted=len(sources),
        loss=median("nll_increase"),
        perplexity=median("perplexity_increase"),
        span=float(np.ptp(column["perplexity_increase"])),
        noise=float(np.median(column["perplexity"] * halves)),
        traffic=float(np.median(np.abs(guessed / fetched - 1))),
    )


def _lines(grid: Grid, knob: str) -> Iterator[list[tuple[float, int]]]:
    """Settings that differ in one numeric knob only, as ascending (value, row), three or more of a form.

    Zero is no part of a line: nothing is interpolated from it.
    """
    lines: dict[tuple[Any, ...], list[tuple[float, int]]] = {}
    for row in grid.by_key.values():
        setting = grid.profile.settings[row]
        value = setting.knobs[knob]
        if canonical(value)[0] == 0 and value != 0:
            others = {k: v for k, v in setting.knobs.items() if k != knob}
            key = (setting_key(grid.algorithm, others), setting.form)
            lines.setdefault(key, []).append((float(value), row))
    for line in lines.values():
        if len(line) > 2:
            yield sorted(line)


def _traffic(counters: FloatArray, widths: list[tuple[tuple[int, ...], int]]) -> FloatArray:
    """Bits of keys and values fetched per element, [rows]; `widths`: K chunks and V of each row."""
    means = counters.mean(axis=(1, 2), dtype=np.float64)
    bits = [
        sum(width * means[i, COLUMN[f"group.k_rows_{c}"]] for c, width in enumerate(chunks))
        + v_bits * means[i, COLUMN["group.v_rows"]]
        for i, (chunks, v_bits) in enumerate(widths)
    ]
    return np.array(bits)


def leave_one_out(profile: Profile, algorithm: str, knob: str, context: int | None = None) -> float:
    """Median absolute error of `nll_increase` (nats) when a measured value of `knob` is interpolated.

    `context` None takes the median over all contexts where it can be judged. NaN where no value has two
    neighbours.

    Raises:
        BadInput: no such algorithm, context or knob.
    """
    errors = []
    for c in profile.contexts if context is None else (context,):
        if context is None and not profile.measured(c)[profile.rows(algorithm)].any():
            continue
        grid = Grid(profile, algorithm, c)
        if knob not in grid.values:
            raise BadInput(f"{algorithm}.{knob}: unknown knob; {nearest(knob, grid.knobs)}")
        error = interpolation_error(grid, knob)
        if error is not None:
            errors.append(error.loss)
    return float(np.median(errors)) if errors else math.nan
