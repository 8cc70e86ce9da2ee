"""Memory traffic of one KV head: bytes, activations and time by stream.

Streams of kept rows (K chunk planes, K scales, V, V scales) follow the closed form of `dse.hardware.dram`
from their measured rows and runs. Everything else (metadata, writes, what a buffer could not hold) is
contiguous.

Buffers: half of each is the landing zone of requests in flight, so it caps the window; the other half of the
key buffer holds what a form wants to keep on chip: the scores of whole rows, then the K planes a second pass
needs again. What does not fit goes to DRAM and comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.cost.ledger import ZERO, Ledger
from dse.cost.machine import Machine
from dse.cost.statistics import CHUNK_ORDER, V_AFTER
from dse.hardware import dram
from dse.hardware.parameters import LAYOUTS

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """Per KV head, [K, S, ...]; seconds exclude start-up.

    Attributes:
        key_s, value_s: busiest port, one head alone (a short sparse stream spreads unevenly).
        even_s: keys and values spread evenly and fetched together, as when other heads fill the gaps: the
        activations of one stream hide under the columns of another.
        meta_s, write_s, refetch_s: metadata; new tokens; second passes and scores the key buffer could not
        hold.
        bytes: by stream name, fetched or written, whole atoms. useful_bytes: what was asked for.
        activations: by stream name.
    """

    key_s: FloatArray
    value_s: FloatArray
    even_s: FloatArray
    meta_s: FloatArray
    write_s: FloatArray
    refetch_s: FloatArray
    bytes: dict[str, FloatArray]
    useful_bytes: FloatArray
    activations: dict[str, FloatArray]


@dataclass(frozen=True)
class _Stream:
    name: str  # "key" or "value"
    rows: FloatArray  # [K, S, 1, ...]
    runs: FloatArray
    row_bytes: FloatArray  # [S, layouts...]
    pitch_bytes: FloatArray


def _streams(ledger: Ledger, machine: Machine) -> list[_Stream]:
    """The kept-row streams of the settings, absent ones left out."""
    stats, dim = ledger.stats, ledger.stats.shape.head_dim
    planes = machine["layout"] == LAYOUTS.index("planes")
    k_scale, v_scale = ledger.form(stats.k_scale_bits), ledger.form(stats.v_scale_bits)
    key_pitch = np.ceil((ledger.form(stats.chunk_bits.sum(axis=1)) * dim + k_scale) / 8)
    streams = []
    for c in range(stats.chunks):
        bits = ledger.form(stats.chunk_bits[:, c])
        rows, runs = ledger.count(f"k_rows_{c}"), ledger.count(f"k_runs_{c}")
        plane = np.ceil(bits * dim / 8)
        beside = (
            np.ceil((bits * dim + k_scale) / 8) if c == 0 else plane
        )  # scales travel with the first chunk
        streams.append(
            _Stream("key", rows, runs, np.where(planes, plane, beside), np.where(planes, plane, key_pitch))
        )
    value = np.ceil(ledger.form(stats.v_bits) * dim / 8)
    value_beside = np.ceil((ledger.form(stats.v_bits) * dim + v_scale) / 8)
    v_rows, v_runs = ledger.count("v_rows"), ledger.count("v_runs")
    v_pitch = np.where(planes, value, value_beside)
    streams.append(_Stream("value", v_rows, v_runs, v_pitch, v_pitch))
    for name, scale, like in (("key", k_scale, streams[0]), ("value", v_scale, streams[-1])):
        if scale.any() and planes.any():
            width = np.where(planes, np.ceil(scale / 8), 0.0)
            streams.append(_Stream(name, like.rows, like.runs, width, width))
    return [s for s in streams if s.rows.any() and s.row_bytes.any()]


def _kept(
    ledger: Ledger, machine: Machine, streams: list[_Stream], window: dict[str, FloatArray]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Seconds alone, atoms, activations of kept rows, each [streams, K, S, ...]; seconds of all streams
    together, evenly spread, [K, S, ...]."""
    if not streams:
        return ZERO, ZERO, ZERO, ZERO
    memory = machine.memory

    def stack(arrays: list[FloatArray], classes: bool) -> FloatArray:
        lifted = [a if classes else np.asarray(a)[None, ...] for a in arrays]
        wide = ledger.weights.ndim
        lifted = [a.reshape(*a.shape[:1], *(1,) * (wide - a.ndim), *a.shape[1:]) for a in lifted]
        return np.stack(np.broadcast_arrays(*lifted))

    rows = stack([s.rows for s in streams], True)
    runs = stack([s.runs for s in streams], True)
    row_bytes = stack([s.row_bytes for s in streams], False)
    pitch = stack([np.maximum(s.pitch_bytes, 1.0) for s in streams], False)
    windows = stack([window[s.name] for s in streams], False)
    population = ledger.stats.streams
    keep = np.minimum(1.0, rows / population)
    start = dram.start_probability(population, rows, runs)
    run = rows / np.maximum(runs, 1e-12)
    overlap, fraction = dram.overlap_slots(row_bytes, pitch, memory.atom_bytes)
    touch = dram.touched(keep, start, overlap, fraction)
    span = population * pitch / memory.atom_bytes
    atoms = touch * span
    channels = machine["dram_channels"]
    alone = even = np.full((), np.inf)
    activations: FloatArray = np.zeros(())
    used = 1
    while used <= channels.max():
        # A machine may leave channels idle, and for a small window that can be better: the best use of at
        # most that many channels is what makes more channels never slower.
        ports = used * memory.ports
        reads = dram.reads_per_activation(memory, ports, keep, start, run, touch, row_bytes, pitch, span)
        limits = dram.atom_limits(memory, ports, windows, reads, dram.unevenness(touch))
        each = dram.combined(memory, limits) * 1e-9
        column, activate, little = (np.sum(atoms / ports * limit, axis=0) for limit in limits)
        together = dram.combined(memory, (column, activate, little)) * 1e-9
        allowed = channels >= used
        alone = np.where(allowed, np.minimum(alone, dram.busiest(atoms, ports, touch) * each), alone)
        even = np.where(allowed, np.minimum(even, together), even)
        activations = np.where(channels == used, atoms / reads, activations)
        used *= 2
    return alone, atoms, activations, even


def traffic(ledger: Ledger, machine: Machine) -> Traffic:
    """Memory traffic of every class, setting and design."""
    stats, memory, shape = ledger.stats, machine.memory, ledger.stats.shape
    atom, ports = memory.atom_bytes, machine.ports
    key_half, value_half = machine["key_buffer_kib"] * 512, machine["value_buffer_kib"] * 512
    window = {
        "key": np.maximum(1.0, np.minimum(machine["outstanding_requests"], key_half / atom)),
        "value": np.maximum(1.0, np.minimum(machine["outstanding_requests"], value_half / atom)),
    }
    streams = _streams(ledger, machine)
    alone, atoms, activations, even = _kept(ledger, machine, streams, window)

    def of(values: FloatArray, name: str) -> FloatArray:
        chosen = [i for i, s in enumerate(streams) if s.name == name]
        return np.asarray(values[chosen].sum(axis=0)) if chosen else ZERO

    per_page = memory.page_bytes / atom
    dense_s = dram.atom_ns(memory, ports, window["key"], per_page, np.zeros(())) * 1e-9 / ports

    meta_read, meta_write = ledger.count("meta_read_bytes"), ledger.count("meta_write_bytes")
    meta_atoms = np.where(meta_read > 0, np.maximum(meta_read / atom, 1.0), 0.0) if meta_read.any() else ZERO
    # Writes: every plane of the new token opens a page of its own.
    planes = machine["layout"] == LAYOUTS.index("planes")
    plane_bits = [ledger.form(stats.chunk_bits[:, c]) * shape.head_dim for c in range(stats.chunks)]
    scales = [ledger.form(stats.k_scale_bits), ledger.form(stats.v_scale_bits)]
    value_bits = ledger.form(stats.v_bits) * shape.head_dim
    apart = [np.ceil(bits / 8 / atom) for bits in (*plane_bits, *scales, value_bits)]
    together = [
        np.ceil((sum(plane_bits, ZERO) + scales[0]) / 8 / atom),
        np.ceil((value_bits + scales[1]) / 8 / atom),
    ]
    row_atoms = np.where(planes, sum(apart, ZERO), sum(together, ZERO))
    row_opens = np.where(planes, sum((np.minimum(a, 1.0) for a in apart), ZERO), 2.0)
    written = ledger.count("rows_written")
    write_atoms = written * row_atoms
    write_opens = written * row_opens
    write_each = dram.atom_ns(
        memory, ports, machine["outstanding_requests"], row_atoms / row_opens, np.zeros(())
    )
    index_atoms = (
        np.where(meta_write > 0, np.maximum(meta_write / atom, 1.0), 0.0) if meta_write.any() else ZERO
    )
    write_s = write_atoms * write_each * 1e-9 / ports + index_atoms * dense_s

    spilled, again = _overflow(ledger, machine, key_half)
    refetch_atoms = (2 * spilled + again) / atom
    useful = meta_read + meta_write
    for s in streams:
        useful = useful + s.rows * s.row_bytes
    row_bytes = (sum(plane_bits, ZERO) + value_bits + sum(scales, ZERO)) / 8
    return Traffic(
        key_s=of(alone, "key"),
        value_s=of(alone, "value"),
        even_s=even,
        meta_s=meta_atoms * dense_s,
        write_s=write_s,
        refetch_s=refetch_atoms * dense_s,
        bytes={
            "key": of(atoms, "key") * atom,
            "value": of(atoms, "value") * atom,
            "meta": meta_atoms * atom,
            "write": (write_atoms + index_atoms) * atom,
            "refetch": refetch_atoms * atom,
        },
        useful_bytes=useful + written * row_bytes,
        activations={
            "key": of(activations, "key"),
            "value": of(activations, "value"),
            "meta": meta_atoms / per_page,
            "write": write_opens + index_atoms / per_page,
            "refetch": refetch_atoms / per_page,
        },
    )


def _overflow(ledger: Ledger, machine: Machine, room: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Bytes of row scores spilled, and of K planes fetched again for second passes, per KV head."""
    stats, shape = ledger.stats, ledger.stats.shape
    whole_row = (stats.v_after == V_AFTER.index("row")) | (stats.chunk_order == CHUNK_ORDER.index("row"))
    passes = ledger.count("second_passes")
    if not whole_row.any():
        return ZERO, ZERO
    rows = ledger.count("qk_rows_0")
    scores = np.where(ledger.form(whole_row) > 0, rows * machine.constants["score_bits"] / 8, 0.0)
    spilled = np.maximum(scores - room, 0.0)
    if not passes.any():
        return spilled, ZERO
    planes = ZERO
    for c in range(stats.chunks - 1):
        later = ledger.form(
            stats.chunk_bits[:, c + 1 :].sum(axis=1) > 0
        )  # the last plane is fetched by the pass
        planes = planes + later * ledger.count(f"k_rows_{c}") * ledger.form(stats.chunk_bits[:, c])
    planes = planes * shape.head_dim / 8
    missing = np.maximum(planes - np.maximum(room - scores, 0.0), 0.0)
    return spilled, missing * np.minimum(passes, shape.group / stats.sharing)
