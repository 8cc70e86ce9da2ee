"""Run directories: written atomically, read strictly, never overwritten by another space.

A run holds ``space.toml`` (the resolved space), ``front.csv`` and ``run.json``; ``run.json`` is written last, so
a directory that has it is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from dse import checksums
from dse.errors import BadInput
from dse.fronts import check_front, front_csv, read_front
from dse.inputs import MAX_TOML, parse_json, read_text
from dse.outputs import hold, write_together
from dse.outputs import write_text as write_text
from dse.search.keep import clear
from dse.search.report import RUN_SCHEMA
from dse.space import Space, parse_resolved

if TYPE_CHECKING:
    import pandas as pd

SPACE, FRONT, INFO = "space.toml", "front.csv", "run.json"
SWEEP = "sweep"
JOURNAL = "trials.log"
"""Where a study that lies in its run directory is kept."""

_REQUIRED = {
    "status": str, "points": int, "evaluated": int, "excluded": int, "infeasible": int, "front": int,
    "seconds": float, "points_per_second": float, "peak_memory_bytes": int, "hypervolume": float,
    "reference_point": dict, "versions": dict, "profile": dict, "seed": int, "command": str,
    "space_digest": str, "baseline": dict, "objectives": dict,
}  # fmt: skip
_OF_STUDIES = {"study": str, "sampler": str, "trials": int, "continuous": bool}
MAX_INFO: Final = 16 << 20
MAX_FRONT: Final = 128 << 20
"""Most bytes of ``run.json`` and ``front.csv``; a row of a front has about 800, and takes 0.1 ms to read."""

WAIT_S: Final = 60.0
"""How long a finished run waits for another process that writes into its directory."""


class Result(Protocol):
    """What can be written: a `SweepResult`, or anything with its three parts."""

    @property
    def space(self) -> Space: ...

    @property
    def front(self) -> pd.DataFrame: ...

    @property
    def info(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Run:
    """A run that was read back.

    Attributes:
        directory: where it lies.
        space: the resolved space, without its profile.
        front: rows of ``front.csv``; empty cells are NaN, knob texts stay text, an empty one of the row's own
            algorithm too.
        info: the object of ``run.json``.
    """

    directory: Path
    space: Space
    front: pd.DataFrame
    info: dict[str, Any]


def default_output(space: Space) -> Path:
    """``results/NAME``, with a short hash appended where ``--set`` changed the space."""
    suffix = f"-{space.digest()[:8]}" if space.overridden else ""
    return Path("results") / f"{space.name}{suffix}"


def existing_run(
    directory: Path, space: Space, remark: Callable[[str], None] = lambda text: None
) -> Run | None:
    """The complete run of `space` in `directory`; None where one may be written there.

    A run by another version of dse, or an incomplete one, is not shown again; it may be replaced, and `remark` is told
    why.

    Raises:
        BadInput: the directory holds a run of another space, a study's, something that is no run, or cannot be
            written.
    """
    check_directory(directory, space)
    kind = _kind(directory / INFO)
    if not (directory / INFO).exists() and (directory / JOURNAL).exists():
        kind = "study"  # one that is still running, or was killed
    if kind != SWEEP:
        raise BadInput(
            f"{directory}: holds the run of a {kind}; nothing was overwritten, choose another directory with --output"
        )
    if not (directory / INFO).is_file():
        return None
    try:
        run = read_run(directory)
    except BadInput as error:  # damaged, but of this space: check_directory has seen its space.toml
        remark(f"{str(error).removesuffix('; run its command again')}; computing it again")
        return None
    version = run.info["versions"].get("dse")
    if version != _version():
        remark(
            f"{directory}: dse {version} computed this run, and this is dse {_version()}; computing it again"
        )
        return None
    return run if run.info["status"] == "complete" else None


def _kind(path: Path) -> str:
    """What made the run that a ``run.json`` is of; a sweep's says nothing, nor does one that cannot be read."""
    try:
        info = parse_json(str(path), _read(path, MAX_INFO), "")
    except BadInput:
        return SWEEP
    return str(info.get("kind", SWEEP)) if isinstance(info, dict) else SWEEP


def check_directory(directory: Path, space: Space) -> None:
    """Raise BadInput where a run of `space` must not or cannot be written; creates nothing."""
    choose = "choose another directory with --output"
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"{directory}: is not a directory; {choose}")
    if not directory.exists():
        parent = next((p for p in directory.absolute().parents if p.exists()), Path("/"))
        if not parent.is_dir():
            raise BadInput(f"{directory}: {parent} is not a directory; {choose}")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise BadInput(f"{directory}: cannot be created, {parent} is not writable; {choose}")
        return
    try:
        content = sorted(p.name for p in directory.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise BadInput(f"{directory}: cannot be read: {error.strerror}; {choose}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise BadInput(f"{directory}: is not writable; {choose}")
    for path in directory.iterdir():
        if path.is_symlink():
            raise BadInput(f"{path}: is a symbolic link, which a run directory never holds; {choose}")
    if not content:
        return
    if SPACE not in content:
        raise BadInput(f"{directory}: holds {content[0]!r} and no run; nothing was overwritten, {choose}")
    try:
        there = parse_resolved(_read(directory / SPACE), str(directory / SPACE))
        other = there.digest() != space.digest()
    except BadInput as error:
        raise BadInput(f"{error}; nothing was overwritten, {choose}") from None
    if other:
        raise BadInput(
            f"{directory}: holds a run of another space ({there.name}, {there.digest()[:8]}, not {space.name}, "
            f"{space.digest()[:8]}); nothing was overwritten, {choose}"
        )


def write_run(directory: Path, result: Result, more: Mapping[str, str] | None = None) -> Run:
    """Write a run and read it back.

    Args:
        more: other tables that belong to it, file -> text: replaced together with its own, their checksums kept.

    Raises:
        BadInput: as `check_directory`.
    """
    check_front(str(directory / FRONT), result.front)
    front = front_csv(result.front)
    more = more or {}
    if len(front.encode()) > MAX_FRONT:  # it could not be read back
        raise BadInput(
            f"{directory / FRONT}: would have more than {MAX_FRONT} bytes, the most allowed; nothing was written, seek "
            "fewer objectives or search a smaller space"
        )
    sums = checksums.checksums(result.space, front, result.info)
    sums |= {name: checksums.of_text(text) for name, text in more.items()}
    info = {**result.info, checksums.KEY: sums}
    texts = {
        SPACE: result.space.to_toml(),
        FRONT: front,
        **more,
        INFO: json.dumps(info, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    check_directory(directory, result.space)
    try:
        with hold(directory, WAIT_S):
            check_directory(directory, result.space)  # whoever held it may have written another's
            write_together(directory, texts)
            clear(directory)
            return read_run(directory)
    except OSError as error:
        raise BadInput(
            f"{directory}: cannot write: {(error.strerror or 'error').lower()}; choose another directory"
        ) from None


def read_run(directory: str | Path) -> Run:
    """The run in a directory, every part checked.

    Raises:
        BadInput: not a run, incomplete, damaged, or changed since it was written; the message names the file and
            what is wrong.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise BadInput(f"{directory}: no such run; `dse sweep` makes one under results/")
    for name in (SPACE, FRONT, INFO):
        if not (directory / name).is_file():
            raise BadInput(f"{directory}: is not a complete run ({name} is missing); run its command again")
    space = parse_resolved(_read(directory / SPACE), str(directory / SPACE))
    info = _read_info(directory / INFO)
    if info["space_digest"] != space.digest():
        raise BadInput(f"{directory / INFO}: space_digest: does not match {SPACE}; run its command again")
    _check_goals(directory / INFO, info, space)
    text = _read(directory / FRONT, MAX_FRONT)
    front = read_front(directory / FRONT, text, space, info.get("continuous") is True)
    if info["front"] != int(front["on_front"].sum()):
        raise BadInput(
            f"{directory / INFO}: front: {info['front']}, but {FRONT} has {int(front['on_front'].sum())} rows "
            "on the front; run its command again"
        )
    if checksums.KEY in info:
        for name, found in checksums.checksums(space, text, info).items():
            if found != info[checksums.KEY].get(name):
                raise BadInput(
                    f"{directory / name}: was changed since it was written, its sha256 is not the one in {INFO}; run its "
                    "command again"
                )
    return Run(directory, space, front, info)


def _read(path: Path, most: int = MAX_TOML) -> str:
    return read_text(path, most, "run its command again")


def _read_info(path: Path) -> dict[str, Any]:
    again = "run its command again"
    info = parse_json(str(path), _read(path, MAX_INFO), again)
    if not isinstance(info, dict):
        raise BadInput(f"{path}: is not an object; {again}")
    schema = info.get("schema", RUN_SCHEMA)
    if type(schema) is not int or schema != RUN_SCHEMA:
        newer = type(schema) is int and schema > RUN_SCHEMA
        what = (
            "a newer version of dse wrote it: update dse, or"
            if newer
            else "this version of dse cannot read it:"
        )
        raise BadInput(f"{path}: schema: found {schema!r}; must be {RUN_SCHEMA}; {what} {again}")
    for key, kind in _REQUIRED.items():
        if key not in info:
            raise BadInput(f"{path}: {key}: missing; {again}")
        value = info[key]
        good = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if key == "points_per_second" and value is None:
            continue  # it took no time that could be measured
        if isinstance(value, bool) or not good:
            raise BadInput(f"{path}: {key}: found {value!r}; must be {kind.__name__}")
        if kind in (int, float) and value < 0:
            raise BadInput(f"{path}: {key}: found {value!r}; must not be negative")
    for key, kind in _OF_STUDIES.items() if info.get("kind", SWEEP) != SWEEP else ():
        if type(info.get(key)) is not kind:
            raise BadInput(f"{path}: {key}: found {info.get(key)!r}; must be {kind.__name__}; {again}")
    if info["status"] not in ("complete", "partial"):
        raise BadInput(f"{path}: status: found {info['status']!r}; must be complete or partial")
    for key, (holds, words) in _PARTS.items():
        if key in info and not holds(info[key]):
            raise BadInput(f"{path}: {key}: found {info[key]!r}; must be {words}; {again}")
    for key, (holds, words) in _PRICES.items():
        value = info["baseline"].get(key)
        if not holds(value) and (key in info["baseline"] or key not in _LATER):
            raise BadInput(f"{path}: baseline.{key}: found {value!r}; must be {words}; {again}")
    return info


def _check_goals(path: Path, info: Mapping[str, Any], space: Space) -> None:
    """Raise where a record seeks something else than its space, or lacks what its hypervolume counts from.

    A study may seek a single one of the objectives.
    """
    again = "run its command again"
    sought = info["objectives"]
    for metric, goal in sought.items():
        if metric not in space.objectives or goal != ("maximize" if space.objectives[metric] else "minimize"):
            raise BadInput(f"{path}: objectives: found {metric} = {goal!r}; must be as in {SPACE}; {again}")
    missing = [metric for metric in space.objectives if metric not in sought]
    if missing and (info.get("kind", SWEEP) == SWEEP or len(sought) != 1):
        raise BadInput(f"{path}: objectives: {missing[0]} is missing; must be as in {SPACE}; {again}")
    for metric in space.objectives if info["front"] else ():
        if info["reference_point"].get(metric) is None:
            raise BadInput(f"{path}: reference_point: {metric} is missing; {again}")


def _number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(_number_or_none(v) for v in value.values())


def _above_zero(value: Any) -> bool:
    return value is not None and _number_or_none(value) and bool(value > 0)


def _not_negative(value: Any) -> bool:
    return value is not None and _number_or_none(value) and bool(value >= 0)


_PARTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda v: isinstance(v, str), "text"),
    "profile": (lambda v: isinstance(v.get("name"), str), "a table with a name"),
    "reference_point": (_numbers, "a table of numbers"),
    "interpolation_error": (_numbers, "a table of numbers"),
    "objectives": (lambda v: isinstance(v, dict), "a table"),
    checksums.KEY: (lambda v: isinstance(v, dict), "a table of texts"),
    "versions": (lambda v: all(isinstance(x, str | None) for x in v.values()), "a table of texts"),
    "notes": (lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v), "a list of texts"),
}
"""What commands take from a record: key -> (whether a value is such, in words). Older records lack some."""

_PRICES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "latency_s": (_above_zero, "a number above 0"),
    "energy_j": (_above_zero, "a number above 0"),
    "dram_bytes": (_not_negative, "a number of 0 or more"),  # 0 where all of it lies on chip
    "rest_s": (_not_negative, "a number of 0 or more"),
    "attention_s": (lambda v: v is None or _above_zero(v), "a number above 0"),
    "batch": (_above_zero, "a number above 0"),
}
"""What ratios are taken over, in the table ``baseline``; as `_PARTS`."""

_LATER = ("attention_s", "batch")
"""Those that older records lack."""


def _version() -> str:
    import dse

    version: str = dse.__version__
    return version
