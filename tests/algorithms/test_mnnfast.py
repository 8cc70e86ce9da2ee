"""MNNFast: the worked example, its three tests against plain loops, and what each costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dse.algorithms import build
from dse.algorithms.mnnfast import TESTS, keep_rows
from dse.errors import BadInput

SCORES = np.array([2.0, 0.0, -1.0, 3.0])


@pytest.mark.parametrize(
    ("test", "kept"),
    [
        ("exact", [0, 3]),
        ("exp", [0, 1, 2, 3]),
        ("exp-max", [0, 3]),
        ("running", [0, 1, 3]),  # row 1: 1 > 0.1 x 8.39; row 2: 0.368 < 0.1 x 8.76
    ],
)
def test_golden_example(test, kept):
    """exp = 7.38906, 1, 0.367879, 20.0855; p = 0.256187, 0.034671, 0.012755, 0.696387; threshold 0.1."""
    assert np.flatnonzero(keep_rows(SCORES[None], 0.1, test)[0]).tolist() == kept


def test_golden_weights_are_not_renormalised(make_call):
    """The example as a call: one-hot values show the weights."""
    call = make_call(0, queries=1, keys=4, dim=4, heads=1, group=1)
    q, k = np.zeros((1, 1, 1, 1, 4), np.float32), np.zeros((1, 1, 4, 4), np.float32)
    q[..., 0], k[0, 0, :, 0] = 2.0, SCORES  # 2 q / sqrt(4) = 1
    call = dataclasses.replace(call, q=q, k=k, v=np.eye(4, dtype=np.float32)[None, None])
    out = build("mnnfast", {"threshold": 0.1, "q_bits": 32, "k_bits": 32, "v_bits": 32}).attend(call).out
    np.testing.assert_allclose(out.ravel(), [0.256187, 0, 0, 0.696387], atol=1e-6)
    assert out.sum() == pytest.approx(0.952574, abs=1e-6)


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("test", TESTS)
def test_equals_the_plain_loop(test, gate, make_call, rows):
    call = make_call(1)
    threshold = 0.4 if test == "exp" else 0.02
    attended = build("mnnfast", {"threshold": threshold, "test": test, "gate": gate}).attend(call)
    pv, visible, rises = np.zeros(2), np.zeros(2), np.zeros(2)
    for at, s, v in rows(call):
        e, total, kept, top = np.exp(s), 0.0, [], -np.inf
        for i, term in enumerate(e):
            total += term
            rises[at[1]] += s[i] > top and i > 0
            top = max(top, s[i])
            bar = {"exact": e.sum(), "exp": 1.0, "exp-max": e.max(), "running": total}[test]
            kept.append(term > threshold * bar)
        np.testing.assert_allclose(attended.out[at], (e * kept) @ v / e.sum(), atol=3e-6)
        pv[at[1]] += sum(kept)
        visible[at[1]] += len(s)
        if gate:
            assert (attended.v_mask[at][: len(s)] == kept).all()
    work = {name: np.broadcast_to(total, 2) for name, total in attended.work.items()}
    lazy, running = test != "exact", test == "running"
    assert (work["pv_rows"] == pv).all()
    assert (work["exponentials"] == visible + running * rises).all()
    assert (work["compares"] == visible).all()
    assert (work["divisions"] == (18 * 16 if lazy else visible)).all()
    assert (work["row_waits"] == (18 if test in ("exact", "exp-max") else 0)).all()
    if running:
        assert (work["scalar_ops"] == visible + rises * 17).all()
    assert (attended.v_mask is not None) == gate


@pytest.mark.parametrize("test", TESTS)
def test_lower_thresholds_keep_a_superset(test):
    scores = np.random.default_rng(2).standard_normal((50, 40)) * 3
    kept = [keep_rows(scores, threshold, test) for threshold in (0.5, 0.1, 1e-2, 1e-4)]
    assert all((~a | b).all() for a, b in zip(kept, kept[1:], strict=False))


def test_running_never_skips_what_exact_keeps():
    scores = np.random.default_rng(3).standard_normal((200, 60)) * 4
    for threshold in (1e-3, 0.03, 0.3):
        exact, running = (keep_rows(scores, threshold, test) for test in ("exact", "running"))
        assert (~exact | running).all()


def test_lanes_together_skip_only_together():
    scores = np.full((1, 10), -50.0)
    scores[0, [0, 6]] = 0.0
    scores[0, 9] = -np.inf  # not visible
    assert np.flatnonzero(keep_rows(scores, 0.1, "exact", 4)[0]).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    scores[0, 8] = 0.0
    assert np.flatnonzero(keep_rows(scores, 0.1, "exact", 4)[0]).tolist() == list(range(9))
    assert np.flatnonzero(keep_rows(scores, 0.1, "exact", 1)[0]).tolist() == [0, 6, 8]


def test_a_row_without_large_weights_gives_zero(make_call):
    call = make_call(4)
    flat = dataclasses.replace(call, q=call.q * 0)
    assert (build("mnnfast", {"threshold": 0.5}).attend(flat).out == 0).all()


def test_far_logits_do_not_overflow():
    scores = np.array([[-2000.0, 0.0, 1000.0]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert keep_rows(scores, 0.1, "running").tolist() == [[True, True, True]]
        assert keep_rows(scores, 0.1, "exact").tolist() == [[False, False, True]]


def test_when_values_are_known():
    after = {
        (test, gate): build("mnnfast", {"test": test, "gate": gate}).form().v_after
        for test in TESTS
        for gate in (False, True)
    }
    assert {after[test, gate] for test in ("exact", "exp-max") for gate in (False, True)} == {"row"}
    assert after["running", True] == after["exp", True] == "token"
    assert after["running", False] == after["exp", False] == "none"


def test_thresholds_above_one_need_plain_exponentials():
    build("mnnfast", {"threshold": 20.0, "test": "exp"})
    with pytest.raises(BadInput, match=r"mnnfast\.threshold: 20\.0 is outside"):
        build("mnnfast", {"threshold": 20.0})
