"""Which settings `dse profile run` measures: from a grid, a space file, or options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dse.algorithms.contract import Algorithm
from dse.errors import BadInput
from dse.inputs import MAX_TOML, read_text, with_line
from dse.measure.grid import expand, load_grid, shipped_grids, unique
from dse.space.axes import axis_values
from dse.space.source import Place, parse, parse_overrides


def settings_of_file(name: str) -> list[Algorithm]:
    """The settings of a shipped grid, a grid file, or of the algorithms' tables of a space file."""
    path = Path(name)
    if name not in shipped_grids() and path.suffix == ".toml":
        document, place = parse(name, read_text(path, MAX_TOML, "a grid or a space is needed"))
        if "algorithms" in document and "grid" not in document:
            return _settings_of_space(document["algorithms"], place / "algorithms")
    return load_grid(name)


def _settings_of_space(tables: object, place: Place) -> list[Algorithm]:
    settings: list[Algorithm] = []
    for name, table in place.table(tables).items():
        knobs: dict[str, object] = {}
        for knob, written in (place / name).table(table).items():
            at = place / name / knob
            if written == "all":
                raise at.error('"all" stands for what a profile measured; list the values to measure')
            if knob != "unmeasured":
                knobs[knob] = list(axis_values(written, at))

        def where(*key: str, name: str = name) -> str:
            return f"{with_line(place.file, place.lines, (*place.path, name, *key))}: algorithms.{name}"

        settings += expand({"algorithm": name, **knobs}, where)
    return unique(settings)


def settings_of_options(algorithm: str, knobs: tuple[str, ...]) -> list[Algorithm]:
    """The settings of ``--algorithm NAME --set KNOB=VALUE``, where a value in TOML may be a list."""
    table: dict[str, Any] = {"algorithm": algorithm}
    for item in knobs:
        if "=" not in item:
            raise BadInput(f"--set {item}: expected KNOB=VALUE, the value in TOML (a list measures several)")
    for text, path, value in parse_overrides(knobs):
        if len(path) > 1 or path[0] in table:
            raise BadInput(f"--set {text}: must name a knob of {algorithm}")
        table[path[0]] = value
    return unique(expand(table, lambda *key: "--set"))
