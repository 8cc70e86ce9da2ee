"""What can go wrong, and the exit code each kind gets.

Every error a user can cause is one line of text: the file, the key, what was found, what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    INTERRUPTED = 130


class DseError(Exception):
    """An error to be shown as one line; the command ends with `exit_code`."""

    exit_code = ExitCode.FAILED


class BadInput(DseError):
    """The user's file, option or value is wrong; the message says which, how, and what would be right."""

    exit_code = ExitCode.BAD_INPUT


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a misspelt name: the closest valid one, else the whole list."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "valid: " + ", ".join(names) if names else "nothing is valid here"
