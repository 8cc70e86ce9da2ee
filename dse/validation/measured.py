"""Numbers read off the shipped profiles: what an algorithm skips where it loses a given amount of accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dse.profiles.profile import Profile
from dse.profiles.schema import ACCURACY, Setting
from dse.profiles.store import read_profile, shipped_profiles

FloatArray = NDArray[np.float64]


@lru_cache(maxsize=1)
def profiles(phase: str = "decode") -> Mapping[str, Profile]:
    """Shipped profiles of a phase, by name, without those of confirmation texts."""
    found = {name: read_profile(path) for name, path in shipped_profiles().items()}
    return {
        name: profile
        for name, profile in found.items()
        if profile.phase == phase and "confirmation" not in name
    }


def reduction(profile: Profile, counter: str) -> FloatArray:
    """Visible tokens of all query heads over those counted, [settings, contexts], all layers and heads.

    Args:
        counter: ``head.v_rows`` or another counter of rows per query head.
    """
    per_query = profile.mean_context[None, :] * profile.shape.group
    counted = profile.counter(counter).mean(axis=(2, 3), dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(counted > 0, per_query / counted, np.inf))


def sparsest(
    profile: Profile, algorithm: str, budget: float, value: FloatArray
) -> Iterator[tuple[int, float, float]]:
    """The measured setting of largest `value` [settings, contexts] within a loss of `budget` nats, per context.

    Yields context, value and its loss; nothing for contexts without such a setting.
    """
    lost = profile.accuracy[:, :, ACCURACY.index("nll_increase")]
    for c, context in enumerate(profile.contexts):
        rows = [i for i in profile.rows(algorithm) if lost[i, c] <= budget and np.isfinite(value[i, c])]
        if rows:
            best = max(rows, key=lambda i: value[i, c])
            yield context, float(value[best, c]), float(lost[best, c])


def at_loss(
    profile: Profile,
    algorithm: str,
    knob: str,
    budget: float,
    value: FloatArray,
    metric: str = "perplexity_increase",
    accept: Callable[[Setting], bool] = lambda setting: True,
) -> Iterator[tuple[int, float, str]]:
    """Largest `value` at a loss of at most `budget`, for every context.

    Between neighbouring values of `knob` (all other knobs equal) the logarithm of `value` is interpolated
    linearly in the loss; nothing is extrapolated.

    Args:
        value: [settings, contexts], what should be large.

    Yields:
        context, value, the other knobs of the series it is from; nothing for contexts where even the least
        loss measured is above the budget or the largest below.
    """
    lost = profile.accuracy[:, :, ACCURACY.index(metric)]
    series: dict[str, list[int]] = {}
    for i, setting in enumerate(profile.settings):
        if setting.algorithm == algorithm and knob in setting.knobs and accept(setting):
            others = {k: v for k, v in setting.knobs.items() if k != knob}
            series.setdefault(json.dumps(others, sort_keys=True), []).append(i)
    for c, context in enumerate(profile.contexts):
        best, chosen = -np.inf, ""
        for key, members in series.items():
            known = [i for i in members if np.isfinite(lost[i, c]) and np.isfinite(value[i, c])]
            known.sort(key=lambda i: lost[i, c])
            for low, high in zip(known, known[1:], strict=False):
                if lost[low, c] <= budget <= lost[high, c]:
                    share = (budget - lost[low, c]) / max(lost[high, c] - lost[low, c], 1e-30)
                    found = float(
                        np.exp((1 - share) * np.log(value[low, c]) + share * np.log(value[high, c]))
                    )
                    if found > best:
                        best, chosen = found, key
        if best > 0:
            text = ", ".join(f"{k} {v}" for k, v in json.loads(chosen).items())
            yield context, best, text
