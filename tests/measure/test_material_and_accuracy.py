"""Windows, scales, intervals, grids."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dse.algorithms.quantize import to_integers
from dse.errors import BadInput
from dse.measure.accuracy import accuracy, paired_interval
from dse.measure.calibrate import best_scale, load_scales
from dse.measure.grid import load_grid
from dse.measure.material import PARTS, windows
from dse.measure.outcome import Score
from dse.profiles.schema import ACCURACY

TEXTS = {"a": np.arange(100_000), "b": np.arange(200_000), "c": np.arange(50_000)}


def test_parts_and_windows_never_overlap():
    spans = []
    for part in PARTS:
        for window in windows(TEXTS, part, 512, 9, seed=3):
            assert (window.tokens == np.arange(window.start, window.start + 513)).all()
            spans.append((window.book, window.start, window.start + 513))
    spans.sort()
    for (book, _, stop), (other, start, _) in zip(spans, spans[1:], strict=False):
        assert book != other or stop <= start


def test_windows_depend_on_the_seed_alone():
    a, b, c = (windows(TEXTS, "selection", 256, 8, seed) for seed in (1, 1, 2))
    assert [w.start for w in a] == [w.start for w in b] != [w.start for w in c]
    assert len(a) == 8


def test_too_little_text_is_said():
    with pytest.raises(BadInput, match="do not fit"):
        windows(TEXTS, "calibration", 4096, 60, 0)


def test_best_scale_beats_the_whole_range():
    x = np.random.default_rng(0).standard_normal((3, 4000))
    for bits in (4, 8):
        step = best_scale(x, bits)
        peak = np.abs(x).max(axis=-1) / (2 ** (bits - 1) - 1)

        def error(s, bits=bits):
            return np.square(to_integers(x, s[:, None], bits) * s[:, None] - x).mean()

        assert error(step) <= error(peak)


def test_interval_is_the_paired_t_interval():
    from scipy.stats import t

    x = np.array([0.1, 0.3, 0.2, 0.5])
    mean, low, high = paired_interval(x)
    want = t.interval(0.95, 3, loc=x.mean(), scale=x.std(ddof=1) / 2)
    assert (mean, low, high) == pytest.approx((x.mean(), *want))
    assert np.isnan(paired_interval(x[:1])[1])


def test_accuracy_columns():
    rng = np.random.default_rng(0)
    dense = rng.random((4, 10)) + 2
    result = Score(
        dense + 0.1, dense, rng.random((4, 10)) < 0.5, np.full((4, 10), 0.2), dense > 0, 0.3, dense, dense
    )
    columns, per_window = accuracy(result)
    got = dict(zip(ACCURACY, columns, strict=True))
    assert got["nll_increase"] == pytest.approx(0.1)
    assert got["nll_increase_distant"] == pytest.approx(0.1)
    assert got["perplexity"] == pytest.approx(np.exp(dense.mean() + 0.1))
    assert got["perplexity_increase"] == pytest.approx(np.exp(dense.mean()) * (np.exp(0.1) - 1))
    assert got["top1_agreement"] == 1
    assert per_window == pytest.approx([0.1] * 4)


@pytest.mark.parametrize("grid_name", ["smollm2-135m", "smollm2-135m-short"])
def test_shipped_grids_hold_what_they_promise(grid_name):
    grid = load_grid(grid_name)
    assert len({(a.name, *sorted(a.settings.items())) for a in grid}) == len(grid)
    planes = Counter(a.name for a in grid)
    for name in ("token-picker", "spatten", "top-theta", "mnnfast"):
        assert planes[name] >= 20, f"a plane of at least 20 settings: {name}"
    assert min(planes["a3"], planes["adore"]) >= 10
    assert len({a.settings["k_bits"] for a in grid if a.name == "dense"} - {32}) >= 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no \\[\\[grid\\]\\]"),
        ("[[grid]]\nthreshold = 1", "algorithm: missing"),
        ("[[grid]]\nalgorithm = 'tokenpicker'", "did you mean 'token-picker'"),
        ("[[grid]]\nalgorithm = 'dense'\nk_bit = 4", "did you mean 'k_bits'"),
        ("[[grid]]\nalgorithm = 'dense'\nk_bits = []", "empty"),
        ("[[grids]]\nalgorithm = 'dense'", "unknown key"),
        ("a = [", "not TOML"),
        ("x = 1", r"grid\.toml:1: x: unknown key"),
        ("[[grid]]\nalgorithm = 'dense'\n[[grid]]", r"grid\.toml:3: grid 2: algorithm: missing"),
        ("[[grid]]\nalgorithm = ['a']", r"grid\.toml:2: grid 1: algorithm: found \['a'\]; every"),
        ("[[grid]]\nalgorithm = 'dense'\n\nk_bits = [8, 99]", r"grid\.toml:4: grid 1\.k_bits: 99 is outside"),
        (
            "[[grid]]\nalgorithm = 'dense'\n[[grid]]\nk_bits = nan",
            r"grid\.toml:4: grid\.2\.k_bits: found nan",
        ),
        ("grid = [{ algorithm = 'dense', k_bits = 99 }]", r"grid\.toml:1: grid 1\.k_bits: 99"),
    ],
)
def test_bad_grids_are_named(tmp_path, text, says):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        load_grid(str(path))


def test_missing_grid_and_scales_are_named(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        load_grid("nowhere")
    with pytest.raises(BadInput, match="dse profile calibrate"):
        load_scales(tmp_path / "none.npz")
