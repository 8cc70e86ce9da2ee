"""`dse plot`: charts of one or more runs."""

from __future__ import annotations

from pathlib import Path

import click

from dse.cli.environment import Environment
from dse.cli.options import common


@click.command(name="plot")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
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
@click.option(
    "--title", default=None, metavar="TEXT", help="Title; '' for none.  [default: workload and baseline]"
)
@click.option(
    "--width",
    type=click.FloatRange(2, 20),
    default=3.5,
    show_default=True,
    metavar="INCHES",
    help="Width of the chart.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write, .png, .svg or .pdf.  [default: front.png in the only run, else fronts.png here]",
)
@common("json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment,
    runs: tuple[Path, ...],
    x: str,
    y: str,
    colour: str,
    title: str | None,
    width: float,
    output: Path | None,
) -> None:
    """Draw the fronts of one or more runs into one chart.

    Any numeric column of front.csv can be an axis or the colour: metrics (speedup, energy_j, area_mm2, ...),
    knobs (token-picker.threshold) and hardware (hardware.lanes).
    """
    from dse.charts.front import front_figure
    from dse.charts.style import chart_format, save
    from dse.cli.runs import fronts

    usual = (x, y, colour) == ("nll_increase", "speedup", "algorithm")
    if output is None:
        name = "front.png" if usual else f"{y}-{x}.png"
        output = runs[0] / name if len(runs) == 1 else Path("fronts.png" if usual else name)
    chart_format(output)
    drawn = fronts(runs)
    if any(run.note for run in drawn) and {"speedup", "energy_saving", "dram_reduction"} & {x, y, colour}:
        environment.remark(
            "note: these runs have different baselines, their ratios do not compare; latency_s does"
        )
    figure = front_figure(drawn, x=x, y=y, colour=colour, width=width, title=title)
    path = save(figure, output)
    if environment.json:
        environment.print_json({"chart": str(path), "runs": [str(run) for run in runs], "x": x, "y": y})
    else:
        environment.print(str(path))
