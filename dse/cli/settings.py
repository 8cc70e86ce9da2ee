"""Which settings `dse profile run` measures: from a grid, a space file, or options."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dse.algorithms.contract import Algorithm
from dse.errors import BadInput
from dse.measure.grid import expand, load_grid, shipped_grids, unique
from dse.space.axes import axis_values
from dse.space.source import Place


def settings_of_file(name: str) -> list[Algorithm]:
    """The settings of a shipped grid, a grid file, or of the algorithms' tables of a space file."""
    path = Path(name)
    if name not in shipped_grids() and path.suffix == ".toml":
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            return load_grid(name)  # which says what is wrong with it
        if "algorithms" in document and "grid" not in document:
            return _settings_of_space(document["algorithms"], path.name)
    return load_grid(name)


def _settings_of_space(tables: object, file: str) -> list[Algorithm]:
    place = Place(file) / "algorithms"
    settings: list[Algorithm] = []
    for name, table in place.table(tables).items():
        knobs: dict[str, object] = {}
        for knob, written in (place / name).table(table).items():
            at = place / name / knob
            if written == "all":
                raise at.error('"all" stands for what a profile measured; list the values to measure')
            if knob != "unmeasured":
                knobs[knob] = list(axis_values(written, at))
        settings += expand({"algorithm": name, **knobs}, f"{file}: algorithms.{name}")
    return unique(settings)


def settings_of_options(algorithm: str, knobs: tuple[str, ...]) -> list[Algorithm]:
    """The settings of ``--algorithm NAME --set KNOB=VALUE``, where a value in TOML may be a list."""
    table: dict[str, Any] = {"algorithm": algorithm}
    for item in knobs:
        key, sign, value = item.partition("=")
        if not sign:
            raise BadInput(f"--set {item}: expected KNOB=VALUE, the value in TOML (a list measures several)")
        try:
            table[key.strip()] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            table[key.strip()] = value.strip()  # a bare word is a string
    return unique(expand(table, "--set"))
