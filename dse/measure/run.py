"""A measurement that survives being killed: one shard per setting and context, packed into a profile.

Shards are named by a hash of everything that decides their content (setting, model, text, windows, scales,
schema), so a resumed run takes up only what belongs to it and a changed one starts anew beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.algorithms import build
from dse.algorithms.contract import Algorithm
from dse.errors import BadInput
from dse.measure.accuracy import accuracy
from dse.measure.calibrate import load_scales, scale_arrays
from dse.measure.job import (
    TABLES,
    Job,
    Progress,
    calibrated_on,
    check,
    check_widths,
    file_sha256,
    loaded,
    make_tables,
    prepared,
    provenance,
    table_of,
    unordered,
    window_texts,
)
from dse.measure.material import NotFinite, Window, prepare
from dse.measure.npz import make_folder
from dse.measure.outcome import Score, load_score, read_header, save_score
from dse.measure.overlap import refuse_overlap
from dse.measure.prefill import check_prefill, prepare_prefill, score_prefill
from dse.measure.score import score
from dse.measure.tables import checksum
from dse.models.text import find_text
from dse.outputs import clean
from dse.profiles.profile import FloatArray, Profile, build_profile, setting_key
from dse.profiles.schema import ACCURACY, SCHEMA_VERSION, Setting

SHARDS: Final = "shards"
DENSE: Final = "dense"
"""Folders inside a working folder; the third is `dse.measure.job.TABLES`."""

MAX_WINDOWS: Final = 100_000
"""Most windows that a shard can be of."""


def _dense_pass(job: Job, context: int, number: int) -> tuple[int, Path]:
    """Make the dense pass of one window where it is missing; runs in a worker process."""
    make = prepare_prefill if job.phase == "prefill" else prepare
    window = window_texts(job, context)[number]
    with np.errstate(all="ignore"):
        return number, next(iter(make(loaded(job), [window], job.output / DENSE)))


def _header(job: Job, algorithm: Algorithm, context: int, chosen: Sequence[Window]) -> str:
    """Everything a shard's content depends on, as canonical JSON."""
    table = table_of(job, algorithm)
    return json.dumps(
        {
            "schema": SCHEMA_VERSION,
            "algorithm": algorithm.name,
            "revision": algorithm.revision,
            # Knobs at their defaults are left out: a knob added later leaves old shards valid.
            "knobs": {n: v for n, v in sorted(algorithm.settings.items()) if v != algorithm.defaults()[n]},
            "context": context,
            "model": loaded(job).sha256,
            "text": find_text(job.text).sha256,
            "windows": [[w.book, w.start] for w in chosen],
            "scales": file_sha256(job.scales),
            **({} if table is None else {algorithm.needs: checksum(table)}),
            **({} if job.phase == "decode" else {"phase": job.phase}),
            **({} if (engine := loaded(job).engine) == "numpy" else {"engine": engine}),
        },
        sort_keys=True,
    )


def _shards(job: Job) -> Path:
    return job.output / SHARDS


def _shard(job: Job, header: str, context: int) -> Path:
    algorithm = json.loads(header)["algorithm"]
    digest = hashlib.sha256(header.encode()).hexdigest()[:16]
    return _shards(job) / f"{algorithm}-{context}-{digest}.npz"


def _heads(job: Job) -> tuple[int, int]:
    shape = loaded(job).shape
    return shape.layers, shape.kv_heads


def _measure_one(job: Job, context: int, folders: Sequence[Path], number: int) -> int:
    """Measure one setting into its shard; runs in a worker process."""
    algorithm = prepared(job, number)
    chosen = window_texts(job, context)
    header = _header(job, algorithm, context, chosen)
    run = score_prefill if job.phase == "prefill" else score
    what = f"{algorithm.name} {dict(algorithm.settings)}"
    try:
        with np.errstate(all="ignore"):
            result = run(loaded(job), algorithm, load_scales(job.scales), chosen, folders)
    except NotFinite as error:
        raise NotFinite(f"{what}: {error}; nothing was kept of it") from None
    if broken := result.not_finite():
        raise NotFinite(f"{what}: {broken} is not a number everywhere; nothing was kept")
    save_score(_shard(job, header, context), result, header)
    return number


def prepare_folder(job: Job) -> None:
    """Make the working folder, and remove what dead processes left half written. Raises `BadInput`."""
    tables = [job.output / TABLES] if any(algorithm.needs for algorithm in job.settings) else []
    for folder in (job.output, _shards(job), job.output / DENSE, *tables):
        make_folder(folder)
    for folder in (_shards(job), job.output / TABLES, *(job.output / DENSE).iterdir()):
        clean(folder)


def measure(
    job: Job,
    jobs: int,
    progress: Progress,
    remark: Callable[[str], None] = lambda _: None,
    there: Collected | None = None,
) -> Profile:
    """Measure what is missing, then `pack` every shard of the job into a profile.

    `there` are the shards that were there before, where they have been read already: those are not read again.

    Interrupting loses only the settings under way; calling it again continues. Every file is written whole. That
    no other process measures into the folder is up to the caller: the command line holds it (`dse.outputs.hold`)
    and refuses a second one.

    Raises:
        BadInput: nothing to measure, something that is needed is not as it should be (`dse.measure.job.check`), or
            an output folder that cannot be written.
    """
    if not job.settings:
        raise BadInput("no settings to measure")
    for algorithm in job.settings:
        check_widths(algorithm)
        if job.phase == "prefill":
            check_prefill(algorithm)
    check(job)
    prepare_folder(job)
    seen = calibrated_on(job)
    for context in job.contexts:
        refuse_overlap(window_texts(job, context), seen)
    total = len(job.settings) * len(job.contexts)
    finished = 0
    make_tables(
        job, jobs, lambda ready, wanted: progress(f"calibration {ready} of {wanted}", finished, total)
    )
    known = set() if there is None else there.over(job.count)
    collected = there
    for context in job.contexts:
        chosen = window_texts(job, context)
        missing = [
            number
            for number, algorithm in enumerate(job.settings)
            if not _is_there(job, _header(job, algorithm, context, chosen), context, algorithm, known)
        ]
        if missing:
            collected = None
        finished += len(job.settings) - len(missing)
        folders: list[Path] = [Path()] * len(chosen)
        passes = range(len(chosen)) if missing else []
        for ready, (i, place) in enumerate(unordered(partial(_dense_pass, job, context), passes, jobs)):
            folders[i] = place
            progress(f"context {context}: dense pass {ready + 1} of {len(chosen)}", finished, total)
        for number in unordered(partial(_measure_one, job, context, folders), missing, jobs):
            finished += 1
            progress(f"context {context}: {job.settings[number].name}", finished, total)
        gone = [
            a for a in job.settings if not _shard(job, _header(job, a, context, chosen), context).exists()
        ]
        if gone:
            raise BadInput(
                f"{_shards(job)}: {len(gone)} shards were taken away while others were measured; the same command "
                "measures them again"
            )
    return pack(job, remark, collected)


def _is_there(
    job: Job, header: str, context: int, algorithm: Algorithm, known: Container[tuple[Any, int]]
) -> bool:
    """Whether a setting's shard is there and sound; `known` are those that were read already."""
    if (setting_key(algorithm.name, algorithm.settings), context) in known:
        return _shard(job, header, context).exists()
    return _load(job, header, context) is not None


def _load(job: Job, header: str, context: int) -> Score | None:
    return load_score(_shard(job, header, context), header, _heads(job))


def _belongs(job: Job, path: Path) -> tuple[Algorithm, int, Score] | None:
    """Setting, context and result of a shard that was measured on the job's material; None otherwise."""
    header = read_header(path)
    try:
        fields = json.loads(header or "")
        algorithm = build(fields["algorithm"], fields["knobs"])
        context, count = fields["context"], len(fields["windows"])
        if type(context) is not int or not 0 < count <= MAX_WINDOWS or not 0 < context <= loaded(job).context:
            return None
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError, BadInput):
        return None
    try:
        if header != _header(job, algorithm, context, window_texts(job, context, count)):
            return None
    except BadInput:  # the text is too short for so many windows: another text
        return None
    result = load_score(path, str(header), _heads(job))
    return None if result is None else (algorithm, context, result)


@dataclass
class Collected:
    """Shards of one measurement.

    Attributes:
        settings: the job's first, in its order.
        windows: context -> windows of text behind every result of it, ascending.
        results: by (setting, context).
        left_out: context -> settings measured there over other numbers of windows only.
    """

    settings: list[Algorithm]
    windows: dict[int, int]
    results: dict[tuple[int, int], Score]
    left_out: dict[int, int]

    def over(self, count: int) -> set[tuple[Any, int]]:
        """Keys and contexts of the results over that many windows."""
        return {
            (setting_key(self.settings[number].name, self.settings[number].settings), context)
            for number, context in self.results
            if self.windows[context] == count
        }


def collect(job: Job) -> Collected:
    """Every shard in the folder that was measured on the job's material, whichever run measured it.

    Figures of one context compare only over the same windows. Where shards of a context differ in number, the
    job's own number counts at its own contexts, elsewhere the largest.
    """
    mine = [one for path in _shards(job).glob("*.npz") if (one := _belongs(job, path)) is not None]
    mine.sort(key=lambda one: (one[0].name, setting_key(one[0].name, one[0].settings), one[1]))
    counts: dict[int, set[int]] = {}
    for _, context, result in mine:
        counts.setdefault(context, set()).add(len(result.nll))
    windows = {
        c: job.count if c in job.contexts and job.count in found else max(found)
        for c, found in sorted(counts.items())
    }
    settings = list(job.settings)
    place = {setting_key(a.name, a.settings): i for i, a in enumerate(settings)}
    results: dict[tuple[int, int], Score] = {}
    others: set[tuple[int, int]] = set()
    for algorithm, context, result in mine:
        key = setting_key(algorithm.name, algorithm.settings)
        if key not in place:
            place[key] = len(settings)
            settings.append(algorithm)
        if len(result.nll) == windows[context]:
            results[place[key], context] = result
        else:
            others.add((place[key], context))
    left_out = Counter(context for setting, context in others - results.keys())
    return Collected(settings, windows, results, dict(left_out))


def pack(
    job: Job, remark: Callable[[str], None] = lambda _: None, collected: Collected | None = None
) -> Profile:
    """The profile of all shards in the job's folder that were measured on its material, this run or earlier.

    `remark` is told what is left out because it was measured over another number of windows; `collected` are the
    shards, where they have been read already.

    Raises:
        BadInput: there is no such shard.
    """
    model = loaded(job)
    collected = collected or collect(job)
    settings, found, contexts = collected.settings, collected.results, list(collected.windows)
    rows = sorted({number for number, _ in found})
    if not rows:
        raise BadInput(f"{job.output}: no shard of this measurement; run it first")
    for context, missing in collected.left_out.items():
        remark(
            f"context {context}: {missing} settings measured over other than {collected.windows[context]} windows "
            "are left out of the profile; their shards stay (measure them over as many, or pack with --windows N)"
        )
    shape = (len(rows), len(contexts))
    first = next(iter(found.values()))
    counters = np.full((*shape, *first.counters.shape), np.nan, np.float32)
    histograms = np.full((*shape, *first.histograms.shape), np.nan, np.float32)
    metrics = np.full((*shape, len(ACCURACY)), np.nan)
    counts = collected.windows
    window_nll = np.full((*shape, max(counts.values())), np.nan)
    perplexity = np.full(len(contexts), np.nan)
    tiles: FloatArray | None = None
    if first.tile_counters is not None:
        tiles = np.full((*shape, *first.tile_counters.shape), np.nan, np.float32)
    for (number, context), result in found.items():
        row, column = rows.index(number), contexts.index(context)
        counters[row, column], histograms[row, column] = result.counters, result.histograms
        metrics[row, column], window_nll[row, column, : counts[context]] = accuracy(result)
        perplexity[column] = np.exp(result.dense_nll.mean())
        if tiles is not None:
            tiles[row, column] = result.tile_counters
    kept = [settings[r] for r in rows]
    return build_profile(
        name=job.name,
        phase=job.phase,
        shape=model.shape,
        contexts=contexts,
        settings=[Setting(a.name, dict(a.settings), a.form()) for a in kept],
        counters=counters,
        histograms=histograms,
        accuracy=metrics,
        window_nll=window_nll,
        mean_context=np.array([((c * 3 // 4 + 1 if job.phase == "decode" else 1) + c) / 2 for c in contexts]),
        baseline_perplexity=perplexity,
        provenance=provenance(job, {c: window_texts(job, c, counts[c]) for c in contexts}),
        defaults={a.name: type(a).defaults() for a in kept},
        tile_counters=tiles,
        scales=scale_arrays(job.scales),
    )
