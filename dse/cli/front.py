"""`dse front`: the front of a run as a table, CSV or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.environment import Environment
from dse.cli.options import check_once, common
from dse.cli.places import PLACE, check_file
from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = {".csv": "csv", ".json": "json", ".txt": "table"}


@click.command(name="front")
@click.argument("run", type=PLACE)
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), help="How to print.  [default: table]"
)
@click.option(
    "--all", "everything", is_flag=True, help="Also the points that only their own algorithm's front holds."
)
@click.option(
    "--algorithm", "algorithms", multiple=True, metavar="NAME", help="Only this algorithm. Repeatable."
)
@click.option(
    "--columns", default="", metavar="A,B,...", help="Columns to show, by their names in front.csv."
)
@click.option(
    "--sort", default="", metavar="COLUMN", help="Sort by this column, smallest first (-COLUMN: largest)."
)
@click.option(
    "--rows", type=click.IntRange(min=0), default=None, metavar="N", help="Most rows shown; 0: all."
)
@click.option("-o", "--output", type=PLACE, metavar="FILE", help="Write .csv, .json or .txt.")
@common("json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment,
    run: Path,
    form: str | None,
    everything: bool,
    algorithms: tuple[str, ...],
    columns: str,
    sort: str,
    rows: int | None,
    output: Path | None,
) -> None:
    """Print or export the front of RUN (a run directory).

    A table shows what nothing in the whole space dominates; CSV and JSON hold every column, and with --all every
    row of front.csv.
    """
    from dse.cli.fronts import DEFAULT_ROWS, in_order, print_front
    from dse.fronts import as_csv, cells
    from dse.results import read_run

    form = _format(form, output, environment)
    found = read_run(run)
    points = in_order(found.front)
    chosen = columns.split(",") if columns else []
    for name in [*chosen, *([sort.removeprefix("-")] if sort else [])]:
        if name not in points:
            raise BadInput(f"{run}: no column {name!r}; {nearest(name, map(str, points.columns))}")
    check_once(f"--columns {columns}", chosen, "column")
    for name in algorithms:
        if name not in set(points["algorithm"]):
            raise BadInput(f"{run}: no algorithm {name!r}; {nearest(name, sorted(set(points['algorithm'])))}")
    if algorithms:
        points = points[points["algorithm"].isin(algorithms)]
    if not everything:
        points = points[points["on_front"].astype(bool)]
        if points.empty:
            environment.remark(
                f"note: no point of {', '.join(algorithms)} is on the front; --all shows those on its own"
            )
    if sort:
        points = points.sort_values(sort.removeprefix("-"), ascending=not sort.startswith("-"), kind="stable")
    if form != "table":
        picked = points[chosen] if chosen else points
        picked = picked if rows in (None, 0) else picked.head(rows or 0)
        # Whether a knob's values are whole numbers shows in all rows only.
        printed = cells(found.front).loc[picked.index, list(picked.columns)]
        text = as_csv(printed) if form == "csv" else _json(printed)
        if output is None:
            environment.stdout.write(text)
        else:
            _write(environment, output, text)
        return
    limit = DEFAULT_ROWS if rows is None else rows
    if output is None:
        print_front(environment, points, rows=limit, everything=everything, columns=chosen, among=found.front)
        if not found.space.workload.grouped:
            environment.remark("note: priced as if every query head had its own keys and values")
        return
    import io

    page = Environment(io.StringIO(), environment.stderr, environment.columns, quiet=environment.quiet)
    print_front(page, points, rows=limit, everything=everything, columns=chosen, among=found.front)
    assert isinstance(page.stdout, io.StringIO)
    _write(environment, output, page.stdout.getvalue())


def _format(form: str | None, output: Path | None, environment: Environment) -> str:
    if output is not None:
        check_file(output)
    if form not in (None, "json") and environment.json:
        raise BadInput(f"--format {form}: stands beside --json; give one of them")
    if form is None and output is not None and not environment.json:
        if output.suffix not in _SUFFIXES:
            raise BadInput(
                f"{output}: suffix {output.suffix!r}; valid: {', '.join(_SUFFIXES)} (or name a --format)"
            )
        return _SUFFIXES[output.suffix]
    form = form or ("json" if environment.json else "table")
    if output is not None and output.suffix in (".csv", ".json") and _SUFFIXES[output.suffix] != form:
        option = "--json" if environment.json else f"--format {form}"
        raise BadInput(f"{output}: suffix {output.suffix!r} stands against {option}; leave one of them out")
    return form


def _json(points: pd.DataFrame) -> str:
    import json

    from dse.cli.environment import plain

    there = points.notna().to_numpy()
    rows = [
        {name: plain(value) for (name, value), known in zip(row.items(), mask, strict=True) if known}
        for row, mask in zip(points.to_dict("records"), there, strict=True)
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write(environment: Environment, path: Path, text: str) -> None:
    from dse.outputs import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    environment.remark(f"wrote {path}")
