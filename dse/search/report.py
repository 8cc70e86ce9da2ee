"""What a sweep found, as the table of ``front.csv`` and the object of ``run.json``."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dse.cost.processor import price_processor
from dse.inputs import spelt_out
from dse.profiles.error import leave_one_out
from dse.profiles.profile import canonical
from dse.search.front import hypervolume
from dse.search.identity import Identity
from dse.search.metrics import BaselinePrice, Meter
from dse.search.rank import distinct, windows
from dse.search.shards import Chunk, Found, added
from dse.space.definition import DENSE, Space
from dse.space.names import DERIVED, METRICS

if TYPE_CHECKING:
    import pandas as pd

RUN_SCHEMA = 1

BUDGETS = (0.003, 0.01, 0.03, 0.1)
"""Accuracy losses people ask for, nats per token."""

WORTH = 1.02
"""A gain below 2 % is called none: component constants are not known that well."""

LAUNCH_BOUND = 0.5
"""From this share of launches in a processor's attention time on, the reader is told."""

REFERENCE_MARGIN = 0.1
"""The default reference point lies this share beyond the worst value on any algorithm's front."""


def front_table(
    space: Space,
    meter: Meter,
    chunks: Mapping[str, Sequence[Chunk]],
    found: Mapping[str, Found],
    on_front: Mapping[str, NDArray[np.bool_]],
    identity: Identity,
) -> pd.DataFrame:
    """The front of each algorithm with every column, ordered by algorithm and then by cost."""
    import pandas as pd

    losses = windows(space, found)
    parts = [
        _rows(space, meter, chunk, found[name], on_front[name], identity, losses[name])
        for name, list_ in chunks.items()
        for chunk in list_
    ]
    front = pd.concat([p for p in parts if len(p)], ignore_index=True)
    knobs = [f"{a}.{knob}" for a, spec in space.algorithms.items() for knob in spec.knobs]
    hardware = [c for c in front.columns if c.startswith("hardware.")]
    first = ["point", "algorithm", "on_front", "ties", "accuracy"]
    metrics = [*METRICS, "best_dense_as_accurate", "bound"]
    for column in knobs:
        if column not in front:
            front[column] = None
    front["distinct"] = certain(space.objectives, front)
    front["dram_reduction"] = against_traffic(front)
    ranges = [c for c in front.columns if c.endswith(("_low", "_high")) and c not in metrics]
    front = front.drop(columns="_windows")
    order = {name: i for i, name in enumerate(space.algorithms)}
    keys = ["_algorithm", *(f"_cost{i}" for i in range(len(space.objectives))), "point"]
    front["_algorithm"] = front["algorithm"].map(order)
    for i, (name, up) in enumerate(space.objectives.items()):
        front[f"_cost{i}"] = -front[name] if up else front[name]
    front = front.sort_values(keys, kind="stable", ignore_index=True)
    return front[[*first, *knobs, *hardware, *metrics, *ranges, "distinct"]].copy()


def against_traffic(front: pd.DataFrame) -> pd.Series[Any]:
    """``dram_reduction`` of the rows of a ``front.csv``; nothing is so many times less than no traffic at all."""
    return front["dram_reduction"].where(front["dram_bytes"] > 0)


def certain(objectives: Mapping[str, bool], front: pd.DataFrame) -> NDArray[np.bool_]:
    """[rows] whether each row's rank is certain: among the whole front, or else among its algorithm's.

    Args:
        objectives: metric -> maximised?
        front: rows of a ``front.csv``, and their mean losses per window, nats per token, in ``_windows``.
    """
    signs = np.array([-1.0 if up else 1.0 for up in objectives.values()])
    costs = front[list(objectives)].to_numpy(dtype=np.float64) * signs
    on, algorithm = front["on_front"].to_numpy(dtype=bool), front["algorithm"].to_numpy()
    rivals = np.where(on[:, None], on[None, :], algorithm[:, None] == algorithm[None, :])
    return distinct(costs, list(objectives), np.stack(front["_windows"].tolist()), rivals)


def _rows(
    space: Space,
    meter: Meter,
    chunk: Chunk,
    found: Found,
    on_front: NDArray[np.bool_],
    identity: Identity,
    windows: NDArray[np.float64],
) -> pd.DataFrame:
    """The rows of one chunk's settings."""
    import pandas as pd

    from dse.cost.price import BOUNDS

    here = np.flatnonzero((found.setting >= chunk.first) & (found.setting < chunk.first + len(chunk.knobs)))
    setting, design = found.setting[here] - chunk.first, found.design[here]
    if not len(here):
        return pd.DataFrame()
    names = [*METRICS, "best_dense_as_accurate", "bound"]
    hardware = chunk.grid.rows(design)
    metrics = meter.measure(chunk.rows.take(setting), hardware, names, 1)
    sources = space.resolutions[chunk.algorithm].sources
    table: dict[str, Any] = {
        "point": chunk.identities(identity, found.setting[here], design),
        "algorithm": chunk.algorithm,
        "on_front": on_front[here],
        "ties": found.count[here] - 1,
        "accuracy": [sources[s].status for s in found.setting[here].tolist()],
    }
    for knob in space.algorithms[chunk.algorithm].knobs:
        table[f"{chunk.algorithm}.{knob}"] = [chunk.knobs[s][knob] for s in setting.tolist()]
    table |= {f"hardware.{name}": value for name, value in hardware.items()}
    table["hardware.pe_count"] = np.asarray(hardware["lanes"]) * np.asarray(hardware["multipliers"])
    for name, values in metrics.items():
        table[name] = np.broadcast_to(values, here.shape)
    # The very numbers that were compared, so that dominance can be checked from the table.
    table |= _ranges(meter, chunk, setting, hardware)
    for column, (name, up) in zip(found.costs.T, space.objectives.items(), strict=True):
        table[name] = -column[here] if up else column[here]
    table["bound"] = [BOUNDS[int(code)] for code in table["bound"]]
    table["best_dense_as_accurate"] = table["best_dense_as_accurate"].astype(bool)
    order = [*space.hardware, "pe_count"]
    columns = [c for c in table if not c.startswith("hardware.")] + [f"hardware.{name}" for name in order]
    frame = pd.DataFrame({c: table[c] for c in columns}, index=range(len(here)))
    frame["ties"] = frame["ties"].astype(np.int64)
    frame["_windows"] = list(windows[found.setting[here]])
    return frame


def _ranges(
    meter: Meter, chunk: Chunk, setting: NDArray[np.intp], hardware: Mapping[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """What the uncertainty of component constants leaves of the prices; nothing under a stand-in's prices."""
    from dse.cost.price import price
    from dse.cost.ranges import price_range

    if meter.pricer is not price:
        return {}
    stats = chunk.rows.take(setting).stats
    found = price_range(stats, hardware, meter.workload, meter.overrides)
    return {name: np.broadcast_to(values, setting.shape) for name, values in found.items()}


def summary(
    space: Space,
    found: Mapping[str, Found],
    front: pd.DataFrame,
    *,
    seconds: float,
    seed: int,
    command: str,
    baseline: BaselinePrice,
) -> dict[str, Any]:
    """The object of ``run.json``; plain values, None where a number does not exist."""
    evaluated = sum(f.evaluated for f in found.values())
    broken: dict[str, int] = {}
    excluded: dict[str, int] = {}
    for f in found.values():
        broken, excluded = added(broken, f.broken), added(excluded, f.excluded)
    about = describe(space)
    algorithms = {
        name: {
            **{k: v for k, v in about["algorithms"][name].items() if k != "knobs"},
            "infeasible": f.infeasible,
            "front": len(f.costs),
            "on_front": int(front[front["algorithm"] == name]["on_front"].sum()),
        }
        for name, f in found.items()
    }
    reference = reference_point(space, front)
    volumes = hypervolumes(space, front, reference)
    for name, volume in volumes.items():
        if name in algorithms:
            algorithms[name]["hypervolume"] = volume
    info = {
        "schema": RUN_SCHEMA,
        "status": "complete",
        "space": space.name,
        "space_digest": about["digest"],
        "points": about["points"],
        "evaluated": evaluated,
        "excluded": sum(excluded.values()),
        "excluded_by": excluded,
        "infeasible": sum(f.infeasible for f in found.values()),
        "infeasible_by": broken,
        "front": int(front["on_front"].sum()),
        "distinct": int((front["on_front"] & front["distinct"]).sum()),
        "rows": len(front),
        "seconds": seconds,
        "points_per_second": evaluated / seconds if seconds > 0 else None,
        "peak_memory_bytes": peak_memory_bytes(),
        "hypervolume": volumes["*"],
        "reference_point": reference,
        "objectives": about["objectives"],
        "constraints": about["constraints"],
        "algorithms": algorithms,
        "baseline": {**about["baseline"], **baseline.__dict__},
        "conclusion": conclusion(space, front),
        "interpolation_error": interpolation_errors(space),
        "prompt": "dense" if space.workload.phase == "decode" else "sparse",
        "context": about["context"],
        "mean_context": about["mean_context"],
        "grouped": space.workload.grouped,
        "workload": about["workload"],
        "profile": about["profile"],
        "notes": about["notes"],
        "versions": versions(),
        "seed": seed,
        "command": command,
    }
    plain: dict[str, Any] = plain_json(info)
    return plain


def reference_point(space: Space, front: pd.DataFrame) -> dict[str, float]:
    """The point hypervolumes count from: 0 for ratios that are maximised, else a tenth beyond the worst value."""
    reference = {}
    for name, up in space.objectives.items():
        if name in space.reference:
            reference[name] = space.reference[name]
        elif up and (name in DERIVED or name == "top1_agreement"):
            reference[name] = 0.0
        else:
            worst = float(front[name].min() if up else front[name].max())
            away = abs(worst) or float(front[name].abs().max()) or 1.0
            reference[name] = worst + (-away if up else away) * REFERENCE_MARGIN
    return reference


def hypervolumes(space: Space, front: pd.DataFrame, reference: Mapping[str, float]) -> dict[str, float]:
    """Algorithm -> hypervolume of its front; ``"*"`` -> that of all of them together."""
    signs = np.array([-1.0 if up else 1.0 for up in space.objectives.values()])
    names = list(space.objectives)
    costs = front[names].to_numpy(dtype=np.float64) * signs
    point = np.array([reference[name] for name in names]) * signs
    volumes = {"*": hypervolume(costs, point)}
    for name in front["algorithm"].unique():
        volumes[str(name)] = hypervolume(costs[(front["algorithm"] == name).to_numpy()], point)
    return volumes


def conclusion(space: Space, front: pd.DataFrame) -> dict[str, Any]:
    """Data for the closing sentence: per accuracy budget each algorithm's fastest point against dense's.

    `exact` says whether these are the fastest points of the whole space (speed and loss are objectives) or
    only the fastest among the points that other objectives kept.
    """
    budgets = []
    for budget in BUDGETS:
        fastest: dict[str, dict[str, Any]] = {}
        within = front[front["nll_increase"] <= budget]
        for name, rows in within.groupby("algorithm", sort=False):
            row = rows.iloc[int(rows["speedup"].to_numpy().argmax())]
            keys = ("speedup", "speedup_best_dense", "speedup_end_to_end", "nll_increase", "area_mm2")
            fastest[str(name)] = {"point": row["point"], **{k: float(row[k]) for k in keys}}
        dense = fastest.get(DENSE)
        for entry in fastest.values():
            entry["gain"] = None if dense is None else entry["speedup"] / dense["speedup"]
        sparse = {n: e for n, e in fastest.items() if n != DENSE}
        best = max(sparse, key=lambda n: sparse[n]["speedup"], default=None)
        gain = None if best is None else sparse[best]["gain"]
        budgets.append({
            "nll_increase": budget,
            "fastest": fastest,
            "best_sparse": best,
            "gain": gain,
            "sparsity_pays": None if gain is None else gain > WORTH,
        })  # fmt: skip
    fast = space.objectives.get("speedup") is True or space.objectives.get("latency_s") is False
    return {"exact": fast and space.objectives.get("nll_increase") is False, "budgets": budgets}


def interpolation_errors(space: Space) -> dict[str, float]:
    """``algorithm.knob`` -> median error of `nll_increase` (nats) where settings were interpolated in it."""
    errors: dict[str, float] = {}
    for name, resolution in space.resolutions.items():
        measured = {k: {canonical(v) for v in values} for k, values in space.profile.knobs(name).items()}
        between = {
            knob
            for source in resolution.sources
            if len(source.rows) > 1
            for knob, value in source.setting.knobs.items()
            if canonical(value) not in measured[knob]
        }
        for knob in sorted(between):
            errors[f"{name}.{knob}"] = leave_one_out(space.profile, name, knob, space.workload.context)
    return errors


def describe(space: Space) -> dict[str, Any]:
    """What a space holds, without running it: sizes per algorithm, axes, baseline, profile, notes."""
    baseline, notes = _describe_baseline(space)
    algorithms = {}
    for name, resolution in space.resolutions.items():
        interpolated = sum(s.status != "measured" for s in resolution.sources)
        algorithms[name] = {
            "settings": len(resolution.sources),
            "interpolated": interpolated,
            "skipped": resolution.skipped,
            "designs": space.designs(name),
            "points": len(resolution.sources) * space.designs(name),
            "knobs": {knob: list(values) for knob, values in space.algorithms[name].knobs.items()},
        }
    return {
        "name": space.name,
        "description": space.description,
        "points": space.size,
        "algorithms": algorithms,
        "hardware": {name: list(values) for name, values in space.hardware.items() if len(values) > 1},
        "base": space.base,
        "objectives": {name: "maximize" if up else "minimize" for name, up in space.objectives.items()},
        "constraints": {
            name: {k: v for k, v in (("min", x.low), ("max", x.high)) if v is not None}
            for name, x in space.constraints.items()
        },
        "baseline": baseline,
        "profile": {"name": space.profile.name, "checksum": space.profile.checksum},
        "workload": space.workload.plain(),
        "context": space.workload.context,
        "mean_context": mean_context(space),
        "notes": notes,
        "digest": space.digest(),
    }


def mean_context(space: Space) -> float:
    """Mean visible tokens of the space's context bucket."""
    return float(space.profile.mean_context[space.profile.context_index(space.workload.context)])


def _describe_baseline(space: Space) -> tuple[dict[str, Any], list[str]]:
    """The baseline as it is reported, and the space's notes with what must be known about it."""
    base, notes = space.baseline, list(space.notes)
    if base.processor is None:
        about = {"algorithm": base.algorithm, "knobs": dict(base.knobs), "hardware": dict(base.hardware)}
        return about, notes
    w = space.workload
    price = price_processor(base.processor, space.profile.shape, mean_context(space), w.priced(), w.grouped)
    share = price.attention.launch_s / price.attention_s if price.attention_s > 0 else 0.0
    if share > LAUNCH_BOUND:
        launch = base.processor.entries["launch_us"]
        notes.append(
            f"the baseline {base.processor.name} spends {share:.0%} of its attention time on starting operations "
            f"({launch.value:g} us each, confidence {launch.confidence}): speedups over it mostly measure that"
        )
    values = {"parameters": base.processor.values, "bound": price.attention.bound, "launch_share": share}
    return {"processor": base.processor.name, **values}, notes


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far (its workers not counted); 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import platform
    from importlib.metadata import version

    import dse

    names = ("joblib", "moocore", "numpy", "pandas")
    return {"dse": dse.__version__, "python": platform.python_version(), **{n: version(n) for n in names}}


def plain_json(value: Any) -> Any:
    """Built-in types only, so that it can be written as strict JSON, and read again: texts are printable."""
    if isinstance(value, str):
        return spelt_out(value)
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
