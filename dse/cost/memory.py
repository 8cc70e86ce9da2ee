"""Memory traffic of one KV head: bytes, activations and time by stream.

In prefill the queries of a tile share a fetch; their operands and what is accumulated for them sit in the other
half of the buffers, and a tile they are too small for is taken in several rounds, each fetching the tile's rows
again (an upper bound: fewer queries want no more rows).

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
from dse.hardware.datapath import ACCUMULATOR_BITS
from dse.hardware.parameters import LAYOUTS, RESIDENCES

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
        keys_away: 1 where keys come from memory, 0 where they lie in the buffer. values_away: V alike.
        rounds: times a task goes through the rows of a tile, over all tiles; 1 in decode. together: queries of a
            round.
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
    rounds: FloatArray
    together: FloatArray
    keys_away: FloatArray
    values_away: FloatArray


@dataclass(frozen=True)
class _Stream:
    name: str  # "key" or "value"
    label: str
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
            _Stream(
                "key",
                f"K chunk {c}",
                rows,
                runs,
                np.where(planes, plane, beside),
                np.where(planes, plane, key_pitch),
            )
        )
    value = np.ceil(ledger.form(stats.v_bits) * dim / 8)
    value_beside = np.ceil((ledger.form(stats.v_bits) * dim + v_scale) / 8)
    v_rows, v_runs = ledger.count("v_rows"), ledger.count("v_runs")
    v_pitch = np.where(planes, value, value_beside)
    streams.append(_Stream("value", "V", v_rows, v_runs, v_pitch, v_pitch))
    for name, scale, like in (("key", k_scale, streams[0]), ("value", v_scale, streams[-1])):
        if scale.any() and planes.any():
            width = np.where(planes, np.ceil(scale / 8), 0.0)
            label = f"{name[0].upper()} scales"
            streams.append(_Stream(name, label, like.rows, like.runs, width, width))
    return [s for s in streams if s.rows.any() and s.row_bytes.any()]


@dataclass(frozen=True)
class Kept:
    """Kept-row streams side by side, each array [streams, K, S, ...].

    Attributes:
        names: buffer each lands in. labels: what each holds.
        keep, start, run: fraction of rows kept, chance that a run starts, mean run.
        row_bytes, pitch_bytes: layout. window: atoms that may be outstanding.
        touch: chance that an atom is touched. span: atoms from the first row to the last. atoms: touched ones, 0
            where the operand lies on chip.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    rows: FloatArray
    keep: FloatArray
    start: FloatArray
    run: FloatArray
    row_bytes: FloatArray
    pitch_bytes: FloatArray
    window: FloatArray
    touch: FloatArray
    span: FloatArray
    atoms: FloatArray

    def limits(self, machine: Machine, channels: float | FloatArray) -> tuple[FloatArray, dram.Limits]:
        """Reads per activation and the three limits of time per atom, on that many channels."""
        ports = channels * machine.memory.ports
        reads = dram.reads_per_activation(
            machine.memory, ports, self.keep, self.start, self.run, self.touch, self.row_bytes, self.pitch_bytes,
            self.span,
        )  # fmt: skip
        limits = dram.atom_limits(machine.memory, ports, self.window, reads, dram.unevenness(self.touch))
        return reads, limits


def windows(machine: Machine) -> dict[str, FloatArray]:
    """Atoms that may be outstanding by buffer: requests in flight, or half the buffer they land in."""
    atom = machine.memory.atom_bytes
    return {
        name: np.maximum(
            1.0, np.minimum(machine["outstanding_requests"], machine[f"{name}_buffer_kib"] * 512 / atom)
        )
        for name in ("key", "value")
    }


def from_dram(ledger: Ledger, machine: Machine) -> dict[str, FloatArray]:
    """By buffer: 1 where its operand comes from memory, 0 where it lies on chip."""
    stats = ledger.stats
    if not (machine["residence"] == RESIDENCES.index("buffers")).any():
        return {"key": np.ones(()), "value": np.ones(())}
    tokens = stats.streams
    found = {}
    for name, bits, scale in (
        ("key", stats.chunk_bits.sum(axis=1), stats.k_scale_bits),
        ("value", stats.v_bits, stats.v_scale_bits),
    ):
        size = tokens * ledger.form(bits * stats.shape.head_dim + scale) / 8
        fits = (machine["residence"] == RESIDENCES.index("buffers")) & (
            size <= machine[f"{name}_buffer_kib"] * 1024
        )
        found[name] = np.where(fits, 0.0, 1.0)
    return found


def kept_streams(ledger: Ledger, machine: Machine) -> Kept | None:
    """The kept-row streams of the settings; None where nothing is fetched."""
    streams = _streams(ledger, machine)
    if not streams:
        return None
    window = windows(machine)

    def stack(arrays: list[FloatArray], classes: bool) -> FloatArray:
        lifted = [a if classes else np.asarray(a)[None, ...] for a in arrays]
        wide = ledger.weights.ndim
        lifted = [a.reshape(*a.shape[:1], *(1,) * (wide - a.ndim), *a.shape[1:]) for a in lifted]
        return np.stack(np.broadcast_arrays(*lifted))

    rows = stack([s.rows for s in streams], True)
    runs = stack([s.runs for s in streams], True)
    row_bytes = stack([s.row_bytes for s in streams], False)
    pitch = stack([np.maximum(s.pitch_bytes, 1.0) for s in streams], False)
    population, atom = ledger.population, machine.memory.atom_bytes
    keep = np.minimum(1.0, rows / population)
    start = dram.start_probability(population, rows, runs)
    touch = dram.touched(keep, start, *dram.overlap_slots(row_bytes, pitch, atom))
    span = population * pitch / atom
    atoms = touch * span
    if (machine["residence"] == RESIDENCES.index("buffers")).any():
        away = from_dram(ledger, machine)
        atoms = atoms * stack([away[s.name] for s in streams], False)
    return Kept(
        names=tuple(s.name for s in streams),
        labels=tuple(s.label for s in streams),
        rows=rows,
        keep=keep,
        start=start,
        run=rows / np.maximum(runs, 1e-12),
        row_bytes=row_bytes,
        pitch_bytes=pitch,
        window=stack([window[s.name] for s in streams], False),
        touch=touch,
        span=span,
        atoms=atoms,
    )


def _times(kept: Kept | None, machine: Machine) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Seconds alone and activations, each [streams, K, S, ...]; seconds of all streams together, evenly
    spread, [K, S, ...]."""
    if kept is None:
        return ZERO, ZERO, ZERO
    memory, channels, atoms = machine.memory, machine["dram_channels"], kept.atoms
    alone = even = np.full((), np.inf)
    activations: FloatArray = np.zeros(())
    used = 1
    while used <= channels.max():
        # A machine may leave channels idle, and for a small window that can be better: the best use of at
        # most that many channels is what makes more channels never slower.
        ports = used * memory.ports
        reads, limits = kept.limits(machine, used)
        each = dram.combined(memory, limits) * 1e-9
        column, activate, little = (np.sum(atoms / ports * limit, axis=0) for limit in limits)
        together = dram.combined(memory, (column, activate, little)) * 1e-9
        allowed = channels >= used
        alone = np.where(allowed, np.minimum(alone, dram.busiest(atoms, ports, kept.touch) * each), alone)
        even = np.where(allowed, np.minimum(even, together), even)
        activations = np.where(channels == used, atoms / reads, activations)
        used *= 2
    return alone, activations, even


def traffic(ledger: Ledger, machine: Machine) -> Traffic:
    """Memory traffic of every class, setting and design."""
    stats, memory, shape = ledger.stats, machine.memory, ledger.stats.shape
    atom, ports = memory.atom_bytes, machine.ports
    kept = kept_streams(ledger, machine)
    alone, activations, even = _times(kept, machine)
    atoms = ZERO if kept is None else kept.atoms
    rounds, queries = _rounds(ledger, machine)
    if ledger.prefill and kept is not None:
        again = rounds / ledger.tiles
        alone, activations, even, atoms = (values * again for values in (alone, activations, even, atoms))
    names = () if kept is None else kept.names

    away = from_dram(ledger, machine)

    def of(values: FloatArray, name: str) -> FloatArray:
        chosen = [i for i, stream in enumerate(names) if stream == name]
        return np.asarray(values[chosen].sum(axis=0)) if chosen else ZERO

    per_page = memory.page_bytes / atom
    dense_s = dram.atom_ns(memory, ports, windows(machine)["key"], per_page, np.zeros(())) * 1e-9 / ports

    meta_read = ledger.count("meta_read_bytes") * away["key"]
    meta_write = ledger.count("meta_write_bytes") * away["key"]
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
    row_bytes = (sum(plane_bits, ZERO) + value_bits + sum(scales, ZERO)) / 8
    if ledger.prefill:  # consecutive tokens fill whole atoms and pages
        row_atoms = row_bytes / atom
        row_opens = row_atoms / per_page
    written = ledger.count("rows_written") * np.maximum(away["key"], away["value"])
    write_atoms = written * row_atoms
    write_opens = written * row_opens
    write_each = dram.atom_ns(
        memory, ports, machine["outstanding_requests"], row_atoms / row_opens, np.zeros(())
    )
    index_atoms = (
        np.where(meta_write > 0, np.maximum(meta_write / atom, 1.0), 0.0) if meta_write.any() else ZERO
    )
    write_s = write_atoms * write_each * 1e-9 / ports + index_atoms * dense_s

    spilled, fetched_again = _overflow(ledger, machine, rounds, queries)
    refetch_atoms = (2 * spilled + fetched_again * away["key"]) / atom
    useful = meta_read + meta_write
    for stream in _streams(ledger, machine):
        useful = useful + stream.rows * stream.row_bytes * away[stream.name]
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
        rounds=rounds,
        together=queries,
        keys_away=away["key"],
        values_away=away["value"],
    )


def _whole_row(ledger: Ledger) -> NDArray[np.bool_]:
    """Settings whose scores wait on chip until their row is complete."""
    stats = ledger.stats
    return np.asarray(
        (stats.v_after == V_AFTER.index("row")) | (stats.chunk_order == CHUNK_ORDER.index("row"))
    )


def _scores(ledger: Ledger, machine: Machine) -> FloatArray:
    """Bytes of scores that wait per query position, all heads of the group."""
    rows = ledger.count("qk_rows_0") / ledger.positions
    return np.where(ledger.form(_whole_row(ledger)) > 0, rows * machine.constants["score_bits"] / 8, 0.0)


def _rounds(ledger: Ledger, machine: Machine) -> tuple[FloatArray, FloatArray]:
    """Rounds of a task and queries of each."""
    if not ledger.prefill:
        return np.ones(()), np.ones(())
    stats = ledger.stats
    heads, dim = stats.sharing, stats.shape.head_dim
    query = heads * dim * ledger.form(stats.q_bits) / 8
    waiting = _scores(ledger, machine) * (heads / stats.shape.group)
    in_key = machine["key_buffer_kib"] * 512 / (query + waiting)
    in_value = machine["value_buffer_kib"] * 512 / (heads * dim * ACCUMULATOR_BITS / 8)
    fit = np.maximum(1.0, np.floor(np.minimum(in_key, in_value)))
    each = np.ceil(ledger.tile / fit)
    return ledger.tiles * each, ledger.tile / each


def _overflow(
    ledger: Ledger, machine: Machine, rounds: FloatArray, together: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Bytes of row scores spilled, and of K planes fetched again for second passes, per KV head."""
    stats, shape = ledger.stats, ledger.stats.shape
    passes = ledger.count("second_passes")
    if not _whole_row(ledger).any():
        return ZERO, ZERO
    room = machine["key_buffer_kib"] * 512
    scores = _scores(ledger, machine)
    spilled = np.maximum(scores - room, 0.0) * ledger.positions
    if not passes.any():
        return spilled, ZERO
    planes = ZERO
    for c in range(stats.chunks - 1):
        later = ledger.form(
            stats.chunk_bits[:, c + 1 :].sum(axis=1) > 0
        )  # the last plane is fetched by the pass
        planes = planes + later * ledger.count(f"k_rows_{c}") * ledger.form(stats.chunk_bits[:, c])
    planes = planes / ledger.tiles * shape.head_dim / 8
    missing = np.maximum(planes - np.maximum(room - scores * together, 0.0), 0.0)
    return spilled, missing * np.minimum(passes, rounds * (shape.group / stats.sharing))
