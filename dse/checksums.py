"""Checksums of a run's files, kept in ``run.json``: a digit that changed since a run was written is noticed.

They guard against disks, transfers and hands that slip, not against somebody who means harm: who can change a file can
change its checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dse.space.definition import as_floats

if TYPE_CHECKING:
    from dse.space import Space

KEY: Final = "sha256"
"""Entry of ``run.json`` that holds them; runs of older versions have none."""

_PIECE: Final = 1 << 20


def checksums(space: Space, front: str, info: Mapping[str, Any]) -> dict[str, str]:
    """File of a run -> SHA-256 of what it says.

    Spelling does not count: of ``space.toml`` the values are taken, without the profile's place, which may differ
    where the run is read (its own checksum stands in the space); of ``run.json`` the values but these; of ``front.csv``
    the text, however its lines end.

    Args:
        front: the text of ``front.csv``. info: the object of ``run.json``.
    """
    plain = space.plain()
    plain["workload"].pop("profile")
    return {
        "space.toml": _of(as_floats(plain)),
        "front.csv": of_text(front),
        "run.json": _of({key: value for key, value in info.items() if key != KEY}),
    }


def of_text(text: str) -> str:
    """SHA-256 of a table's text, however its lines end."""
    digest = hashlib.sha256()
    start = 0
    while start < len(text):  # piece by piece: no copy of a large table
        end = text.find("\n", start + _PIECE) + 1 or len(text)
        digest.update((b"\n" if start else b"") + "\n".join(text[start:end].splitlines()).encode())
        start = end
    return digest.hexdigest()


def _of(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
