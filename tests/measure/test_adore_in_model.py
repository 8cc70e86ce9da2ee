"""ADORE-style decoding inside a model: where it must lose nothing, and what is counted there."""

from __future__ import annotations

import numpy as np
import pytest

from dse.algorithms.adore import Adore
from dse.measure.counting import COLUMNS
from dse.measure.gru import initial
from dse.measure.score import score

FLOAT = {"k_bits": 32, "v_bits": 32, "q_bits": 32}
CHOOSERS = ["gru", "accumulated", "window", "random", "oracle", "future"]


@pytest.fixture(scope="module")
def measure(model, scales, chosen, folders):
    def run(**knobs):
        algorithm = Adore({**FLOAT, **knobs})
        if algorithm.needs:
            algorithm.prepare(initial(32, 8, 4, np.random.default_rng(0)))
        return score(model, algorithm, scales, chosen, folders)

    return run


@pytest.mark.parametrize("restore", ["rebuild", "reload"])
@pytest.mark.parametrize("chooses", CHOOSERS)
def test_a_cache_for_the_whole_text_is_dense(measure, chooses, restore):
    result = measure(controller=chooses, cache=64, rebuild=3, restore=restore)
    assert np.abs(result.nll - result.dense_nll).max() <= 1e-4
    assert result.output_error < 1e-4


@pytest.mark.parametrize("chooses", CHOOSERS)
def test_recomputing_all_that_was_released_is_dense(measure, chooses):
    """40 of up to 64 tokens cached, all others recomputed in every step: rebuilt rows are exact, nothing is lost."""
    result = measure(controller=chooses, cache=40, rebuild=24)
    assert np.abs(result.nll - result.dense_nll).max() <= 1e-4


def test_reloading_gives_back_what_was_released(measure):
    result = measure(controller="random", cache=40, rebuild=24, restore="reload")
    assert np.abs(result.nll - result.dense_nll).max() <= 1e-4


def test_a_small_cache_loses_and_returning_tokens_change_it(measure):
    without, with_some = (measure(controller="random", cache=16, rebuild=r) for r in (0, 4))
    assert without.output_error > 0.1
    assert not np.array_equal(without.nll, with_some.nll)


def test_counters_per_step(measure, model):
    """48 to 63 tokens before the current one, 16 cached, 4 rebuilt: cached rows once, 5 rows written."""
    table = measure(controller="oracle", cache=16, rebuild=4).counters
    group = model.shape.group
    assert (table[..., COLUMNS["group.k_rows_0"]] == 17).all()
    assert (table[..., COLUMNS["group.k_runs_0"]] == 1).all()
    assert (table[..., COLUMNS["head.v_rows"]] == 17 * group).all()
    assert (table[..., COLUMNS["group.rows_written"]] == 5).all()
    assert (table[..., COLUMNS["group.rows_rebuilt"]] == 4).all()
    assert table[..., COLUMNS["rank_calls"]].sum() == pytest.approx(1)
    assert table[..., COLUMNS["select_elements"]].sum() == pytest.approx(np.mean(np.arange(48, 64) - 16))
    most = group * 5 * 21
    assert (table[..., COLUMNS["pv_rows"]] <= most).all()
    assert (table[..., COLUMNS["pv_rows"]] > group * 21).all()
