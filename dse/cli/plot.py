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


@dataclass(frozen=True)
class Kind:
    """A kind of chart: what it shows, and the module of `dse.cli` with its ``draw_NAME``."""

    shows: str
    module: str


KINDS: Final[dict[str, Kind]] = {
    "front": Kind("two metrics of the front, a third as colour or size", "pictures"),
    "breakdown": Kind("where time and energy of points go", "pictures_points"),
    "roofline": Kind("what points reach of their roofs", "pictures_points"),
    "dram": Kind("DRAM efficiency against the fraction of rows kept", "pictures_points"),
    "parallel": Kind("points as lines over hardware and metrics", "pictures"),
    "knobs": Kind("accuracy and bytes against a knob, from a profile", "pictures"),
    "winner": Kind("best algorithm over two axes of a space, or over several runs", "pictures_winner"),
    "waterfall": Kind("where a published gain goes", "waterfall"),
    "importance": Kind("which parameters decide, in a study or a space", "pictures_search"),
    "hypervolume": Kind("what studies found over their trials, beside exact fronts", "pictures_search"),
}


@dataclass(frozen=True)
class Wish:
    """What the user asked for, besides the runs; empty texts where he said nothing."""

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
    samples: int
    seed: int


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
    help="Kind of chart: " + "; ".join(f"{k}: {v.shows}" for k, v in KINDS.items()) + ".",
)
@click.option(
    "-x",
    "--x",
    default="",
    metavar="COLUMN",
    help="Horizontal axis.  [default: nll_increase; hypervolume: trials, or seconds]",
)
@click.option("-y", "--y", default="", metavar="COLUMN", help="Vertical axis.  [default: speedup]")
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
@click.option(
    "--algorithm",
    default="",
    metavar="NAME",
    help="front: this and dense alone. knobs, waterfall: of which algorithm.",
)
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
    help="winner: override an entry of the space. knobs: fix another knob, or the context. Repeatable.",
)
@click.option("--columns", default="", metavar="A,B,...", help="parallel: the axes.")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    metavar="N",
    help="importance: points drawn from the space of a sweep.",
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
@common("style", "chart", "seed", "json", "quiet", "debug")
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
    """Draw a chart of RUN: one or more run directories. Without -o it goes to KIND.png in the only run, else here.

    Any numeric column of front.csv can be an axis, the colour or the size: metrics (speedup, energy_j, area_mm2,
    ...), knobs (token-picker.threshold) and hardware (hardware.lanes). For --kind knobs RUN is a run, a space or
    a profile; for --kind winner it is a space, or several runs of spaces that differ; for --kind hypervolume studies,
    and sweeps to measure them by.

    \b
        dse plot results/quickstart -y energy_saving --colour area_mm2 -o front.pdf
        dse plot results/quickstart --kind breakdown --width page -o breakdown.svg
        dse plot smollm2-135m --kind knobs --algorithm token-picker --by chunks
        dse plot quickstart --kind winner --over workload.context=all --over hardware.dram=hbm2,gddr6
        dse plot results/quickstart-study results/quickstart --kind hypervolume
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
    if kind == "front":
        x, y = axes_of(wish)
        usual = (x, y, wish.colour) == ("nll_increase", "speedup", "algorithm")
        name = "front.png" if usual else f"{y}-{x}.png"
        alone, together = name, "fronts.png" if usual else name
    else:
        alone = together = f"{kind}.png"
    return Path(runs[0]) / alone if len(runs) == 1 and Path(runs[0]).is_dir() else Path(together)


def axes_of(wish: Wish) -> tuple[str, str]:
    """The two metrics of a chart of fronts."""
    return wish.x or "nll_increase", wish.y or "speedup"


Drawer = Callable[[Environment, tuple[str, ...], Wish], "tuple[Figure, dict[str, Any]]"]


def _draw(
    environment: Environment, runs: tuple[str, ...], kind: str, wish: Wish
) -> tuple[Figure, dict[str, Any]]:
    from importlib import import_module

    drawer: Drawer = getattr(import_module(f"dse.cli.{KINDS[kind].module}"), f"draw_{kind}")
    return drawer(environment, runs, wish)
