"""Random calls and the checks that every stateless algorithm has to pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dse.algorithms.contract import Call
from dse.algorithms.quantize import Scales


def random_call(
    seed=0, *, queries=6, keys=40, dim=16, heads=2, group=3, batch=1, layer=2, layers=4, dtype=np.float32
):
    """A call with scales that clip hardly anything; the last `queries` of `keys` positions ask."""
    rng = np.random.default_rng(seed)
    q = (rng.standard_normal((batch, heads, group, queries, dim)) * 2).astype(dtype)
    k, v = rng.standard_normal((2, batch, heads, keys, dim)).astype(dtype)
    widths = (4, 8, 12, 16)
    scale = {b: np.full(heads, 4.5 / 2 ** (b - 1), dtype) for b in widths}
    channel = {b: np.full((heads, dim), 4.5 / 2 ** (b - 1), dtype) for b in widths}
    q_scale = {b: np.full((heads, group), 9 / 2 ** (b - 1), dtype) for b in widths}
    scales = Scales(q_scale, scale, scale, channel, channel)
    return Call(layer, layers, q, k, v, keys - queries, keys, scales)


def same_past(algorithm, call, hidden=2):
    """Whether other keys and values in the last `hidden` places leave all earlier queries bit-identical."""
    one = algorithm.attend(call)
    k, v = call.k.copy(), call.v.copy()
    k[:, :, -hidden:], v[:, :, -hidden:] = 3.0, -9.0
    two = algorithm.attend(dataclasses.replace(call, k=k, v=v))
    same = (one.out[..., :-hidden, :] == two.out[..., :-hidden, :]).all()
    for a, b in zip([*one.k_masks, one.v_mask], [*two.k_masks, two.v_mask], strict=True):
        if a is not None:
            same &= (a[..., :-hidden, :] == b[..., :-hidden, :]).all()
            same &= not (a & ~call.visible()).any()
    return bool(same)


def plain_rows(call, bits=12):
    """Every row at static scales: (b, h, g, t), logits of its visible keys, their values, as float64."""

    def at(x, scale):
        return np.clip(np.rint(x / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale

    for b, h, g, t in np.ndindex(call.q.shape[:4]):
        n = call.first + t + 1
        q = at(call.q[b, h, g, t], call.scales.q[bits][h, g])
        k = at(call.k[b, h, :n], call.scales.k[bits][h])
        v = at(call.v[b, h, :n], call.scales.v[bits][h])
        yield (b, h, g, t), k.astype(float) @ q.astype(float) / np.sqrt(len(q)), v.astype(float)


@pytest.fixture
def make_call():
    return random_call


@pytest.fixture
def past_unchanged():
    return same_past


@pytest.fixture
def rows():
    return plain_rows
