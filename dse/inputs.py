"""Files and tables that users hand in: read with bounds, refused where they are not tame.

Nothing here interprets a value. What comes out is plain data of bounded size and depth whose numbers are finite and
whose texts are printable, so that everything behind may take that for granted.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import stat
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from dse.errors import BadInput

MAX_TOML: Final = 1 << 20
"""Most bytes of a TOML file."""

MAX_DEPTH: Final = 12
"""Most tables and lists inside one another, and most parts of a dotted key; five are ever needed."""

MAX_ENTRIES: Final = 200_000
"""Most keys and values of one document."""

MAX_TEXT: Final = 100_000
"""Most characters of one text."""

PIPE_SECONDS: Final = 10.0
"""How long a pipe may stay silent."""

_PART = r"""(?>[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEYS = re.compile(rf"""(?<![A-Za-z0-9_"'-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{2,}}""")
_KEY = r'(?:[A-Za-z0-9_-]+|"[^"]*"|\'[^\']*\')'
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"^\s*(\[\[?)\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"^\s*({_DOTTED})\s*=")

Lines = Mapping[tuple[str, ...], int]
"""Key or table -> the line that it stands on, from 1 (`key_lines`)."""

Complain = Callable[[tuple[str, ...], str], BadInput]
"""Makes the error about the entry at a path: (keys from the top, what is wrong)."""


class NotToml(BadInput):
    """A text that does not follow the grammar of TOML."""


def read_text(path: Path, most: int, right: str, *, pipes: bool = False) -> str:
    """The text of a file in UTF-8.

    Args:
        most: bytes it may have. right: what to give instead, ends every message.
        pipes: whether a pipe will do, such as ``<(command)`` in a shell; otherwise only a regular file.

    Raises:
        BadInput: there is no such file, or it is anything else, too large, silent, or not text.
    """
    try:
        content = read_bytes(path, most, right, pipes=pipes)
        return content.decode("utf-8").removeprefix("\ufeff")  # a mark that some editors write
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not text in UTF-8; {right}") from None


def read_bytes(path: Path, most: int, right: str, *, pipes: bool = False) -> bytes:
    """The content of a file; arguments and errors as of `read_text`."""
    try:
        return _read(path, most, right, pipes)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; {right}") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a directory; {right}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {(error.strerror or 'error').lower()}; {right}") from None
    except ValueError:  # a NUL in the name
        raise BadInput(f"{path}: is no name of a file; {right}") from None


def _read(path: Path, most: int, right: str, pipes: bool) -> bytes:
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for, for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb", buffering=0) as file:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError
        piped = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
        if not stat.S_ISREG(kind) and not (pipes and piped):
            raise BadInput(f"{path}: is a device or a pipe; {right}")
        parts: list[bytes] = []
        size = 0
        while True:
            part = file.read(1 << 20)
            if part is None:  # somebody is there and has not written yet
                if not select.select([handle], [], [], PIPE_SECONDS)[0]:
                    raise BadInput(f"{path}: a pipe that stays silent; {right}")
                continue
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > most:
                raise BadInput(f"{path}: has more than {most} bytes, the most allowed; {right}")


def is_file(path: Path) -> bool:
    """Whether there is such a regular file; false too for what can be no name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def locate(name: str, folder: Path) -> Path:
    """The file that another file names: from where the command runs, or else beside that file.

    What a run records of it then leads there again, and says nothing of the machine where it need not: what lies beside
    a file that was given by its full path is named from where the command runs, if it lies below.

    Args:
        folder: where the file lies that names it.

    Raises:
        BadInput: there are two, and they differ.
    """
    here, beside = Path(name), folder / name
    if not is_file(here) and is_file(beside):
        with suppress(ValueError, OSError):  # it lies elsewhere; the working directory is gone
            return beside.relative_to(Path.cwd())
        return beside
    if is_file(here) and is_file(beside) and not here.samefile(beside):
        import filecmp

        if not filecmp.cmp(here, beside, shallow=False):
            raise BadInput(
                f"{name}: there is one here and another beside the file that names it, {beside}; give the full path of one"
            )
    return here


def places(name: str, folder: Path) -> list[Path]:
    """Where the file may lie that another file names, for who can tell the right one by its content.

    From where the command runs; beside the file that names it, also by its bare name; and from every folder above, one of
    which the command ran in that wrote the name.

    Args:
        folder: where the file lies that names it.
    """
    depth = len(folder.absolute().parts)
    beside, *above = (Path(os.path.normpath(Path(folder, *[".."] * n, name))) for n in range(depth))
    return list(dict.fromkeys((Path(name), beside, folder / Path(name).name, *above)))


def parse_toml(where: str, text: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The table in a TOML text, and the line of each key (`key_lines`).

    Args:
        where: leads messages.

    Raises:
        BadInput: not TOML, or not tame.
    """
    table = toml_table(where, text)
    lines = key_lines(text)

    def complain(path: tuple[str, ...], message: str) -> BadInput:
        return BadInput(f"{with_line(where, lines, path)}: {'.'.join(path)}: {message}")

    check_tame(table, complain)
    return table, lines


def toml_table(where: str, text: str) -> dict[str, Any]:
    """The table in a TOML text, whose values may be anything that TOML can say: `check_tame` is left to the caller.

    Args:
        where: leads messages.

    Raises:
        NotToml: not TOML.
        BadInput: too much to read.
    """
    if len(text) > MAX_TOML:
        raise BadInput(f"{where}: has {len(text)} characters; at most {MAX_TOML} are allowed")
    work = 0
    for key in _LONG_KEYS.finditer(text):
        parts = len(split_key(key[0])) if len(key[0]) < MAX_TEXT else MAX_TEXT
        work += parts * parts  # what reading a key costs
        if parts > MAX_DEPTH or work > MAX_ENTRIES:
            line = text.count("\n", 0, key.start()) + 1
            most = f"keys of more than {MAX_DEPTH} parts" if parts > MAX_DEPTH else "so many dotted keys"
            raise BadInput(f"{where}:{line}: {most}; write them as tables")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotToml(f"{where}: not TOML: {error}") from None
    except RecursionError:
        raise BadInput(
            f"{where}: tables or lists nested too deeply; {MAX_DEPTH} levels are allowed"
        ) from None
    except ValueError:
        raise BadInput(f"{where}: a number has too many digits; whole numbers have at most 64 bits") from None


def with_line(where: str, lines: Lines, path: tuple[str, ...]) -> str:
    """``file:line`` of a key, or of the innermost table around it that has a line; the file alone where none has."""
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    return where if line is None else f"{where}:{line}"


def parse_json(where: str, text: str, right: str) -> Any:
    """The value in a JSON text: no NaN, no infinity, no key twice.

    Args:
        where: leads messages. right: what to do, ends them.

    Raises:
        BadInput: not such JSON, or not tame.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: is not JSON; {right}") from None

    def complain(path: tuple[str, ...], message: str) -> BadInput:
        return BadInput(f"{where}: {'.'.join(path)}: {message}; {right}")

    check_tame(value, complain)
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key twice")
    return table


def check_tame(value: Any, complain: Complain) -> None:
    """Raise where a document is too deep or too large, a number not finite or beyond 64 bits, a text not printable."""
    entries = 0
    stack: list[tuple[tuple[str, ...], Any, int]] = [((), value, 0)]
    while stack:
        path, one, depth = stack.pop()
        if isinstance(one, dict | list | tuple):
            if depth >= MAX_DEPTH:
                raise complain(path[:MAX_DEPTH], f"nested too deeply; {MAX_DEPTH} levels are allowed")
            entries += len(one)
            if entries > MAX_ENTRIES:
                raise complain(path, f"too many entries; at most {MAX_ENTRIES} are allowed")
            if isinstance(one, dict):
                for key, inner in one.items():
                    check_text(str(key), partial(complain, (*path, "a key")))
                    stack.append(((*path, str(key)), inner, depth + 1))
            else:
                stack += [
                    ((*path, str(n)) if isinstance(inner, dict) else path, inner, depth + 1)
                    for n, inner in enumerate(one, 1)
                ]
        elif isinstance(one, str):
            check_text(one, partial(complain, path))
        elif isinstance(one, float) and not math.isfinite(one):
            raise complain(path, f"found {one!r}; numbers must be finite")
        elif isinstance(one, int) and not -(1 << 63) <= one < 1 << 63:
            raise complain(path, f"found a number of {one.bit_length()} bits; whole numbers have at most 64")


def check_text(text: str, complain: Callable[[str], Exception]) -> None:
    """Raise where a text is too long, or holds what would move a terminal's cursor instead of being shown."""
    if len(text) > MAX_TEXT:
        raise complain(f"a text of {len(text)} characters; at most {MAX_TEXT} are allowed")
    if not text.isprintable():
        odd = next(filter(_is_odd, text), None)
        if odd is not None:
            raise complain(f"holds the control character {odd!r}; must be printable text")


def spelt_out(text: str) -> str:
    """`text` as `check_text` takes it, such as the name of a file: what is not printable is escaped as in Python."""
    return text if text.isprintable() else "".join(ascii(c)[1:-1] if _is_odd(c) else c for c in text)


def _is_odd(character: str) -> bool:
    return not character.isprintable() and character not in "\t\n\r\u00a0\u3000"


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Line number (from 1) of every key and table header that starts a line of TOML.

    Tables ``[[a]]`` are counted from 1: the second is ``a.2`` and its keys are ``a.2.b``; ``a`` is the first one's line.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            table = ()
            *around, last = split_key(header[2])
            for part in around:
                table = (*table, part)
                table = (*table, str(counts[table])) if table in counts else table
            table = (*table, last)
            lines.setdefault(table, number)
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table = (*table, str(counts[table]))
                lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault((*table, *split_key(assignment[1])), number)
    return lines


def split_key(dotted: str) -> tuple[str, ...]:
    """The parts of a dotted key, their quotes taken off."""
    return tuple(part.strip().strip("\"'") for part in re.findall(_KEY, dotted))


def is_key(text: str) -> bool:
    """Whether a text is a dotted key of at most `MAX_DEPTH` parts."""
    return bool(re.fullmatch(_DOTTED, text)) and len(split_key(text)) <= MAX_DEPTH
