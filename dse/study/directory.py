"""A study's run directory: as a sweep's, with the journal of its trials and a table of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dse.errors import BadInput
from dse.inputs import is_file, parse_json, read_text
from dse.outputs import hold
from dse.results import (
    INFO,
    JOURNAL,
    MAX_INFO,
    SPACE,
    WAIT_S,
    Run,
    check_directory,
    default_output,
    write_run,
    write_text,
)
from dse.space.definition import Space
from dse.study.journal import Journal, finished_lines
from dse.study.result import KIND, StudyResult
from dse.study.storage import MEMORY, Place
from dse.study.trials import TRIALS

LINES: Final = "journal_lines"
"""Entry of ``run.json``: how many lines the journal had when it was written."""

_CHOOSE: Final = "choose another directory with --output"


def default_directory(space: Space) -> Path:
    """``results/NAME-study``: a sweep of the same space lies beside it."""
    usual = default_output(space)
    return usual.with_name(f"{usual.name}-study")


@contextmanager
def prepared(
    directory: Path, space: Space, name: str, fresh: bool = False, elsewhere: Place | None = None
) -> Iterator[Place]:
    """Where the trials are kept of a study of `space` in a directory made ready for it.

    While the block lasts, no other command forgets the trials.

    Args:
        name: of the study.
        fresh: forget the trials that are there.
        elsewhere: where the trials are kept if not in the directory: nothing is made yet.

    Raises:
        BadInput: it holds something else, a sweep's run, a run of another space or another study, or others are at
            work where `fresh` would take their trials away.
    """
    place = elsewhere or Place("journal", path=directory / JOURNAL, own=True)
    check_directory(directory, space)
    _check_kind(directory)
    if not fresh:
        _check_study(directory, name, str(place))
    if elsewhere is not None:
        yield place
        return
    with ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_at_work(directory, fresh))
            _check_whole(directory)
            if not (directory / SPACE).is_file():
                write_text(
                    directory / SPACE, space.to_toml()
                )  # from here on it is known whose trials these are
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BadInput(f"{directory}: cannot write: {reason}; {_CHOOSE}") from None
        yield place


@contextmanager
def _at_work(directory: Path, fresh: bool) -> Iterator[None]:
    """Have a part in the directory, after forgetting its trials where that is asked for and nobody else has one."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        _forget(directory, fresh)
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX | fcntl.LOCK_NB) if fresh else fcntl.LOCK_SH)
        except BlockingIOError:
            raise BadInput(
                f"{directory}: --fresh: another command is adding trials to it; wait for it, or {_CHOOSE}"
            ) from None
        except OSError:
            pass  # a disk without such locks
        _forget(directory, fresh)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _forget(directory: Path, fresh: bool) -> None:
    for name in (JOURNAL, TRIALS, INFO) if fresh else ():
        (directory / name).unlink(missing_ok=True)


def _check_kind(directory: Path) -> None:
    """Raise BadInput where the directory holds a sweep's run."""
    if not is_file(directory / INFO) or any((directory / name).exists() for name in (JOURNAL, TRIALS)):
        return
    if _told(directory).get("kind") != KIND:
        raise BadInput(f"{directory}: holds a sweep's run; nothing was overwritten, {_CHOOSE}")


def _check_study(directory: Path, name: str, storage: str) -> None:
    """Raise BadInput where the directory holds the result of another study than this one.

    A storage that others share may be reached by several addresses, so between those only the name counts; memory and
    the directory's own journal are what they are.
    """
    told = _told(directory)
    study, place = told.get("study"), told.get("storage")
    if told.get("kind") != KIND or not isinstance(study, str) or not isinstance(place, str):
        return  # there is none yet, or it is damaged and written again
    private = {MEMORY, str(Place("journal", path=directory / JOURNAL))}
    if study != name:
        found, right = study, name
    elif place != storage and private & {place, storage}:
        found, right = f"{study} of {place}", f"that of {storage}"
    else:
        return
    raise BadInput(f"{directory}: holds study {found[:200]}, not {right}; nothing was overwritten, {_CHOOSE}")


def _told(directory: Path) -> dict[str, Any]:
    """The object of the directory's ``run.json``; empty where there is none that can be read."""
    where = directory / INFO
    try:
        info = parse_json(str(where), read_text(where, MAX_INFO, ""), "")
    except BadInput:
        return {}
    return info if isinstance(info, dict) else {}


def _check_whole(directory: Path) -> None:
    """Raise BadInput where the journal has fewer lines than when the run was written: its end was cut off.

    The journal's own checksums notice everything but that. A last line that was not finished is its own to mend.
    """
    told = _told(directory).get(LINES)
    if type(told) is not int:
        return  # there is none yet, or it is damaged and written again
    try:
        lines, whole = finished_lines(directory / JOURNAL)
    except OSError:
        return  # whoever opens it says why
    if lines + (not whole) < told:
        if lines:
            # Names a damaged line, where that is why.
            deque(Journal(directory / JOURNAL, reading=True).read_logs(0), maxlen=0)
        raise BadInput(
            f"{directory / JOURNAL}: has {lines} lines where {INFO} tells of {told}, its end is missing; nothing was "
            f"changed: put the whole file back, remove {INFO} to go on with what is left, or --fresh starts over"
        )


def write(directory: Path, result: StudyResult) -> Run:
    """Write the run and the table of its trials; processes that share the directory take turns.

    Raises:
        BadInput: a sweep's run or another study's has come there, or it cannot be written.
    """
    with hold(directory, WAIT_S):
        check_directory(directory, result.space)
        _check_kind(directory)
        _check_study(directory, result.info["study"], result.info["storage"])
        if is_file(directory / JOURNAL):
            result = replace(result, info={**result.info, LINES: finished_lines(directory / JOURNAL)[0]})
        table = result.trials.to_csv(index=False, lineterminator="\n")
        return write_run(directory, result, {TRIALS: table})
