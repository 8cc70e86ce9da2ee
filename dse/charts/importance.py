"""Which parameters decide: Optuna's PED-ANOVA on the trials of a study, or on points drawn from a space.

PED-ANOVA (Watanabe et al., IJCAI 2023, arXiv 2304.10255) compares how a parameter is distributed among the best tenth
of the points and among all of them; Optuna 5 takes the tenth by rank of domination where several objectives are
sought, and covers parameters that only some points have (arXiv 2601.20800). A parameter that decides nothing is spread
alike in both, and gets a share of about zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dse.charts.labels import label
from dse.charts.sheet import TITLE_LETTERS, sheet, wrapped
from dse.charts.style import colours, shade, small
from dse.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dse.space import Space
    from dse.study.axes import Axis, Layout

FRONT: Final = "front"
"""Stands for all objectives together."""

LEAST: Final = 50
"""Fewest points that are compared: five in the best tenth."""

MOST_BARS: Final = 12
"""Parameters with a bar of their own; the others share one."""


@dataclass(frozen=True)
class Trial:
    """A point that keeps the constraints: parameters as `dse.study.axes.Layout` names them, objectives in order."""

    params: Mapping[str, Any]
    values: tuple[float, ...]


def trials_of(layout: Layout, table: pd.DataFrame, objectives: Sequence[str]) -> list[Trial]:
    """Feasible rows of a study's ``trials.csv``, as `dse.study.trials.read_trials` gives them.

    Raises:
        BadInput: a row is no point of the space.
    """
    found = []
    for row in table.to_dict("records"):
        if row["feasible"] != "True":
            continue
        name = row["algorithm"]
        params: dict[str, Any] = {"algorithm": name} if len(layout.names) > 1 else {}
        owned = {f"{name}.{k}": a for k, a in layout.settings[name].axes.items()}
        owned |= {f"hardware.{k}": a for k, a in layout.hardware[name].items()}
        params |= {axis.name: _value(axis, row.get(column, "")) for column, axis in owned.items()}
        found.append(Trial(params, tuple(float(row[m]) for m in objectives)))
    return found


def _value(axis: Axis, text: str) -> Any:
    """The value of an axis that a cell of a table stands for."""
    for value in axis.values:
        if str(value) == text:
            return value
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    same = (v for v in axis.values if not isinstance(v, str) and float(v) == number)
    found = next(same, None)
    if found is None and axis.free and math.isfinite(number):
        found = int(number) if axis.whole else number
    if found is None:
        raise BadInput(f"trials.csv: {axis.name}: found {text!r}; no value of the space; run the study again")
    return found


def drawn_from(
    space: Space, count: int, seed: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Layout, list[Trial], int]:
    """Points of a space drawn at random, as many of each algorithm, none twice, priced exactly.

    Args:
        count: points to draw at most, about.

    Returns:
        The space's layout, the points that keep the constraints, and how many were drawn.
    """
    from dse.study.axes import Layout
    from dse.study.evaluate import Evaluation

    layout = Layout(space)
    evaluation = Evaluation(space, space.objectives)
    random = np.random.default_rng(seed)
    numbers: list[int] = []
    first = 0
    for size in layout.sizes.values():
        each = min(size, -(-count // len(layout.sizes)))
        # A random permutation of a billion points does not fit: draw with spares, keep the distinct ones.
        chosen = random.permutation(size)[:each] if size <= 4 * each else None
        if chosen is None:
            chosen = np.unique(random.integers(0, size, 2 * each))
            chosen = random.permutation(chosen)[:each]
        numbers += (first + chosen).tolist()
        first += size
    found = []
    for done, number in enumerate(numbers):
        params = layout.listed(number)
        outcome = evaluation.outcome(layout.point(params))
        if all(broken <= 0 for broken in outcome.constraints.values()):
            found.append(Trial(params, outcome.values))
        progress(done + 1, len(numbers))
    return layout, found, len(numbers)


def importances(
    layout: Layout, objectives: Mapping[str, bool], trials: Sequence[Trial]
) -> dict[str, dict[str, float]]:
    """Target -> parameter -> share; the targets are the front (with several objectives) and each objective.

    The shares of a target sum to 1, or are all 0 where nothing separates the best tenth.

    Raises:
        BadInput: fewer than `LEAST` trials.
    """
    if len(trials) < LEAST:
        raise BadInput(
            f"--kind importance: {len(trials)} points keep the constraints; at least {LEAST} are needed: more trials, or --samples"
        )
    import optuna

    from dse.study.storage import quiet

    distributions = _distributions(layout)
    with quiet():
        study = optuna.create_study(
            directions=["maximize" if up else "minimize" for up in objectives.values()]
        )
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=dict(t.params),
                    distributions={name: distributions[name] for name in t.params},
                    values=list(t.values),
                )
                for t in trials
            ]
        )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()

        def shares(target: Callable[[Any], float] | None) -> dict[str, float]:
            raw = optuna.importance.get_param_importances(
                study, evaluator=evaluator, target=target, normalize=False
            )
            whole = sum(raw.values()) or 1.0
            return {
                name: raw[name] / whole for name in sorted(raw, key=lambda n: (-raw[n], n))
            }  # ties in a fixed order

        found = {FRONT: shares(None)} if len(objectives) > 1 else {}
        for i, (name, up) in enumerate(objectives.items()):
            sign = -1.0 if up else 1.0
            found[name] = shares(lambda t, i=i, sign=sign: sign * t.values[i])  # type: ignore[misc]
    return found


def _distributions(layout: Layout) -> dict[str, Any]:
    """Every parameter as Optuna takes it: the listed values of an axis as classes.

    As numbers, PED-ANOVA would smooth both samples, the smaller one more, and find a difference where the wider
    kernel reaches into the gaps between values that no point can have.
    """
    from optuna.distributions import CategoricalDistribution

    found: dict[str, Any] = {"algorithm": CategoricalDistribution(layout.names)}
    for name in layout.names:
        for axis in (*layout.settings[name].axes.values(), *layout.hardware[name].values()):
            found[axis.name] = axis.distribution() if axis.free else CategoricalDistribution(axis.values)
    return found


def importance_figure(
    found: Mapping[str, Mapping[str, float]], title: str = "", width: float | None = None
) -> Figure:
    """A panel of bars per target, one row per parameter, the most important for the first target on top.

    Raises:
        BadInput: nothing to draw.
    """
    if not found or not next(iter(found.values())):
        raise BadInput("nothing to draw: the space has one point")
    from matplotlib.patches import Patch

    targets = list(found)
    leading = found[targets[0]]
    names = sorted(leading, key=lambda n: (-max(found[t][n] for t in targets), n))[:MOST_BARS]
    names.sort(key=lambda n: (-leading[n], n))
    others = len(leading) - len(names)
    with sheet(width, page=True) as paper:
        plots = paper.figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
        for axes, target in zip(plots, targets, strict=True):
            shares = [found[target][n] for n in names]
            if others:
                shares.append(max(0.0, sum(found[target].values()) - sum(shares)))
            _bars(axes, names, shares, paper.wide)
            aim = "to be on the front" if target == FRONT else f"for {label(target).title}"
            axes.set_xlabel(
                wrapped(f"{aim} (%)", int(TITLE_LETTERS * 0.75 * paper.width / paper.wide / len(targets)))
            )
        rows = [_words(n) for n in names] + ([f"{others} others together"] if others else [])
        plots[0].set_yticks(range(len(rows)), rows)
        plots[0].set_ylim(len(rows) - 0.4, -0.6)
        inks = {_kind(n): _ink(n) for n in names}
        handles = [Patch(facecolor=ink, label=kind) for kind, ink in sorted(inks.items())]
        height = 0.55 + 0.17 * len(rows)
        paper.close("", plots[0], handles, height + 0.14 * (title.count("\n") + 1 if title else 0))
        paper.title(title)
        return paper.figure


def _bars(axes: Axes, names: Sequence[str], shares: Sequence[float], wide: float) -> None:
    inks = [_ink(n) for n in names] + [shade(0.6)] * (len(shares) - len(names))
    axes.barh(range(len(shares)), [100 * s for s in shares], color=inks, height=0.62)
    for i, share in enumerate(shares):
        axes.annotate(
            f"{100 * share:.1f}", (100 * share, i), xytext=(2 * wide, 0), textcoords="offset points",
            va="center", ha="left", fontsize=small(),
        )  # fmt: skip
    axes.set_xlim(0, max(0.01, *shares) * 128)
    axes.tick_params(axis="y", length=0)


def _kind(name: str) -> str:
    return (
        "algorithm" if name == "algorithm" else "hardware" if "hardware." in name else "knob of an algorithm"
    )


def _ink(name: str) -> str:
    """Dark for the algorithm, blue for hardware, orange for knobs."""
    return {"algorithm": shade(0.2), "hardware": colours()[0]}.get(_kind(name), colours()[1])


def _words(name: str) -> str:
    """A parameter in words: `dram channels (hardware)`, `token-picker.threshold`."""
    owner, _, rest = name.rpartition(":")
    if "hardware." in rest:
        return label(rest).title + (f" of {owner}" if owner else "")
    return "which algorithm" if name == "algorithm" else name
