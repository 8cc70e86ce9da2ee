"""What is packed comes back: a decoder as short as the page's own reads every kind of column."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.report.columns import pack, short


def unpack(packed: dict[str, Any], name: str) -> list[Any]:
    """A column as the page reads it; None where there is no value."""
    rows, columns = packed["rows"], packed["columns"]

    def floats(column: dict[str, Any]) -> list[float | None]:
        values = np.frombuffer(base64.b64decode(column["floats"]), f"<f{column['bits'] // 8}")
        return [None if math.isnan(v) else v for v in values.tolist()]

    def read(column: dict[str, Any] | None) -> Any:
        if column is None:
            return lambda i: None
        if "all" in column:
            return lambda i: column["all"]
        if "texts" in column:
            return lambda i: column["texts"][i]
        if "by" in column:
            key, of = read(columns[column["by"]]), read(column["of"])
            return lambda i: of(key(i))
        if "floats" in column:
            return floats(column).__getitem__
        codes = np.frombuffer(base64.b64decode(column["codes"]), f"<u{column['width'] // 8}")
        levels = column["levels"] if isinstance(column["levels"], list) else floats(column["levels"])
        return lambda i: levels[codes[i]]

    get = read(columns.get(name))
    return [get(i) for i in range(rows)]


def expected(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


numbers = st.one_of(st.floats(width=64), st.none())
words = st.one_of(st.text(max_size=5), st.none())


@given(
    st.one_of(
        st.lists(numbers, max_size=40), st.lists(words, max_size=40), st.lists(st.booleans(), max_size=9)
    )
)
def test_columns_come_back(values: list[Any]) -> None:
    table = pd.DataFrame(
        {"a": pd.Series(values, dtype=object if not values or isinstance(values[0], str) else None)}
    )
    packed = json.loads(json.dumps(pack(table), allow_nan=False))
    assert unpack(packed, "a") == [expected(v) for v in table["a"].tolist()]


@pytest.mark.parametrize("different", [2, 300, 70_000], ids=["bytes", "words", "numbers"])
def test_many_numbers_take_the_fewest_bytes(different: int) -> None:
    values = (
        np.random.default_rng(0).integers(different, size=100_000) / 7
        if different < 1e4
        else np.arange(1e5) / 7
    )
    packed = pack(pd.DataFrame({"a": values}), 32)
    column = packed["columns"]["a"]
    assert {2: column.get("width") == 8, 300: column.get("width") == 16, 70_000: "floats" in column}[
        different
    ]
    assert unpack(packed, "a") == pytest.approx(values.tolist(), rel=1e-7)


def test_what_follows_from_a_key_is_kept_once_for_each_of_its_numbers() -> None:
    key = np.repeat([5, 2, 9], 1000)
    table = pd.DataFrame({
        "key": key, "knob": np.where(key == 2, np.nan, key / 3), "word": np.array(list("xyz"))[key // 4], "own": np.arange(3000.0),
    })  # fmt: skip
    packed = pack(table, 64, "key")
    assert packed["columns"]["knob"]["by"] == packed["columns"]["word"]["by"] == "key"
    assert "by" not in packed["columns"]["own"]
    for name in ("knob", "word", "own"):
        assert unpack(packed, name) == [expected(v) for v in table[name].tolist()]


def test_short_numbers() -> None:
    story = {"a": [1.23456789, float("nan")], 3: (7, "x", None, True)}
    assert short(story, 3) == {"a": [1.23, None], "3": [7, "x", None, True]}
