from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.errors import BadInput
from dse.profiles.lookup import select
from dse.profiles.merge import merge_all, merge_profiles
from dse.profiles.profile import ACCURACY_COLUMN, Profile, build_profile
from dse.profiles.schema import Setting
from dse.profiles.store import read_profile, write_profile
from profiles.synthetic import fields, only, profile

NLL = ACCURACY_COLUMN["nll_increase"]


def at(contexts: dict[int, int], rows: list[Setting] | None = None, seed: int = 3, **changes: Any) -> Profile:
    """A profile at contexts with their numbers of windows, as a measurement with that many would leave it."""
    given = fields(seed, rows, windows=max(contexts.values()))
    keep = [i % 2 for i, _ in enumerate(contexts)]
    for name in ("counters", "histograms", "accuracy", "window_nll"):
        given[name] = np.asarray(given[name])[:, keep]
    for name in ("mean_context", "baseline_perplexity"):
        given[name] = np.arange(1.0, 1.0 + len(contexts)) + min(contexts)
    listed = []
    for i, (context, count) in enumerate(contexts.items()):
        given["window_nll"][:, i, count:] = np.nan
        listed += [(f"book{context}", 1000 * n) for n in range(count)]
    given["provenance"] = replace(given["provenance"], windows=tuple(listed))
    present = {s.algorithm for s in given["settings"]}
    given["defaults"] = {a: k for a, k in given["defaults"].items() if a in present}
    return build_profile(**{**given, "contexts": tuple(contexts), **changes})


def test_merge_puts_parts_together_again() -> None:
    whole = profile()
    a, b = only(whole, list(range(0, 11))), only(whole, list(range(8, len(whole.settings))))
    merged = merge_profiles(a, b)
    assert merged.settings == whole.settings
    assert merged.checksum == whole.checksum
    assert merge_profiles(whole, whole).checksum == whole.checksum


def test_contexts_with_other_numbers_of_windows_become_one_profile(tmp_path: Path) -> None:
    short, long = at({256: 8}), at({1024: 2})
    longest = only(long, list(range(4)))
    merged = merge_profiles(longest, short)
    assert merged.contexts == (256, 1024)
    assert merged.window_counts == (8, 2)
    assert merged.windows(256) == short.windows(256)
    assert merged.windows(1024) == long.windows(1024)
    write_profile(tmp_path / "m.npz", merged)
    back = read_profile(tmp_path / "m.npz")
    assert back.checksum == merged.checksum
    assert back.window_counts == (8, 2)
    for source, context in ((short, 256), (longest, 1024)):
        for setting in source.settings:
            knobs = {k: [v] for k, v in setting.knobs.items()}
            got = select(back, setting.algorithm, knobs, context)
            expected = select(source, setting.algorithm, knobs, context)
            assert np.array_equal(got.window_nll, expected.window_nll)
            assert np.isfinite(got.window_nll).all()
            assert np.array_equal(got.counters, expected.counters)
            assert np.array_equal(got.accuracy, expected.accuracy)
    assert back.measured(256).all()
    assert back.measured(1024).sum() == 4


def test_the_order_of_merging_only_orders_the_settings() -> None:
    parts = [at({256: 8}), at({512: 4}), only(at({1024: 2}), [0, 1])]
    one, other = merge_all(parts), merge_all(parts[::-1])
    assert {s.key for s in one.settings} == {s.key for s in other.settings}
    order = [[s.key for s in other.settings].index(s.key) for s in one.settings]
    for name in ("counters", "accuracy", "window_nll"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name)[order])
    assert one.windows(512) == other.windows(512)


def test_a_setting_not_measured_at_a_context_says_where_it_was() -> None:
    dense = [s for s in profile().settings if s.algorithm == "dense"]
    merged = merge_profiles(at({256: 8}), at({1024: 2}, dense))
    with pytest.raises(
        BadInput, match=r"'beta': not measured at context 1024 .*; measured at 256; measure it: "
    ):
        select(merged, "beta", {"keep": [0.5]}, 1024)
    thin = merge_profiles(only(at({256: 8}), [0, 9, 10, 11, 12, 13]), only(at({1024: 2}), [0, 9, 11]))
    with pytest.raises(
        BadInput, match=r"threshold: 0.01 was not measured at context 1024; measured from .* --context 1024"
    ):
        select(thin, "alpha", {"threshold": [1e-2], "chunks": ["6+6"]}, 1024)
    assert select(thin, "alpha", {"threshold": [1e-2], "chunks": ["6+6"]}, 256).status[0] == "measured"
    with pytest.raises(BadInput) as caught:
        select(replace(thin, name="tiny-code-confirmation"), "alpha", {"threshold": [1e-2]}, 1024)
    assert "--context 1024 --windows 2 --text code --part confirmation --model tiny -o FOLDER" in str(
        caught.value
    )


def test_windows_that_do_not_match_are_refused_with_their_context() -> None:
    a = at({256: 8, 1024: 2})
    with pytest.raises(BadInput, match=r"window_nll: context 1024: 2 and 3 windows"):
        merge_profiles(
            a, at({1024: 3}, mean_context=a.mean_context[1:], baseline_perplexity=a.baseline_perplexity[1:])
        )
    moved = replace(a.provenance, windows=(("elsewhere", 5), *a.provenance.windows[1:]))
    with pytest.raises(BadInput, match="window_nll: context 256"):
        merge_profiles(a, replace(a, provenance=moved))
    with pytest.raises(BadInput, match="mean_context: context 256: differs"):
        merge_profiles(a, at({256: 8}, mean_context=[1.0]))


def test_a_setting_with_holes_among_its_windows_is_refused() -> None:
    given = fields(windows=4)
    given["window_nll"][2, 1, 1] = np.nan
    with pytest.raises(BadInput, match=r"window_nll: context 128: dense\(.*\) has 3 windows of 4"):
        build_profile(**given)
    given = fields(windows=4)
    given["window_nll"][:, 0, 0] = np.nan
    with pytest.raises(BadInput, match="window_nll: context 64"):
        build_profile(**given)
    given = fields(windows=4)
    given["window_nll"][2, 0] = np.nan
    with pytest.raises(BadInput, match="has 0 windows of 4"):
        build_profile(**given)
    given["accuracy"][2, 0] = np.nan
    assert build_profile(**given).window_counts == (4, 4)


def test_merge_refuses_what_does_not_compare() -> None:
    whole = profile()
    changed = fields()
    changed["accuracy"][2, 0, 0] += 1
    with pytest.raises(BadInput, match=r"context 64: measured twice with different results"):
        merge_profiles(whole, build_profile(**changed))
    for field, value in (("text_sha256", "2" * 64), ("model_sha256", "2" * 64), ("seed", 7)):
        with pytest.raises(BadInput, match=rf"provenance\.{field}"):
            merge_profiles(whole, profile(provenance=replace(whole.provenance, **{field: value})))
    with pytest.raises(BadInput, match="name: tiny and big"):
        merge_profiles(whole, profile(name="big"))
    with pytest.raises(BadInput, match=r"defaults\.beta: differ"):
        merge_profiles(whole, profile(defaults={"beta": {"keep": 0.25}}))
    other_form = [*whole.settings[:-1], replace(whole.settings[-1], form=whole.settings[0].form)]
    with pytest.raises(BadInput, match="two different forms"):
        merge_profiles(whole, profile(settings=other_form))


def scales(gain: float = 1.0) -> dict[str, Any]:
    return {"k.8": np.full((2, 2), 0.5 * gain), "v_channel.4": np.full((2, 2, 8), 0.25)}


def test_scales_are_stored_checked_and_merged(tmp_path: Path) -> None:
    with_scales = profile(scales=scales())
    assert with_scales.checksum != profile().checksum
    write_profile(tmp_path / "s.npz", with_scales)
    back = read_profile(tmp_path / "s.npz")
    assert list(back.scales) == ["k.8", "v_channel.4"]
    for name, values in scales().items():
        np.testing.assert_array_equal(back.scales[name], values)
        assert back.scales[name].dtype == np.float32
    assert merge_profiles(back, with_scales).checksum == with_scales.checksum
    with pytest.raises(BadInput, match=r"scales\.k\.8: differs"):
        merge_profiles(back, profile(scales=scales(2.0)))
    with pytest.raises(BadInput, match=r"scales\.k\.8: differs or is missing"):
        merge_profiles(profile(), back)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("k8", np.ones((2, 2)), r"scales\.k8: unknown name"),
        ("k.8", np.ones((3, 2)), r"scales\.k\.8: shape \(3, 2\)"),
        ("k.8", np.ones((2, 2, 5000)), "shape"),
        ("k.8", np.zeros((2, 2)), "zero, negative"),
        ("k.8", np.full((2, 2), np.nan), "not finite"),
    ],
)
def test_scales_that_cannot_be_are_refused(name: str, values: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        profile(scales={name: values})
