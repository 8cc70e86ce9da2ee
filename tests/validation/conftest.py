"""Rows are recomputed once for all tests of this folder."""

from __future__ import annotations

import pytest

from dse.validation import Row, validate


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return validate()
