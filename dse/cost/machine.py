"""A design as arrays: values checked for presence, choices turned into indices, devices and technology looked
up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.errors import BadInput, nearest
from dse.hardware.components import Components, components
from dse.hardware.datapath import Technology, clock_stretch
from dse.hardware.dram import Device, device
from dse.hardware.parameters import PARAMETERS, ROW_BUSES

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Machine:
    """Designs as arrays that broadcast.

    Attributes:
        values: every number of `PARAMETERS` by name, and every choice as its index.
        ndim: axes of the widest design array, at least 1 (axis 0 is the settings').
        memory: the DRAM device. technology: node, rule and constants.
    """

    values: Mapping[str, FloatArray]
    ndim: int
    memory: Device
    technology: Technology
    constants: Components

    def __getitem__(self, name: str) -> FloatArray:
        return self.values[name]

    @property
    def ports(self) -> FloatArray:
        """Parallel DRAM ports."""
        return self["dram_channels"] * self.memory.ports

    @property
    def peak_bytes_s(self) -> FloatArray:
        """Peak DRAM bandwidth."""
        return self["dram_channels"] * self.memory.channel_gbps * 1e9

    @property
    def capacity_bytes(self) -> FloatArray:
        """DRAM capacity, all channels."""
        own = self["dram_channels"] * self.memory.channel_gib
        return np.asarray(np.where(self["memory_gib"] > 0, self["memory_gib"], own) * 2.0**30)

    @property
    def cycle_s(self) -> FloatArray:
        return 1e-9 / self["clock_ghz"]

    @property
    def answer_s(self) -> FloatArray:
        """Time from a decision to the data it asked for, queues empty."""
        return (self.memory.start_ns + self.constants["controller_ns"]) * 1e-9


def _codes(name: str, values: ArrayLike, choices: Sequence[str]) -> NDArray[np.intp]:
    """Index of each value into `choices`; integer arrays are taken as indices already."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(np.intp)
    found = np.full(array.shape, -1, dtype=np.intp)
    for i, choice in enumerate(choices):
        found = np.where(array == choice, i, found)
    if (found < 0).any():
        wrong = str(array[found < 0].ravel()[0])
        raise BadInput(f"design: {name}: found {wrong!r}; {nearest(wrong, choices)}")
    return found


def machine(design: Mapping[str, ArrayLike], overrides: Mapping[str, float] | None = None) -> Machine:
    """Arrays of a design.

    Args:
        design: every name of `PARAMETERS` without a default -> scalar or array; choices as text or as indices into their list.
        overrides: component constants by name.

    Raises:
        BadInput: a parameter is missing or unknown.
    """
    for name in design:
        if name not in PARAMETERS:
            raise BadInput(f"design: {name}: no such hardware parameter; {nearest(name, PARAMETERS)}")
    values: dict[str, FloatArray] = {}
    for name, parameter in PARAMETERS.items():
        given = design.get(name, parameter.default)
        if given is None:
            raise BadInput(f"design: {name}: missing; must be {parameter.valid}")
        if parameter.kind == "choice":
            values[name] = _codes(name, given, parameter.choices).astype(np.float64)
        else:
            values[name] = np.asarray(given, dtype=np.float64)
    constants = components(overrides)
    stretch = clock_stretch(values["clock_ghz"], values["node_nm"], constants)
    free = values["row_bus"] == ROW_BUSES.index("free")
    return Machine(
        values=values,
        ndim=max(1, max(value.ndim for value in values.values())),
        memory=device(values["dram"].astype(np.intp), values["dram_channel_gbps"], free, constants),
        technology=Technology(values["node_nm"], values["node_rule"].astype(np.intp), constants, stretch),
        constants=constants,
    )
