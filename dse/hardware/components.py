"""Constants behind area, energy and time: every value with unit, node, source and confidence, and a range
where sources differ.

`Components` is a plain mapping from name to value that a caller may override; the rest of the package asks
for names only, so an override reaches every price. Constants of memory devices carry the device's kind
(``hbm2_bit_pj``). What is a table (SRAM macros) has factors here that stretch it.

Ranges are correlated within a `group`: constants of one group err together (one process, one author's
measurements), those of different groups independently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from dse.errors import BadInput, nearest
from dse.hardware.dram import DEVICE_COLUMNS, device_rows
from dse.hardware.units import meant

_HOROWITZ: Final = "Horowitz, ISSCC 2014 (45 nm, 0.9 V)"
_HOROWITZ_AREA: Final = "Dally, NIPS 2015 tutorial (45 nm synthesis)"
_POWER_LAW: Final = f"power law through 8 and 32 bit, {_HOROWITZ}"
_ALADDIN: Final = "Shao et al., ISCA 2014 (Aladdin), 40 nm table as carried by Accelergy"
_A3: Final = "Ham et al., HPCA 2020, Table I (40 nm, 1 GHz)"
_CACTI: Final = "CACTI 7 (Balasubramonian et al., TACO 2017)"
_FETCH: Final = "Wang et al., HPCA 2021, Fig. 8"
_WANG: Final = "derived from Wang et al., HPCA 2021, Fig. 13 (40 nm, 1 GHz)"


@dataclass(frozen=True)
class Component:
    """One constant.

    Attributes:
        name, value, unit: what it is; energies in pJ, areas in um2 unless the unit says otherwise.
        node_nm: node of the value, 0 where no node applies.
        source: where it is from. confidence: high (printed), medium (recalled or derived), low (estimate).
        low, high: range over sources that disagree, else both equal `value`.
        group: constants that err together.
        positive: whether 0 is no possible value.
    """

    name: str
    value: float
    unit: str
    node_nm: float
    source: str
    confidence: str
    low: float
    high: float
    group: str
    positive: bool = False


def _row(
    name: str, value: float, unit: str, node_nm: float, source: str, confidence: str,
    low: float | None = None, high: float | None = None, positive: bool = False,
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
        "",
        positive,
    )


_ARITHMETIC: Final = (
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
    _row("overhead_factor", 1.0, "", 0,
         f"on the design's overhead_pj_per_op; low: none, {_A3}; high: spread of the fits", "low", 0.0, 1.2),
    _row("score_energy_factor", 1.0, "", 0, "on the multiply-add passes of q x k and of weights, for machines whose energy is published",
         "high"),
    _row("value_energy_factor", 1.0, "", 0, "on the multiply-add passes of probability x v, which accumulate each "
         "element: for machines whose energy is published", "high"),
    _row("datapath_area_factor", 3.5, "", 0,
         "estimate: laid-out 9-bit multiply-add lane of Ham et al., HPCA 2020 (1531 um2) over multiplier, "
         "adder and operand registers here (about 430 um2)", "low", 1.0, 8.0),
)  # fmt: skip

_ENGINES: Final = (
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
    _row("search_fill_cycles", 4, "cycles per query", 0, "first products of a greedy search: 8 x d by 2 x d "
         "multipliers, Ham et al., HPCA 2020, section V", "medium"),
    _row("search_um2", 1196000, "um2", 40, f"candidate selection 0.277 and sorted-key SRAM 0.919 mm2, {_A3}",
         "high"),
    _row("sort_step_pj", 0.32, "pJ per element, level", 40, f"32-bit compare, register, {_ALADDIN}", "low"),
    _row("score_bits", 24, "bit", 0, "width at which scores wait on chip for a whole row", "medium"),
    _row("request_bits", 48, "bit", 0, "address and tag of an outstanding read", "medium"),
)  # fmt: skip

_FETCHER: Final = (
    _row("fetch_fifo_entries", 64, "per port", 0, _FETCH, "high"),
    _row("fetch_address_bits", 64, "bit", 0, f"8 B entries of the address queues, {_FETCH}", "high"),
    _row("fetch_data_bits", 128, "bit", 0, f"16 B entries of the data queues, {_FETCH}; its released RTL has 32 B",
         "medium"),
    _row("crosspoint_um2", 1.5, "um2 per bit", 40, "estimate: a gate and a half of a multiplexer tree per bit of each "
         "port and channel; four gates at most", "low", 0.7, 4.0),
    _row("crossbar_bit_pj", 0.12, "pJ/bit", 40, "estimate: one millimetre of wire at 310 pJ for 256 bit over 10 mm, "
         "Keckler et al., IEEE Micro 2011 (recalled)", "low", 0.06, 0.25),
)  # fmt: skip

_LEAKAGE: Final = (
    _row("logic_leakage_mw_mm2", 10.0, "mW/mm2", 40, f"static power over area of logic, {_A3}", "medium",
         1.0, 20.0),
    _row("sram_leakage_factor", 1.0, "", 0, f"{_CACTI} at 350 K; low and high: at 300 and 400 K", "medium",
         0.16, 4.4),
)  # fmt: skip

_SRAM: Final = (
    _row("sram_energy_factor", 1.0, "", 0, f"{_CACTI}; high: 8 KiB at 45 nm is 39 % below {_HOROWITZ}",
         "medium", 0.6, 1.64),
    _row("sram_area_factor", 1.0, "", 0, f"{_CACTI}; high: 20 KiB in 0.35 mm2 at 40 nm, {_A3}", "medium",
         1.0, 5.0),
)  # fmt: skip

_WAITING: Final = (
    _row("row_drain_cycles", 30, "cycle", 0,
         "estimate: exponent pipeline and adder tree emptied when a row must be complete", "low"),
    _row("controller_ns", 40, "ns", 0, "estimate: network and memory controller, both ways", "low", 20, 80),
)  # fmt: skip

_LINK: Final = (
    _row("slow_pj_bit", 20.0, "pJ/bit", 0, "estimate: host link and DDR access", "low", 10.0, 40.0),
    _row("slow_link_mm2_gbps", 0.125, "mm2 per GB/s", 0,
         "estimate: 4 mm2 of link PHY for 32 GB/s, does not shrink", "low"),
)  # fmt: skip

_CLOCK: Final = (
    _row("nominal_clock_ghz", 1.0, "GHz", 40,
         f"both synthesised at 1 GHz: {_A3}; Wang et al., HPCA 2021; goes with 1 / node", "low", 0.6, 2.0, positive=True),
)  # fmt: skip

_DRAM_TIME: Final = (
    _row("dram_time_factor", 1.0, "", 0,
         "on the closed form of time per atom, never below the data bus; low and high: its 90th percentile "
         "error against DRAMsim3 streams, 13 %", "medium", 0.87, 1.13, positive=True),
)  # fmt: skip

DEVICE_UNITS: Final[Mapping[str, str]] = {
    "ports": "per channel", "channel_gbps": "GB/s", "atom_bytes": "B", "page_bytes": "B", "groups": "per port",
    "channel_gib": "GiB", "background_mw": "mW per channel", "phy_mm2": "mm2 per channel",
    "phy_mw": "mW per channel", "activation_pj": "pJ per page", "bit_pj": "pJ/bit",
}  # fmt: skip
"""Units of a memory device's columns; those not named are nanoseconds."""

_ESTIMATES: Final[Mapping[str, tuple[str, float, float]]] = {
    # column: (group, low, high as multiples): spread between an IDD model and measured devices, and of a guess
    "activation_pj": ("dram energy", 0.8, 1.25),
    "background_mw": ("dram energy", 0.5, 1.5),
    "phy_mm2": ("memory interface", 0.5, 2.0),
    "phy_mw": ("memory interface", 0.5, 2.0),
}


_ASPECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "activation_pj": ("energy", "activation", "pJ/bit in all"), "bit_pj": ("energy", "pJ/bit in all"),
    "background_mw": ("background",), "phy_mm2": ("PHY",), "phy_mw": ("PHY",), "channel_gib": ("capacity",),
}  # fmt: skip
"""Which part of a device's source speaks of a column; timing where none is named."""


def _source(column: str, text: str) -> str:
    """The part of a device's sources that a column is from; all of them where no part says so."""
    parts = text.split("; ")
    for word in _ASPECTS.get(column, ("timing", "data rate")):
        for part in parts:
            if word in part:
                return part
    return text


def _device_rows() -> Iterator[Component]:
    """Every column of every memory device."""
    may_be_zero = {"row_bus_ns", "activation_pj", "bit_pj", "background_mw", "phy_mm2", "phy_mw"}
    for kind, row in device_rows().items():
        for column in DEVICE_COLUMNS:
            value = float(row[column])
            group, low, high = _ESTIMATES.get(column, ("dram timing", 1.0, 1.0))
            low, high = value * low, value * high
            if column == "bit_pj":
                group, low, high = "dram energy", float(row["bit_pj_low"]), float(row["bit_pj_high"])
            yield Component(
                f"{kind}_{column}", value, DEVICE_UNITS.get(column, "ns"), 0, _source(column, row["source"]),
                row["confidence"],
                low, high, group, column not in may_be_zero,
            )  # fmt: skip


def _grouped() -> Iterator[Component]:
    groups = {
        "arithmetic": _ARITHMETIC, "engines": _ENGINES, "fetcher": _FETCHER, "sram": _SRAM, "leakage": _LEAKAGE,
        "waiting": _WAITING, "slow memory": _LINK, "clock": _CLOCK, "dram time": _DRAM_TIME,
    }  # fmt: skip
    for group, rows in groups.items():
        for row in rows:
            yield replace(row, group=group)
    yield from _device_rows()


COMPONENTS: Final[Mapping[str, Component]] = {row.name: row for row in _grouped()}

Components = Mapping[str, float]

FACTOR: Final = 1e5
"""How many times smaller or larger than the shipped one a constant may be: beyond, a unit was mistaken. Fitted factors
of published machines reach 4400."""

POWER_FACTOR: Final = 10.0
"""Likewise of an exponent."""

_VALUES: Final = {name: row.value for name, row in COMPONENTS.items()}


def components(overrides: Mapping[str, float] | None = None) -> Components:
    """Values by name, with overrides applied.

    Raises:
        BadInput: an override names no constant, or is not a finite, non-negative number.
    """
    return _VALUES | {name: check_constant("components", name, v) for name, v in (overrides or {}).items()}


COUNTED: Final = {"_bytes": "bytes", "_ports": "ports", "_groups": "bank groups"}
"""Endings of constants that come in whole numbers only, and what they count."""


def check_constant(where: str, name: str, value: object) -> float:
    """A value for a constant.

    Args:
        where: file or other origin, leads the message.

    Raises:
        BadInput: there is no such constant, or the value is not a finite, non-negative number.
    """
    known = COMPONENTS.get(name)
    if known is None:
        raise BadInput(f"{where}: {name}: no such constant; {nearest(name, COMPONENTS)}")
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else -1.0
    unit = f", in {known.unit}" if known.unit else ""
    if not 0 <= number < float("inf") or (known.positive and number == 0):
        least = "above 0" if known.positive else "from 0"
        raise BadInput(f"{where}: {name}: found {value!r}; must be a number {least}{unit}")
    factor = POWER_FACTOR if name.endswith("_power") else FACTOR
    low, high = known.value / factor, (known.value or 1.0) * factor
    if number > high or 0 < number < low:
        raise BadInput(
            f"{where}: {name}: found {value!r}; must be a number from {low:g} to {high:g}{unit}"
            f"{meant(known.unit.partition('/')[0].partition(' ')[0], number, low, high)}; the shipped value is "
            f"{known.value:g}"
        )
    counted = next((word for ending, word in COUNTED.items() if name.endswith(ending)), None)
    if counted is not None and (number < 1 or number != int(number)):
        raise BadInput(f"{where}: {name}: found {value!r}; must be a whole number of {counted} from 1")
    return number
