"""Tables as a page carries them: a column is one value, codes into its different values, or packed numbers."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

BYTE: Final = 1 << 8
WORD: Final = 1 << 16


def pack(table: pd.DataFrame, bits: int = 64, key: str = "") -> dict[str, Any]:
    """A table for JSON: ``{"rows": n, "columns": {name: column}}``; columns without any value are left out.

    A column is one of

    - ``{"all": value}``: the same in every row;
    - ``{"codes": base64 of unsigned integers, "width": 8 or 16, "levels": values}``: row -> place in `levels`, a list
      (None where a row has no value) or packed numbers;
    - ``{"floats": base64 of little-endian IEEE numbers, "bits": 32 or 64}``: NaN where a row has no value;
    - ``{"texts": [values]}``;
    - ``{"by": key, "of": column}``: row -> number in the column `key` -> value.

    Args:
        bits: of a packed number; 32 keep seven digits.
        key: a column of whole numbers from 0; columns that follow from it are packed once for each of its numbers.
    """
    columns = {}
    first: NDArray[np.intp] | None = None
    if key and len(table):
        numbers = table[key].to_numpy()
        _, first, numbers = np.unique(numbers, return_index=True, return_inverse=True)
        table = table.assign(**{key: numbers})
    for name in map(str, table.columns):
        column = table[name]
        if first is not None and name != key and _follows(column, first, table[key].to_numpy()):
            found = packed_column(column.iloc[first], bits)
            if found is not None and "all" not in found:
                found = {"by": key, "of": found}
        else:
            found = packed_column(column, bits)
        if found is not None:
            columns[name] = found
    return {"rows": len(table), "columns": columns}


def _follows(column: pd.Series[Any], first: NDArray[np.intp], key: NDArray[np.intp]) -> bool:
    """Whether rows with one key have one value."""
    values = column.to_numpy()
    alike = values[first][key]
    return bool(((alike == values) | ((alike != alike) & (values != values))).all())


def packed_column(column: pd.Series[Any], bits: int = 64) -> dict[str, Any] | None:
    """One column, see `pack`; None where nothing is in it."""
    import pandas as pd

    codes, found = pd.factorize(column)
    levels = [_plain(value) for value in found.tolist()]
    if (codes < 0).any():
        codes = np.where(codes < 0, len(levels), codes)
        levels.append(None)
    if all(value is None for value in levels):
        return None
    if len(levels) == 1:
        return {"all": levels[0]}
    numeric = all(value is None or (isinstance(value, int | float) and value is not True and value is not False)
                  for value in levels)  # fmt: skip
    if len(levels) <= BYTE and (len(levels) < len(codes) or not numeric):
        return {"codes": _base64(codes, "<u1"), "width": 8, "levels": levels}
    if not numeric:
        return {"texts": [None if levels[code] is None else str(levels[code]) for code in codes.tolist()]}
    values = np.array([math.nan if value is None else value for value in levels])
    if len(levels) <= WORD and 2 * len(codes) + len(levels) * bits // 8 < len(codes) * bits // 8:
        return {"codes": _base64(codes, "<u2"), "width": 16, "levels": _floats(values, bits)}
    return _floats(values[codes], bits)


def _floats(values: NDArray[np.float64], bits: int) -> dict[str, Any]:
    return {"floats": _base64(values, f"<f{bits // 8}"), "bits": bits}


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _plain(value: Any) -> Any:
    """The value, or None where it is none that JSON could carry."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: Any, digits: int = 6) -> Any:
    """Numbers inside plain values with so many significant digits, those that are none as None."""
    if isinstance(value, dict):
        return {str(k): short(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [short(v, digits) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
