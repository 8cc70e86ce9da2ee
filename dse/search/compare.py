"""Two runs side by side: their fronts from one reference point, who dominates whom, and how their spaces differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.errors import BadInput
from dse.search.front import hypervolume, nondominated, settled
from dse.search.metrics import BaselinePrice

if TYPE_CHECKING:
    import pandas as pd

    from dse.results import Run
    from dse.space import Space

FloatArray = NDArray[np.float64]

REBASED: Final[Mapping[str, str]] = {
    "speedup": "latency_s",
    "energy_saving": "energy_j",
    "dram_reduction": "dram_bytes",
    "speedup_end_to_end": "model_s",
}
"""Ratios over a baseline -> what of it (`BaselinePrice`) they are over, which compares across baselines."""

MARGIN: Final = 0.1
"""The common reference point lies this share of the range beyond the worst value of either front."""

_SILENT: Final = ("name", "description", "workload.profile", "schema")
_FOLLOWS: Final = "workload.profile_sha256"


@dataclass(frozen=True)
class Side:
    """One run of a comparison.

    Attributes:
        name: of its directory. points: rows on its front. costs: [points, objectives], smaller is better.
        hypervolume: from the common reference point.
        dominated: which rows a point of the other front is better than; equalled: which have an equal there.
        best: objective -> best value.
    """

    name: str
    points: pd.DataFrame
    costs: FloatArray
    hypervolume: float
    dominated: NDArray[np.bool_]
    equalled: NDArray[np.bool_]
    best: Mapping[str, float]

    @property
    def algorithms(self) -> dict[str, tuple[int, int]]:
        """Algorithm -> (points on the front, of which the other front leaves standing)."""
        names = self.points["algorithm"].astype(str).to_numpy()
        return {
            str(n): (int((names == n).sum()), int(((names == n) & ~self.dominated).sum()))
            for n in dict.fromkeys(names)
        }


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        objectives: metric -> True where more is better; both runs are judged on these.
        reference: metric -> worst value that counts, common to both.
        joint: hypervolume of both fronts together, same reference.
        rebased: ratios of B that were taken over A's baseline, metric -> the factor they were multiplied by.
        differences: entry of the spaces -> (A's, B's value); None where one has no such entry.
        notes: what a reader must know before he believes the figures.
    """

    a: Side
    b: Side
    objectives: Mapping[str, bool]
    reference: Mapping[str, float]
    joint: float
    rebased: Mapping[str, float]
    differences: Mapping[str, tuple[Any, Any]]
    notes: tuple[str, ...]

    @property
    def change(self) -> float:
        """B's hypervolume over A's, less one; NaN where A's is empty."""
        return self.b.hypervolume / self.a.hypervolume - 1 if self.a.hypervolume else float("nan")


def compare(a: Run, b: Run, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compare two runs on the objectives they share.

    Ratios over different baselines do not compare: B's are taken over A's baseline instead.

    Raises:
        BadInput: they share fewer than two objectives, one has no front on them, or their ratios do not compare.
    """
    shared = {m: up for m, up in a.space.objectives.items() if b.space.objectives.get(m) == up}
    if len(shared) < 2:
        theirs = [", ".join(run.space.objectives) for run in (a, b)]
        raise BadInput(
            f"{b.directory}: shares {len(shared)} objectives with {a.directory} ({theirs[1]} against {theirs[0]}); "
            "fronts compare on two or more"
        )
    rebased = _rebased(a, b, shared)
    fronts: list[pd.DataFrame] = [
        run.front.loc[run.front["on_front"].astype(bool)].reset_index(drop=True) for run in (a, b)
    ]
    for metric, factor in rebased.items():
        fronts[1] = fronts[1].assign(**{metric: fronts[1][metric] * factor})
    costs = [settled(_costs(front, shared)) for front in fronts]
    for i, run in enumerate((a, b)):
        good: NDArray[np.bool_] = np.asarray(np.isfinite(costs[i]).all(axis=1))
        # With an objective left out, some points of the front are none any more.
        good[good] = nondominated(costs[i][good])
        fronts[i], costs[i] = fronts[i].loc[good].reset_index(drop=True), costs[i][good]
        if not len(costs[i]):
            raise BadInput(f"{run.directory}: no point of its front has all of {', '.join(shared)}")
    both = np.concatenate(costs)
    low, high = both.min(axis=0), both.max(axis=0)
    reference = high + MARGIN * np.where(high > low, high - low, np.abs(high) + 1e-300)
    # What is maximised and never negative counts from 0 at the lowest, never from below.
    reference = np.where((high <= 0) & (reference > 0) & [*shared.values()], 0.0, reference)
    sides = []
    for i, name in enumerate(names):
        beaten, equal = dominance(costs[i], costs[1 - i])
        best = {
            m: float((-costs[i][:, j]).max() if up else costs[i][:, j].min())
            for j, (m, up) in enumerate(shared.items())
        }
        sides.append(
            Side(name, fronts[i], costs[i], hypervolume(costs[i], list(reference)), beaten, equal, best)
        )
    signs = {m: (-float(r) if up else float(r)) for (m, up), r in zip(shared.items(), reference, strict=True)}
    return Comparison(
        sides[0], sides[1], shared, signs, hypervolume(both[nondominated(both)], list(reference)), rebased,
        differences(a.space, b.space), _notes(a, b, shared, rebased),
    )  # fmt: skip


def dominance(mine: FloatArray, theirs: FloatArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[n] which of `mine` something of `theirs` dominates, and which have an equal there."""
    no_worse = np.all(theirs[None, :, :] <= mine[:, None, :], axis=2)
    better = np.any(theirs[None, :, :] < mine[:, None, :], axis=2)
    equal = np.all(theirs[None, :, :] == mine[:, None, :], axis=2)
    return np.any(no_worse & better, axis=1), np.any(equal, axis=1)


def _costs(front: pd.DataFrame, objectives: Mapping[str, bool]) -> FloatArray:
    return np.column_stack(
        [front[m].to_numpy(dtype=float) * (-1.0 if up else 1.0) for m, up in objectives.items()]
    )


def baseline_of(run: Run) -> dict[str, float]:
    """What the ratios of a run are over: each of `REBASED` -> seconds, joules or bytes of a step of its baseline."""
    price = BaselinePrice.read(run.info["baseline"])
    return {ratio: float(getattr(price, absolute)) for ratio, absolute in REBASED.items()}


def _rebased(a: Run, b: Run, objectives: Mapping[str, bool]) -> dict[str, float]:
    """What turns B's ratios into ratios over A's baseline, for those where it is not 1.

    Raises:
        BadInput: only one of the baselines needs any of what a ratio is taken of.
    """
    factors = {}
    prices = [BaselinePrice.read(run.info["baseline"]) for run in (a, b)]
    by_sequence = any(run.space.workload.by_sequence for run in (a, b))
    for ratio, absolute in REBASED.items():
        if ratio in objectives:
            mine, theirs = (float(getattr(p, absolute)) / (p.batch if by_sequence else 1.0) for p in prices)
            if mine == theirs:
                continue
            if not mine or not theirs:
                raise BadInput(
                    f"{(b if mine else a).directory}: its baseline has {absolute} 0, and that of "
                    f"{(a if mine else b).directory} has not; {ratio} does not compare"
                )
            factor = mine / theirs
            if abs(factor - 1) > 1e-12:
                factors[ratio] = factor
    return factors


def _notes(a: Run, b: Run, objectives: Mapping[str, bool], rebased: Mapping[str, float]) -> tuple[str, ...]:
    notes = []
    left = [m for run in (a, b) for m in run.space.objectives if m not in objectives]
    if left:
        notes.append(f"only one of them has the objective {', '.join(dict.fromkeys(left))}; it is left out")
    if rebased:
        words = ", ".join(f"{m} x {f:.4g}" for m, f in rebased.items())
        notes.append(f"the baselines differ; B's ratios are taken over A's baseline ({words})")
    for key in ("speedup_best_dense", "speedup_same_hardware"):
        if key in objectives:
            notes.append(f"{key} refers to a rival of each run's own")
    own = [(r.space.workload.phase, r.space.workload.context, r.space.workload.batch) for r in (a, b)]
    if own[0] != own[1]:
        notes.append("the workloads differ: a point that does less work is faster, not better")
    if a.info["profile"] != b.info["profile"]:
        notes.append("the profiles differ: their losses are over different models, texts or measurements")
    return tuple(notes)


def flat(space: Space) -> dict[str, Any]:
    """The space as one table with dotted keys; hardware values of one element are that element."""
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else str(key))
        else:
            found[path] = value

    walk(space.plain(), "")
    return found


def differences(a: Space, b: Space) -> dict[str, tuple[Any, Any]]:
    """Entry -> the two values, for entries that decide the result and are not the same."""
    mine, theirs = flat(a), flat(b)
    keys = [k for k in dict.fromkeys((*mine, *theirs)) if k not in _SILENT]
    found = {k: (mine.get(k), theirs.get(k)) for k in keys if _number(mine.get(k)) != _number(theirs.get(k))}
    for name in sorted({k.split(".")[1] for k in found if k.startswith("algorithms.")}):
        own = f"algorithms.{name}."
        if any(k.startswith(own) for k in mine) != any(k.startswith(own) for k in theirs):
            has = any(k.startswith(own) for k in mine)
            found = {k: v for k, v in found.items() if not k.startswith(own)}
            found[f"algorithms.{name}"] = ("swept", None) if has else (None, "swept")
    if _FOLLOWS in found:  # its name says more than its checksum
        found["workload.profile"] = (_profile(a), _profile(b))
        del found[_FOLLOWS]
    return found


def _profile(space: Space) -> str:
    return f"{space.workload.profile} ({space.workload.profile_sha256[:8]})"


def _number(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_number(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
