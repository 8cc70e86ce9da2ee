from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.search.front import (
    KEPT_BITS,
    hypervolume,
    nondominated,
    nondominated_reference,
    one_per_vector,
    settled,
)

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 500), st.integers(1, 4), st.sampled_from([3, 10, 10**6]))
def test_nondominated_equals_its_definition(seed: int, n: int, m: int, levels: int) -> None:
    costs = np.random.default_rng(seed).integers(-levels, levels, (n, m)).astype(float)
    assert np.array_equal(nondominated(costs), nondominated_reference(costs))


@given(st.lists(numbers, min_size=1, max_size=20))
def test_settling_is_monotone_close_and_idempotent(values: list[float]) -> None:
    array = np.sort(np.array(values))
    out = settled(array)
    with np.errstate(over="ignore"):
        finite = np.isfinite(out)
    assert (np.diff(out[finite]) >= 0).all()
    small = finite & (np.abs(array) > 1e-300)
    assert (np.abs(out[small] - array[small]) <= np.abs(array[small]) * 2.0 ** -(KEPT_BITS + 1)).all()
    assert np.array_equal(settled(out[finite]), out[finite])


def test_settling_joins_sums_of_another_order_and_keeps_what_is_not_finite() -> None:
    a, b = (0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3)
    assert a != b
    assert settled(np.array(a)) == settled(np.array(b))
    odd = np.array([np.nan, np.inf, -np.inf, -0.0])
    out = settled(odd)
    assert np.isnan(out[0])
    assert out[1:].tolist() == [math.inf, -math.inf, 0.0]
    assert not np.signbit(out[3])


@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_one_per_vector_takes_the_preferred_and_counts_all(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 3, (n, 2)).astype(float)
    area, energy = (rng.integers(0, 3, n).astype(float) for _ in range(2))
    weights = rng.integers(1, 4, n)
    names = [f"{v:04d}" for v in rng.permutation(n)]
    kept, count = one_per_vector(costs, (area, energy), weights, lambda rows: [names[i] for i in rows])
    groups: dict[tuple[float, ...], list[int]] = {}
    for i, row in enumerate(costs):
        groups.setdefault(tuple(row), []).append(i)
    assert [tuple(costs[i]) for i in kept] == sorted(groups)
    for i, total in zip(kept, count, strict=True):
        members = groups[tuple(costs[i])]
        assert i == min(members, key=lambda j: (area[j], energy[j], names[j]))
        assert total == sum(weights[members])


def test_hypervolume_of_known_fronts() -> None:
    assert hypervolume(np.array([[0.0, 0.0]]), (2.0, 3.0)) == 6.0
    assert hypervolume(np.array([[0.0, 1.0], [1.0, 0.0]]), (2.0, 2.0)) == 3.0
    assert hypervolume(np.array([[0.0, 1.0], [1.0, 0.0], [5.0, -1.0]]), (2.0, 2.0)) == 3.0
    assert hypervolume(np.array([[3.0, 3.0]]), (2.0, 2.0)) == 0.0
    assert hypervolume(np.zeros((1, 3)), (1.0, 2.0, 4.0)) == pytest.approx(8.0)
