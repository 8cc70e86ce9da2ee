"""The model around attention: weights, projections and feed-forward, and what fits in memory.

Weights are streamed once per step for the whole batch; every position that passes through the blocks (the new
token of each sequence, rebuilt tokens, all tokens of a prompt) multiplies them. So extra positions are free
until the multipliers take longer than the stream:

    time = max(weight bytes / bandwidth, positions x multiply-adds / rate)

after attention (the two do not overlap: a layer needs the one before it).

Memory holds the weights (scope ``model``) and the keys and values of each sequence: all tokens of the context,
or, where a setting gives tokens back to memory for good (`Form.releases`), only the tokens it reads. Metadata is not
counted. Tokens that an algorithm never reads again but does not release are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.cost.budget import Buffers, fetch_j_byte, multiply_j
from dse.cost.ledger import ZERO, Ledger
from dse.cost.machine import Machine
from dse.cost.memory import windows
from dse.cost.workload import LARGEST, Workload
from dse.hardware import dram
from dse.profiles.schema import ModelShape

FloatArray = NDArray[np.float64]

ACTIVATION_BITS = 8


def weight_bytes(shape: ModelShape) -> float:
    """All weights a generated token multiplies."""
    return (shape.block_parameters + shape.head_parameters) * shape.weight_bits / 8


def cache_bytes(ledger: Ledger, workload: Workload) -> FloatArray:
    """Keys and values of one sequence that memory holds, [S, 1, ...]."""
    stats = ledger.stats
    shape = stats.shape
    heads = shape.layers * shape.kv_heads
    tokens = max(stats.n, float(workload.context))
    read = np.maximum(
        (stats.counters["k_rows_0"] * stats.weights).sum(axis=1),
        (stats.counters["v_rows"] * stats.weights).sum(axis=1),
    )
    # A query head with keys of its own counts its rows alone: both counters and tokens grow with the group.
    rows = np.where(stats.releases, read, heads * tokens * shape.group / stats.sharing)
    bits = (
        (stats.chunk_bits.sum(axis=1) + stats.v_bits) * shape.head_dim
        + stats.k_scale_bits
        + stats.v_scale_bits
    )
    return ledger.form(rows * bits / 8)


def batch_limit(ledger: Ledger, machine: Machine, workload: Workload) -> FloatArray:
    """Sequences that fit in memory, a whole number, 0 where not even the weights do."""
    room = machine.capacity_bytes - (weight_bytes(ledger.stats.shape) if workload.scope == "model" else 0.0)
    return np.asarray(np.floor(np.maximum(room, 0.0) / cache_bytes(ledger, workload)))


def sequences(ledger: Ledger, machine: Machine, workload: Workload) -> FloatArray:
    """The batch: a scalar, or the largest that fits (at least 1) per setting and design."""
    if workload.batch != LARGEST:
        return np.asarray(float(workload.batch))
    return np.asarray(np.maximum(batch_limit(ledger, machine, workload), 1.0))


def memory_fill(ledger: Ledger, machine: Machine, workload: Workload, batch: FloatArray) -> FloatArray:
    """Bytes held over capacity; beyond 1 the batch does not fit."""
    weights = weight_bytes(ledger.stats.shape) if workload.scope == "model" else 0.0
    return np.asarray((weights + batch * cache_bytes(ledger, workload)) / machine.capacity_bytes)


@dataclass(frozen=True)
class Rest:
    """One step of the model without its attention, [S, ...].

    Attributes:
        memory_s, compute_s: weights streamed; multiply-adds. The longer counts.
        dram_bytes: weights. dram_j, chip_j: energy but leakage and background; `fetch_j` is the part of the chip's
            that moves weights through the fetcher.
    """

    memory_s: FloatArray
    compute_s: FloatArray
    dram_bytes: float
    dram_j: FloatArray
    chip_j: FloatArray
    fetch_j: FloatArray

    @property
    def seconds(self) -> FloatArray:
        return np.asarray(np.maximum(self.memory_s, self.compute_s))


def positions(ledger: Ledger, workload: Workload, batch: FloatArray) -> FloatArray:
    """Positions that pass through the blocks in one step."""
    shape = ledger.stats.shape
    heads = shape.layers * shape.kv_heads
    own = ledger.heads(ledger.positions) / heads if ledger.prefill else np.ones(())
    if workload.scope == "attention":
        return np.asarray(batch * own)
    # A token is rebuilt in every layer and head; the mean over them is its number of passes.
    return np.asarray(batch * (own + ledger.total("rows_rebuilt") * ledger.share / heads))


def rest(ledger: Ledger, machine: Machine, workload: Workload, batch: FloatArray, banks: Buffers) -> Rest:
    """Projections, feed-forward and output head of one step; only one position per sequence needs the head."""
    m, shape = machine, ledger.stats.shape
    size = weight_bytes(shape)
    atoms = size / m.memory.atom_bytes
    window = windows(m)["key"]
    per_page = m.memory.page_bytes / m.memory.atom_bytes
    each = dram.atom_ns(m.memory, m.ports, window, per_page, ZERO) * 1e-9 / m.ports
    wide = np.ceil(shape.weight_bits / m["multiplier_bits"]) * np.ceil(ACTIVATION_BITS / m["operand_bits"])
    through = positions(ledger, workload, batch)
    products = through * shape.block_parameters + batch * shape.head_parameters
    passes = products * wide
    lanes = m["lanes"] + m["value_lanes"]
    opened = atoms / per_page * m.memory.activation_pj
    # Weights pass through the key buffer: written once, read for every position.
    reads = products * shape.weight_bits / 8
    buffered = size * banks.write_j_byte["key"] + reads * banks.read_j_byte["key"]
    crossing = size * fetch_j_byte(m)
    # Dot products with weights, summed as those with keys are.
    product_j = multiply_j(m) * m.constants["score_energy_factor"]
    return Rest(
        memory_s=atoms * each,
        compute_s=passes * m.cycle_s / (lanes * m["multipliers"]),
        dram_bytes=size,
        dram_j=(size * 8 * m.memory.bit_pj + opened) * 1e-12,
        chip_j=np.asarray(buffered + passes * product_j + crossing),
        fetch_j=crossing,
    )
