"""Scored text that calibration has seen is found, wherever it lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.measure.calibrate import save_scales
from dse.measure.material import Window
from dse.measure.overlap import (
    PASSAGES,
    RUN,
    calibration_prints,
    joined,
    prints,
    refuse_overlap,
    scales_prints,
)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2**31))
def test_a_shared_run_is_found_at_any_offset(before, after, seed):
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, 50_000, RUN)
    seen = prints(np.concatenate([rng.integers(0, 50_000, 40), shared]))
    scored = np.concatenate([rng.integers(0, 50_000, before), shared, rng.integers(0, 50_000, after)])
    with pytest.raises(BadInput, match=f"tokens {7 + before} to {7 + before + RUN} were calibrated on"):
        refuse_overlap([Window("mine", 7, scored)], seen)
    refuse_overlap([Window("mine", 7, np.delete(scored, before + RUN // 2))], seen)


def test_short_texts_have_no_prints():
    assert len(prints(np.arange(RUN - 1))) == 0
    assert len(prints(np.arange(RUN))) == 1


def test_order_counts():
    tokens = np.arange(RUN)
    assert prints(tokens)[0] != prints(tokens[::-1].copy())[0]


def test_the_calibration_part_is_what_is_refused():
    rng = np.random.default_rng(0)
    text = {"book": rng.integers(0, 50_000, 5000)}
    seen = calibration_prints(text)
    with pytest.raises(BadInput):
        refuse_overlap([Window("book", 300, text["book"][300:400])], seen)
    refuse_overlap([Window("book", 700, text["book"][700:900])], seen)


def test_scales_carry_what_they_were_fitted_to(tmp_path):
    tokens = np.arange(100)
    path = tmp_path / "scales.npz"
    save_scales(path, {PASSAGES: joined([tokens])})
    with pytest.raises(BadInput):
        refuse_overlap([Window("mine", 0, tokens[10:60])], scales_prints(path))
    assert len(scales_prints(tmp_path / "none.npz")) == 0
