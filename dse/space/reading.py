"""From a TOML file, a table or the name of a shipped space to a resolved `Space`, strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dse.errors import BadInput, nearest
from dse.hardware.dram import check_devices
from dse.hardware.parameters import PARAMETERS, HardwareValue
from dse.inputs import check_tame, is_file, spelt_out
from dse.profiles.lookup import Grid, axes_of
from dse.profiles.profile import Profile
from dse.profiles.schema import KnobValue
from dse.space.against import processor_baseline
from dse.space.algorithms import algorithm_tables, placed, read_algorithms
from dse.space.axes import axis_values, scalar
from dse.space.definition import DENSE, SCHEMA, AlgorithmSpec, Baseline, Space
from dse.space.goals import components, constraints, objectives
from dse.space.hardware import baseline_design, read_hardware
from dse.space.questions import questions
from dse.space.shipped import shipped_spaces
from dse.space.source import Place, apply_overrides, parse, read_text
from dse.space.workload import KEYS as WORKLOAD
from dse.space.workload import fitted, named_profile, read_workload

SECTIONS = (
    "schema", "name", "description", "workload", "algorithms", "hardware", "components", "objectives",
    "constraints", "baseline",
)  # fmt: skip
DECIDING = tuple(name for name in SECTIONS if name not in ("schema", "name", "description"))
"""Sections that decide a space's result."""

BASELINE_BITS = 12

MAX_NAME = 100
"""Most characters of a space's name."""


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
    return resolved(read_written(source), overrides, profile)


@dataclass(frozen=True)
class Written:
    """A space as it is written.

    Attributes:
        table: all of it. place: where it stands. name: of the file, for a space that does not say its own.
        folder: where the file lies, beside which those may lie that it names.
    """

    table: dict[str, Any]
    place: Place
    name: str = "space"
    folder: Path = Path()


def read_written(source: str | Path | Mapping[str, Any]) -> Written:
    """What `load_space` resolves; errors as there, as far as reading goes."""
    if isinstance(source, Mapping):
        table, place = dict(source), Place("space")
        check_tame(table, lambda path, message: Place("space", path=path).error(message))
        return Written(table, place)
    path = find_space(source)
    shipped = path in shipped_spaces().values()  # it lies wherever the package does
    table, place = parse(path.name if shipped else spelt_out(str(path)), read_text(path))
    return Written(table, place, spelt_out(path.stem), path.parent)


def resolved(written: Written, overrides: Sequence[str] = (), profile: Profile | None = None) -> Space:
    """A space that was read, with its overrides, resolved against its profile; arguments and errors as of `load_space`."""
    table, place = apply_overrides(written.table, written.place, overrides)
    return replace(_read(table, place, written.name, written.folder, profile), overridden=bool(overrides))


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
    hardware, hardware_for, base, _ = read_hardware(table, place)
    specs = {
        name: AlgorithmSpec(
            {
                k: axis_values(v, place / "algorithms" / name / k)
                for k, v in knobs.items()
                if k != "unmeasured"
            },
            knobs.get("unmeasured") == "skip",
        )
        for name, knobs in algorithm_tables(table, place).items()
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
    hardware, hardware_for, base, constants = read_hardware(table, place, folder)
    goals, reference = objectives(table, place)
    tables = algorithm_tables(table, place)
    if profile is None:
        profile, workload = named_profile(workload, place, folder)
    workload, profile = fitted(workload, place, profile)
    specs, notes = read_algorithms(tables, place, profile, workload.context)
    for algorithm in hardware_for:
        if algorithm not in specs:
            raise (place / "hardware" / "for" / algorithm).error(
                f"no such algorithm in this space; {nearest(algorithm, specs)}"
            )
    own = components(table, place)
    try:
        check_devices({**constants, **own})
    except BadInput as error:
        raise (place / "components").error(str(error)) from None
    limits = constraints(table, place)
    baseline = _baseline(table, place, folder, profile, workload.context, hardware, base)
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
        constraints=limits,
        baseline=baseline,
        components={**constants, **own},
        notes=(*notes, *questions(hardware, hardware_for, goals, limits, own, baseline.processor)),
        table=profile,
    )
    _look_up(space, place)
    return space


def _look_up(space: Space, place: Place) -> None:
    """Find every setting in the profile now, so that what is missing is said with its place."""
    try:
        space.resolutions  # noqa: B018  (a cached property: computed for its errors)
    except BadInput as error:
        raise placed(error, place, "algorithms") from None
    if space.baseline.processor is not None:
        return
    try:
        space.baseline_rows()
    except BadInput as error:
        raise (place / "baseline").error(str(error)) from None


def _check_schema(table: Mapping[str, Any], place: Place) -> None:
    """Raise where a table is of another version, or has a section that there is not."""
    found = table.get("schema")
    if type(found) is not int or found != SCHEMA:
        newer = (
            "; a newer version of dse wrote it: update dse" if type(found) is int and found > SCHEMA else ""
        )
        what = f"found {found!r}" if "schema" in table else "missing"
        raise (place / "schema").error(f"{what}; must be {SCHEMA}{newer}")
    for key in table:
        if key not in SECTIONS:
            homes = _homes(table, key)
            hint = f"did you mean {' or '.join(map(repr, homes))}?" if homes else nearest(key, SECTIONS)
            raise (place / key).error(f"unknown key; {hint}")


def _homes(table: Mapping[str, Any], key: str) -> list[str]:
    """Where a key belongs that stands at the top and is none of it, by the sections of a space."""
    algorithms = table.get("algorithms")
    written = algorithms if isinstance(algorithms, dict) else {}
    return [
        *([f"hardware.{key}"] if key in PARAMETERS else []),
        *([f"workload.{key}"] if key in WORKLOAD else []),
        *([f"algorithms.{key}"] if key in written else []),
        *(
            f"algorithms.{name}.{key}"
            for name, knobs in written.items()
            if isinstance(knobs, dict) and key in knobs
        ),
    ]


def _name(table: Mapping[str, Any], place: Place, default: str) -> str:
    """The space's name: it becomes the name of a folder."""
    name = _text(table, place, "name", default)
    plain = name.isascii() and all(c.isalnum() or c in "-_." for c in name)
    if not plain or not 1 <= len(name) <= MAX_NAME or name.startswith((".", "-")):
        found = (
            f"found {name!r}"
            if "name" in table or not default
            else f"missing, and the file's, {default!r}, will not do"
        )
        raise (place / "name").error(
            f"{found}; write name = \"...\" of at most {MAX_NAME} letters, digits, '-', '_' and '.', a letter or digit first"
        )
    return name


def _text(table: Mapping[str, Any], place: Place, key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise (place / key).error(f"found {value!r}; must be text")
    return value


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
    return Baseline(algorithm, knobs, baseline_design(written, place, hardware, base))


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
    return Baseline(
        algorithm, {k: v[0] for k, v in full.items()}, baseline_design(written, place, hardware, base)
    )
