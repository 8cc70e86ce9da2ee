"""`dse list`: what there is to choose from."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.table import Column, layout, significant
from dse.errors import BadInput, nearest

Entry = dict[str, Any]

PLANE_VALUES: Final = 4
"""Measured values of a knob from which on leaving one out says something: with three it bridges the whole range."""


def _spaces() -> list[Entry]:
    import tomllib

    from dse.space import load_space, shipped_spaces

    profiles: dict[Any, Any] = {}  # most spaces are of one, and reading it takes longer than all the rest
    entries = []
    for name, path in shipped_spaces().items():
        workload = tomllib.loads(path.read_text(encoding="utf-8"))["workload"]
        key = workload["profile"], workload.get("phase")
        space = load_space(name, profile=profiles.get(key))
        profiles[key] = space.profile
        entries.append({"name": name, "points": space.size, "description": space.description})
    return entries


def _algorithms() -> list[Entry]:
    from dse.algorithms import registry

    return [
        {
            "name": name,
            "summary": algorithm.summary,
            "source": algorithm.source,
            "shown": f"{algorithm.summary}; knobs: {', '.join(knob.name for knob in algorithm.knobs)}",
            "knobs": {
                knob.name: {"default": knob.default, "help": knob.help, "low": knob.low, "high": knob.high,
                            "choices": list(knob.choices)}
                for knob in algorithm.knobs
            },
        }
        for name, algorithm in registry().items()
    ]  # fmt: skip


def _hardware() -> list[Entry]:
    from dse.hardware.presets import preset_names, read_preset

    entries = []
    for name in preset_names():
        preset = read_preset(name)
        values = {
            key: {"value": entry.value, "source": entry.source, "confidence": entry.confidence}
            for key, entry in preset.entries.items()
        }
        constants = {
            key: {"value": entry.value, "source": entry.source, "confidence": entry.confidence}
            for key, entry in preset.components.items()
        }
        design = preset.design
        entries.append({
            "name": name,
            "description": preset.description,
            "machine": f"{design['lanes']}x{design['multipliers']}",
            "memory": f"{design['dram_channels']} x {design['dram']}",
            "parameters": values,
            "components": constants,
        })  # fmt: skip
    return entries


def _processors() -> list[Entry]:
    from dse.hardware.processors import PROCESSOR_PARAMETERS, load_processor, processor_names

    entries = []
    for name in processor_names():
        processor = load_processor(name)
        values = {
            key: {"value": value, "unit": PROCESSOR_PARAMETERS[key].unit,
                  "source": processor.entries[key].source, "confidence": processor.entries[key].confidence}
            for key, value in processor.values.items()
        }  # fmt: skip
        entries.append({
            "name": name,
            "description": processor.description,
            "operand_bits": values["operand_bits"]["value"],
            "peak_tflops": processor["peak_tflops"],
            "memory_gbps": processor["memory_gbps"],
            "layer_launch_us": processor["attention_launches"] * processor["launch_us"],
            "power_w": processor["power_w"],
            "parameters": values,
        })  # fmt: skip
    return entries


def _parameters() -> list[Entry]:
    from dse.hardware.parameters import PARAMETERS

    return [
        {"name": p.name, "unit": p.unit, "valid": p.valid, "description": p.description}
        for p in PARAMETERS.values()
    ]


def _profiles() -> list[Entry]:
    from dse.profiles.coverage import coverage, gaps, plan
    from dse.profiles.error import interpolation_errors
    from dse.profiles.naming import ProfileName
    from dse.profiles.probes import read_probes, shipped_probes
    from dse.profiles.schema import QUERY_TILES
    from dse.profiles.store import read_profile, shipped_profiles

    profiles = {name: read_profile(path) for name, path in shipped_profiles().items()}
    wanted, wanted_probes = plan()
    probes = {name: read_probes(path) for name, path in shipped_probes().items()}
    missing = gaps(profiles, wanted)
    entries = []
    for name, profile in profiles.items():
        covered = coverage(profile)
        entries.append({
            "name": name,
            "phase": profile.phase,
            "contexts": list(profile.contexts),
            "windows": {c.context: c.windows for c in covered},
            "settings": len(profile.settings),
            "measured": {c.context: {a: n for a, n in c.settings.items() if n} for c in covered},
            "algorithms": {a: profile.knobs(a) for a in profile.algorithms},
            "tiles": list(QUERY_TILES) if profile.tile_counters is not None else [],
            "interpolation": [
                {**vars(error), "share": error.share} for error in interpolation_errors(profile)
            ],
            "missing": [
                {"tier": g.tier, "context": g.context, "missing": g.missing} for g in missing if g.profile == name
            ],
            "model": profile.provenance.model,
            "text": profile.provenance.text,
            "checksum": profile.checksum,
        })  # fmt: skip
    for name in dict.fromkeys(g.profile for g in missing if g.profile not in profiles):
        gaps_here = [
            {"tier": g.tier, "context": g.context, "missing": g.missing} for g in missing if g.profile == name
        ]
        entries.append(_without_settings(name, phase=ProfileName.parse(name).phase, missing=gaps_here))
    for name, table in probes.items():
        entries.append(_without_settings(f"{name}, probes", context=table.context, probed=len(table.rows)))
    for want in wanted_probes:
        gap = want.gap({name: len(table.rows) for name, table in probes.items()})
        if gap is not None:
            missing_here = [{"tier": gap.tier, "context": 0, "missing": gap.missing}]
            entries.append(_without_settings(gap.profile, missing=missing_here))
    return entries


def _without_settings(name: str, **known: Any) -> Entry:
    """An entry of what is no profile, or not there."""
    empty = {"phase": "", "contexts": [], "windows": {}, "settings": 0, "measured": {}, "algorithms": {}}
    return {"name": name, **empty, "interpolation": [], "missing": [], **known}


def _profile_rows(entries: Sequence[Entry]) -> list[Entry]:
    """A row per profile and context for the table; what was not measured at all stands below it."""
    return [
        {
            "name": entry["name"],
            "phase": entry["phase"],
            "context": context,
            "windows": entry["windows"][context],
            "shown": ", ".join(f"{name} {count}" for name, count in entry["measured"][context].items())
            + (f"; tiles of {', '.join(map(str, entry['tiles']))} queries" if entry["tiles"] else ""),
        }
        for entry in entries
        for context in entry["contexts"]
    ]


def _profile_remarks(entries: Sequence[Entry]) -> list[str]:
    """How far off values between measured ones are, and what of the plan is missing, tier by tier."""
    lines = []
    for entry in entries:
        worst: dict[str, float] = {}
        for error in entry["interpolation"]:
            knob = f"{error['algorithm']}.{error['knob']}"
            if error["values"] >= PLANE_VALUES:
                worst[knob] = max(worst.get(knob, 0.0), error["share"])
        if worst:
            shares = ", ".join(f"{knob} {share:.1%}" for knob, share in worst.items())
            lines.append(
                f"{entry['name']}: values between measured ones are off by (median of the perplexity increase, share "
                f"of its range, each measured value left out in turn): {shares}"
            )
        if "probed" in entry:
            model = entry["name"].partition(",")[0]
            lines.append(
                f"{entry['name']} (retrieval by depth, free-running agreement), context {entry['context']}: "
                f"{entry['probed']} settings, `dse profile show {model} --probes`"
            )
    for tier in (1, 2):
        parts = [
            f"{entry['name']}{' context ' + str(gap['context']) if gap['context'] else ''}: {gap['missing']}"
            for entry in entries
            for gap in entry["missing"]
            if gap["tier"] == tier
        ]
        if parts:
            lines += [f"missing, tier {tier}:", *(f"  {part}" for part in parts)]
    return lines


def _components() -> list[Entry]:
    from dataclasses import asdict

    from dse.hardware.components import COMPONENTS

    return [asdict(component) for component in COMPONENTS.values()]


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, dict)) else str(value)


def _name(title: str = "name") -> Column:
    return Column("name", title, text=str, left=True)


def _text(key: str, priority: int = 0, shrink_to: int = 0) -> Column:
    return Column(key, key, text=_words, left=True, priority=priority, shrink_to=shrink_to)


def _last(key: str) -> Column:
    return Column(key, key, text=_words, left=True, shrink_to=30, wrap=True)


def _count(key: str, priority: int = 1) -> Column:
    return Column(key, key, text=lambda value: f"{value:,}", priority=priority)


_KINDS: Final[dict[str, tuple[Callable[[], list[Entry]], Sequence[Column]]]] = {
    "spaces": (_spaces, (_name(), _count("points"), _last("description"))),
    "algorithms": (
        _algorithms,
        (
            _name(),
            Column("shown", "what it does, and its knobs", text=str, left=True, shrink_to=30, wrap=True),
        ),
    ),
    "hardware": (
        _hardware,
        (
            _name(),
            Column("machine", "lanes x", "multipliers", text=str, left=True, priority=1),
            _text("memory", 2),
            _last("description"),
        ),
    ),
    "processors": (
        _processors,
        (
            _name(),
            Column("operand_bits", "operand", "bit", text=str, priority=2),
            Column("peak_tflops", "peak", "T/s", text=significant, priority=1),
            Column("memory_gbps", "memory", "GB/s", text=significant),
            Column("layer_launch_us", "launches", "us/layer", text=significant, priority=1),
            Column("power_w", "power", "W", text=significant, priority=3),
            _last("description"),
        ),
    ),
    "parameters": (_parameters, (_name(), _text("valid", 1, shrink_to=36), _last("description"))),
    "profiles": (
        _profiles,
        (
            _name(),
            _text("phase", 2),
            Column("context", "context", text=str, priority=1),
            Column("windows", "windows", text=str, priority=2),
            Column("shown", "settings measured", text=str, left=True, shrink_to=30, wrap=True),
        ),
    ),
    "components": (
        _components,
        (
            _name(),
            Column("value", "value", text=significant),
            _text("unit", 1, shrink_to=8),
            Column("node_nm", "node", "nm", text=lambda v: f"{v:g}" if v else "-", priority=3),
            _text("confidence", 2),
            _last("source"),
        ),
    ),
}

_SHOWN_ONLY: Final = ("shown", "machine", "memory")
"""Entries made for the table, which the JSON holds in full under other names."""


@click.command(name="list")
@click.argument("kind", metavar="|".join(_KINDS))
@common("plugin", "json", "quiet", "debug")
@click.pass_obj
def command(environment: Environment, kind: str) -> None:
    """List what there is to choose from; --json prints everything known about each entry, as an array.

    \b
    spaces      shipped spaces, ready to sweep
    algorithms  attention algorithms and their knobs
    hardware    named designs, to start from with base = "..."
    processors  GPUs and CPUs to compare with: [baseline] processor = "..."
    parameters  hardware axes a space may name under [hardware]
    profiles    measured profiles that come with the package, and what is not measured yet
    components  constants behind area, energy and time, with their sources
    """
    if kind not in _KINDS:
        raise BadInput(f"dse list: no kind {kind!r}; {nearest(kind, _KINDS)}")
    collect, columns = _KINDS[kind]
    entries = collect()
    if environment.json:
        environment.print_json(
            [{k: v for k, v in entry.items() if k not in _SHOWN_ONLY} for entry in entries]
        )
        return
    rows = _profile_rows(entries) if kind == "profiles" else entries
    table = layout(rows, columns, environment.columns)
    for number, line in enumerate(table.lines):
        environment.print(environment.style(line, bold=True) if number < table.headers else line)
    if kind == "profiles":
        for line in _profile_remarks(entries):
            for part in textwrap.wrap(line, environment.columns, subsequent_indent="    "):
                environment.print(part)
    if kind == "algorithms":
        from dse.algorithms import broken_plugins

        for reason in broken_plugins().values():
            environment.remark(f"note: left out: {reason}")
    if not entries:
        environment.remark(f"no {kind} are installed")
