"""Probe settings with retrieval and free running, one row of the table after the other; a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.algorithms import build
from dse.algorithms.contract import IntArray
from dse.algorithms.quantize import FLOAT_BITS
from dse.errors import BadInput
from dse.measure.calibrate import load_scales
from dse.measure.free_running import agreement, generate, same_until
from dse.measure.job import (
    TABLES,
    Job,
    Progress,
    check,
    file_sha256,
    loaded,
    make_tables,
    prepared,
    provenance,
    unordered,
    window_texts,
)
from dse.measure.material import NotFinite, ReadPrompt, read_prompt
from dse.measure.npz import make_folder, unwritable
from dse.measure.retrieval import Sheet, ask, sheets
from dse.models.text import find_text
from dse.profiles.probes import Probe, Probes, read_probes, write_probes

REVISION: Final = 1
"""Raised whenever the same settings would give other numbers."""

FLOAT: Final = {"k_bits": FLOAT_BITS, "v_bits": FLOAT_BITS, "q_bits": FLOAT_BITS}
DIGITS: Final = 4
PROSE: Final = "prose"


@dataclass(frozen=True)
class Plan:
    """What to probe: the job's settings at its one context and windows, `depths` questions on each sheet, and
    `tokens` generated after each window's prompt."""

    job: Job
    depths: int
    tokens: int

    @property
    def context(self) -> int:
        return self.job.contexts[0]


@dataclass(frozen=True)
class Ready:
    """What all settings share: sheets, dense passes over them and over the windows' prompts, what the dense model writes."""

    sheets: Sequence[Sheet]
    read: Sequence[ReadPrompt]
    prompts: Sequence[ReadPrompt]
    last: IntArray
    reference: IntArray


_kept: dict[str, Ready] = {}
"""By material, one entry: a worker process probes many settings of one plan."""


def _ready(plan: Plan) -> Ready:
    key = _material(plan)
    if key not in _kept:
        _kept.clear()
        _kept[key] = _make_ready(plan)
    return _kept[key]


def _make_ready(plan: Plan) -> Ready:
    model, context = loaded(plan.job), plan.context
    chosen = window_texts(plan.job, context)
    asked = sheets(model.tokenizer, chosen, plan.depths, plan.job.seed)
    # The prompt ends where decode measurements end it, less the token that is fed first.
    cut = context * 3 // 4 - 1
    prompts = [read_prompt(model, window.tokens[:cut]) for window in chosen]
    last = np.array([window.tokens[cut] for window in chosen])
    reference = generate(
        model, build("dense", FLOAT), load_scales(plan.job.scales), prompts, last, plan.tokens, context
    )
    return Ready(asked, [read_prompt(model, sheet.prompt) for sheet in asked], prompts, last, reference)


def _probe(plan: Plan, number: int) -> Probe:
    """One setting; runs in a worker process."""
    algorithm = plan.job.settings[number]
    try:
        with np.errstate(all="ignore"):
            return _answers(plan, number)
    except NotFinite as error:
        raise NotFinite(
            f"{algorithm.name} {dict(algorithm.settings)}: {error}; nothing was kept of it"
        ) from None


def _answers(plan: Plan, number: int) -> Probe:
    ready, model, scales = _ready(plan), loaded(plan.job), load_scales(plan.job.scales)
    algorithm = prepared(plan.job, number)
    answers = [
        ask(model, algorithm, scales, sheet, read, plan.context)
        for sheet, read in zip(ready.sheets, ready.read, strict=True)
    ]
    written = generate(model, algorithm, scales, ready.prompts, ready.last, plan.tokens, plan.context)
    return Probe(
        algorithm.name,
        dict(algorithm.settings),
        right=tuple(tuple(bool(x) for x in one.right) for one in answers),
        nll=tuple(tuple(round(float(x), DIGITS) for x in one.nll) for one in answers),
        same=tuple(int(x) for x in same_until(written, ready.reference)),
        agree=tuple(round(float(x), DIGITS) for x in agreement(written, ready.reference)),
    )


def _material(plan: Plan) -> str:
    """Digest of everything a row depends on besides its setting."""
    job = plan.job
    windows = [[w.book, w.start] for w in window_texts(job, plan.context)]
    parts: list[Any] = [
        REVISION,
        loaded(job).sha256,
        loaded(job).engine,
        job.text,
        windows,
        plan.context,
        plan.depths,
        plan.tokens,
        job.seed,
    ]
    if job.text != PROSE:  # the one text whose name alone says what it holds
        parts.append(find_text(job.text).sha256)
    parts += [file_sha256(path) for _, path in sorted(job.given.items())]
    return hashlib.sha256(json.dumps([*parts, file_sha256(job.scales)]).encode()).hexdigest()[:16]


def _notes(plan: Plan) -> str:
    return (
        f"a sheet per window: {plan.depths} made-up sentences between stretches of its text, read densely, then asked "
        f"for under the algorithm; {plan.tokens} tokens generated greedily after a dense prompt of the first 3/4 of "
        "each window"
    )


def probe(plan: Plan, path: Path, jobs: int, progress: Progress) -> Probes:
    """Probe the settings that the table at `path` lacks; each row is kept as soon as it is there.

    Raises:
        BadInput: the table at `path` was measured on other material, a setting cannot be measured, or the table
            cannot be written.
    """
    job = plan.job
    make_folder(path.parent)
    table = read_probes(path) if path.exists() or path.is_symlink() else None
    make_folder(job.output / TABLES)
    check(job)
    material = _material(plan)
    if table is not None and table.material != material:
        raise BadInput(
            f"{path}: holds probes of another model, text, context or number of questions; name another file"
        )
    if table is None:
        windows = window_texts(job, plan.context)
        origin = {**asdict(provenance(job, {plan.context: windows})), "notes": _notes(plan)}
        table = Probes(job.name, plan.context, plan.tokens, material, origin)
    missing = [n for n, one in enumerate(job.settings) if table.find(one.name, one.settings) is None]
    lacking = replace(job, settings=tuple(job.settings[n] for n in missing))
    make_tables(
        lacking,
        jobs,
        lambda ready, wanted: progress(f"calibration {ready} of {wanted}", 0, len(job.settings)),
    )
    done = len(job.settings) - len(missing)
    progress("probes", done, len(job.settings))
    for row in unordered(partial(_probe, plan), missing, jobs):
        table = table.having(row)
        try:
            write_probes(path, table)
        except OSError as error:
            raise unwritable(path, error) from None
        done += 1
        progress(f"context {plan.context}: {row.algorithm}", done, len(job.settings))
    return table
