"""What profiles hold, algorithm by context, and what of the plan they do not hold."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from dse.profiles.profile import Profile


@dataclass(frozen=True)
class Covered:
    """One context of a profile: its windows of text, and algorithm -> settings measured there (0 for none)."""

    profile: str
    phase: str
    context: int
    windows: int
    settings: Mapping[str, int]


@dataclass(frozen=True)
class Wanted:
    """What one shipped profile is meant to hold, see ``plan.toml``."""

    profile: str
    tier: int
    contexts: tuple[int, ...]
    windows: int
    algorithms: Mapping[str, int]


@dataclass(frozen=True)
class Gap:
    """Something planned and not measured; `context` is 0 where the whole profile, or a table of probes, is missing."""

    tier: int
    profile: str
    context: int
    missing: str

    def __str__(self) -> str:
        where = f"{self.profile}, context {self.context}: " if self.context else f"{self.profile}: "
        return f"{where}{self.missing}"


def coverage(profile: Profile) -> list[Covered]:
    """A profile's contexts, ascending."""
    found = []
    for context, windows in zip(profile.contexts, profile.window_counts, strict=True):
        measured = profile.measured(context)
        counts = {a: int(np.count_nonzero(measured[profile.rows(a)])) for a in profile.algorithms}
        found.append(Covered(profile.name, profile.phase, context, windows, counts))
    return found


@dataclass(frozen=True)
class WantedProbes:
    """Settings whose retrieval and free running are meant to be probed, at least, see ``plan.toml``."""

    model: str
    tier: int
    settings: int

    def gap(self, probed: Mapping[str, int]) -> Gap | None:
        """What is missing, given the settings probed by model."""
        found = probed.get(self.model, 0)
        if found >= self.settings:
            return None
        return Gap(self.tier, f"{self.model}, probes", 0, f"{found} of {self.settings} settings")


def plan() -> tuple[tuple[Wanted, ...], tuple[WantedProbes, ...]]:
    """The planned profiles and the planned probes."""
    table: dict[str, Any] = tomllib.loads(
        resources.files("dse.profiles").joinpath("plan.toml").read_text(encoding="utf-8")
    )
    wanted = tuple(
        Wanted(w["profile"], w["tier"], tuple(w["contexts"]), w["windows"], dict(w["algorithms"]))
        for w in table["want"]
    )
    return wanted, tuple(WantedProbes(p["model"], p["tier"], p["settings"]) for p in table["probes"])


def gaps(profiles: Mapping[str, Profile], wanted: Sequence[Wanted]) -> list[Gap]:
    """What of `wanted` the profiles do not hold, in the order of the plan."""
    found = []
    for want in wanted:
        profile = profiles.get(want.profile)
        if profile is None:
            contexts = ", ".join(map(str, want.contexts))
            found.append(Gap(want.tier, want.profile, 0, f"not measured (contexts {contexts})"))
            continue
        here = {c.context: c for c in coverage(profile)}
        for context in want.contexts:
            if context not in here:
                found.append(Gap(want.tier, want.profile, context, "not measured"))
                continue
            covered = here[context]
            short = [
                f"{name} {covered.settings.get(name, 0)} of {least}"
                for name, least in want.algorithms.items()
                if covered.settings.get(name, 0) < least
            ]
            if covered.windows < want.windows:
                short.append(f"windows {covered.windows} of {want.windows}")
            if short:
                found.append(Gap(want.tier, want.profile, context, ", ".join(short)))
    return found
