"""The breakdown of a point, reduced to what the page draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dse.report.columns import short

_ROUNDING: Final = 1e-9
_STREAM: Final = ("stream", "rows", "fetched_bytes", "waste", "limit", "efficiency")


def reduced(story: Mapping[str, Any]) -> dict[str, Any]:
    """What `dse.cost.explain.explain` tells, without what is nothing.

    Returns:
        ``time_s``: by phase and what binds it, one head after another; ``overlap_s``, what heads in flight hide of
        it; ``phases_s``: what runs at once in each phase; ``rest_s``: the model around attention; ``energy_j`` and
        ``area_mm2`` by component, largest first; ``bytes`` by stream; ``streams``: what memory did for each.
    """
    from dse.charts.breakdown import times

    found: dict[str, Any] = short(
        {
            "time_s": _some(times(story), keep_order=True),
            "phases_s": {name: _some(parts) for name, parts in story["phases_s"].items() if _some(parts)},
            "overlap_s": story["overlap_s"],
            "attention_s": story["metrics"]["attention_s"],
            "rest_s": _some(story["rest_s"]),
            "energy_j": _some(story["energy_j"]),
            "area_mm2": _some(story["area_mm2"]),
            "bytes": _some(story["dram_bytes"]),
            "fetched_over_useful": story["fetched_over_useful"],
            "dram_efficiency": story["dram_efficiency"],
            "streams": [{key: stream[key] for key in _STREAM} for stream in story["streams"]],
        },
        4,
    )
    return found


def _some(parts: Mapping[str, float], keep_order: bool = False) -> dict[str, float]:
    """The parts that are more than rounding, largest first."""
    order = parts.items() if keep_order else sorted(parts.items(), key=lambda item: -item[1])
    least = _ROUNDING * sum(parts.values())
    return {name: float(value) for name, value in order if value > least}
