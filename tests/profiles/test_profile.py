from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dse.errors import BadInput
from dse.profiles.profile import build_profile, rounded
from dse.profiles.schema import Form, Setting
from profiles.synthetic import CONTEXTS, fields, profile, settings


def test_the_checksum_is_of_the_content_and_not_of_the_provenance() -> None:
    base = profile()
    other_command = replace(base.provenance, command="elsewhere", notes="x")
    assert profile(provenance=other_command).checksum == base.checksum
    changed = fields()
    changed["accuracy"][0, 0, 0] += 1e-9
    assert build_profile(**changed).checksum != base.checksum


def test_negative_zero_and_other_nans_do_not_change_the_checksum() -> None:
    base, changed = fields(), fields()
    base["counters"][0, 0, 0, 0, 3] = np.nan
    changed["counters"][0, 0, 0, 0, 3] = -np.float32(np.nan)
    changed["counters"][changed["counters"] == 0] = -0.0
    assert build_profile(**base).checksum == build_profile(**changed).checksum


def test_the_arrays_are_copies() -> None:
    given = fields()
    made = build_profile(**given)
    given["accuracy"][:] = 7
    assert not (made.accuracy == 7).any()


def test_knobs_lists_measured_values_in_order() -> None:
    assert profile().knobs("alpha") == {
        "threshold": [1e-4, 1e-3, 1e-2],
        "chunks": ["12", "6+6"],
        "flag": [False],
    }
    assert profile().algorithms == ("dense", "alpha", "beta")


def test_an_unmeasured_context_is_named() -> None:
    with pytest.raises(BadInput, match=r"context 100: profile 'tiny' does not hold it; it holds \[64, 128\]"):
        profile().context_index(100)


def test_rounding_keeps_the_stated_relative_error_and_the_accuracy() -> None:
    base = profile()
    short = rounded(base, 12)
    np.testing.assert_allclose(short.counters, base.counters, rtol=2.0**-13)
    assert (short.accuracy == base.accuracy).all()
    assert rounded(base, 23).checksum == base.checksum
    assert rounded(short, 12).checksum == short.checksum


def _with(field: str, value: object) -> dict[str, object]:
    return {**fields(), field: value}


def _array(field: str, index: tuple[int, ...], value: float) -> dict[str, object]:
    given = fields()
    given[field][index] = value
    return given


BROKEN = {
    "name: ": _with("name", "a/b"),
    "phase: 'training'": _with("phase", "training"),
    "shape.query_heads: 3": _with("shape", replace(fields()["shape"], query_heads=3)),
    "shape.layers: 0": _with("shape", replace(fields()["shape"], layers=0)),
    "contexts: ": _with("contexts", (128, 64)),
    "settings: none": _with("settings", []),
    "appears twice": _with("settings", [settings()[1], *settings()[1:]]),
    "every setting of one algorithm has the same knobs": _with(
        "settings", [Setting("dense", {"k_bits": 4}, Form((4,), 4, 12)), *settings()[1:]]
    ),
    "is not finite": _with(
        "settings", [*settings()[:-1], Setting("beta", {"keep": float("inf")}, Form((8,), 8, 12))]
    ),
    "v_after: 'never'": _with(
        "settings", [*settings()[:-1], Setting("beta", {"keep": 1.0}, Form((8,), 8, 12, v_after="never"))]
    ),
    "k_chunk_bits: ": _with("settings", [*settings()[:-1], Setting("beta", {"keep": 1.0}, Form((), 8, 12))]),
    "counters: shape": _with("counters", fields()["counters"][1:]),
    "window_nll: shape": _with("window_nll", fields()["window_nll"][:, 0]),
    "accuracy: holds an infinity": _array("accuracy", (0, 0, 0), np.inf),
    "group.k_rows_0 of dense": _array("counters", (0, 0, 0, 0, 0), -1),
    "histograms: outside": _array("histograms", (0, 0, 0, 0, 0, 0), 1.5),
    "mean_context: must be positive": _with("mean_context", np.zeros(len(CONTEXTS))),
    "defaults.gamma: no setting": _with("defaults", {"gamma": {}}),
    "defaults.beta.kep: not a knob": _with("defaults", {"beta": {"kep": 1}}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_invariant_is_refused_by_name(message: str) -> None:
    with pytest.raises(BadInput) as caught:
        build_profile(**BROKEN[message])  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
