"""The measured settings of one algorithm at one context, and the weights between them.

Between measured values two things are interpolated, each where it is nearly straight. Counts of what was fetched
and done are linear in the knob (in its logarithm where the knob spans more than `LOG_SPAN`). A loss is close to a
power of the knob, so it is linear in logarithms of both: the knob's, and the loss's as `_loss_scale` draws it.
`dse.profiles.error` says how far off that is.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dse.errors import BadInput, nearest
from dse.profiles.naming import PARTS, TEXTS, USUAL_PHASE, ProfileName
from dse.profiles.profile import ACCURACY_COLUMN, Profile, canonical, setting_key
from dse.profiles.schema import KnobValue, Setting

LOG_SPAN = 20.0
"""A positive knob measured over more than this factor has its counts interpolated in its logarithm."""

LOSS_FLOOR = 1e-3
"""Losses below this (nats) are interpolated linearly: no number of windows here tells them from zero."""

MEASURED, INTERPOLATED = "measured", "interpolated"


@dataclass(frozen=True)
class Source:
    """Where one requested setting comes from.

    Attributes:
        rows: measured rows of the profile.
        weights: of their counts and histograms; they sum to 1.
        loss_weights: likewise of their accuracy; empty: as `weights`.
    """

    setting: Setting
    rows: tuple[int, ...]
    weights: tuple[float, ...]
    loss_weights: tuple[float, ...] = ()

    @property
    def status(self) -> str:
        return MEASURED if len(self.rows) == 1 else INTERPOLATED


def measured_rows(profile: Profile, algorithm: str, context: int) -> list[int]:
    """Rows of an algorithm that were measured at a context (finite loss and counters)."""
    measured = profile.measured(context)
    return [i for i in profile.rows(algorithm) if measured[i]]


def measuring(profile: Profile, algorithm: str, context: int, knobs: Mapping[str, KnobValue]) -> str:
    """The command that measures a setting so that it can join the profile: same model, text, part and phase, as many windows."""
    words = [f"measure it: dse profile run --algorithm {algorithm}"]
    words += [f"--set {knob}={_plain(value)}" for knob, value in knobs.items()]
    words += [f"--context {context}", f"--windows {profile.window_counts[profile.context_index(context)]}"]
    name = ProfileName.parse(profile.name)
    for option, value, usual in (
        ("text", name.text, TEXTS[0]),
        ("part", name.part, PARTS[0]),
        ("phase", profile.phase, USUAL_PHASE),
    ):
        if value != usual:
            words.append(f"--{option} {value}")
    return " ".join([*words, f"--model {profile.provenance.model} -o FOLDER"])


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
            elsewhere = [c for c in profile.contexts if measured_rows(profile, algorithm, c)]
            raise BadInput(
                f"algorithm {algorithm!r}: not measured at context {context} in profile {profile.name!r}; "
                f"measured at {', '.join(map(str, elsewhere))}; {measuring(profile, algorithm, context, {})}"
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
        self._numbers = {k: [float(v) for v in vs if canonical(v)[0] == 0] for k, vs in self.values.items()}
        losses = profile.accuracy[:, profile.context_index(context), ACCURACY_COLUMN["nll_increase"]]
        self._losses = {row: float(losses[row]) for row in rows}
        self._neighbours: dict[tuple[Any, ...], dict[str, list[float]]] = {}

    @property
    def knobs(self) -> tuple[str, ...]:
        """Knob names in the order the algorithm lists them."""
        return tuple(self.values)

    def numbers(self, knob: str) -> list[float]:
        """Measured numeric values of a knob, ascending."""
        return self._numbers[knob]

    def coordinate(self, knob: str, value: float) -> float:
        """Position of a value on a knob's axis: its logarithm when the axis is positive and wide."""
        numbers = self.numbers(knob)
        if numbers[0] > 0 and numbers[-1] > LOG_SPAN * numbers[0]:
            return math.log(value)
        return value

    def loss_coordinate(self, knob: str, value: float) -> float:
        """Position of a value on the axis that losses are interpolated along: its logarithm where it has one."""
        return math.log(value) if self.numbers(knob)[0] > 0 else value

    def loss(self, row: int) -> float:
        """Measured `nll_increase` of a row at this context."""
        return self._losses[row]

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
            f"{self.algorithm}.{knob}: {value!r} was not measured{self._here}; {has}; "
            f"{self.command({knob: value})}"
        )

    @property
    def _here(self) -> str:
        """` at context 512` where the profile has several: elsewhere the value may have been measured."""
        return f" at context {self.context}" if len(self.profile.contexts) > 1 else ""

    def command(self, knobs: Mapping[str, KnobValue]) -> str:
        """The command that would measure knob values on the profile's own material."""
        return measuring(self.profile, self.algorithm, self.context, knobs)

    def missing(self, knobs: Mapping[str, KnobValue]) -> str:
        """One line that names a combination not measured, its nearest measured ones, and what to do."""

        def differences(row: int) -> int:
            have = self.profile.settings[row].knobs
            return sum(canonical(have[k]) != canonical(v) for k, v in knobs.items())

        close = sorted(self.by_key.values(), key=differences)[:3]
        return (
            f"{_text(knobs)} was not measured together{self._here}; nearest measured: "
            + "; ".join(_text(self.profile.settings[i].knobs) for i in close)
            + f'; drop such combinations with unmeasured = "skip", or {self.command(knobs)}'
        )

    def _blend(self, knobs: dict[str, KnobValue], between: Sequence[str]) -> Source | None:
        """Weights over the corners of the measured cell around `knobs`; None when a corner is missing."""
        ends: list[tuple[float, ...]] = []
        around = self._values_around(knobs, between)
        for knob in between:
            value, numbers = float(knobs[knob]), around[knob]
            at = bisect_left(numbers, value)
            if at < len(numbers) and numbers[at] == value:
                ends.append((value,))
                continue
            if at in (0, len(numbers)):
                return None
            if numbers[at - 1] == 0:
                raise BadInput(
                    f"{self.algorithm}.{knob}: {value:g} lies between 0 and {numbers[at]:g}{self._here}; 0 usually "
                    f"switches something off, so nothing is interpolated from it; {self.command({knob: value})}"
                )
            ends.append((numbers[at - 1], numbers[at]))
        rows = []
        for corner in itertools.product(*ends):
            here = knobs | dict(zip(between, corner, strict=True))
            row = self.by_key.get(setting_key(self.algorithm, here))
            if row is None:
                return None
            rows.append(row)
        forms = {self.profile.settings[row].form for row in rows}
        if len(forms) > 1:
            names = ", ".join(between)
            raise BadInput(
                f"{self.algorithm}: {_text(knobs)} lies between settings that store or order things "
                f"differently, so {names} cannot be interpolated there; use measured values: "
                + "; ".join(f"{k} = {self.values[k]}" for k in between)
            )
        counts, losses = self.weights(knobs, between, ends, rows)
        return Source(Setting(self.algorithm, knobs, forms.pop()), tuple(rows), counts, losses)

    def weights(
        self,
        knobs: Mapping[str, KnobValue],
        between: Sequence[str],
        ends: Sequence[tuple[float, ...]],
        rows: Sequence[int],
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Weights of a cell's corners for counts and for losses.

        Args:
            between: the knobs that are interpolated; `ends`: for each the neighbours of its value, one where the
                value is itself measured there.
            rows: profile rows of the corners, in the order of ``itertools.product(*ends)``.
        """

        def share(knob: str, around: tuple[float, ...], place: Callable[[str, float], float]) -> float:
            low, value, high = (place(knob, v) for v in (around[0], float(knobs[knob]), around[1]))
            return (value - low) / (high - low)

        counts, losses = [1.0], [1.0]
        # From the last knob, whose corners lie next to each other, to the first.
        level = [(self.loss(row), [1.0]) for row in rows]
        for knob, around in zip(reversed(between), reversed(ends), strict=True):
            if len(around) == 1:
                continue
            s = share(knob, around, self.coordinate)
            counts = [w * (1.0 - s) for w in counts] + [w * s for w in counts]
            s = share(knob, around, self.loss_coordinate)
            level = [_joined(low, high, s) for low, high in zip(level[::2], level[1::2], strict=True)]
        ((_, losses),) = level
        return tuple(counts), tuple(losses)

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


def _loss_scale(loss: float) -> float:
    """A loss on a scale that is logarithmic above `LOSS_FLOOR` and linear through zero."""
    return math.asinh(loss / (2 * LOSS_FLOOR))


def _joined(
    low: tuple[float, list[float]], high: tuple[float, list[float]], share: float
) -> tuple[float, list[float]]:
    """Loss and corner weights between two (loss, weights), `share` of the way on `_loss_scale`.

    The weights are those that blend the two losses linearly into the result, so that whatever is blended with them
    (intervals, losses of single windows) stays consistent with the loss.
    """
    (a, first), (b, second) = low, high
    loss = 2 * LOSS_FLOOR * math.sinh((1 - share) * _loss_scale(a) + share * _loss_scale(b))
    part = (loss - a) / (b - a) if a != b else share
    part = min(1.0, max(0.0, part))  # rounding, where the two are close
    return loss, [w * (1 - part) for w in first] + [w * part for w in second]


def _plain(value: KnobValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(knobs: Mapping[str, KnobValue]) -> str:
    return ", ".join(f"{k} = {v!r}" for k, v in knobs.items()) or "the only setting"
