"""Named designs: one TOML file each, every value with its source and confidence.

A file holds ``schema = 1``, ``description`` and a table ``[design]`` whose entries are either a plain value
or ``{ value = ..., source = "...", confidence = "..." }``. Wherever a preset's name is accepted, a path to
such a file works too; it may start from another one with ``base = "name"``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dse.errors import BadInput, nearest
from dse.hardware.parameters import PARAMETERS, HardwareValue, check_design, check_value


@dataclass(frozen=True)
class PresetValue:
    """One entry of a preset."""

    value: HardwareValue
    source: str
    confidence: str


@dataclass(frozen=True)
class Preset:
    """A complete design with the provenance of its values."""

    name: str
    description: str
    entries: dict[str, PresetValue]

    @property
    def design(self) -> dict[str, HardwareValue]:
        """Values by parameter name."""
        return {name: entry.value for name, entry in self.entries.items()}


def preset_names() -> tuple[str, ...]:
    """Names of the shipped presets."""
    folder = files("dse.hardware") / "presets"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def load_preset(name: str | Path) -> dict[str, HardwareValue]:
    """The design of a shipped preset, or of a user's TOML file.

    Raises:
        BadInput: no such preset or file, or the file is wrong; one line that says where and what would be
        right.
    """
    return read_preset(name).design


def read_preset(name: str | Path) -> Preset:
    """As `load_preset`, with description, sources and confidences."""
    return _read(str(name), ())


def _read(name: str, seen: tuple[str, ...]) -> Preset:
    if name in seen:
        raise BadInput(
            f"{name}: base: the chain of bases comes back to {name!r}; must end in a preset without base"
        )
    if name in preset_names():
        where = f"preset {name}"
        text = (files("dse.hardware") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    else:
        path = Path(name)
        if not path.is_file():
            raise BadInput(f"hardware: base: no preset or file {name!r}; {nearest(name, preset_names())}")
        where = name
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{name}: cannot be read: {error}; must be a TOML file in UTF-8") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where}: not TOML: {error}") from error
    valid = ("schema", "description", "base", "design")
    for key in table:
        if key not in valid:
            raise BadInput(f"{where}: {key}: no such key; {nearest(key, valid)}")
    if table.get("schema") != 1:
        raise BadInput(f"{where}: schema: found {table.get('schema')!r}; must be 1")
    description, base, written = table.get("description", ""), table.get("base"), table.get("design")
    if not isinstance(description, str):
        raise BadInput(f"{where}: description: found {description!r}; must be text")
    if not isinstance(written, dict):
        raise BadInput(f"{where}: design: missing; must be a table of hardware parameters")
    if base is not None and not isinstance(base, str):
        raise BadInput(f"{where}: base: found {base!r}; must be the name of a preset or a path")
    entries = dict(_read(base, (*seen, name)).entries) if base is not None else {}
    entries |= {key: _entry(where, key, value) for key, value in written.items()}
    check_design(where, {key: entry.value for key, entry in entries.items()})
    ordered = {key: entries[key] for key in PARAMETERS}
    return Preset(Path(name).stem, description, ordered)


def _entry(where: str, key: str, written: object) -> PresetValue:
    if not isinstance(written, dict):
        return PresetValue(check_value(where, key, written), "the user's file", "as given")
    for inner in written:
        if inner not in ("value", "source", "confidence"):
            raise BadInput(
                f"{where}: {key}.{inner}: no such key; "
                f"{nearest(str(inner), ('value', 'source', 'confidence'))}"
            )
    if "value" not in written:
        raise BadInput(
            f"{where}: {key}: has no value; must be {{ value = ..., source = ..., confidence = ... }}"
        )
    source, confidence = written.get("source", ""), written.get("confidence", "as given")
    if not isinstance(source, str) or not isinstance(confidence, str):
        raise BadInput(f"{where}: {key}: source and confidence must be text")
    return PresetValue(check_value(where, key, written["value"]), source, confidence)
