"""Thresholds from a model's own attention: a plain loop, sparse activations, sliding windows, files."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from dse.algorithms import build
from dse.algorithms.thresholds import nearest_length, targets
from dse.errors import BadInput
from dse.measure.counting import COLUMNS
from dse.measure.material import PARTS
from dse.measure.score import score
from dse.measure.tables import Setup, checksum, provider
from dse.measure.thresholds import calibrate_thresholds, lengths_up_to, load, make, path

TOKENS = np.random.default_rng(7).integers(0, 50, (3, 64))


def plain_calibration(model, placement, aims, sigma, windows=(0, 0, 0)):
    """Row by row: own thresholds by (layer, head, length), and every layer's attention at its exact top k."""
    shape, samples = model.shape, {}
    lengths = lengths_up_to(TOKENS.shape[1])

    def attend(layer, q, k, v):
        out = np.zeros_like(q)
        for b, head, t in np.ndindex(q.shape[:3]):
            h = head // shape.group
            start = max(t + 1 - windows[layer], 0) if windows[layer] else 0
            s = k[b, h, start : t + 1].astype(float) @ q[b, head, t] / np.sqrt(shape.head_dim)
            p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
            x, n = (p if placement == "post" else s), len(s)
            seen = v[b, h, start : t + 1]
            kept = np.ones(n, bool)
            if n > aims[layer]:
                bar = np.sort(x)[-aims[layer] - 1]
                kept = x > bar
                length = int(lengths[nearest_length(lengths, np.array([n]))[0]])
                samples.setdefault((layer, head, length), []).append(bar)
            weight = p * kept
            if placement == "pre":
                weight /= weight.sum()
            out[b, head, t] = weight @ seen + (1 - weight.sum()) * seen.mean(axis=0)
        return out

    model.run(TOKENS, np.arange(TOKENS.shape[1]), attend)
    return {key: np.mean(rows) + sigma * np.std(rows) for key, rows in samples.items()}


@pytest.mark.parametrize(
    ("placement", "windows"), [("pre", (0, 0, 0)), ("post", (0, 0, 0)), ("post", (24, 0, 40))]
)
def test_calibration_equals_the_plain_loop(placement, windows, model):
    sliding = SimpleNamespace(shape=model.shape, run=model.run, windows=windows)
    found = calibrate_thresholds(sliding, TOKENS, placement, (20, 20, 6), 0.3)
    want = plain_calibration(model, placement, (20, 20, 6), 0.3, windows)
    assert found.k == (20, 20, 6)
    assert np.isfinite(found.theta).sum() == len(want)
    for (layer, head, length), theta in want.items():
        at = (layer, head // model.shape.group, head % model.shape.group, list(found.lengths).index(length))
        assert found.theta[at] == pytest.approx(theta, rel=2e-3, abs=2e-4)
    assert (found.rests is None) == (placement == "post")
    if found.rests:
        assert (np.isfinite(found.rests.gamma) == np.isfinite(found.theta)).all()
        assert (found.rests.gamma[np.isfinite(found.rests.gamma)] <= 1 + 1e-6).all()


def test_lengths_rise_to_the_longest():
    assert lengths_up_to(64).tolist() == [16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert lengths_up_to(100)[-2:].tolist() == [96, 100]
    assert lengths_up_to(5).tolist() == [5]
    assert {192, 256, 384, 512, 640, 768, 896, 1024} <= set(lengths_up_to(1024).tolist())


def set_up(model, folder, given=None):
    texts = {name: np.random.default_rng(i).integers(0, 50, 60_000) for i, name in enumerate("ab")}
    return Setup(model, "tiny", texts, folder, given)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_counting_rows_keeps_k_on_other_text(placement, model, scales, chosen, folders, tmp_path):
    """Thresholds that leave k per row on calibration text leave about k in the scored rows of another text."""
    knobs = {"k": 12, "k0": 12, "placement": placement, "vmc": placement == "post", "calibration": 64}
    kept = {}
    for rule, sigma in (("count", 0.0), ("count", 1.0), ("mean", 0.0)):
        algorithm = build("top-theta", {**knobs, "rule": rule, "sigma": sigma})
        place = path(algorithm, set_up(model, tmp_path))
        make(algorithm, set_up(model, tmp_path), place)
        algorithm.prepare(load(place))
        result = score(model, algorithm, scales, chosen, folders)
        kept[rule, sigma] = result.counters[:, :, COLUMNS["pv_rows"]].mean() / model.shape.group
    assert kept["count", 0.0] == pytest.approx(12, rel=0.1)
    assert kept["count", 1.0] < 0.9 * kept["count", 0.0]
    assert kept["mean", 0.0] != kept["count", 0.0]


def test_settings_share_a_file_unless_their_thresholds_differ(model, tmp_path):
    here = set_up(model, tmp_path)
    base = {"k": 8, "k0": 16, "calibration": 64, "placement": "pre", "sdc": "exact"}
    one = path(build("top-theta", base), here)
    same = ({"sdc": "offline-log"}, {"gamma": 0.5}, {"vmc": False}, {"v_bits": 8})
    other = ({"k": 9}, {"k0": 20}, {"sigma": 0.0}, {"rule": "count"}, {"calibration": 128})
    assert all(path(build("top-theta", base | change), here) == one for change in same)
    places = [path(build("top-theta", base | change), here) for change in other]
    assert len({one, *places, path(build("top-theta", {"calibration": 64}), here)}) == len(other) + 2
    assert (
        path(build("top-theta", base), dataclasses.replace(here, given=tmp_path / "mine.npz")).name
        == "mine.npz"
    )
    changed = {
        name: tokens + (np.arange(len(tokens)) < len(tokens) // 10) for name, tokens in here.texts.items()
    }
    assert path(build("top-theta", base), dataclasses.replace(here, texts=changed)) != one


def test_only_calibration_text_is_used(model, tmp_path):
    here = set_up(model, tmp_path)
    low, high = PARTS["calibration"]
    other = {}
    for name, tokens in here.texts.items():
        place = np.arange(len(tokens)) / len(tokens)
        other[name] = np.where((place >= low) & (place < high), tokens, 0)
    algorithm = build("top-theta", {"calibration": 64})
    assert path(algorithm, here) == path(algorithm, dataclasses.replace(here, texts=other))


def test_files_repeat_and_round_trip(model, tmp_path):
    algorithm = build("top-theta", {"k": 8, "k0": 16, "calibration": 64, "placement": "pre", "vmc": False})
    assert provider(algorithm.needs).load is load
    here = set_up(model, tmp_path)
    place = path(algorithm, here)
    make(algorithm, here, place)
    first = checksum(place)
    tables = load(place)
    assert (tables.placement, tables.k) == ("pre", targets(8, 16, 3))
    assert tables.lengths[-1] == 64
    make(algorithm, here, place)
    assert checksum(place) == first
    assert not [name for name in tmp_path.iterdir() if name != place]
    place.write_bytes(place.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"no thresholds .* delete it"):
        load(place)
    with pytest.raises(TypeError, match="expected Thresholds"):
        algorithm.prepare({})
