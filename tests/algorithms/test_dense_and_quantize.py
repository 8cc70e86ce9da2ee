"""Quantisation and dense attention: exact where they must be, and honest about widths."""

from __future__ import annotations

import numpy as np
import pytest

from dse.algorithms import algorithm_class, build, registry
from dse.algorithms.contract import Call
from dse.algorithms.quantize import Scales, rounded, to_integers, token_scale
from dse.errors import BadInput


def make_call(rng, queries=5, keys=12, dim=8):
    q = rng.standard_normal((1, 2, 2, queries, dim)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, 2, keys, dim)).astype(np.float32)
    widths = (4, 5, 6, 7, 8, 10, 12, 16)
    head = {b: np.full(2, 4.5 / 2 ** (b - 1), np.float32) for b in widths}
    channel = {b: np.full((2, dim), 4.5 / 2 ** (b - 1), np.float32) for b in widths}
    q_scale = {b: np.full((2, 2), 4.5 / 2 ** (b - 1), np.float32) for b in widths}
    return Call(0, 1, q, k, v, keys - queries, keys, Scales(q_scale, head, head, channel, channel))


def exact_attention(call):
    out = np.zeros(call.q.shape)
    for b, h, g, t in np.ndindex(call.q.shape[:4]):
        n = call.first + t + 1
        s = call.k[b, h, :n].astype(float) @ call.q[b, h, g, t].astype(float) / np.sqrt(call.q.shape[-1])
        p = np.exp(s - s.max())
        out[b, h, g, t] = (p / p.sum()) @ call.v[b, h, :n].astype(float)
    return out


def test_float_dense_is_attention():
    call = make_call(np.random.default_rng(0))
    dense = build("dense", {"k_bits": 32, "v_bits": 32, "q_bits": 32})
    np.testing.assert_allclose(dense.attend(call).out, exact_attention(call), atol=1e-6)


@pytest.mark.parametrize("scale", ["head", "channel", "token", "channel+token"])
def test_more_bits_come_closer(scale):
    call = make_call(np.random.default_rng(1))
    want = exact_attention(call)
    errors = [
        np.abs(
            build("dense", {"k_bits": b, "v_bits": b, "scale": scale, "q_bits": 16}).attend(call).out - want
        ).mean()
        for b in (4, 6, 8, 12, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize(
    ("scale", "stored"), [("head", (0, 0)), ("token", (16, 16)), ("channel+token", (0, 16))]
)
def test_stored_scales_are_in_the_form(scale, stored):
    form = build("dense", {"k_bits": 4, "v_bits": 6, "scale": scale}).form()
    assert (form.k_scale_bits, form.v_scale_bits) == stored
    assert (form.k_chunk_bits, form.v_bits) == ((4,), 6)


def test_rounding_error_is_at_most_half_a_step():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 2, 50, 8))
    step = np.array([0.1, 0.2])
    got = rounded(x, 8, "head", step, step)
    assert (np.abs(got - x) <= step[None, :, None, None] / 2 + 1e-12).all()


def test_token_scale_never_clips():
    x = np.random.default_rng(3).standard_normal((40, 8)).astype(np.float32) * 100
    for bits in (4, 8):
        scale = token_scale(x, bits)
        assert (scale == scale.astype(np.float16)).all()  # as stored
        assert (np.abs(x / scale) <= 2 ** (bits - 1) - 1 + 1e-3).all()


def test_integers_stay_in_range():
    x = np.array([-1e9, -1.0, 0.0, 1e9])
    assert to_integers(x, np.array(0.5), 4).tolist() == [-8, -2, 0, 7]


def test_inputs_are_left_alone():
    call = make_call(np.random.default_rng(4))
    before = [a.copy() for a in (call.q, call.k, call.v)]
    for name in ("dense", "token-picker"):
        build(name).attend(call)
    assert all((a == b).all() for a, b in zip(before, (call.q, call.k, call.v), strict=True))


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_algorithm_explains_itself(name):
    cls = algorithm_class(name)
    assert cls.summary
    assert cls.source
    assert all(knob.help for knob in cls.knobs)
    assert build(name).form().k_bits >= 2


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"treshold": 1e-3}, "did you mean 'threshold'"),
        ({"threshold": "low"}, "expected float"),
        ({"threshold": float("nan")}, "finite"),
        ({"threshold": 2.0}, "outside"),
        ({"lag": True}, "expected int"),
        ({"lag": 1.5}, "expected int"),
        ({"mode": "steam"}, "did you mean 'stream'"),
    ],
)
def test_bad_knobs_are_named(knobs, says):
    with pytest.raises(BadInput, match=says):
        build("token-picker", knobs)


def test_unknown_algorithm_is_named():
    with pytest.raises(BadInput, match="did you mean 'spatten'"):
        build("spaten")
