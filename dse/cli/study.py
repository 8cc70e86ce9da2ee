"""`dse study`: search a space with Optuna."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import NAME, PLACE
from dse.errors import BadInput
from dse.study.ledger import GRACE, MOST_GRACE, MOST_TRIALS

if TYPE_CHECKING:
    from dse.results import Run
    from dse.space import Space

SPACE: Final = "quickstart"
TRIALS: Final = 100
SAMPLER: Final = "local"
"""What is searched, and how, unless it is said."""


@click.command(name="study")
@click.argument("space", default=SPACE, type=NAME)
@click.option(
    "--trials",
    type=click.IntRange(0, MOST_TRIALS),
    default=TRIALS,
    show_default=True,
    metavar="N",
    help="Completed trials to add; 0 does what is still owed.",
)
@click.option("--time", "seconds", type=float, metavar="SECONDS", help="Stop after this time.")
@click.option(
    "--flat", type=int, metavar="N", help="Stop when N trials in a row added nothing to the hypervolume."
)
@click.option(
    "--sampler",
    default=SAMPLER,
    show_default=True,
    metavar="NAME",
    help="local (steps from the front so far), tpe, nsga2, nsga3, qmc, random, grid, gp (needs torch), or cmaes (one objective, needs cmaes).",
)
@click.option("--objective", default="", metavar="METRIC", help="Seek this objective of the space alone.")
@click.option(
    "--storage",
    envvar="DSE_STORAGE",
    metavar="URL",
    help="memory, journal:PATH, sqlite:///PATH, postgresql://..., or grpc://HOST:PORT; DSE_STORAGE may hold it.  "
    "[default: a journal in the run directory]",
)
@click.option(
    "--study-name",
    "name",
    default="",
    metavar="NAME",
    help="Study within the storage.  [default: the space's]",
)
@click.option(
    "--continuous", is_flag=True, help="Numeric axes may take values between those the space lists."
)
@click.option(
    "--warm-start",
    type=PLACE,
    metavar="RUN",
    help="Try the points of this run's front first.",
)
@click.option(
    "--measure",
    is_flag=True,
    help="With --continuous: measure settings the profile lacks (needs the `lm` extra).",
)
@click.option(
    "--grace",
    type=click.IntRange(1, MOST_GRACE),
    default=GRACE,
    show_default=True,
    metavar="SECONDS",
    help="Silence after which a process counts as dead and its trial is handed on.",
)
@common("output", "set", "jobs", "seed", "fresh", "json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment,
    space: str,
    trials: int,
    seconds: float | None,
    flat: int | None,
    sampler: str,
    objective: str,
    storage: str | None,
    name: str,
    continuous: bool,
    warm_start: Path | None,
    measure: bool,
    grace: int,
    output: Path | None,
    overrides: tuple[str, ...],
    jobs: int,
    seed: int,
    fresh: bool,
) -> None:
    """Search a space with Optuna: add trials to its study, keep the front of all of them.

    SPACE is a TOML file or the name of a shipped space (`dse list spaces`).  [default: quickstart]

    The study lies in the run directory (results/NAME-study) or where --storage says; the same command again adds
    to it. Commands that share a study work off together what all of them asked for.

    The same space, sampler, seed and --jobs 1 give the same trials, at once or in several commands (gp and cmaes: at
    once only, their random state ends with their process).
    """
    from contextlib import ExitStack

    from dse.outputs import hold
    from dse.results import WAIT_S
    from dse.space import load_space
    from dse.study.begin import front_points
    from dse.study.directory import default_directory, prepared, write
    from dse.study.run import Budget, check, study
    from dse.study.storage import read_place

    Budget(trials, seconds, flat).check()
    place = None if storage is None else read_place(storage)
    if measure and not continuous:
        raise BadInput("--measure: only values between those listed are unmeasured; add --continuous")
    chosen = load_space(space, overrides)
    _, called = check(
        chosen,
        objective=objective,
        sampler=sampler,
        name=name,
        place=place,
        jobs=jobs,
        seed=seed,
        grace=grace,
    )
    if fresh and place is not None:
        raise BadInput(
            "--fresh: forgets the journal in the run directory only; with --storage give another --study-name, and "
            "its directory with --output"
        )
    rows = _front(warm_start)
    if rows is not None:
        front_points(chosen, continuous, sampler, rows, trials)  # refused before anything is written
    measuring = _measuring(environment, chosen) if measure else None
    directory = output or default_directory(chosen)
    with ExitStack() as stack:
        kept = stack.enter_context(prepared(directory, chosen, called, fresh, place))
        with environment.progress_bar("trial") as progress:
            result = study(
                chosen,
                trials=trials,
                seconds=seconds,
                flat=flat,
                sampler=sampler,
                storage=kept,
                name=called,
                objective=objective,
                continuous=continuous,
                warm_start=rows,
                measure=measuring,
                jobs=jobs,
                seed=seed,
                grace=grace,
                progress=progress,
                remark=lambda text: environment.remark(f"note: {text}"),
                settle=lambda: stack.enter_context(hold(directory, WAIT_S)),
                command=_spelt(
                    space,
                    ("--trials", trials, TRIALS),
                    ("--time", seconds, None),
                    ("--flat", flat, None),
                    ("--sampler", sampler, SAMPLER),
                    ("--objective", objective, ""),
                    ("--study-name", name, ""),
                    ("--continuous", continuous, False),
                    ("--warm-start", warm_start, None),
                    ("--measure", measure, False),
                    *(("--set", override, None) for override in overrides),
                    ("--seed", seed, 0),
                ),
            )
        run = write(directory, result)
        _draw(run)
    if environment.json:
        environment.print_json(run.info)
    show(environment, chosen, run)


def _front(directory: Path | None) -> Any:
    """Rows that nothing dominates of a run to start from."""
    if directory is None:
        return None
    from dse.results import read_run

    front = read_run(directory).front
    return front[front["on_front"]]


def _measuring(environment: Environment, space: Space) -> Any:
    from dse.study.measuring import Measuring, check_measuring

    check_measuring()
    return Measuring(space.profile, space.workload.context, remark=environment.remark)


def _spelt(space: str, *options: tuple[str, Any, Any]) -> str:
    """The command that makes this run again; where it is stored is left out, it may hold a password."""
    words = ["dse", "study", space]
    for option, value, usual in options:
        if value == usual:
            continue
        words += [option] if value is True else [option, str(value)]
    return shlex.join(words)


def _draw(run: Run) -> None:
    from dse.charts.front import Fronts, front_figure
    from dse.charts.style import save
    from dse.cli.runs import names_apart, title

    fronts = Fronts(names_apart([run.directory])[0], run.front, title(run.space), sampled=True)
    save(front_figure([fronts]), run.directory / "front.png")


_REASONS = {
    "trials": "",
    "time": "; stopped by --time",
    "flat": "; stopped, the hypervolume is flat",
    "exhausted": "; the grid has visited every point",
}


def show(environment: Environment, space: Space, run: Run) -> None:
    """The front as a table and what the study counted."""
    from dse.cli.fronts import in_order, print_front
    from dse.cli.runs import title

    info = run.info
    environment.print(environment.style(title(space).replace("\n", "; "), dim=True))
    print_front(environment, in_order(run.front), rows=20)
    environment.print()
    environment.print(
        f"{info['trials']:,} trials of study {info['study']} ({info['sampler']}), {info['evaluated']:,} different points "
        f"of {info['points']:,}: {info['front']:,} on the front, {info['infeasible']:,} outside the constraints"
        f"{_REASONS.get(info['stopped'], '')}. All of it is in {run.directory}."
    )
    if info["interpolated"]:
        environment.remark(
            f"note: {info['interpolated']} trials lie between measured settings (interpolated)"
        )
    for note in info.get("notes", ()):
        environment.remark(f"note: {note}")
