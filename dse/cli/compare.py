"""`dse compare`: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import NAME
from dse.inputs import spelt_out

if TYPE_CHECKING:
    from dse.search.compare import Comparison, Side


@click.command(name="compare")
@click.argument("a", type=NAME, metavar="A")
@click.argument("b", type=NAME, metavar="B")
@click.option(
    "-x", "--x", default="", metavar="METRIC", help="Horizontal axis of the chart: a shared objective."
)
@click.option("-y", "--y", default="", metavar="METRIC", help="Vertical axis of the chart.")
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    metavar="N",
    help="Most points listed of each run; 0: all.",
)
@common("style", "chart", "json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment, a: str, b: str, x: str, y: str, look: str, rows: int, output: Path | None
) -> None:
    """Compare the fronts of two runs, A and B.

    Both are measured from one reference point, a tenth of the range beyond the worst value on either front. B's
    ratios are taken over A's baseline where the baselines differ.
    """
    from dse.charts.style import chart_format
    from dse.cli.options import refuse_unused
    from dse.cli.places import check_file
    from dse.errors import BadInput, nearest
    from dse.results import read_run
    from dse.search.compare import compare

    if output is None:
        refuse_unused({"x": "-x", "y": "-y", "look": "--style"}, "they are of the chart that --output writes")
    else:
        chart_format(output)
        check_file(output)
    if environment.json:
        refuse_unused({"rows": "--rows"}, "--json lists every point")
    runs = read_run(a), read_run(b)
    names = (spelt_out(Path(a).resolve().name), spelt_out(Path(b).resolve().name))
    found = compare(*runs, names=names if names[0] != names[1] else (spelt_out(a), spelt_out(b)))
    for metric in (x, y):
        if metric and metric not in found.objectives:
            raise BadInput(
                f"{metric!r} is not an objective of both runs; {nearest(metric, found.objectives)}"
            )
    if output is not None:
        _draw(environment, found, x, y, look, output)
    if environment.json:
        environment.print_json(_plain(found, output))
    else:
        _print(environment, found, rows)
    for note in found.notes:
        environment.remark(f"note: {note}")


def _draw(environment: Environment, found: Comparison, x: str, y: str, look: str, output: Path) -> None:
    from dse.charts.compare import compare_figure
    from dse.charts.style import save, styled

    with styled(look):
        path = save(compare_figure(found, x, y, f"{found.a.name} and {found.b.name}"), output)
    environment.remark(f"wrote {path}")


def _plain(found: Comparison, output: Path | None) -> dict[str, Any]:
    def side(one: Side) -> dict[str, Any]:
        ids = one.points["point"].astype(str)
        return {
            "name": one.name,
            "hypervolume": one.hypervolume,
            "front": len(one.points),
            "dominated": ids[one.dominated].tolist(),
            "equalled": ids[one.equalled].tolist(),
            "best": dict(one.best),
            "algorithms": {n: {"front": c, "standing": s} for n, (c, s) in one.algorithms.items()},
        }

    return {
        "objectives": {m: "maximize" if up else "minimize" for m, up in found.objectives.items()},
        "reference_point": dict(found.reference),
        "a": side(found.a),
        "b": side(found.b),
        "hypervolume_difference": found.b.hypervolume - found.a.hypervolume,
        "hypervolume_change": found.change,
        "hypervolume_joint": found.joint,
        "rebased": dict(found.rebased),
        "differences": {key: {"a": pair[0], "b": pair[1]} for key, pair in found.differences.items()},
        "notes": list(found.notes),
        "chart": None if output is None else str(output),
    }


def _print(environment: Environment, found: Comparison, rows: int) -> None:
    from dse.charts.labels import label
    from dse.cli.table import Column, layout, significant

    def table(entries: list[dict[str, Any]], columns: list[Column]) -> None:
        laid = layout(entries, columns, environment.columns)
        for number, line in enumerate(laid.lines):
            environment.print(environment.style(line, bold=True) if number < laid.headers else line)
        environment.print()

    sides = (found.a, found.b)
    best = [
        Column(m, f"{'most' if up else 'least'} {m}", label(m).unit, text=significant)
        for m, up in found.objectives.items()
    ]
    table(
        [
            {
                "name": s.name, "front": len(s.points), "left": int((~s.dominated).sum()), "volume": s.hypervolume,
                "standing": _standing(s), **{m: s.best[m] * label(m).scale for m in found.objectives},
            }
            for s in sides
        ],
        [
            Column("name", "run", text=str, left=True),
            Column("front", "front", "points", text=str),
            Column("left", "not", "dominated", text=str),
            Column("volume", "hyper-", "volume", text=lambda v: significant(v, 4)),
            *best,
            Column("standing", "standing, by algorithm", text=str, left=True, shrink_to=20, wrap=True),
        ],
    )  # fmt: skip
    reference = ", ".join(
        f"{m} {significant(v * label(m).scale)} {label(m).unit}".rstrip() for m, v in found.reference.items()
    )
    volumes = f"{found.change:+.1%}" if found.change == found.change else "not to be had"
    environment.print(
        f"{found.b.name} against {found.a.name}: hypervolume {volumes}; reference point {reference}"
    )
    environment.print()
    for mine, other in (sides, sides[::-1]):
        beaten = mine.points[mine.dominated]
        environment.print(
            environment.style(
                f"{len(beaten)} of {len(mine.points)} points of {mine.name} are dominated by {other.name}"
                f"{f', {int(mine.equalled.sum())} have an equal there' if mine.equalled.any() else ''}", bold=True,
            )
        )  # fmt: skip
        shown = beaten if rows == 0 else beaten.head(rows)
        if len(shown):
            entries = [
                {"point": r["point"], "algorithm": r["algorithm"],
                 **{m: float(r[m]) * label(m).scale for m in found.objectives}}
                for r in shown.to_dict("records")
            ]  # fmt: skip
            plain = [
                Column("point", "point", text=str, left=True),
                Column("algorithm", "algorithm", text=str, left=True),
            ]
            table(entries, [*plain, *(Column(m, m, label(m).unit) for m in found.objectives)])
            if len(shown) < len(beaten):
                environment.remark(f"{len(shown)} of {len(beaten)} shown; --rows 0 shows all")
        else:
            environment.print()
    if not found.differences:
        environment.print("The spaces are the same.")
        return
    environment.print(environment.style("what differs in the spaces", bold=True))
    entries = [{"key": k, "a": _value(p[0]), "b": _value(p[1])} for k, p in found.differences.items()]
    table(
        entries,
        [
            Column("key", "entry", text=str, left=True, shrink_to=24),
            Column("a", found.a.name, text=str, left=True, shrink_to=16),
            Column("b", found.b.name, text=str, left=True, shrink_to=16, wrap=True),
        ],
    )


def _standing(side: Side) -> str:
    from dse.charts.compare import summary

    return summary(side)


def _value(value: Any) -> str:
    from dse.charts.labels import brief

    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " ".join(brief(v) for v in value)
    return brief(value)
