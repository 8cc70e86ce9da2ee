"""What the memory takes for one stream of kept rows, as plain sums: the twin of `dse.hardware.dram`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dse.hardware.components import Components
from dse.hardware.dram import DEVICE_COLUMNS, overlaps
from dse.hardware.parameters import HardwareValue


def memory_kind(design: Mapping[str, HardwareValue], constants: Components) -> dict[str, float]:
    """The memory device's numbers, with the design's bandwidth and row bus; a faster channel has a larger interface."""
    kind = {name: float(constants[f"{design['dram']}_{name}"]) for name in DEVICE_COLUMNS}
    given = float(design["dram_channel_gbps"])
    if given > 0:
        for name in ("phy_mm2", "phy_mw", "background_mw"):
            kind[name] *= max(1.0, given / kind["channel_gbps"])
        kind["channel_gbps"] = given
    if design["row_bus"] == "free":
        kind["row_bus_ns"] = 0.0
    kind["burst_ns"] = kind["atom_bytes"] * kind["ports"] / kind["channel_gbps"]
    kind["start_ns"] = kind["trcd_ns"] + kind["cl_ns"] + kind["burst_ns"] + 4 * kind["tck_ns"]
    return kind


def port_limits(
    kind: dict[str, float], ports: float, window: float, reads: float, sparse: float
) -> tuple[float, float, float]:
    """Time between atoms of one port that columns, activations and the window each allow."""
    column = max(kind["burst_ns"], kind["tccd_l_ns"] / kind["groups"])
    rrd = kind["trrd_s_ns"] + 0.55 * (kind["trrd_l_ns"] - kind["trrd_s_ns"]) / kind["groups"]
    activate = max(rrd, kind["tfaw_ns"] / 4, kind["row_bus_ns"]) / reads
    loaded = (
        kind["cl_ns"] + kind["burst_ns"] + 3.3 * kind["tck_ns"] + (kind["trp_ns"] + kind["trcd_ns"]) / reads
    )
    little = ports / window * loaded * (1 + 0.91 * sparse * math.sqrt(ports / window))
    return column, activate, little


def soft_max(kind: dict[str, float], limits: tuple[float, ...]) -> float:
    """The largest of the limits, a little more where several are alike, stretched by refresh."""
    return float(sum(x**8 for x in limits) ** 0.125 / (1 - kind["trfc_ns"] / kind["trefi_ns"]))


def atom_ns(kind: dict[str, float], ports: float, window: float, reads: float, sparse: float) -> float:
    """Time between atoms of one port."""
    return soft_max(kind, port_limits(kind, ports, window, reads, sparse))


@dataclass(frozen=True)
class Fetch:
    """A stream: seconds alone, the three limits per number of channels used, and what it moves and opens."""

    alone_s: float = 0.0
    even_ns: tuple[tuple[float, ...], ...] = ()  # per number of channels used: the three limits
    atoms: float = 0.0
    activations: float = 0.0
    useful_bytes: float = 0.0

    def times(self, factor: float) -> Fetch:
        """This stream, or nothing (factor 0)."""
        return self if factor else Fetch()

    def __add__(self, other: Fetch) -> Fetch:
        return Fetch(
            self.alone_s + other.alone_s,
            tuple(
                tuple(a + b for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self.even_ns, other.even_ns, strict=True)
            )
            if self.even_ns and other.even_ns
            else self.even_ns or other.even_ns,
            self.atoms + other.atoms,
            self.activations + other.activations,
            self.useful_bytes + other.useful_bytes,
        )


def fetch(
    kind: dict[str, float], channels: int, window: float, population: float,
    rows: float, runs: float, row_bytes: int, pitch: int,
) -> Fetch:  # fmt: skip
    """One stream of kept rows."""
    if rows <= 0 or row_bytes <= 0:
        return Fetch()
    atom, groups = kind["atom_bytes"], kind["groups"]
    keep = min(1.0, rows / population)
    start = min(1.0, runs / (max(population - rows, 0.0) + 1.0))
    run = rows / max(runs, 1e-12)
    touch = 0.0
    for overlapping, fraction in overlaps(row_bytes, pitch, int(atom)):
        if overlapping > 0:
            touch += (1 - (1 - keep) * (1 - start) ** (overlapping - 1)) * fraction
    span = population * pitch / atom
    atoms = touch * span
    alone, even = math.inf, []
    activations = 0.0
    used = 1
    while used <= channels:
        ports = used * kind["ports"]
        per_page = kind["page_bytes"] / atom
        ways = ports * groups
        per_way = max(span / ways, 1.0)
        reachable = per_way / math.ceil(per_way / per_page - 1e-9)
        stay = min(max(1 - start - 1 / max(run, 1.0), 0.0), 1.0)
        chances = max(1.0, reachable * min(1.0, ways * atom / row_bytes))
        again = touch * (1 - stay ** (ways * atom / pitch))
        opened = 1 - (1 - touch) * (1 - again) ** (chances - 1)
        reads = min(max(touch * reachable / opened, 1.0), per_page)
        limits = port_limits(kind, ports, window, reads, min(1.0, 2 * (1 - touch)))
        each = soft_max(kind, limits) * 1e-9
        mean = atoms / ports
        most = min(atoms, mean + math.sqrt(2 * math.log(ports) * mean * (1 - touch)))
        alone, activations = min(alone, most * each), atoms / reads
        even.append(tuple(mean * limit for limit in limits))
        used *= 2
    return Fetch(alone, tuple(even), atoms, activations, rows * row_bytes)
