"""``[algorithms]``: knob axes, completed from the profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dse.errors import BadInput, nearest
from dse.profiles.lookup import Grid, axes_of
from dse.profiles.profile import Profile
from dse.profiles.schema import KnobValue
from dse.space.axes import axis_values
from dse.space.definition import DENSE, AlgorithmSpec
from dse.space.source import Place

DENSE_BITS = (4, 16)
"""Operand widths of the dense settings that are added when a space names none."""


def algorithm_tables(table: Mapping[str, Any], place: Place) -> dict[str, dict[str, Any]]:
    place = place / "algorithms"
    tables = place.table(table.get("algorithms", {}))
    for name, knobs in tables.items():
        skip = (place / name).table(knobs).get("unmeasured", "refuse")
        if skip not in ("skip", "refuse"):
            raise (place / name / "unmeasured").error(f'found {skip!r}; must be "skip" or "refuse"')
    return tables


def read_algorithms(
    tables: Mapping[str, dict[str, Any]], place: Place, profile: Profile, context: int
) -> tuple[dict[str, AlgorithmSpec], tuple[str, ...]]:
    """Knob axes with defaults filled in, dense first; and what was filled in."""
    place = place / "algorithms"
    specs: dict[str, AlgorithmSpec] = {}
    notes: list[str] = []
    if DENSE not in tables and DENSE in profile.algorithms:
        specs[DENSE] = _dense(profile, context)
        notes.append("dense attention was added with its measured widths: it is the rival of every algorithm")
    for name, written in tables.items():
        here = place / name
        if name not in profile.algorithms:
            raise here.error(f"not in profile {profile.name!r}; {nearest(name, profile.algorithms)}")
        try:
            grid = Grid(profile, name, context)
        except BadInput as error:
            raise here.error(str(error)) from None
        axes = {}
        for knob, value in written.items():
            if knob == "unmeasured":
                continue
            if knob not in grid.values:
                raise (here / knob).error(f"unknown knob; {nearest(knob, grid.knobs)}")
            axes[knob] = _knob_axis(value, here / knob, grid.values[knob])
        try:
            full = axes_of(grid, axes, profile.defaults.get(name, {}))
        except BadInput as error:
            raise placed(error, place, "algorithms") from None
        skip = written.get("unmeasured") == "skip"
        specs[name] = AlgorithmSpec({k: tuple(v) for k, v in full.items()}, skip)
    if not specs:
        raise place.error(f"missing; name at least one of {', '.join(profile.algorithms)}")
    return specs, tuple(notes)


def _knob_axis(written: Any, place: Place, measured: Sequence[KnobValue]) -> tuple[KnobValue, ...]:
    if written == "all":
        return tuple(measured)
    values = axis_values(written, place)
    texts = all(isinstance(v, str) for v in measured)
    if texts and place.by_override:  # --set a.chunks=12 means the text "12"
        values = tuple(str(v) if isinstance(v, int | float) else v for v in values)
    for value in values:
        if texts and not isinstance(value, str):
            raise place.error(f"found {value!r}; must be text: " + ", ".join(f'"{v}"' for v in measured))
    return values


def _dense(profile: Profile, context: int) -> AlgorithmSpec:
    grid = Grid(profile, DENSE, context)
    low, high = DENSE_BITS
    axes = {}
    for knob, values in grid.values.items():
        kept = [v for v in values if not knob.endswith("_bits") or low <= float(v) <= high]
        axes[knob] = tuple(kept or values)
    return AlgorithmSpec(axes, skip=True)


def placed(error: BadInput, place: Place, section: str) -> BadInput:
    """``alpha.threshold: message`` with the file, line and section in front."""
    head, _, message = str(error).partition(": ")
    return place.at(f"{section}.{head}").error(message)
