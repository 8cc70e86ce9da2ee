"""Energy and area of designs under given settings, by component.

An engine costs area (and leaks) only where the setting's counters use it. Energies are sums over all heads of
the model and one sequence; leakage and background are powers, to be multiplied by the latency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.cost.ledger import ZERO, Ledger
from dse.cost.machine import Machine
from dse.cost.memory import Traffic
from dse.cost.statistics import CHUNK_ORDER, V_AFTER
from dse.cost.work import (
    prepare_passes,
    reloaded_bytes,
    score_passes,
    selections,
    sort_steps,
    value_passes,
)
from dse.hardware.datapath import ACCUMULATOR_BITS
from dse.hardware.sram import macro

FloatArray = NDArray[np.float64]

MARGIN_BITS = 16


@dataclass(frozen=True)
class Buffers:
    """Key and value buffers: joules per byte, watts, mm2, each by buffer name."""

    read_j_byte: dict[str, FloatArray]
    write_j_byte: dict[str, FloatArray]
    leakage_w: dict[str, FloatArray]
    area_mm2: dict[str, FloatArray]


def buffers(machine: Machine) -> Buffers:
    """One bank per lane and head in flight, as wide as the lane's multipliers take in a cycle."""
    read, write, leak, area = {}, {}, {}, {}
    value_lanes = np.where(machine["value_lanes"] > 0, machine["value_lanes"], machine["lanes"])
    word = np.clip(machine["multipliers"] * machine["multiplier_bits"], 32, None)
    for name, lanes in (("key", machine["lanes"]), ("value", value_lanes)):
        capacity = machine[f"{name}_buffer_kib"] * 1024
        bank = macro(capacity / lanes, word, machine["node_nm"])
        stretch = machine.technology.stretch
        count = lanes * machine["heads_in_flight"] * stretch
        per_byte = 8 / word * stretch * machine.constants["sram_energy_factor"]
        read[name], write[name] = bank.read_j * per_byte, bank.write_j * per_byte
        leak[name] = bank.leakage_w * count * machine.constants["sram_leakage_factor"]
        area[name] = bank.area_mm2 * count * machine.constants["sram_area_factor"]
    return Buffers(read, write, leak, area)


def multiply_j(machine: Machine) -> FloatArray:
    """One multiply-add pass, overhead included.

    The overhead is that of 8 x 8 bits at 45 nm and follows the product of the widths (an assumption). So
    scaled, 1.5 to 1.9 pJ are near the power of machines with 12 x 12, 12 x 4 and 12 x 1 bit multipliers at
    40, 65 and 28 nm, from recalled or second-hand figures; Ham et al., HPCA 2020, is near 0.
    """
    t = machine.technology
    narrow, wide = machine["multiplier_bits"], machine["operand_bits"]
    overhead = t.scaled_j(machine["overhead_pj_per_op"] * (narrow * wide / 64.0), 45)
    overhead = overhead * machine.constants["overhead_factor"]
    return np.asarray(t.multiply_j(narrow, wide) + t.add_j(ACCUMULATOR_BITS) + overhead)


def fetch_j_byte(machine: Machine) -> FloatArray:
    """A byte that passes the crossbar between memory channels and ports, with its share of the address.

    Bits are written into a queue once and travel the crossbar once, addresses towards memory and data from it.
    Nothing where the machine has no crossbar.
    """
    if not machine["fetch_ports"].any():
        return ZERO
    t, constants = machine.technology, machine.constants
    bits = 8.0 + constants["fetch_address_bits"] / machine.memory.atom_bytes
    each = bits * (t.energy_j("crossbar_bit_pj") + t.energy_j("register_bit_pj"))
    return np.asarray(np.where(machine["fetch_ports"] > 0, each, 0.0))


def energies(ledger: Ledger, machine: Machine, moved: Traffic, banks: Buffers) -> dict[str, FloatArray]:
    """Joules per step and sequence by component, without leakage and background."""
    t, stats, dim = machine.technology, ledger.stats, ledger.stats.shape.head_dim
    memory = machine.memory
    found: dict[str, FloatArray] = {}
    for name, size in moved.bytes.items():
        opened = ledger.heads(np.asarray(moved.activations[name])) * memory.activation_pj
        found[f"dram {name}"] = (ledger.heads(np.asarray(size)) * 8 * memory.bit_pj + opened) * 1e-12
    each = multiply_j(machine)
    scores, values = score_passes(ledger, machine, total=True), value_passes(ledger, machine, total=True)
    constants = machine.constants
    found["multiply q x k"] = scores * dim * (each * constants["score_energy_factor"])
    found["multiply p x v"] = values * dim * (each * constants["value_energy_factor"])
    estimates = each * constants["score_energy_factor"]
    found["multiply estimates"] = prepare_passes(ledger, machine, total=True) * estimates
    passed = [ledger.heads(np.asarray(size)) for size in moved.bytes.values()]
    crossing = fetch_j_byte(machine)
    found["fetcher"] = sum(passed, ZERO) * crossing if crossing.any() else ZERO
    for name, joules in _operands(ledger, machine, moved, banks).items():
        found[name] = joules
    whole_row = (stats.v_after == V_AFTER.index("row")) | (stats.chunk_order == CHUNK_ORDER.index("row"))
    scores_kept = ledger.total("qk_rows_0") * ledger.form(whole_row) * machine.constants["score_bits"] / 8
    found["sram scores"] = (
        scores_kept * (banks.read_j_byte["key"] + banks.write_j_byte["key"]) if whole_row.any() else ZERO
    )
    found["exponents"] = ledger.total("exponentials") * t.energy_j("exponent_pj")
    found["divisions"] = ledger.total("divisions") * t.energy_j("divide_pj")
    found["compares"] = ledger.total("compares") * t.energy_j("compare_pj")
    elements = [ledger.heads(np.asarray(selections(ledger, kind)[0])) for kind in ("select", "rank")]
    found["selection"] = elements[0] * t.energy_j("select_element_pj")
    found["ranking"] = elements[1] * t.energy_j("select_element_pj")
    register = t.energy_j("register_bit_pj")
    accumulate = t.add_j(ACCUMULATOR_BITS) + 2 * ACCUMULATOR_BITS * register
    found["importance"] = ledger.total("importance_adds") * accumulate
    found["margins"] = ledger.total("margins") * (dim * t.add_j(MARGIN_BITS))
    found["search"] = ledger.total("search_steps") * t.energy_j("search_step_pj")
    found["sort"] = sort_steps(ledger, total=True) * t.energy_j("sort_step_pj")
    # Compensation mixes additions and multiplications one to one.
    scalar = (t.add_j(32) + t.multiply_j(32, 32)) / 2
    found["scalar"] = ledger.total("scalar_ops") * scalar
    later: FloatArray = ZERO
    for c in range(1, stats.chunks):
        later = later + ledger.total(f"qk_rows_{c}")
    later = later * ledger.form(stats.chunk_order == CHUNK_ORDER.index("token"))
    found["scoreboard"] = later * (2 * machine.constants["scoreboard_entry_bits"] * register)
    slow_bits = ledger.heads(np.asarray(reloaded_bytes(ledger))) * 8
    found["slow memory"] = slow_bits * machine.constants["slow_pj_bit"] * 1e-12
    return found


def _operands(ledger: Ledger, machine: Machine, moved: Traffic, banks: Buffers) -> dict[str, FloatArray]:
    """Joules of operands in the key and value buffers: each is written once when it arrives from memory.

    In decode it is read for each query head that uses it. In prefill a lane keeps its row while the queries of
    a round pass, so a row is read once per round; each query is read (and each accumulated output read and
    written) for every row per lane.
    """
    stats, dim = ledger.stats, ledger.stats.shape.head_dim
    key = [
        ledger.form(stats.chunk_bits[:, c] * dim + (stats.k_scale_bits if c == 0 else 0.0)) / 8
        for c in range(stats.chunks)
    ]
    value = ledger.form(stats.v_bits * dim + stats.v_scale_bits) / 8
    if not ledger.prefill:
        key_read = key_written = ZERO
        for c, row in enumerate(key):
            key_read = key_read + ledger.total(f"qk_rows_{c}") * row
            key_written = key_written + ledger.total(f"k_rows_{c}") * row
        key_written = key_written * moved.keys_away
        value_read = ledger.total("pv_rows") * value
        value_written = ledger.total("v_rows") * value * moved.values_away
    else:
        again = moved.rounds / ledger.tiles
        queries: FloatArray = ZERO
        rows: FloatArray = ZERO
        for c, row in enumerate(key):
            rows = rows + ledger.count(f"k_rows_{c}") * row
            queries = queries + ledger.total(f"qk_rows_{c}")
        key_once = ledger.heads(np.asarray(rows * again))
        key_written = key_once * moved.keys_away
        key_read = key_once + queries * ledger.form(stats.q_bits * dim) / 8 / machine["lanes"]
        value_lanes = np.where(machine["value_lanes"] > 0, machine["value_lanes"], machine["lanes"])
        outputs = ledger.total("pv_rows") * (dim * ACCUMULATOR_BITS / 8) / value_lanes
        fetched = ledger.heads(np.asarray(ledger.count("v_rows") * value * again))
        value_read, value_written = fetched + outputs, fetched * moved.values_away + outputs
    return {
        "sram key": key_read * banks.read_j_byte["key"] + key_written * banks.write_j_byte["key"],
        "sram value": value_read * banks.read_j_byte["value"] + value_written * banks.write_j_byte["value"],
    }


def areas(ledger: Ledger, machine: Machine, banks: Buffers) -> dict[str, FloatArray]:
    """mm2 by component; [S, ...] where it depends on what the setting uses."""
    t, stats = machine.technology, ledger.stats

    def uses(*names: str) -> FloatArray:
        """1 where a setting has any of these counters: [S, 1, ...], or a scalar where all agree."""
        flag = np.zeros(stats.settings)
        for name in names:
            flag = np.maximum(flag, (stats.counters[name] > 0).any(axis=1))
        return np.asarray(flag[0]) if (flag == flag[0]).all() else ledger.form(flag)

    lanes, comparators = machine["lanes"], machine["select_comparators"]
    multiplier = t.multiply_add_mm2(machine["multiplier_bits"], machine["operand_bits"])
    adder = t.area_mm2("add_bit_um2") * ACCUMULATOR_BITS
    array = machine["multipliers"] * (multiplier + adder) * lanes
    second = machine["multipliers"] * (multiplier + adder) * machine["value_lanes"]
    board = lanes * machine["scoreboard_entries"] * machine.constants["scoreboard_entry_bits"]
    by_token = stats.chunk_order == CHUNK_ORDER.index("token")
    later_chunks = tuple(f"qk_rows_{c}" for c in range(1, stats.chunks))
    chunked = (
        uses(*later_chunks) * (ledger.form(by_token) if not by_token.all() else 1.0) if later_chunks else ZERO
    )
    register = t.area_mm2("register_bit_um2")
    engine = comparators * t.area_mm2("select_comparator_um2")
    return {
        "multipliers": array + second,
        "sram key": banks.area_mm2["key"],
        "sram value": banks.area_mm2["value"],
        "exponents": machine["exponent_units"] * t.area_mm2("exponent_um2"),
        "dividers": machine["exponent_units"] * t.area_mm2("divide_um2") * uses("divisions"),
        "comparators": lanes * t.area_mm2("compare_um2") * uses("compares"),
        "selection": engine * uses("select_elements"),
        "ranking": engine * uses("rank_elements"),
        "sorting": comparators * (t.area_mm2("compare_um2") + 32 * register) * uses("sort_elements"),
        "importance": machine["accumulators"] * t.area_mm2("accumulator_um2") * uses("importance_adds"),
        "margins": lanes * t.area_mm2("margin_um2") * uses("margins"),
        "search": machine["search_engines"] * t.area_mm2("search_um2") * uses("search_steps"),
        "scalar": lanes * t.multiply_add_mm2(32, 32) * uses("scalar_ops"),
        "scoreboard": board * register * chunked,
        "requests": machine["outstanding_requests"] * machine.constants["request_bits"] * register,
        "fetcher": _fetcher_mm2(machine),
        "memory phy": machine["dram_channels"] * machine.memory.phy_mm2,
        "slow link": machine["slow_gbps"] * machine.constants["slow_link_mm2_gbps"] * uses("rows_reloaded"),
    }


def _fetcher_mm2(machine: Machine) -> FloatArray:
    """Queues of addresses and data of every port, and a crossbar each way between ports and channels."""
    ports = machine["fetch_ports"]
    if not ports.any():
        return ZERO
    t, constants = machine.technology, machine.constants
    bits = constants["fetch_address_bits"] + constants["fetch_data_bits"]
    queues = constants["fetch_fifo_entries"] * t.area_mm2("register_bit_um2")
    return np.asarray(ports * bits * (queues + machine["dram_channels"] * t.area_mm2("crosspoint_um2")))


def powers(machine: Machine, areas_mm2: dict[str, FloatArray], banks: Buffers) -> dict[str, FloatArray]:
    """Watts that flow whatever happens: DRAM background, PHY, leakage of SRAM and of logic."""
    logic = {"multipliers", "exponents", "dividers", "comparators", "selection", "ranking", "sorting",
             "importance", "margins", "search", "scalar", "scoreboard", "requests", "fetcher"}  # fmt: skip
    channels = machine["dram_channels"]
    leak = machine.constants["logic_leakage_mw_mm2"] * 1e-3
    return {
        "dram background": channels * machine.memory.background_mw * 1e-3,
        "memory phy": channels * machine.memory.phy_mw * 1e-3,
        "leakage sram": banks.leakage_w["key"] + banks.leakage_w["value"],
        **{f"leakage {name}": value * leak for name, value in areas_mm2.items() if name in logic},
    }
