"""Published numbers beside ours: one module per system, each with a function `rows`.

A row counts only if it was computed by the package's own cost model, presets and shipped profiles. What a source
leaves open is assumed, and said; a row on which a constant of ours was set says that it is fitted. Nothing here is
used by any price.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Final

from dse.errors import BadInput, nearest
from dse.validation.row import PROOFS, Row, Tally, tally

__all__ = ["PROOFS", "SYSTEMS", "Row", "Tally", "tally", "validate"]

SYSTEMS: Final[dict[str, tuple[str, str]]] = {
    # name: (module, title)
    "dense": ("dense", "One dense head, by pen"),
    "token-picker": ("token_picker", "Token-Picker (Park et al., DAC 2024)"),
    "spatten": ("spatten", "SpAtten (Wang et al., HPCA 2021)"),
    "against": ("against", "SpAtten against accelerators and processors"),
    "a3": ("a3", "A3 (Ham et al., HPCA 2020)"),
    "mnnfast": ("mnnfast", "MNNFast (Jang et al., ISCA 2019)"),
    "top-theta": ("top_theta", "Top-Theta (Berestizshevsky et al., 2025)"),
    "adore": ("adore", "ADORE (Zhang et al., ACL 2024)"),
    "dram": ("dram", "DRAM streams (DRAMsim3)"),
    "ramulator": ("ramulator", "DRAM streams (Ramulator 2), a second simulator"),
    "sram": ("sram", "SRAM macros (CACTI 7)"),
}


def validate(systems: Sequence[str] = ()) -> list[Row]:
    """Recompute rows.

    Args:
        systems: names of `SYSTEMS`; none for all.

    Raises:
        BadInput: a name is unknown.
    """
    for name in systems:
        if name not in SYSTEMS:
            raise BadInput(f"validate: {name}: no such system; {nearest(name, SYSTEMS)}")
    chosen = [name for name in SYSTEMS if name in systems or not systems]
    found: list[Row] = []
    for name in chosen:
        found += importlib.import_module(f"dse.validation.{SYSTEMS[name][0]}").rows()
    return found
