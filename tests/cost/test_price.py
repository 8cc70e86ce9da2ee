"""What always holds of a price, worked examples, and that every accepted parameter matters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from systems_by_hand import GROUP, SHAPE, SYSTEMS, N, System, dense, kept, table

from dse.cost.budget import multiply_j
from dse.cost.explain import explain
from dse.cost.ledger import Ledger
from dse.cost.machine import machine
from dse.cost.price import METRICS, price
from dse.cost.statistics import Statistics, statistics
from dse.cost.work import PASS_OVERHEAD, quick_select
from dse.cost.workload import Workload
from dse.errors import BadInput, DseError
from dse.hardware.components import COMPONENTS, COUNTED
from dse.hardware.dram import DEVICE_COLUMNS
from dse.hardware.parameters import DRAM_KINDS, PARAMETERS
from dse.hardware.presets import load_preset, preset_names
from dse.profiles.schema import Form, ModelShape, counter_columns

ALL = statistics(
    [s.form for s in SYSTEMS.values()],
    np.stack([table(s.counts, 0.5) for s in SYSTEMS.values()]),
    SHAPE,
    N,
)

NEVER_SLOWER: dict[str, list[float]] = {
    "lanes": [1, 2, 3, 5, 8, 16, 17, 64, 512],
    "multipliers": [1, 7, 16, 32, 63, 64, 65, 128, 200, 512],
    "multiplier_bits": [1, 2, 3, 4, 6, 8, 12, 16],
    "operand_bits": [1, 2, 4, 6, 9, 12, 16],
    "clock_ghz": [0.1, 0.5, 1.0, 3.0],
    "key_buffer_kib": [1, 2, 3, 4, 8, 32, 100, 1000, 65536],
    "value_buffer_kib": [1, 2, 3, 4, 8, 32, 100, 1000, 65536],
    "heads_in_flight": [1, 2, 3, 4, 8, 64],
    "dram_channels": [1, 2, 4, 8, 16, 32, 64],
    "dram_channel_gbps": [1, 4, 12, 25.6, 32, 64, 200],
    "outstanding_requests": [1, 2, 8, 31, 100, 512, 4096, 65536],
    "scoreboard_entries": [1, 2, 8, 32, 1000],
    "exponent_units": [1, 2, 3, 16, 100],
    "select_comparators": [1, 2, 3, 16, 100],
    "accumulators": [1, 2, 3, 16, 100],
    "search_engines": [1, 2, 3, 16],
    "slow_gbps": [0.1, 1, 30, 1000],
}


def draw_design(data: st.DataObject) -> dict[str, Any]:
    design: dict[str, Any] = dict(load_preset(data.draw(st.sampled_from(preset_names()))))
    for name, values in NEVER_SLOWER.items():
        if data.draw(st.booleans(), label=f"change {name}"):
            design[name] = data.draw(st.sampled_from(values), label=name)
    design["dram"] = data.draw(st.sampled_from(DRAM_KINDS))
    design["layout"] = data.draw(st.sampled_from(PARAMETERS["layout"].choices))
    design["row_bus"] = data.draw(st.sampled_from(PARAMETERS["row_bus"].choices))
    return design


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_more_of_anything_is_never_slower(data: st.DataObject) -> None:
    design = draw_design(data)
    name = data.draw(st.sampled_from(sorted(NEVER_SLOWER)))
    values = np.asarray(NEVER_SLOWER[name])[None, :]
    found = price(ALL, {**design, name: values}, Workload(), ("latency_s", "floor_s"))
    latency = np.broadcast_to(found["latency_s"], (ALL.settings, values.size))
    assert (np.diff(latency, axis=1) <= latency[:, 1:] * 1e-12).all()
    assert (latency >= found["floor_s"] * (1 - 1e-12)).all()


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_second_array_is_never_slower(data: st.DataObject) -> None:
    design = draw_design(data)
    values = np.asarray([[0, design["lanes"], 2 * design["lanes"]]])
    latency = price(ALL, {**design, "value_lanes": values}, Workload(), ("latency_s",))["latency_s"]
    assert (np.diff(latency, axis=1) <= latency[:, 1:] * 1e-12).all()


@given(
    keeps=st.lists(st.floats(0.001, 1.0), min_size=2, max_size=6),
    chunk=st.sampled_from([1, 2, 4, 6, 12]),
    kind=st.sampled_from(DRAM_KINDS),
    layout=st.sampled_from(["planes", "token-major"]),
)
@settings(max_examples=60, deadline=None)
def test_a_smaller_kept_set_never_fetches_more(
    keeps: list[float], chunk: int, kind: str, layout: str
) -> None:
    keeps = sorted(keeps)
    form = Form((chunk, 12 - chunk) if chunk < 12 else (12,), 12, 12, v_after="token", k_scale_bits=16)
    rows = []
    for p in keeps:
        tokens, runs = kept(p)
        later = {"k_rows_1": tokens, "k_runs_1": runs, "qk_rows_1": tokens} if chunk < 12 else {}
        rows.append(table({**dense().counts, **later, "v_rows": tokens, "v_runs": runs}))
    stats = statistics([form] * len(keeps), np.stack(rows), SHAPE, N)
    design = load_preset("topick") | {"dram": kind, "layout": layout}
    moved = price(stats, design, Workload(), ("dram_bytes",))["dram_bytes"]
    assert (np.diff(moved) >= -1e-9 * moved[1:]).all()


def test_density_one_costs_dense_plus_its_overhead() -> None:
    """A sparse form that keeps everything fetches what dense fetches; its surcharge is the work it states."""
    whole = dict(dense().counts, k_rows_1=N, k_runs_1=1, k_rows_2=N, k_runs_2=1, qk_rows_1=GROUP * N,
                 qk_rows_2=GROUP * N)  # fmt: skip
    compared = {**whole, "compares": GROUP * 3 * N, "margins": GROUP * 3}
    form = Form((4, 4, 4), 12, 12, v_after="token")
    design = load_preset("topick") | {"heads_in_flight": 8}
    plain, chunked, sparse = (
        explain(statistics([f], table(c)[None], SHAPE, N), design, Workload())
        for f, c in ((Form((12,), 12, 12), dense().counts), (form, whole), (form, compared))
    )
    assert chunked["dram_bytes"]["value"] == pytest.approx(plain["dram_bytes"]["value"])
    assert chunked["dram_bytes"]["key"] == pytest.approx(plain["dram_bytes"]["key"])
    assert chunked["busy_s"]["multipliers"] == pytest.approx(plain["busy_s"]["multipliers"])
    # Latency: the last answers of two further chunks and of V, once per layer.
    memory = machine(design).answer_s
    waited = SHAPE.layers * 3 * float(memory) * (1 + 1e-9)
    assert chunked["metrics"]["latency_s"] == pytest.approx(plain["metrics"]["latency_s"], abs=waited)
    extra = {
        k: sparse["energy_j"][k] - chunked["energy_j"][k] for k in sparse["energy_j"] if "leakage" not in k
    }
    grown = {k for k, v in extra.items() if v > 1e-15}
    assert grown >= {"compares", "margins"}
    assert grown <= {"compares", "margins", "dram background", "memory phy"}


def test_token_picker_identity() -> None:
    """K 1.44x and V 12.1x fewer bytes make 2.57x fewer in all (Park et al., DAC 2024: 2.57x)."""
    rows = {**dense().counts, "v_rows": N / 12.1, "v_runs": 76.0}
    f1, f2 = 0.96, 3 / 1.4376 - 1.96  # chunks per token: 3 / 1.4376
    for c, f in ((1, f1), (2, f2)):
        tokens, runs = kept(f)
        rows |= {f"k_rows_{c}": tokens, f"k_runs_{c}": runs, f"qk_rows_{c}": GROUP * tokens}
    design = load_preset("topick")
    sparse = explain(statistics([Form((4, 4, 4), 12, 12, v_after="token")], table(rows)[None], SHAPE, N), design,
                     Workload())["dram_bytes"]  # fmt: skip
    plain = explain(
        statistics([Form((12,), 12, 12)], table(dense().counts)[None], SHAPE, N), design, Workload()
    )
    plain_bytes = plain["dram_bytes"]
    assert plain_bytes["key"] / sparse["key"] == pytest.approx(1.44, abs=0.005)
    assert plain_bytes["value"] / sparse["value"] == pytest.approx(12.1, rel=1e-6)
    both = (plain_bytes["key"] + plain_bytes["value"]) / (sparse["key"] + sparse["value"])
    assert both == pytest.approx(2.57, abs=0.01)


def test_dense_head_by_pen() -> None:
    """One head, d = 64, 1,024 tokens of 8 bit, 16 bytes per nanosecond: 2 x 65,536 bytes take 8,192 ns.

    (With scores written out between the two products, other tools charge 2 x 66,624 bytes, 4,164 ns each.)
    """
    shape = ModelShape(1, 1, 1, 64, 0, 0)
    columns = counter_columns()
    rows = np.zeros((1, 1, 1, len(columns)))
    for name, value in (("group.k_rows_0", 1024), ("group.k_runs_0", 1), ("group.v_rows", 1024),
                        ("group.v_runs", 1), ("qk_rows_0", 1024), ("pv_rows", 1024)):  # fmt: skip
        rows[..., columns.index(name)] = value
    design: Mapping[str, Any] = load_preset("dense-array") | {"dram_channels": 1, "dram_channel_gbps": 16.0}
    found = price(statistics([Form((8,), 8, 8)], rows, shape, 1024), design, Workload())
    assert found["floor_s"] == pytest.approx(8192e-9)
    assert found["dram_bytes"] == pytest.approx(131072)
    # Refresh costs 9 %, the start 40 + 14 + 14 + 4 + 4 ns; the multipliers (256 ns) hide.
    refresh = 1 / (1 - 350 / 3900)
    assert found["latency_s"] == pytest.approx(8192e-9 * refresh + 76e-9, rel=1e-3)


def test_multiplier_passes_by_pen() -> None:
    """topick: a 64-element row is one lane-cycle per 4 bit; 12-bit V takes three."""
    system = System(
        Form((4, 4, 4), 12, 12), {**dense().counts, "k_rows_1": N, "k_runs_1": 1, "qk_rows_1": GROUP * N}
    )
    busy = explain(
        statistics([system.form], table(system.counts)[None], SHAPE, N), load_preset("topick"), Workload()
    )
    heads = SHAPE.layers * SHAPE.kv_heads
    cycles = GROUP * N * (1 + 1 + 3) / 16  # K chunks 0 and 1, V in three passes, 16 lanes
    assert busy["busy_s"]["multipliers"] == pytest.approx(heads * cycles * 2e-9)


MONTE_CARLO = [
    # n, k, passes, cycles at 1, 4, 8, 16 and 32 comparators: 3,000 runs of the RTL's cycle model
    (128, 32, 8.2, (400, 121, 75, 52, 41)),
    (307, 92, 10.0, (989, 274, 155, 96, 66)),
    (614, 184, 11.5, (1993, 529, 284, 163, 102)),
    (921, 184, 11.9, (2760, 722, 382, 212, 127)),
    (1024, 307, 12.5, (3295, 856, 450, 247, 146)),
    (1024, 512, 12.5, (3435, 891, 468, 256, 150)),
    (4096, 409, 14.4, (10791, 2735, 1393, 722, 386)),
]


@pytest.mark.parametrize(("n", "k", "passes", "cycles"), MONTE_CARLO)
def test_quick_select_against_simulation(n: int, k: int, passes: float, cycles: tuple[int, ...]) -> None:
    elements, rounds = quick_select(np.asarray(float(n)), np.asarray(float(k)))
    assert rounds == pytest.approx(passes, rel=0.10)
    for comparators, simulated in zip((1, 4, 8, 16, 32), cycles, strict=True):
        assert elements / comparators + PASS_OVERHEAD * rounds == pytest.approx(simulated, rel=0.08)


OTHER_VALUES: dict[str, list[Any]] = {
    "memory_gib": [1.0], "row_overhead_cycles": [9], "softmax": ["row"], "residence": ["buffers"],
    "node_rule": ["stillmaker"], "node_nm": [22.0, 7.0], "overhead_pj_per_op": [9.0], "dram": ["ddr4", "lpddr5"],
    "layout": ["token-major"], "row_bus": ["free"], "value_lanes": [4], "fetch_ports": [32],
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_changes_a_result(name: str) -> None:
    design = load_preset("topick") | {"node_nm": 45.0 if name != "node_rule" else 28.0}
    base = price(ALL, design, Workload())
    for value in [*OTHER_VALUES.get(name, []), *NEVER_SLOWER.get(name, [])]:
        changed = price(ALL, {**design, name: value}, Workload())
        if any(not np.array_equal(np.broadcast_to(base[m], (ALL.settings,)),
                                  np.broadcast_to(changed[m], (ALL.settings,))) for m in METRICS):  # fmt: skip
            return
    pytest.fail(f"{name} changes nothing")


def test_axes_broadcast_like_points_priced_alone() -> None:
    design: dict[str, Any] = dict(load_preset("topick"))
    axes: dict[str, list[Any]] = {
        "lanes": [2, 16], "dram": ["hbm2", "ddr4"], "dram_channels": [1, 8], "heads_in_flight": [1, 4],
        "layout": ["planes", "token-major"], "node_nm": [65, 28], "value_lanes": [0, 8],
    }  # fmt: skip
    grid = dict(design)
    for i, (name, values) in enumerate(axes.items()):
        grid[name] = np.asarray(values).reshape((1, *(1,) * i, -1, *(1,) * (len(axes) - 1 - i)))
    found = price(ALL, grid, Workload(batch=2))
    shape = (ALL.settings, *(len(v) for v in axes.values()))
    whole = {name: np.broadcast_to(value, shape) for name, value in found.items()}
    for at in itertools.islice(itertools.product(*(range(len(v)) for v in axes.values())), 0, None, 7):
        chosen = {name: axes[name][i] for name, i in zip(axes, at, strict=True)}
        alone = price(ALL, {**design, **chosen}, Workload(batch=2))
        for name in METRICS:
            assert whole[name][(slice(None), *at)] == pytest.approx(
                np.broadcast_to(alone[name], (ALL.settings,)), rel=1e-12
            ), name


def test_batch_scales_attention_and_shares_weights() -> None:
    design = load_preset("topick")
    one, many = price(ALL, design, Workload(batch=1)), price(ALL, design, Workload(batch=16))
    assert many["dram_bytes"] == pytest.approx(one["dram_bytes"] * 16)
    assert (many["latency_s"] <= one["latency_s"] * 16 * (1 + 1e-12)).all()
    assert (many["rest_s"] < one["rest_s"] * 16).all()


def test_single_scope_fetches_more_than_grouped() -> None:
    rows = np.stack([table(s.counts) for s in SYSTEMS.values()])
    forms = [s.form for s in SYSTEMS.values()]
    shared, apart = (
        price(statistics(forms, rows, SHAPE, N, grouped), load_preset("topick"), Workload())
        for grouped in (True, False)
    )
    assert (apart["dram_bytes"] > shared["dram_bytes"]).all()


def test_unused_engines_cost_no_area() -> None:
    names = list(SYSTEMS)
    design = load_preset("topick")
    wide = price(ALL, {**design, "select_comparators": 512, "search_engines": 64}, Workload(), ("area_mm2",))
    slim = price(ALL, {**design, "select_comparators": 1, "search_engines": 1}, Workload(), ("area_mm2",))
    same = np.isclose(wide["area_mm2"], slim["area_mm2"])
    assert {names[i] for i in np.flatnonzero(~same)} == {"spatten", "adore", "a3", "pages"}


def test_a_crossbar_by_pen() -> None:
    """Area and energy of what moves data between channels and ports, at the node its constants are given for."""
    design = load_preset("topick") | {"node_nm": 40.0, "clock_ghz": 1.0, "dram_channels": 4}
    ports, entries, bits = 8, 64, 64 + 128
    without, found = (explain(ALL.take([0]), {**design, "fetch_ports": n}, Workload()) for n in (0, ports))
    assert without["area_mm2"]["fetcher"] == without["energy_j"]["fetcher"] == 0
    by_hand = ports * bits * (entries * 5.98 + 4 * 1.5) * 1e-6
    assert found["area_mm2"]["fetcher"] == pytest.approx(by_hand)
    moved = sum(found["dram_bytes"].values())
    # Eight bits a byte, and eight bytes of address for each 32.
    assert found["energy_j"]["fetcher"] == pytest.approx(moved * (8 + 2) * (0.12 + 0.009) * 1e-12)
    assert found["metrics"]["latency_s"] == without["metrics"]["latency_s"]


def test_resident_operands_are_read_and_not_written() -> None:
    design = load_preset("topick") | {"key_buffer_kib": 4096, "value_buffer_kib": 4096}
    away, here = (
        explain(ALL.take([0]), {**design, "residence": where}, Workload())["energy_j"]
        for where in ("dram", "buffers")
    )
    for name in ("sram key", "sram value"):
        assert 0 < here[name] < away[name]


def test_a_counter_without_a_price_is_an_error() -> None:
    ledger = Ledger(ALL, 1)
    with pytest.raises(DseError, match="has no price"):
        ledger.close()


def test_wrong_input_is_named() -> None:
    design = load_preset("topick")
    with pytest.raises(BadInput, match=r"lane_s.*did you mean 'lanes'"):
        price(ALL, {**design, "lane_s": 3}, Workload())
    with pytest.raises(BadInput, match=r"lanes: missing"):
        price(ALL, {k: v for k, v in design.items() if k != "lanes"}, Workload())
    with pytest.raises(BadInput, match=r"hbm9"):
        price(ALL, {**design, "dram": "hbm9"}, Workload())
    with pytest.raises(BadInput, match=r"latency.*did you mean 'latency_s'"):
        price(ALL, design, Workload(), ("latency",))
    with pytest.raises(BadInput, match=r"phase.*did you mean 'prefill'"):
        Workload(phase="prefil")
    with pytest.raises(BadInput, match=r"scope.*did you mean 'model'"):
        Workload(scope="models")
    with pytest.raises(BadInput, match=r"batch"):
        Workload(batch=-1)
    with pytest.raises(BadInput, match=r"did you mean 'divide_pj'"):
        price(ALL, design, Workload(), overrides={"divid_pj": 1.0})


def test_an_override_reaches_the_price() -> None:
    design = load_preset("topick")
    base, dear = (
        price(ALL, design, Workload(), ("energy_j",), o)["energy_j"] for o in (None, {"exponent_pj": 50.0})
    )
    assert (dear > base).all()


def moves_a_metric(name: str, designs: list[dict[str, Any]]) -> bool:
    """Whether more of a constant (1 where it is 0) changes anything of some setting.

    Half as much more, or twice as much of what is counted; ten times where that does nothing: a limit that does not bind
    is a limit still.
    """
    wanted = [m for m in METRICS if m != "bound"]
    for design, factor in itertools.product(designs, (2.0 if name.endswith(tuple(COUNTED)) else 1.5, 10.0)):
        value = COMPONENTS[name].value * factor or 100.0
        base, more = (price(ALL, design, Workload(), wanted, o) for o in (None, {name: value}))
        for metric in wanted:
            if (np.abs(more[metric] - base[metric]) > 1e-9 * np.abs(base[metric])).any():
                return True
    return False


KIND_OF = {name: kind for kind in DRAM_KINDS for name in COMPONENTS if name.startswith(f"{kind}_")}


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name not in KIND_OF])
def test_every_constant_moves_a_metric(name: str) -> None:
    fast: dict[str, Any] = {**load_preset("topick"), "clock_ghz": 2.0}
    crossed: dict[str, Any] = {**load_preset("topick"), "fetch_ports": 16}
    assert moves_a_metric(name, [dict(load_preset("topick")), fast, crossed])


@pytest.mark.parametrize("kind", DRAM_KINDS)
def test_every_constant_of_a_device_moves_a_metric(kind: str) -> None:
    base: dict[str, Any] = {**load_preset("topick"), "dram": kind, "dram_channel_gbps": 0}
    # One channel and a wide window, so that the data bus and the bank groups can bind.
    tight = {**base, "dram_channels": 1, "outstanding_requests": 65536, "lanes": 512, "key_buffer_kib": 1024}
    left = [n for n, k in KIND_OF.items() if k == kind and not moves_a_metric(n, [base, tight])]
    assert left == []


@pytest.mark.parametrize("kind", DRAM_KINDS)
def test_a_device_overridden_with_another_is_the_other(kind: str) -> None:
    other = "hbm3" if kind != "hbm3" else "ddr4"
    overrides = {f"{other}_{c}": COMPONENTS[f"{kind}_{c}"].value for c in DEVICE_COLUMNS}
    design = {**load_preset("topick"), "dram_channel_gbps": 0}
    own = price(ALL, {**design, "dram": kind}, Workload())
    copied = price(ALL, {**design, "dram": other}, Workload(), overrides=overrides)
    for name in METRICS:
        assert np.array_equal(own[name], copied[name]), name


@pytest.mark.parametrize("preset", preset_names())
def test_presets_run_within_the_nominal_clock(preset: str) -> None:
    slow, own = (
        price(ALL, load_preset(preset) | changes, Workload(), ("area_mm2",))["area_mm2"]
        for changes in ({"clock_ghz": 0.01}, {})
    )
    assert own == pytest.approx(slow)


def test_nothing_faster_is_free() -> None:
    """Everything that may shorten a step costs area, and beyond the nominal clock energy too."""
    design = load_preset("topick")
    names = list(SYSTEMS)
    for name, values in NEVER_SLOWER.items():
        axis = np.asarray([v for v in values if v >= float(design[name])])[None, :]
        if name == "clock_ghz":
            axis = np.asarray([[0.7, 1.0, 3.0]])  # 0.615 GHz is nominal at 65 nm
        if name == "dram_channel_gbps":
            axis = np.asarray([[32.0, 64.0, 200.0]])
        area = price(ALL, {**design, name: axis}, Workload(), ("area_mm2",))["area_mm2"]
        users = {"select_comparators": "spatten", "accumulators": "spatten", "search_engines": "a3",
                 "scoreboard_entries": "token-picker", "slow_gbps": "adore"}  # fmt: skip
        row = np.broadcast_to(area, (ALL.settings, axis.size))[names.index(users.get(name, "dense"))]
        assert (np.diff(row) > 0).all(), name


def test_overhead_follows_widths_and_node_by_pen() -> None:
    """1.62 pJ of 8 x 8 bits at 45 nm: 1.5 pJ for 12 x 4 bits at 65 nm, three times that for 12 x 12."""
    dear = load_preset("topick")
    for changes, picojoules in (
        ({}, 1.62 * 48 / 64 * (65 / 45) ** 0.57),
        ({"multiplier_bits": 12}, 1.62 * 144 / 64 * (65 / 45) ** 0.57),
        ({"node_nm": 28.0}, 1.62 * 48 / 64 * (28 / 45) ** 0.57),
    ):
        each, bare = (
            float(multiply_j(machine({**dear, **changes, **o}))) for o in ({}, {"overhead_pj_per_op": 0})
        )
        assert (each - bare) * 1e12 == pytest.approx(picojoules)


def test_scales_beside_a_stream_hide_their_activations() -> None:
    """2 bytes of scale per 32-byte row: 1 / 16 more bytes take about 1 / 16 more time, not a tenth and more."""
    plain, scaled = (Form((4,), 4, 12, k_scale_bits=b, v_scale_bits=b) for b in (0, 16))
    stats = statistics([plain, scaled], np.stack([table(dense().counts)] * 2), SHAPE, N)
    found = price(
        stats,
        load_preset("topick-gqa") | {"heads_in_flight": 8},
        Workload(batch=32),
        ("latency_s", "dram_bytes"),
    )
    for metric, most in (("dram_bytes", 0.064), ("latency_s", 0.08)):
        assert 0.06 < found[metric][1] / found[metric][0] - 1 < most, metric


def test_scores_that_wait_for_a_row_are_written_and_read() -> None:
    system = SYSTEMS["spatten"]
    energy = explain(
        statistics([system.form], table(system.counts)[None], SHAPE, N), load_preset("spatten"), Workload()
    )["energy_j"]
    # 24 bits of score per row against 12 bits x 64: read once like a key plane of 3 / 64 of the width.
    assert energy["sram scores"] > 0
    assert energy["sram scores"] < energy["sram key"] / 8


def test_price_leaves_its_arguments_alone() -> None:
    design = {k: np.asarray(v) for k, v in load_preset("topick").items()}
    before = {k: v.copy() for k, v in design.items()}
    counters = {k: v.copy() for k, v in ALL.counters.items()}
    price(ALL, design, Workload())
    assert all(np.array_equal(design[k], before[k]) for k in design)
    assert all(np.array_equal(ALL.counters[k], counters[k]) for k in counters)


def test_a_setting_that_fetches_nothing_still_has_a_price() -> None:
    nothing = statistics([Form((12,), 12, 12)], table({"rows_written": 1})[None], SHAPE, N)
    found = price(nothing, load_preset("topick"), Workload())
    assert all(np.isfinite(value).all() for value in found.values())
    assert found["latency_s"] >= found["floor_s"]


def test_take_picks_settings() -> None:
    some = ALL.take([2, 5])
    assert isinstance(some, Statistics)
    whole = price(ALL, load_preset("topick"), Workload(), ("latency_s",))["latency_s"]
    assert price(some, load_preset("topick"), Workload(), ("latency_s",))["latency_s"] == pytest.approx(
        whole[[2, 5]]
    )


def test_class_weights_count_every_head() -> None:
    heads = SHAPE.layers * SHAPE.kv_heads
    for classes in (1, 2, 4, 0, 100):
        rows = np.stack([table(s.counts, 0.7) for s in SYSTEMS.values()])
        stats = statistics([s.form for s in SYSTEMS.values()], rows, SHAPE, N, classes=classes)
        assert (stats.weights.sum(axis=1) == heads).all()
        for name in ("v_rows", "exponentials"):
            total = rows[..., counter_columns().index(name if name == "exponentials" else f"group.{name}")]
            assert (stats.counters[name] * stats.weights).sum(axis=1) == pytest.approx(total.sum(axis=(1, 2)))


def test_forms_that_differ_only_in_lag_cost_more_the_less_they_lag() -> None:
    base = SYSTEMS["token-picker"]
    forms = [replace(base.form, lag=lag) for lag in (-1, 512, 128, 32, 8, 0)]
    stats = statistics(forms, np.stack([table(base.counts)] * len(forms)), SHAPE, N)
    latency = price(stats, load_preset("topick"), Workload(), ("latency_s",))["latency_s"]
    assert (np.diff(latency) >= 0).all()
    assert latency[-1] > 5 * latency[0]
