"""A study in its storage: made, or found to search the same; its trials are data, and are checked before they are used."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dse.errors import BadInput
from dse.search.fill import with_memory
from dse.study.axes import ALGORITHM, Axis, Layout
from dse.study.ledger import ASKED, MOST_TRIALS
from dse.study.samplers import CONDITIONAL
from dse.study.storage import Place
from dse.study.work import Plan

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.trial import FrozenTrial

    from dse.space.definition import Space

ABOUT: Final = "dse"
"""Attribute of a study: what it searches."""

FORM: Final = 1
"""Version of what a study holds."""

MAKING_SECONDS: Final = 5.0
"""How long whoever makes a study may take to say what it searches."""

_OTHER: Final[Mapping[str, str]] = {
    "space": "searches another space",
    "objectives": "seeks other objectives",
    "continuous": "was begun with the other setting of --continuous",
    "measured": "was begun with the other setting of --measure",
}


def about(plan: Plan) -> dict[str, Any]:
    """What a study says of itself."""
    return {
        "form": FORM,
        "space": plan.space.digest(),
        "objectives": [[k, v] for k, v in plan.objectives.items()],
        "continuous": plan.continuous,
        "measured": plan.measure is not None,
    }


def create(storage: optuna.storages.BaseStorage, plan: Plan) -> None:
    """Make the study, or see that the one there searches the same.

    Raises:
        BadInput: another space, other objectives, another version's, or not a study of dse.
    """
    import optuna

    directions: list[Any] = ["maximize" if up else "minimize" for up in plan.objectives.values()]
    try:
        there = optuna.create_study(study_name=plan.name, storage=storage, directions=directions)
        known = None
    except optuna.exceptions.DuplicatedStudyError:
        there = optuna.load_study(study_name=plan.name, storage=storage)
        known = _what_is_there(there, plan)
    if [d.name.lower() for d in there.directions] != directions:
        raise BadInput(f"study {plan.name} seeks other objectives; nothing was mixed: {plan.place.beside}")
    if known is None:  # new, or whoever made it ended before it could say more
        there.set_user_attr(ABOUT, about(plan))
        there.set_metric_names(list(plan.objectives))
        return
    mine = about(plan)
    form = known.get("form") if isinstance(known, dict) else None
    if form != FORM:
        newer = type(form) is int and form > FORM
        raise BadInput(
            f"study {plan.name}: form {form!r}, not {FORM}: was made by {'a newer' if newer else 'another'} version of dse; "
            f"nothing was mixed: {'update dse, or ' if newer else ''}{plan.place.beside}"
        )
    for key, text in _OTHER.items():
        if known.get(key) != mine[key]:
            raise BadInput(f"study {plan.name} {text}; nothing was mixed: {plan.place.beside}")
    for key, value in there.user_attrs.items():
        if key.startswith(ASKED) and (type(value) is not int or not 0 <= value <= MOST_TRIALS):
            raise BadInput(
                f"study {plan.name}: {key}: found {value!r}; must be a number of trials from 0 to {MOST_TRIALS}; the "
                f"storage is damaged or was changed: {plan.place.beside}"
            )


def _what_is_there(study: optuna.Study, plan: Plan) -> Any:
    """What a study says of itself; None where it is empty and whoever made it had time enough to say it.

    Another process may be making it right now, and writes what it is before anything else: attributes are read after
    trials, so that who sees one of its trials sees that too.

    Raises:
        BadInput: it is in use, and does not say that it is of dse.
    """
    deadline = time.monotonic() + MAKING_SECONDS
    while True:
        known = study.user_attrs.get(ABOUT)
        if known is not None:
            return known
        in_use = bool(study.get_trials(deepcopy=False))
        written = study.user_attrs
        if ABOUT in written:
            return written[ABOUT]
        if in_use or written:
            raise BadInput(
                f"--study-name {plan.name}: there is a study of that name that dse did not make; {plan.place.beside}"
            ) from None
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.1)


class Inspector:
    """Checks that trials are such as this study makes; each is looked at until it has ended.

    Args:
        where: the storage, for messages.
    """

    def __init__(self, space: Space, layout: Layout, objectives: int, where: Place) -> None:
        self._layout, self._objectives, self._where = layout, objectives, where
        self._limits = set(with_memory(space.constraints))
        self._seen: set[int] = set()

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Raise BadInput where a trial is none of this study's."""
        for trial in trials:
            if trial.number in self._seen:
                continue
            self._params(trial, trial.params)
            if trial.state.name == "WAITING":
                queued = trial.system_attrs.get("fixed_params", {})
                if not isinstance(queued, dict):
                    raise self._wrong(trial, "fixed_params", queued, "a table")
                self._params(trial, queued)
            elif trial.state.name == "COMPLETE":
                self._complete(trial)
            if trial.state.is_finished():
                self._seen.add(trial.number)

    def _params(self, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
        known = self._layout.distributions
        for name, distribution in trial.distributions.items():
            if name not in known or distribution != known[name]:
                raise self._wrong(trial, name, distribution, "a parameter of this space")
        for name, value in params.items():
            if name == ALGORITHM and len(self._layout.names) > 1:
                good = value in self._layout.names
            else:
                good = name in self._layout.axes and _may_be(self._layout.axes[name], value)
            if not good:
                raise self._wrong(trial, name, value, "a value of this space")

    def _complete(self, trial: FrozenTrial) -> None:
        name = trial.params.get(ALGORITHM, self._layout.names[0])
        for owned in (*((ALGORITHM,) if len(self._layout.names) > 1 else ()), *self._layout.owned(name)):
            if owned not in trial.params:
                raise self._wrong(trial, owned, None, "given")
        values = trial.values
        if len(values) != self._objectives or not all(_is_number(v) and v == v for v in values):
            raise self._wrong(trial, "values", values, f"{self._objectives} numbers")
        limits = trial.constraints
        if not self._limits <= set(limits) or not all(
            _is_number(v) and math.isfinite(v) for v in limits.values()
        ):
            raise self._wrong(trial, "constraints", limits, f"numbers for {', '.join(sorted(self._limits))}")

    def _wrong(self, trial: FrozenTrial, name: str, found: Any, right: str) -> BadInput:
        return BadInput(
            f"{self._where}: trial {trial.number}: {name}: found {str(found)[:80]}; must be {right}: damaged, or from "
            f"another program; {self._where.beside}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _may_be(axis: Axis, value: Any) -> bool:
    """Whether a value is on an axis, or between its ends: a number then stands for the nearest value, or itself."""
    if not isinstance(value, str | bool | int | float):
        return False
    if axis.numeric:
        return _is_number(value) and float(axis.values[0]) <= float(value) <= float(axis.values[-1])
    return axis.number(value) is not None


def front_points(
    space: Space, continuous: bool, sampler: str, rows: pd.DataFrame, most: int
) -> list[dict[str, Any]]:
    """Parameters of the points of a front, spread evenly if there are more than `most`.

    Raises:
        BadInput: none of them is a point of this space.
    """
    layout = Layout(space, continuous)
    records = [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
    points = [p for p in map(layout.params, records) if p is not None]
    if not points:
        raise BadInput("--warm-start: none of the run's points is a point of this space")
    if len(points) > most:
        points = [points[round(i)] for i in np.linspace(0, len(points) - 1, most).tolist()]
    if sampler not in CONDITIONAL:
        # Samplers without conditional parameters learn from trials that have all of them.
        first = [layout.listed(n) for n in _firsts(layout)]
        blank = {k: v for one in reversed(first) for k, v in one.items()}
        points = [blank | p for p in points]
    return points


def _firsts(layout: Layout) -> list[int]:
    """Number of the first point of every algorithm."""
    numbers, total = [], 0
    for size in layout.sizes.values():
        numbers.append(total)
        total += size
    return numbers
