"""`import dse`: the handful of names, as README shows them."""

from __future__ import annotations

import dse

SPACE = {
    "schema": 1,
    "name": "api",
    "workload": {"profile": "smollm2-135m", "phase": "decode", "context": 1024, "batch": 1},
    "algorithms": {"token-picker": {"threshold": [1e-4, 3e-4]}},
    "hardware": {"base": "topick-gqa", "lanes": [24, 48]},
    "objectives": {"maximize": ["speedup"], "minimize": ["nll_increase"]},
}


def test_a_space_may_be_a_dict_a_path_a_name_or_an_object(tmp_path):
    space = dse.load_space(SPACE)
    path = tmp_path / "api.toml"
    path.write_text(space.to_toml())
    fronts = [dse.sweep(given).front for given in (SPACE, space, path, str(path))]
    for front in fronts[1:]:
        assert front.equals(fronts[0])
    assert {"dense", "token-picker"} == set(fronts[0]["algorithm"])
    assert dse.sweep("quickstart").points > 10_000


def test_a_profile_is_read_by_name():
    profile = dse.load_profile("smollm2-135m")
    assert {"dense", "token-picker", "spatten"} <= set(profile.algorithms)
    assert profile.shape.group == 3
