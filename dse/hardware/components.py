"""Constants of the datapath: every value with unit, node, source and confidence, and a range where sources
differ.

`Components` is a plain mapping from name to value that a caller may override; the rest of the package asks
for names only, so an override reaches every price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dse.errors import BadInput, nearest

_HOROWITZ: Final = "Horowitz, ISSCC 2014 (45 nm, 0.9 V)"
_HOROWITZ_AREA: Final = "Dally, NIPS 2015 tutorial (45 nm synthesis)"
_POWER_LAW: Final = f"power law through 8 and 32 bit, {_HOROWITZ}"
_ALADDIN: Final = "Shao et al., ISCA 2014 (Aladdin), 40 nm table as carried by Accelergy"
_A3: Final = "Ham et al., HPCA 2020, Table I (40 nm, 1 GHz)"
_WANG: Final = "derived from Wang et al., HPCA 2021, Fig. 13 (40 nm, 1 GHz)"


@dataclass(frozen=True)
class Component:
    """One constant.

    Attributes:
        name, value, unit: what it is; energies in pJ, areas in um2 unless the unit says otherwise.
        node_nm: node of the value, 0 where no node applies.
        source: where it is from. confidence: high (printed), medium (recalled or derived), low (estimate).
        low, high: range over sources that disagree, else both equal `value`.
    """

    name: str
    value: float
    unit: str
    node_nm: float
    source: str
    confidence: str
    low: float
    high: float


def _row(
    name: str, value: float, unit: str, node_nm: float, source: str, confidence: str,
    low: float | None = None, high: float | None = None,
) -> Component:  # fmt: skip
    return Component(
        name,
        value,
        unit,
        node_nm,
        source,
        confidence,
        value if low is None else low,
        value if high is None else high,
    )


_ROWS: Final = (
    # Multiplier of b1 x b2 bits: scale * (sqrt(b1 b2) / 8) ** power.
    _row("multiply_8_pj", 0.2, "pJ", 45, _HOROWITZ, "high"),
    _row("multiply_energy_power", 1.98, "", 45, _POWER_LAW, "medium", 1.8, 2.2),
    _row("multiply_8_um2", 282, "um2", 45, _HOROWITZ_AREA, "high"),
    _row("multiply_area_power", 1.82, "", 45, _POWER_LAW, "medium"),
    # Adder of b bits: base + slope * b.
    _row("add_base_pj", 0.00667, "pJ", 45, f"line through 8 and 32 bit, {_HOROWITZ}", "medium"),
    _row("add_bit_pj", 0.002917, "pJ/bit", 45, f"line through 8 and 32 bit, {_HOROWITZ}", "medium"),
    _row("add_bit_um2", 4.3, "um2/bit", 45, _HOROWITZ_AREA, "high"),
    _row("register_bit_pj", 0.009, "pJ/bit written", 40, _ALADDIN, "medium"),
    _row("register_bit_um2", 5.98, "um2/bit", 40, _ALADDIN, "medium"),
    _row("datapath_area_factor", 3.5, "", 0,
         "estimate: laid-out 9-bit multiply-add lane of Ham et al., HPCA 2020 (1531 um2) over multiplier, "
         "adder and operand registers here (about 430 um2)", "low", 1.0, 8.0),
    # Small engines.
    _row("exponent_pj", 0.224, "pJ", 40, f"{_A3}; high: 0.50 W for eight softmax lanes, {_WANG}", "medium",
         0.224, 62.5),
    _row("exponent_um2", 16000, "um2", 40, _A3, "high", 16000, 99000),
    _row("divide_pj", 1.6, "pJ", 45, "estimate: twice a 16-bit multiplication", "low", 0.8, 5.0),
    _row("divide_um2", 3500, "um2", 45, "estimate: a 32-bit multiplier's area", "low"),
    _row("compare_pj", 0.0147, "pJ", 45, f"16 bit, linear from 32 bit, {_ALADDIN}", "medium"),
    _row("compare_um2", 36, "um2", 45, f"16 bit, linear from 32 bit, {_ALADDIN}", "medium"),
    _row("select_element_pj", 2.5, "pJ per element and pass", 40,
         f"0.08 W for two 16-wide engines, {_WANG}", "medium", 0.3, 5.0),
    _row("select_comparator_um2", 15560, "um2 per element partitioned per cycle", 40,
         f"0.498 mm2 for two 16-wide engines with their FIFOs, {_WANG}", "medium"),
    _row("scoreboard_entry_bits", 48, "bit", 0, "token index 16 bit and partial score 32 bit", "medium"),
    _row("margin_um2", 4300, "um2 per lane", 45, "sums of positive and of negative "
         "query elements share a row of 64 16-bit adders", "low"),
    _row("accumulator_um2", 1400, "um2", 45, "32-bit adder, read and write port and 16 entries of registers",
         "low"),
    _row("search_step_pj", 25.58, "pJ", 40, f"selector 19.48, sorted-key SRAM 6.10, {_A3}", "high"),
    _row("search_um2", 1196000, "um2", 40, f"candidate selection 0.277 and sorted-key SRAM 0.919 mm2, {_A3}",
         "high"),
    _row("sort_step_pj", 0.32, "pJ per element, level", 40, f"32-bit compare, register, {_ALADDIN}", "low"),
    _row("score_bits", 24, "bit", 0, "width at which scores wait on chip for a whole row", "medium"),
    _row("request_bits", 48, "bit", 0, "address and tag of an outstanding read", "medium"),
    # Whole chip.
    _row("logic_leakage_mw_mm2", 10.0, "mW/mm2", 40, f"static power over area of logic, {_A3}", "medium",
         1.0, 20.0),
    _row("row_drain_cycles", 30, "cycle", 0,
         "estimate: exponent pipeline and adder tree emptied when a row must be complete", "low"),
    _row("controller_ns", 40, "ns", 0, "estimate: network and memory controller, both ways", "low", 20, 80),
    _row("slow_pj_bit", 20.0, "pJ/bit", 0, "estimate: host link and DDR access", "low", 10.0, 40.0),
    _row("slow_link_mm2_gbps", 0.125, "mm2 per GB/s", 0,
         "estimate: 4 mm2 of link PHY for 32 GB/s, does not shrink", "low"),
    _row("nominal_clock_ghz", 1.0, "GHz", 40,
         f"both synthesised at 1 GHz: {_A3}; Wang et al., HPCA 2021; goes with 1 / node", "low", 0.6, 2.0),
)  # fmt: skip

COMPONENTS: Final[Mapping[str, Component]] = {row.name: row for row in _ROWS}

Components = Mapping[str, float]


def components(overrides: Mapping[str, float] | None = None) -> Components:
    """Values by name, with overrides applied.

    Raises:
        BadInput: an override names no constant, or is not a finite, non-negative number.
    """
    values = {name: row.value for name, row in COMPONENTS.items()}
    for name, value in (overrides or {}).items():
        if name not in values:
            raise BadInput(f"components: {name}: no such constant; {nearest(name, values)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise BadInput(
                f"components: {name}: found {value!r}; must be a number from 0, in {COMPONENTS[name].unit}"
            )
        values[name] = float(value)
    return values
