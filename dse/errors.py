"""What can go wrong, and the exit code each kind gets.

Every error a user can cause is one line of text: the file, the key, what was found, what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

MOST: Final = 600
"""Most characters of a message."""

LONGEST: Final = 80
"""Most characters of a name that is compared with the valid ones."""

MANY: Final = 48
"""Most valid names that a message lists."""


class ExitCode(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    INTERRUPTED = 130


class DseError(Exception):
    """An error to be shown as one line; the command ends with `exit_code`."""

    exit_code = ExitCode.FAILED

    def __str__(self) -> str:
        return one_line(super().__str__())


class BadInput(DseError):
    """The user's file, option or value is wrong; the message says which, how, and what would be right."""

    exit_code = ExitCode.BAD_INPUT


def one_line(text: str) -> str:
    """`text` as one line that can be shown: cut in the middle where it is long, control characters spelt out.

    What users hand in is repeated in messages; it must not fill their screen or move their cursor.
    """
    if len(text) > MOST:
        text = f"{text[: MOST * 2 // 3]} ... {text[-MOST // 3 :]}"
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a misspelt name: the closest valid one, else the whole list."""
    names = [str(v) for v in valid]
    # A long name is no misspelling, and comparing it takes long.
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5) if len(name) <= LONGEST else []
    if close:
        return f"did you mean {close[0]!r}?"
    if len(names) > MANY:
        return f"valid: {', '.join(names[:MANY])} and {len(names) - MANY} more"
    return "valid: " + ", ".join(names) if names else "nothing is valid here"
