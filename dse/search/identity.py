"""Names of points: the same for the same point, wherever and however it is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dse.hardware.parameters import PARAMETERS, HardwareValue
from dse.profiles.schema import KnobValue


@dataclass(frozen=True)
class Identity:
    """Makes point ids: a short hash of everything that decides what a point is.

    Attributes:
        context: what all points of the space share (profile checksum, workload, overrides, schema).
    """

    context: str

    def __call__(
        self, algorithm: str, knobs: Mapping[str, KnobValue], design: Mapping[str, HardwareValue]
    ) -> str:
        # Parameters that a design leaves at their defaults say nothing: newer ones change no older point's id.
        stated = {k: v for k, v in design.items() if v != PARAMETERS[k].default}
        content = [self.context, algorithm, _plain(knobs), _plain(stated)]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: float(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for k, v in table.items()
    }
