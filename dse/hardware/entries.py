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

Wherever a shipped name is accepted, a path to such a file works too; a base's path is looked for where the command runs
and beside the file that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from dse.errors import BadInput, nearest
from dse.inputs import MAX_TOML, Lines, is_file, locate, parse_toml, read_text, with_line

V = TypeVar("V")
W = TypeVar("W")

GIVEN: Final = "as given"
"""Confidence of a value that a user wrote."""

MAX_CHAIN: Final = 16
"""Most files that are based on one another."""

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
    return _read(kind, str(name), _open(kind, str(name)), ())


@dataclass(frozen=True)
class _Written:
    """The table of one file. `where` is what to call the file, `lines` the line of each key."""

    where: str
    table: dict[str, Any]
    lines: Lines

    def at(self, *path: str) -> str:
        """The file and the line of a key or of the table around it."""
        return with_line(self.where, self.lines, path)


def _read(kind: Kind[V], name: str, written: _Written, seen: tuple[str, ...]) -> Document[V]:
    if name in seen or len(seen) == MAX_CHAIN:
        raise BadInput(
            f"{name}: base: the chain of bases comes back to {name!r} or has more than {MAX_CHAIN} files; must end "
            f"in a {kind.noun} without base"
        )
    table, at = written.table, written.at
    valid = ("schema", "description", "base", kind.table, *((CONSTANTS,) if kind.constants else ()))
    for key in table:
        if key not in valid:
            raise BadInput(f"{at(key)}: {key}: no such key; {nearest(key, valid)}")
    if table.get("schema") != 1 or type(table.get("schema")) is not int:
        what = f"found {table['schema']!r}" if "schema" in table else "missing"
        raise BadInput(f"{at('schema')}: schema: {what}; must be 1")
    description, base, values = table.get("description", ""), table.get("base"), table.get(kind.table)
    if not isinstance(description, str):
        raise BadInput(f"{at('description')}: description: found {description!r}; must be text")
    if not isinstance(values, dict):
        raise BadInput(f"{at(kind.table)}: {kind.table}: missing; must be a table of {kind.holds}")
    if base is not None and not isinstance(base, str):
        raise BadInput(f"{at('base')}: base: found {base!r}; must be the name of a {kind.noun} or a path")
    below = None
    if base is not None:
        try:
            place = base if base in shipped_names(kind) else str(locate(base, Path(name).parent))
            opened = _open(kind, place)
        except BadInput as error:
            raise BadInput(f"{at('base')}: base: {error}") from None
        below = _read(kind, place, opened, (*seen, name))
    entries = dict(below.entries) if below else {}
    entries |= {key: _entry(kind.check, at(kind.table, key), key, value) for key, value in values.items()}
    constants = dict(below.constants) if below else {}
    if kind.constants:
        given = table.get(CONSTANTS, {})
        if not isinstance(given, dict):
            raise BadInput(
                f"{at(CONSTANTS)}: {CONSTANTS}: found {given!r}; must be a table of component constants"
            )
        constants |= {
            key: _entry(kind.constants, f"{at(CONSTANTS, key)}: {CONSTANTS}", key, value)
            for key, value in given.items()
        }
    return Document(Path(name).stem, written.where, description, entries, constants)


def _open(kind: Kind[V], name: str) -> _Written:
    """The content of a shipped file or a user's."""
    names = shipped_names(kind)
    if name in names:
        where = f"{kind.noun} {name}"
        text = (files("dse.hardware") / kind.folder / f"{name}.toml").read_text(encoding="utf-8")
    else:
        where = name
        if not is_file(Path(name)):
            raise BadInput(f"no {kind.noun} or file {name!r}; {nearest(name, names)}")
        text = read_text(Path(name), MAX_TOML, f"give a {kind.noun}'s TOML file")
    return _Written(where, *parse_toml(where, text))


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
