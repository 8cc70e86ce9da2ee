"""What prose does not show: retrieval by depth and free-running agreement of settings, as one small JSON table.

A table belongs to one model and one context. Settings are keyed like those of profiles. See `dse.measure.retrieval`
and `dse.measure.free_running` for what was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from dse.errors import LONGEST, BadInput
from dse.inputs import parse_json, read_text
from dse.outputs import write_text
from dse.profiles.schema import Knobs

SCHEMA: Final = 1
SUFFIX: Final = ".probes.json"
MAX_BYTES: Final = 16 << 20
RIGHT: Final = "name a file that 'dse profile probe' wrote"


@dataclass(frozen=True)
class Probe:
    """What one setting did.

    Attributes:
        algorithm, knobs: the setting, knobs at their defaults included.
        right: [sheets][depths] whether the code was said, oldest sentence first; nll: nats per token of it.
        same: [windows] tokens like the dense model's before the first that differs; agree: share of all tokens.
    """

    algorithm: str
    knobs: Knobs
    right: tuple[tuple[bool, ...], ...]
    nll: tuple[tuple[float, ...], ...]
    same: tuple[int, ...]
    agree: tuple[float, ...]

    @property
    def key(self) -> str:
        return json.dumps([self.algorithm, dict(self.knobs)], sort_keys=True)


@dataclass(frozen=True)
class Probes:
    """A table of probes.

    Attributes:
        model: name; context: tokens of a sheet and of a window, `tokens` of which are generated.
        material: digest of all that decides the numbers besides the setting: model, text, windows, scales.
        provenance: what readers want to know: text, versions, command, seed.
    """

    model: str
    context: int
    tokens: int
    material: str
    provenance: Mapping[str, Any]
    rows: tuple[Probe, ...] = ()

    def having(self, row: Probe) -> Probes:
        """With one row more; a row of the same setting is replaced."""
        kept = tuple(one for one in self.rows if one.key != row.key)
        return replace(self, rows=tuple(sorted((*kept, row), key=lambda one: one.key)))

    def find(self, algorithm: str, knobs: Knobs) -> Probe | None:
        """The row of a setting."""
        key = Probe(algorithm, knobs, (), (), (), ()).key
        return next((row for row in self.rows if row.key == key), None)


def write_probes(path: Path, probes: Probes) -> None:
    """Write the table, in one step. Raises OSError."""
    document = {"schema": SCHEMA, **vars(probes), "rows": [vars(row) for row in probes.rows]}
    document["checksum"] = _checksum(document)
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def _checksum(document: Mapping[str, Any]) -> str:
    plain = json.dumps({k: v for k, v in document.items() if k != "checksum"}, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def read_probes(path: Path) -> Probes:
    """The table at `path`. Raises `BadInput` where it is none, damaged, or holds what no probe gives."""
    document = parse_json(str(path), read_text(path, MAX_BYTES, RIGHT), RIGHT)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadInput(f"{path}: schema: is no table of probes of schema {SCHEMA}; {RIGHT}")
    if document.get("checksum") != _checksum(document):
        raise BadInput(f"{path}: checksum: does not fit the content, the file is damaged; {RIGHT}")
    keys = {f.name for f in fields(Probes)}
    for key in sorted({*document, *keys}):
        if key not in (*keys, "schema", "checksum"):
            raise BadInput(f"{path}: {key}: unknown key; {RIGHT}")
        if key in keys and not _KINDS[key](document.get(key)):
            raise BadInput(f"{path}: {key}: is missing or of the wrong kind; {RIGHT}")
    rows = []
    for number, row in enumerate(document["rows"], 1):
        for key in sorted({*row, *_ROW}):
            if key not in _ROW or not _ROW[key](row.get(key)):
                raise BadInput(
                    f"{path}: rows: {key} of row {number} is missing or of the wrong kind; {RIGHT}"
                )
        right, nll, same, agree = (row[key] for key in ("right", "nll", "same", "agree"))
        shape = [len(line) for line in right]
        if shape != [len(line) for line in nll] or len(set(shape)) != 1 or len(same) != len(agree):
            raise BadInput(
                f"{path}: rows: row {number} has lists that are not as long as each other; {RIGHT}"
            )
        if max(same) > document["tokens"]:
            raise BadInput(
                f"{path}: rows: same of row {number} is above tokens, {document['tokens']}; {RIGHT}"
            )
        rows.append(
            Probe(
                row["algorithm"],
                row["knobs"],
                _frozen(right),
                _frozen(nll),
                tuple(same),
                tuple(map(float, agree)),
            )
        )
    if len({row.key for row in rows}) < len(rows):
        raise BadInput(f"{path}: rows: a setting appears twice; {RIGHT}")
    return Probes(**{**{key: document[key] for key in keys}, "rows": tuple(rows)})


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e6


def _texts(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST


def _list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(holds, value))


_KINDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "model": _texts,
    "context": _whole,
    "tokens": _whole,
    "material": _texts,
    "provenance": lambda v: isinstance(v, dict),
    "rows": lambda v: isinstance(v, list) and all(isinstance(row, dict) for row in v),
}
"""Key of a table -> whether a value is such."""

_ROW: Final[Mapping[str, Callable[[Any], bool]]] = {
    "algorithm": _texts,
    "knobs": lambda v: isinstance(v, dict) and all(isinstance(x, str | int | float) for x in v.values()),
    "right": lambda v: _list(v, lambda line: _list(line, lambda x: type(x) is bool)),
    "nll": lambda v: _list(v, lambda line: _list(line, _number)),
    "same": lambda v: _list(v, _whole),
    "agree": lambda v: _list(v, lambda x: _number(x) and x <= 1),
}
"""Likewise of a row."""


def _frozen(lines: list[list[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(line) for line in lines)


def shipped_probes() -> dict[str, Path]:
    """Tables that ship, by the name of the model."""
    folder = resources.files("dse.profiles").joinpath("data")
    found = (Path(str(one)) for one in folder.iterdir() if one.name.endswith(SUFFIX))
    return {path.name.removesuffix(SUFFIX): path for path in sorted(found)}


def load_probes(name_or_path: str) -> Probes:
    """A shipped table by its model's name, or a file. Raises `BadInput`."""
    shipped = shipped_probes()
    if name_or_path in shipped:
        return read_probes(shipped[name_or_path])
    if name_or_path.endswith(".json"):
        return read_probes(Path(name_or_path))
    raise BadInput(
        f"{name_or_path}: no probes of this model ship (there are: {', '.join(shipped) or 'none'}); "
        "measure them with 'dse profile probe'"
    )
