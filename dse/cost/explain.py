"""Where the time, energy and area of one point go. Same code path as `price`, intermediates kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.cost.budget import areas, energies, powers
from dse.cost.memory import kept_streams
from dse.cost.price import BOUNDS, Parts, parts, price
from dse.cost.sources import sources_of
from dse.cost.statistics import Statistics
from dse.cost.workload import Workload
from dse.errors import DseError
from dse.hardware import dram
from dse.hardware.parameters import DRAM_KINDS

FloatArray = NDArray[np.float64]

LIMITS = ("columns", "activations", "window")
"""What may set the time between atoms of a port: data bus and bank groups; tRRD, tFAW and the row-command bus over
the reads per opened page; requests in flight over the loaded latency."""


def explain(
    stats: Statistics,
    design: Mapping[str, ArrayLike],
    workload: Workload,
    overrides: Mapping[str, float] | None = None,
    origins: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """Break the price of one point down.

    Args:
        stats: exactly one setting (`Statistics.take` picks it).
        design: scalars only.
        origins: overridden constant -> source and confidence, where they are known.

    Returns:
        A JSON-like dict. All seconds are sums over the heads of the step, so that they compare with
        `latency_s`:

        - ``metrics``: as `price`, with `bound` by name;
        - ``phases_s``: {phase: {resource: seconds}}, of which the longest of each phase counts;
        - ``phase_bound``: {phase: resource that is longest};
        - ``series_s``: {cause: seconds} added to the phases of each head;
        - ``beside_s``: {engine: seconds} that run beside;
        - ``busy_s`` and ``use``: {resource: seconds} over all phases, and as a fraction of `attention_s`;
        - ``alone_s``: the sum of heads one after another; ``overlap_s`` what heads in flight saved;
        - ``energy_j``, ``power_w``, ``area_mm2``: by component; ``dram_bytes``: by stream;
        - ``dram_efficiency``: compulsory bytes over what peak bandwidth moves while memory is busy;
        - ``fetched_over_useful``: bytes moved over bytes asked for;
        - ``streams``: what each kept-row stream gets from memory and which limit sets it, see `streams`;
        - ``sources``: {energy_j, power_w, area_mm2: {component: its constants}} with value, unit and source.

        In scope ``model`` there is ``rest_s``: {weights, projections: seconds}, of which the longer counts, and
        the tables of energy and bytes have rows of the same names.

    Raises:
        DseError: more than one point was given.
    """
    p = parts(stats, design, workload, overrides)
    if stats.settings != 1 or any(value.size != 1 for value in p.machine.values.values()):
        raise DseError("explain: one point at a time; take one setting and scalar hardware values")
    metrics = {
        name: float(np.ravel(v)[0]) for name, v in price(stats, design, workload, overrides=overrides).items()
    }
    batch = _scalar(p.batch)

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
    seconds = metrics["attention_s"]
    standing = {name: watts * metrics["latency_s"] for name, watts in power.items()}
    around = (
        {"weights": _scalar(p.rest.memory_s), "projections": _scalar(p.rest.compute_s)} if p.whole else {}
    )
    if p.whole:
        energy |= {
            "dram weights": _scalar(p.rest.dram_j),
            "projections": _scalar(p.rest.chip_j - p.rest.fetch_j),
        }
        energy |= {"fetcher weights": _scalar(p.rest.fetch_j)}
    moved = {name: heads(value) for name, value in p.traffic.bytes.items()}
    kept_bytes, useful = sum(moved.values()), heads(p.traffic.useful_bytes)
    if p.whole:
        moved["weights"] = p.rest.dram_bytes
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
        "use": {name: time / seconds for name, time in busy.items()},
        "alone_s": alone,
        "overlap_s": alone - seconds,
        "rest_s": around,
        "energy_j": {**energy, **standing},
        "power_w": power,
        "area_mm2": {name: _scalar(value) for name, value in area.items()},
        "dram_bytes": moved,
        "dram_efficiency": useful / (peak * busy["memory"]) if busy["memory"] else 1.0,
        "fetched_over_useful": kept_bytes / useful if useful else 1.0,
        "streams": streams(p),
        "sources": _sources(p, {"energy_j": energy, "power_w": power, "area_mm2": area}, origins),
    }


def streams(p: Parts) -> list[dict[str, Any]]:
    """Kept-row streams of one point, means over the heads.

    Per stream: rows, of those it ranges over (a prompt's tiles each over what they see) the share that is kept, and
    mean run; bytes asked for and fetched; atoms read per opened page; nanoseconds per atom
    and port that columns, activations and the window each allow; which of them is longest; efficiency, useful
    bytes over what peak bandwidth moves in the stream's time if nothing else ran; what became of the rest, as
    factors of time: ``waste`` (bytes fetched and not asked for), ``limit`` (beyond the data bus), ``refresh``.
    """
    kept = kept_streams(p.ledger, p.machine)
    if kept is None:
        return []
    memory, weights = p.machine.memory, p.ledger.weights
    reads, limits = kept.limits(p.machine, p.machine["dram_channels"])
    each = dram.combined(memory, limits)
    again = p.traffic.rounds / p.ledger.tiles
    found = []
    for i, label in enumerate(kept.labels):
        atoms = _weighted(kept.atoms[i], weights)
        if atoms <= 0:
            continue

        def mean(values: FloatArray, i: int = i, atoms: float = atoms) -> float:
            return _weighted(np.broadcast_to(values, kept.atoms.shape)[i] * kept.atoms[i], weights) / atoms

        rows, heads = _weighted(kept.rows[i], weights), float(weights.sum())
        useful = _weighted(kept.rows[i] * kept.row_bytes[i], weights)
        runs = _weighted(kept.rows[i] / np.maximum(kept.run[i], 1e-12), weights)
        named = dict(zip(LIMITS, (mean(limit) for limit in limits), strict=True))
        burst, taken = _scalar(memory.burst_ns), mean(each)
        fetched = _weighted(kept.atoms[i] * again, weights) * _scalar(memory.atom_bytes)
        refresh = _scalar(memory.refresh)
        found.append({
            "stream": label,
            "rows": rows / heads,
            # The last tile of a prompt may be a short one, which the population takes for a whole one.
            "kept": min(1.0, rows / _weighted(p.ledger.population, weights)),
            "mean_run": rows / max(runs, 1e-12),
            "useful_bytes": useful * _scalar(p.batch),
            "fetched_bytes": fetched * _scalar(p.batch),
            "reads_per_activation": mean(reads),
            "limits_ns": named,
            "limit": max(named, key=named.__getitem__),
            "efficiency": useful / fetched * burst / taken,
            "waste": fetched / useful if useful else 1.0,
            "limit_factor": taken / refresh / burst,
            "refresh": refresh,
        })  # fmt: skip
    return found


def _weighted(values: FloatArray, weights: FloatArray) -> float:
    return float((np.broadcast_to(values, weights.shape) * weights).sum())


def _sources(
    p: Parts, tables: Mapping[str, Mapping[str, Any]], origins: Mapping[str, tuple[str, str]] | None
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    kind = DRAM_KINDS[int(_scalar(p.machine["dram"]))]
    return {
        metric: {
            name: sources_of(
                name, metric.partition("_")[0], kind, p.machine.constants, p.machine.values, origins
            )
            for name, value in components.items()
            if _scalar(value) > 0
        }
        for metric, components in tables.items()
    }


def _scalar(value: ArrayLike) -> float:
    return float(np.ravel(np.asarray(value))[0])
