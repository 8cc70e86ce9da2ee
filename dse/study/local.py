"""Pareto local search: every proposal is a small change of a point on the front so far.

A space of accelerators is settings times designs. What one setting runs fast on, most others run fast on too, and
a design a step away is seldom much worse. So a trial either takes one step from the front (one parameter of the
design to the next value, or one knob), the point with the most volume of its own first, or tries another setting,
the least tried one, on the front's design. Once in a while it mixes two designs of the front instead.

It starts where a user would: every algorithm at its default setting on the space's base design, then a few points
spread over the space. Nothing else is known to it: no measured loss, no bound, no front of a sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.search.front import hypervolume, nondominated
from dse.space.definition import Space
from dse.study.axes import ALGORITHM, Axis, Layout, Point, Settings

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FloatArray = NDArray[np.float64]
Params = dict[str, Any]

SPREAD: Final = 5
"""Points spread over the space after the starting ones."""

STEP: Final = 0.4
TRANSFER: Final = 0.55
"""Shares of trials that take a step from the front, and that try another setting on its design; the rest mixes."""

TRIES: Final = 30
MARGIN: Final = 0.1
"""How far beyond its worst point, in spans of the front, volumes are counted from."""

FLOOR: Final = 0.05
"""Weight of a front point without volume of its own against the one with the most."""


def starts(space: Space, layout: Layout) -> list[Params]:
    """Every algorithm at its defaults on the base design, each moved to the nearest point of the space."""
    found = []
    for name in layout.names:
        s = layout.settings[name]
        known = space.profile.defaults.get(name, {})
        wanted = {k: known[k] for k, axis in s.axes.items() if k in known and _has(axis, known[k])}
        found.append(_params(layout, name, s.nearest(wanted), dict(space.baseline.hardware)))
    return found


def _has(axis: Axis, value: Any) -> bool:
    """Whether a value has a place on an axis."""
    if axis.numeric:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return axis.number(value) is not None


def _params(layout: Layout, name: str, knobs: Mapping[str, Any], design: Mapping[str, Any]) -> Params:
    """A trial's parameters; values of the design that an axis lacks become its nearest, or its first."""
    found: Params = {ALGORITHM: name} if len(layout.names) > 1 else {}
    found |= {axis.name: knobs[knob] for knob, axis in layout.settings[name].axes.items()}
    for parameter, axis in layout.hardware[name].items():
        value = design.get(parameter, axis.values[0])
        found[axis.name] = axis.settle(value) if _has(axis, value) else axis.values[0]
    return found


@dataclass(frozen=True, eq=False)
class Tried:
    """A completed trial.

    Attributes:
        setting: number of its setting (the nearest one, between settings).
        costs: objectives, maximised ones negated.
        broken: how much it breaks constraints, 0 where it keeps them.
        room: how far inside its constraints it is, more is roomier.
    """

    point: Point
    params: Params
    setting: int
    costs: tuple[float, ...]
    broken: float
    room: float


class LocalSearch:
    """Proposes points of a study from its trials so far."""

    def __init__(self, layout: Layout, start: Sequence[Params]) -> None:
        self.layout, self.start = layout, start
        self._tried: dict[Point, Tried] = {}
        self._taken: set[Point] = set()
        self._counts: dict[str, Counter[int]] = {name: Counter() for name in layout.names}
        self._numbers = {name: _Numbers(layout.settings[name]) for name in layout.names}
        self._read: set[int] = set()
        self._spent: set[Point] = set()

    def learn(self, trials: Sequence[FrozenTrial], signs: Sequence[float]) -> None:
        """Take in trials; `signs`: -1 for objectives that are maximised."""
        for trial in trials:
            if trial.number in self._read or trial.state.name not in ("RUNNING", "COMPLETE"):
                continue
            name = trial.params.get(ALGORITHM, self.layout.names[0])
            if any(owned not in trial.params for owned in self.layout.owned(name)):
                continue
            point = self.layout.point(trial.params)
            setting = self._numbers[name].of(point.knobs)
            if point not in self._taken:
                self._taken.add(point)
                self._counts[name][setting] += 1
            if trial.state.name != "COMPLETE":
                continue
            self._read.add(trial.number)
            if point in self._tried:
                continue
            limits = list(trial.constraints.values())
            costs = tuple(v * s for v, s in zip(trial.values, signs, strict=True))
            self._tried[point] = Tried(
                point,
                {k: v for k, v in trial.params.items() if k in {ALGORITHM, *self.layout.owned(name)}},
                setting,
                costs,
                sum(max(0.0, v) for v in limits),
                -sum(limits),
            )

    def propose(self, number: int, listed: Callable[[int], Params], rng: np.random.Generator) -> Params:
        """Parameters for the trial with a number.

        Args:
            listed: number -> point, in an order that spreads over the space: for the beginning, and where nothing
                else is left.
        """
        elite = self._elite()
        if number < len(self.start) + SPREAD or not elite:
            first = self.start[number] if number < len(self.start) else listed(number)
            if self.layout.point(first) not in self._taken:
                return first
        if not elite:
            return self._untried(number, listed)
        front, volumes = self._front(elite)
        which = rng.random()
        found = self._step(front, volumes, rng) if which < STEP and front else None
        pool = front or elite
        weights = volumes + FLOOR if front else np.ones(len(pool))
        if found is None and which < STEP + TRANSFER:
            found = self._transfer(pool, weights / weights.sum(), rng)
        if found is None:
            found = self._mix(elite, rng)
        return self._untried(number, listed) if found is None else found

    def _untried(self, number: int, listed: Callable[[int], Params]) -> Params:
        """A point spread over the space that no trial has, if a few tries find one."""
        found = listed(number)
        for further in range(1, TRIES):
            if self.layout.point(found) not in self._taken:
                break
            found = listed(number + further)
        return found

    def _elite(self) -> list[Tried]:
        """The front of each algorithm; of one without a feasible point, what breaks the constraints least."""
        found: list[Tried] = []
        for name in self.layout.names:
            mine = [t for t in self._tried.values() if t.point.algorithm == name]
            good = [t for t in mine if t.broken == 0.0]
            if good:
                keep = nondominated(np.array([t.costs for t in good]))
                found += [t for t, k in zip(good, keep.tolist(), strict=True) if k]
            elif mine:
                found.append(min(mine, key=lambda t: t.broken))
        return found

    def _front(self, elite: Sequence[Tried]) -> tuple[list[Tried], FloatArray]:
        """The front of all algorithms, and the volume each point has to itself, 1 for the largest.

        Points with equal objectives share one volume; the roomiest comes first, because it can go furthest.
        """
        good = sorted((t for t in elite if t.broken == 0.0), key=lambda t: -t.room)
        if not good:
            return [], np.empty(0)
        costs = np.array([t.costs for t in good])
        worst, span = costs.max(axis=0), np.ptp(costs, axis=0)
        reference = (worst + MARGIN * np.where(span > 0, span, np.abs(worst) + 1e-12)).tolist()
        keep = nondominated(costs)
        unique, of = np.unique(costs[keep], axis=0, return_inverse=True)
        alone = np.ones(len(unique))
        if costs.shape[1] > 1:
            whole = hypervolume(unique, reference)
            alone = np.array(
                [whole - hypervolume(np.delete(unique, i, axis=0), reference) for i in range(len(unique))]
            )
        top = float(alone.max())
        volumes = np.maximum(alone / top if top > 0 else np.ones(len(unique)), 0.0)
        return [t for t, k in zip(good, keep.tolist(), strict=True) if k], volumes[of.reshape(-1)]

    def _step(self, front: Sequence[Tried], volumes: FloatArray, rng: np.random.Generator) -> Params | None:
        """One step from the front point with the most volume that has one left."""
        for i in np.argsort(-volumes, kind="stable").tolist():
            tried = front[i]
            if tried.point in self._spent:
                continue
            left = [p for p in self._steps(tried, rng) if self.layout.point(p) not in self._taken]
            if left:
                return left[int(rng.integers(len(left)))]
            self._spent.add(tried.point)
        return None

    def _steps(self, tried: Tried, rng: np.random.Generator) -> list[Params]:
        """Points one step from a point: a parameter moved to the next value (any other, of categories), or a knob."""
        name = tried.point.algorithm
        found = []
        for axis in self.layout.hardware[name].values():
            found += [tried.params | {axis.name: v} for v in _beside(axis, tried.params[axis.name], rng)]
        s = self.layout.settings[name]
        for number in self._numbers[name].beside(tried.setting):
            knobs = {axis.name: s.knobs[number][knob] for knob, axis in s.axes.items()}
            for axis in s.axes.values():  # a knob that may lie between stops somewhere on the way
                if axis.free:
                    knobs[axis.name] = _between(axis, tried.params[axis.name], knobs[axis.name], rng)
            found.append(tried.params | knobs)
        return found

    def _transfer(self, front: Sequence[Tried], share: FloatArray, rng: np.random.Generator) -> Params | None:
        """The least tried setting of all algorithms, on a design of the front."""
        for _ in range(TRIES):
            design = front[int(rng.choice(len(front), p=share))].point.hardware
            choices = [
                (self._counts[name][number] + rng.random(), name, number)
                for name in self.layout.names
                for number in range(len(self.layout.settings[name].knobs))
            ]
            _, name, number = min(choices)
            found = _params(self.layout, name, self.layout.settings[name].knobs[number], design)
            if self.layout.point(found) not in self._taken:
                return found
        return None

    def _mix(self, elite: Sequence[Tried], rng: np.random.Generator) -> Params | None:
        """Two designs mixed, and a step or two from there."""
        for _ in range(TRIES):
            one, other = (elite[int(i)] for i in rng.integers(len(elite), size=2))
            name = one.point.algorithm
            found = dict(one.params)
            axes = self.layout.hardware[name]
            for parameter, axis in axes.items():
                if rng.random() < 0.5 and parameter in other.point.hardware:
                    found[axis.name] = axis.settle(other.point.hardware[parameter])
            for _ in range(int(rng.integers(1, 3))):
                moves = [
                    (axis.name, v) for axis in axes.values() for v in _beside(axis, found[axis.name], rng)
                ]
                if moves:
                    moved, value = moves[int(rng.integers(len(moves)))]
                    found[moved] = value
            if self.layout.point(found) not in self._taken:
                return found
        return None


class _Numbers:
    """The settings of an algorithm by number, and which lie beside which."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._beside: dict[int, list[int]] = {}

    @cached_property
    def _number(self) -> dict[int, int]:
        return {id(knobs): n for n, knobs in enumerate(self.settings.knobs)}

    def of(self, knobs: Mapping[str, Any]) -> int:
        """Number of the setting closest to some knobs."""
        return self._number[id(self.settings.nearest(knobs))]

    def beside(self, number: int) -> list[int]:
        """For every knob and every way it can move: the settings that otherwise differ least."""
        if number not in self._beside:
            codes = self.settings.codes
            differs = codes != codes[number]
            far = differs.sum(axis=1)
            found: set[int] = set()
            for column, axis in enumerate(self.settings.axes.values()):
                away = codes[:, column] - codes[number, column]
                ways = [away > 0, away < 0] if axis.numeric else [away == d for d in np.unique(away) if d]
                for way in ways:
                    rows = np.flatnonzero(way)
                    if len(rows):
                        cost = far[rows] * (codes.max() + 2) + (np.abs(away[rows]) if axis.numeric else 0)
                        found |= set(rows[cost == cost.min()].tolist())
            self._beside[number] = sorted(found)
        return self._beside[number]


def _beside(axis: Axis, value: Any, rng: np.random.Generator) -> list[Any]:
    """The next values on an axis; every other one of categories."""
    at = axis.nearest(value)
    if not axis.numeric:
        return [v for n, v in enumerate(axis.values) if n != at]
    near = [axis.values[n] for n in (at - 1, at + 1) if 0 <= n < len(axis.values)]
    return [_between(axis, value, v, rng) for v in near] if axis.free else near


def _between(axis: Axis, value: Any, other: Any, rng: np.random.Generator) -> Any:
    """A value of a free axis on the way from one to another, the other included."""
    moved = float(value) + (float(other) - float(value)) * (1.0 - rng.random())
    return round(moved) if axis.whole else moved
