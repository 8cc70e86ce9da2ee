"""Where a space comes from: its text, its overrides, and the place of each key for error messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dse import inputs
from dse.errors import BadInput, nearest
from dse.inputs import (
    MAX_TOML,
    Lines,
    NotToml,
    check_tame,
    is_key,
    parse_toml,
    split_key,
    toml_table,
    with_line,
)

_WORD = re.compile(r"^[A-Za-z0-9_+./-]+$")


@dataclass(frozen=True)
class Place:
    """A key of a space, able to say where it stands.

    Attributes:
        file: what to call the source in messages.
        lines: dotted path -> line number of the keys that were found in the text.
        overridden: dotted paths given with ``--set``.
        path: the key.
    """

    file: str
    lines: Lines = field(default_factory=dict)
    overridden: frozenset[tuple[str, ...]] = frozenset()
    path: tuple[str, ...] = ()

    def __truediv__(self, key: str) -> Place:
        return Place(self.file, self.lines, self.overridden, (*self.path, key))

    def at(self, dotted: str) -> Place:
        """The place of a dotted path from the top."""
        return Place(self.file, self.lines, self.overridden, tuple(dotted.split(".")))

    @property
    def by_override(self) -> bool:
        """Whether the value, or a table around it, was given with ``--set``; or all of a table that the file has not."""
        given = any(self.path[: len(p)] == p for p in self.overridden)
        inside = any(p[: len(self.path)] == self.path for p in self.overridden)
        return given or (inside and bool(self.lines) and self.path not in self.lines)

    def error(self, message: str) -> BadInput:
        """``file:line: a.b.c: message``; ``--set a.b.c: message`` for an override."""
        dotted = ".".join(self.path)
        if self.by_override and self.path:
            return BadInput(f"--set {dotted}: {message}")
        where = with_line(self.file, self.lines, self.path)
        return BadInput(f"{where}: {dotted}: {message}" if dotted else f"{where}: {message}")

    def table(self, value: Any, valid: Sequence[str] | None = None) -> dict[str, Any]:
        """`value` if it is a table whose keys are all valid."""
        if not isinstance(value, dict):
            raise self.error(f"found {value!r}; must be a table")
        for key in value:
            if valid is not None and key not in valid:
                raise (self / key).error(f"unknown key; {nearest(key, valid)}")
        return value


def read_text(path: Path) -> str:
    """The text of a space's file, or BadInput."""
    return inputs.read_text(
        path, MAX_TOML, "give a space's TOML file or the name of a shipped space", pipes=True
    )


def parse(file: str, text: str) -> tuple[dict[str, Any], Place]:
    """The table in a TOML text and the place of its keys."""
    table, lines = parse_toml(file, text)
    return table, Place(file, lines)


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """``a.b.c=value`` as path and value; a bare word is a string."""
    dotted, equals, written = text.partition("=")
    if not equals or not is_key(dotted.strip()):
        raise BadInput(f"--set {text}: must be a dotted key, '=' and a value, such as hardware.lanes=16")
    written = written.strip()
    try:
        parsed = toml_table(f"--set {dotted}", f"value = {written}")
    except NotToml:
        if _WORD.match(written):
            return split_key(dotted), written
        raise BadInput(f"--set {text}: {written!r} is not a TOML value; text goes in quotes") from None
    if list(parsed) != ["value"]:
        raise BadInput(f"--set {text}: must be one value")
    check_tame(
        parsed, lambda path, message: BadInput(f"--set {'.'.join((dotted.strip(), *path[1:]))}: {message}")
    )
    return split_key(dotted), parsed["value"]


def parse_overrides(overrides: Sequence[str]) -> list[tuple[str, tuple[str, ...], Any]]:
    """Each text with its path and value.

    Raises:
        BadInput: as `parse_override`, or one would take away what another one gave.
    """
    parsed = [(text, *parse_override(text)) for text in overrides]
    for number, (text, path, _) in enumerate(parsed):
        for earlier, before, _ in parsed[:number]:
            if before[: len(path)] == path:
                raise BadInput(f"--set {text}: takes the place of --set {earlier}; give one of them")
    return parsed


def apply_overrides(
    table: dict[str, Any], place: Place, overrides: Sequence[str]
) -> tuple[dict[str, Any], Place]:
    """A copy of `table` with every override applied, in order."""
    parsed = parse_overrides(overrides)
    for text, path, value in parsed:
        table = _put(table, path, value, text)
    return table, Place(place.file, place.lines, frozenset(path for _, path, _ in parsed), place.path)


def _put(table: dict[str, Any], path: tuple[str, ...], value: Any, text: str) -> dict[str, Any]:
    key, *rest = path
    if not rest:
        return {**table, key: value}
    inner = table.get(key, {})
    if not isinstance(inner, dict):
        raise BadInput(f"--set {text}: {key} is not a table")
    return {**table, key: _put(inner, tuple(rest), value, text)}
