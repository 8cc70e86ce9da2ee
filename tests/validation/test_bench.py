"""Published workloads as statistics: heads that are alike are one class, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dse.cost.price import price
from dse.cost.statistics import statistics
from dse.cost.workload import Workload
from dse.errors import DseError
from dse.hardware.presets import load_preset
from dse.profiles.schema import FETCH_COUNTERS, Form, counter_columns
from dse.validation.bench import Bench, Work, dense_counts, scattered, shape

FORM = Form((12,), 8, 12, v_after="row")


def test_alike_heads_in_one_class_cost_what_all_heads_cost() -> None:
    import numpy as np

    few, many = (dense_counts(n) for n in (100.0, 300.0))
    work = Work(FORM, 300.0, shape(2, 3), [few, many, many, few, many, many])
    assert work.statistics().classes == 2
    columns, table = counter_columns(), np.zeros((1, 2, 3, len(counter_columns())))
    for i, counts in enumerate(work.each()):
        for name, value in counts.items():
            scopes = ("group.", "head.") if name in FETCH_COUNTERS else ("",)
            for scope in scopes:
                table[0, i // 3, i % 3, columns.index(scope + name)] = value
    every = statistics([FORM], table, work.shape, work.n, classes=0)
    design = load_preset("spatten")
    one, other = (price(s, design, Workload()) for s in (work.statistics(), every))
    for name in one:
        assert float(np.ravel(one[name])[0]) == pytest.approx(float(np.ravel(other[name])[0]), rel=1e-12), (
            name
        )


def test_work_refuses_what_it_does_not_know() -> None:
    work = Work(FORM, 10.0, shape(1, 2), [dense_counts(10.0)])
    with pytest.raises(DseError, match="1 heads counted; must be 2"):
        work.statistics()
    with pytest.raises(DseError, match="v_row: no such counter"):
        replace(work, counts={"v_row": 1.0}).statistics()


def test_scattered_runs() -> None:
    assert scattered(10, 10) == pytest.approx(1)
    assert scattered(0, 10) == 0
    assert scattered(5, 100) == pytest.approx(5 * 0.95 + 0.05)


def test_a_bench_is_its_preset_with_stated_changes() -> None:
    bench = Bench("spatten", {"lanes": 4})
    assert bench.design == load_preset("spatten") | {"lanes": 4}
