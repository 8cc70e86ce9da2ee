"""`dse validate`: every published number we claim to reproduce, beside ours."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

from dse.cli.environment import Environment
from dse.cli.options import common, refuse_unused
from dse.cli.table import GAP, MISSING, Column, layout, significant
from dse.errors import DseError

if TYPE_CHECKING:
    from dse.validation import Row

INDENT: Final = "    "


@click.command(name="validate")
@click.argument("systems", nargs=-1, metavar="[SYSTEM]...")
@click.option("--brief", is_flag=True, help="Numbers only, without sources and assumptions.")
@common("json", "quiet", "debug")
@click.pass_obj
def command(environment: Environment, systems: tuple[str, ...], brief: bool) -> None:
    """Recompute published numbers through the cost model, presets and shipped profiles.

    SYSTEM is one of dense, token-picker, spatten, against, a3, mnnfast, top-theta, adore, dram, sram; all of them by
    default. Every row says what it proves: `independent` (fails the command outside its tolerance), `fitted` (a
    constant was set on it) or `identity` (follows from its own inputs).
    """
    from dse.validation import PROOFS, SYSTEMS, tally, validate

    if environment.json:
        refuse_unused({"brief": "--brief"}, "--json says all there is")
    rows = validate(systems)
    count = tally(rows)
    failed = [row for row in rows if row.failed]
    if environment.json:
        environment.print_json({
            "rows": [row.as_dict() for row in rows],
            "systems": {name: title for name, (_, title) in SYSTEMS.items() if any(r.system == name for r in rows)},
            "proofs": PROOFS,
            "independent": count.independent, "within": count.within, "failed": len(failed), "shown": count.shown,
            "fitted": count.fitted, "fitted_within": count.fitted_within,
            "identity": count.identity, "identity_within": count.identity_within,
        })  # fmt: skip
    else:
        for name, (_, title) in SYSTEMS.items():
            mine = [row for row in rows if row.system == name]
            if mine:
                _print(environment, title, mine, brief)
        if not brief:
            for proof, meaning in PROOFS.items():
                for line in textwrap.wrap(f"{proof}: {meaning}", environment.columns):
                    environment.print(environment.style(line, dim=True))
            environment.print()
        for line in textwrap.wrap(count.text, environment.columns):
            environment.print(environment.style(line, bold=True))
    for row in failed:
        environment.remark(f"outside its tolerance: {row.system}: {row.quantity}: {_error(row)}")
    if failed:
        raise DseError(
            f"validate: {len(failed)} of {count.independent} independent rows are outside their tolerance"
        )


def _print(environment: Environment, title: str, rows: list[Row], brief: bool) -> None:
    """A system's rows: a line of numbers each, and below those that share it where they are from and what was
    assumed."""
    shown: list[dict[str, Any]] = [
        {"published": row.published, "ours": row.ours, "unit": row.unit, "error": _error(row),
         "within": _within(row), "proves": row.proves}
        for row in rows
    ]  # fmt: skip
    columns = (
        Column("published", "published", text=_number),
        Column("ours", "ours", text=_number),
        Column("unit", "", text=str, left=True),
        Column("error", "error", text=str),
        Column("within", "within", text=str, left=True),
        Column("proves", "proves", text=str, left=True),
    )
    header, *numbers = layout(shown, columns, environment.columns).lines
    lead = max(len(line) for line in (header, *numbers)) + len(GAP)
    environment.print(environment.style(title, bold=True))
    environment.print(header)
    for i, (row, line) in enumerate(zip(rows, numbers, strict=True)):
        name, *more = textwrap.wrap(row.quantity, max(16, environment.columns - lead))
        for text in (line.ljust(lead) + name, *(" " * lead + rest for rest in more)):
            environment.print(environment.style(text, fg="red") if row.failed else text)
        later = rows[i + 1] if i + 1 < len(rows) else None
        if not brief and (later is None or _details(later) != _details(row)):
            for text in textwrap.wrap(_details(row), environment.columns - len(INDENT)):
                environment.print(environment.style(INDENT + text, dim=True))
    environment.print()


def _details(row: Row) -> str:
    reference = f"; its own formula gives {_number(row.reference)}" if row.reference is not None else ""
    return f"{row.source}{reference}. Assumed: {row.assumed}."


def _number(value: float | None) -> str:
    """Four digits, whole numbers in full."""
    if value is None:
        return MISSING
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else significant(value, 4)


def _error(row: Row) -> str:
    if row.error is None:
        return MISSING
    return f"{row.error:+.4f}" if row.absolute else f"{100 * row.error:+.1f} %"


def _within(row: Row) -> str:
    """The tolerance and whether the row keeps it."""
    if row.tolerance is None:
        return "shown"
    bound = (
        "exact"
        if row.tolerance == 0
        else f"{row.tolerance:g}"
        if row.absolute
        else f"{100 * row.tolerance:g} %"
    )
    return f"{bound} {'ok' if row.within else 'FAILS' if row.failed else 'off'}"
