from __future__ import annotations

from typing import Any

import pytest
from profiles.synthetic import profile

from dse.errors import BadInput
from dse.search.evaluate import evaluate
from dse.search.sweep import sweep
from dse.space import load_space
from dse.space.names import METRICS

TABLE: dict[str, Any] = {
    "schema": 1,
    "name": "points",
    "workload": {"profile": "tiny", "context": 128},
    "algorithms": {"alpha": {"threshold": "all", "chunks": ["6+6", "12"]}, "dense": {"k_bits": [4, 8, 12]}},
    "hardware": {"base": "topick", "lanes": [4, 8, 16], "dram_channels": [1, 2, 4]},
    "constraints": {"area_mm2": {"max": 30}},
}
SPACE = load_space(TABLE, profile=profile())


def test_points_of_a_front_evaluate_to_their_rows() -> None:
    front = sweep(SPACE).front
    points = [
        {k: v for k, v in row.items()
         if k == "algorithm" or k.startswith(row["algorithm"] + ".") or
         (k.startswith("hardware.") and k != "hardware.pe_count")}
        for row in front.to_dict("records")
    ]  # fmt: skip
    found = evaluate(SPACE, points)
    assert found["point"].tolist() == front["point"].tolist()
    assert found["feasible"].all()
    for name in METRICS:
        if name != "speedup_best_dense":
            assert found[name].to_numpy() == pytest.approx(front[name].to_numpy(), rel=1e-11, nan_ok=True), (
                name
            )


def test_a_knob_between_measured_values_is_interpolated_and_limits_are_checked() -> None:
    found = evaluate(
        SPACE,
        [
            {"algorithm": "alpha", "alpha.threshold": 5e-4, "alpha.chunks": "12"},
            {"algorithm": "alpha", "alpha.threshold": 1e-3, "hardware.lanes": 2048},
        ],
    )
    assert found["accuracy"].tolist() == ["interpolated", "measured"]
    assert found["feasible"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"algorithm": "alfa"}, "point 0: algorithm: found 'alfa'; did you mean 'alpha'"),
        ({"algorithm": "alpha", "alpha.thresh": 1}, "point 0: alpha.thresh: no such parameter of alpha"),
        ({"algorithm": "alpha", "hardware.lanes": 0}, "point 0: lanes: found 0"),
        ({"algorithm": "alpha", "alpha.threshold": 7.0}, "point 0: alpha.threshold: 7.0 was not measured"),
    ],
)
def test_what_is_wrong_is_named(point: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        evaluate(SPACE, [point])
