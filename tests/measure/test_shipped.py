"""The shipped profile says what the model says: a window measured again gives its stored loss."""

from __future__ import annotations

import numpy as np
import pytest

from dse.algorithms import build
from dse.measure.calibrate import load_scales
from dse.measure.grid import load_grid
from dse.measure.material import dense_pass, windows
from dse.measure.run import shipped_scales
from dse.measure.score import score
from dse.profiles.profile import setting_key
from dse.profiles.store import load_profile

NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def profile():
    return load_profile(NAME)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """The model, its scales, and the first window of the profile with its dense pass."""
    from dse.models.llama import Llama
    from dse.models.text import books

    model = Llama.load(NAME)
    window = windows(books(model.tokenizer), "selection", 1024, 16, 0)[0]
    folder = tmp_path_factory.mktemp("dense")
    dense_pass(model, window).save(folder)
    return model, load_scales(shipped_scales(NAME)), [window], [folder]


def test_every_setting_of_the_grid_is_shipped(profile):
    have = {setting_key(s.algorithm, s.knobs) for s in profile.settings}
    missing = [a for a in load_grid(NAME) if setting_key(a.name, a.settings) not in have]
    assert not missing


def test_forms_are_those_of_the_algorithms(profile):
    for setting in profile.settings:
        assert build(setting.algorithm, setting.knobs).form() == setting.form


def test_counts_and_losses_are_sound(profile):
    dense = profile.rows("dense")
    n = profile.mean_context[0]
    np.testing.assert_allclose(profile.counter("group.k_rows_0")[dense, 0], n, rtol=2e-3)
    for row, setting in enumerate(profile.settings):
        loss, low, high = profile.accuracy[row, 0, :3]
        assert low <= loss <= high
        assert loss == pytest.approx(profile.window_nll[row, 0].mean(), abs=1e-9)
        assert (profile.counter("group.v_rows")[row, 0] <= n * (1 + 2e-3)).all(), setting.key
        for name in ("v_rows", "k_rows_0", "k_rows_1"):
            group, head = profile.counter(f"group.{name}")[row, 0], profile.counter(f"head.{name}")[row, 0]
            assert (group <= head * (1 + 1e-3) + 1e-6).all()
            assert (head <= 3 * group * (1 + 1e-3) + 1e-6).all()


def test_float_dense_is_the_reference(profile):
    row = next(i for i in profile.rows("dense") if profile.settings[i].knobs["k_bits"] == 32)
    assert abs(profile.accuracy[row, 0, 0]) < 1e-6


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
    assert increase == pytest.approx(float(profile.window_nll[row, 0, 0]), abs=1e-5)
