"""The steps of a waterfall, each priced: the published gain, ours of it, and what each fair comparison leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    import pandas as pd

    from dse.charts.waterfall import Step
    from dse.cli.environment import Environment
    from dse.cli.pictures import Drawn
    from dse.cli.plot import Wish
    from dse.results import Run
    from dse.space import Space

WIDE, NARROW = 12, 8
"""Bits of the dense attention that papers compare with, and that anyone would."""


def steps(environment: Environment, run: Run, algorithm: str, budget: float) -> tuple[list[Step], str]:
    """The bars for one algorithm of a run, and a title.

    One setting and design go through all bars: the fastest point within `budget` of the run's space with fetches
    shared by the query heads of a group. A run of ungrouped queries has its space swept again for that.

    Raises:
        BadInput: the run has no such algorithm, or nothing of it stays within the budget.
    """
    from dse.charts.findings import gains
    from dse.charts.waterfall import Step

    front, space = _grouped(environment, run)
    sparse = [str(name) for name in dict.fromkeys(front["algorithm"]) if name != "dense"]
    found = {g.algorithm: g for g in gains(front, budget)}
    if algorithm and algorithm not in sparse:
        raise BadInput(f"{run.directory}: no algorithm {algorithm!r}; {nearest(algorithm, sparse)}")
    algorithm = algorithm or next((n for n in found if n != "dense" and found[n].point is not None), "")
    best = found.get(algorithm)
    rival = found.get("dense")
    if best is None or best.point is None:
        raise BadInput(
            f"{run.directory}: no sparse point stays within {budget:g} nats per token; raise --budget"
        )
    if rival is None or rival.point is None:
        raise BadInput(
            f"{run.directory}: no dense point stays within {budget:g} nats per token to compare with"
        )
    row = best.point
    bars = [*_published(algorithm)]
    price = _Pricer(space, algorithm, row)
    loss = f"loss {float(row['nll_increase']):.2g}"
    bars.append(
        Step(
            "measured in a model",
            price.gain(WIDE, grouped=False),
            f"{loss}; own K, V per query head; {WIDE}-bit dense",
        )
    )
    group = space.profile.shape.group
    if group > 1:
        bars.append(
            Step(f"{group} query heads share K, V", price.gain(WIDE, grouped=True), f"over {WIDE}-bit dense")
        )
    bars.append(Step(f"over {NARROW}-bit dense", price.gain(NARROW, grouped=True), "same hardware"))
    over_best = float(row["speedup"]) / float(rival.point["speedup"])
    bars.append(
        Step(
            "over the best dense",
            over_best,
            f"loss {float(rival.point['nll_increase']):.2g}; best design each",
        )
    )
    theirs, whole = (float(p["speedup_end_to_end"]) for p in (rival.point, row))
    if theirs == theirs and whole == whole:
        bars.append(Step("of a whole step", whole / theirs, "weights and all"))
    w = space.workload
    name = space.profile.name
    return (
        bars,
        f"{algorithm}: {name}, {w.phase}, context {w.context}, batch {w.batch}\nwithin {budget:g} nats per token",
    )


def _grouped(environment: Environment, run: Run) -> tuple[pd.DataFrame, Space]:
    """The front with fetches shared in a group, and its space with the profile."""
    from dse.search.sweep import sweep
    from dse.space import load_space

    space = load_space(run.directory / "space.toml")
    if space.workload.grouped:
        return run.front, space
    shared = replace(space, workload=replace(space.workload, grouped=True))
    environment.remark(
        "note: the run's query heads fetch apart; its space is swept again with shared fetches"
    )
    with environment.progress_bar() as move:
        return sweep(shared, progress=move).front, shared


def _published(system: str) -> list[Step]:
    """The published speedup and ours of the same workload, where one is validated."""
    from dse.charts.waterfall import Step
    from dse.validation import SYSTEMS, validate

    if system not in SYSTEMS:
        return []
    for row in validate([system]):
        if row.unit == "x" and row.quantity.startswith("speedup") and row.published and row.ours:
            return [
                Step("published", row.published, row.source.partition(" (")[0]),
                Step("reproduced", row.ours, "published skipping, our price"),
            ]
    return []


def draw_waterfall(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """From what was published to what is left of a whole step."""
    from dataclasses import asdict

    from dse.charts.waterfall import waterfall_figure
    from dse.cli.pictures import only

    run = only(runs, "waterfall")
    found, title = steps(environment, run, wish.algorithm, wish.budget)
    figure = waterfall_figure(found, title if wish.title is None else wish.title, wish.width)
    return figure, {"steps": [asdict(s) for s in found]}


class _Pricer:
    """Prices one setting and dense attention on one design."""

    def __init__(self, space: Space, algorithm: str, row: pd.Series[Any]) -> None:
        from dse.cli.points import design_of_row, knobs_of_row

        self.space, self.algorithm = space, algorithm
        self.knobs = knobs_of_row(space, algorithm, row)
        self.design = design_of_row(row)

    def gain(self, bits: int, grouped: bool) -> float:
        """Time of the most accurate dense setting of a width over the setting's, by the sequence."""
        profile, context = self.space.profile, self.space.workload.context
        measured = profile.measured(context)
        at = profile.context_index(context)
        same = [
            i
            for i in profile.rows("dense")
            if measured[i]
            and profile.settings[i].form.k_bits == bits
            and profile.settings[i].form.v_bits == bits
        ]
        if not same:
            raise BadInput(
                f"{profile.name}: dense attention of {bits} bits was not measured at context {context}"
            )
        dense = min(same, key=lambda i: float(profile.accuracy[i, at, 0]))
        return self._seconds("dense", dict(profile.settings[dense].knobs), grouped) / self._seconds(
            self.algorithm, self.knobs, grouped
        )

    def _seconds(self, algorithm: str, knobs: dict[str, Any], grouped: bool) -> float:
        import numpy as np

        from dse.cli.points import statistics_of, workload_of
        from dse.cost.price import price
        from dse.profiles.lookup import select

        space = replace(self.space, workload=replace(self.space.workload, grouped=grouped))
        chosen = select(space.profile, algorithm, {k: [v] for k, v in knobs.items()}, space.workload.context)
        found = price(
            statistics_of(space, chosen), self.design, workload_of(space), ("latency_s", "batch"),
            overrides=dict(space.components),
        )  # fmt: skip
        # The largest batch that fits differs between settings, and so do their steps.
        return float(np.ravel(found["latency_s"])[0] / np.ravel(found["batch"])[0])
