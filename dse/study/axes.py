"""A space as Optuna sees it: one parameter per axis, and proposals moved to points that exist.

A parameter is named as its column of ``front.csv`` (``token-picker.threshold``, ``hardware.lanes``). Text, truth
values and axes of two values are categories; numeric axes of three or more values are whole or real numbers, on a
logarithmic scale where their values are spaced that way. A sampler may propose anything between the ends; the
proposal is moved to the nearest value of the axis before the trial has it, so that a trial's parameters say what
was evaluated and a study searches exactly the points of a sweep.

With `continuous`, numeric axes keep what lies between their values: hardware parameters that need not be powers
of two, and knobs whose neighbouring settings store things alike, so that the profile can be interpolated (or
measured) there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dse.errors import BadInput
from dse.hardware.parameters import PARAMETERS
from dse.profiles.lookup import Grid
from dse.profiles.profile import canonical
from dse.profiles.schema import KnobValue
from dse.space.definition import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ALGORITHM: Final = "algorithm"
"""The parameter that chooses the algorithm; absent where the space has only one."""

ORDERED_FROM: Final = 3
"""Fewest values that make a numeric axis a number instead of categories."""

Value = KnobValue
IntArray = NDArray[np.intp]
FloatArray = NDArray[np.float64]


class Suggests(Protocol):
    """What is needed of an Optuna trial here."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Axis:
    """One parameter of a study.

    Attributes:
        values: distinct values, numeric ones ascending.
        free: whether values between them may be had.
    """

    name: str
    values: tuple[Value, ...]
    free: bool = False

    @cached_property
    def numeric(self) -> bool:
        """Whether the axis is ordered: numbers, and enough of them (or free)."""
        numbers = all(canonical(v)[0] == 0 and not isinstance(v, bool) for v in self.values)
        return numbers and (self.free or len(self.values) >= ORDERED_FROM)

    @cached_property
    def whole(self) -> bool:
        return all(isinstance(v, int) for v in self.values)

    @cached_property
    def logarithmic(self) -> bool:
        """Whether the values are spaced more evenly in their logarithm."""
        if not self.numeric or float(self.values[0]) <= 0:
            return False
        numbers = np.array([float(v) for v in self.values])
        if len(numbers) < ORDERED_FROM:
            return bool(numbers[-1] >= 10 * numbers[0])
        plain, logs = np.diff(numbers), np.diff(np.log(numbers))
        return bool(logs.std() / logs.mean() < plain.std() / plain.mean() - 1e-9)

    @cached_property
    def positions(self) -> FloatArray:
        """[values] in 0..1 along the axis; the number of the value for categories."""
        if not self.numeric:
            return np.arange(len(self.values), dtype=np.float64)
        numbers = np.array([float(v) for v in self.values])
        numbers = np.log(numbers) if self.logarithmic else numbers
        placed: FloatArray = (numbers - numbers[0]) / (numbers[-1] - numbers[0])
        return placed

    def position(self, value: Value) -> float:
        """Where a value lies, as `positions`.

        Raises:
            KeyError: not a value of a categorical axis.
        """
        if not self.numeric:
            return float(self._number[canonical(value)])
        number = min(max(float(value), float(self.values[0])), float(self.values[-1]))
        low, high = float(self.values[0]), float(self.values[-1])
        if self.logarithmic:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return (number - low) / (high - low)

    @cached_property
    def _number(self) -> dict[tuple[int, float | str], int]:
        return {canonical(v): i for i, v in enumerate(self.values)}

    def nearest(self, value: Value) -> int:
        """Number of the value closest to `value`."""
        return int(np.abs(self.positions - self.position(value)).argmin())

    def number(self, value: Value) -> int | None:
        """Number of exactly this value; None where it is not on the axis."""
        return self._number.get(canonical(value))

    def settle(self, value: Value) -> Value:
        """What a proposal becomes: itself on a free axis, else the nearest value of the axis."""
        if self.free:
            return value
        return self.values[self.nearest(value)]

    def ask(self, trial: Suggests) -> Value:
        """The trial's value of this axis."""
        d: Any = self.distribution()
        if not self.numeric:
            return trial.suggest_categorical(self.name, d.choices)  # type: ignore[no-any-return]
        if self.whole:
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        return trial.suggest_float(self.name, d.low, d.high, log=d.log)

    def distribution(self) -> BaseDistribution:
        """The axis as Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if not self.numeric:
            return CategoricalDistribution(self.values)
        low, high = self.values[0], self.values[-1]
        if not self.whole:
            return FloatDistribution(float(low), float(high), log=self.logarithmic)
        if self.logarithmic:
            return IntDistribution(int(low), int(high), log=True)
        step = 1 if self.free else math.gcd(*(int(v) - int(low) for v in self.values[1:]))
        return IntDistribution(int(low), int(high), step=step)


@dataclass(frozen=True, eq=False)
class Point:
    """One knob setting on one design.

    Attributes:
        knobs: every knob of the algorithm. hardware: the swept parameters.
    """

    algorithm: str
    knobs: Mapping[str, Value]
    hardware: Mapping[str, Value]

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        parts = (self.knobs, self.hardware)
        return (self.algorithm, *(tuple((k, canonical(v)) for k, v in sorted(p.items())) for p in parts))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self._key == other._key

    def columns(self) -> dict[str, Any]:
        """As ``dse.search.evaluate`` takes it, named as in ``front.csv``."""
        return {
            ALGORITHM: self.algorithm,
            **{f"{self.algorithm}.{k}": v for k, v in self.knobs.items()},
            **{f"hardware.{k}": v for k, v in self.hardware.items()},
        }


class Settings:
    """The knob settings of one algorithm, and the nearest of them to what was proposed."""

    def __init__(self, space: Space, algorithm: str, continuous: bool) -> None:
        self.algorithm = algorithm
        sources = space.resolutions[algorithm].sources
        self.knobs: list[Mapping[str, Value]] = [s.setting.knobs for s in sources]
        self.grid = Grid(space.profile, algorithm, space.workload.context)
        self.axes: dict[str, Axis] = {}
        for knob in space.algorithms[algorithm].knobs:
            values = _distinct([k[knob] for k in self.knobs])
            if len(values) > 1:
                free = continuous and self._between(knob, [s.setting.form for s in sources])
                self.axes[knob] = Axis(f"{algorithm}.{knob}", values, free)
        self.codes = np.array(
            [[axis.number(k[knob]) for knob, axis in self.axes.items()] for k in self.knobs], dtype=np.intp
        ).reshape(len(self.knobs), len(self.axes))

    def _between(self, knob: str, forms: Sequence[Any]) -> bool:
        """Whether two settings that differ in this number alone store things alike."""
        values = [k[knob] for k in self.knobs]
        if any(canonical(v)[0] != 0 or isinstance(v, bool) for v in values):
            return False
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for setting, form in zip(self.knobs, forms, strict=True):
            others = tuple((k, canonical(v)) for k, v in setting.items() if k != knob)
            groups.setdefault(others, []).append(form)
        return any(len(g) > 1 and all(f == g[0] for f in g) for g in groups.values())

    def nearest(self, wanted: Mapping[str, Value]) -> Mapping[str, Value]:
        """The setting closest to a proposal: fewest other categories, then least way along the numbers."""
        far = np.zeros(len(self.knobs))
        for column, (knob, axis) in enumerate(self.axes.items()):
            if knob not in wanted:
                continue
            if axis.numeric:
                far += np.abs(axis.positions[self.codes[:, column]] - axis.position(wanted[knob]))
            else:
                far += 2.0 * (self.codes[:, column] != axis.number(wanted[knob]))
        return self.knobs[int(far.argmin())]

    def settle(self, wanted: Mapping[str, Value]) -> dict[str, Value]:
        """Values of all axes: the nearest setting's, but free axes as proposed."""
        settled = self.nearest(wanted)
        return {k: wanted[k] if axis.free else settled[k] for k, axis in self.axes.items()}

    def locate(self, wanted: Mapping[str, Value], anywhere: bool = False) -> Mapping[str, Value]:
        """The whole setting that a trial's values stand for.

        Args:
            anywhere: take what was not measured and cannot be interpolated too (it will be measured).
        """
        near = self.nearest(wanted)
        knobs = {k: wanted.get(k, v) for k, v in near.items()}
        if all(canonical(knobs[k]) == canonical(v) for k, v in near.items()):
            return near
        if not any(axis.free for axis in self.axes.values()):
            return near
        if anywhere:
            return knobs
        try:
            source = self.grid.source(knobs)
        except BadInput:
            return near
        return near if source is None else knobs


class Layout:
    """All parameters of a study of a space.

    Args:
        continuous: whether values between those listed may be had.
    """

    def __init__(self, space: Space, continuous: bool = False) -> None:
        self.continuous = continuous
        self.settings = {name: Settings(space, name, continuous) for name in space.algorithms}
        self.names = tuple(self.settings)
        self.hardware: dict[str, dict[str, Axis]] = {}
        shared = space.hardware
        for name in self.names:
            own: dict[str, Axis] = {}
            for parameter, values in space.axes(name).items():
                if len(values) > 1:
                    same = tuple(values) == tuple(shared[parameter])
                    column = f"hardware.{parameter}" if same else f"{name}:hardware.{parameter}"
                    between = continuous and not PARAMETERS[parameter].power_of_two
                    free = between and all(canonical(v)[0] == 0 for v in values)
                    own[parameter] = Axis(column, _distinct(values), free)
            self.hardware[name] = own
        self._plain = {axis.name: axis for own in self.hardware.values() for axis in own.values()}

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """Every parameter but the algorithm, by its name."""
        return {a.name: a for s in self.settings.values() for a in s.axes.values()} | self._plain

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter with its distribution."""
        from optuna.distributions import CategoricalDistribution

        chosen = {ALGORITHM: CategoricalDistribution(self.names)} if len(self.names) > 1 else {}
        return chosen | {name: axis.distribution() for name, axis in self.axes.items()}

    def owned(self, algorithm: str) -> tuple[str, ...]:
        """Parameters that a point of an algorithm has, besides the choice of it."""
        axes = (*self.settings[algorithm].axes.values(), *self.hardware[algorithm].values())
        return tuple(axis.name for axis in axes)

    def settle(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A proposal, moved to what exists: measured settings, listed values."""
        settled = dict(params)
        for s in self.settings.values():
            wanted = {knob: params[axis.name] for knob, axis in s.axes.items() if axis.name in params}
            if len(wanted) == len(s.axes):
                settled |= {s.axes[knob].name: value for knob, value in s.settle(wanted).items()}
        for name, axis in self._plain.items():
            if name in params:
                settled[name] = axis.settle(params[name])
        return settled

    def suggest(self, trial: Suggests, flat: bool) -> dict[str, Any]:
        """Ask a trial for its parameters.

        Args:
            flat: ask for the knobs of every algorithm, also those not chosen, for samplers that know no
                conditional parameters.
        """
        name = self.names[0]
        if len(self.names) > 1:
            name = trial.suggest_categorical(ALGORITHM, self.names)
        asked: dict[str, Any] = {ALGORITHM: name}
        for owner in self.names if flat else (name,):
            for axes in (self.settings[owner].axes, self.hardware[owner]):
                for axis in axes.values():
                    if axis.name not in asked:
                        asked[axis.name] = axis.ask(trial)
        return asked

    def point(self, params: Mapping[str, Any], anywhere: bool = False) -> Point:
        """The point that a trial's parameters stand for."""
        name = params.get(ALGORITHM, self.names[0])
        s, hardware = self.settings[name], self.hardware[name]
        wanted = {knob: params[axis.name] for knob, axis in s.axes.items() if axis.name in params}
        return Point(
            name,
            dict(s.locate(wanted, anywhere)),
            {p: axis.settle(params[axis.name]) for p, axis in hardware.items()},
        )

    def params(self, point: Mapping[str, Any]) -> dict[str, Any] | None:
        """The parameters of a row of ``front.csv``; None where the row is no point of this space."""
        name = point.get(ALGORITHM)
        if name not in self.settings:
            return None
        s = self.settings[name]
        found: dict[str, Any] = {ALGORITHM: name} if len(self.names) > 1 else {}
        pairs = [(f"{name}.{knob}", axis) for knob, axis in s.axes.items()]
        pairs += [(f"hardware.{p}", axis) for p, axis in self.hardware[name].items()]
        for column, axis in pairs:
            number = axis.number(point[column]) if column in point else None
            if number is None:
                return None
            found[axis.name] = axis.values[number]
        for knob, value in s.knobs[0].items():
            if knob not in s.axes and canonical(point.get(f"{name}.{knob}", value)) != canonical(value):
                return None
        wanted = {knob: found[axis.name] for knob, axis in s.axes.items()}
        near = s.nearest(wanted)
        return found if all(canonical(near[k]) == canonical(v) for k, v in wanted.items()) else None

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Points of each algorithm on the axes' listed values."""
        return {
            name: len(s.knobs) * math.prod(len(a.values) for a in self.hardware[name].values())
            for name, s in self.settings.items()
        }

    def listed(self, number: int) -> dict[str, Any]:
        """Parameters of the point with a number below the sum of `sizes`."""
        sizes = iter(self.sizes.items())
        name, size = next(sizes)
        while number >= size:
            number -= size
            name, size = next(sizes)
        s, hardware = self.settings[name], self.hardware[name]
        found: dict[str, Any] = {ALGORITHM: name} if len(self.names) > 1 else {}
        for axis in hardware.values():
            number, at = divmod(number, len(axis.values))
            found[axis.name] = axis.values[at]
        return found | {axis.name: s.knobs[number][knob] for knob, axis in s.axes.items()}


def _distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    """Each value once; numbers ascending, others in the order they come."""
    seen = {canonical(v): v for v in values}
    found = list(seen.values())
    if all(canonical(v)[0] == 0 for v in found):
        found.sort(key=float)
    if any(isinstance(v, float) for v in found) and not any(isinstance(v, bool | str) for v in found):
        found = [float(v) for v in found]
    return tuple(found)
