"""DRAM: what a stream of kept rows fetches, how many rows it opens, and how long it takes.

A closed form over the statistics of a stream: `p` (fraction of rows kept), mean kept run, row length and
pitch, on `C` parallel ports (channels, or pseudo-channels where the device has them). Its constants were
fitted once to streams of one public simulator (DRAMsim3), the same constants for all devices. Reads only,
open page, FR-FCFS-like queues.

Time of a stream of N atoms: ``start + (N / C) * t`` with

    t = (t_column**8 + t_activate**8 + t_window**8) ** (1/8) / (1 - tRFC / tREFI)

- t_column: the data bus, or tCCD_L shared by the bank groups that consecutive atoms reach;
- t_activate: tRRD, tFAW and the row-command bus, divided by the reads per activation;
- t_window: Little's law over the atoms that may be outstanding.

Addresses, least significant last. The mapping priced by designs is ``group``: row, bank, column, bank group,
channel (consecutive atoms go to different channels, then to different bank groups), with a hashed channel so
that power-of-two pitches do not camp on few channels. The two others exist to check the form against
simulations: ``atom``: row, group, bank, column, channel; ``page``: row, group, bank, channel, column.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from math import gcd
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.errors import BadInput
from dse.hardware.parameters import DRAM_KINDS

FloatArray = NDArray[np.float64]

QUEUE: Final = 32
"""Requests a controller can see per port."""

NORM: Final = 8.0
SLOTS: Final = 4
"""Most different numbers of rows that overlap an atom, over all atoms of a periodic layout."""

DEVICE_COLUMNS: Final = (
    "ports", "channel_gbps", "atom_bytes", "page_bytes", "groups", "tck_ns", "cl_ns",
    "trcd_ns", "trp_ns", "tccd_l_ns", "trrd_s_ns", "trrd_l_ns", "tfaw_ns", "trfc_ns", "trefi_ns",
    "row_bus_ns", "activation_pj", "bit_pj", "background_mw", "phy_mm2", "phy_mw", "channel_gib",
)  # fmt: skip
"""What a price needs to know of a device."""

FIELDS: Final = (*DEVICE_COLUMNS, "banks_per_group")


@dataclass(frozen=True)
class Device:
    """Timing, geometry and energy of one or several memory devices, as arrays that broadcast.

    Attributes:
        ports: pseudo-channels per channel; everything else but energy and PHY is per port.
        channel_gbps: peak of a channel, GB/s.
        banks_per_group, groups, atom_bytes, page_bytes: geometry of a port.
        row_bus_ns: time one activate and its precharge hold the row-command bus, for all ports that share it.
        activation_pj: per activation of one page. bit_pj: per bit read or written, column access and I/O.
        background_mw: per channel, always, refresh included. phy_mm2, phy_mw: PHY and controller of one channel.
        channel_gib: capacity of a channel.
        time_factor: on the closed form of time per atom, which never falls below the data bus.
    """

    ports: FloatArray
    channel_gbps: FloatArray
    atom_bytes: FloatArray
    page_bytes: FloatArray
    groups: FloatArray
    banks_per_group: FloatArray
    tck_ns: FloatArray
    cl_ns: FloatArray
    trcd_ns: FloatArray
    trp_ns: FloatArray
    tccd_l_ns: FloatArray
    trrd_s_ns: FloatArray
    trrd_l_ns: FloatArray
    tfaw_ns: FloatArray
    trfc_ns: FloatArray
    trefi_ns: FloatArray
    row_bus_ns: FloatArray
    activation_pj: FloatArray
    bit_pj: FloatArray
    background_mw: FloatArray
    phy_mm2: FloatArray
    phy_mw: FloatArray
    channel_gib: FloatArray = field(default_factory=lambda: np.ones(()))
    time_factor: FloatArray = field(default_factory=lambda: np.ones(()))

    @property
    def burst_ns(self) -> FloatArray:
        """Time of one atom on a port's data bus."""
        return np.asarray(self.atom_bytes * self.ports / self.channel_gbps)

    @property
    def refresh(self) -> FloatArray:
        """Factor by which refresh stretches all times."""
        return 1.0 / (1.0 - self.trfc_ns / self.trefi_ns)

    @property
    def start_ns(self) -> FloatArray:
        """Time from a first request to a first atom, nothing open."""
        return self.trcd_ns + self.cl_ns + self.burst_ns + 4 * self.tck_ns


@lru_cache(maxsize=1)
def device_rows() -> dict[str, dict[str, str]]:
    """The table of devices by kind, as text (values, source, confidence)."""
    text = (files("dse.hardware") / "data" / "dram_kinds.csv").read_text(encoding="utf-8")
    return {row["kind"]: row for row in csv.DictReader(text.splitlines())}


def device(
    kind: ArrayLike,
    channel_gbps: ArrayLike = 0.0,
    free_row_bus: ArrayLike = False,
    constants: Mapping[str, float] | None = None,
) -> Device:
    """Devices by index into `DRAM_KINDS`.

    Args:
        kind: integer array.
        channel_gbps: peak of a channel, 0 for the device's own; core timings stay, the data bus follows. Above
            the device's own, PHY area, PHY power and background grow in proportion (an assumption).
        free_row_bus: whether row commands cost no bus time.
        constants: ``kind_column`` -> value where it differs from the table, and ``dram_time_factor``.
    """
    given_constants = constants or {}
    index = np.asarray(kind, dtype=np.intp)
    rows = device_rows()
    columns = {
        name: np.asarray([given_constants.get(f"{k}_{name}", float(rows[k][name])) for k in DRAM_KINDS])[
            index
        ]
        for name in FIELDS
    }
    given = np.asarray(channel_gbps, dtype=np.float64)
    faster = np.maximum(1.0, given / columns["channel_gbps"])
    for name in ("phy_mm2", "phy_mw", "background_mw"):
        columns[name] = columns[name] * faster
    columns["channel_gbps"] = np.where(given > 0, given, columns["channel_gbps"])
    columns["row_bus_ns"] = np.where(free_row_bus, 0.0, columns["row_bus_ns"])
    return Device(**columns, time_factor=np.asarray(given_constants.get("dram_time_factor", 1.0)))


ORDERED: Final = (("atom_bytes", "page_bytes"), ("trfc_ns", "trefi_ns"))
"""Columns of a device of which the first must be the smaller one (or, of bytes, no larger)."""


def check_devices(constants: Mapping[str, float]) -> None:
    """Raise BadInput where constants (as of `device`) that are each in range make no device together."""
    for kind, row in device_rows().items():
        for small, large in ORDERED:
            least, most = (constants.get(f"{kind}_{n}", float(row[n])) for n in (small, large))
            if least > most or (least == most and small.endswith("_ns")):
                words = "at most" if small.endswith("_bytes") else "less than"
                raise BadInput(
                    f"{kind}_{small}: is {least:g}; must be {words} {kind}_{large}, which is {most:g}"
                )


@lru_cache(maxsize=4096)
def overlaps(row_bytes: int, pitch_bytes: int, unit_bytes: int) -> tuple[tuple[int, float], ...]:
    """How many rows overlap the units (atoms) of a periodic layout: ((rows, fraction of units), ...)."""
    period = pitch_bytes * unit_bytes // gcd(pitch_bytes, unit_bytes)
    counts: dict[int, int] = {}
    units = period // unit_bytes
    for unit in range(units):
        begin, end = unit * unit_bytes, (unit + 1) * unit_bytes
        first = (begin - row_bytes) // pitch_bytes + 1  # first row that ends after `begin`
        last = (end - 1) // pitch_bytes  # last row that begins before `end`
        rows = max(0, last - first + 1)
        counts[rows] = counts.get(rows, 0) + 1
    return tuple((rows, count / units) for rows, count in sorted(counts.items()))


def overlap_slots(
    row_bytes: ArrayLike, pitch_bytes: ArrayLike, unit_bytes: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """`overlaps` over arrays: rows and fractions, each [SLOTS, ...broadcast shape]; unused slots have
    fraction 0.

    A row length of 0 (an absent stream) overlaps nothing.
    """
    row, pitch, unit = np.broadcast_arrays(
        np.asarray(row_bytes), np.asarray(pitch_bytes), np.asarray(unit_bytes)
    )
    triples, inverse = np.unique(
        np.stack([row.ravel(), pitch.ravel(), unit.ravel()]).astype(np.int64), axis=1, return_inverse=True
    )
    table = np.zeros((2, SLOTS, triples.shape[1]))
    for i, (r, s, u) in enumerate(triples.T.tolist()):
        for slot, (rows, fraction) in enumerate(overlaps(r, s, u) if r > 0 else ()):
            table[:, slot, i] = rows, fraction
    spread = table[:, :, inverse.reshape(-1)].reshape(2, SLOTS, *row.shape)
    return spread[0], spread[1]


def start_probability(population: ArrayLike, rows: ArrayLike, runs: ArrayLike) -> FloatArray:
    """Chance that a kept run begins after a row that was not kept (the kept fraction if independent)."""
    gaps = np.maximum(np.asarray(population) - np.asarray(rows), 0.0) + 1.0
    return np.asarray(np.minimum(1.0, np.asarray(runs) / gaps))


def touched(keep: FloatArray, start: FloatArray, rows: FloatArray, fraction: FloatArray) -> FloatArray:
    """Mean probability that a unit overlapped by `rows` rows is touched; slots on axis 0 are averaged."""
    some = 1.0 - (1.0 - keep) * (1.0 - start) ** np.maximum(rows - 1.0, 0.0)
    return np.asarray(np.sum(np.where(rows > 0, some, 0.0) * fraction, axis=0), dtype=np.float64)


def reads_per_activation(
    dev: Device,
    ports: FloatArray,
    keep: FloatArray,
    start: FloatArray,
    mean_run: FloatArray,
    touch: FloatArray,
    row_bytes: FloatArray,
    pitch_bytes: FloatArray,
    span_atoms: FloatArray,
    mapping: str = "group",
) -> FloatArray:
    """Atoms read each time a page is opened by an in-order stream.

    Args:
        dev, ports: the device and how many ports share the stream.
        keep, start, mean_run: statistics of the kept rows.
        touch: probability that an atom is touched.
        row_bytes, pitch_bytes: layout. span_atoms: atoms from the first row to the last, kept or not.
    """
    per_page = dev.page_bytes / dev.atom_bytes
    if mapping == "page":
        rows = (dev.page_bytes + row_bytes) / pitch_bytes - 1.0 / pitch_bytes
        opened = 1.0 - (1.0 - keep) * (1.0 - start) ** np.maximum(rows - 1.0, 0.0)
        return np.asarray(np.maximum(1.0, touch * per_page / np.maximum(opened, 1e-30)))
    ways = ports * (dev.groups if mapping == "group" else 1.0)  # atoms between successive atoms of a page
    # Regions begin at a page, and the atoms of one port and group fill whole pages but the last.
    per_way = np.maximum(span_atoms / ways, 1.0)
    reachable = per_way / np.ceil(per_way / per_page - 1e-9)
    distance = ways * dev.atom_bytes
    stay = np.clip(1.0 - start - 1.0 / np.maximum(mean_run, 1.0), 0.0, 1.0)
    chances = np.maximum(1.0, reachable * np.minimum(1.0, distance / np.maximum(row_bytes, 1.0)))
    again = touch * (1.0 - stay ** (distance / np.maximum(pitch_bytes, 1.0)))
    opened = 1.0 - (1.0 - touch) * (1.0 - again) ** (chances - 1.0)
    return np.asarray(np.clip(touch * reachable / np.maximum(opened, 1e-30), 1.0, per_page))


Limits = tuple[FloatArray, FloatArray, FloatArray]


def atom_limits(
    dev: Device,
    ports: FloatArray,
    window: FloatArray,
    reads: FloatArray,
    sparse: FloatArray,
    mapping: str = "group",
) -> Limits:
    """What columns, activations and the window each allow: least time between atoms of one port, ns.

    Args:
        dev, ports: the device and how many ports share the stream.
        window: atoms that may be outstanding, all ports.
        reads: reads per activation.
        sparse: `unevenness` of the stream, how much its load on the ports fluctuates.
    """
    groups = dev.groups
    if mapping != "group":
        look = np.minimum(2.0 * QUEUE, window / ports)
        x = look / (reads * dev.banks_per_group)
        groups = np.minimum(dev.groups, 1.0 + 0.43 * x + 0.30 * x**2)
    column = np.maximum(dev.burst_ns, dev.tccd_l_ns / groups)
    rrd = dev.trrd_s_ns + 0.55 * (dev.trrd_l_ns - dev.trrd_s_ns) / dev.groups
    activate = np.maximum(np.maximum(rrd, dev.tfaw_ns / 4.0), dev.row_bus_ns) / reads
    loaded = dev.cl_ns + dev.burst_ns + 3.3 * dev.tck_ns + (dev.trp_ns + dev.trcd_ns) / reads
    little = ports / window * loaded * (1.0 + 0.91 * sparse * np.sqrt(ports / window))
    return column, activate, little


def combined(dev: Device, limits: Limits) -> FloatArray:
    """Time under three limits, refresh included.

    Limits of streams that are fetched together may be summed first: one stream's activations hide under
    another's columns.
    """
    column, activate, little = limits
    peak = np.maximum(np.maximum(np.maximum(column, activate), little), 1e-30)
    norm = peak * ((column / peak) ** NORM + (activate / peak) ** NORM + (little / peak) ** NORM) ** (
        1.0 / NORM
    )
    if (dev.time_factor == 1.0).all():
        return np.asarray(norm * dev.refresh)
    return np.asarray(np.maximum(norm * dev.refresh * dev.time_factor, column))


def atom_ns(
    dev: Device,
    ports: FloatArray,
    window: FloatArray,
    reads: FloatArray,
    sparse: FloatArray,
    mapping: str = "group",
) -> FloatArray:
    """Mean time between atoms of one port, ns; arguments as `atom_limits`."""
    return combined(dev, atom_limits(dev, ports, window, reads, sparse, mapping))


def unevenness(touch: FloatArray) -> FloatArray:
    """1 for a stream that skips at least half of its atoms, falling to 0 for one that skips none."""
    return np.asarray(np.clip(2.0 * (1.0 - touch), 0.0, 1.0))


def busiest(atoms: FloatArray, ports: FloatArray, touch: FloatArray) -> FloatArray:
    """Expected atoms of the busiest port: a short sparse stream spreads unevenly (extreme of C binomials)."""
    mean = atoms / ports
    spread = np.sqrt(2.0 * np.log(ports) * mean * np.maximum(1.0 - touch, 0.0))
    return np.asarray(np.minimum(atoms, mean + spread))
