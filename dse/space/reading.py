"""From a TOML file, a table or the name of a shipped space to a resolved `Space`, strictly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dse.cost.workload import SCOPES
from dse.errors import BadInput, nearest
from dse.hardware.parameters import PARAMETERS, HardwareValue, check_value
from dse.hardware.presets import load_preset, preset_names, read_preset
from dse.hardware.units import question
from dse.inputs import check_tame, is_file
from dse.profiles.lookup import Grid, axes_of
from dse.profiles.naming import ProfileName
from dse.profiles.profile import PHASES, Profile
from dse.profiles.schema import QUERY_TILES, KnobValue
from dse.profiles.store import load_profile
from dse.space.against import processor_baseline
from dse.space.axes import axis_values, scalar
from dse.space.definition import (
    DENSE,
    MOST,
    QUERY_TILE,
    SCHEMA,
    AlgorithmSpec,
    Baseline,
    Space,
    WorkloadSpec,
)
from dse.space.goals import components, constraints, objectives
from dse.space.shipped import shipped_spaces
from dse.space.source import Place, apply_overrides, parse, read_text

SECTIONS = (
    "schema", "name", "description", "workload", "algorithms", "hardware", "components", "objectives",
    "constraints", "baseline",
)  # fmt: skip
DENSE_BITS = (4, 16)
"""Operand widths of the dense settings that are added when a space names none."""

BASELINE_BITS = 12

MAX_NAME = 100
"""Most characters of a space's name."""

MAX_VALUES = 30_000
"""Most values of all axes of a space together: its resolved form lists them."""

MAX_DESIGNS = 1 << 62
"""Most designs of one algorithm: designs are numbered in 64 bits."""


def load_space(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    profile: Profile | None = None,
) -> Space:
    """The space in a file, under a shipped name, or in a table, resolved against its profile.

    Args:
        overrides: ``a.b.c=value`` entries that replace single keys.
        profile: use this profile whatever the space names.

    Raises:
        BadInput: anything that does not fit, named with file, line and key.
    """
    if isinstance(source, Mapping):
        table, place, name, folder = dict(source), Place("space"), "space", Path()
        check_tame(table, lambda path, message: Place("space", path=path).error(message))
    else:
        path = find_space(source)
        table, place = parse(path.name, read_text(path))
        name, folder = path.stem, path.parent
    table, place = apply_overrides(table, place, overrides)
    return replace(_read(table, place, name, folder, profile), overridden=bool(overrides))


def find_space(source: str | Path) -> Path:
    """The file of a shipped space's name, or the path itself."""
    text = str(source)
    if isinstance(source, Path) or "/" in text or text.endswith(".toml") or is_file(Path(text)):
        return Path(source)
    shipped = shipped_spaces()
    if text not in shipped:
        raise BadInput(f"space {text!r}: no such shipped space or file; {nearest(text, shipped)}")
    return shipped[text]


def parse_resolved(text: str, file: str) -> Space:
    """A space from its resolved TOML form, without its profile: nothing is filled in or looked up."""
    table, place = parse(file, text)
    _check_schema(table, place)
    for section in ("workload", "algorithms", "hardware", "baseline"):
        if section not in table:
            raise (place / section).error("missing; a resolved space has it")
    workload = read_workload(table, place)
    hardware, hardware_for, base, _ = _hardware(table, place)
    specs = {
        name: AlgorithmSpec(
            {
                k: axis_values(v, place / "algorithms" / name / k)
                for k, v in knobs.items()
                if k != "unmeasured"
            },
            knobs.get("unmeasured") == "skip",
        )
        for name, knobs in _algorithm_tables(table, place).items()
    }
    goals, reference = objectives(table, place)
    return Space(
        name=_name(table, place, ""),
        description=_text(table, place, "description", ""),
        workload=workload,
        algorithms=specs,
        base=base,
        hardware=hardware,
        hardware_for=hardware_for,
        objectives=goals,
        reference=reference,
        constraints=constraints(table, place),
        baseline=_resolved_baseline(table, place, hardware, base),
        components=components(table, place),
    )


def _read(table: dict[str, Any], place: Place, name: str, folder: Path, profile: Profile | None) -> Space:
    _check_schema(table, place)
    name = _name(table, place, name)
    description = _text(table, place, "description", "")
    workload = read_workload(table, place)
    hardware, hardware_for, base, constants = _hardware(table, place)
    goals, reference = objectives(table, place)
    tables = _algorithm_tables(table, place)
    if profile is None:
        profile, workload = _profile(workload, place, folder)
    workload, profile = _fit(workload, place, profile)
    specs, notes = _algorithms(tables, place, profile, workload.context)
    for algorithm in hardware_for:
        if algorithm not in specs:
            raise (place / "hardware" / "for" / algorithm).error(
                f"no such algorithm in this space; {nearest(algorithm, specs)}"
            )
    space = Space(
        name=name,
        description=description,
        workload=workload,
        algorithms=specs,
        base=base,
        hardware=hardware,
        hardware_for=hardware_for,
        objectives=goals,
        reference=reference,
        constraints=constraints(table, place),
        baseline=_baseline(table, place, folder, profile, workload.context, hardware, base),
        components={**constants, **components(table, place)},
        notes=(*notes, *_questions(hardware, hardware_for)),
        table=profile,
    )
    _look_up(space, place)
    return space


def _look_up(space: Space, place: Place) -> None:
    """Find every setting in the profile now, so that what is missing is said with its place."""
    try:
        space.resolutions  # noqa: B018  (a cached property: computed for its errors)
    except BadInput as error:
        raise _placed(error, place, "algorithms") from None
    if space.baseline.processor is not None:
        return
    try:
        space.baseline_rows()
    except BadInput as error:
        raise (place / "baseline").error(str(error)) from None


def _placed(error: BadInput, place: Place, section: str) -> BadInput:
    """``alpha.threshold: message`` with the file, line and section in front."""
    head, _, message = str(error).partition(": ")
    return place.at(f"{section}.{head}").error(message)


def _check_schema(table: Mapping[str, Any], place: Place) -> None:
    """Raise where a table is of another version, or has a section that there is not."""
    found = table.get("schema")
    if type(found) is not int or found != SCHEMA:
        newer = (
            "; a newer version of dse wrote it: update dse" if type(found) is int and found > SCHEMA else ""
        )
        raise (place / "schema").error(f"found {found!r}; must be {SCHEMA}{newer}")
    place.table(table, SECTIONS)


def _name(table: Mapping[str, Any], place: Place, default: str) -> str:
    """The space's name: it becomes the name of a folder."""
    name = _text(table, place, "name", default)
    plain = name.isascii() and all(c.isalnum() or c in "-_." for c in name)
    if not plain or not 1 <= len(name) <= MAX_NAME or name.startswith((".", "-")):
        raise (place / "name").error(
            f"found {name!r}; use at most {MAX_NAME} letters, digits, '-', '_' and '.', a letter or digit first"
        )
    return name


def _text(table: Mapping[str, Any], place: Place, key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise (place / key).error(f"found {value!r}; must be text")
    return value


def read_workload(table: Mapping[str, Any], place: Place) -> WorkloadSpec:
    """The table ``[workload]``, checked by itself."""
    place = place / "workload"
    if "workload" not in table:
        raise place.error("missing; must be a table with at least profile and context")
    kinds = {
        "profile": str, "phase": str, "context": int, "batch": int, "grouped": bool, "profile_sha256": str,
        "scope": str, "query_tile": int,
    }  # fmt: skip
    written = place.table(table["workload"], tuple(kinds))
    for key, value in written.items():
        if key == "batch" and value == MOST:
            continue
        if type(value) is not kinds[key]:
            what = {str: "text", int: "a whole number", bool: "true or false"}[kinds[key]]
            raise (place / key).error(f"found {value!r}; must be {what}")
    for key in ("profile", "context"):
        if key not in written:
            raise (place / key).error("missing")
    workload = WorkloadSpec(**written)
    if workload.phase not in PHASES:
        raise (place / "phase").error(f"found {workload.phase!r}; {nearest(workload.phase, PHASES)}")
    if isinstance(workload.batch, int) and not 1 <= workload.batch <= 1_000_000:
        raise (place / "batch").error(
            f'found {workload.batch}; must be a whole number from 1 to 1000000, or "{MOST}" for the largest that fits'
        )
    if workload.scope not in SCOPES:
        raise (place / "scope").error(f"found {workload.scope!r}; {nearest(workload.scope, SCOPES)}")
    if "query_tile" in written and workload.phase != "prefill":
        raise (place / "query_tile").error(f"{workload.phase} has one query per sequence; remove the key")
    if workload.phase != "prefill":
        return workload
    if "query_tile" not in written:
        return replace(workload, query_tile=QUERY_TILE)
    if workload.query_tile not in QUERY_TILES:
        known = ", ".join(map(str, QUERY_TILES))
        raise (place / "query_tile").error(f"found {workload.query_tile}; must be one of {known}")
    return workload


def _profile(workload: WorkloadSpec, place: Place, folder: Path) -> tuple[Profile, WorkloadSpec]:
    """The profile a workload names, or where that holds another phase, the one of the workload's phase beside it."""
    try:
        named = load_profile(_where(workload.profile, folder))
    except BadInput as error:
        raise (place / "workload" / "profile").error(str(error)) from None
    if named.phase == workload.phase:
        return named, workload
    sibling = _of_phase(workload.profile, workload.phase)
    try:
        found = load_profile(_where(sibling, folder))
    except BadInput:
        return named, workload  # refused by `_fit`, which says what the named one holds
    return found, replace(workload, profile=sibling)


def _where(name: str, folder: Path) -> str | Path:
    """What to load: a shipped name, a path, or the file beside the space."""
    beside = folder / name
    is_path = "/" in name or name.endswith(".npz")
    return beside if is_path and not is_file(Path(name)) and is_file(beside) else name


def _of_phase(name: str, phase: str) -> str:
    """The name of a profile of the same model and text in another phase."""
    folder, slash, last = name.rpartition("/")
    suffix = ".npz" if last.endswith(".npz") else ""
    parts = ProfileName.parse(last.removesuffix(suffix))
    return f"{folder}{slash}{replace(parts, phase=phase)}{suffix}"


def _fit(workload: WorkloadSpec, place: Place, profile: Profile) -> tuple[WorkloadSpec, Profile]:
    """The workload with the profile's checksum, and the profile at the workload's query tile.

    Raises:
        BadInput: the profile does not hold its phase, context or tile.
    """
    place = place / "workload"
    if workload.phase != profile.phase:
        raise (place / "phase").error(
            f"found {workload.phase!r}; profile {profile.name!r} holds {profile.phase!r}"
        )
    if workload.context not in profile.contexts:
        have = ", ".join(map(str, profile.contexts))
        raise (place / "context").error(f"found {workload.context}; profile {profile.name!r} holds {have}")
    if workload.profile_sha256 and workload.profile_sha256 != profile.checksum:
        raise (place / "profile_sha256").error(
            f"profile {profile.name!r} is not the one this space was run with; remove the key to use it anyway"
        )
    workload = replace(workload, profile_sha256=profile.checksum)
    if workload.phase != "prefill":
        return workload, profile
    try:
        return workload, profile.at_tile(workload.query_tile)
    except BadInput as error:
        raise (place / "query_tile").error(str(error)) from None


def _algorithm_tables(table: Mapping[str, Any], place: Place) -> dict[str, dict[str, Any]]:
    place = place / "algorithms"
    tables = place.table(table.get("algorithms", {}))
    for name, knobs in tables.items():
        skip = (place / name).table(knobs).get("unmeasured", "refuse")
        if skip not in ("skip", "refuse"):
            raise (place / name / "unmeasured").error(f'found {skip!r}; must be "skip" or "refuse"')
    return tables


def _algorithms(
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
            raise _placed(error, place, "algorithms") from None
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


def _hardware(
    table: Mapping[str, Any], place: Place
) -> tuple[
    dict[str, tuple[HardwareValue, ...]],
    dict[str, dict[str, tuple[HardwareValue, ...]]],
    str,
    dict[str, float],
]:
    """Axes, those of single algorithms, the base's name, and component constants that the base states."""
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
    if base is not None and not needed <= set(axes):
        try:
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
    axes: Mapping[str, tuple[HardwareValue, ...]],
    special: Mapping[str, Mapping[str, tuple[HardwareValue, ...]]],
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


def _questions(
    axes: Mapping[str, tuple[HardwareValue, ...]],
    special: Mapping[str, Mapping[str, tuple[HardwareValue, ...]]],
) -> tuple[str, ...]:
    """What to ask about values that are valid and yet hardly meant, the largest of every axis once."""
    asked = []
    for name, values in [*axes.items(), *(item for own in special.values() for item in own.items())]:
        numbers = [v for v in values if not isinstance(v, str)]
        asked += [question(name, PARAMETERS[name].unit, max(numbers))] if numbers else []
    return tuple(dict.fromkeys(text for text in asked if text))


def _parameter_axis(name: str, written: Any, place: Place) -> tuple[HardwareValue, ...]:
    checked = []
    for value in axis_values(written, place / name):
        try:
            checked.append(check_value("hardware", name, value))
        except BadInput as error:
            raise (place / name).error(str(error).removeprefix(f"hardware: {name}: ")) from None
    return tuple(checked)


def _design(
    written: Mapping[str, Any], place: Place, axes: Mapping[str, tuple[HardwareValue, ...]], base: str
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


def _resolved_baseline(
    table: Mapping[str, Any],
    place: Place,
    hardware: Mapping[str, tuple[HardwareValue, ...]],
    base: str,
) -> Baseline:
    written = (place / "baseline").table(table["baseline"])
    if "processor" in written:
        return processor_baseline(written, place / "baseline")
    algorithm = written.get("algorithm", DENSE)
    if not isinstance(algorithm, str):
        raise (place / "baseline" / "algorithm").error(f"found {algorithm!r}; must be text")
    knobs = {
        k: scalar(v, place / "baseline" / k) for k, v in written.items() if k not in ("algorithm", "hardware")
    }
    return Baseline(algorithm, knobs, _design(written, place, hardware, base))


def _baseline(
    table: Mapping[str, Any],
    place: Place,
    folder: Path,
    profile: Profile,
    context: int,
    hardware: Mapping[str, tuple[HardwareValue, ...]],
    base: str,
) -> Baseline:
    here = place / "baseline"
    written = here.table(table.get("baseline", {}))
    if "processor" in written:
        knob_names = {knob for name in profile.algorithms for knob in profile.knobs(name)}
        return processor_baseline(written, here, folder, knob_names)
    algorithm = written.get("algorithm", DENSE)
    if not isinstance(algorithm, str) or algorithm not in profile.algorithms:
        raise (here / "algorithm").error(
            f"{algorithm!r} is not in profile {profile.name!r}; {nearest(str(algorithm), profile.algorithms)}"
        )
    grid = Grid(profile, algorithm, context)
    knobs: dict[str, KnobValue] = dict(profile.defaults.get(algorithm, {}))
    if algorithm == DENSE:
        knobs |= {k: BASELINE_BITS for k in ("k_bits", "v_bits") if k in grid.values}
    for knob, value in written.items():
        if knob in ("algorithm", "hardware"):
            continue
        if knob not in grid.values:
            if knob == "parameters":
                raise (here / knob).error('belongs to a processor; name one with processor = "..."')
            valid = ("algorithm", "hardware", "processor", *grid.knobs)
            raise (here / knob).error(f"unknown key; {nearest(knob, valid)}")
        knobs[knob] = scalar(value, here / knob)
    try:
        full = axes_of(grid, {k: [v] for k, v in knobs.items()}, {})
    except BadInput as error:
        raise here.error(str(error)) from None
    return Baseline(algorithm, {k: v[0] for k, v in full.items()}, _design(written, place, hardware, base))
