"""Charts of searches: hypervolume over the trials of studies, and which parameters decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dse.cli.environment import Environment
from dse.cli.options import refuse_unused
from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    import pandas as pd

    from dse.cli.pictures import Drawn
    from dse.cli.plot import Wish
    from dse.results import Run

PROGRESS: Final = ("trials", "seconds")
"""What progress of a study can be drawn against."""


def is_study(run: Run) -> bool:
    """Whether a study made the run."""
    from dse.study.result import KIND

    return run.info.get("kind") == KIND


def draw_hypervolume(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Studies as lines, sweeps of the same objectives as levels."""
    from dse.charts.hypervolume import Growth, costs_of, growth, hypervolume_figure
    from dse.cli.runs import names_apart
    from dse.cli.runs import title as titled
    from dse.results import read_run
    from dse.search.front import hypervolume
    from dse.study.trials import read_trials

    x = wish.x or PROGRESS[0]
    if x not in PROGRESS:
        raise BadInput(
            f"-x {x}: --kind hypervolume is drawn over {' or '.join(PROGRESS)}; {nearest(x, PROGRESS)}"
        )
    found = [read_run(run) for run in runs]
    objectives = dict(found[0].space.objectives)
    _comparable(found, objectives)
    # One reference point for all, the worst of theirs; that of a single run is its own.
    signs = {m: -1.0 if up else 1.0 for m, up in objectives.items()}
    costs = {m: max(s * float(run.info["reference_point"][m]) for run in found) for m, s in signs.items()}
    studies, exact = [], {}
    for name, run in zip(names_apart(map(Path, runs)), found, strict=True):
        if is_study(run):
            table = read_trials(run)
            at = [float(n + 1) for n in range(len(table))]
            if x == "seconds":
                # Trials of several workers end out of order: what was found by a time counts from that time.
                at, table = _in_time(_seconds(run, table), table)
            numbers = table.assign(**{m: table[m].astype(float) for m in objectives})
            volumes = growth(
                costs_of(numbers, objectives), (table["feasible"] == "True").to_numpy(), list(costs.values())
            )
            studies.append(Growth(name, tuple(at), tuple(volumes.tolist())))
        else:
            rows = run.front[run.front["on_front"].astype(bool)]
            exact[name] = hypervolume(costs_of(rows, objectives), list(costs.values()))
    if len({run.space.digest() for run in found}) > 1:
        environment.remark("note: these runs are of different spaces")
    title = titled(found[0].space) if wish.title is None else wish.title
    figure = hypervolume_figure(
        studies, exact, {m: costs[m] * s for m, s in signs.items()}, x, title, wish.width
    )
    facts = {
        "studies": [{"name": s.name, "trials": len(s.at), "hypervolume": s.volume[-1]} for s in studies],
        "exact": exact,
        "reference_point": {m: costs[m] * s for m, s in signs.items()},
    }
    return figure, facts


def _comparable(runs: list[Run], objectives: dict[str, bool]) -> None:
    """Raise BadInput unless the hypervolumes of all runs measure the same."""
    from dse.search.compare import baseline_of

    for run in runs:
        sought = {m: goal == "maximize" for m, goal in run.info["objectives"].items()}
        if dict(run.space.objectives) != objectives or sought != objectives:
            raise BadInput(
                f"{run.directory}: seeks {', '.join(sought)}; a hypervolume needs all of {', '.join(objectives)} in every run"
            )
        own, first = (baseline_of(r) for r in (run, runs[0]))
        if any(own[name] != first[name] for name in objectives if name in own):
            raise BadInput(
                f"{run.directory}: its baseline differs from that of {runs[0].directory}; ratios do not compare"
            )


def _seconds(run: Run, table: pd.DataFrame) -> list[float]:
    """Seconds from the beginning of the first trial to the end of each, from the journal of the study."""
    from dse.results import JOURNAL
    from dse.study.ledger import GRACE
    from dse.study.storage import Place, open_storage, quiet

    path = run.directory / JOURNAL
    if not path.is_file():
        raise BadInput(f"{run.directory}: {JOURNAL} is not there, so no times are known; use -x trials")
    import optuna

    with quiet():
        opened = open_storage(Place("journal", path=path), GRACE, reading=True)
        try:
            trials = optuna.load_study(study_name=run.info["study"], storage=opened).get_trials(
                deepcopy=False
            )
        except KeyError:
            raise BadInput(f"{path}: holds no study {run.info['study']!r}; use -x trials") from None
    ends = {t.number: t.datetime_complete for t in trials}
    starts = [t.datetime_start for t in trials if t.datetime_start is not None]
    wanted = [ends.get(int(n)) for n in table["trial"]]
    if not starts or any(end is None for end in wanted):
        raise BadInput(f"{path}: holds other trials than the table beside it; use -x trials")
    try:
        return [(end - min(starts)).total_seconds() for end in wanted if end is not None]
    except TypeError:  # some with a time zone, some without
        raise BadInput(f"{path}: holds times that do not compare; use -x trials") from None


def _in_time(seconds: list[float], table: pd.DataFrame) -> tuple[list[float], pd.DataFrame]:
    """Both in the order in which the trials ended."""
    order = sorted(range(len(seconds)), key=seconds.__getitem__)
    return [seconds[i] for i in order], table.iloc[order]


def draw_importance(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """PED-ANOVA on the trials of a study, or on points drawn from the space of a sweep."""
    from dse.charts.importance import drawn_from, importance_figure, importances, trials_of
    from dse.cli.pictures import only, titled
    from dse.space import load_space
    from dse.study.axes import Layout
    from dse.study.trials import read_trials

    run = only(runs, "importance")
    space = load_space(run.directory / "space.toml")
    objectives: dict[str, bool] = {m: goal == "maximize" for m, goal in run.info["objectives"].items()}
    if is_study(run):
        refuse_unused(
            {"samples": "--samples", "seed": "--seed"}, "the trials of the study are drawn, all of them"
        )
        layout = Layout(space, bool(run.info["continuous"]))
        trials = trials_of(layout, read_trials(run), list(objectives))
        sample = f"{run.info['trials']:,} trials of the study ({run.info['sampler']})"
    else:
        with environment.progress_bar("point") as progress:
            layout, trials, count = drawn_from(space, wish.samples, wish.seed, progress)
        sample = f"{count:,} points drawn at random, as many of each algorithm"
    found = importances(layout, objectives, trials)
    note = f"PED-ANOVA: what sets the best tenth apart from all {len(trials):,} that keep the constraints, of {sample}"
    title = f"{titled(run, wish)}\n{note}" if wish.title is None else wish.title
    facts: dict[str, Any] = {"evaluator": "PED-ANOVA", "points": len(trials), "importance": found}
    return importance_figure(found, title, wish.width), facts
