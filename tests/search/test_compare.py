"""Comparison of two runs: dominance against its definition, hypervolumes by pen, and ratios over one baseline."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dse.errors import BadInput
from dse.search.compare import compare, differences, dominance
from dse.space.definition import WorkloadSpec

UP = {"speedup": True, "nll_increase": False}


def run(
    name: str,
    points: list[tuple[float, float]],
    latency: float = 1.0,
    objectives: dict[str, bool] = UP,
    **workload: Any,
) -> Any:
    """A run by pen: (speedup, loss) rows and a baseline."""
    table = pd.DataFrame(points, columns=["speedup", "nll_increase"])
    table.insert(0, "algorithm", "dense")
    table.insert(0, "point", [f"{name}{i}" for i in range(len(points))])
    table["on_front"] = True
    own = {
        "phase": "decode",
        "context": 1024,
        "batch": 1,
        "profile": "p",
        "profile_sha256": "0" * 64,
        **workload,
    }
    space = SimpleNamespace(
        objectives=objectives,
        workload=WorkloadSpec(**own),
        plain=lambda: {
            "schema": 1,
            "name": name,
            "workload": own,
            "algorithms": {"dense": {"k_bits": [4, 8]}},
        },
    )
    baseline = {"latency_s": latency, "energy_j": 1.0, "dram_bytes": 1.0, "rest_s": 1.0}
    return SimpleNamespace(
        directory=Path(name),
        space=space,
        front=table,
        info={"baseline": baseline, "profile": {"checksum": "c"}},
    )


def test_hypervolumes_are_those_drawn_on_paper() -> None:
    a = run("a", [(1.0, 0.0), (2.0, 0.1)])
    b = run("b", [(1.5, 0.0), (3.0, 0.2)])
    found = compare(a, b)
    # Speedups from 1 to 3 count from 1 - 0.2, losses from 0 to 0.2 from 0.2 + 0.02.
    assert found.reference == pytest.approx({"speedup": 0.8, "nll_increase": 0.22})
    assert found.a.hypervolume == pytest.approx(0.2 * 0.22 + 1.0 * 0.12)
    assert found.b.hypervolume == pytest.approx(0.7 * 0.22 + 1.5 * 0.02)
    assert found.joint == pytest.approx(0.7 * 0.22 + 0.5 * 0.12 + 1.0 * 0.02)
    assert found.change == pytest.approx(found.b.hypervolume / found.a.hypervolume - 1)
    assert found.a.dominated.tolist() == [True, False]
    assert found.b.dominated.tolist() == [False, False]
    assert found.a.algorithms == {"dense": (2, 1)}
    assert found.a.best == {"speedup": 2.0, "nll_increase": 0.0}


def test_where_batches_differ_ratios_are_taken_over_the_baseline_by_the_sequence() -> None:
    # 8 s for 4 sequences against 6 s for 2: B's baseline is the slower one, though its step is shorter.
    a, b = (
        run(name, [(1.0, 0.0), (2.0, 0.1)], latency, batch="max")
        for name, latency in (("a", 8.0), ("b", 6.0))
    )
    a.info["baseline"]["batch"], b.info["baseline"]["batch"] = 4.0, 2.0
    assert compare(a, b).rebased == pytest.approx({"speedup": (8 / 4) / (6 / 2)})
    one = run("one", [(1.0, 0.0), (2.0, 0.1)], 2.0)  # a record of an older version, which had one sequence
    assert compare(one, b).rebased == pytest.approx({"speedup": 2 / (6 / 2)})


def test_whole_steps_are_taken_over_one_baseline_too() -> None:
    goals = {"speedup_end_to_end": True, "nll_increase": False}
    a, b = (run(name, [(1.0, 0.0), (2.0, 0.1)], latency, goals) for name, latency in (("a", 3.0), ("b", 1.0)))
    for one in (a, b):
        one.front = one.front.rename(columns={"speedup": "speedup_end_to_end"})
    found = compare(a, b)
    assert found.rebased == pytest.approx({"speedup_end_to_end": (3 + 1) / (1 + 1)})
    assert found.b.best["speedup_end_to_end"] == pytest.approx(4.0)
    b.info["baseline"] |= {
        "latency_s": 9.0,
        "attention_s": 7.0,
    }  # the price of a whole model says attention's apart
    assert compare(a, b).rebased == pytest.approx({"speedup_end_to_end": (3 + 1) / (7 + 1)})


def test_a_run_against_itself_has_no_difference() -> None:
    a = run("a", [(1.0, 0.0), (2.0, 0.1)])
    found = compare(a, a)
    assert found.change == 0
    assert found.joint == found.a.hypervolume
    assert found.a.equalled.all()
    assert not found.a.dominated.any()
    assert not found.differences
    assert not found.notes


def test_the_reference_of_ratios_is_never_below_zero() -> None:
    found = compare(run("a", [(0.1, 0.0), (9.0, 0.1)]), run("b", [(0.1, 0.0)]))
    assert found.reference["speedup"] == 0.0


def test_ratios_over_another_baseline_are_taken_over_the_first() -> None:
    a = run("a", [(1.0, 0.0), (2.0, 0.1)])
    # Twice as slow a baseline flatters: 4x over it is 2x over a's.
    b = run("b", [(2.0, 0.0), (4.0, 0.1)], latency=2.0)
    found = compare(a, b)
    assert found.rebased == {"speedup": 0.5}
    assert found.b.points["speedup"].tolist() == [1.0, 2.0]
    assert found.change == 0
    assert "baselines differ" in found.notes[0]
    assert b.front["speedup"].tolist() == [2.0, 4.0], "the run itself is left alone"


def test_ratios_over_nothing_do_not_compare() -> None:
    """A baseline that keeps all of its operands on chip moves no byte."""
    goals = {"dram_reduction": True, "nll_increase": False}
    a, b = (run(n, [(1.0, 0.0), (2.0, 0.1)], objectives=goals) for n in "ab")
    for side in (a, b):
        side.front["dram_reduction"] = side.front["speedup"]
    b.info["baseline"]["dram_bytes"] = 0.0
    for pair in ((a, b), (b, a)):
        with pytest.raises(BadInput, match="b: its baseline has dram_bytes 0, and that of a has not"):
            compare(*pair)
    a.info["baseline"]["dram_bytes"] = 0.0
    assert compare(a, b).rebased == {}


def test_points_that_only_a_dropped_objective_kept_are_left_out() -> None:
    three = {**UP, "energy_saving": True}
    a = run("a", [(1.0, 0.0), (0.9, 0.05), (2.0, 0.1)], objectives=three)
    found = compare(a, run("b", [(1.0, 0.0)]))
    assert found.a.points["point"].tolist() == ["a0", "a2"]
    assert "energy_saving" in found.notes[0]


def test_runs_of_different_work_are_compared_with_a_warning() -> None:
    found = compare(run("a", [(1.0, 0.0)]), run("b", [(1.0, 0.0)], context=512))
    assert found.differences == {"workload.context": (1024, 512)}
    assert any("workloads differ" in note for note in found.notes)


def test_one_shared_objective_is_not_enough() -> None:
    other = run("b", [(1.0, 0.0)], objectives={"energy_saving": True, "nll_increase": False})
    with pytest.raises(BadInput, match="b: shares 1 objectives with a"):
        compare(run("a", [(1.0, 0.0)]), other)


def test_whole_algorithms_and_profiles_differ_in_one_line_each() -> None:
    a, b = run("a", [(1.0, 0.0)]), run("b", [(1.0, 0.0)], profile_sha256="1" * 64)
    table = b.space.plain()
    table["algorithms"]["quest"] = {"budget": [1, 2], "page": [4]}
    b.space.plain = lambda: table
    assert differences(a.space, b.space) == {
        "algorithms.quest": (None, "swept"),
        "workload.profile": ("p (00000000)", "p (11111111)"),
    }


costs = arrays(np.float64, st.tuples(st.integers(1, 8), st.just(2)), elements=st.integers(-3, 3).map(float))


@given(costs, costs)
def test_dominance_is_its_definition(mine: np.ndarray, theirs: np.ndarray) -> None:  # type: ignore[type-arg]
    beaten, equal = dominance(mine, theirs)
    for i, row in enumerate(mine):
        assert beaten[i] == any((o <= row).all() and (o < row).any() for o in theirs)
        assert equal[i] == any((o == row).all() for o in theirs)
