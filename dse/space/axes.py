"""The forms an axis can be written in, as the list of its values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from dse.profiles.profile import canonical
from dse.profiles.schema import KnobValue
from dse.space.source import Place

MAX_VALUES = 10_000
"""Most values one axis may have."""

MAX_WORD = 200
"""Most characters of a value that is text."""

FORMS = (
    "a value, a list, { log = [a, b], points = n }, { linear = [a, b], points = n }, "
    "{ powers_of_two = [a, b] } or { range = [a, b], step = s }"
)


def axis_values(written: Any, place: Place) -> tuple[KnobValue, ...]:
    """The values of an axis, in the order written (generated ones ascend).

    Raises:
        BadInput: empty, duplicate, too many, not finite, or not one of `FORMS`.
    """
    if isinstance(written, dict):
        values: tuple[KnobValue, ...] = tuple(_generated(written, place))
    elif isinstance(written, list):
        if len(written) > MAX_VALUES:
            raise place.error(f"{len(written)} values; at most {MAX_VALUES} are allowed")
        values = tuple(scalar(value, place) for value in written)
    else:
        return (scalar(written, place),)
    if not values:
        raise place.error("the axis is empty; give at least one value")
    seen = set()
    for value in values:
        if canonical(value) in seen:
            raise place.error(f"{value!r} appears twice; every value of an axis counts once")
        seen.add(canonical(value))
    return values


def scalar(value: Any, place: Place) -> KnobValue:
    """`value` if it is a number, text or truth value, and finite."""
    if not isinstance(value, bool | int | float | str):
        raise place.error(f"found {value!r}; must be {FORMS}")
    if isinstance(value, float) and not math.isfinite(value):
        raise place.error(f"found {value!r}; numbers must be finite")
    if isinstance(value, int) and abs(value) > 2**53:
        raise place.error(f"found {value}; numbers must be at most 2**53")
    if isinstance(value, str) and len(value) > MAX_WORD:
        raise place.error(f"a text of {len(value)} characters; values have at most {MAX_WORD}")
    return value


def _generated(table: dict[str, Any], place: Place) -> Iterable[KnobValue]:
    shapes = {"log": "points", "linear": "points", "range": "step", "powers_of_two": None}
    kinds = [key for key in table if key in shapes]
    if len(kinds) != 1:
        raise place.error(f"found {table!r}; must be {FORMS}")
    kind = kinds[0]
    other = shapes[kind]
    wanted = {kind, other} - {None}
    if set(table) != wanted:
        raise place.error(f"found keys {sorted(table)}; must be {' and '.join(sorted(map(str, wanted)))}")
    low, high = _ends(table[kind], place / kind)
    if not math.isfinite(high - low):
        raise (place / kind).error(f"found [{low}, {high}]; the ends are too far apart")
    if kind == "powers_of_two":
        return _powers(low, high, place)
    if kind == "range":
        return _stepped(low, high, table["step"], place)
    points = table["points"]
    if type(points) is not int or not 2 <= points <= MAX_VALUES:
        raise (place / "points").error(f"found {points!r}; must be a whole number from 2 to {MAX_VALUES}")
    if kind == "log":
        if low <= 0:
            raise (place / "log").error(f"starts at {low}; a logarithmic axis must be positive")
        a, b = math.log(low), math.log(high)
        return _between(low, high, [math.exp(a + (b - a) * i / (points - 1)) for i in range(points)])
    return _between(low, high, [low + (high - low) * i / (points - 1) for i in range(points)])


def _ends(value: Any, place: Place) -> tuple[float, float]:
    numbers = (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
    )
    if not numbers or not value[0] < value[1]:
        raise place.error(f"found {value!r}; must be [lowest, highest], two numbers in this order")
    return value[0], value[1]


def _between(low: float, high: float, values: list[float]) -> list[KnobValue]:
    """Generated values without rounding dust, whole numbers where both ends are whole."""
    inner = [_clean(v) for v in values[1:-1]]
    if isinstance(low, int) and isinstance(high, int) and all(v == int(v) for v in inner):
        return [low, *(int(v) for v in inner), high]
    return [low, *inner, high]


def _clean(value: float) -> float:
    return float(f"{value:.12g}")


def _powers(low: float, high: float, place: Place) -> list[KnobValue]:
    whole = low == int(low) and high == int(high) and low >= 1 and high <= 2**53
    if not whole or int(low) & (int(low) - 1) or int(high) & (int(high) - 1):
        raise (place / "powers_of_two").error(f"found [{low}, {high}]; must be two powers of two from 1")
    return [1 << i for i in range(int(low).bit_length() - 1, int(high).bit_length())]


def _stepped(low: float, high: float, step: Any, place: Place) -> list[KnobValue]:
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < math.inf:
        raise (place / "step").error(f"found {step!r}; must be a positive number")
    steps = (high - low) / step + 1e-9
    if steps >= MAX_VALUES:
        raise place.error(f"{steps:.3g} values; at most {MAX_VALUES} are allowed")
    count = math.floor(steps) + 1
    values = [low + step * i for i in range(count)]
    if isinstance(low, int) and isinstance(step, int):
        return [int(v) for v in values]
    return [_clean(v) for v in values]
