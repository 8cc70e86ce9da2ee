"""Which settings a measurement runs: TOML tables of knob lists, each a Cartesian product."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from dse.algorithms import algorithm_class
from dse.algorithms.contract import Algorithm
from dse.errors import BadInput, nearest
from dse.inputs import MAX_TOML, parse_toml, read_text, with_line

MAX_SETTINGS = 20_000
"""Most settings of one measurement; the largest grid that ships has 217."""


def shipped_grids() -> dict[str, Path]:
    """Grids that come with the package, by name."""
    folder = Path(str(files("dse.measure"))) / "grids"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_grid(name: str) -> list[Algorithm]:
    """The settings of a shipped grid or of a TOML file, without repetition, in file order.

    The file holds tables ``[[grid]]`` with `algorithm` and knobs, each knob one value or a list.

    Raises:
        BadInput: no such grid, not TOML, or an unknown algorithm, knob or value.
    """
    known = shipped_grids()
    path = known.get(name, Path(name))
    right = f"{nearest(name, known)} (or a TOML file)"
    try:
        text = read_text(path, MAX_TOML, right, pipes=True)
    except BadInput as error:
        raise BadInput(f"grid {name!r}: cannot be read: {error}") from None
    file = path.name if name in known else name
    document, lines = parse_toml(file, text)
    for key in document:
        if key != "grid":
            place = with_line(file, lines, (key,))
            raise BadInput(f"{place}: {key}: unknown key; a grid file holds [[grid]] tables only")
    tables = document.get("grid", [])
    if not isinstance(tables, list) or not tables:
        raise BadInput(f"{with_line(file, lines, ('grid',))}: no [[grid]] table")
    settings: list[Algorithm] = []
    for number, table in enumerate(tables, 1):

        def where(*key: str, number: int = number) -> str:
            return f"{with_line(file, lines, ('grid', str(number), *key))}: grid {number}"

        if not isinstance(table, dict):
            raise BadInput(f"{where()}: found {table!r}; a table [[grid]] would be right")
        settings += expand(table, where, MAX_SETTINGS - len(settings))
    return unique(settings)


def expand(table: dict[str, object], where: Callable[..., str], most: int = MAX_SETTINGS) -> list[Algorithm]:
    """All settings of one table.

    Args:
        where: what leads a message about a key of the table, or without one about all of it.

    Raises:
        BadInput: no or an unknown algorithm, an unknown knob, a value out of range, or more settings than `most`.
    """
    table = dict(table)
    name = table.pop("algorithm", None)
    if not isinstance(name, str):
        found = "missing" if name is None else f"found {name!r}"
        raise BadInput(f"{where('algorithm')}: algorithm: {found}; every [[grid]] names one")
    cls = algorithm_class(name, where("algorithm"))
    axes = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
    count = 1
    for key, values in axes.items():
        if not values:
            raise BadInput(f"{where(key)}: {key}: empty list")
        count *= len(values)
    if count > most:
        raise BadInput(f"{where()}: {count} settings; {most} more are allowed, {MAX_SETTINGS} in all")
    return [
        _setting(cls, dict(zip(axes, combination, strict=True)), where)
        for combination in itertools.product(*axes.values())
    ]


def _setting(cls: type[Algorithm], knobs: dict[str, object], where: Callable[..., str]) -> Algorithm:
    """One setting; an error about one of its knobs is said where that knob stands."""
    try:
        return cls(knobs, where())
    except BadInput as error:
        said = str(error)
        key = next((key for key in knobs if said.startswith(f"{where()}.{key}:")), None)
        raise error if key is None else BadInput(where(key) + said.removeprefix(where())) from None


def unique(settings: Sequence[Algorithm]) -> list[Algorithm]:
    """Without repetitions, first come first kept."""
    seen: dict[tuple[object, ...], Algorithm] = {}
    for algorithm in settings:
        seen.setdefault((algorithm.name, *sorted(algorithm.settings.items())), algorithm)
    return list(seen.values())
