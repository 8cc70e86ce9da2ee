"""A measurement as a whole, on the tiny network: shards, resuming, packing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dse.measure.job as job_module
import dse.measure.replace as replace_module
import dse.measure.run as run_module
from dse.algorithms import build
from dse.errors import BadInput, DseError
from dse.measure.calibrate import calibrate, save_scales
from dse.measure.job import Job, check_widths
from dse.measure.replace import check_replaceable
from dse.measure.run import measure, pack
from dse.profiles.profile import setting_key
from dse.profiles.store import read_profile, write_profile


@pytest.fixture
def job(model, chosen, tmp_path, monkeypatch):
    """Three settings of the tiny network over three windows, in this process."""
    scales = tmp_path / "scales.npz"
    save_scales(scales, calibrate(model, chosen))
    model.sha256 = "00"
    for module in (job_module, run_module):
        monkeypatch.setattr(module, "loaded", lambda job: model)
        monkeypatch.setattr(module, "window_texts", lambda job, context, count=0: list(chosen))
    monkeypatch.setattr(run_module, "calibrated_on", lambda job: np.zeros(0, np.uint64))
    settings = tuple(build(n, k) for n, k in (("dense", {}), ("token-picker", {"lag": 4}), ("spatten", {})))
    return Job(
        "tiny",
        "tiny",
        settings,
        (64,),
        3,
        "selection",
        0,
        scales,
        tmp_path / "out",
        command="dse profile run",
    )


def silent(message, done, total):
    pass


def test_a_measurement_becomes_a_profile_that_round_trips(job, tmp_path):
    profile = measure(job, 1, silent)
    assert [s.algorithm for s in profile.settings] == ["dense", "token-picker", "spatten"]
    assert profile.mean_context[0] == (49 + 64) / 2
    assert np.isfinite(profile.counters).all()
    path = tmp_path / "tiny.npz"
    write_profile(path, profile)
    again = read_profile(path)
    assert again.checksum == profile.checksum
    assert again.provenance.command == "dse profile run"


def test_what_was_measured_is_not_measured_again(job, monkeypatch):
    measure(job, 1, silent)
    monkeypatch.setattr(run_module, "score", None)  # calling it would fail
    again = measure(job, 1, silent)
    assert len(again.settings) == 3


def test_a_killed_measurement_continues_from_its_shards(job, monkeypatch):
    real, calls = run_module.score, []

    def dies_at_the_second(*arguments):
        calls.append(arguments[1].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(run_module, "score", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        measure(job, 1, silent)
    assert [s.algorithm for s in pack(job).settings] == ["dense"]
    monkeypatch.setattr(run_module, "score", real)
    whole = measure(job, 1, silent)
    assert len(whole.settings) == 3


def test_a_loss_that_is_no_number_is_an_error_and_leaves_no_shard(job, monkeypatch):
    real = run_module.score

    def broken(*arguments):
        result = real(*arguments)
        result.nll[0, 0] = np.nan
        return result

    monkeypatch.setattr(run_module, "score", broken)
    with pytest.raises(DseError, match="not a number"):
        measure(job, 1, silent)
    assert not list((job.output / "shards").iterdir())


def test_a_damaged_shard_is_measured_again(job):
    first = measure(job, 1, silent)
    shard = next((job.output / "shards").glob("dense-*"))
    shard.write_bytes(shard.read_bytes()[:200])
    second = measure(job, 1, silent)
    assert second.checksum == first.checksum


def test_a_second_run_in_the_folder_adds_to_the_profile(job):
    from dataclasses import replace

    measure(replace(job, settings=job.settings[:1]), 1, silent)
    both = measure(replace(job, settings=job.settings[1:2]), 1, silent)
    assert sorted(s.algorithm for s in both.settings) == ["dense", "token-picker"]


def test_another_measurement_in_the_same_folder_is_never_mixed_in(job, model):
    measure(job, 1, silent)
    model.sha256 = "11"
    with pytest.raises(BadInput, match="no shard"):
        pack(job)


def test_knobs_at_their_defaults_need_no_new_shard(job):
    """A knob added later, at a default that changes nothing, leaves old shards valid."""
    spelt_out = build("dense", build("dense").settings)
    assert setting_key("dense", spelt_out.settings) == setting_key("dense", build("dense").settings)
    header = run_module._header(job, spelt_out, 64, [])
    assert '"knobs": {}' in header


@pytest.mark.parametrize("knobs", [{"k_bits": 9}, {"v_bits": 3}, {"q_bits": 20}])
def test_a_width_without_scales_is_named_before_anything_runs(knobs):
    with pytest.raises(BadInput, match="calibrated are 4, 5"):
        check_widths(build("dense", knobs))


def test_missing_scales_and_bad_folders_are_named(job, tmp_path):
    from dataclasses import replace

    with pytest.raises(BadInput, match="dse profile calibrate"):
        measure(replace(job, scales=tmp_path / "none.npz"), 1, silent)
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(BadInput, match="cannot be written"):
        measure(replace(job, output=blocked), 1, silent)
    with pytest.raises(BadInput, match="no settings"):
        measure(replace(job, settings=()), 1, silent)


def test_settings_over_other_windows_are_named_not_mixed(job, chosen, monkeypatch):
    measure(job, 1, silent)
    fewer = replace(job, settings=job.settings[:1], count=2)
    monkeypatch.setattr(
        run_module, "window_texts", lambda job, context, count=0: list(chosen)[: count or job.count]
    )
    said = []
    profile = measure(fewer, 1, silent, said.append)
    assert [s.algorithm for s in profile.settings] == ["dense"]
    assert profile.window_counts == (2,)
    assert len(said) == 1
    assert said[0].startswith("context 64: 2 settings measured over other than 2 windows are left out")
    assert len(pack(job).settings) == 3, "the shards are still there"


def test_engines_keep_their_own_shards(job, monkeypatch):
    measure(job, 1, silent)
    run_module.loaded(job).engine = "transformers"
    with pytest.raises(BadInput, match="no shard"):
        pack(job)


def test_shards_read_to_see_what_may_be_replaced_are_packed_as_they_are(job, monkeypatch):
    path = job.output / f"{job.name}.npz"
    whole = measure(job, 1, silent)
    write_profile(path, whole)
    there = check_replaceable(job, path, pack_only=True)
    monkeypatch.setattr(run_module, "collect", lambda job: pytest.fail("read again"))
    assert pack(job, collected=there).checksum == whole.checksum


@pytest.mark.parametrize("damaged", [False, True])
def test_shards_of_a_finished_profile_are_read_once(job, monkeypatch, damaged):
    path = job.output / f"{job.name}.npz"
    whole = measure(job, 1, silent)
    write_profile(path, whole)
    shards = sorted((job.output / "shards").glob("*.npz"))
    if damaged:
        shards[0].write_bytes(shards[0].read_bytes()[:200])
    read, real = [], run_module.load_score

    def counted(shard, *arguments):
        read.append(shard)
        return real(shard, *arguments)

    monkeypatch.setattr(run_module, "load_score", counted)
    monkeypatch.setattr(replace_module, "_alike", lambda job, old: True)
    there = check_replaceable(job, path, pack_only=False)
    again = measure(job, 1, silent, there=there)
    assert again.checksum == whole.checksum
    if not damaged:
        assert sorted(read) == shards


def test_a_shard_that_was_read_and_taken_away_is_measured_again(job):
    path = job.output / f"{job.name}.npz"
    whole = measure(job, 1, silent)
    write_profile(path, whole)
    there = check_replaceable(job, path, pack_only=True)
    next((job.output / "shards").glob("spatten-*")).unlink()
    assert measure(job, 1, silent, there=there).checksum == whole.checksum
    assert len(list((job.output / "shards").glob("*.npz"))) == 3
