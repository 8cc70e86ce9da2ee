"""`dse check`: validate a space and say how large it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import NAME
from dse.cli.table import Column, layout

_SHOWN = 6
"""Values of a longer axis are shown by their ends."""


@click.command(name="check")
@click.argument("space", type=NAME, default="quickstart")
@common("set", "json", "quiet", "debug")
@click.pass_obj
def command(environment: Environment, space: str, overrides: tuple[str, ...]) -> None:
    """Validate SPACE and say how large it is, without running it.

    SPACE is a TOML file or the name of a shipped space (`dse list spaces`).  [default: quickstart]
    """
    from dse.cli.runs import baseline_name
    from dse.search.sweep import describe
    from dse.space import load_space

    chosen = load_space(space, overrides)
    about = describe(chosen)
    if environment.json:
        environment.print_json(about)
        return
    w = chosen.workload
    environment.print(environment.style(f"{chosen.name}: {about['points']:,} points", bold=True))
    facts = {
        "workload": f"{w.profile}, {w.words()}; {about['mean_context']:.0f} tokens visible on average"
        f"{'' if w.grouped else ', as if every query head had its own keys and values'}",
        "baseline": baseline_name(chosen),
        **({"constants": _constants(chosen.components)} if chosen.components else {}),
        "objectives": ", ".join(f"{how} {name}" for name, how in about["objectives"].items()),
        "constraints": ", ".join(_limits(name, limits) for name, limits in about["constraints"].items())
        or "none",
        "hardware": f"{about['base']}, with {_axes(about['hardware'])}"
        if about["hardware"]
        else about["base"],
    }
    for name, text in facts.items():
        _paragraph(environment, name, text)
    rows = [
        {"name": name, **entry, "axes": _axes({k: v for k, v in entry["knobs"].items() if len(v) > 1})}
        for name, entry in about["algorithms"].items()
    ]
    columns = (
        Column("name", "algorithm", text=str, left=True),
        Column("settings", "settings", text="{:,}".format),
        Column("interpolated", "inter-", "polated", text="{:,}".format, priority=2),
        Column("skipped", "not", "measured", text="{:,}".format, priority=1),
        Column("designs", "designs", text="{:,}".format),
        Column("points", "points", text="{:,}".format),
        Column("axes", "knobs", text=str, left=True, shrink_to=24, wrap=True),
    )
    table = layout(rows, columns, environment.columns)
    environment.print()
    for number, line in enumerate(table.lines):
        environment.print(environment.style(line, bold=True) if number < table.headers else line)
    for note in about["notes"]:
        environment.remark(f"note: {note}")


def _paragraph(environment: Environment, name: str, text: str) -> None:
    import textwrap

    first, *more = textwrap.wrap(text, environment.columns - 13)
    environment.print(f"{name:<13}{first}")
    for line in more:
        environment.print(f"{'':<13}{line}")


def _limits(name: str, limits: Mapping[str, float]) -> str:
    return " and ".join(f"{name} {'>=' if end == 'min' else '<='} {value:g}" for end, value in limits.items())


def _constants(components: Mapping[str, float]) -> str:
    """Component constants that differ from the shipped ones, by the base design or by the space."""
    return ", ".join(f"{name} {value:g}" for name, value in components.items())


def _axes(axes: Mapping[str, list[Any]]) -> str:
    """`lanes 12, 24, 48; layout planes, token-major`."""
    from dse.charts.labels import brief

    texts = []
    for name, values in axes.items():
        shown = [brief(value) for value in values]
        if len(shown) > _SHOWN:
            shown = [*shown[:2], "...", shown[-1], f"({len(values)} values)"]
        texts.append(f"{name} {', '.join(shown)}".replace(", (", " ("))
    return "; ".join(texts)
