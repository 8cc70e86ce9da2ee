from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.cli.table import Column, fixed, layout, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1234"),
        (12.345, "12.3"),
        (9.996, "10.0"),
        (0.012345, "0.0123"),
        (-0.5, "-0.500"),
        (0.0, "0"),
        (3e-7, "3.00e-7"),
        (2.5e9, "2.50e9"),
        (float("nan"), "-"),
        (None, "-"),
        (float("inf"), "inf"),
        ("fetch K", "fetch K"),
    ],
)
def test_significant_digits_suit_a_reader(value: object, text: str) -> None:
    assert significant(value) == text


@given(st.floats(min_value=-1e12, max_value=1e12), st.integers(2, 6))
def test_significant_is_within_half_a_last_digit(value: float, digits: int) -> None:
    assert float(significant(value, digits)) == pytest.approx(
        value, rel=0.51 * 10.0 ** (1 - digits), abs=1e-300
    )


def test_fixed_keeps_the_points_in_line() -> None:
    assert [fixed(2)(v) for v in (1.0, 12.345, -0.001, float("nan"))] == ["1.00", "12.35", "-0.00", "-"]


COLUMNS = (
    Column("name", "name", left=True, text=str),
    Column("a", "a", "ns", priority=1),
    Column("b", "b", "mm²", priority=2),
    Column("words", "words", left=True, text=str, shrink_to=6),
)

rows_of_any_length = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text("abc", min_size=1, max_size=8),
            "a": st.floats(0, 1e9),
            "b": st.floats(0, 1e9),
            "words": st.text("xyz ", max_size=60),
        }
    ),
    max_size=6,
)


@given(rows_of_any_length, st.integers(24, 120))
def test_no_line_is_wider_than_the_width(rows: list[dict[str, object]], width: int) -> None:
    table = layout(rows, COLUMNS, width)
    assert all(len(line) <= width for line in table.lines)
    assert len(table.lines) == table.headers + len(rows)


def test_the_least_wanted_columns_go_first_and_are_named() -> None:
    rows = [{"name": "n" * 8, "a": 123456, "b": 123456, "words": "w" * 30}]
    assert layout(rows, COLUMNS, 80).omitted == []
    assert layout(rows, COLUMNS, 25).omitted == ["b"]
    assert layout(rows, COLUMNS, 20).omitted == ["b", "a"]


def test_words_are_cut_with_an_ellipsis_before_a_column_is_dropped() -> None:
    table = layout([{"name": "n", "a": 1.5, "b": 2.5, "words": "w" * 50}], COLUMNS, 40)
    assert table.omitted == []
    assert table.lines[-1].endswith("w…")


def test_a_column_without_values_is_left_out_unless_it_must_stay() -> None:
    table = layout([{"name": "n", "a": None, "b": 1.0, "words": "w"}], COLUMNS, 80)
    assert table.lines[0].split() == ["name", "b", "words"]


def test_numbers_align_right_and_units_stand_under_their_title() -> None:
    table = layout([{"name": "n", "a": 1.5, "b": 1000.0, "words": ""}], COLUMNS[:3], 80)
    assert table.lines == ["name     a     b", "        ns   mm²", "n     1.50  1000"]
