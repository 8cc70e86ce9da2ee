"""Rows of a profile: exact where measured, interpolated between measured numbers, refused elsewhere.

`resolve` decides, without touching an array, which measured rows each requested setting comes from;
`take` gathers (and blends) any slice of them, so that a long list of settings never has to be in memory at
once; `select` is both in one.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.errors import BadInput, nearest
from dse.profiles.profile import ACCURACY_COLUMN, COLUMN, FloatArray, Profile, canonical, setting_key
from dse.profiles.schema import KnobValue, Setting

MAX_SETTINGS = 1_000_000
"""Most knob settings one algorithm of a space may list."""

LOG_SPAN = 20.0
"""A positive knob measured over more than this factor is interpolated in its logarithm."""

MEASURED, INTERPOLATED = "measured", "interpolated"


@dataclass(frozen=True)
class Source:
    """Where one requested setting comes from: measured rows and their weights (which sum to 1)."""

    setting: Setting
    rows: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def status(self) -> str:
        return MEASURED if len(self.rows) == 1 else INTERPOLATED


@dataclass(frozen=True)
class Selection:
    """Profile rows at one context, ready to be priced.

    Attributes:
        settings: one per row; interpolated rows carry the knob values asked for.
        counters: float32 [rows, layers, kv_heads, counters].
        histograms: float32 [rows, layers, kv_heads, 2, HISTOGRAM_BINS].
        accuracy: float64 [rows, len(ACCURACY)].
        window_nll: float64 [rows, windows].
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


def measured_rows(profile: Profile, algorithm: str, context: int) -> list[int]:
    """Rows of an algorithm that were measured at a context (finite loss and counters)."""
    at = profile.context_index(context)
    nll = profile.accuracy[:, at, ACCURACY_COLUMN["nll_increase"]]
    return [
        i
        for i in profile.rows(algorithm)
        if np.isfinite(nll[i]) and np.isfinite(profile.counters[i, at]).all()
    ]


class Grid:
    """The measured settings of one algorithm at one context, indexed for look-up.

    Raises:
        BadInput: the profile has no such algorithm, context, or measurement.
    """

    def __init__(self, profile: Profile, algorithm: str, context: int) -> None:
        if algorithm not in profile.algorithms:
            hint = nearest(algorithm, profile.algorithms)
            raise BadInput(f"algorithm {algorithm!r}: not in profile {profile.name!r}; {hint}")
        self.profile, self.algorithm, self.context = profile, algorithm, context
        rows = measured_rows(profile, algorithm, context)
        if not rows:
            raise BadInput(
                f"algorithm {algorithm!r}: not measured at context {context} in profile {profile.name!r}"
            )
        self.by_key = {setting_key(algorithm, profile.settings[i].knobs): i for i in rows}
        values: dict[str, dict[tuple[int, float | str], KnobValue]] = {}
        for i in rows:
            for knob, value in profile.settings[i].knobs.items():
                values.setdefault(knob, {})[canonical(value)] = value
        self._known = {knob: frozenset(known) for knob, known in values.items()}
        order = profile.knobs(algorithm)
        self.values: dict[str, list[KnobValue]] = {
            knob: [v for v in order[knob] if canonical(v) in known] for knob, known in values.items()
        }
        self._neighbours: dict[tuple[Any, ...], dict[str, list[float]]] = {}

    @property
    def knobs(self) -> tuple[str, ...]:
        """Knob names in the order the algorithm lists them."""
        return tuple(self.values)

    def numbers(self, knob: str) -> list[float]:
        """Measured numeric values of a knob, ascending."""
        return [float(v) for v in self.values[knob] if canonical(v)[0] == 0]

    def coordinate(self, knob: str, value: float) -> float:
        """Position of a value on a knob's axis: its logarithm when the axis is positive and wide."""
        numbers = self.numbers(knob)
        if numbers[0] > 0 and numbers[-1] > LOG_SPAN * numbers[0]:
            return math.log(value)
        return value

    def source(self, knobs: Mapping[str, KnobValue]) -> Source | None:
        """Where a setting comes from; None when the combination was not measured.

        Raises:
            BadInput: a value outside the measured range, or a category that was not measured.
        """
        row = self.by_key.get(setting_key(self.algorithm, knobs))
        if row is not None:
            return Source(self.profile.settings[row], (row,), (1.0,))
        between = [k for k, v in knobs.items() if not self._is_measured(k, v)]
        for knob in between:
            self._check_inside(knob, knobs[knob])
        if not between:
            return None
        return self._blend(dict(knobs), between)

    def _is_measured(self, knob: str, value: KnobValue) -> bool:
        return canonical(value) in self._known[knob]

    def _check_inside(self, knob: str, value: KnobValue) -> None:
        numbers = self.numbers(knob)
        numeric = canonical(value)[0] == 0
        if numeric and numbers and numbers[0] < float(value) < numbers[-1]:
            return
        if numeric and len(numbers) > 1:
            has = f"measured from {numbers[0]:g} to {numbers[-1]:g}"
        else:
            has = "measured: " + ", ".join(repr(v) for v in self.values[knob])
        raise BadInput(
            f"{self.algorithm}.{knob}: {value!r} was not measured; {has}; {self.command(knob, value)}"
        )

    def command(self, knob: str, value: KnobValue) -> str:
        """The command that would measure a value."""
        return f"measure it: dse profile run --algorithm {self.algorithm} --set {knob}={_plain(value)}"

    def missing(self, knobs: Mapping[str, KnobValue]) -> str:
        """One line that names a combination not measured, its nearest measured ones, and what to do."""

        def differences(row: int) -> int:
            have = self.profile.settings[row].knobs
            return sum(canonical(have[k]) != canonical(v) for k, v in knobs.items())

        close = sorted(self.by_key.values(), key=differences)[:3]
        settings = " ".join(f"--set {k}={_plain(v)}" for k, v in knobs.items())
        return (
            f"{_text(knobs)} was not measured together; nearest measured: "
            + "; ".join(_text(self.profile.settings[i].knobs) for i in close)
            + '; drop such combinations with unmeasured = "skip", or measure it: dse profile run '
            f"--algorithm {self.algorithm} {settings}"
        )

    def _blend(self, knobs: dict[str, KnobValue], between: Sequence[str]) -> Source | None:
        """Multilinear weights over the measured cell around `knobs`; None when a corner is missing."""
        axes: list[list[tuple[float, float]]] = []
        around = self._values_around(knobs, between)
        for knob in between:
            value, numbers = float(knobs[knob]), around[knob]
            at = bisect_left(numbers, value)
            if at < len(numbers) and numbers[at] == value:
                axes.append([(value, 1.0)])
                continue
            if at in (0, len(numbers)):
                return None
            low, high = numbers[at - 1], numbers[at]
            a, x, b = (self.coordinate(knob, v) for v in (low, value, high))
            share = (x - a) / (b - a)
            axes.append([(low, 1.0 - share), (high, share)])
        rows, weights = [], []
        for corner in itertools.product(*axes):
            here = knobs | {knob: number for knob, (number, _) in zip(between, corner, strict=True)}
            row = self.by_key.get(setting_key(self.algorithm, here))
            if row is None:
                return None
            rows.append(row)
            weights.append(math.prod(weight for _, weight in corner))
        forms = {self.profile.settings[row].form for row in rows}
        if len(forms) > 1:
            names = ", ".join(between)
            raise BadInput(
                f"{self.algorithm}: {_text(knobs)} lies between settings that store or order things "
                f"differently, so {names} cannot be interpolated there; use measured values: "
                + "; ".join(f"{k} = {self.values[k]}" for k in between)
            )
        return Source(Setting(self.algorithm, knobs, forms.pop()), tuple(rows), tuple(weights))

    def _values_around(
        self, knobs: Mapping[str, KnobValue], between: Sequence[str]
    ) -> dict[str, list[float]]:
        """Knob -> numbers measured together with the other (measured) knob values of this setting."""
        fixed = {k: canonical(v) for k, v in knobs.items() if k not in between}
        key = (tuple(between), tuple(sorted(fixed.items())))
        if key not in self._neighbours:
            found: dict[str, set[float]] = {knob: set() for knob in between}
            for row in self.by_key.values():
                have = self.profile.settings[row].knobs
                if all(canonical(have[k]) == v for k, v in fixed.items()):
                    for knob in between:
                        if canonical(have[knob])[0] == 0:
                            found[knob].add(float(have[knob]))
            self._neighbours[key] = {knob: sorted(numbers) for knob, numbers in found.items()}
        return self._neighbours[key]


def _plain(value: KnobValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(knobs: Mapping[str, KnobValue]) -> str:
    return ", ".join(f"{k} = {v!r}" for k, v in knobs.items()) or "the only setting"


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

    def gather(table: FloatArray) -> FloatArray:
        out: FloatArray = table[first, at]
        for i, source in enumerate(sources):
            if len(source.rows) > 1:
                corners = table[list(source.rows), at]
                out[i] = np.tensordot(np.array(source.weights, dtype=table.dtype), corners, axes=1)
                # Rounding must not carry a blend outside its corners (a fraction above 1, say).
                np.clip(out[i], corners.min(axis=0), corners.max(axis=0), out=out[i])
        return out

    return Selection(
        settings=tuple(s.setting for s in sources),
        counters=gather(profile.counters),
        histograms=gather(profile.histograms),
        accuracy=gather(profile.accuracy),
        window_nll=gather(profile.window_nll),
        status=np.array([s.status for s in sources], dtype="<U12"),
        mean_context=float(profile.mean_context[at]),
        skipped=resolution.skipped,
    )


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


def leave_one_out(profile: Profile, algorithm: str, knob: str, context: int | None = None) -> float:
    """Median absolute error of `nll_increase` (nats) when a measured value of `knob` is interpolated.

    Each value that has measured neighbours on both sides, all other knobs equal, is predicted from the two.
    `context` None looks at all contexts. NaN when no value has two neighbours.
    """
    errors = []
    for c in profile.contexts if context is None else (context,):
        grid = Grid(profile, algorithm, c)
        if knob not in grid.values:
            raise BadInput(f"{algorithm}.{knob}: unknown knob; {nearest(knob, grid.knobs)}")
        nll = profile.accuracy[:, profile.context_index(c), ACCURACY_COLUMN["nll_increase"]]
        lines: dict[tuple[Any, ...], list[tuple[float, int]]] = {}
        for row in grid.by_key.values():
            setting = profile.settings[row]
            value = setting.knobs[knob]
            if canonical(value)[0] == 0:
                others = {k: v for k, v in setting.knobs.items() if k != knob}
                key = (setting_key(algorithm, others), setting.form)
                lines.setdefault(key, []).append((grid.coordinate(knob, float(value)), row))
        for line in lines.values():
            line.sort()
            for (a, i), (x, j), (b, k) in zip(line, line[1:], line[2:], strict=False):
                share = (x - a) / (b - a)
                errors.append(abs((1 - share) * nll[i] + share * nll[k] - nll[j]))
    return float(np.median(errors)) if errors else math.nan
