"""``[hardware]``: its axes, those of single algorithms, and the design that a baseline stands on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dse.errors import BadInput
from dse.hardware.parameters import PARAMETERS, HardwareValue, check_value
from dse.hardware.presets import load_preset, preset_names, read_preset
from dse.inputs import locate
from dse.space.axes import axis_values
from dse.space.source import Place

MAX_VALUES = 30_000
"""Most values of all axes of a space together: its resolved form lists them."""

MAX_DESIGNS = 1 << 62
"""Most designs of one algorithm: designs are numbered in 64 bits."""

Axes = Mapping[str, tuple[HardwareValue, ...]]
"""Parameter -> its values."""


def read_hardware(
    table: Mapping[str, Any], place: Place, folder: Path = Path()
) -> tuple[
    dict[str, tuple[HardwareValue, ...]],
    dict[str, dict[str, tuple[HardwareValue, ...]]],
    str,
    dict[str, float],
]:
    """Axes, those of single algorithms, the base's name or file, and component constants that the base states.

    Args:
        folder: where the space lies, beside which a base may lie.
    """
    place = place / "hardware"
    if "hardware" not in table:
        raise place.error("missing; must be a table with at least base = a preset")
    written = dict(place.table(table["hardware"], ("base", "for", *PARAMETERS)))
    base = written.pop("base", None)
    per_algorithm = (place / "for").table(written.pop("for", {}))
    axes = {name: _parameter_axis(name, value, place) for name, value in written.items()}
    if base is not None and not isinstance(base, str):
        raise (place / "base").error(f"found {base!r}; must be the name of a preset or a path")
    needed = {name for name, parameter in PARAMETERS.items() if parameter.default is None}
    if base is None and not needed <= set(axes):
        raise (place / "base").error(
            f"missing; must be one of {', '.join(preset_names())} or a path to a preset"
        )
    design: dict[str, HardwareValue] = {n: p.default for n, p in PARAMETERS.items() if p.default is not None}
    constants: dict[str, float] = {}
    # A space that was run states all that its version knew, constants too: its base may be gone, or be another by now.
    was_run = "profile_sha256" in table.get("workload", {})
    if base is not None and not (was_run and needed <= set(axes)):
        try:
            if base not in preset_names():
                base = str(locate(base, folder))
            preset = read_preset(base)
        except BadInput as error:
            raise (place / "base").error(str(error).removeprefix("hardware: base: ")) from None
        design |= preset.design
        constants = preset.constants
    full = {name: axes.get(name) or (design[name],) for name in PARAMETERS}
    special = {
        algorithm: {
            name: _parameter_axis(name, value, place / "for" / algorithm)
            for name, value in (place / "for" / algorithm).table(values, tuple(PARAMETERS)).items()
        }
        for algorithm, values in per_algorithm.items()
    }
    _check_size(full, special, place)
    return full, special, base or "explicit", constants


def _check_size(
    axes: Axes,
    special: Mapping[str, Axes],
    place: Place,
) -> None:
    """Raise where there are too many values to hold, or too many designs to number."""
    count = sum(map(len, axes.values())) + sum(len(v) for own in special.values() for v in own.values())
    if count > MAX_VALUES:
        raise place.error(f"{count} values on all axes together; at most {MAX_VALUES} are allowed")
    for own in ({}, *special.values()):
        designs = math.prod(len(values) for values in {**axes, **own}.values())
        if designs > MAX_DESIGNS:
            raise place.error(
                f"{designs:.3g} designs; at most {MAX_DESIGNS:.3g} can be numbered, shorten an axis"
            )


def _parameter_axis(name: str, written: Any, place: Place) -> tuple[HardwareValue, ...]:
    checked = []
    for value in axis_values(written, place / name):
        try:
            checked.append(check_value("hardware", name, value))
        except BadInput as error:
            raise (place / name).error(str(error).removeprefix(f"hardware: {name}: ")) from None
    return tuple(checked)


def baseline_design(
    written: Mapping[str, Any], place: Place, axes: Axes, base: str
) -> dict[str, HardwareValue]:
    """The baseline's design: the preset, the space's single values, then ``[baseline.hardware]``."""
    place = place / "baseline" / "hardware"
    given = place.table(written.get("hardware", {}), tuple(PARAMETERS))
    own = {name: _parameter_axis(name, value, place) for name, value in given.items()}
    for name, values in own.items():
        if len(values) != 1:
            raise (place / name).error("must be one value")
    design: dict[str, HardwareValue] = {}
    missing = [name for name, values in axes.items() if len(values) > 1 and name not in own]
    if missing:
        if base == "explicit":
            raise (place / missing[0]).error("missing; a space without a base states its baseline's design")
        design = load_preset(base)
    for name, values in axes.items():
        if name in own:
            design[name] = own[name][0]
        elif len(values) == 1:
            design[name] = values[0]
    return {name: design[name] for name in PARAMETERS}
