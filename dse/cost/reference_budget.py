"""Energy, power and area of one point as plain sums: the twin of `dse.cost.budget`, beside `dse.cost.reference`.

Constants of technology and SRAM macros are looked up where the priced arrays look them up (`dse.hardware`, which
has tests of its own); what is done with them is written out here once more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dse.cost.reference import (
    Count,
    Head,
    Row,
    _batch,
    _head,
    _rest,
    counts_of,
    reference,
)
from dse.cost.reference_dram import memory_kind
from dse.cost.workload import Workload
from dse.hardware.components import Components, components
from dse.hardware.datapath import Technology, clock_stretch
from dse.hardware.parameters import NODE_RULES, PARAMETERS, HardwareValue
from dse.hardware.sram import macro
from dse.profiles.schema import Form, ModelShape


@dataclass(frozen=True)
class _Chip:
    """Numbers of a design and joules of its parts."""

    d: Mapping[str, float]
    technology: Technology
    read_j: Mapping[str, float]  # per byte, by buffer
    write_j: Mapping[str, float]
    leakage_w: float
    sram_mm2: float
    multiply_j: float
    fetch_j: float  # per byte from or to memory
    constants: Components

    def energy(self, name: str) -> float:
        return float(self.technology.energy_j(name))

    def area(self, name: str) -> float:
        return float(self.technology.area_mm2(name))


def _chip(design: Mapping[str, HardwareValue], constants: Components, kind: Mapping[str, float]) -> _Chip:
    d = {name: float(value) for name, value in design.items() if not isinstance(value, str)}
    stretch = float(clock_stretch(d["clock_ghz"], d["node_nm"], constants))
    rule = np.asarray(NODE_RULES.index(str(design["node_rule"])))
    technology = Technology(np.asarray(d["node_nm"]), rule, constants, np.asarray(stretch))
    read, write, leakage, area = {}, {}, 0.0, 0.0
    word = max(d["multipliers"] * d["multiplier_bits"], 32.0)
    for name, lanes in (("key", d["lanes"]), ("value", d["value_lanes"] or d["lanes"])):
        bank = macro(d[f"{name}_buffer_kib"] * 1024 / lanes, word, d["node_nm"])
        banks = lanes * d["heads_in_flight"] * stretch
        read[name] = float(bank.read_j) * 8 / word * stretch * constants["sram_energy_factor"]
        write[name] = float(bank.write_j) * 8 / word * stretch * constants["sram_energy_factor"]
        leakage += float(bank.leakage_w) * banks * constants["sram_leakage_factor"]
        area += float(bank.area_mm2) * banks * constants["sram_area_factor"]
    widths = d["multiplier_bits"] * d["operand_bits"]
    overhead = technology.scaled_j(d["overhead_pj_per_op"] * widths / 64, 45)
    multiply = technology.multiply_j(d["multiplier_bits"], d["operand_bits"]) + technology.add_j(32)
    overhead = overhead * constants["overhead_factor"]
    # A crossbar moves each byte, and eight bytes of address per atom, through one queue.
    moved_bits = 8 + constants["fetch_address_bits"] / kind["atom_bytes"] if d["fetch_ports"] else 0.0
    fetch = moved_bits * float(
        technology.energy_j("crossbar_bit_pj") + technology.energy_j("register_bit_pj")
    )
    return _Chip(
        d, technology, read, write, leakage, area, float(multiply + overhead), fetch, constants
    )  # fmt: skip


def reference_budget(
    form: Form,
    counters: Sequence[Sequence[Row]],
    shape: ModelShape,
    n: float,
    design: Mapping[str, HardwareValue],
    workload: Workload,
    grouped: bool = True,
    overrides: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """``energy_j``, ``attention_energy_j``, ``rest_energy_j``, ``power_chip_w`` and ``area_mm2`` of one point.

    Arguments as `dse.cost.reference.reference`.
    """
    design = {**{name: p.default for name, p in PARAMETERS.items() if p.default is not None}, **design}
    constants = components(overrides)
    kind = memory_kind(design, constants)
    chip = _chip(design, constants, kind)
    each = counts_of(counters, shape, grouped)
    times = reference(form, counters, shape, n, design, workload, grouped, overrides)
    batch = _batch(each, form, shape, n, design, workload, grouped, constants)[0]
    heads = [_head(count, form, shape, n, design, workload, grouped, constants) for count in each]
    on_chip = batch * sum(
        _head_j(count, head, form, shape, n, chip, workload, grouped)
        for count, head in zip(each, heads, strict=True)
    )
    area, logic = _area(each, form, shape, kind, chip)
    channels = chip.d["dram_channels"]
    always = (
        chip.leakage_w + channels * kind["phy_mw"] * 1e-3 + logic * constants["logic_leakage_mw_mm2"] * 1e-3
    )
    standing = always + channels * kind["background_mw"] * 1e-3
    rest_s, weights, products = _rest(each, shape, design, workload, grouped, batch, constants)
    passes = math.ceil(shape.weight_bits / chip.d["multiplier_bits"]) * math.ceil(8 / chip.d["operand_bits"])
    rest_dram = (weights * 8 * kind["bit_pj"] + weights / kind["page_bytes"] * kind["activation_pj"]) * 1e-12
    rest_chip = weights * chip.write_j["key"] + products * shape.weight_bits / 8 * chip.read_j["key"]
    rest_chip += products * passes * chip.multiply_j * constants["score_energy_factor"]
    rest_chip += weights * chip.fetch_j
    attention = times["dram_j"] + on_chip + standing * times["attention_s"]
    rest = rest_dram + rest_chip + standing * rest_s
    whole = workload.scope == "model"
    return {
        "attention_energy_j": attention,
        "rest_energy_j": rest,
        "energy_j": attention + (rest if whole else 0.0),
        "power_chip_w": (on_chip + (rest_chip if whole else 0.0)) / times["latency_s"] + always,
        "area_mm2": area,
    }


def _partitioned(calls: float, elements: float, kept: float) -> float:
    """Elements that quick-selects move."""
    if elements <= 0:
        return 0.0
    n, k = max(elements / calls, 1.0), min(kept / calls, max(elements / calls, 1.0))
    a = min(max(k / n, 1e-12), 1 - 1e-12)
    return calls * 2 * n * (1 - a * math.log(a) - (1 - a) * math.log1p(-a))


def _head_j(
    count: Count, head: Head, form: Form, shape: ModelShape, n: float, chip: _Chip, workload: Workload, grouped: bool
) -> float:  # fmt: skip
    """On-chip joules of one KV head."""
    constants, d, dim, t = chip.constants, chip.d, shape.head_dim, chip.technology
    narrow, query = d["multiplier_bits"], math.ceil(form.q_bits / d["operand_bits"])
    chunks, later = form.k_chunk_bits, range(1, len(form.k_chunk_bits))
    # Multiplications.
    passes = (
        sum(count(f"qk_rows_{c}") * math.ceil(bits / narrow) for c, bits in enumerate(chunks)) * query * dim
    )
    accumulated = count("pv_rows") * math.ceil(form.v_bits / narrow) * query * dim
    passes += count("estimate_macs") * math.ceil(form.q_bits / narrow) * query
    passes += count("controller_macs") * math.ceil(16 / narrow) * math.ceil(16 / d["operand_bits"])
    if workload.scope == "attention":
        position = (
            shape.block_parameters / (shape.layers * shape.kv_heads) * (1 if grouped else 1 / shape.group)
        )
        passes += count("rows_rebuilt") * position * math.ceil(shape.weight_bits / narrow) * query
    joules = chip.multiply_j * (
        passes * constants["score_energy_factor"] + accumulated * constants["value_energy_factor"]
    )
    joules += head.dram_bytes * chip.fetch_j
    # Operands: written on arrival; read for every use, or in prefill kept by a lane while queries pass.
    key_bytes = [(bits * dim + (form.k_scale_bits if c == 0 else 0)) / 8 for c, bits in enumerate(chunks)]
    value_bytes = (form.v_bits * dim + form.v_scale_bits) / 8
    repeat = head.rounds / head.tiles
    key_in = sum(count(f"k_rows_{c}") * size for c, size in enumerate(key_bytes)) * repeat
    value_in = count("v_rows") * value_bytes * repeat
    key_out = sum(count(f"qk_rows_{c}") * size for c, size in enumerate(key_bytes))
    value_out = count("pv_rows") * value_bytes
    if workload.phase == "prefill":
        used = sum(count(f"qk_rows_{c}") for c in range(len(chunks)))
        key_out = key_in + used * form.q_bits * dim / 8 / d["lanes"]
        outputs = count("pv_rows") * dim * 4 / (d["value_lanes"] or d["lanes"])
        value_out = value_in + outputs
        value_in = value_in * head.value_away + outputs
    else:
        value_in *= head.value_away
    key_in *= head.key_away
    joules += key_out * chip.read_j["key"] + key_in * chip.write_j["key"]
    joules += value_out * chip.read_j["value"] + value_in * chip.write_j["value"]
    if form.v_after == "row" or form.chunk_order == "row":
        scores = count("qk_rows_0") * constants["score_bits"] / 8
        joules += scores * (chip.read_j["key"] + chip.write_j["key"])
    # Engines.
    joules += count("exponentials") * chip.energy("exponent_pj") + count("divisions") * chip.energy(
        "divide_pj"
    )
    joules += count("compares") * chip.energy("compare_pj")
    for name in ("select", "rank"):
        moved = _partitioned(count(f"{name}_calls"), count(f"{name}_elements"), count(f"{name}_kept"))
        joules += moved * chip.energy("select_element_pj")
    register = chip.energy("register_bit_pj")
    joules += count("importance_adds") * (float(t.add_j(32)) + 64 * register)
    joules += count("margins") * dim * float(t.add_j(16))
    joules += count("search_steps") * chip.energy("search_step_pj")
    joules += count("sort_elements") * max(1.0, math.log2(max(n, 2.0))) * chip.energy("sort_step_pj")
    joules += count("scalar_ops") * float(t.add_j(32) + t.multiply_j(32, 32)) / 2
    if form.chunk_order == "token":
        waiting = sum(count(f"qk_rows_{c}") for c in later)
        joules += waiting * 2 * constants["scoreboard_entry_bits"] * register
    row_bits = (form.k_bits + form.v_bits) * dim + form.k_scale_bits + form.v_scale_bits
    return joules + count("rows_reloaded") * row_bits * constants["slow_pj_bit"] * 1e-12


def _area(
    each: list[Count], form: Form, shape: ModelShape, kind: Mapping[str, float], chip: _Chip
) -> tuple[float, float]:
    """mm2 of everything, and of logic alone (which leaks)."""
    constants, d, t = chip.constants, chip.d, chip.technology

    def uses(*names: str) -> bool:
        return any(count(name) for count in each for name in names)

    lane = float(t.multiply_add_mm2(d["multiplier_bits"], d["operand_bits"])) + chip.area("add_bit_um2") * 32
    logic = d["multipliers"] * lane * (d["lanes"] + d["value_lanes"])
    logic += d["exponent_units"] * (chip.area("exponent_um2") + chip.area("divide_um2") * uses("divisions"))
    logic += d["lanes"] * chip.area("compare_um2") * uses("compares")
    engine = d["select_comparators"] * chip.area("select_comparator_um2")
    logic += engine * (uses("select_elements") + uses("rank_elements"))
    register = chip.area("register_bit_um2")
    logic += d["select_comparators"] * (chip.area("compare_um2") + 32 * register) * uses("sort_elements")
    logic += d["accumulators"] * chip.area("accumulator_um2") * uses("importance_adds")
    logic += d["lanes"] * chip.area("margin_um2") * uses("margins")
    logic += d["search_engines"] * chip.area("search_um2") * uses("search_steps")
    logic += d["lanes"] * float(t.multiply_add_mm2(32, 32)) * uses("scalar_ops")
    if form.chunk_order == "token" and uses(*(f"qk_rows_{c}" for c in range(1, len(form.k_chunk_bits)))):
        logic += d["lanes"] * d["scoreboard_entries"] * constants["scoreboard_entry_bits"] * register
    logic += d["outstanding_requests"] * constants["request_bits"] * register
    bits = constants["fetch_address_bits"] + constants["fetch_data_bits"]
    queued = constants["fetch_fifo_entries"] * register + d["dram_channels"] * chip.area("crosspoint_um2")
    logic += d["fetch_ports"] * bits * queued
    link = d["slow_gbps"] * constants["slow_link_mm2_gbps"] * uses("rows_reloaded")
    return logic + chip.sram_mm2 + d["dram_channels"] * kind["phy_mm2"] + link, logic
