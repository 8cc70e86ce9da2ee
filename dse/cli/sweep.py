"""`dse sweep`: evaluate a whole space and keep its front."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.environment import Environment
from dse.cli.options import common, refuse_unused
from dse.cli.places import NAME
from dse.errors import BadInput

if TYPE_CHECKING:
    from dse.results import Run
    from dse.space import Space

ROWS = 20
"""Most rows of the table that a sweep closes with; `dse front` shows more."""


@click.command(name="sweep")
@click.argument("space", type=NAME, default="quickstart")
@click.option(
    "--every-point",
    is_flag=True,
    help="Evaluate also the points that provably cannot be on the front. The front is the same.",
)
@common("output", "set", "jobs", "engine", "seed", "fresh", "json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment,
    space: str,
    output: Path | None,
    overrides: tuple[str, ...],
    jobs: int,
    engine: str,
    seed: int,
    fresh: bool,
    every_point: bool,
) -> None:
    """Evaluate a whole space, keep its front, and say what it found.

    SPACE is a TOML file or the name of a shipped space (`dse list spaces`).  [default: quickstart]

    A complete run of the same space is shown again instead of computed again, and a sweep that was stopped goes
    on where it was. --engine dask starts a local cluster, --engine dask:ADDRESS uses a running scheduler.
    --seed is recorded; a sweep draws no random numbers.
    """
    from dse.outputs import hold
    from dse.results import default_output, existing_run, write_run
    from dse.search.engine import check_engine
    from dse.search.keep import clear
    from dse.search.sweep import sweep
    from dse.space import load_space

    if engine.startswith("dask:"):
        refuse_unused({"jobs": "--jobs"}, "the scheduler's workers do the work")
    try:
        check_engine(engine, jobs)
    except BadInput as error:
        raise BadInput(f"dse sweep: --{error}") from None
    chosen = load_space(space, overrides)
    directory = output or default_output(chosen)
    picture = directory / "front.png"
    run = existing_run(directory, chosen, environment.remark)
    if run is not None and not fresh:
        environment.remark(f"{directory}: this run is complete, shown again (--fresh computes it again)")
    else:
        with hold(directory) as held:
            if held.left:
                environment.remark(f"{directory}: {held.left}; going on from what it finished")
            if fresh:
                clear(directory)
            with environment.progress_bar() as progress:
                result = sweep(
                    chosen,
                    jobs=jobs,
                    engine=engine,
                    seed=seed,
                    progress=progress,
                    command=_spelt(space, overrides, seed),
                    skip=not every_point,
                    keep=directory,
                )
            run = write_run(directory, result)
            picture.unlink(
                missing_ok=True
            )  # the old run's; if drawing is interrupted, the next command draws
    if not picture.is_file():
        _draw(run)
    if environment.json:
        environment.print_json(run.info)
    show(environment, chosen, run)


def _spelt(space: str, overrides: tuple[str, ...], seed: int) -> str:
    """The command that makes this run again, wherever it is written."""
    words = ["dse", "sweep", space]
    for override in overrides:
        words += ["--set", override]
    if seed:
        words += ["--seed", str(seed)]
    return shlex.join(words)


def _draw(run: Run) -> None:
    from dse.charts.front import Fronts, front_figure
    from dse.charts.style import save
    from dse.cli.runs import names_apart, title

    drawn = Fronts(names_apart([run.directory])[0], run.front, title(run.space), limits=run.space.constraints)
    save(front_figure([drawn]), run.directory / "front.png")


def show(environment: Environment, space: Space, run: Run) -> None:
    """The front as a table, what was counted, and one sentence of what was found."""
    from dse.charts.findings import sentence
    from dse.cli.fronts import in_order, print_front
    from dse.cli.runs import title

    info = run.info
    environment.print(environment.style(title(space).replace("\n", "; "), dim=True))
    print_front(environment, in_order(run.front), rows=ROWS)
    environment.print()
    rate = info["points_per_second"] or 0.0
    excluded = f", {info['excluded']:,} more excluded by proof" if info["excluded"] else ""
    environment.print(
        f"{info['evaluated']:,} points in {info['seconds']:.1f} s ({_rounded(rate)} points/s){excluded}: "
        f"{info['front']:,} on the front, {info['infeasible']:,} outside the constraints. All of it is in "
        f"{run.directory}."
    )
    for knob, error in info.get("interpolation_error", {}).items():
        known = "unknown (too few measured values)" if error is None else f"{error:.2g} nats per token"
        environment.remark(f"note: {knob} was interpolated; median error of the loss: {known}")
    for note in info.get("notes", ()):
        environment.remark(f"note: {note}")
    if info["hypervolume"] == 0 and space.reference:
        environment.remark(
            "note: the hypervolume is 0: no point is better than objectives.reference in every objective"
        )
    environment.print(environment.style(sentence(run.front), bold=True))


def _rounded(rate: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g}"
