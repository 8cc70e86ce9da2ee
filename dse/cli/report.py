"""`dse report`: runs as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import NAME, PLACE, check_file

if TYPE_CHECKING:
    from dse.report.content import Part
    from dse.results import Run
    from dse.space import Space

SAMPLE: Final = 10_000
BREAKDOWNS: Final = 200
MOST: Final = 250_000
"""Most points of a space on a page: beyond that a browser is slow."""


@click.command(name="report")
@click.argument("runs", nargs=-1, required=True, type=NAME, metavar="RUN...")
@click.option(
    "-o",
    "--output",
    type=PLACE,
    metavar="FILE",
    help="Page to write, .html.  [default: report.html in the only run, else here]",
)
@click.option("--replace", is_flag=True, help="Overwrite FILE even if it is no report of dse.")
@click.option(
    "--points",
    type=click.IntRange(0, MOST),
    default=SAMPLE,
    show_default=True,
    metavar="N",
    help="Random points of each space, priced again and drawn behind the fronts; 0: none.",
)
@click.option(
    "--breakdowns",
    type=click.IntRange(min=0),
    default=BREAKDOWNS,
    show_default=True,
    metavar="N",
    help="Most points broken down, those on a front first; 0: none.",
)
@click.option(
    "--validation/--no-validation", default=True, help="Recompute published numbers for the page, or not."
)
@click.option("--title", default="", metavar="TEXT", help="Title of the page.  [default: names of the runs]")
@common("json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment,
    runs: tuple[str, ...],
    output: Path | None,
    replace: bool,
    points: int,
    breakdowns: int,
    validation: bool,
    title: str,
) -> None:
    """Write one page about RUN, or several run directories, that works from disk and offline.

    The page holds the front (hover, click, filter, any metric on any axis), the breakdown of each point, the
    comparison of the runs, the numbers of `dse validate`, provenance, and the commands that make each run again.

    \b
        dse report results/quickstart
        dse report results/published/top-theta results/published/adore -o both.html
    """
    from dse.report.content import content
    from dse.report.document import check_output, library_version, render, write
    from dse.results import read_run

    if output is None:
        output = Path(runs[0]) / "report.html" if len(runs) == 1 else Path("report.html")
    found = [read_run(place) for place in runs]
    check_file(output)
    check_output(output, replace)
    names = _names(runs)
    parts: list[Part] = []
    for place, name, run in zip(runs, names, found, strict=True):
        left = breakdowns - sum(len(part.breakdowns) for part in parts)
        share = -(-left // (len(runs) - len(parts)))  # what earlier runs left over is the later ones'
        parts.append(_part(environment, place, name, run, points, share))
    rows = None
    if validation:
        from dse.validation import validate

        environment.remark("recomputing published numbers (--no-validation leaves them out)")
        rows = validate()
    title = title or ", ".join(names)
    page = render(content(title, parts, rows, library_version()), title)
    write(output, page)
    if environment.json:
        environment.print_json(_summary(output, page, parts, rows is not None))
    else:
        environment.print(str(output))


def _names(places: tuple[str, ...]) -> list[str]:
    """What each run is called; one that is given twice is numbered."""
    from dse.cli.runs import names_apart

    names = names_apart(map(Path, places))
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _part(environment: Environment, place: str, name: str, run: Run, points: int, breakdowns: int) -> Part:
    from dse.cli.runs import baseline_name, title
    from dse.errors import BadInput
    from dse.report.content import Part
    from dse.report.sample import sample
    from dse.results import SPACE
    from dse.space import load_space

    notes: list[str] = []
    space, drawn = None, None
    stories: dict[str, dict[str, Any]] = {}
    try:
        space = load_space(run.directory / SPACE)
        if breakdowns:
            stories, missing = _breakdowns(run, space, breakdowns)
            if missing:
                notes.append(f"{missing} of {len(run.front)} stored points are not broken down")
        if points:
            drawn = sample(run, space, points)
    except BadInput as error:
        notes.append(f"no breakdowns and no points but the stored ones: {error}")
    for note in notes:
        environment.remark(f"note: {name}: {note}")
    words = title(run.space).splitlines()[0]
    return Part(name, place, run, words, baseline_name(run.space), space, drawn, stories, tuple(notes))


def _breakdowns(run: Run, space: Space, most: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Breakdowns of stored points, those on the front first, and how many go without."""
    from dse.cli.points import point_of_row
    from dse.cost.explain import explain
    from dse.report.breakdown import reduced

    on_front = run.front["on_front"].tolist()
    rows = sorted(range(len(on_front)), key=lambda row: not on_front[row])
    found = {}
    for row in rows[:most]:
        point = point_of_row(run, space, row, ())
        story = explain(point.stats, point.design, point.workload, point.components)
        found[point.name] = reduced(story)
    return found, len(rows) - len(found)


def _summary(output: Path, page: str, parts: list[Part], validated: bool) -> dict[str, Any]:
    return {
        "report": str(output),
        "bytes": len(page.encode("utf-8")),
        "runs": [
            {
                "name": part.name,
                "run": part.place,
                "front": part.run.info["front"],
                "stored": len(part.run.front),
                "breakdowns": len(part.breakdowns),
                "points": part.run.info["points"],
                "sampled": 0 if part.sample is None else part.sample.priced,
                "drawn": len(part.run.front) + (0 if part.sample is None else len(part.sample.points)),
                "notes": list(part.notes),
            }
            for part in parts
        ],
        "validated": validated,
    }
