"""What a change of each hardware parameter would do to one point, and what would bind next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dse.cost.price import parts, price
from dse.cost.statistics import Statistics
from dse.cost.workload import Workload
from dse.hardware.parameters import PARAMETERS, HardwareValue, Parameter

CHANGED = ("latency_s", "energy_j", "area_mm2")


@dataclass(frozen=True)
class Change:
    """One parameter at another value, and the metrics there over those of the point, minus 1."""

    parameter: str
    value: HardwareValue
    instead: HardwareValue
    latency: float
    energy: float
    area: float


def alternatives(parameter: Parameter, value: HardwareValue) -> list[HardwareValue]:
    """Twice a number (half of it where twice is out of range; nothing where it follows the device), or every
    other choice."""
    if parameter.kind == "choice":
        return [choice for choice in parameter.choices if choice != value]
    assert not isinstance(value, str)
    if value == 0:
        return []
    for other in (2 * value, value / 2):
        if parameter.low <= other <= parameter.high and (parameter.kind == "float" or other == int(other)):
            return [other if parameter.kind == "float" else int(other)]
    return []


def sensitivity(
    stats: Statistics,
    design: Mapping[str, HardwareValue],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
) -> list[Change]:
    """Changes of one point, the largest effect on latency first, then on energy.

    Args:
        stats: exactly one setting. design: plain values.
    """
    full = {name: design.get(name, parameter.default) for name, parameter in PARAMETERS.items()}
    base = {name: value for name, value in full.items() if value is not None}
    tried = [
        (name, base[name], instead)
        for name, parameter in PARAMETERS.items()
        for instead in alternatives(parameter, base[name])
    ]
    # One design per row; the first is the point itself.
    rows: dict[str, ArrayLike] = {}
    for name, value in base.items():
        column = [value, *(instead if other == name else value for other, _, instead in tried)]
        rows[name] = np.asarray(column)
    found = price(stats.take([0] * (len(tried) + 1)), rows, workload, CHANGED, overrides)
    table = np.stack([np.broadcast_to(found[name], len(tried) + 1) for name in CHANGED])
    relative = table[:, 1:] / table[:, :1] - 1.0
    changes = [
        Change(name, value, instead, *(float(x) for x in relative[:, i]))
        for i, (name, value, instead) in enumerate(tried)
    ]
    return sorted(changes, key=lambda c: (-abs(c.latency), -abs(c.energy), -abs(c.area)))


@dataclass(frozen=True)
class Rung:
    """A resource and the time below which it keeps the step, however fast everything else becomes.

    `latency` stands for waiting: heads in flight that cannot fill the resources.
    """

    name: str
    seconds: float


def ladder(
    stats: Statistics,
    design: Mapping[str, HardwareValue],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
) -> list[Rung]:
    """What binds, then what would bind next, slowest first; resources that are not used are left out."""
    p = parts(stats, design, workload, overrides)
    weights = p.ledger.weights

    def whole(value: ArrayLike) -> float:
        return float(((np.asarray(value) + np.zeros(weights.shape)) * weights * p.batch).sum())

    rungs = [Rung(name, whole(busy)) for name, busy in p.schedule.busy.items()]
    rungs.append(Rung("latency", whole(p.schedule.alone_s() / p.in_flight)))
    if p.whole:
        rungs += [
            Rung("weights", float(np.ravel(p.rest.memory_s)[0])),
            Rung("projections", float(np.ravel(p.rest.compute_s)[0])),
        ]
    return sorted((r for r in rungs if r.seconds > 0), key=lambda r: -r.seconds)
