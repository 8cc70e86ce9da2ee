"""Breakdowns: sources that really are the sources, limits that multiply to the efficiency, true sensitivities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from systems_by_hand import SHAPE, SYSTEMS, N, System, table

from dse.cost import sources
from dse.cost.explain import LIMITS, explain
from dse.cost.price import price
from dse.cost.sensitivity import CHANGED, alternatives, ladder, sensitivity
from dse.cost.statistics import Statistics, statistics
from dse.cost.workload import Workload
from dse.hardware.components import COMPONENTS
from dse.hardware.parameters import PARAMETERS
from dse.hardware.presets import load_preset

by_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


def stats_of(system: System) -> Statistics:
    return statistics([system.form], table(system.counts, 0.4)[None], SHAPE, N)


@by_system
@pytest.mark.parametrize("scope", ["attention", "model"])
def test_every_component_moves_with_each_of_its_constants_and_with_no_other(
    system: System, scope: str
) -> None:
    design = load_preset("topick") | {"fetch_ports": 16}
    work = Workload(scope=scope)
    base = explain(stats_of(system), design, work)
    named = {
        entry["name"]: entry
        for parts in base["sources"].values()
        for entries in parts.values()
        for entry in entries
        if entry["name"] in COMPONENTS
    }
    for constant in named:
        changed = explain(stats_of(system), design, work, {constant: COMPONENTS[constant].value * 1.25})
        for metric, components in base["sources"].items():
            for component, entries in components.items():
                if component.startswith("leakage ") or (constant, component) in (
                    ("score_bits", "dram refetch"),
                    ("score_bits", "fetcher"),
                ):
                    continue  # follows the area it leaks from; the amount spilled, not its price
                before, after = base[metric][component], changed[metric][component]
                moves = abs(after / before - 1) > 1e-9
                if moves != (constant in {e["name"] for e in entries}) and metric == "energy_j":
                    # Background and leakage are powers: their energy follows the time, which constants may move.
                    assert component in base["power_w"], (constant, component)
                elif metric != "energy_j":
                    assert moves == (constant in {e["name"] for e in entries}), (constant, component)


def test_tables_name_constants_that_exist() -> None:
    for group in (sources.ENERGY, sources.AREA, sources.POWER):
        for component, names in group.items():
            for name in names:
                shown = name.replace("*", "hbm2")
                assert shown in COMPONENTS or shown in PARAMETERS, (component, name)


def test_an_override_is_shown_as_one() -> None:
    story = explain(stats_of(SYSTEMS["dense"]), load_preset("topick"), Workload(), {"hbm2_bit_pj": 4.5})
    entry = story["sources"]["energy_j"]["dram key"][0]
    assert (entry["name"], entry["value"], entry["confidence"]) == ("hbm2_bit_pj", 4.5, "as given")
    assert entry["source"] == "overridden"


@by_system
def test_what_memory_loses_multiplies_to_its_efficiency(system: System) -> None:
    for changes in ({}, {"outstanding_requests": 16}, {"layout": "token-major", "dram": "hbm2-legacy"}):
        design: dict[str, Any] = load_preset("topick") | changes
        found = explain(stats_of(system), design, Workload())["streams"]
        assert found
        for stream in found:
            assert set(stream["limits_ns"]) == set(LIMITS)
            lost = stream["waste"] * stream["limit_factor"] * stream["refresh"]
            assert stream["efficiency"] == pytest.approx(1 / lost)
            # Token-major pieces of one row share atoms, so their own bytes may exceed the atoms they touch first.
            assert 0 < stream["efficiency"] <= 1 + 1e-9
            assert stream["reads_per_activation"] >= 1 - 1e-9


def test_a_narrow_window_is_named_as_the_limit() -> None:
    design: dict[str, Any] = load_preset("topick") | {"outstanding_requests": 4}
    found = explain(stats_of(SYSTEMS["dense"]), design, Workload())["streams"]
    assert {stream["limit"] for stream in found} == {"window"}
    wide: dict[str, Any] = load_preset("topick") | {"outstanding_requests": 65536, "key_buffer_kib": 4096.0,
                                                    "value_buffer_kib": 4096.0}  # fmt: skip
    found = explain(stats_of(SYSTEMS["dense"]), wide, Workload())["streams"]
    assert {stream["limit"] for stream in found} == {"columns"}


@by_system
def test_sensitivities_are_prices_of_changed_designs(system: System) -> None:
    design = load_preset("topick")
    stats, work = stats_of(system), Workload(batch=2)
    changes = sensitivity(stats, design, work)
    assert {c.parameter for c in changes} >= {"lanes", "dram", "dram_channels", "layout", "clock_ghz"}
    base = price(stats, design, work, CHANGED)
    for change in changes:
        found = price(stats, {**design, change.parameter: change.instead}, work, CHANGED)
        for name, value in zip(CHANGED, (change.latency, change.energy, change.area), strict=True):
            expected = float(np.ravel(found[name])[0] / np.ravel(base[name])[0]) - 1
            assert value == pytest.approx(expected, abs=1e-12), (change.parameter, change.instead)
    assert [abs(c.latency) for c in changes] == sorted((abs(c.latency) for c in changes), reverse=True)


def test_alternatives_stay_in_range() -> None:
    assert alternatives(PARAMETERS["lanes"], 4) == [8]
    assert alternatives(PARAMETERS["lanes"], 4096) == [2048]
    assert alternatives(PARAMETERS["dram_channels"], 64) == [32]
    assert alternatives(PARAMETERS["multiplier_bits"], 12) == [6]
    assert alternatives(PARAMETERS["multiplier_bits"], 9) == []
    assert alternatives(PARAMETERS["value_lanes"], 0) == []
    assert alternatives(PARAMETERS["layout"], "planes") == ["token-major"]


@by_system
def test_the_ladder_starts_at_the_bound(system: System) -> None:
    for scope in ("attention", "model"):
        design, work = load_preset("topick-gqa"), Workload(scope=scope)
        rungs = ladder(stats_of(system), design, work)
        story = explain(stats_of(system), design, work)
        assert rungs[0].name == story["metrics"]["bound"]
        assert rungs[0].seconds <= story["metrics"]["latency_s"] * (1 + 1e-9)
        assert [r.seconds for r in rungs] == sorted((r.seconds for r in rungs), reverse=True)


def test_model_scope_parts_sum_to_the_price() -> None:
    story = explain(stats_of(SYSTEMS["adore"]), load_preset("topick"), Workload(scope="model", batch=3))
    metrics = story["metrics"]
    assert sum(story["energy_j"].values()) == pytest.approx(metrics["energy_j"])
    assert sum(story["dram_bytes"].values()) == pytest.approx(metrics["dram_bytes"])
    assert max(story["rest_s"].values()) == pytest.approx(metrics["rest_s"])
