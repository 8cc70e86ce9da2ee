"""``front.csv``: the table of a front as text, and back, every cell checked."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dse.errors import BadInput, nearest
from dse.inputs import check_text
from dse.profiles.profile import canonical
from dse.space.names import LARGEST

if TYPE_CHECKING:
    import pandas as pd

    from dse.space import Space

_TEXT = ("point", "algorithm", "accuracy", "bound")
_TRUTH = ("on_front", "best_dense_as_accurate")
_TRUTHS = {"True": True, "False": False}
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_LINE = re.compile(r"[^\n]*\n|[^\n]+")

MAX_COLUMNS: Final = 1000

_ROWS: Final = 1000
"""Rows that are taken apart at a time."""

MAX_KNOWN: Final = 4096
"""Most different cells of a column whose values are kept while it is read."""

_ABOVE_ZERO = frozenset({"speedup", "latency_s", "energy_j", "area_mm2"})


def front_csv(front: pd.DataFrame) -> str:
    """The table as CSV: shortest digits that read back exactly, whole knob values without a point."""
    return as_csv(cells(front))


def as_csv(table: pd.DataFrame) -> str:
    """Rows and columns of what `cells` gave as CSV."""
    text: str = table.to_csv(index=False, lineterminator="\n")
    return text


def cells(front: pd.DataFrame) -> pd.DataFrame:
    """The table with values that print as in ``front.csv``; how one prints may depend on its whole column."""
    import pandas as pd

    table = front.replace([math.inf, -math.inf], math.nan)  # what overflowed is not defined
    for column in table.columns:
        values = table[column]
        if "." in column and pd.api.types.is_float_dtype(values.dtype):
            known = values.dropna()
            if len(known) and (known == known.round()).all() and (known.abs() < 2**53).all():
                table[column] = values.astype("Int64")
        elif "." in column and values.dtype == object:
            table[column] = values.map(_cell)
    return table


def _cell(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def read_front(path: Path, text: str, space: Space, between: bool = False) -> pd.DataFrame:
    """The table in the text of a ``front.csv``, every cell checked.

    Args:
        path: leads messages.
        between: whether knobs and hardware may have values between those of the space's axes (a study's may).

    Raises:
        BadInput: it is damaged, or holds a value that the space does not have, or that no machine can.
    """
    import pandas as pd

    again = "run its command again"
    needed = {*_TEXT, *_TRUTH, "ties", "nll_increase", "speedup", *space.objectives}
    rows = csv.reader(lines(text), strict=True)
    try:
        columns = next(rows, [])
        missing = sorted(needed - set(columns))
        if missing or len(set(columns)) != len(columns) or len(columns) > MAX_COLUMNS:
            raise BadInput(f"{path}: column {(missing or ['twice'])[0]!r} is missing or doubled; {again}")
        cells = [_Cells(column, space) for column in columns]
        owner = columns.index("algorithm")
        first = 2
        while part := list(islice(rows, _ROWS)):
            _check_rows(path, first, part, columns, space)
            algorithms = [row[owner] for row in part]
            for column, found in zip(cells, zip(*part, strict=True), strict=True):
                bad = column.add(found, algorithms)
                if bad is not None:
                    raise BadInput(
                        f"{path}:{first + bad}: {column.name}: holds what does not belong there ({found[bad]!r}); {again}"
                    )
            first += len(part)
    except csv.Error as error:
        raise BadInput(f"{path}: is damaged ({error}); {again}") from None
    front = pd.DataFrame({column.name: column.series() for column in cells})
    check_front(str(path), front)
    _check_axes(str(path), front, space, between)
    return front


def _check_rows(
    path: Path, first: int, rows: Sequence[Sequence[str]], columns: Sequence[str], space: Space
) -> None:
    """Raise BadInput where a row has more or fewer cells than columns, or an algorithm the space has not.

    Args:
        first: line of the first of the rows.
    """
    owner = columns.index("algorithm")
    for at, row in enumerate(rows, first):
        if len(row) != len(columns):
            raise BadInput(
                f"{path}:{at}: is damaged ({len(row)} cells, not {len(columns)}); run its command again"
            )
        name = row[owner]
        if name not in space.algorithms:
            raise BadInput(f"{path}:{at}: algorithm: found {name!r}; {nearest(name, space.algorithms)}")


def lines(text: str) -> Iterator[str]:
    """The lines of a table's text, their ends left on, without a copy of it."""
    return (line[0] for line in _LINE.finditer(text))


class _Cells:
    """A column of a ``front.csv`` while it is read.

    Most columns repeat few cells: what those stand for is kept once.
    """

    def __init__(self, column: str, space: Space) -> None:
        self.name = column
        self._truth = column in _TRUTH
        self._texts = column in _TEXT or _is_text(space, column)
        self._needed = column in space.objectives
        owner, _, knob = column.partition(".")
        knobs = space.algorithms[owner].knobs if owner in space.algorithms else {}
        self._empty = owner if "" in knobs.get(knob, ()) else None  # whose knob may be an empty text
        self._known: dict[str, Any] = {}
        self._values: list[Any] = []

    def add(self, cells: Sequence[str], algorithms: Sequence[str]) -> int | None:
        """Append the values of cells; where one holds what does not belong there, which it is."""
        known, values, plain = self._known, self._values, self._empty is None
        for at, cell in enumerate(cells):
            if cell in known and (plain or cell):
                values.append(known[cell])
                continue
            if not cell and algorithms[at] == self._empty:
                values.append(cell)  # an empty text in the rows whose knob it is, and nothing in the others
                continue
            try:
                value = self._value(cell)
            except (KeyError, ValueError):
                return at
            if len(known) < MAX_KNOWN:
                known[cell] = value
            values.append(value)
        return None

    def _value(self, cell: str) -> Any:
        if self._truth:
            return _TRUTHS[cell]
        if not self._texts:
            return number(cell, self._needed)
        check_text(cell, ValueError)
        return cell or math.nan

    def series(self) -> pd.Series[Any]:
        """What was read."""
        import pandas as pd

        dtype = bool if self._truth else object if self._texts else None
        return pd.Series(self._values, dtype=dtype) if dtype else pd.Series(self._values)


def check_front(where: str, front: pd.DataFrame) -> None:
    """Raise where a number overflowed, or is none that a machine can have; `where` leads the message.

    Raises:
        BadInput: names the point, the column and the number.
    """
    import numpy as np
    import pandas as pd

    for column in front.columns:
        if "." in column or not pd.api.types.is_numeric_dtype(front[column]):
            continue
        values = front[column].to_numpy(dtype=float)
        wrong = np.abs(values) > LARGEST
        if column in _ABOVE_ZERO:
            wrong |= values <= 0
        for at in np.flatnonzero(wrong)[:1]:
            most = f"must be at most {LARGEST:g} in size"
            right = most if abs(values[at]) > LARGEST else "must be above 0"
            raise BadInput(
                f"{where}: {column}: found {values[at]:g} for point {front['point'].iloc[at]} of "
                f"{front['algorithm'].iloc[at]}; {right}: no hardware, workload and components of a space may be so extreme"
            )


def _check_axes(where: str, front: pd.DataFrame, space: Space, between: bool) -> None:
    """Raise where a row has a knob or a hardware parameter that its algorithm has not in the space."""
    for algorithm, spec in space.algorithms.items():
        rows = front["algorithm"] == algorithm
        axes = {f"{algorithm}.{knob}": values for knob, values in spec.knobs.items()}
        axes |= {f"hardware.{name}": values for name, values in space.axes(algorithm).items()}
        for column, values in axes.items():
            if column not in front:
                continue  # a parameter that is newer than the run
            known = {canonical(value) for value in values}
            ends = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            cells = front.loc[rows, column].drop_duplicates()
            for at, cell in zip(cells.index.tolist(), cells.tolist(), strict=True):
                inside = between and isinstance(cell, int | float) and ends and min(ends) <= cell <= max(ends)
                if canonical(cell) not in known and not inside:
                    raise BadInput(
                        f"{where}:{at + 2}: {column}: found {cell!r}; the space has {', '.join(map(str, values[:9]))}; run "
                        "its command again"
                    )


def number(cell: str, needed: bool) -> float | bool:
    """A cell's value: whole numbers stay whole, an empty cell is NaN.

    Raises:
        ValueError: not a finite number, or none where one is needed.
    """
    if cell in _TRUTHS and not needed:  # a knob that is on or off
        return _TRUTHS[cell]
    if _WHOLE.fullmatch(cell):
        return int(cell)
    if not cell and not needed:
        return math.nan
    if not _DECIMAL.fullmatch(cell) or not math.isfinite(value := float(cell)):
        raise ValueError(cell)
    return value


def _is_text(space: Space, column: str) -> bool:
    """Whether a dotted column holds text, by the values its axis may take."""
    owner, _, name = column.partition(".")
    values: tuple[Any, ...] = ()
    if owner == "hardware":
        values = space.hardware.get(name, ())
    elif owner in space.algorithms:
        values = space.algorithms[owner].knobs.get(name, ())
    return any(isinstance(v, str) for v in values)
