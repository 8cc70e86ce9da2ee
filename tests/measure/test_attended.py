"""What an algorithm gives back is held against its contract before a number is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dse.algorithms import build
from dse.algorithms.contract import Algorithm, Attended, Call
from dse.algorithms.quantize import Scales
from dse.errors import BadInput
from dse.measure.attended import attend, check
from dse.measure.material import NotFinite
from dse.measure.stateless import score_stateless

BATCH, HEADS, GROUP, QUERIES, KEYS, DIM = 2, 3, 2, 4, 9, 8


class Outside(Algorithm):
    """Gives back what a test says."""

    name, summary, source, knobs = "outside", "whatever", "a test", ()
    answer: Callable[[Call], Any]

    def form(self):
        return build("dense", {}).form()

    def attend(self, call):
        return self.answer(call)


def right(call: Call) -> Attended:
    mask = np.broadcast_to(call.visible(), (*call.q.shape[:4], call.k.shape[2]))
    return Attended(np.zeros_like(call.q), [mask], mask, {"divisions": 2.0})


def call() -> Call:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((BATCH, HEADS, GROUP, QUERIES, DIM))
    k, v = rng.standard_normal((2, BATCH, HEADS, KEYS, DIM))
    return Call(0, 1, q, k, v, KEYS - QUERIES, KEYS, Scales({}, {}, {}, {}, {}))


def asked(change: Callable[[Attended], Any], made: Call | None = None) -> Attended:
    algorithm = Outside()
    algorithm.answer = lambda given: change(right(given))
    return attend(algorithm, made or call())


@pytest.mark.parametrize(
    "mask",
    [None, np.zeros((BATCH, HEADS, GROUP, QUERIES, KEYS), bool), np.zeros((BATCH, HEADS, 1, QUERIES, KEYS), bool)],
    ids=["none", "each head", "shared"],
)  # fmt: skip
def test_what_keeps_the_contract_passes_as_it_is(mask):
    counted = {"divisions": np.ones(HEADS), "compares": 0, "group.meta_read_bytes": np.float32(3)}
    found = asked(lambda made: replace(made, k_masks=(mask,), v_mask=mask, work=counted))
    assert found.k_masks == (mask,)
    assert found.work == counted


CHANGES: dict[str, tuple[Callable[[Attended], Any], str]] = {
    "nothing": (lambda made: None, r"returned NoneType; must be dse\.algorithms\.contract\.Attended"),
    "one column": (lambda made: replace(made, out=made.out[..., :1]), r"out has shape \(2, 3, 2, 4, 1\); must be \(2, 3, 2, 4, 8\)"),
    "no batch": (lambda made: replace(made, out=made.out[0]), "out has shape"),
    "complex": (lambda made: replace(made, out=made.out.astype(complex)), "out is of dtype complex128"),
    "whole numbers": (lambda made: replace(made, out=made.out.astype(int)), "out is of dtype int64"),
    "a list": (lambda made: replace(made, out=made.out.tolist()), "out is of type list"),
    "few tokens": (lambda made: replace(made, v_mask=made.v_mask[..., :3]), r"v_mask has shape .*; must be \(2, 3, 2, 4, 9\)"),
    "one batch": (lambda made: replace(made, k_masks=[made.k_masks[0][:1]]), r"k_masks\[0\] has shape"),
    "shares": (lambda made: replace(made, v_mask=made.v_mask * 0.5), "v_mask is of dtype float64"),
    "the future": (lambda made: replace(made, v_mask=~made.v_mask), "v_mask holds tokens that a query may not see"),
    "chunks": (lambda made: replace(made, k_masks=[None, None]), r"k_masks holds 2; must be 1, one for every chunk of form"),
    "no counter": (lambda made: replace(made, work={"division": 1.0}), "no counter 'division'; did you mean 'divisions'"),
    "negative": (lambda made: replace(made, work={"divisions": -np.ones(HEADS)}), r"work\['divisions'\] is array.*; must be numbers from 0"),
    "nan": (lambda made: replace(made, work={"divisions": float("nan")}), "must be numbers from 0, one or 3"),
    "per query": (lambda made: replace(made, work={"divisions": np.ones(QUERIES)}), "must be numbers from 0, one or 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_breaks_the_contract_is_refused(name):
    change, message = CHANGES[name]
    with pytest.raises(BadInput, match=message) as caught:
        asked(change)
    assert str(caught.value).startswith("outside: ")


def test_an_output_that_is_not_finite_is_the_algorithms():
    with pytest.raises(NotFinite, match=r"attend\(\) returned as out is not finite"):
        asked(lambda made: replace(made, out=made.out * np.nan))


def test_a_call_cannot_be_changed():
    def scaled(given: Call) -> Attended:
        given.q[...] *= 2
        return right(given)

    algorithm, made = Outside(), call()
    algorithm.answer = scaled
    with pytest.raises(ValueError, match="read-only"):
        attend(algorithm, made)
    made.q[...] = 0  # the caller may


def test_a_step_may_answer_for_any_number_of_rows():
    """The cache of a run that forgets has fewer rows than there were tokens, one row of masks for all queries."""
    q = call().q
    mask = np.ones((BATCH, HEADS, 1, 1, 5), bool)
    check(Outside(), Attended(np.zeros_like(q), [mask], mask), q)


def test_a_measurement_keeps_nothing_of_an_algorithm_that_breaks_it(model, chosen, folders, scales):
    algorithm = Outside()
    algorithm.answer = lambda given: replace(right(given), out=np.zeros((*given.q.shape[:4], 1)))
    with pytest.raises(BadInput, match="out has shape"):
        score_stateless(model, algorithm, scales, chosen, folders)
