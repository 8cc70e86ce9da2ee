"""A study's run directory: as a sweep's, with the journal of its trials and a table of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dse.errors import BadInput
from dse.results import INFO, SPACE, Run, check_directory, default_output, write_run, write_text
from dse.space.definition import Space
from dse.study.result import KIND, StudyResult
from dse.study.storage import JOURNAL_NAME, Place

TRIALS = "trials.csv"


def default_directory(space: Space) -> Path:
    """``results/NAME-study``: a sweep of the same space lies beside it."""
    usual = default_output(space)
    return usual.with_name(f"{usual.name}-study")


def prepare(directory: Path, space: Space, fresh: bool) -> Place:
    """Make ready for a study of `space`; returns the journal's place in it.

    Args:
        fresh: forget the trials that are there.

    Raises:
        BadInput: it holds something else, a sweep's run, or a run of another space.
    """
    check_directory(directory, space)
    if _kind(directory / INFO) not in ("", KIND):
        raise BadInput(
            f"{directory}: holds a sweep's run; nothing was overwritten, choose another directory with --output"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / SPACE).is_file():
            write_text(directory / SPACE, space.to_toml())  # from here on it is known whose trials these are
        if fresh:
            for name in (JOURNAL_NAME, TRIALS, INFO):
                (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(
            f"{directory}: cannot write: {error.strerror}; choose another directory with --output"
        ) from None
    return Place("journal", path=directory / JOURNAL_NAME)


def _kind(path: Path) -> str:
    """What kind of run a ``run.json`` is of; empty where there is none that can be read."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(info.get("kind", "sweep")) if isinstance(info, dict) else ""


def write(directory: Path, result: StudyResult) -> Run:
    """Write the run and the table of its trials; processes that share the directory take turns."""
    with _turn(directory):
        write_text(directory / TRIALS, result.trials.to_csv(index=False, lineterminator="\n"))
        return write_run(directory, result)


@contextmanager
def _turn(directory: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # a system without such locks: two writers at one moment are unlikely
        yield
        return
    handle = os.open(directory / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
