"""Samplers by name, wrapped so that what they propose exists.

Every trial gets a fresh sampler seeded by the study's seed and the trial's number. Numbers are unique in a study,
so processes that share one never draw the same, and one process alone draws the same again after a resume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from optuna.samplers import BaseSampler

from dse.errors import BadInput, nearest
from dse.study.axes import ALGORITHM, Layout, Point
from dse.study.local import LocalSearch

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

SAMPLERS: Final = ("local", "tpe", "nsga2", "nsga3", "qmc", "random", "grid", "gp", "cmaes")
"""``local`` (see `dse.study.local`) and ``grid`` are dse's own, the others Optuna's."""

CONDITIONAL: Final = ("local", "tpe", "random", "grid")
"""Samplers that take a parameter being asked for in some trials only. The others get the knobs of every algorithm
in every trial; those of the algorithms not chosen have no effect."""

NEEDS: Final[Mapping[str, tuple[str, str]]] = {"gp": ("torch", "torch"), "cmaes": ("cmaes", "cmaes")}
"""Sampler -> the package it needs beyond Optuna, and what to install."""

KEPT: Final = ("qmc", "gp", "cmaes")
"""Samplers that are made once per process and asked once per trial."""

REDRAWS: Final = 8

POPULATION: Final = 24
"""Trials of a generation of the genetic samplers: some twenty generations fit the usual budget of 500 trials."""

GOLDEN: Final = (math.sqrt(5) - 1) / 2


def check_sampler(name: str, objectives: int) -> None:
    """Raise BadInput where there is no such sampler, or it cannot seek so many objectives."""
    if name not in SAMPLERS:
        raise BadInput(f"--sampler {name}: no such sampler; {nearest(name, SAMPLERS)}")
    if name == "cmaes" and objectives > 1:
        raise BadInput(
            f"--sampler cmaes: seeks a single objective and this study has {objectives}; name the one to seek with "
            "--objective, or take another sampler such as nsga2"
        )
    package, install = NEEDS.get(name, ("", ""))
    if package and find_spec(package) is None:
        raise BadInput(f"--sampler {name}: needs {package}: run `pip install {install}`")


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Optuna's sampler of a name; dse's own have the random one beside them."""
    import optuna.samplers as s

    if name == "tpe":
        return s.TPESampler(seed=seed, constant_liar=True)
    if name == "nsga2":
        return s.NSGAIISampler(seed=seed, population_size=POPULATION)
    if name == "nsga3":
        return s.NSGAIIISampler(seed=seed, population_size=POPULATION)
    if name == "qmc":
        return s.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
    if name == "gp":
        return s.GPSampler(seed=seed, deterministic_objective=True, warn_independent_sampling=False)
    if name == "cmaes":
        return cmaes(seed)
    return s.RandomSampler(seed=seed)


def cmaes(seed: int) -> BaseSampler:
    """Optuna's CMA-ES, whose state stays in this process.

    Optuna keeps it pickled in the trials, and unpickles what it finds there: whoever can write a study could run
    code in every process that goes on with it. Here it is neither written nor read; a process that takes up a study
    forms it again from the generations it finds.
    """
    from optuna.samplers import CmaEsSampler

    replaced = ("_split_optimizer_str", "_restore_optimizer", "_init_optimizer")
    if not all(hasattr(CmaEsSampler, name) for name in replaced):
        raise BadInput(
            "--sampler cmaes: this version of optuna may unpickle what a study holds; take another sampler"
        )

    class Kept(CmaEsSampler):
        mine: Any = None

        def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
            return {}

        def _restore_optimizer(self, completed_trials: Any) -> Any:
            return self.mine

        def _init_optimizer(self, *arguments: Any, **named: Any) -> Any:
            self.mine = super()._init_optimizer(*arguments, **named)
            return self.mine

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
            while True:
                before = getattr(self.mine, "generation", 0)
                found: dict[str, Any] = super().sample_relative(study, trial, search_space)
                if getattr(self.mine, "generation", 0) == before:
                    return found

    return Kept(seed=seed, warn_independent_sampling=False)


class PointSampler(BaseSampler):
    """A sampler whose proposals are moved to points of the space before the trial has them.

    A point that some trial has already teaches nothing: where the sampler is quick it is asked again, up to
    `REDRAWS` times.

    Args:
        name: of `SAMPLERS`.
        seed: of the study.
        layout: the parameters.
        start: where `dse.study.local` begins.
    """

    def __init__(self, name: str, seed: int, layout: Layout, start: Sequence[dict[str, Any]] = ()) -> None:
        self.name, self.seed, self.layout = name, seed, layout
        self._local = LocalSearch(layout, start) if name == "local" else None
        # Samplers with a memory of their own are kept; a quasi-random sequence has one scrambling.
        self._kept = make_sampler(name, _seed(seed)) if name in KEPT else None
        self._now: tuple[int, BaseSampler] | None = None
        self._size = sum(layout.sizes.values())
        self._taken: set[Point] = set()
        self._read: set[int] = set()

    def _inner(self, trial: FrozenTrial) -> BaseSampler:
        if self._now is None or self._now[0] != trial.number:
            made = self._kept or make_sampler(self.name, _seed(self.seed, trial.number))
            self._now = (trial.number, made)
        return self._now[1]

    def reseed_rng(self) -> None:
        """Nothing to do: every trial has a seed of its own."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._inner(trial).before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._inner(trial).after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.layout.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if trial.params or "fixed_params" in trial.system_attrs:
            return {}  # queued: what it lacks comes one by one
        if self.name == "grid":
            return self._listed(trial.number)
        if self._local is not None:
            signs = [-1.0 if d.name == "MAXIMIZE" else 1.0 for d in study.directions]
            self._local.learn(study.get_trials(deepcopy=False), signs)
            rng = np.random.default_rng(_seed(self.seed, trial.number))
            return self._local.propose(trial.number, self._listed, rng)
        for other in study.get_trials(deepcopy=False):
            if other.number not in self._read and other.state.is_finished():
                self._read.add(other.number)
                if other.state.name == "COMPLETE":
                    self._taken.add(self.layout.point(other.params))
        found: dict[str, Any] = {}
        for _ in range(1 if self.name in KEPT else REDRAWS):
            found = self._propose(study, trial)
            if self.layout.point(found) not in self._taken:
                break
        return found

    def _listed(self, number: int) -> dict[str, Any]:
        """The point of a number in an order that spreads early over the space."""
        return self.layout.listed(spread(number, self._size, self.seed))

    def _propose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """A whole point: what the sampler proposes jointly, the rest one by one, then moved to what exists."""
        inner, table = self._inner(trial), self.layout.distributions
        joint = inner.infer_relative_search_space(study, trial)
        found = inner.sample_relative(study, trial, joint) if joint else {}
        wanted: dict[str, Any] = {}

        def take(name: str) -> None:
            if name not in wanted:
                value = found.get(name)
                if value is None:
                    value = inner.sample_independent(study, trial, name, table[name])
                wanted[name] = value

        if ALGORITHM in table:
            take(ALGORITHM)
        names = self.layout.names
        for owner in (wanted.get(ALGORITHM, names[0]),) if self.name in CONDITIONAL else names:
            for name in self.layout.owned(owner):
                take(name)
        return self.layout.settle(wanted)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        # Only queued trials that lack a parameter come here: handed on before they had all.
        found = self._inner(trial).sample_independent(study, trial, param_name, param_distribution)
        return self.layout.axes[param_name].settle(found) if param_name in self.layout.axes else found


def spread(number: int, size: int, seed: int = 0) -> int:
    """The `number`-th point of a space of `size`, in an order that visits every point once and spreads early.

    Steps of the golden section of the space, made coprime to its size; after `size` numbers it starts over.
    """
    stride = max(1, round(size * GOLDEN))
    while math.gcd(stride, size) != 1:
        stride += 1
    return (number * stride + _seed(seed) % size) % size


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
