"""Every system of the project can be priced, with every counter charged, on every preset; price equals its twin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from systems_by_hand import SHAPE, SYSTEMS, N, System, prompt, table

from dse.cost.explain import explain
from dse.cost.price import METRICS, price
from dse.cost.reference import reference
from dse.cost.reference_budget import reference_budget
from dse.cost.statistics import COUNTERS, Statistics, statistics
from dse.cost.workload import LARGEST, Workload
from dse.hardware.presets import load_constants, load_preset, preset_names

by_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
by_preset = pytest.mark.parametrize("preset", preset_names())


def stats_of(system: System, spread: float = 0.0, grouped: bool = True, classes: int = 0) -> Statistics:
    return statistics([system.form], table(system.counts, spread)[None], SHAPE, N, grouped, classes)


@by_preset
@by_system
def test_every_system_has_a_finite_positive_price(system: System, preset: str) -> None:
    found = price(stats_of(system), load_preset(preset), Workload())
    assert set(found) == set(METRICS)
    for name, value in found.items():
        assert np.isfinite(value).all(), name
        assert (value > 0).all() or name == "bound", name
    assert (found["latency_s"] >= found["floor_s"]).all()


@by_system
def test_every_counter_that_is_not_zero_changes_the_price(system: System) -> None:
    """No counted action is free: changing any counter by a tenth changes energy, or at least some phase's time."""
    design = load_preset("topick")
    base = explain(stats_of(system), design, Workload())
    for name in COUNTERS:
        if not system.counts.get(name):
            continue
        if "_runs" in name and system.counts[name.replace("_runs", "_rows")] > 0.9 * N:
            continue  # every page is opened, however the few gaps lie
        # A tenth more metadata may stay within one atom, and short runs of whole atoms never meet an open page
        # again (with 64 bank groups in turn, the next atom of a page is 2 KiB on).
        factor = 10 if name == "meta_write_bytes" else 0.02 if "_runs" in name else 1.1
        stats = stats_of(System(system.form, {**system.counts, name: system.counts[name] * factor}))
        changed = explain(stats, design, Workload())
        parts = [{**run["energy_j"], **run["series_s"], **run["beside_s"]} for run in (base, changed)]
        moved = [key for key in parts[0] if abs(parts[1][key] - parts[0][key]) > 1e-6 * abs(parts[0][key])]
        assert moved, name


CHANGES: tuple[dict[str, object], ...] = (
    {},
    {
        "layout": "token-major",
        "heads_in_flight": 5,
        "row_bus": "free",
        "dram": "lpddr5",
        "dram_channel_gbps": 25.6,  # faster than the device's own
    },
    {"dram": "ddr4", "dram_channel_gbps": 0, "value_lanes": 3, "key_buffer_kib": 2.0},
    {
        "row_overhead_cycles": 9,
        "softmax": "row",
        "residence": "buffers",
        "memory_gib": 0.01,
        "fetch_ports": 16,
    },
)
WORKLOADS = (
    Workload(batch=3),
    Workload(context=1000, batch=LARGEST, scope="model"),
    Workload("prefill", context=500, batch=2, query_tile=1),
    Workload("prefill", context=500, query_tile=64, scope="model"),
)


@pytest.mark.parametrize("grouped", [True, False], ids=["group", "head"])
@by_preset
@by_system
def test_price_equals_its_scalar_twin(system: System, preset: str, grouped: bool) -> None:
    rows = table(system.counts, 0.8)
    tried, own = list(itertools.product(CHANGES, WORKLOADS)), load_constants(preset)
    for changes, workload in tried if preset == "topick" else tried[::5]:
        design = load_preset(preset) | changes  # type: ignore[operator]
        if workload.phase == "prefill":
            rows = table(prompt(system, 500, workload.query_tile).counts, 0.8)
        stats = statistics([system.form], rows[None], SHAPE, N, grouped, 0)
        found = price(stats, design, workload, overrides=own)
        twin = reference(system.form, rows.tolist(), SHAPE, N, design, workload, grouped, own)
        twin |= reference_budget(system.form, rows.tolist(), SHAPE, N, design, workload, grouped, own)
        for name, value in twin.items():
            if name != "dram_j":
                assert np.ravel(found[name])[0] == pytest.approx(value, rel=1e-12), (name, changes, workload)
        if workload.scope == "attention":
            streams = explain(stats, design, workload, own)["energy_j"]
            dram = sum(v for k, v in streams.items() if k.startswith("dram ") and k != "dram background")
            assert dram == pytest.approx(twin["dram_j"], rel=1e-12)


@by_system
def test_four_classes_are_close_to_all_heads(system: System) -> None:
    design = load_preset("topick")
    rows = table(system.counts, 0.8)[None]
    few, every = (
        price(statistics([system.form], rows, SHAPE, N, classes=k), design, Workload(), ("latency_s",))[
            "latency_s"
        ]
        for k in (4, 0)
    )
    assert few == pytest.approx(every, rel=5e-3)


def test_settings_priced_together_equal_settings_priced_alone() -> None:
    forms, rows = (
        [s.form for s in SYSTEMS.values()],
        np.stack([table(s.counts, 0.5) for s in SYSTEMS.values()]),
    )
    together = price(statistics(forms, rows, SHAPE, N), load_preset("spatten"), Workload())
    for i, system in enumerate(SYSTEMS.values()):
        alone = price(stats_of(system, 0.5, classes=4), load_preset("spatten"), Workload())
        for name in METRICS:
            whole = np.broadcast_to(together[name], (len(forms),))
            assert whole[i] == pytest.approx(np.ravel(alone[name])[0], rel=1e-9), name


@by_preset
@by_system
def test_explained_parts_sum_to_the_price(system: System, preset: str) -> None:
    story = explain(stats_of(system, 0.3, classes=4), load_preset(preset), Workload(batch=2))
    metrics = story["metrics"]
    assert sum(story["energy_j"].values()) == pytest.approx(metrics["energy_j"])
    assert sum(story["area_mm2"].values()) == pytest.approx(metrics["area_mm2"])
    assert sum(story["dram_bytes"].values()) == pytest.approx(metrics["dram_bytes"])
    assert max(story["use"].values()) <= 1 + 1e-9
    assert 0 < story["dram_efficiency"] <= 1
    assert story["fetched_over_useful"] >= 1 - 1e-9
    assert story["alone_s"] >= metrics["latency_s"] * (1 - 1e-12)


@by_system
def test_bytes_are_conserved_between_statistics_and_price(system: System) -> None:
    """Whole planes of atoms: what is fetched covers what was asked for, and dense 12-bit rows waste nothing."""
    design = load_preset("topick")
    found = explain(stats_of(system), design, Workload())["dram_bytes"]
    dim, counts, heads = SHAPE.head_dim, system.counts, SHAPE.layers * SHAPE.kv_heads
    keys = (
        sum(counts.get(f"k_rows_{c}", 0) * b * dim / 8 for c, b in enumerate(system.form.k_chunk_bits))
        * heads
    )
    values = counts["v_rows"] * system.form.v_bits * dim / 8 * heads
    assert found["key"] >= keys * (1 - 1e-12)
    assert found["value"] >= values * (1 - 1e-12)
    if system is SYSTEMS["dense"]:
        assert found["key"] == pytest.approx(keys)
        assert found["value"] == pytest.approx(values)
