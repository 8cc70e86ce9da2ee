"""``trials.csv``, the table of a study's trials, read back with every cell that is drawn checked."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from dse import checksums
from dse.errors import BadInput, nearest
from dse.fronts import MAX_COLUMNS, lines, number
from dse.inputs import read_text
from dse.results import INFO, MAX_FRONT, Run
from dse.space.names import LARGEST

if TYPE_CHECKING:
    import pandas as pd

TRIALS: Final = "trials.csv"

_AGAIN: Final = "run the study again"
_MOST_DIGITS: Final = 18
_UNDEFINED: Final = ("inf", "-inf")
"""What an objective without a value is written as; its trial keeps no constraints."""


def read_trials(run: Run) -> pd.DataFrame:
    """The table of the trials of a study's run, every cell as text, in the order of their numbers.

    Raises:
        BadInput: it is missing, damaged, changed since it was written, or holds what no study of the space writes.
    """
    import pandas as pd

    path = run.directory / TRIALS
    text = read_text(path, MAX_FRONT, _AGAIN)
    try:
        columns, *rows = csv.reader(lines(text), strict=True)
    except (csv.Error, ValueError) as error:
        raise BadInput(f"{path}: is damaged ({error}); {_AGAIN}") from None
    needed = ("trial", "algorithm", "feasible", *run.info["objectives"])
    missing = sorted(set(needed) - set(columns))
    if missing or len(set(columns)) != len(columns) or len(columns) > MAX_COLUMNS:
        raise BadInput(
            f"{path}: {f'no column {missing[0]!r}' if missing else 'a column twice, or too many'}; {_AGAIN}"
        )
    if not rows:
        raise BadInput(f"{path}: no trial; {_AGAIN}")
    last = -1
    for at, row in enumerate(rows, 2):
        if len(row) != len(columns):
            raise BadInput(f"{path}:{at}: is damaged ({len(row)} cells, not {len(columns)}); {_AGAIN}")
        last = _check(f"{path}:{at}", dict(zip(columns, row, strict=True)), last, run)
    told = run.info.get(checksums.KEY, {}).get(TRIALS)  # older runs have none
    if told not in (None, checksums.of_text(text)):
        raise BadInput(
            f"{path}: was changed since it was written, its sha256 is not the one in {INFO}; {_AGAIN}"
        )
    return pd.DataFrame(rows, columns=columns, dtype=str)


def _check(where: str, row: dict[str, str], last: int, run: Run) -> int:
    """The number of a row's trial; raises BadInput unless its cells are such as a study writes.

    Args:
        where: leads messages. last: number of the trial before it.
    """
    name, text = row["algorithm"], row["trial"]
    if name not in run.space.algorithms:
        raise BadInput(f"{where}: algorithm: found {name[:40]!r}; {nearest(name, run.space.algorithms)}")
    if row["feasible"] not in ("True", "False"):
        raise BadInput(f"{where}: feasible: found {row['feasible'][:40]!r}; must be True or False; {_AGAIN}")
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) > last):
        raise BadInput(
            f"{where}: trial: found {text[:40]!r}; must be a whole number, larger than the one before; {_AGAIN}"
        )
    for metric in run.info["objectives"]:
        cell = row[metric]
        if cell in _UNDEFINED and row["feasible"] == "False":
            continue
        try:
            good = abs(number(cell, True)) <= LARGEST or row["feasible"] == "False"
        except ValueError:
            good = False
        if not good:
            raise BadInput(
                f"{where}: {metric}: found {cell[:40]!r}; must be a number of at most {LARGEST:g} in size; {_AGAIN}"
            )
    return int(text)
