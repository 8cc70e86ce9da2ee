"""Whether a profile that is there may be replaced: only by one that has all it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dse.algorithms import build
from dse.errors import BadInput
from dse.measure.job import Job, loaded
from dse.measure.run import Collected, collect
from dse.models.text import find_text
from dse.profiles.profile import ACCURACY_COLUMN, Profile, setting_key
from dse.profiles.schema import KnobValue
from dse.profiles.store import read_profile

CHOOSE = "nothing was overwritten, choose another --name or --output"


def check_replaceable(job: Job, path: Path, pack_only: bool) -> Collected | None:
    """Raise `BadInput` where writing the job's profile to `path` would lose something.

    What is there must be a profile all of whose settings are among the job's or have shards in its folder.

    Returns:
        The shards that are there, where they had to be read.
    """
    if path.is_symlink():
        raise BadInput(f"{path}: is a symbolic link, which a working folder never holds; {CHOOSE}")
    if not path.exists():
        return None
    try:
        old = read_profile(path)
    except BadInput as error:
        raise BadInput(f"{error}; {CHOOSE} (or remove it)") from None
    here = collect(job)
    known = {(_key(here.settings[i].name, here.settings[i].settings), c) for i, c in here.results}
    if not pack_only and _alike(job, old):
        known |= {(_key(a.name, a.settings), c) for a in job.settings for c in job.contexts}
    measured = np.isfinite(old.accuracy[:, :, ACCURACY_COLUMN["nll_increase"]])
    held = [(old.settings[i], old.contexts[c]) for i, c in np.argwhere(measured)]
    lost = [(s.algorithm, c) for s, c in held if (_key(s.algorithm, s.knobs), c) not in known]
    if lost:
        raise BadInput(
            f"{path}: holds {len(lost)} results whose shards are not in this folder, such as {lost[0][0]} at context "
            f"{lost[0][1]}: another model, text or seed, or shards were removed; {CHOOSE}"
        )
    return here


def _alike(job: Job, old: Profile) -> bool:
    """Whether the job measures on the material of an old profile."""
    text, was = find_text(job.text), old.provenance
    return (was.model_sha256, was.text_sha256, was.seed, old.phase) == (
        loaded(job).sha256,
        text.sha256,
        job.seed,
        job.phase,
    ) and f", {job.part} part" in was.text


def _key(algorithm: str, knobs: Mapping[str, KnobValue]) -> tuple[Any, ...]:
    """Of a setting as this version knows it: an older profile lacks knobs that were added since."""
    try:
        return setting_key(algorithm, build(algorithm, dict(knobs)).settings)
    except BadInput:
        return setting_key(algorithm, knobs)
