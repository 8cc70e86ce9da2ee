"""`dse explain`: where the time, energy and area of one point go, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import NAME

if TYPE_CHECKING:
    from dse.cli.points import Point


@click.command(name="explain")
@click.argument("run", type=NAME, metavar="RUN")
@click.argument("point", default="", metavar="[POINT]")
@common("set", "json", "quiet", "debug")
@click.pass_obj
def command(environment: Environment, run: str, point: str, overrides: tuple[str, ...]) -> None:
    """Explain the price of one point: what binds it, what it rests on, what would change it.

    RUN is a run directory and POINT the id (or its beginning) or the row number of a point in its front.csv;
    --set changes the point. Or RUN is a space or a preset, and --set describes the point; what it leaves out has the
    only value that the space gives it, else the baseline's (hardware) or the usual one (knobs):

    \b
        dse explain results/quickstart 3
        dse explain results/quickstart 5623f --set hardware.dram_channels=16
        dse explain topick --set token-picker.threshold=1e-3 --set workload.batch=8
    """
    from dse.cli.explain_text import show
    from dse.cli.points import find_point

    chosen = find_point(run, point, overrides)
    story = explained(chosen)
    if environment.json:
        environment.print_json(story)
        return
    show(environment, chosen, story)


def explained(point: Point) -> dict[str, Any]:
    """Everything known about a point, as plain values."""
    from dataclasses import asdict

    from dse.cost.explain import explain
    from dse.cost.ranges import price_range
    from dse.cost.sensitivity import ladder, sensitivity
    from dse.profiles.schema import ACCURACY

    stats, work = point.stats, point.workload
    story = explain(stats, point.design, work, point.components, point.origins)
    known = price_range(stats, point.design, work, point.components)
    asked = point.space.workload
    about = {
        "point": point.name,
        "algorithm": point.algorithm,
        "knobs": dict(point.knobs),
        "hardware": dict(point.design),
        "workload": asdict(work) | {"profile": asked.profile, "batch": asked.batch, "grouped": stats.grouped},
        "changed": point.changed,
        "accuracy": str(point.selection.status[0]),
    }
    loss = dict(zip(ACCURACY, point.selection.accuracy[0].tolist(), strict=True))
    return {
        **about,
        "metrics": {**loss, **story.pop("metrics"), **{k: float(v[0]) for k, v in known.items()}},
        **story,
        "sensitivity": [
            asdict(change) for change in sensitivity(stats, point.design, work, point.components)
        ],
        "ladder": [asdict(rung) for rung in ladder(stats, point.design, work, point.components)],
        "rank": _rank(point),
    }


def _rank(point: Point) -> dict[str, Any] | None:
    """Whether the point stays on its run's front when constants lie elsewhere in their ranges."""
    import numpy as np

    from dse.cli.points import front_statistics
    from dse.cost.ranges import prices_behind, scenario_prices, standing
    from dse.hardware.parameters import PARAMETERS

    if point.run is None or point.row is None or point.changed:
        return None
    front = point.run.front
    on_front = bool(front.iloc[point.row]["on_front"])
    rows = [i for i in range(len(front)) if i == point.row or bool(front.iloc[i]["on_front"])]
    objectives = dict(point.space.objectives)
    wanted = prices_behind(objectives)
    base: dict[str, Any] = {name: np.empty(len(rows)) for name in wanted}
    shifted: dict[Any, dict[str, Any]] = {}
    for at, stats in front_statistics(point.run, point.space, rows).values():
        table = front.iloc[[rows[i] for i in at]]
        design = {
            name: table[f"hardware.{name}"].to_numpy() for name in PARAMETERS if f"hardware.{name}" in table
        }
        design = {k: v.astype(str) if v.dtype == object else v for k, v in design.items()}
        own, elsewhere = scenario_prices(stats, design, point.workload, point.components, wanted)
        for name in wanted:
            base[name][at] = own[name]
            for scenario, found in elsewhere.items():
                shifted.setdefault(scenario, {n: np.empty(len(rows)) for n in wanted})[name][at] = found[name]
    values = {name: front.iloc[rows][name].to_numpy(dtype=np.float64) for name in objectives}
    kept = standing(rows.index(point.row), objectives, values, base, shifted)
    ids = front.iloc[rows]["point"].tolist()
    return {
        "on_front": on_front,
        "survives": on_front and kept.survives,
        "scenarios": kept.scenarios,
        "lost": {name: [ids[i] for i in at] for name, at in kept.lost.items()},
        "against": len(rows) - 1,
    }
