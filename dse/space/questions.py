"""What to ask about values that are valid and yet hardly meant: another unit, a limit or a direction mistaken.

A question is a note of the space: it decides nothing, and is shown wherever the space is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from dse.hardware.components import COMPONENTS
from dse.hardware.parameters import PARAMETERS, HardwareValue
from dse.hardware.processors import Processor
from dse.hardware.units import MISTAKEN, meant, question
from dse.space.definition import Limits
from dse.space.names import MORE_IS_BETTER

HARDWARE: Final[Mapping[str, tuple[float, float]]] = {
    "memory_gib": (0.001, 2048.0),
    "overhead_pj_per_op": (0.01, 100.0),
    "dram_channel_gbps": (2.0, 200.0),
    "slow_gbps": (0.5, 1000.0),
}
"""Parameter -> the least and most that somebody would mean, where valid values go beyond. 0 is never asked about."""

PROCESSOR: Final[Mapping[str, tuple[str, float, float]]] = {
    "peak_tflops": ("T operations/s", 0.01, 1e5),
    "memory_gbps": ("GB/s", 1.0, 1e5),
    "memory_gib": ("GiB", 0.25, 1e4),
    "launch_us": ("us", 0.01, 1e3),
    "power_w": ("W", 0.1, 5e3),
}
"""Parameter of a processor -> its unit, and the least and most that somebody would mean."""

METRICS: Final[Mapping[str, tuple[str, float, float]]] = {
    "_s": ("s", 1e-9, 1.0),
    "_j": ("J", 1e-9, 1.0),
    "_w": ("W", 1e-3, 2000.0),
    "_mm2": ("mm2", 0.1, 1e5),
    "_bytes": ("bytes", 1e3, 1e15),
}
"""End of a metric's name -> its unit, and the least and most that a limit on it would be."""

UNITS: Final[Mapping[str, tuple[tuple[str, float], ...]]] = {
    "s": (("us", 1e-6), ("ms", 1e-3), ("ns", 1e-9)),
    "J": (("uJ", 1e-6), ("mJ", 1e-3), ("nJ", 1e-9)),
    "W": (("mW", 1e-3), ("uW", 1e-6)),
    "mm2": MISTAKEN["mm2"],
    "bytes": (("MB", 1e6), ("GB", 1e9)),
    "us": (("s", 1e6), ("ms", 1e3), ("ns", 1e-3)),
    "GB/s": (("TB/s", 1e3), ("MB/s", 1e-3), ("B/s", 1e-9)),
    "GiB": MISTAKEN["GiB"],
    "T operations/s": (("operations/s", 1e-12), ("G operations/s", 1e-3)),
}
"""Unit -> (unit that is written instead, how many of the first one of it is), the likeliest first."""

FAR: Final = 100.0
"""How many times smaller or larger than the shipped one a constant may be and not be asked about."""

NEAR: Final = 30.0
"""Within what factor of the shipped value a constant must lie in another unit for that unit to be proposed."""


def questions(
    axes: Mapping[str, tuple[HardwareValue, ...]],
    special: Mapping[str, Mapping[str, tuple[HardwareValue, ...]]],
    objectives: Mapping[str, bool],
    limits: Mapping[str, Limits],
    constants: Mapping[str, float],
    processor: Processor | None = None,
) -> tuple[str, ...]:
    """All of them, each once.

    Args:
        axes, special: hardware parameter -> values, and algorithm -> those that differ for it.
        objectives: metric -> whether it is maximised.
        constants: component constants that the space itself replaces.
        processor: the baseline, where it is one.
    """
    tables = (axes, *special.values())
    asked = [text for table in tables for name, values in table.items() for text in _of_axis(name, values)]
    asked += [text for metric, bounds in limits.items() for text in _of_limits(metric, bounds)]
    asked += [text for name, value in constants.items() for text in _of_constant(name, value)]
    if processor is not None:
        for name, (unit, low, high) in PROCESSOR.items():
            asked += _in_unit(f"baseline.parameters.{name}", unit, processor.values[name], low, high)
    for metric, up in objectives.items():
        if metric != "batch" and up is not (metric in MORE_IS_BETTER):
            done, other = ("maximised", "minimize") if up else ("minimised", "maximize")
            asked.append(
                f"{metric} is {done}, though {'less' if up else 'more'} of it is better; did you mean {other}?"
            )
    return tuple(dict.fromkeys(asked))


def _of_axis(name: str, values: tuple[HardwareValue, ...]) -> Iterator[str]:
    numbers = [v for v in values if not isinstance(v, str)]
    if not numbers:
        return
    unit = PARAMETERS[name].unit
    if text := question(name, unit, max(numbers)):
        yield text
        return
    low, high = HARDWARE.get(name, (-math.inf, math.inf))
    for value in dict.fromkeys((min(numbers), max(numbers))):
        if value and not low <= value <= high:
            yield f"{name} = {value:g} {unit} is {_much(value < low)}{meant(unit, value, low, high)}"


def _of_limits(metric: str, bounds: Limits) -> Iterator[str]:
    unit, low, high = next((v for end, v in METRICS.items() if metric.endswith(end)), ("", 0.0, 0.0))
    if not unit or metric == "tokens_per_s":
        return
    for end, value in (("min", bounds.low), ("max", bounds.high)):
        if value is not None:
            yield from _in_unit(f"constraints.{metric}.{end}", unit, value, low, high)


def _in_unit(name: str, unit: str, value: float, low: float, high: float) -> Iterator[str]:
    """The question about a value that is beyond what would be meant, with what it is in other units."""
    if value <= 0 or low <= value <= high:
        return
    right = [
        f"{value * factor:.9g} ({value:.9g} {other})"
        for other, factor in UNITS[unit]
        if low <= value * factor <= high
    ]
    meaning = f"; did you mean {' or '.join(right[:2])}?" if right else ""
    yield f"{name} = {value:g} {unit} is {_much(value < low)}{meaning}"


def _of_constant(name: str, value: float) -> Iterator[str]:
    known = COMPONENTS[name]
    if not value or not known.value or 1 / FAR < value / known.value < FAR:
        return
    unit = known.unit.partition("/")[0].partition(" ")[0]
    yield (
        f"components.{name} = {value:g}{f' {known.unit}' if known.unit else ''} is {_much(value < known.value)}: the "
        f"shipped value is {known.value:g}{meant(unit, value, known.value / NEAR, known.value * NEAR)}"
    )


def _much(little: bool) -> str:
    return "very little" if little else "very much"
