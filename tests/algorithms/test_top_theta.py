"""Top-Theta: calibration rules on arrays, decisions and compensations against plain loops, what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dse.algorithms import TopTheta, build, registry
from dse.algorithms.operands import masked_scores, operands
from dse.algorithms.thresholds import (
    RULES,
    Rests,
    Thresholds,
    layer_rests,
    layer_thresholds,
    nearest_length,
    pooled_thresholds,
    row_threshold,
    targets,
)
from dse.errors import BadInput
from dse.measure.counting import COLUMNS

LENGTHS = np.array([36, 39])
SDC = ("none", "exact", "exp-threshold", "exp-threshold-fitted", "offline-mean", "offline-log")


def calibrated(call, k=8, k0=20, placement="post", lengths=LENGTHS, sigma=0.1):
    """Thresholds of all layers from the logits of one call."""
    scores = call_scores(call)
    aims = targets(k, k0, call.layers)
    theta = [layer_thresholds(scores, call.first, aim, lengths, placement, sigma) for aim in aims]
    rests = None
    if placement == "pre":
        found = [layer_rests(scores, call.first, a, lengths, t) for a, t in zip(aims, theta, strict=True)]
        rests = Rests(*(np.stack([getattr(r, name) for r in found]) for name in ("gamma", "mean", "log")))
    return Thresholds(placement, aims, np.asarray(lengths), np.stack(theta), rests)


def call_scores(call):
    q, k, _ = operands(build("window"), call)
    return masked_scores(q, k, call.visible())


# Calibration ------------------------------------------------------------------------------------------------


def test_row_threshold_is_the_lower_quantile_and_leaves_k():
    rng = np.random.default_rng(0)
    for n, k in [(10, 1), (40, 7), (333, 128), (9, 8)]:
        x = rng.standard_normal((5, n))
        found = row_threshold(x, k)
        assert (found == np.quantile(x, 1 - k / n, axis=-1, method="lower")).all()
        assert ((x > found[:, None]).sum(axis=-1) == k).all()
        masked = np.concatenate([x, np.full((5, 30), -np.inf)], axis=-1)  # masked entries change nothing
        assert (row_threshold(masked, k) == found).all()


def test_nearest_length_takes_the_shorter_of_two_equals():
    lengths = np.array([10, 20, 40])
    assert nearest_length(lengths, np.array([1, 10, 15, 16, 30, 31, 99])).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert nearest_length(np.array([7]), np.array([1, 7, 100])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_layer_thresholds_equal_the_plain_loop(placement):
    rng = np.random.default_rng(1)
    scores, k, sigma = rng.standard_normal((3, 2, 2, 10, 20)) * 2, 12, 0.3
    found = layer_thresholds(scores, 10, k, np.array([11, 14, 19]), placement, sigma)
    for h, g in np.ndindex(2, 2):
        samples = {11: [], 14: [], 19: []}
        for b in range(3):
            for t in range(10):
                x = scores[b, h, g, t, : 11 + t]
                if placement == "post":
                    x = np.exp(x) / np.exp(x).sum()
                if len(x) > k:
                    nearest = min(samples, key=lambda c: (abs(c - len(x)), c))
                    samples[nearest].append(sorted(x)[-k - 1])
        assert not samples[11]
        assert np.isnan(found[h, g, 0])
        want = [np.mean(samples[c]) + sigma * np.std(samples[c]) for c in (14, 19)]
        np.testing.assert_allclose(found[h, g, 1:], want, rtol=1e-12)


def test_a_single_sample_is_taken_as_is():
    scores = np.random.default_rng(2).standard_normal((1, 1, 1, 1, 30))
    theta = layer_thresholds(scores, 29, 6, np.array([30]), "pre", sigma=5.0)
    assert theta[0, 0, 0] == sorted(scores.ravel())[-7]


def test_rows_to_come_do_not_matter():
    scores = np.random.default_rng(3).standard_normal((2, 1, 1, 4, 20))
    hidden = scores.copy()
    hidden[..., np.arange(20) > 13 + np.arange(4)[:, None]] = 99.0
    first = layer_thresholds(scores, 13, 5, np.array([15]), "pre")
    assert (layer_thresholds(hidden, 13, 5, np.array([15]), "pre") == first).all()


def test_layer_rests_equal_the_plain_loop():
    rng = np.random.default_rng(4)
    scores = rng.standard_normal((3, 1, 2, 6, 20)) * 2
    theta = layer_thresholds(scores, 14, 5, np.array([17]), "pre")
    rests = layer_rests(scores, 14, 5, np.array([17]), theta)
    for g in range(2):
        ratios, sums, logs = [], [], []
        for b in range(3):
            for t in range(6):
                s = scores[b, 0, g, t, : 15 + t]
                dropped = s[(s <= theta[0, g, 0]) & (s < s.max())]
                sums.append(np.exp(dropped - s.max()).sum())
                logs.append(np.log(np.exp(dropped).sum()))
                ratios.append(sums[-1] / (len(dropped) * np.exp(theta[0, g, 0] - s.max())))
        np.testing.assert_allclose(rests.gamma[0, g, 0], np.median(ratios))
        np.testing.assert_allclose(rests.mean[0, g, 0], np.mean(sums))
        np.testing.assert_allclose(rests.log[0, g, 0], np.median(logs))
    assert (rests.gamma < 1).all()  # the bound counts every dropped entry at the threshold


def test_counting_leaves_k_per_row_where_the_mean_does_not():
    """Rows of different level: the mean of their thresholds keeps all of some and nothing of others."""
    rng = np.random.default_rng(20)
    scores = rng.standard_normal((4, 1, 2, 8, 60)) + 2 * rng.standard_normal((4, 1, 2, 8, 1))
    kept = {}
    for rule in RULES:
        theta, own = pooled_thresholds(scores, np.arange(53, 61), 9, 0.0, rule)
        kept[rule] = (scores > theta[..., None, None]).sum(axis=-1).mean()
        assert ((scores > own[..., None]).sum(axis=-1) == 9).all()
    assert kept["count"] == 9
    assert kept["mean"] > 11


def test_sliding_windows_hide_older_entries():
    """A layer that sees 10 tokens calibrates as if each row held its last 10 alone."""
    rng = np.random.default_rng(21)
    scores = rng.standard_normal((2, 1, 2, 6, 20))
    own = np.stack([scores[..., t, 5 + t : 15 + t] for t in range(6)], axis=3)
    for placement in ("pre", "post"):
        theta = layer_thresholds(scores, 14, 4, np.array([10]), placement, window=10)
        x = own if placement == "pre" else np.exp(own) / np.exp(own).sum(-1, keepdims=True)
        want = row_threshold(x, 4)
        np.testing.assert_allclose(theta[..., 0], want.mean(axis=(0, 3)) + 0.1 * want.std(axis=(0, 3)))
    found = layer_rests(scores, 14, 4, np.array([10]), theta, window=10)
    alone = layer_rests(own[..., :1, :], 9, 4, np.array([10]), theta)
    assert found.gamma.shape == alone.gamma.shape
    full = layer_rests(
        np.concatenate([own[..., t : t + 1, :] for t in range(6)]), 9, 4, np.array([10]), theta
    )
    np.testing.assert_allclose(found.mean, full.mean)


def test_k_and_spared_layers():
    assert targets(8, 20, 5) == (20, 20, 8, 8, 8)
    assert targets(8, 20, 1) == (20,)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"placement": "mid"}, "placement 'mid'"),
        ({"k": (8,)}, "expected layers"),
        ({"lengths": np.array([39, 36])}, "must rise"),
        ({"rests": Rests(*[np.zeros((1, 1, 1, 2))] * 3)}, "compensation of shape"),
    ],
)
def test_misshapen_tables_are_refused(change, says, make_call):
    good = calibrated(make_call())
    with pytest.raises(BadInput, match=says):
        dataclasses.replace(good, **change)


# Decisions --------------------------------------------------------------------------------------------------


VARIANTS = [
    (placement, sdc, vmc)
    for placement, sdc in [("post", "none"), *[("pre", name) for name in SDC]]
    for vmc in (False, True)
    if (placement, sdc, vmc) != ("pre", "none", True)  # refused, see below
]


@pytest.mark.parametrize(("placement", "sdc", "vmc"), VARIANTS)
def test_equals_the_plain_loop(placement, sdc, vmc, make_call, rows):
    call = make_call(5)
    tables = calibrated(make_call(6), placement=placement)
    gamma = 1.0 if sdc in ("none", "exp-threshold-fitted") else 0.6
    knobs = {"k": 8, "k0": 20, "placement": placement, "sdc": sdc, "vmc": vmc, "gamma": gamma}
    attended = TopTheta(knobs, thresholds=tables).attend(call)
    kept_pairs, guarded, visible = np.zeros(2), np.zeros(2), 0
    for at, s, v in rows(call):
        _, h, g, _ = at
        n, m = len(s), s.max()
        c = int(nearest_length(LENGTHS, np.array([n]))[0])
        theta = tables.theta[2, h, g, c]
        e = np.exp(s - m)
        kept = (e / e.sum() if placement == "post" else s) > theta
        guarded[h] += not kept.any()
        kept[s.argmax()] = True
        rest = e[~kept].sum()
        if sdc == "none" and placement == "pre":
            rest = 0.0
        elif sdc == "exact":
            rest *= gamma
        elif sdc == "exp-threshold":
            rest = gamma * (~kept).sum() * np.exp(min(theta - m, 0))
        elif sdc == "exp-threshold-fitted":
            rest = tables.rests.gamma[2, h, g, c] * (~kept).sum() * np.exp(min(theta - m, 0))
        elif sdc == "offline-mean":
            rest = gamma * tables.rests.mean[2, h, g, c]
        elif sdc == "offline-log":
            rest = gamma * np.exp(tables.rests.log[2, h, g, c] - m)
        p = e * kept / (e[kept].sum() + rest)
        want = p @ v + (vmc * (1 - p.sum())) * v.mean(axis=0)
        np.testing.assert_allclose(attended.out[at], want, atol=5e-6)
        assert (attended.v_mask[at][:n] == kept).all()
        kept_pairs[h] += kept.sum()
        visible += n * (h == 0)
    work = {name: np.broadcast_to(total, 2) for name, total in attended.work.items()}
    assert set(work) <= set(COLUMNS)
    extra = 18 if sdc in ("exp-threshold", "exp-threshold-fitted", "offline-log") else 0
    exponentials = visible if placement == "post" or sdc == "exact" else kept_pairs + extra
    assert (work["exponentials"] == exponentials).all()
    assert (work["compares"] == visible).all()
    assert (work["row_waits"] == (18 if placement == "post" else guarded)).all()
    per_row = {"exact": 2, "exp-threshold": 3, "exp-threshold-fitted": 3, "offline-mean": 1, "offline-log": 2}
    scalar = 18 * per_row.get(sdc, 0) + vmc * (18 * (2 * 16 + 2) + 6 * 16)
    assert (work["scalar_ops"] == scalar).all()


def test_exact_compensation_gives_the_original_weights(make_call):
    """Thresholds on logits with the exact denominator equal thresholds on probabilities, for one kept set."""
    call = make_call(7)
    pre = calibrated(call, placement="pre", lengths=np.array([40]))
    one = TopTheta({"k": 8, "k0": 20, "placement": "pre", "sdc": "exact"}, thresholds=pre).attend(call)
    s = call_scores(call)
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    p = np.where(one.v_mask, e / e.sum(axis=-1, keepdims=True), 0)
    _, _, v = operands(build("window"), call)
    mean = np.cumsum(v, axis=2)[:, :, call.first :] / (call.first + 1 + np.arange(6))[:, None]
    want = np.einsum("bhgtn,bhnd->bhgtd", p, v) + (1 - p.sum(-1, keepdims=True)) * mean[:, :, None]
    np.testing.assert_allclose(one.out, want, atol=3e-6)


def test_its_own_calibration_row_keeps_exactly_k(make_call):
    call = make_call(8, queries=1)
    for placement in ("pre", "post"):
        tables = calibrated(call, placement=placement, lengths=np.array([40]), sigma=0.0)
        knobs = {"k": 8, "k0": 20, "placement": placement, "vmc": placement == "post"}
        attended = TopTheta(knobs, thresholds=tables).attend(call)
        assert (attended.v_mask.sum(axis=-1) == 8).all()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_rows_of_at_most_k_entries_are_dense(layer, make_call):
    """k0 = 37 spares layers 0 and 1 in rows of up to 37 entries (35 to 40 here); k = 8 nothing."""
    call = make_call(9, layer=layer)
    tables = calibrated(make_call(10), k=8, k0=37)
    attended = TopTheta({"k": 8, "k0": 37}, thresholds=tables).attend(call)
    dense = build("dense").attend(call)
    full = (attended.v_mask == call.visible()).all(axis=(0, 1, 2, 4))
    assert full.tolist() == [layer < 2] * 3 + [False] * 3
    if layer < 2:
        np.testing.assert_allclose(attended.out[..., :3, :], dense.out[..., :3, :], atol=2e-6)
        assert attended.work["row_waits"] == 3 * 3


def test_nothing_dropped_is_dense(make_call):
    call = make_call(11)
    dense = build("dense").attend(call).out
    long = TopTheta({"k": 100, "k0": 100}, thresholds=calibrated(call, k=100, k0=100))
    np.testing.assert_allclose(long.attend(call).out, dense, atol=2e-6)
    low = dataclasses.replace(calibrated(call, placement="pre"), theta=np.full((4, 2, 3, 2), -1e9))
    for sdc in ("exact", "exp-threshold", "exp-threshold-fitted"):
        algorithm = TopTheta({"k": 8, "k0": 20, "placement": "pre", "sdc": sdc}, thresholds=low)
        np.testing.assert_allclose(algorithm.attend(call).out, dense, atol=2e-6)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_larger_targets_keep_a_superset(placement, make_call):
    call = make_call(12)
    kept = []
    for k in (2, 6, 14, 30):
        tables = calibrated(call, k=k, k0=30, placement=placement)
        knobs = {"k": k, "k0": 30, "placement": placement, "vmc": False}
        kept.append(TopTheta(knobs, thresholds=tables).attend(call).v_mask)
    assert all((~a | b).all() for a, b in zip(kept, kept[1:], strict=False))


def test_a_row_under_its_threshold_keeps_its_largest_entry(make_call):
    call = make_call(13)
    for placement in ("pre", "post"):
        high = dataclasses.replace(calibrated(call, placement=placement), theta=np.full((4, 2, 3, 2), 1e9))
        knobs = {"k": 8, "k0": 20, "placement": placement, "vmc": False}
        attended = TopTheta(knobs, thresholds=high).attend(call)
        assert (attended.v_mask.sum(axis=-1) == 1).all()
        assert (np.broadcast_to(attended.work["row_waits"], 2) == 18).all()


def test_the_bound_is_never_above_the_rows_largest_entry(make_call):
    """Under a threshold that no entry reaches, every dropped one counts as the largest: 1 / n is left for it."""
    call = make_call(13)
    high = dataclasses.replace(calibrated(call, placement="pre"), theta=np.full((4, 2, 3, 2), 1e9))
    call = dataclasses.replace(call, v=np.ones_like(call.v))  # the output is then the weight that was kept
    knobs = {"k": 8, "k0": 20, "placement": "pre", "sdc": "exp-threshold", "vmc": False, "v_bits": 32}
    attended = TopTheta(knobs, thresholds=high).attend(call)
    seen = call.visible().sum(axis=-1)
    np.testing.assert_allclose(
        attended.out, np.broadcast_to((1 / seen)[:, None], attended.out.shape), rtol=1e-5
    )


@pytest.mark.parametrize("sdc", SDC)
def test_future_tokens_change_nothing(sdc, make_call, past_unchanged):
    tables = calibrated(make_call(14), placement="pre")
    knobs = {"k": 8, "k0": 20, "placement": "pre", "sdc": sdc, "vmc": sdc != "none"}
    assert past_unchanged(TopTheta(knobs, thresholds=tables), make_call(15))
    post = TopTheta({"k": 8, "k0": 20}, thresholds=calibrated(make_call(14)))
    assert past_unchanged(post, make_call(15))


def test_first_head_finds_the_tables(make_call):
    call = make_call(16)
    algorithm = TopTheta({"k": 8, "k0": 20}, thresholds=calibrated(make_call(17)))
    whole = algorithm.attend(call)
    for h in range(2):
        one = slice(h, h + 1)
        part = dataclasses.replace(
            call,
            q=call.q[:, one],
            k=call.k[:, one],
            v=call.v[:, one],
            scales=call.scales.head(h),
            first_head=h,
        )
        attended = algorithm.attend(part)
        assert (attended.v_mask == whole.v_mask[:, one]).all()
        np.testing.assert_allclose(attended.out, whole.out[:, one], atol=1e-6)


def test_values_are_known_with_the_token_or_with_the_row():
    assert TopTheta({"placement": "pre", "sdc": "exact"}).form().v_after == "token"
    assert TopTheta().form().v_after == "row"


# Refusals ---------------------------------------------------------------------------------------------------


def test_it_is_registered():
    assert registry()["top-theta"] is TopTheta


def test_missing_calibration_is_named(make_call):
    call = make_call()
    with pytest.raises(
        BadInput, match=r"top-theta: no thresholds for placement = 'post', k = 128, k0 = 512, 4 layers"
    ):
        TopTheta().attend(call)
    tables = calibrated(call)
    with pytest.raises(
        BadInput, match=r"calibrated for placement = 'post' and 4 layers of k = 8, 20; wanted .* k = 9"
    ):
        TopTheta({"k": 9, "k0": 20}, thresholds=tables).attend(call)
    with pytest.raises(BadInput, match="2 KV heads of 3 query heads; wanted at least 3 of 3"):
        TopTheta({"k": 8, "k0": 20}, thresholds=tables).attend(dataclasses.replace(call, first_head=1))
    bare = dataclasses.replace(calibrated(call, placement="pre"), rests=None)
    with pytest.raises(BadInput, match="'offline-log' needs calibrated compensations"):
        TopTheta({"k": 8, "k0": 20, "placement": "pre", "sdc": "offline-log"}, thresholds=bare).attend(call)
    empty = dataclasses.replace(tables, theta=np.full(tables.theta.shape, np.nan))
    with pytest.raises(BadInput, match="layer 2 has none: no calibration row was longer than k = 8"):
        TopTheta({"k": 8, "k0": 20}, thresholds=empty).attend(call)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"sdc": "exact"}, "needs placement = 'pre'"),
        ({"placement": "pre"}, "vmc: no weight is missing"),
        ({"gamma": 0.5}, "gamma: has no effect with sdc = 'none'"),
        ({"placement": "pre", "sdc": "exp-threshold-fitted", "gamma": 0.5}, "gamma: has no effect"),
        ({"sdc": "exactly"}, "did you mean 'exact'"),
        ({"theta": 1.0}, "unknown knob"),
    ],
)
def test_bad_knobs_are_named(knobs, says):
    with pytest.raises(BadInput, match=says):
        TopTheta(knobs)
