"""What calibration must supply to an algorithm before it runs: one file per need, made when it is missing.

An algorithm names its need (`Algorithm.needs`); a provider knows where the file lies, how to make and how to
read it. The file's checksum becomes part of every measurement that used it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast

from dse.algorithms.contract import Algorithm
from dse.models.arrays import IntArray
from dse.models.protocol import Model


@dataclass(frozen=True)
class Setup:
    """What a table may be made from.

    Attributes:
        model: the language model, and `known_as` the name users call it by.
        texts: token ids by book; only the calibration part may be used.
        folder: where tables of this measurement are kept.
        given: a file the user named for this need, to be used as it is.
    """

    model: Model
    known_as: str
    texts: Mapping[str, IntArray]
    folder: Path
    given: Path | None = None


class Provider(Protocol):
    """A module that supplies one kind of table."""

    def path(self, algorithm: Algorithm, setup: Setup) -> Path:
        """Where the table of this setting lies, made or not. Cheap."""
        ...

    def make(self, algorithm: Algorithm, setup: Setup, path: Path) -> None:
        """Make the file; raises `BadInput` where that needs a command of its own."""
        ...

    def load(self, path: Path) -> object:
        """The table, as `Algorithm.prepare` takes it. Raises `BadInput`."""
        ...


PROVIDERS: Final[Mapping[str, str]] = {
    "thresholds": "dse.measure.thresholds",
    "controller": "dse.measure.train",
}
"""Module of every need."""


def provider(need: str) -> Provider:
    """The provider of `need`."""
    module: Any = import_module(PROVIDERS[need])
    return cast(Provider, module)


def checksum(path: Path) -> str | None:
    """First 16 digits of the file's sha256; None where there is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return None
