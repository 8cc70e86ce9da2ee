"""Energy (joules) and area (mm2) of arithmetic and small engines, scaled to a node.

Multiply energy follows the published 8- and 32-bit points as a power of the width; a rectangular b1 x b2
multiplier is taken as a square one of the same number of partial-product bits. Energies exclude clock tree,
control and wires: those are the design's explicit `overhead_pj_per_op`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.hardware.components import COMPONENTS, Components
from dse.hardware.technology import area_scale, energy_scale

FloatArray = NDArray[np.float64]

ACCUMULATOR_BITS = 32


def clock_stretch(clock_ghz: ArrayLike, node_nm: ArrayLike, values: Components) -> FloatArray:
    """Energy and area of on-chip logic at a clock over those at a node's nominal clock, from 1.

    Beyond the nominal clock both grow with the clock: more pipeline registers, larger gates, a higher supply
    (an assumption; a slower clock saves nothing).
    """
    nominal = values["nominal_clock_ghz"] * COMPONENTS["nominal_clock_ghz"].node_nm / np.asarray(node_nm)
    return np.asarray(np.maximum(1.0, np.asarray(clock_ghz) / nominal), dtype=np.float64)


@dataclass(frozen=True)
class Technology:
    """A node and the rule its energies follow; arrays that broadcast against everything asked of it.

    `stretch` is what a clock beyond the node's nominal one costs, see `clock_stretch`.
    """

    node_nm: FloatArray
    rule: NDArray[np.intp]
    values: Components
    stretch: FloatArray = field(default_factory=lambda: np.ones(()))

    def energy_j(self, name: str) -> FloatArray:
        """A named energy constant (pJ at its own node) at this node, in joules."""
        return self.scaled_j(self.values[name], COMPONENTS[name].node_nm)

    def scaled_j(self, energy_pj: ArrayLike, node_nm: float) -> FloatArray:
        """An energy in pJ at `node_nm`, at this node in joules."""
        scale = energy_scale(self.node_nm, node_nm, self.rule) * self.stretch
        return np.asarray(np.asarray(energy_pj) * scale * 1e-12, dtype=np.float64)

    def area_mm2(self, name: str) -> FloatArray:
        """A named area constant (um2 at its own node) at this node, in mm2."""
        scale = area_scale(self.node_nm, COMPONENTS[name].node_nm) * self.stretch
        return np.asarray(self.values[name] * 1e-6 * scale)

    def multiply_j(self, key_bits: ArrayLike, query_bits: ArrayLike) -> FloatArray:
        """One multiplication of operands as wide as the multiplier."""
        width = np.sqrt(np.asarray(key_bits, dtype=np.float64) * np.asarray(query_bits)) / 8.0
        return self.scaled_j(self.values["multiply_8_pj"] * width ** self.values["multiply_energy_power"], 45)

    def add_j(self, bits: ArrayLike) -> FloatArray:
        """One addition."""
        v = self.values
        return self.scaled_j(v["add_base_pj"] + v["add_bit_pj"] * np.asarray(bits, dtype=np.float64), 45)

    def multiply_add_mm2(self, key_bits: ArrayLike, query_bits: ArrayLike) -> FloatArray:
        """One multiplier with its share of the adder tree and its operand registers, laid out."""
        v = self.values
        key, query = np.asarray(key_bits, dtype=np.float64), np.asarray(query_bits, dtype=np.float64)
        logic = v["multiply_8_um2"] * (np.sqrt(key * query) / 8.0) ** v["multiply_area_power"]
        logic = logic + v["add_bit_um2"] * (key + query)
        registers = v["register_bit_um2"] * (key + query)
        um2 = logic * area_scale(self.node_nm, 45) + registers * area_scale(self.node_nm, 40)
        return np.asarray(um2 * 1e-6 * v["datapath_area_factor"] * self.stretch, dtype=np.float64)
