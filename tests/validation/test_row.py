"""What a row says about itself, and how rows are counted."""

from __future__ import annotations

import pytest

from dse.validation import PROOFS, Row, tally


def row(
    ours: float | None, tolerance: float | None = 0.1, proves: str = "independent", **more: object
) -> Row:
    return Row("x", "q", 2.0, ours, "s", "a", proves, tolerance=tolerance, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "tolerance", "absolute", "error", "within"),
    [
        (2.1, 0.1, False, 0.05, True),
        (1.7, 0.1, False, -0.15, False),
        (2.2, 0.1, False, 0.1, True),
        (2.004, 0.005, True, 0.004, True),
        (2.006, 0.005, True, 0.006, False),
        (2.0, 0.0, False, 0.0, True),
        (2.0001, 0.0, False, 0.00005, False),
        (9.0, None, False, 3.5, None),
        (None, 0.1, False, None, False),
        (None, None, False, None, None),
        (float("nan"), 0.1, False, float("nan"), False),
    ],
)
def test_error_and_agreement(
    ours: float | None, tolerance: float | None, absolute: bool, error: float | None, within: bool | None
) -> None:
    found = row(ours, tolerance, absolute=absolute)
    assert found.error == pytest.approx(error, nan_ok=True) if error is not None else found.error is None
    assert found.within is within


def test_only_independent_rows_fail() -> None:
    assert row(9.0).failed
    assert not row(2.0).failed
    assert not row(9.0, None).failed
    assert not row(9.0, proves="fitted").failed
    assert not row(9.0, proves="identity").failed


def test_a_number_without_a_published_one_is_shown_only() -> None:
    only = Row("x", "q", None, 3.0, "s", "a", "independent")
    assert only.error is None
    assert only.within is None
    assert not only.failed


def test_tally_counts_every_row_once() -> None:
    rows = [row(2.0), row(9.0), row(2.0, proves="fitted"), row(9.0, proves="identity"), row(2.0, None)]
    found = tally(rows)
    assert (found.independent, found.within) == (2, 1)
    assert (found.fitted, found.fitted_within, found.identity, found.identity_within) == (1, 1, 1, 0)
    assert found.shown == 1
    assert found.text.startswith("2 independent: 1 within tolerance; 1 fitted: 1; 1 identity: 0; 1 shown")


def test_every_proof_is_explained() -> None:
    assert set(PROOFS) == {"independent", "fitted", "identity"}
