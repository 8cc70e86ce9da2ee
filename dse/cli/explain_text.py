"""What `dse explain` knows about a point, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dse.cli.environment import Environment
from dse.cli.table import Column, fixed, layout, significant

if TYPE_CHECKING:
    from dse.cli.points import Point

_SMALL = 0.005
"""Components below this share of a table's sum are added up in one row."""

_STILL = 0.0005
"""A change below this is printed as none."""

_PHASES = {
    "prepare": "before the fetch",
    "first": "K, q x k (and V alongside)",
    "second": "V, p x v",
}


def show(environment: Environment, point: Point, story: Mapping[str, Any]) -> None:
    """The story as text."""
    _head(environment, point, story)
    _time(environment, story)
    _memory(environment, story)
    metrics = story["metrics"]
    _components(
        environment, "energy", "uJ", 1e6, story["energy_j"], story["sources"], ("energy_j", "power_w")
    )
    _components(environment, "area", "mm2", 1.0, story["area_mm2"], story["sources"], ("area_mm2",))
    _constants(environment, story)
    _changes(environment, story["sensitivity"])
    _next(environment, story["ladder"], metrics)
    _standing(environment, story["rank"])


def _title(environment: Environment, text: str) -> None:
    environment.print()
    for line in textwrap.wrap(text, environment.columns, subsequent_indent="  "):
        environment.print(environment.style(line, bold=True))


def _paragraph(environment: Environment, text: str, indent: str = "  ") -> None:
    for line in textwrap.wrap(text, environment.columns, subsequent_indent=indent):
        environment.print(line)


def _table(environment: Environment, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    table = layout(rows, columns, environment.columns)
    for number, line in enumerate(table.lines):
        environment.print(environment.style(line, dim=True) if number < table.headers else line)


def _head(environment: Environment, point: Point, story: Mapping[str, Any]) -> None:
    from dse.charts.labels import brief

    knobs = ", ".join(f"{name}={brief(value)}" for name, value in point.knobs.items())
    name = f"{point.name}: " if point.name else ""
    changed = ", changed by --set" if point.changed else ""
    environment.print(environment.style(f"{name}{point.algorithm}{changed}", bold=True))
    work, m, batch = point.workload, story["metrics"], story["metrics"]["batch"]
    scope = "attention of" if work.scope == "attention" else "the whole model in"
    step = "one decode step" if work.phase == "decode" else "one prompt"
    shared = "" if story["workload"]["grouped"] else ", every query head fetches for itself"
    _paragraph(environment, f"  knobs     {knobs}", "            ")
    d = point.design
    machine = (
        f"{d['lanes']} x {d['multipliers']} multipliers of {d['multiplier_bits']} x {d['operand_bits']} bit at "
        f"{d['clock_ghz']:g} GHz and {d['node_nm']:g} nm, {d['key_buffer_kib']:g} + {d['value_buffer_kib']:g} KiB "
        f"for each of {d['heads_in_flight']} heads in flight, {d['dram_channels']} channels of {d['dram']}, "
        f"{d['layout']}"
    )
    _paragraph(environment, f"  machine   {machine}", "            ")
    _paragraph(
        environment,
        f"  workload  {scope} {step}, {point.space.workload.profile}, context {work.context}, batch {batch:g}{shared}",
        "            ",
    )
    loss, low, high = (m[f"nll_increase{end}"] for end in ("", "_low", "_high"))
    _paragraph(
        environment,
        f"  accuracy  loss {loss:.4f} nats per token ({low:.4f} to {high:.4f}), perplexity "
        f"{significant(m['perplexity'], 4)}, {story['accuracy']}",
        "            ",
    )
    for title, key, unit, scale in (
        ("latency", "latency_s", "us", 1e6),
        ("energy", "energy_j", "uJ", 1e6),
        ("area", "area_mm2", "mm2", 1.0),
    ):
        value, least, most = (significant(m[f"{key}{end}"] * scale) for end in ("", "_low", "_high"))
        more = {
            "latency": f"; floor {significant(m['floor_s'] * 1e6)} us; bound: {m['bound']}",
            "energy": f"; {significant(m['power_w'])} W, of which chip {significant(m['power_chip_w'])} W",
            "area": " without DRAM",
        }[title]
        _paragraph(environment, f"  {title:<8}  {value} {unit} ({least} to {most}){more}", "            ")
    if m["memory_fill"] > 1:
        environment.print(
            f"  memory    holds {m['memory_fill']:.2f} times what fits: at most {m['batch_limit']:g} sequences"
        )


def _time(environment: Environment, story: Mapping[str, Any]) -> None:
    _title(environment, "time: in a phase all run at once, and the longest counts")
    m = story["metrics"]
    rows: list[dict[str, Any]] = []
    for name, parts in story["phases_s"].items():
        used = {k: v for k, v in sorted(parts.items(), key=lambda x: -x[1]) if v > 0}
        if used:
            longest = next(iter(used.values()))
            rows.append({"what": _PHASES[name], "time": longest, "detail": _each(used)})
    series = {k: v for k, v in sorted(story["series_s"].items(), key=lambda x: -x[1]) if v > 0}
    if series:
        rows.append({"what": "in series", "time": sum(series.values()), "detail": _each(series)})
    beside = {k: v for k, v in story["beside_s"].items() if v > 0}
    if beside:
        rows.append({"what": "beside everything", "time": max(beside.values()), "detail": _each(beside)})
    if story["overlap_s"] > 0:
        rows.append({
            "what": "overlap of heads", "time": -story["overlap_s"],
            "detail": f"{story['hardware']['heads_in_flight']} heads in flight",
        })  # fmt: skip
    if story["rest_s"]:
        rows.append({"what": "attention", "time": m["attention_s"], "detail": ""})
        rows.append({"what": "rest of the model", "time": m["rest_s"], "detail": _each(story["rest_s"])})
    rows.append({"what": "step", "time": m["latency_s"], "detail": ""})
    _table(
        environment,
        rows,
        (
            Column("what", "phase", text=str, left=True),
            Column("time", "time", "us", text=lambda v: significant(v * 1e6)),
            Column("detail", "of which", "us", text=str, left=True, shrink_to=30, wrap=True),
        ),
    )


def _each(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {significant(value * 1e6)}" for name, value in parts.items())


def _memory(environment: Environment, story: Mapping[str, Any]) -> None:
    total = sum(story["dram_bytes"].values())
    _title(
        environment,
        f"memory: {significant(total / 1e6)} MB, {story['fetched_over_useful']:.3g} times what was asked for; "
        f"{100 * story['dram_efficiency']:.0f} % of the peak while busy",
    )
    if not story["streams"]:
        return
    rows = [{**s, "ns": s["limits_ns"][s["limit"]]} for s in story["streams"]]
    _table(
        environment,
        rows,
        (
            Column("stream", "stream", text=str, left=True),
            Column("rows", "rows", "per head"),
            Column("mean_run", "run", "rows", priority=3),
            Column("fetched_bytes", "fetched", "MB", text=lambda v: significant(v / 1e6)),
            Column("waste", "fetched", "/ asked", text=fixed(2), priority=2),
            Column("reads_per_activation", "atoms", "per page", priority=1),
            Column("limit", "limit", text=str, left=True),
            Column("ns", "its time", "ns/atom"),
            Column("limit_factor", "slow-", "down", text=fixed(2), priority=1),
            Column("efficiency", "of peak", "%", text=lambda v: f"{100 * v:.0f}"),
        ),
    )


def _components(
    environment: Environment,
    title: str,
    unit: str,
    scale: float,
    values: Mapping[str, float],
    sources: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    tables: Sequence[str],
) -> None:
    """One row per component with its share and the names of the constants it rests on; small ones together."""
    total = sum(values.values())
    _title(environment, f"{title}: {significant(total * scale)} {unit}")
    rows: list[dict[str, Any]] = []
    small = 0.0
    for name, value in sorted(values.items(), key=lambda item: -item[1]):
        if value < _SMALL * total:
            small += value
            continue
        known = next((sources[t][name] for t in tables if name in sources[t]), [])
        rows.append({"name": name, "value": value * scale, "share": value / total, "rests": _rests(known)})
    if small:
        rows.append({"name": "all others", "value": small * scale, "share": small / total, "rests": ""})
    _table(
        environment,
        rows,
        (
            Column("name", "component", text=str, left=True),
            Column("value", title, unit),
            Column("share", "share", "%", text=lambda v: f"{100 * v:.1f}"),
            Column("rests", "rests on", text=str, left=True, shrink_to=30, wrap=True),
        ),
    )


def _rests(entries: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(entry["name"] for entry in entries)


def _constants(environment: Environment, story: Mapping[str, Any]) -> None:
    """Every constant that a component shown above rests on, once, with its source."""
    rows: dict[str, Mapping[str, Any]] = {}
    for metric, components in story["sources"].items():
        values = story[metric]
        total = sum(values.values())
        for name, entries in components.items():
            # Powers are shown as energy.
            share = (
                story["energy_j"][name] / sum(story["energy_j"].values())
                if metric == "power_w"
                else values[name] / total
            )
            if share >= _SMALL:
                rows |= {entry["name"]: entry for entry in entries}
    _title(environment, "the constants these rest on")
    _table(
        environment,
        [{**row, "range": _range(row)} for row in rows.values()],
        (
            Column("name", "constant", text=str, left=True),
            Column("value", "value"),
            Column("range", "range", text=str, left=True, priority=2),
            Column("unit", "unit", text=str, left=True, priority=1, shrink_to=8),
            Column("node_nm", "node", "nm", text=lambda v: f"{v:g}" if v else "-", priority=4),
            Column("confidence", "confidence", text=lambda v: str(v or "-"), left=True, priority=3),
            Column("source", "source", text=str, left=True, shrink_to=30, wrap=True),
        ),
    )


def _range(row: Mapping[str, Any]) -> str:
    if "low" not in row or row["low"] == row["high"]:
        return "-"
    return f"{significant(row['low'])} to {significant(row['high'])}"


def _changes(environment: Environment, changes: Sequence[Mapping[str, Any]]) -> None:
    from dse.charts.labels import brief

    moving = [c for c in changes if any(abs(c[k]) >= _STILL for k in ("latency", "energy", "area"))]
    _title(environment, "what a change of one parameter does")
    rows = [{**c, "change": f"{brief(c['value'])} -> {brief(c['instead'])}"} for c in moving]
    _table(
        environment,
        rows,
        (
            Column("parameter", "parameter", text=str, left=True),
            Column("change", "change", text=str, left=True),
            *(Column(k, k, "%", text=_percent) for k in ("latency", "energy", "area")),
        ),
    )
    shown = {c["parameter"] for c in moving}  # another value of it may do nothing
    still = list(dict.fromkeys(c["parameter"] for c in changes if c["parameter"] not in shown))
    if still:
        _paragraph(environment, f"no effect: {', '.join(still)}")


def _percent(value: float) -> str:
    return "-" if abs(value) < _STILL else f"{100 * value:+.1f}"


def _next(environment: Environment, rungs: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> None:
    _title(environment, "what binds next")
    shown = [r for r in rungs if r["seconds"] > 0.05 * rungs[0]["seconds"]]
    first, *others = shown
    text = f"{first['name']} keeps the step at {significant(first['seconds'] * 1e6)} us or more"
    for rung in others:
        text += (
            f"; {first['seconds'] / rung['seconds']:.2f} times less of it, then {rung['name']} "
            f"({significant(rung['seconds'] * 1e6)} us)"
            if rung is others[0]
            else f", {rung['name']} ({significant(rung['seconds'] * 1e6)} us)"
        )
    _paragraph(environment, text)


def _standing(environment: Environment, rank: Mapping[str, Any] | None) -> None:
    if rank is None:
        return
    _title(environment, "does its rank survive the ranges of the constants?")
    if not rank["on_front"]:
        text = "It is on its algorithm's front only: something in the space dominates it as priced."
    elif rank["survives"]:
        text = (
            f"Yes: none of the {rank['against']} other points of the front dominates it in any of {rank['scenarios']} "
            "scenarios (each group of constants at its low and at its high end)."
        )
    else:
        where = "; ".join(
            f"{name} ({', '.join(ids[:2])}{' and others' if len(ids) > 2 else ''})"
            for name, ids in rank["lost"].items()
        )
        text = f"No: in {len(rank['lost'])} of {rank['scenarios']} scenarios another point dominates it: {where}."
    _paragraph(environment, text)
