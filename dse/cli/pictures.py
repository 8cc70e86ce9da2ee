"""What charts of runs and profiles are drawn from: fronts with published points around, lines over axes, knobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.cli.environment import Environment
from dse.cli.options import check_once
from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from dse.charts.published import Published
    from dse.cli.plot import Wish
    from dse.results import Run

Drawn = tuple["Figure", dict[str, Any]]


def only(runs: tuple[str, ...], kind: str) -> Run:
    """The one run that a kind of chart is drawn from."""
    from dse.results import read_run

    if len(runs) != 1:
        raise BadInput(f"--kind {kind}: needs exactly one run; found {len(runs)}")
    return read_run(runs[0])


def titled(run: Run, wish: Wish) -> str:
    """The title that was asked for, else workload and baseline."""
    from dse.cli.runs import title

    return wish.title if wish.title is not None else title(run.space)


def draw_front(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Fronts, with what was asked for around them."""
    from dse.charts.cloud import cloud
    from dse.charts.front import front_figure
    from dse.charts.published import operating_points
    from dse.cli.plot import axes_of
    from dse.cli.runs import fronts
    from dse.results import read_run
    from dse.search.compare import baseline_of
    from dse.space import load_space

    paths = [Path(run) for run in runs]
    x, y = axes_of(wish)
    drawn = fronts(paths)
    if wish.algorithm:
        drawn = [replace(run, points=_beside_dense(run.points, run.name, wish.algorithm)) for run in drawn]
    baselines = [baseline_of(read_run(path)) for path in paths]
    shown = (x, y, wish.colour, wish.size)
    if any(len({base.get(name) for base in baselines}) > 1 for name in shown):
        environment.remark(
            "note: these runs have different baselines, their ratios do not compare; latency_s does"
        )
    found = None
    marks: list[Published] = []
    if len(paths) > 1 and (wish.cloud or wish.published):
        raise BadInput(
            f"--{'cloud' if wish.cloud else 'published'}: needs exactly one run; found {len(paths)}"
        )
    if wish.cloud:
        found = cloud(read_run(paths[0]), load_space(paths[0] / "space.toml"), x, y)
    if wish.published:
        marks = operating_points(read_run(paths[0]).space)
        if not any({x, y} & set(mark.values) for mark in marks):
            known = sorted({metric for mark in marks for metric in mark.values})
            environment.remark(
                "note: no published point of these algorithms has these axes"
                + (f"; there are some for {', '.join(known)}" if known else "")
            )
    figure = front_figure(
        drawn, x=x, y=y, colour=wish.colour, size=wish.size, width=wish.width, title=wish.title, cloud=found,
        published=marks,
    )  # fmt: skip
    return figure, {"x": x, "y": y}


def _beside_dense(points: pd.DataFrame, run: str, algorithm: str) -> pd.DataFrame:
    """Rows of one algorithm and of the rival."""
    known = [str(name) for name in points["algorithm"].unique()]
    if algorithm not in known:
        raise BadInput(f"{run}: no algorithm {algorithm!r} on its fronts; {nearest(algorithm, known)}")
    return points[points["algorithm"].isin(("dense", algorithm))]


def draw_parallel(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Parallel coordinates."""
    from dse.charts.parallel import parallel_figure, usual_axes

    run = only(runs, "parallel")
    check_once(f"--columns {','.join(wish.columns)}", wish.columns, "axis")
    columns = list(wish.columns) or usual_axes(run.front, list(run.space.objectives))
    return parallel_figure(run.front, columns, titled(run, wish), wish.width), {"columns": columns}


def draw_knobs(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Response of accuracy and bytes to a knob."""
    from dataclasses import asdict

    from dse.charts.labels import brief
    from dse.charts.response import response_figure, responses
    from dse.profiles.store import load_profile, shipped_profiles
    from dse.space import load_space, shipped_spaces

    if len(runs) != 1:
        raise BadInput(f"--kind knobs: needs exactly one profile, space or run; found {len(runs)}")
    source, grouped = runs[0], True
    contexts: tuple[int, ...] = ()
    if Path(source).is_dir() or source.endswith(".toml") or source in shipped_spaces():
        space = load_space(Path(source) / "space.toml" if Path(source).is_dir() else source)
        profile, grouped, contexts = space.profile, space.workload.grouped, (space.workload.context,)
    elif source.endswith(".npz") or source in shipped_profiles():
        profile = load_profile(source)
    else:
        known = [*shipped_profiles(), *shipped_spaces()]
        raise BadInput(f"{source}: no such profile, space or run; {nearest(source, known)}")
    algorithm = wish.algorithm
    if not algorithm:
        algorithm = max((a for a in profile.algorithms if a != "dense"), key=lambda a: len(profile.rows(a)))
    fixed = {key.removeprefix(f"{algorithm}."): value for key, value in map(_assigned, wish.overrides)}
    if "context" in fixed:
        wanted = fixed.pop("context")
        if wanted not in profile.contexts:
            have = ", ".join(map(str, profile.contexts))
            raise BadInput(f"--set context: found {wanted!r}; the profile holds {have}")
        contexts = (wanted,)
    elif wish.by and not contexts:
        contexts = (max(profile.contexts),)  # a curve per value of two knobs at a time is not to be read
    knob, series, held = responses(profile, algorithm, wish.knob, wish.by, fixed, contexts, grouped)
    # A value stays on the line of its knob; one that is empty says nothing.
    words = ", ".join(f"{k}\u00a0{brief(v)}" for k, v in held.items() if brief(v))
    sharing = "" if grouped else "; every query head fetches for itself"
    title = f"{profile.name}, {profile.phase}{sharing}\n{words}" if wish.title is None else wish.title
    figure = response_figure(algorithm, knob, series, title, wish.width)
    return figure, {
        "algorithm": algorithm,
        "knob": knob,
        "fixed": held,
        "series": [asdict(s) for s in series],
    }


def _assigned(text: str) -> tuple[str, Any]:
    from dse.space.source import parse_override

    path, value = parse_override(text)
    return ".".join(path), value
