"""Fewer ranges of constants than there are, for tests of something else: each row of a front costs two prices a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from dse.cost import ranges

GROUPS = 3


@contextmanager
def few_ranges() -> Iterator[None]:
    """Inside, only the first groups of constants have ranges, in this process and for every command alike."""
    known = ranges.scenarios

    def few(overrides: Mapping[str, float] | None = None) -> list[ranges.Scenario]:
        return known(overrides)[: 2 * GROUPS]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dse.cost.ranges.scenarios", few)
        yield
