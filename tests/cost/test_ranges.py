"""Price ranges: what a group of constants shifts, and what that does to an order."""

from __future__ import annotations

import numpy as np
import pytest
from systems_by_hand import SHAPE, SYSTEMS, N, table

from dse.cost.price import price
from dse.cost.ranges import BEHIND, RANGED, price_range, prices_behind, scenario_prices, scenarios, standing
from dse.cost.statistics import statistics
from dse.cost.workload import LARGEST, Workload
from dse.hardware.components import COMPONENTS
from dse.hardware.presets import load_preset
from dse.space.names import PRICED

ALL = statistics(
    [s.form for s in SYSTEMS.values()], np.stack([table(s.counts, 0.5) for s in SYSTEMS.values()]), SHAPE, N
)
NAMES = list(SYSTEMS)


def test_every_range_holds_its_value() -> None:
    for row in COMPONENTS.values():
        assert 0 <= row.low <= row.value <= row.high, row.name


def test_groups_err_together() -> None:
    found = scenarios()
    for scenario in found:
        for name, value in scenario.constants.items():
            row = COMPONENTS[name]
            assert row.group == scenario.group
            assert value == getattr(row, scenario.end)
    named = {name for s in found for name in s.constants}
    assert named == {row.name for row in COMPONENTS.values() if row.low != row.high}


def test_ranges_hold_the_price_and_are_wide_where_constants_are() -> None:
    design = load_preset("topick-gqa") | {"lanes": 64, "heads_in_flight": 8}
    base = price(ALL, design, Workload(), RANGED)
    found = price_range(ALL, design, Workload())
    for name in RANGED:
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        assert low.shape == high.shape == (ALL.settings,)
        assert (low > 0).all()
        assert (low <= base[name]).all()
        assert (base[name] <= high).all()
    # Memory-bound: the closed form of DRAM times is off by up to 13 %.
    dense = NAMES.index("dense")
    assert found["latency_s_high"][dense] / base["latency_s"][dense] == pytest.approx(1.13, abs=0.01)


def test_no_scenario_beats_the_floor() -> None:
    for scenario in scenarios():
        found = price(ALL, load_preset("topick"), Workload(), ("latency_s", "floor_s"), scenario.constants)
        assert (found["latency_s"] >= found["floor_s"] * (1 - 1e-12)).all(), scenario


def test_a_range_by_pen() -> None:
    """With all other constants known, energy's range is what the arithmetic group alone shifts."""
    known = {n: r.value for n, r in COMPONENTS.items() if r.group != "arithmetic"}
    design = load_preset("topick")
    found = price_range(ALL, design, Workload(), known, ("energy_j",))
    ends = [
        price(ALL, design, Workload(), ("energy_j",), {**known, **{
            n: getattr(r, end) for n, r in COMPONENTS.items() if r.group == "arithmetic"}})["energy_j"]
        for end in ("low", "high")
    ]  # fmt: skip
    assert found["energy_j_low"] == pytest.approx(ends[0])
    assert found["energy_j_high"] == pytest.approx(ends[1])


def test_nothing_moves_where_everything_is_known() -> None:
    known = {name: row.value for name, row in COMPONENTS.items()}
    found = price_range(ALL, load_preset("topick"), Workload(), known)
    base = price(ALL, load_preset("topick"), Workload(), RANGED)
    for name in RANGED:
        assert np.array_equal(found[f"{name}_low"], np.broadcast_to(base[name], ALL.settings))
        assert np.array_equal(found[f"{name}_high"], np.broadcast_to(base[name], ALL.settings))


def test_rows_may_have_designs_of_their_own() -> None:
    some = ALL.take([0, 2])
    design = load_preset("topick")
    rows = {**design, "dram": np.asarray(["hbm2", "lpddr5"]), "lanes": np.asarray([16, 64])}
    found = price_range(some, rows, Workload(scope="model"))
    for i, (kind, lanes) in enumerate((("hbm2", 16), ("lpddr5", 64))):
        alone = price_range(some.take([i]), {**design, "dram": kind, "lanes": lanes}, Workload(scope="model"))
        for name, value in alone.items():
            assert found[name][i] == pytest.approx(value[0], rel=1e-12), name


def test_an_order_survives_where_both_move_alike() -> None:
    """Two points with the same bottleneck keep their order; a cheaper exponent decides one that rests on it."""
    design = load_preset("topick")
    objectives = {"energy_j": False, "nll_increase": False}
    assert prices_behind(objectives) == ("energy_j",)
    rows = ALL.take([NAMES.index("dense"), NAMES.index("dense-6-bit")])
    base, shifted = scenario_prices(rows, design, Workload(), None, ("energy_j",))
    loss = np.asarray([0.0, 0.01])
    values = {"energy_j": base["energy_j"], "nll_increase": loss}
    assert all(standing(i, objectives, values, base, shifted).survives for i in (0, 1))
    # Equal loss: the wider point is dominated wherever it costs more, which is everywhere.
    worse = standing(0, objectives, {**values, "nll_increase": np.zeros(2)}, base, shifted)
    assert not worse.survives
    assert len(worse.lost) == worse.scenarios == len(shifted)
    assert set(worse.lost.values()) == {(1,)}
    # A point that wins by a hair loses where the constants it rests on are dearer.
    pair = ALL.take([NAMES.index("token-picker"), NAMES.index("top-theta")])
    base, shifted = scenario_prices(pair, design, Workload(), None, ("energy_j",))
    even = {"energy_j": np.asarray([1.0, 1.001]), "nll_increase": np.zeros(2)}
    close = standing(0, objectives, even, base, shifted)
    assert not close.survives
    assert 0 < len(close.lost) < close.scenarios


def test_maximised_objectives_turn_round() -> None:
    rows = ALL.take([0, 1])
    objectives = {"speedup": True, "nll_increase": False}
    base, shifted = scenario_prices(rows, load_preset("topick"), Workload(), None, prices_behind(objectives))
    values = {"speedup": 1 / base["latency_s"], "nll_increase": np.asarray([0.0, 0.01])}
    assert standing(0, objectives, values, base, shifted).survives
    assert standing(1, objectives, values, base, shifted).survives
    lost = standing(0, objectives, {**values, "nll_increase": np.zeros(2)}, base, shifted)
    assert not lost.survives


def test_every_price_that_a_scenario_moves_moves_the_order() -> None:
    rows = ALL.take([NAMES.index("token-picker")])
    for workload in (Workload(), Workload(batch=LARGEST, scope="model")):
        base, shifted = scenario_prices(rows, load_preset("topick"), workload, None, PRICED)
        moved = {n for n in PRICED if any(abs(found[n] / base[n] - 1) > 1e-12 for found in shifted.values())}
        assert {"latency_s", "attention_s", "rest_energy_j"} <= moved <= {*BEHIND}
        for name in moved:
            (behind,) = prices_behind({name: False})
            for found in shifted.values():  # as far as the price itself moves, with it or against it
                factor = (found[behind] / base[behind]) ** BEHIND[name][1]
                assert factor == pytest.approx(found[name] / base[name], rel=1e-9), name
