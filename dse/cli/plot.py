"""`dse plot`: charts of runs, spaces and profiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dse.cli.environment import Environment
from dse.cli.options import common, refuse_unused
from dse.cli.places import NAME, check_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Kind:
    """A kind of chart.

    Attributes:
        shows: what, in words. module: of `dse.cli`, with its ``draw_NAME``.
        takes: parameters of the command that it heeds, besides those that every kind does.
    """

    shows: str
    module: str
    takes: tuple[str, ...]


KINDS: Final[dict[str, Kind]] = {
    "front": Kind(
        "two metrics of the front, a third as colour or size",
        "pictures",
        ("x", "y", "colour", "size", "cloud", "published", "algorithm"),
    ),
    "breakdown": Kind("where time and energy of points go", "pictures_points", ("points", "budget")),
    "roofline": Kind("what points reach of their roofs", "pictures_points", ("points", "budget")),
    "dram": Kind("DRAM efficiency against the fraction of rows kept", "pictures_points", ("points",)),
    "parallel": Kind("points as lines over hardware and metrics", "pictures", ("columns",)),
    "knobs": Kind(
        "accuracy and bytes against a knob, from a profile",
        "pictures",
        ("algorithm", "knob", "by", "overrides"),
    ),
    "winner": Kind(
        "best algorithm over two axes of a space, or over several runs",
        "pictures_winner",
        ("budget", "over", "overrides"),
    ),
    "waterfall": Kind("where a published gain goes", "waterfall", ("algorithm", "budget")),
    "importance": Kind(
        "which parameters decide, in a study or a space", "pictures_search", ("samples", "seed")
    ),
    "hypervolume": Kind(
        "what studies found over their trials, beside exact fronts", "pictures_search", ("x",)
    ),
}

OPTIONS: Final = {
    "x": "-x", "y": "-y", "points": "--point", "overrides": "--set",
    **{n: f"--{n}" for n in ("colour", "size", "cloud", "published", "budget", "algorithm", "knob", "by", "over",
                             "columns", "samples", "seed")},
}  # fmt: skip
"""Parameters that some kinds heed, and how their options are spelt."""

MOST_SAMPLES: Final = 1_000_000
"""Most points drawn from a space: each is priced by itself."""


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


def _finite(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    """A number, and not infinite."""
    if not math.isfinite(value):
        raise click.BadParameter(f"found {value!r}; must be a finite number", ctx, parameter)
    return value


@click.command(name="plot")
@click.argument("runs", nargs=-1, required=True, type=NAME, metavar="RUN...")
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
    callback=_finite,
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
    type=click.IntRange(1, MOST_SAMPLES),
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

    _check(runs, kind, wishes["points"])
    with styled(look) as style:
        inches = {"column": style.width, "page": style.page}.get(width) if isinstance(width, str) else width
        wish = Wish(width=inches, columns=tuple(columns.split(",")) if columns else (), **wishes)
        if output is None:
            output = _output(runs, kind, wish)
        chart_format(output)
        check_file(output)
        figure, facts = _draw(environment, runs, kind, wish)
        path = save(figure, output)
    if environment.json:
        environment.print_json({"chart": str(path), "kind": kind, "runs": list(runs), **facts})
    else:
        environment.print(str(path))


def _check(runs: tuple[str, ...], kind: str, points: tuple[str, ...]) -> None:
    """Raise where an option was given that this chart does not heed."""
    heeded = set(KINDS[kind].takes)
    if points:
        heeded -= {"budget"}  # it chooses points where none is named
    if kind == "winner" and len(runs) > 1:
        heeded -= {"overrides"}
    kinds = {n: " and ".join(k for k, v in KINDS.items() if n in v.takes) for n in OPTIONS}
    for name, option in OPTIONS.items():
        if name not in heeded:
            alone = (
                "points are named by --point, runs are as they are"
                if name in KINDS[kind].takes
                else f"it is for --kind {kinds[name]}"
            )
            refuse_unused({name: option}, alone)


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
