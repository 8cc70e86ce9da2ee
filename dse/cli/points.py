"""Which point a user means: a row of a run, or settings and a design given key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from dse.cost.statistics import Statistics
    from dse.cost.workload import Workload
    from dse.hardware.parameters import HardwareValue
    from dse.profiles.lookup import Selection
    from dse.profiles.schema import KnobValue
    from dse.results import Run
    from dse.space import Space

SHORTEST = 3
"""Fewest characters of a point's id that may stand for it."""

PROFILE = ("smollm2-135m", 1024)
"""Profile and context a preset is explained with."""


@dataclass(frozen=True)
class Point:
    """One point with all that its price needs.

    Attributes:
        knobs: every knob of the algorithm. design: every hardware parameter.
        changed: whether ``--set`` took it off the row it came from.
        run, row: where it is from; None where it was given key by key.
    """

    name: str
    space: Space
    algorithm: str
    knobs: Mapping[str, KnobValue]
    design: Mapping[str, HardwareValue]
    workload: Workload
    components: Mapping[str, float]
    selection: Selection
    changed: bool = False
    run: Run | None = None
    row: int | None = None

    @property
    def origins(self) -> dict[str, tuple[str, str]]:
        """Constants that are the base preset's own -> their source and confidence there."""
        from dse.hardware.presets import read_preset

        base = self.space.base
        try:
            preset = read_preset(base)
        except BadInput:
            return {}  # a run made with a file that is gone, or that is no preset any more
        return {
            name: (f"preset {base}: {entry.source}", entry.confidence)
            for name, entry in preset.components.items()
            if self.components.get(name) == entry.value
        }

    @property
    def stats(self) -> Statistics:
        """Statistics of the one setting, in the load classes sweeps price with."""
        return statistics_of(self.space, self.selection)


@dataclass
class _Given:
    """What ``--set`` gave, by section."""

    algorithm: str = ""
    knobs: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    workload: dict[str, Any] = field(default_factory=dict)
    components: dict[str, Any] = field(default_factory=dict)

    def take(self, text: str, algorithm: str) -> None:
        """The algorithm that ``--set text`` is about, the same for all."""
        if self.algorithm not in ("", algorithm):
            raise BadInput(f"--set {text}: a point has one algorithm; found {self.algorithm} before")
        self.algorithm = algorithm


def find_point(source: str, point: str, overrides: Sequence[str]) -> Point:
    """The point `point` of a run, or the one that ``--set`` describes on a run, space or preset.

    Args:
        source: run directory, space (file or shipped name), or preset.
        point: id (or its beginning), or row number from 1, of a run's front.csv; empty for none.
        overrides: ``key=value``: ``algorithm``, ``ALGORITHM.knob``, ``hardware.parameter``, ``workload.key`` or
            ``components.name``. What they leave out is the row's; without a row the only value that the space has,
            else the baseline's (or its base's) of the hardware and the profile's default of a knob.

    Raises:
        BadInput: no such run, point or key.
    """
    from dse.results import INFO, SPACE, read_run
    from dse.space import load_space

    # Statistics depend on the tile, so the space is read with it.
    tiles = [text for text in overrides if text.partition("=")[0].strip() == "workload.query_tile"]
    directory = Path(source)
    if directory.is_dir():
        if not (directory / SPACE).is_file() and not (directory / INFO).is_file():
            raise BadInput(f"{source}: is not a run; `dse sweep` makes one under results/")
        run = read_run(directory)
        space = load_space(directory / SPACE, tiles)
        if point:
            return point_of_row(run, space, _row(run, point), overrides)
        if not overrides:
            raise BadInput(
                f"{source}: which point? give an id or a row number of front.csv (1 to {len(run.front)})"
            )
        return _of_settings(space, _given(space, overrides), run)
    space = _space(source, tiles)
    if point:
        raise BadInput(f"{source}: POINT {point!r} belongs to a run's directory; describe a point with --set")
    return _of_settings(space, _given(space, overrides))


def statistics_of(space: Space, selection: Selection) -> Statistics:
    """Statistics as sweeps price them."""
    from dse.cost.statistics import statistics_from
    from dse.search.sweep import CLASSES

    return statistics_from(
        selection, space.profile.shape, selection.mean_context, space.workload.grouped, CLASSES
    )


def workload_of(space: Space) -> Workload:
    """The price's view of a space's workload."""
    return space.workload.priced()


def _space(source: str, overrides: Sequence[str]) -> Space:
    """A space by file or name, or a preset with the shipped profile."""
    from dse.hardware.presets import preset_names
    from dse.space import load_space, shipped_spaces

    known = shipped_spaces()
    if source in known or source.endswith(".toml") or "/" in source or Path(source).is_file():
        return load_space(source, overrides)
    if source in preset_names():
        profile, context = PROFILE
        table: dict[str, Any] = {
            "schema": 1,
            "name": source,
            "workload": {"profile": profile, "context": context},
            "hardware": {"base": source},
        }
        return load_space(table, overrides)
    raise BadInput(
        f"{source}: no such run directory, space or preset; {nearest(source, [*known, *preset_names()])}"
    )


def _row(run: Run, point: str) -> int:
    """Position in the front of the row an id (or its beginning) or a row number names.

    Raises:
        BadInput: there is none, or there are several; the message tells them apart.
    """
    ids = [str(value) for value in run.front["point"]]
    if point in ids:
        return ids.index(point)
    begun = [i for i, value in enumerate(ids) if len(point) >= SHORTEST and value.startswith(point)]
    digits = point.isascii() and point.isdigit()
    number = int(point) if digits and len(point) < 12 else 0
    if 1 <= number <= len(ids):
        others = [ids[i] for i in begun if i != number - 1]
        if others:
            raise BadInput(
                f"{run.directory}: {point!r} is the number of the row of point {ids[number - 1]} and begins the id "
                f"{' and '.join(others)}; give the whole id of the point you mean"
            )
        return number - 1
    if len(begun) > 1:
        raise BadInput(f"{run.directory}: {point!r} begins the ids of {len(begun)} points; give more of it")
    if begun:
        return begun[0]
    raise BadInput(
        f"{run.directory}: no point {point!r}; {f'rows go from 1 to {len(ids)}' if digits else nearest(point, ids)}"
    )


def _given(space: Space, overrides: Sequence[str]) -> _Given:
    """Overrides by section, keys checked."""
    from dataclasses import fields

    from dse.hardware.components import COMPONENTS, check_constant
    from dse.hardware.dram import check_devices
    from dse.hardware.parameters import PARAMETERS, check_value
    from dse.space.source import parse_overrides

    known = space.profile.algorithms
    given = _Given()
    settable = [
        f.name for f in fields(space.workload) if f.name not in ("profile", "profile_sha256", "phase")
    ]
    for text, path, value in parse_overrides(overrides):
        if path[0] == "algorithms" and len(path) > 1:
            path = path[1:]
        head = path[0]
        if path == ("algorithm",):
            if value not in known:
                raise BadInput(f"--set {text}: no algorithm {value!r}; {nearest(str(value), known)}")
            given.take(text, value)
        elif head == "hardware" and len(path) == 2:
            if path[1] not in PARAMETERS:
                raise BadInput(f"--set {text}: no such parameter; {nearest(path[1], PARAMETERS)}")
            given.hardware[path[1]] = check_value("--set hardware", path[1], value)
        elif head == "workload" and len(path) == 2:
            if path[1] not in settable:
                raise BadInput(f"--set {text}: no such key; {nearest(path[1], settable)}")
            if path[1] != "query_tile":
                given.workload[path[1]] = value
        elif head == "components" and len(path) == 2:
            if path[1] not in COMPONENTS:
                raise BadInput(f"--set {text}: no such constant; {nearest(path[1], COMPONENTS)}")
            given.components[path[1]] = check_constant("--set components", path[1], value)
        elif head in known and len(path) == 2:
            knobs = space.profile.knobs(head)
            if path[1] not in knobs:
                raise BadInput(f"--set {text}: no such knob; {nearest(path[1], knobs)}")
            given.knobs[path[1]] = _knob(text, value, knobs[path[1]])
            given.take(text, head)
        else:
            sections = ("algorithm", "hardware", "workload", "components", *known)
            if head in sections:
                right = "algorithm=NAME" if head == "algorithm" else f"{head}.KEY=VALUE"
                raise BadInput(f"--set {text}: must be {right}")
            raise BadInput(f"--set {text}: no such key; {nearest(head, sections)}")
    try:
        check_devices({**space.components, **given.components})
    except BadInput as error:
        raise BadInput(f"--set components: {error}") from None
    return given


def _knob(text: str, value: Any, measured: Sequence[KnobValue]) -> KnobValue:
    """The value that ``--set text`` gives a knob: one number, text or truth value, of the measured values' kind."""
    from dse.space.axes import scalar
    from dse.space.source import Place

    place = Place(f"--set {text}")
    if not isinstance(value, bool | int | float | str):
        raise place.error("must be one value")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    have = ", ".join(map(str, measured))
    if all(isinstance(v, str) for v in measured):
        if not number and not isinstance(value, str):
            raise place.error(f"must be text; measured: {have}")
        value = str(value)  # --set a.chunks=12 means the text "12"
    elif not number and all(isinstance(v, int | float) and not isinstance(v, bool) for v in measured):
        raise place.error(f"must be a number; measured: {have}")
    return scalar(value, place)


def _of_settings(space: Space, given: _Given, run: Run | None = None) -> Point:
    """What was given, on the knobs and the machine that the space leaves (`_design`)."""
    from dse.space.definition import DENSE

    algorithm = given.algorithm or DENSE
    if algorithm not in space.profile.algorithms:
        raise BadInput(
            f"--set algorithm={algorithm}: not measured; {nearest(algorithm, space.profile.algorithms)}"
        )
    spec = space.algorithms.get(algorithm)
    knobs = {knob: values[0] for knob, values in spec.knobs.items() if len(values) == 1} if spec else {}
    return _point(space, algorithm, {**knobs, **given.knobs}, _design(space, algorithm, given, run), given)


def _design(space: Space, algorithm: str, given: _Given, run: Run | None) -> dict[str, Any]:
    """What was given, else an algorithm's axes of one value; for swept ones the baseline's value, else the base's.

    Args:
        run: where the space is its record. A file that is its base may have changed since: it is not asked.

    Raises:
        BadInput: nothing says the value of a swept parameter.
    """
    from dse.hardware.parameters import PARAMETERS
    from dse.hardware.presets import load_preset, preset_names

    axes = space.axes(algorithm)
    single = {
        name: values[0]
        for table in (space.hardware, axes)
        for name, values in table.items()
        if len(values) == 1
    }
    design: dict[str, Any] = {**space.baseline.hardware, **single, **given.hardware}
    swept = [name for name in PARAMETERS if name not in design]
    if not swept:
        return design
    if space.base == "explicit":
        why = "the space has no base"
    elif run is not None and space.base not in preset_names():
        why = f"the run does not keep the file of its base {space.base}"
    else:
        try:
            return {**load_preset(space.base), **design}
        except BadInput as error:
            why = str(error)
    where = run.directory if run else f"space {space.name!r}"
    values = " ".join(f"--set hardware.{name}={axes[name][0]}" for name in swept)
    raise BadInput(
        f"{where}: hardware.{swept[0]}: has several values, and {why}; say which, such as {values}"
    )


def point_of_row(run: Run, space: Space, row: int, overrides: Sequence[str]) -> Point:
    """The point of a row, with what was given in its place."""
    given = _given(space, overrides)
    values = run.front.iloc[row]
    algorithm = str(values["algorithm"])
    if given.algorithm not in ("", algorithm):
        raise BadInput(f"--set: the point is of {algorithm}, not {given.algorithm}; leave POINT out")
    knobs = knobs_of_row(space, algorithm, values)
    design = {**design_of_row(values), **given.hardware}
    found = _point(space, algorithm, {**knobs, **given.knobs}, design, given)
    return replace(found, name=str(values["point"]), changed=bool(overrides), run=run, row=row)


def _point(
    space: Space, algorithm: str, knobs: Mapping[str, Any], design: Mapping[str, Any], given: _Given
) -> Point:
    from dse.hardware.parameters import check_design
    from dse.profiles.lookup import select
    from dse.space.source import Place
    from dse.space.workload import read_workload

    workload = read_workload({"workload": space.workload.plain() | given.workload}, Place("--set"))
    space = replace(space, workload=workload)
    selection = select(space.profile, algorithm, {k: [v] for k, v in knobs.items()}, space.workload.context)
    return Point(
        name="",
        space=space,
        algorithm=algorithm,
        knobs=selection.settings[0].knobs,
        design=check_design("design", design),
        workload=space.workload.priced(),
        components={**space.components, **given.components},
        selection=selection,
    )


def knobs_of_row(space: Space, algorithm: str, values: Any) -> dict[str, Any]:
    """The knobs of a row."""
    return {knob: _plain(values[f"{algorithm}.{knob}"]) for knob in space.algorithms[algorithm].knobs}


def design_of_row(values: pd.Series[Any]) -> dict[str, HardwareValue]:
    """The design of a row of a front; parameters newer than its run are left out."""
    from dse.hardware.parameters import PARAMETERS

    return {name: _plain(values[f"hardware.{name}"]) for name in PARAMETERS if f"hardware.{name}" in values}


def _plain(value: Any) -> Any:
    """A table's cell as a Python value."""
    return value.item() if hasattr(value, "item") else value


def front_statistics(
    run: Run, space: Space, rows: Sequence[int]
) -> dict[str, tuple[np.ndarray[Any, Any], Statistics]]:
    """Algorithm -> (which of `rows`, their statistics), for rows of a run's front."""
    import numpy as np

    from dse.profiles.lookup import Resolution, Source, resolve, take

    found = {}
    table = run.front.iloc[list(rows)]
    for algorithm, part in table.assign(_at=range(len(table))).groupby("algorithm", sort=False):
        name = str(algorithm)
        sources: list[Source] = []
        for _, values in part.iterrows():
            knobs = {knob: [value] for knob, value in knobs_of_row(space, name, values).items()}
            sources += resolve(space.profile, name, knobs, space.workload.context, defaults={}).sources
        resolution = Resolution(space.profile, name, space.workload.context, tuple(sources), 0)
        found[name] = (np.asarray(part["_at"]), statistics_of(space, take(resolution)))
    return found
