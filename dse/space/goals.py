"""The sections that hold numbers about metrics: objectives, constraints and component overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.errors import BadInput, nearest
from dse.hardware.components import COMPONENTS, check_constant
from dse.profiles.profile import canonical
from dse.space.axes import scalar
from dse.space.definition import Limits
from dse.space.names import LARGEST, METRICS
from dse.space.source import Place

OBJECTIVES = {"speedup": True, "nll_increase": False}
"""What is sought where a space does not say: metric -> maximised?"""


def objectives(table: Mapping[str, Any], place: Place) -> tuple[dict[str, bool], dict[str, float]]:
    """Metric -> maximised?, 2 to 4 of them, and the reference values the user fixed."""
    place = place / "objectives"
    if "objectives" not in table:
        return dict(OBJECTIVES), {}
    written = place.table(table["objectives"], ("maximize", "minimize", "reference"))
    found: dict[str, bool] = {} if {"maximize", "minimize"} & set(written) else dict(OBJECTIVES)
    for key, up in (("maximize", True), ("minimize", False)):
        names = written.get(key, [])
        if not isinstance(names, list):
            raise (place / key).error(f"found {names!r}; must be a list of metrics")
        for name in names:
            if name not in METRICS:
                raise (place / key).error(f"{name!r} is not a metric; {nearest(str(name), METRICS)}")
            if name in found:
                raise (place / key).error(f"{name!r} appears twice; a metric is one objective")
            found[name] = up
    if not 2 <= len(found) <= 4:
        raise place.error(f"{len(found)} objectives; must be 2 to 4")
    reference = (place / "reference").table(written.get("reference", {}), tuple(found))
    worst = {m: number(v, place / "reference" / m) for m, v in reference.items()}
    for metric, value in worst.items():
        if abs(value) > LARGEST:
            raise (place / "reference" / metric).error(
                f"found {value:g}; must be at most {LARGEST:g} in size"
            )
    return found, worst


def number(value: Any, place: Place) -> float:
    """`value` if it is a finite number."""
    value = scalar(value, place)
    if canonical(value)[0] != 0:
        raise place.error(f"found {value!r}; must be a number")
    return float(value)


def constraints(table: Mapping[str, Any], place: Place) -> dict[str, Limits]:
    """Metric -> inclusive bounds."""
    place = place / "constraints"
    written = place.table(table.get("constraints", {}), METRICS)
    limits = {}
    for metric, bounds in written.items():
        here = place / metric
        if not isinstance(bounds, dict) or not bounds:
            raise here.error(f"found {bounds!r}; must be {{ min = ... }}, {{ max = ... }} or both")
        here.table(bounds, ("min", "max"))
        low, high = (number(bounds[k], here / k) if k in bounds else None for k in ("min", "max"))
        if low is not None and high is not None and low > high:
            raise here.error(f"min {low:g} is above max {high:g}; no point can satisfy both")
        limits[metric] = Limits(low, high)
    return limits


def components(table: Mapping[str, Any], place: Place) -> dict[str, float]:
    """Component constant -> the value that replaces the shipped one."""
    place = place / "components"
    written = place.table(table.get("components", {}), tuple(COMPONENTS))
    values = {}
    for name, value in written.items():
        here = place / name
        found = number(value, here)
        try:
            values[name] = check_constant("", name, found)
        except BadInput as error:
            raise here.error(str(error).removeprefix(f": {name}: ")) from None
    return values
