"""One memory stream as a simulator would run it: any order, any fixed mapping, any length.

`dse.hardware.dram` prices streams in order under a hashed channel, as arrays. This is the rest of the same closed
form, one stream at a time, to be checked against simulations: channels that a power-of-two pitch loads unevenly,
short streams that do not reach every channel, and rows fetched in random order. The two orders were fitted apart: where
less than 3 % of rows of 32 bytes are kept, random order comes out up to a third faster than order, which no memory does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.hardware import dram
from dse.hardware.dram import Device, Limits

FloatArray = NDArray[np.float64]

LONGEST = 1 << 16
"""Units (atoms or pages) beyond which the load of channels is taken from the first ones: layouts are periodic."""


def _array(value: float) -> FloatArray:
    return np.asarray(value, dtype=np.float64)


@dataclass(frozen=True)
class Stream:
    """Rows kept of a region, in order or shuffled.

    Attributes:
        population, rows, runs: rows of the region, kept ones, and runs of those.
        row_bytes, pitch_bytes: layout. shuffled: fetched in random order.
    """

    population: float
    rows: float
    runs: float
    row_bytes: int
    pitch_bytes: int
    shuffled: bool = False


@dataclass(frozen=True)
class Passage:
    """What a stream asks of one port: atoms on the busiest one, reads per activation, and limits per atom.

    `bank_ns` is what banks allow where rows come in random order.
    """

    atoms: float
    fetched_bytes: float
    reads: float
    limits: Limits
    bank_ns: float

    def ns(self, device: Device) -> float:
        """Time without the start, refresh included."""
        terms = [float(limit) for limit in self.limits] + [self.bank_ns]
        norm = sum(x**dram.NORM for x in terms) ** (1.0 / dram.NORM)
        return float(self.atoms * norm * float(device.refresh))


def passage(
    device: Device, ports: int, window: float, stream: Stream, mapping: str = "group", trc_ns: float = 0.0
) -> Passage:
    """The closed form of one stream.

    Args:
        mapping: as in `dse.hardware.dram`, without its hashed channel.
        trc_ns: time between activations of one bank; for shuffled streams.
    """
    atom = float(device.atom_bytes)
    keep = _array(min(1.0, stream.rows / stream.population))
    if stream.shuffled:
        return _shuffled(device, ports, window, stream, mapping, trc_ns)
    start = dram.start_probability(stream.population, stream.rows, stream.runs)
    touch = dram.touched(keep, start, *dram.overlap_slots(stream.row_bytes, stream.pitch_bytes, atom))
    span = _array(stream.population * stream.pitch_bytes / atom)
    run = _array(stream.rows / max(stream.runs, 1e-12))
    size, pitch = _array(stream.row_bytes), _array(stream.pitch_bytes)
    reads = dram.reads_per_activation(
        device, _array(ports), keep, start, run, touch, size, pitch, span, mapping
    )
    limits = dram.atom_limits(device, _array(ports), _array(window), reads, dram.unevenness(touch), mapping)
    load = channel_load(device, ports, stream, float(keep), float(start), mapping)
    return Passage(
        atoms=float(touch * span) / ports * load,
        fetched_bytes=float(touch * span) * atom,
        reads=float(reads),
        limits=limits,
        bank_ns=0.0,
    )


def channel_load(
    device: Device, ports: int, stream: Stream, keep: float, start: float, mapping: str
) -> float:
    """Atoms of the busiest port over those of the mean one."""
    if ports == 1:
        return 1.0
    atom, page = int(device.atom_bytes), int(device.page_bytes)
    span = stream.population * stream.pitch_bytes
    per_unit = page // atom if mapping == "page" else 1
    # Whole periods of the layout and of the channels, unless the stream is shorter.
    period = int(np.lcm(stream.pitch_bytes, ports * per_unit * atom))
    units = int(min(np.ceil(span / atom), max(period // atom, 1), LONGEST))
    begin = np.arange(units) * atom
    first = (begin - stream.row_bytes) // stream.pitch_bytes + 1
    last = np.minimum((begin + atom - 1) // stream.pitch_bytes, np.ceil(stream.population) - 1)
    rows = np.maximum(0, last - np.maximum(first, 0) + 1)
    touch = np.where(rows > 0, 1.0 - (1.0 - keep) * (1.0 - start) ** np.maximum(rows - 1, 0), 0.0)
    loads = np.bincount(np.arange(units) // per_unit % ports, weights=touch, minlength=ports)
    return float(loads.max() / loads.mean()) if loads.any() else 1.0


def _shuffled(
    device: Device, ports: int, window: float, stream: Stream, mapping: str, trc_ns: float
) -> Passage:
    """Rows in random order: each opens its pages anew, unless another one in sight wants the same page."""
    atom, page = float(device.atom_bytes), float(device.page_bytes)
    offsets = np.arange(int(np.lcm(stream.pitch_bytes, int(atom))) // stream.pitch_bytes) * stream.pitch_bytes
    each = float(np.mean((offsets + stream.row_bytes - 1) // atom - offsets // atom + 1))
    ways = {"page": 1.0, "atom": float(ports), "group": float(ports * device.groups)}[mapping]
    sight = min(2.0 * dram.QUEUE, window / ports)
    pages = max(stream.population * stream.pitch_bytes / page / ports, 1.0)
    reads = max(1.0, each / ways) * (1.0 + sight / pages)
    reads = min(reads, page / atom)
    banks = float(device.groups * device.banks_per_group)
    open_rows = sight / reads
    effective = banks * open_rows / (open_rows + 0.68 * (banks - 1.0))
    limits = dram.atom_limits(device, _array(ports), _array(window), _array(reads), _array(1.0), mapping)
    atoms = stream.rows * each
    return Passage(
        atoms=atoms / ports,
        fetched_bytes=atoms * atom,
        reads=reads,
        limits=limits,
        bank_ns=trc_ns / (reads * effective),
    )
