"""The shipped profile says what the model says: a window measured again gives its stored loss."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from dse.algorithms import build
from dse.measure.calibrate import load_scales
from dse.measure.grid import load_grid
from dse.measure.job import shipped_scales
from dse.measure.material import dense_pass, windows
from dse.measure.score import score
from dse.profiles.profile import setting_key
from dse.profiles.store import load_profile, shipped_profiles

NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def profile():
    return load_profile(NAME)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """The model, its scales, and the first window of the profile with its dense pass."""
    from dse.models.load import load_model
    from dse.models.text import books

    model = load_model(NAME)
    window = windows(books(model.tokenizer), "selection", 1024, 16, 0)[0]
    folder = tmp_path_factory.mktemp("dense")
    dense_pass(model, window).save(folder)
    return model, load_scales(shipped_scales(NAME)), [window], [folder]


GRIDS = {
    ("smollm2-135m", 1024): "smollm2-135m",
    ("smollm2-135m", 512): "smollm2-135m-short",
    ("smollm2-135m", 256): "smollm2-135m-short",
    ("smollm2-135m-prefill", 1024): "smollm2-135m-prefill",
    ("smollm2-135m-prefill", 512): "smollm2-135m-prefill",
    ("smollm2-135m-prefill", 256): "smollm2-135m-prefill",
    ("gemma-3-270m", 1024): "gemma-3-270m",
}
"""The grid behind every context that is measured completely."""


@pytest.mark.parametrize(("name", "context"), GRIDS)
def test_every_setting_of_the_grid_is_shipped(name, context):
    profile = load_profile(name)
    measured = np.isfinite(profile.accuracy[:, profile.context_index(context), 0])
    have = {setting_key(s.algorithm, s.knobs) for s, m in zip(profile.settings, measured, strict=True) if m}
    missing = [a for a in load_grid(GRIDS[name, context]) if setting_key(a.name, a.settings) not in have]
    assert not missing


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_forms_are_those_of_the_algorithms(name):
    for setting in load_profile(name).settings:
        assert build(setting.algorithm, setting.knobs).form() == setting.form


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_counts_and_losses_are_sound(name):
    profile = load_profile(name)
    group = profile.shape.group
    for column, context in enumerate(profile.contexts):
        queries = context if profile.phase == "prefill" else 1
        most = profile.mean_context[column] * queries
        for row, setting in enumerate(profile.settings):
            loss, low, high = profile.accuracy[row, column, :3]
            if not np.isfinite(loss):
                continue
            assert low <= loss <= high
            losses = profile.window_nll[row, column]
            assert loss == pytest.approx(np.nanmean(losses), abs=1e-9)
            assert np.isfinite(losses).sum() == profile.window_counts[column]
            assert (profile.counter("group.v_rows")[row, column] <= most * (1 + 2e-3)).all(), setting.key
            for rows in ("v_rows", "k_rows_0", "k_rows_1"):
                shared = profile.counter(f"group.{rows}")[row, column]
                alone = profile.counter(f"head.{rows}")[row, column]
                assert (shared <= alone * (1 + 1e-3) + 1e-6).all()
                assert (alone <= group * shared * (1 + 1e-3) + 1e-6).all()


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_float_dense_is_the_reference(name):
    profile = load_profile(name)
    for column in range(len(profile.contexts)):
        for row in profile.rows("dense"):
            if profile.settings[row].knobs["k_bits"] == 32:
                assert abs(profile.accuracy[row, column, 0]) < 1e-6


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("dense", {}),
        ("dense", {"k_bits": 4, "v_bits": 4, "scale": "channel+token"}),
        ("token-picker", {}),
        ("token-picker", {"threshold": 3e-3, "chunks": "6+6", "margin": 0.5}),
    ],
    ids=lambda x: str(x),
)
def test_the_first_window_measured_again_gives_its_stored_loss(profile, material, name, knobs):
    algorithm = build(name, knobs)
    row = [setting_key(s.algorithm, s.knobs) for s in profile.settings].index(
        setting_key(algorithm.name, algorithm.settings)
    )
    result = score(material[0], algorithm, *material[1:])
    increase = float((result.nll - result.dense_nll).mean())
    stored = profile.window_nll[row, profile.context_index(1024)]
    # Another library rounds some products the other way, a quantised value falls into the next step, and everything
    # behind it sees other noise: alike in the mean over windows, not in one of them.
    room = 1e-5 if _last_bits(result.dense_nll) == MEASURED_WITH else 2 * float(np.nanstd(stored))
    assert increase == pytest.approx(float(stored[0]), abs=room)


MEASURED_WITH = "7a9aa31970294317"
"""Last bits of the window's dense pass where the shipped profile was measured: NumPy 2.4, x86-64 with AVX2."""


def _last_bits(losses: NDArray[np.float64]) -> str:
    return hashlib.sha256(losses.astype("<f8").tobytes()).hexdigest()[:16]
