"""A sliding window is a cache that begins there, and a prompt's last rows are those of decoding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dse.algorithms import BUILT_IN, build
from dse.algorithms.thresholds import Thresholds, targets

WINDOW = 24  # a multiple of the pages and lanes below, so that cutting the cache does not move their borders

CASES = [
    ("dense", {}),
    ("dense", {"k_bits": 8, "scale": "token"}),
    # Not with order = "sink-recent": the text's first token is visited first, no window's first token is.
    ("token-picker", {"threshold": 0.03, "lag": 0, "order": "chronological"}),
    ("token-picker", {"threshold": 0.03, "mode": "breadth", "recheck": True}),
    ("a3", {"search": 0.5, "fetch": "demand"}),
    ("a3", {"search": 3.0, "fetch": "all", "skip": False}),
    ("mnnfast", {"threshold": 0.03, "gate": True}),
    ("mnnfast", {"threshold": 0.03, "gate": True, "test": "running", "together": 4}),
    ("quest", {"page": 4, "budget": 12, "dense_layers": 0}),
    ("quest", {"page": 4, "budget": 64, "dense_layers": 0}),
    ("oracle-top-k", {"k": 5}),
    ("oracle-threshold", {"threshold": 0.03}),
    ("window", {"recent": 9, "sinks": 0}),
    ("top-theta", {"k": 6, "k0": 20}),
    ("top-theta", {"k": 6, "k0": 20, "placement": "pre", "sdc": "exact"}),
]


def prepared(name, knobs):
    algorithm = build(name, knobs)
    if name == "top-theta":
        lengths = np.array([8, 16, 24, 40])
        level = {"pre": 1.0, "post": 0.03}[algorithm.text("placement")]
        theta = np.broadcast_to(level * (1 + lengths / 40), (4, 2, 3, 4))
        algorithm.prepare(Thresholds(algorithm.text("placement"), targets(6, 20, 4), lengths, theta))
    return algorithm


def test_every_stateless_algorithm_is_here():
    assert {name for name, _ in CASES} == {cls.name for cls in BUILT_IN if not cls.stateful}


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_a_window_equals_a_shorter_cache(name, knobs, make_call):
    """Output, masks and work of every query equal those over the keys it sees alone."""
    call = dataclasses.replace(make_call(31, queries=9, keys=40), window=WINDOW)
    algorithm = prepared(name, knobs)
    whole = algorithm.attend(call)
    for t in range(0, 9, 4):  # queries 31, 35 and 39: their windows begin at multiples of 4
        begin = call.first + t + 1 - WINDOW
        one = dataclasses.replace(call, q=call.q[:, :, :, t : t + 1], first=call.first + t)
        seen = slice(begin, begin + WINDOW)
        cut = dataclasses.replace(one, k=call.k[:, :, seen], v=call.v[:, :, seen], first=WINDOW - 1, window=0)
        alone, here = algorithm.attend(cut), algorithm.attend(one)
        np.testing.assert_allclose(here.out, alone.out, atol=2e-6)
        np.testing.assert_allclose(whole.out[..., t : t + 1, :], alone.out, atol=2e-6)
        masks = zip([*here.k_masks, here.v_mask], [*alone.k_masks, alone.v_mask], strict=True)
        for number, (mask, want) in enumerate(masks):
            assert (mask is None) == (want is None)
            if mask is not None:
                assert (mask[..., seen] == want).all()
                assert mask.sum() == want.sum()
                full = [*whole.k_masks, whole.v_mask][number]
                assert (full[..., t : t + 1, :] == mask).all()
        assert set(here.work) == set(alone.work)
        for counter, total in alone.work.items():
            np.testing.assert_allclose(here.work[counter], total, err_msg=counter)


@pytest.mark.parametrize("window", [0, WINDOW])
@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_a_prompt_ends_as_decoding_does(name, knobs, window, make_call):
    """All queries of a text at once give the last ones what they get alone."""
    whole = dataclasses.replace(make_call(32, queries=40, keys=40), window=window)
    last = dataclasses.replace(whole, q=whole.q[..., 34:, :], first=34)
    algorithm = prepared(name, knobs)
    prompt, decoded = algorithm.attend(whole), algorithm.attend(last)
    np.testing.assert_allclose(prompt.out[..., 34:, :], decoded.out, atol=2e-6)
    masks = zip([*prompt.k_masks, prompt.v_mask], [*decoded.k_masks, decoded.v_mask], strict=True)
    for mask, want in masks:
        if want is not None:
            assert (mask[..., 34:, :] == want).all()
            assert not (mask & ~whole.visible()).any()
