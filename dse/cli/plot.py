"""`dse plot`: charts of runs, spaces and profiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dse.cli.environment import Environment
from dse.cli.options import common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS: Final[dict[str, str]] = {
    "front": "two metrics of the front, a third as colour or size",
    "breakdown": "where time and energy of points go",
    "roofline": "what points reach of their roofs",
    "dram": "DRAM efficiency against the fraction of rows kept",
    "parallel": "points as lines over hardware and metrics",
    "knobs": "accuracy and bytes against a knob, from a profile",
    "winner": "best algorithm over two axes of a space, or over several runs",
    "waterfall": "where a published gain goes",
}


@dataclass(frozen=True)
class Wish:
    """What the user asked for, besides the runs."""

    x: str
    y: str
    colour: str
    size: str
    title: str | None
    width: float | None
    cloud: bool
    published: bool
    points: tuple[str, ...]
    budget: float
    algorithm: str
    knob: str
    by: str
    over: tuple[str, ...]
    overrides: tuple[str, ...]
    columns: tuple[str, ...]


def _width(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | float | None:
    """`column`, `page` or inches."""
    if value is None or value in ("column", "page"):
        return value
    try:
        inches = float(value)
    except ValueError:
        inches = 0.0
    if not 2 <= inches <= 20:
        raise click.BadParameter(f"found {value!r}; must be column, page, or 2 to 20 inches", ctx, parameter)
    return inches


@click.command(name="plot")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-k",
    "--kind",
    type=click.Choice(list(KINDS)),
    default="front",
    show_default=True,
    metavar="KIND",
    help="Kind of chart: " + "; ".join(f"{k}: {v}" for k, v in KINDS.items()) + ".",
)
@click.option(
    "-x", "--x", default="nll_increase", show_default=True, metavar="COLUMN", help="Horizontal axis."
)
@click.option("-y", "--y", default="speedup", show_default=True, metavar="COLUMN", help="Vertical axis.")
@click.option(
    "--colour",
    "--color",
    default="algorithm",
    show_default=True,
    metavar="COLUMN",
    help="Algorithm, or a number.",
)
@click.option("--size", default="", metavar="COLUMN", help="Number shown by the size of the marks.")
@click.option("--cloud", is_flag=True, help="Price the whole space again and show all its points, binned.")
@click.option("--published", is_flag=True, help="Mark published operating points on axes that have them.")
@click.option(
    "--point", "points", multiple=True, metavar="POINT", help="breakdown, roofline: this point. Repeatable."
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    metavar="NATS",
    help="Accuracy loss within which points are chosen and winners found.",
)
@click.option("--algorithm", default="", metavar="NAME", help="knobs, waterfall: of which algorithm.")
@click.option(
    "--knob", default="", metavar="NAME", help="knobs: along which.  [default: the one measured most]"
)
@click.option("--by", default="", metavar="NAME", help="knobs: a curve for each value of a second knob.")
@click.option(
    "--over", multiple=True, metavar="KEY=V1,V2,...", help="winner: an axis of the map; twice for two axes."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="winner: override an entry of the space. knobs: fix another knob. Repeatable.",
)
@click.option("--columns", default="", metavar="A,B,...", help="parallel: the axes.")
@click.option(
    "--style", "look", default="paper", show_default=True, metavar="NAME", help="paper, slide or dark."
)
@click.option(
    "--title", default=None, metavar="TEXT", help="Title; '' for none.  [default: workload and baseline]"
)
@click.option(
    "--width",
    callback=_width,
    metavar="WIDTH",
    help="column (3.5), page (7.16) or inches.  [default: by kind]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write, .png, .svg or .pdf.  [default: KIND.png in the only run, else here]",
)
@common("json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment,
    /,
    runs: tuple[str, ...],
    kind: str,
    output: Path | None,
    look: str,
    width: str | float | None,
    columns: str,
    **wishes: Any,
) -> None:
    """Draw a chart of RUN: one or more run directories.

    Any numeric column of front.csv can be an axis, the colour or the size: metrics (speedup, energy_j, area_mm2,
    ...), knobs (token-picker.threshold) and hardware (hardware.lanes). For --kind knobs RUN is a run, a space or
    a profile; for --kind winner it is a space, or several runs of spaces that differ.

    \b
        dse plot results/quickstart -y energy_saving --colour area_mm2 -o front.pdf
        dse plot results/quickstart --kind breakdown --width page -o breakdown.svg
        dse plot smollm2-135m --kind knobs --algorithm token-picker --by chunks
        dse plot quickstart --kind winner --over workload.batch=1,4,16 --over hardware.dram=hbm2,gddr6
    """
    from dse.charts.style import chart_format, save, styled

    with styled(look) as style:
        inches = {"column": style.width, "page": style.page}.get(width) if isinstance(width, str) else width
        wish = Wish(width=inches, columns=tuple(c for c in columns.split(",") if c), **wishes)
        if output is None:
            output = _output(runs, kind, wish)
        chart_format(output)
        figure, facts = _draw(environment, runs, kind, wish)
        path = save(figure, output)
    if environment.json:
        environment.print_json({"chart": str(path), "kind": kind, "runs": list(runs), **facts})
    else:
        environment.print(str(path))


def _output(runs: tuple[str, ...], kind: str, wish: Wish) -> Path:
    """Where a chart goes that was not told: into the only run, or here."""
    usual = (wish.x, wish.y, wish.colour) == ("nll_increase", "speedup", "algorithm")
    if kind == "front":
        name = "front.png" if usual else f"{wish.y}-{wish.x}.png"
        alone, together = name, "fronts.png" if usual else name
    else:
        alone = together = f"{kind}.png"
    return Path(runs[0]) / alone if len(runs) == 1 and Path(runs[0]).is_dir() else Path(together)


Drawer = Callable[[Environment, tuple[str, ...], Wish], "tuple[Figure, dict[str, Any]]"]


def _draw(
    environment: Environment, runs: tuple[str, ...], kind: str, wish: Wish
) -> tuple[Figure, dict[str, Any]]:
    from dse.cli import pictures

    drawer: Drawer = getattr(pictures, f"draw_{kind}")
    return drawer(environment, runs, wish)
