"""Named tables of values, one TOML file each, every value with its source and confidence.

Designs (`dse.hardware.presets`) and processors (`dse.hardware.processors`) are such files:

    schema = 1
    description = "..."
    base = "another one"        # optional
    [design]                    # or [processor]
    lanes = { value = 16, source = "...", confidence = "..." }
    dram_channels = 8           # a plain value is the user's own
    [components]                # optional, designs only: constants that its published silicon gives
    exponent_um2 = { value = 96200, source = "...", confidence = "..." }

Wherever a shipped name is accepted, a path to such a file works too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from dse.errors import BadInput, nearest

V = TypeVar("V")
W = TypeVar("W")

GIVEN: Final = "as given"
"""Confidence of a value that a user wrote."""

CONSTANTS: Final = "components"
"""Name of the table of component constants."""

USERS: Final = "the user's file"
"""Source of a value that a user wrote."""


@dataclass(frozen=True)
class Entry(Generic[V]):
    """One value and where it is from."""

    value: V
    source: str
    confidence: str


@dataclass(frozen=True)
class Kind(Generic[V]):
    """A kind of file.

    Attributes:
        noun: what one is called. folder: package data that holds the shipped ones. table: the TOML table.
        holds: what the table's keys are, for messages.
        check: validates ``(where, key, value)``, raises `BadInput`.
        constants: validates an entry of an optional second table, `CONSTANTS`; None where there is no such table.
    """

    noun: str
    folder: str
    table: str
    holds: str
    check: Callable[[str, str, object], V]
    constants: Callable[[str, str, object], float] | None = None


@dataclass(frozen=True)
class Document(Generic[V]):
    """One file with those it is based on merged in; nothing is said about completeness.

    `where` leads messages about it.
    """

    name: str
    where: str
    description: str
    entries: dict[str, Entry[V]]
    constants: dict[str, Entry[float]]


def shipped_names(kind: Kind[V]) -> tuple[str, ...]:
    """Names of the shipped files."""
    folder = files("dse.hardware") / kind.folder
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def read_document(kind: Kind[V], name: str | Path) -> Document[V]:
    """A shipped file by name, or a user's by path.

    Raises:
        BadInput: there is none, or it is wrong; one line that says where and what would be right.
    """
    return _read(kind, str(name), ())


def _read(kind: Kind[V], name: str, seen: tuple[str, ...]) -> Document[V]:
    if name in seen:
        raise BadInput(
            f"{name}: base: the chain of bases comes back to {name!r}; must end in a {kind.noun} without base"
        )
    where, table = _table(kind, name)
    valid = ("schema", "description", "base", kind.table, *((CONSTANTS,) if kind.constants else ()))
    for key in table:
        if key not in valid:
            raise BadInput(f"{where}: {key}: no such key; {nearest(key, valid)}")
    if table.get("schema") != 1 or isinstance(table.get("schema"), bool):
        raise BadInput(f"{where}: schema: found {table.get('schema')!r}; must be 1")
    description, base, written = table.get("description", ""), table.get("base"), table.get(kind.table)
    if not isinstance(description, str):
        raise BadInput(f"{where}: description: found {description!r}; must be text")
    if not isinstance(written, dict):
        raise BadInput(f"{where}: {kind.table}: missing; must be a table of {kind.holds}")
    if base is not None and not isinstance(base, str):
        raise BadInput(f"{where}: base: found {base!r}; must be the name of a {kind.noun} or a path")
    below = _read(kind, base, (*seen, name)) if base is not None else None
    entries = dict(below.entries) if below else {}
    entries |= {key: _entry(kind.check, where, key, value) for key, value in written.items()}
    constants = dict(below.constants) if below else {}
    if kind.constants:
        given = table.get(CONSTANTS, {})
        if not isinstance(given, dict):
            raise BadInput(f"{where}: {CONSTANTS}: found {given!r}; must be a table of component constants")
        inside = f"{where}: {CONSTANTS}"
        constants |= {key: _entry(kind.constants, inside, key, value) for key, value in given.items()}
    return Document(Path(name).stem, where, description, entries, constants)


def _table(kind: Kind[V], name: str) -> tuple[str, dict[str, Any]]:
    """What to call a file in messages, and its content."""
    names = shipped_names(kind)
    if name in names:
        where = f"{kind.noun} {name}"
        text = (files("dse.hardware") / kind.folder / f"{name}.toml").read_text(encoding="utf-8")
    else:
        path, where = Path(name), name
        if not path.is_file():
            raise BadInput(f"no {kind.noun} or file {name!r}; {nearest(name, names)}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{name}: cannot be read: {error}; must be a TOML file in UTF-8") from error
    try:
        return where, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where}: not TOML: {error}") from error


def _entry(check: Callable[[str, str, object], W], where: str, key: str, written: object) -> Entry[W]:
    if not isinstance(written, dict):
        return Entry(check(where, key, written), USERS, GIVEN)
    valid = ("value", "source", "confidence")
    for inner in written:
        if inner not in valid:
            raise BadInput(f"{where}: {key}.{inner}: no such key; {nearest(str(inner), valid)}")
    if "value" not in written:
        raise BadInput(
            f"{where}: {key}: has no value; must be {{ value = ..., source = ..., confidence = ... }}"
        )
    source, confidence = written.get("source", USERS), written.get("confidence", GIVEN)
    if not isinstance(source, str) or not isinstance(confidence, str):
        raise BadInput(f"{where}: {key}: source and confidence must be text")
    return Entry(check(where, key, written["value"]), source, confidence)
