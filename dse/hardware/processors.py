"""Processors (GPU or CPU) to compare with: one TOML file each (`dse.hardware.entries`).

The table is ``[processor]``; its keys are those of `PROCESSOR_PARAMETERS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dse.errors import BadInput, nearest
from dse.hardware.entries import GIVEN, Entry, Kind, read_document, shipped_names


@dataclass(frozen=True)
class ProcessorParameter:
    """What one entry of a processor means, and which values it may have.

    Attributes:
        low, high: inclusive bounds. whole: only whole numbers.
    """

    name: str
    unit: str
    description: str
    low: float
    high: float
    whole: bool = False

    @property
    def valid(self) -> str:
        """The accepted values in words."""
        return f"{'an integer' if self.whole else 'a number'} from {self.low:g} to {self.high:g}"


PROCESSOR_PARAMETERS: Final[Mapping[str, ProcessorParameter]] = {
    p.name: p
    for p in (
        ProcessorParameter("operand_bits", "bit", "stored width of keys and values", 4, 64, whole=True),
        ProcessorParameter("weight_bits", "bit", "stored width of the model's weights", 1, 64),
        ProcessorParameter("peak_tflops", "T operations/s", "peak of the operand format, 2 per multiply-add", 1e-3, 1e6),
        ProcessorParameter("memory_gbps", "GB/s", "peak memory bandwidth", 0.1, 1e6),
        ProcessorParameter("memory_gib", "GiB", "memory capacity", 1e-3, 1e6),
        ProcessorParameter("attention_compute_efficiency", "1", "share of the peak rate attention reaches", 1e-4, 1),
        ProcessorParameter(
            "attention_memory_efficiency", "1", "compulsory bytes of attention per second / peak bandwidth", 1e-4, 1
        ),
        ProcessorParameter("attention_launches", "per layer and step", "operations attention is started in", 0, 1e4),
        ProcessorParameter("rest_compute_efficiency", "1", "share of the peak rate the remaining model reaches", 1e-4, 1),
        ProcessorParameter("rest_memory_efficiency", "1", "weight bytes per second / peak bandwidth", 1e-4, 1),
        ProcessorParameter("rest_launches", "per layer and step", "operations of the remaining model", 0, 1e4),
        ProcessorParameter("launch_us", "us", "what starting one operation costs", 0, 1e6),
        ProcessorParameter("power_w", "W", "power attributed while it works", 1e-3, 1e6),
    )
}  # fmt: skip
"""Every entry of a processor, all of them required."""

ProcessorValue = Entry[float]
"""One entry of a processor."""


@dataclass(frozen=True)
class Processor:
    """A GPU or CPU with the provenance of its values; ``processor["memory_gbps"]`` is a value."""

    name: str
    description: str
    entries: Mapping[str, ProcessorValue]

    def __getitem__(self, name: str) -> float:
        return self.entries[name].value

    @property
    def values(self) -> dict[str, float]:
        """Values by name, in the order of `PROCESSOR_PARAMETERS`; whole ones as `int`."""
        return {
            name: int(self[name]) if parameter.whole else self[name]
            for name, parameter in PROCESSOR_PARAMETERS.items()
        }

    def __str__(self) -> str:
        return f"{self.name}, {self['operand_bits']:g}-bit"


def processor_names() -> tuple[str, ...]:
    """Names of the shipped processors."""
    return shipped_names(_PROCESSORS)


def load_processor(name: str | Path) -> Processor:
    """A shipped processor, or the one in a user's TOML file.

    Raises:
        BadInput: no such processor or file, or the file is wrong; one line that says where and what would be
        right.
    """
    found = read_document(_PROCESSORS, name)
    return Processor(found.name, found.description, _complete(found.where, found.entries))


def make_processor(
    where: str, name: str, values: Mapping[str, object], base: Processor | None = None
) -> Processor:
    """A processor from plain values over those of `base`; a value equal to the base's keeps its source.

    Raises:
        BadInput: ``where: key: ...``; a value is unknown, wrong or missing.
    """
    entries = {} if base is None else dict(base.entries)
    for key, written in values.items():
        value = check_processor_value(where, key, written)
        if key not in entries or entries[key].value != value:
            entries[key] = Entry(value, "the space", GIVEN)
    return Processor(name, "" if base is None else base.description, _complete(where, entries))


def check_processor_value(where: str, key: str, value: object) -> float:
    """`value` if the entry `key` may have it.

    Raises:
        BadInput: ``where: key: what was found; what would be right``.
    """
    parameter = PROCESSOR_PARAMETERS.get(key)
    if parameter is None:
        raise BadInput(f"{where}: {key}: no such processor parameter; {nearest(key, PROCESSOR_PARAMETERS)}")
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not parameter.low <= float(value) <= parameter.high:  # type: ignore[arg-type]
        raise BadInput(f"{where}: {key}: found {value!r}; must be {parameter.valid}")
    number = float(value)  # type: ignore[arg-type]
    if parameter.whole and not number.is_integer():
        raise BadInput(f"{where}: {key}: found {value!r}; must be {parameter.valid}")
    return number


def _complete(where: str, entries: Mapping[str, ProcessorValue]) -> dict[str, ProcessorValue]:
    """The entries in their order, none missing."""
    for key, parameter in PROCESSOR_PARAMETERS.items():
        if key not in entries:
            raise BadInput(f"{where}: {key}: missing; must be {parameter.valid} ({parameter.description})")
    return {key: entries[key] for key in PROCESSOR_PARAMETERS}


_PROCESSORS: Final = Kind(
    "processor", "processors", "processor", ", ".join(PROCESSOR_PARAMETERS), check_processor_value
)
