"""Named designs: one TOML file each (`dse.hardware.entries`), every value with its source and confidence.

The table is ``[design]``; its keys are the hardware parameters. A machine whose silicon is published may state
component constants (`dse.hardware.components`) under ``[components]``: they replace the general ones wherever its
prices are asked for, unless a space or a user gives others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dse.hardware.components import check_constant
from dse.hardware.entries import Entry, Kind, read_document, shipped_names
from dse.hardware.parameters import PARAMETERS, HardwareValue, check_design, check_value

PresetValue = Entry[HardwareValue]
"""One entry of a preset."""

_PRESETS: Final = Kind("preset", "presets", "design", "hardware parameters", check_value, check_constant)


@dataclass(frozen=True)
class Preset:
    """A complete design with the provenance of its values."""

    name: str
    description: str
    entries: dict[str, PresetValue]
    components: dict[str, Entry[float]] = field(default_factory=dict)

    @property
    def design(self) -> dict[str, HardwareValue]:
        """Values by parameter name."""
        return {name: entry.value for name, entry in self.entries.items()}

    @property
    def constants(self) -> dict[str, float]:
        """Component constants of its own by name."""
        return {name: entry.value for name, entry in self.components.items()}


def preset_names() -> tuple[str, ...]:
    """Names of the shipped presets."""
    return shipped_names(_PRESETS)


def load_preset(name: str | Path) -> dict[str, HardwareValue]:
    """The design of a shipped preset, or of a user's TOML file.

    Raises:
        BadInput: no such preset or file, or the file is wrong; one line that says where and what would be
        right.
    """
    return read_preset(name).design


def load_constants(name: str | Path) -> dict[str, float]:
    """Component constants that a preset states for itself; none for most.

    Raises:
        BadInput: as `load_preset`.
    """
    return read_preset(name).constants


def read_preset(name: str | Path) -> Preset:
    """As `load_preset`, with description, sources and confidences."""
    found = read_document(_PRESETS, name)
    entries = dict(found.entries)
    values = check_design(found.where, {key: entry.value for key, entry in entries.items()})
    for key, value in values.items():
        entries.setdefault(key, Entry(value, "default of this package", "ours"))
    ordered = {key: entries[key] for key in PARAMETERS}
    return Preset(found.name, found.description, ordered, found.constants)
