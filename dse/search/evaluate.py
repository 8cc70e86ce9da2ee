"""Metrics of single points: what a search that picks its own points asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.cost.price import BOUNDS
from dse.errors import BadInput, nearest
from dse.hardware.parameters import PARAMETERS, check_value
from dse.profiles.lookup import resolve
from dse.search.fill import with_memory
from dse.search.shards import Grid, breaks
from dse.space.definition import Space
from dse.space.names import METRICS

if TYPE_CHECKING:
    import pandas as pd

    from dse.search.metrics import Pricer

RIVAL = "speedup_best_dense"


class Evaluator:
    """Prices points of a space one after the other; its baseline is priced once.

    Args:
        pricer: as for `dse.search.sweep.sweep`.

    Attributes:
        limits: the space's constraints, and that a batch fits in memory.
    """

    def __init__(self, space: Space, pricer: Pricer | None = None) -> None:
        from dse.search.sweep import _Run

        self.space, self.limits = space, with_memory(space.constraints)
        self._run = _Run(space, pricer, 1, "loky", None, False, None)

    def __call__(self, points: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """As `evaluate`."""
        import pandas as pd

        return pd.DataFrame([self._one(point, f"point {n}") for n, point in enumerate(points)])

    def _one(self, point: Mapping[str, Any], where: str) -> dict[str, Any]:
        space, run = self.space, self._run
        name = str(point.get("algorithm"))
        if name not in space.algorithms:
            raise BadInput(f"{where}: algorithm: found {name!r}; {nearest(name, space.algorithms)}")
        knobs = {k: values[0] for k, values in space.algorithms[name].knobs.items()}
        design = {k: values[0] for k, values in space.axes(name).items()}
        for key, value in point.items():
            owner, _, short = key.partition(".")
            if owner == name and short in knobs:
                knobs[short] = value
            elif owner == "hardware" and short in PARAMETERS:
                design[short] = check_value(where, short, value)
            elif key != "algorithm":
                valid = [*(f"{name}.{k}" for k in knobs), *(f"hardware.{k}" for k in PARAMETERS)]
                raise BadInput(f"{where}: {key}: no such parameter of {name}; {nearest(key, valid)}")
        wanted = {k: [v] for k, v in knobs.items()}
        try:
            found = resolve(space.profile, name, wanted, space.workload.context, defaults={})
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        (chunk,) = run._chunks(name, found)
        chunk = replace(chunk, grid=Grid({k: (v,) for k, v in design.items()}))
        first = np.zeros(1, dtype=np.intp)
        names = [*(m for m in METRICS if m != RIVAL), "bound"]
        metrics = run.meter.measure(chunk.rows, chunk.grid.rows(first), names, 1)
        row: dict[str, Any] = {
            "point": chunk.identities(run.identity, first, first)[0],
            "algorithm": name,
            "accuracy": found.sources[0].status,
            **{m: float(np.asarray(v).reshape(-1)[0]) for m, v in metrics.items()},
        }
        row["bound"] = BOUNDS[int(row["bound"])]
        row["feasible"] = not any(breaks(row[m], x) for m, x in self.limits.items() if m != RIVAL)
        return row


def evaluate(
    space: Space, points: Sequence[Mapping[str, Any]], *, pricer: Pricer | None = None
) -> pd.DataFrame:
    """One row of metrics per point, in the order given.

    Args:
        points: ``algorithm``, its knobs as ``ALGORITHM.KNOB``, hardware as ``hardware.NAME``. What is left out
            has the first of the space's values. Values need not lie on the space's axes: knobs between measured
            values are interpolated.
        pricer: as for `dse.search.sweep.sweep`.

    Returns:
        ``point`` (the id it has in a front.csv of the same space), ``algorithm``, ``accuracy`` (``measured`` or
        ``interpolated``), every metric, ``bound`` and ``feasible``. `speedup_best_dense` is known only after a sweep of
        dense attention: it is left out, as a constraint too.

    Raises:
        BadInput: an unknown name, a value out of range, or a setting that cannot be looked up.
    """
    return Evaluator(space, pricer)(points)
