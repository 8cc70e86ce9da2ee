"""Processors (GPU or CPU) to compare with: one TOML file each, every value with its source and confidence.

A file holds ``schema = 1``, ``description`` and a table ``[processor]`` whose entries are either a plain value
or ``{ value = ..., source = "...", confidence = "..." }``. Wherever a processor's name is accepted, a path to
such a file works too; it may start from another one with ``base = "name"``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from dse.errors import BadInput, nearest


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

GIVEN: Final = "as given"
"""Confidence of a value that a user wrote."""


@dataclass(frozen=True)
class ProcessorValue:
    """One entry of a processor."""

    value: float
    source: str
    confidence: str


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
    folder = files("dse.hardware") / "processors"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def load_processor(name: str | Path) -> Processor:
    """A shipped processor, or the one in a user's TOML file.

    Raises:
        BadInput: no such processor or file, or the file is wrong; one line that says where and what would be
        right.
    """
    return _read(str(name), ())


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
            entries[key] = ProcessorValue(value, "the space", GIVEN)
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


def _read(name: str, seen: tuple[str, ...]) -> Processor:
    if name in seen:
        raise BadInput(
            f"{name}: base: the chain of bases comes back to {name!r}; must end in one without base"
        )
    where, table = _table(name)
    for key in table:
        if key not in _KEYS:
            raise BadInput(f"{where}: {key}: no such key; {nearest(key, _KEYS)}")
    if table.get("schema") != 1 or isinstance(table.get("schema"), bool):
        raise BadInput(f"{where}: schema: found {table.get('schema')!r}; must be 1")
    description, base, written = table.get("description", ""), table.get("base"), table.get("processor")
    if not isinstance(description, str):
        raise BadInput(f"{where}: description: found {description!r}; must be text")
    if not isinstance(written, dict):
        raise BadInput(f"{where}: processor: missing; must be a table of {', '.join(PROCESSOR_PARAMETERS)}")
    if base is not None and not isinstance(base, str):
        raise BadInput(f"{where}: base: found {base!r}; must be the name of a processor or a path")
    entries = dict(_read(base, (*seen, name)).entries) if base is not None else {}
    entries |= {key: _entry(where, key, value) for key, value in written.items()}
    return Processor(Path(name).stem, description, _complete(where, entries))


_KEYS: Final = ("schema", "description", "base", "processor")


def _table(name: str) -> tuple[str, dict[str, Any]]:
    """What to call a processor's file in messages, and its content."""
    names = processor_names()
    if name in names:
        where = f"processor {name}"
        text = (files("dse.hardware") / "processors" / f"{name}.toml").read_text(encoding="utf-8")
    else:
        path, where = Path(name), name
        if not path.is_file():
            raise BadInput(f"no processor or file {name!r}; {nearest(name, names)}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{name}: cannot be read: {error}; must be a TOML file in UTF-8") from error
    try:
        return where, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where}: not TOML: {error}") from error


def _entry(where: str, key: str, written: object) -> ProcessorValue:
    if not isinstance(written, dict):
        return ProcessorValue(check_processor_value(where, key, written), "the user's file", GIVEN)
    valid = ("value", "source", "confidence")
    for inner in written:
        if inner not in valid:
            raise BadInput(f"{where}: {key}.{inner}: no such key; {nearest(str(inner), valid)}")
    if "value" not in written:
        raise BadInput(f"{where}: {key}: no value; must be {{ value = ..., source = ..., confidence = ... }}")
    source, confidence = written.get("source", "the user's file"), written.get("confidence", GIVEN)
    if not isinstance(source, str) or not isinstance(confidence, str):
        raise BadInput(f"{where}: {key}: source and confidence must be text")
    return ProcessorValue(check_processor_value(where, key, written["value"]), source, confidence)
