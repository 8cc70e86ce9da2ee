"""When two knob values, and two settings, are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dse.profiles.schema import KnobValue, Setting


def canonical(value: KnobValue) -> tuple[int, float | str]:
    """Identity of a knob value: 1 and 1.0 are one value, True and "1" are others."""
    if isinstance(value, bool):
        return (2, float(value))
    if isinstance(value, int | float):
        return (0, float(value))
    return (1, value)


def order(key: tuple[int, float | str]) -> tuple[int, float, str]:
    kind, value = key
    return (kind, 0.0, value) if isinstance(value, str) else (kind, value, "")


def setting_key(algorithm: str, knobs: Mapping[str, KnobValue]) -> tuple[Any, ...]:
    """Hashable identity of a setting, independent of knob order and of 1 against 1.0."""
    return (algorithm, *((name, canonical(knobs[name])) for name in sorted(knobs)))


def plain_setting(setting: Setting) -> dict[str, Any]:
    """A setting as plain data; what was added to `Form` later is left out where it says nothing."""
    table = asdict(setting)
    if not setting.form.releases:
        del table["form"]["releases"]
    return table
