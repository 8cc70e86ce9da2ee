"""Run directories: written atomically, read strictly, never overwritten by another space.

A run holds ``space.toml`` (the resolved space), ``front.csv`` and ``run.json``; ``run.json`` is written last, so
a directory that has it is complete.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from dse.errors import BadInput
from dse.search.keep import clear
from dse.space import Space, parse_resolved

if TYPE_CHECKING:
    import pandas as pd

SPACE, FRONT, INFO = "space.toml", "front.csv", "run.json"
SWEEP = "sweep"

_REQUIRED = {
    "status": str, "points": int, "evaluated": int, "excluded": int, "infeasible": int, "front": int,
    "seconds": float, "points_per_second": float, "peak_memory_bytes": int, "hypervolume": float,
    "reference_point": dict, "versions": dict, "profile": dict, "seed": int, "command": str,
    "space_digest": str,
}  # fmt: skip
_TEXT = ("point", "algorithm", "accuracy", "bound")
_TRUTH = ("on_front", "best_dense_as_accurate")
_TRUTHS = {"True": True, "False": False}


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


def existing_run(directory: Path, space: Space) -> Run | None:
    """The complete run of `space` in `directory`; None where one may be written there.

    A run by another version of dse, or an incomplete one, is not shown again; it may be replaced.

    Raises:
        BadInput: the directory holds a run of another space, a study's, something that is no run, or cannot be
            written.
    """
    check_directory(directory, space)
    kind = _kind(directory / INFO)
    if kind != SWEEP:
        raise BadInput(
            f"{directory}: holds the run of a {kind}; nothing was overwritten, choose another directory with --output"
        )
    if not (directory / INFO).is_file():
        return None
    try:
        run = read_run(directory)
    except BadInput:
        return None  # damaged, but of this space: check_directory has seen its space.toml
    same_code = run.info["versions"].get("dse") == _version()
    return run if run.info["status"] == "complete" and same_code else None


def _kind(path: Path) -> str:
    """What made the run that a ``run.json`` is of; a sweep's says nothing, nor does one that cannot be read."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
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


def write_run(directory: Path, result: Result) -> Run:
    """Write a run and read it back.

    Raises:
        BadInput: as `check_directory`.
    """
    check_directory(directory, result.space)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / INFO).unlink(missing_ok=True)  # from here on the directory is incomplete
        write_text(directory / SPACE, result.space.to_toml())
        write_text(directory / FRONT, front_csv(result.front))
        write_text(
            directory / INFO, json.dumps(result.info, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )
    except OSError as error:
        raise BadInput(f"{directory}: cannot write: {error.strerror}; choose another directory") from None
    clear(directory)
    return read_run(directory)


def write_text(path: Path, text: str) -> None:
    """Write a file through a temporary one beside it, so that a reader sees all of it or the old one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def front_csv(front: pd.DataFrame) -> str:
    """The table as CSV: shortest digits that read back exactly, whole knob values without a point."""
    import pandas as pd

    table = front.copy()
    for column in table.columns:
        values = table[column]
        if "." in column and pd.api.types.is_float_dtype(values.dtype):
            known = values.dropna()
            if len(known) and (known == known.round()).all() and (known.abs() < 2**53).all():
                table[column] = values.astype("Int64")
        elif "." in column and values.dtype == object:
            table[column] = values.map(_cell)
    text: str = table.to_csv(index=False, lineterminator="\n")
    return text


def _cell(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def read_run(directory: str | Path) -> Run:
    """The run in a directory, every part checked.

    Raises:
        BadInput: not a run, incomplete, or damaged; the message names the file and what is wrong.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise BadInput(f"{directory}: no such run; `dse sweep` makes one under results/")
    for name in (SPACE, FRONT, INFO):
        if not (directory / name).is_file():
            raise BadInput(f"{directory}: is not a complete run ({name} is missing); run its sweep again")
    space = parse_resolved(_read(directory / SPACE), str(directory / SPACE))
    info = _read_info(directory / INFO)
    if info["space_digest"] != space.digest():
        raise BadInput(f"{directory / INFO}: space_digest: does not match {SPACE}; run the sweep again")
    front = _read_front(directory / FRONT, space)
    if info["front"] != int(front["on_front"].sum()):
        raise BadInput(
            f"{directory / INFO}: front: {info['front']}, but {FRONT} has {int(front['on_front'].sum())} rows "
            "on the front; run the sweep again"
        )
    return Run(directory, space, front, info)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadInput(f"{path}: cannot be read as text; run the sweep again") from None


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(_read(path), parse_constant=_refuse)
    except ValueError:
        raise BadInput(f"{path}: is not JSON; run the sweep again") from None
    if not isinstance(info, dict):
        raise BadInput(f"{path}: is not an object; run the sweep again")
    for key, kind in _REQUIRED.items():
        if key not in info:
            raise BadInput(f"{path}: {key}: missing; run the sweep again")
        value = info[key]
        good = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if isinstance(value, bool) or not good:
            raise BadInput(f"{path}: {key}: found {value!r}; must be {kind.__name__}")
    if info["status"] not in ("complete", "partial"):
        raise BadInput(f"{path}: status: found {info['status']!r}; must be complete or partial")
    return info


def _read_front(path: Path, space: Space) -> pd.DataFrame:
    import pandas as pd

    text = _read(path)
    columns = text.partition("\n")[0].rstrip("\r").split(",")
    needed = {*_TEXT, *_TRUTH, "ties", "nll_increase", "speedup", *space.objectives}
    missing = sorted(needed - set(columns))
    if missing or len(set(columns)) != len(columns):
        raise BadInput(
            f"{path}: column {(missing or ['twice'])[0]!r} is missing or doubled; run the sweep again"
        )
    try:
        front = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    except ValueError as error:
        raise BadInput(f"{path}: is damaged ({str(error).splitlines()[0]}); run the sweep again") from None
    read: dict[str, pd.Series[Any]] = {}
    for column in columns:
        cells = front[column].tolist()
        try:
            if column in _TRUTH:
                read[column] = pd.Series([_TRUTHS[c] for c in cells], dtype=bool)
            elif column in _TEXT or _is_text(space, column):
                # An empty cell is an empty text in the rows whose knob it is, and nothing in the others.
                owner, _, name = column.partition(".")
                may_be_empty = owner in space.algorithms and "" in space.algorithms[owner].knobs.get(name, ())
                own = [may_be_empty and a == owner for a in front["algorithm"].tolist()]
                texts = [c if c or mine else math.nan for c, mine in zip(cells, own, strict=True)]
                read[column] = pd.Series(texts, dtype=object)
            else:
                read[column] = pd.Series([_number(c) for c in cells])
        except (KeyError, ValueError):
            raise BadInput(
                f"{path}: {column}: holds what does not belong there; run the sweep again"
            ) from None
    return pd.DataFrame(read)


def _number(cell: str) -> float | bool:
    """A cell's value: whole numbers stay whole, an empty cell is NaN."""
    if cell in _TRUTHS:  # a knob that is on or off
        return _TRUTHS[cell]
    try:
        return int(cell)
    except ValueError:
        return float(cell) if cell else math.nan


def _is_text(space: Space, column: str) -> bool:
    """Whether a dotted column holds text, by the values its axis may take."""
    owner, _, name = column.partition(".")
    values: tuple[Any, ...] = ()
    if owner == "hardware":
        values = space.hardware.get(name, ())
    elif owner in space.algorithms:
        values = space.algorithms[owner].knobs.get(name, ())
    return any(isinstance(v, str) for v in values)


def _version() -> str:
    import dse

    version: str = dse.__version__
    return version
