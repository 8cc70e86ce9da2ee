"""Where the time, energy and area of one point go. Same code path as `price`, intermediates kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.budget import areas, energies, powers
from dse.cost.price import BOUNDS, parts, price
from dse.cost.statistics import Statistics
from dse.cost.workload import Workload
from dse.errors import DseError

FloatArray = NDArray[np.float64]


def explain(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Break the price of one point down.

    Args:
        stats: exactly one setting (`Statistics.take` picks it).
        design: scalars only.

    Returns:
        A JSON-like dict. All seconds are sums over the heads of the step, so that they compare with
        `latency_s`:

        - ``metrics``: as `price`, with `bound` by name;
        - ``phases_s``: {phase: {resource: seconds}}, of which the longest of each phase counts;
        - ``phase_bound``: {phase: resource that is longest};
        - ``series_s``: {cause: seconds} added to the phases of each head;
        - ``beside_s``: {engine: seconds} that run beside;
        - ``busy_s`` and ``use``: {resource: seconds} over all phases, and as a fraction of the latency;
        - ``alone_s``: the sum of heads one after another; ``overlap_s`` what heads in flight saved;
        - ``energy_j``, ``power_w``, ``area_mm2``: by component; ``dram_bytes``: by stream;
        - ``dram_efficiency``: compulsory bytes over what peak bandwidth moves while memory is busy;
        - ``fetched_over_useful``: bytes moved over bytes asked for.

    Raises:
        DseError: more than one point was given.
    """
    p = parts(stats, design, workload, overrides)
    if stats.settings != 1 or any(value.size != 1 for value in p.machine.values.values()):
        raise DseError("explain: one point at a time; take one setting and scalar hardware values")
    metrics = {
        name: float(np.ravel(v)[0]) for name, v in price(stats, design, workload, overrides=overrides).items()
    }
    batch = workload.batch

    def heads(value: ArrayLike) -> float:
        wide = np.asarray(value, dtype=np.float64) + np.zeros(p.ledger.weights.shape)
        return float(p.ledger.heads(wide).sum()) * batch

    def table(values: Mapping[str, FloatArray]) -> dict[str, float]:
        return {name: heads(value) for name, value in values.items()}

    phases = {name: table(getattr(p.schedule, name)) for name in ("prepare", "first", "second")}
    busy = table(p.schedule.busy)
    area = areas(p.ledger, p.machine, p.buffers)
    power = {name: _scalar(v) for name, v in powers(p.machine, area, p.buffers).items()}
    energy = {k: _scalar(v) * batch for k, v in energies(p.ledger, p.machine, p.traffic, p.buffers).items()}
    latency = metrics["latency_s"]
    standing = {name: watts * latency for name, watts in power.items()}
    moved = {name: heads(value) for name, value in p.traffic.bytes.items()}
    useful = heads(p.traffic.useful_bytes)
    alone = heads(p.schedule.alone_s())
    peak = _scalar(p.machine.peak_bytes_s)
    return {
        "metrics": {**metrics, "bound": BOUNDS[int(metrics["bound"])]},
        "phases_s": phases,
        "phase_bound": {
            name: max(times, key=times.__getitem__) for name, times in phases.items() if any(times.values())
        },
        "series_s": table(p.schedule.series),
        "beside_s": table(p.schedule.beside),
        "busy_s": busy,
        "use": {name: seconds / latency for name, seconds in busy.items()},
        "alone_s": alone,
        "overlap_s": alone - latency,
        "energy_j": {**energy, **standing},
        "power_w": power,
        "area_mm2": {name: _scalar(value) for name, value in area.items()},
        "dram_bytes": moved,
        "dram_efficiency": useful / (peak * busy["memory"]) if busy["memory"] else 1.0,
        "fetched_over_useful": sum(moved.values()) / useful if useful else 1.0,
    }


def _scalar(value: ArrayLike) -> float:
    return float(np.ravel(np.asarray(value))[0])
