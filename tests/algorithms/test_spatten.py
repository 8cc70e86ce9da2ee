"""SpAtten: published trace totals, schedules, and what a decode step may and may not do."""

from __future__ import annotations

import numpy as np
import pytest

from dse.algorithms import build
from dse.algorithms.contract import Prompt
from dse.algorithms.quantize import Scales
from dse.algorithms.spatten import keep_ratios, queries_that_saw
from dse.errors import BadInput


def run_decode(
    knobs,
    *,
    layers=4,
    heads=2,
    group=2,
    dim=8,
    prompt=20,
    steps=4,
    context=None,
    batch=2,
    seed=0,
    bend=None,
    windows=(),
):
    """Decode random queries; returns per step and layer what came back, and the run."""
    rng = np.random.default_rng(seed)
    algorithm = build("spatten", knobs)
    shape = (batch, heads, prompt, dim)
    k = [rng.standard_normal(shape).astype(np.float32) for _ in range(layers)]
    v = [rng.standard_normal(shape).astype(np.float32) for _ in range(layers)]
    widths = (4, 6, 8, 10, 12, 16)
    one = {b: np.full(heads, 4.5 / 2 ** (b - 1), np.float32) for b in widths}
    q_scale = {b: np.full((heads, group), 9 / 2 ** (b - 1), np.float32) for b in widths}
    scales = [Scales(q_scale, one, one, {}, {})] * layers
    column_sum = rng.random((batch, prompt))
    run = algorithm.start(
        Prompt(k, v, group, prompt + steps, context or prompt + steps, column_sum, scales, windows=windows)
    )
    out = []
    for step in range(steps):
        run.step(prompt + step, np.zeros(1, np.int64))
        for layer in range(layers):
            q = rng.standard_normal((batch, heads, group, 1, dim)).astype(np.float32) * 2
            new_k, new_v = rng.standard_normal((2, batch, heads, dim)).astype(np.float32)
            if bend is not None and step >= bend:
                new_k, new_v = new_k * 0 + 3, new_v * 0 - 3
            out.append((step, layer, run.attend(layer, q, new_k[:, :, None], new_v[:, :, None])))
    return out, run


def trace_totals(schedule, layers, heads, value_keep):
    """Keys and values over all head-queries of the published workload: prompt 992, 32 tokens, nominal 1024."""
    knobs = {"schedule": schedule, "chunks": "8", "value_keep": value_keep, "importance": "empty"}
    out, _ = run_decode(
        knobs, layers=layers, heads=heads, group=1, dim=2, prompt=992, steps=32, context=1024, batch=1
    )
    keys = np.zeros(layers, int)
    values = np.zeros(layers, int)
    for _, layer, attended in out:
        keys[layer] += attended.k_masks[0].sum()
        values[layer] += attended.v_mask.sum()
    return keys, values


def test_published_trace_totals_gpt2_small():
    """12 x 12 heads, keep 0.9, 0.7, 0.2 x 4, 0.1 x 6 of 1024, values 0.2: the authors' published workload."""
    keys, values = trace_totals("0:0.9,1:0.7,2:0.2,6:0.1", 12, 12, 0.2)
    assert (keys.sum(), values.sum()) == (1_283_172, 255_180)


def test_published_trace_totals_gpt2_medium():
    """24 layers, keep 1 x 2, 0.9, 0.8 x 2, 0.6 x 6, 0.3 x 13, values 0.3; 16 heads, 13 from layer 16, 10 from 22.

    All 16 heads are run; the published totals count the surviving ones, and every head keeps the same number.
    """
    keys, values = trace_totals("2:0.9,3:0.8,5:0.6,11:0.3", 24, 16, 0.3)
    heads = np.array([16] * 16 + [13] * 6 + [10] * 2)
    assert (keys * heads // 16).sum() == 6_143_004
    assert (values * heads // 16).sum() == 1_848_398


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("average", [0.1, 0.4, 0.75, 1.0])
def test_schedules_average_out_and_never_rise(schedule, average):
    ratios = keep_ratios(schedule, average, 0.15, 30)
    assert ratios[:5] == [1.0] * 5
    assert np.mean(ratios[5:]) == pytest.approx(average)
    assert all(a >= b - 1e-12 for a, b in zip(ratios[5:], ratios[6:], strict=False))
    assert all(0 < r <= 1 for r in ratios)


@pytest.mark.parametrize("schedule", ["0:0.5,1:0.9", "x", "3:0", "2:0.5,1:0.4", "0:1.5", "-1:0.5"])
def test_bad_schedules_are_refused(schedule):
    with pytest.raises(BadInput, match="schedule"):
        build("spatten", {"schedule": schedule})


def test_token_counts_follow_the_schedule():
    out, _ = run_decode({"schedule": "1:0.5,3:0.25", "chunks": "8"}, prompt=20, steps=4, context=24)
    for step, layer, attended in out:
        want = {0: 20 + step + 1, 1: 12, 2: 12, 3: 6}[layer]
        assert (attended.k_masks[0].sum(axis=-1) == want).all()


def test_a_pruned_token_stays_pruned_in_this_step_and_returns_in_the_next():
    out, _ = run_decode({"schedule": "1:0.5,3:0.25", "chunks": "8"})
    for (step, _, before), (later, _, after) in zip(out, out[1:], strict=False):
        if step == later:
            assert (before.k_masks[0] | ~after.k_masks[0]).all()
        else:
            assert after.k_masks[0].all()


def test_the_current_token_is_always_kept():
    out, _ = run_decode({"keep": 0.1, "front": 0.0})
    for _, _, attended in out:
        assert attended.k_masks[0][..., -1].all()


def test_nothing_pruned_is_dense_at_the_same_width():
    out, _ = run_decode({"keep": 1.0, "chunks": "8+4", "confidence": 1.0, "v_bits": 12})
    rng = np.random.default_rng(0)
    layers, prompt, heads, group, dim, batch = 4, 20, 2, 2, 8, 2
    k = [rng.standard_normal((batch, heads, prompt, dim)).astype(np.float32) for _ in range(layers)]
    v = [rng.standard_normal((batch, heads, prompt, dim)).astype(np.float32) for _ in range(layers)]
    rng.random((batch, prompt))
    step_k, step_q = np.float32(4.5 / 2**11), np.float32(9 / 2**11)
    for _, layer, attended in out:
        q = rng.standard_normal((batch, heads, group, 1, dim)).astype(np.float32) * 2
        new_k, new_v = rng.standard_normal((2, batch, heads, dim)).astype(np.float32)
        k[layer] = np.concatenate([k[layer], new_k[:, :, None]], axis=2)
        v[layer] = np.concatenate([v[layer], new_v[:, :, None]], axis=2)

        def rounded(x, step):
            return np.clip(np.rint(x / step), -2048, 2047) * step

        scores = (rounded(q, step_q)[:, :, :, 0] @ rounded(k[layer], step_k).swapaxes(-1, -2)) * dim**-0.5
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(attended.out[:, :, :, 0], p @ rounded(v[layer], step_k), atol=3e-6)


def test_second_pass_happens_exactly_where_the_row_is_flat():
    for confidence, share in ((0.0, 0.0), (1.0, 1.0)):
        out, _ = run_decode({"keep": 1.0, "chunks": "8+4", "confidence": confidence})
        for _, _, attended in out:
            assert attended.k_masks[1].mean() == share
            assert (np.asarray(attended.work["second_passes"]) == share * 2 * 2).all()


def test_value_pruning_keeps_exactly_the_largest():
    out, _ = run_decode({"keep": 1.0, "value_keep": 0.25, "chunks": "8"}, context=24)
    for step, _, attended in out:
        assert (attended.v_mask.sum(axis=-1) == 6).all(), step
        assert (attended.k_masks[0] | ~attended.v_mask).all()


def test_head_pruning_keeps_the_count_and_silences_the_rest():
    out, _ = run_decode({"keep": 1.0, "head_keep": 0.5, "chunks": "8"}, layers=10)
    for _, layer, attended in out:
        alive = attended.k_masks[0].any(axis=-1)[..., 0]
        assert (alive.sum(axis=(1, 2)) == run_heads(layer)).all()
        assert (attended.out[~alive] == 0).all()


def run_heads(layer):
    return max(1, int(keep_ratios("linear", 0.5, 0.30, 10)[layer] * 4 + 1e-9))


def test_later_tokens_change_nothing_before_them():
    knobs = {"keep": 0.4, "front": 0.0, "value_keep": 0.5, "head_keep": 0.7}
    plain, _ = run_decode(knobs)
    bent, _ = run_decode(knobs, bend=3)
    for (step, _, a), (_, _, b) in zip(plain, bent, strict=True):
        if step < 3:
            assert (a.out == b.out).all()
            assert all((x == y).all() for x, y in zip(a.k_masks, b.k_masks, strict=True))


def test_importance_is_carried_from_step_to_step():
    _, run = run_decode({"keep": 0.5, "importance": "empty"})
    assert run.importance.sum() > 0
    _, after_prompt = run_decode({"keep": 0.5, "importance": "prompt"}, steps=0, context=20)
    _, mean = run_decode({"keep": 0.5, "importance": "prompt-mean"}, steps=0, context=20)
    seen = 20 - np.arange(20)
    np.testing.assert_allclose(mean.importance * seen, after_prompt.importance)


@pytest.mark.parametrize("chunks", ["4+4+4", "", "8+", "20"])
def test_bad_chunks_are_named(chunks):
    with pytest.raises(BadInput, match="chunks"):
        build("spatten", {"chunks": chunks})


@pytest.mark.parametrize(
    "knobs", [{"keep": 1.0}, {"keep": 0.5, "front": 0.0, "value_keep": 0.4, "confidence": 0.5}]
)
def test_sliding_window_layers_see_their_window(knobs):
    window = 6
    out, _ = run_decode(knobs, windows=(0, window, 0, window))
    plain, _ = run_decode(knobs)
    for (step, layer, attended), (_, _, full) in zip(out, plain, strict=True):
        near = np.arange(20 + step + 1) > 20 + step - window
        if layer in (1, 3):
            assert not (attended.k_masks[0] & ~near).any()
            assert attended.k_masks[0][..., -1].all()
            counts = attended.k_masks[0].sum(axis=-1)
            want = np.maximum(1, np.floor(0.4 * counts)) if "value_keep" in knobs else counts
            assert (attended.v_mask.sum(axis=-1) == want).all()
            assert attended.work["exponentials"].sum() == counts.sum() + attended.k_masks[1].sum()
        elif knobs["keep"] == 1:
            assert attended.k_masks[0].all()
        if layer == 0 and step == 0:
            assert (attended.out == full.out).all()


def test_the_mean_counts_the_queries_that_saw_a_token():
    windows = (0, 5, 5)
    seen = [[sum(j <= i and (not w or j > i - w) for i in range(12)) for j in range(12)] for w in windows]
    np.testing.assert_allclose(queries_that_saw(12, windows), np.mean(seen, axis=0))
