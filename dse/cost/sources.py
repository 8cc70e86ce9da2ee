"""Which constants and which hardware parameters each component of energy, power and area comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dse.hardware.components import COMPONENTS, Component
from dse.hardware.parameters import PARAMETERS

_MULTIPLY: Final = (
    "multiply_8_pj", "multiply_energy_power", "add_base_pj", "add_bit_pj", "overhead_factor", "overhead_pj_per_op",
)  # fmt: skip
_SRAM: Final = ("sram_energy_factor",)
_FETCH_ENERGY: Final = ("crossbar_bit_pj", "register_bit_pj", "fetch_address_bits")
_DRAM: Final = ("*_bit_pj", "*_activation_pj")
_LANE_AREA: Final = (
    "multiply_8_um2", "multiply_area_power", "add_bit_um2", "register_bit_um2", "datapath_area_factor",
)  # fmt: skip

ENERGY: Final[Mapping[str, tuple[str, ...]]] = {
    "dram key": _DRAM,
    "dram value": _DRAM,
    "dram meta": _DRAM,
    "dram write": _DRAM,
    "dram refetch": _DRAM,
    "multiply q x k": (*_MULTIPLY, "score_energy_factor"),
    "multiply p x v": (*_MULTIPLY, "value_energy_factor"),
    "multiply estimates": (*_MULTIPLY, "score_energy_factor"),
    "fetcher": _FETCH_ENERGY,
    "sram key": _SRAM,
    "sram value": _SRAM,
    "sram scores": (*_SRAM, "score_bits"),
    "exponents": ("exponent_pj",),
    "divisions": ("divide_pj",),
    "compares": ("compare_pj",),
    "selection": ("select_element_pj",),
    "ranking": ("select_element_pj",),
    "importance": ("add_base_pj", "add_bit_pj", "register_bit_pj"),
    "margins": ("add_base_pj", "add_bit_pj"),
    "search": ("search_step_pj",),
    "sort": ("sort_step_pj",),
    "scalar": ("multiply_8_pj", "multiply_energy_power", "add_base_pj", "add_bit_pj"),
    "scoreboard": ("scoreboard_entry_bits", "register_bit_pj"),
    "slow memory": ("slow_pj_bit",),
    "dram weights": _DRAM,
    "projections": (*_MULTIPLY, "score_energy_factor", *_SRAM),
    "fetcher weights": _FETCH_ENERGY,
}
"""Component of `dse.cost.budget.energies` -> constants, ``*`` for the memory device; a hardware parameter where
that sets a price."""

AREA: Final[Mapping[str, tuple[str, ...]]] = {
    "multipliers": _LANE_AREA,
    "sram key": ("sram_area_factor",),
    "sram value": ("sram_area_factor",),
    "exponents": ("exponent_um2",),
    "dividers": ("divide_um2",),
    "comparators": ("compare_um2",),
    "selection": ("select_comparator_um2",),
    "ranking": ("select_comparator_um2",),
    "sorting": ("compare_um2", "register_bit_um2"),
    "importance": ("accumulator_um2",),
    "margins": ("margin_um2",),
    "search": ("search_um2",),
    "scalar": _LANE_AREA,
    "scoreboard": ("scoreboard_entry_bits", "register_bit_um2"),
    "requests": ("request_bits", "register_bit_um2"),
    "fetcher": (
        "fetch_fifo_entries",
        "fetch_address_bits",
        "fetch_data_bits",
        "register_bit_um2",
        "crosspoint_um2",
    ),
    "memory phy": ("*_phy_mm2",),
    "slow link": ("slow_link_mm2_gbps",),
}
"""Component of `dse.cost.budget.areas` -> constants."""

POWER: Final[Mapping[str, tuple[str, ...]]] = {
    "dram background": ("*_background_mw",),
    "memory phy": ("*_phy_mw",),
    "leakage sram": ("sram_leakage_factor",),
}
"""Component of `dse.cost.budget.powers` -> constants; leakage of logic follows its area."""

LEAKAGE: Final = ("logic_leakage_mw_mm2",)

_PARAMETER_NOTE: Final = "a parameter of the design; its preset names the source"


def names_of(component: str, table: str, dram: str) -> tuple[str, ...]:
    """Constants of a component; `table` is ``energy``, ``power`` or ``area``."""
    if table == "area":
        found = AREA[component]
    elif component in POWER:
        found = POWER[component]
    elif component.startswith("leakage "):
        found = LEAKAGE
    else:
        found = ENERGY[component]
    return tuple(name.replace("*", dram) for name in found)


def sources_of(
    component: str, table: str, dram: str, values: Mapping[str, float], design: Mapping[str, Any],
    origins: Mapping[str, tuple[str, str]] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Each constant of a component with value, unit, node, source and confidence.

    Args:
        dram: kind of memory device. values: constants in force, overrides included. design: parameters.
        origins: constant -> source and confidence, for overrides whose origin is known.
    """
    known = origins or {}
    return [
        _entry(name, COMPONENTS.get(name), values, design, known.get(name, ("overridden", "as given")))
        for name in names_of(component, table, dram)
    ]


def _entry(
    name: str, known: Component | None, values: Mapping[str, float], design: Mapping[str, Any],
    origin: tuple[str, str],
) -> dict[str, Any]:  # fmt: skip
    if known is None:
        value = float(design[name].ravel()[0])
        unit = PARAMETERS[name].unit
        return {
            "name": name, "value": value, "unit": unit, "node_nm": 0.0, "source": _PARAMETER_NOTE, "confidence": "",
            "low": value, "high": value,
        }  # fmt: skip
    value = values[name]
    own = value == known.value
    return {
        "name": name,
        "value": value,
        "unit": known.unit,
        "node_nm": known.node_nm,
        "source": known.source if own else origin[0],
        "confidence": known.confidence if own else origin[1],
        "low": known.low if own else value,
        "high": known.high if own else value,
    }
