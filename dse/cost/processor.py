"""The price of a step on a processor (GPU or CPU): a roofline at published efficiencies, plus launches.

    time = max(operations / (efficiency x peak), bytes / (efficiency x bandwidth)) + launches x cost

once for attention and once for the remaining model; energy = attributed power x time. Form of the model:
Williams et al., "Roofline", CACM 2009, with a constant per started operation, because unfused attention of one
sequence on a GPU takes the same time whatever its length (Wang et al., HPCA 2021: 0.478 ms per layer on a
TITAN Xp). A batch shares weights, not keys.

Counted are the bytes that no program can avoid: keys and values read once, those of the new token and the
weights. A program that copies its cache (as eager frameworks do) shows as a lower efficiency, not as more bytes.
Queries, scores and outputs stay on chip.

Dense attention needs a shape only (`price_processor`). A measured setting may run on a processor too
(`processor_metrics`): at the processor's own operand width, whole keys (no chunks), with the efficiencies of
dense attention and every other counted action at the peak rate. That flatters sparse settings: gathers reach
less of the bandwidth, and selections are no matrix products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.cost.statistics import Statistics
from dse.cost.workload import LARGEST, Workload
from dse.errors import BadInput
from dse.hardware.processors import Processor
from dse.profiles.schema import ModelShape

FloatArray = NDArray[np.float64]

ACTIONS = (
    "exponentials", "divisions", "compares", "select_elements", "rank_elements", "importance_adds", "search_steps",
    "sort_elements", "scalar_ops",
)  # fmt: skip
"""Counters that cost one operation each; multiply-adds cost two."""


@dataclass(frozen=True)
class Time:
    """Where the time of one part of a step goes, seconds; compute and memory overlap, launches do not."""

    compute_s: float
    memory_s: float
    launch_s: float

    @property
    def total_s(self) -> float:
        return max(self.compute_s, self.memory_s) + self.launch_s

    @property
    def bound(self) -> str:
        """The largest of the three: ``compute``, ``memory`` or ``launches``."""
        parts = {"compute": self.compute_s, "memory": self.memory_s, "launches": self.launch_s}
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class ProcessorPrice:
    """One step of all layers for the whole batch.

    Attributes:
        attention, rest: times of attention and of the remaining model.
        attention_bytes, weight_bytes: compulsory traffic of each.
        power_w: attributed to both.
        batch, batch_limit: sequences taken, and that fit. memory_fill: bytes held over capacity.
        tokens: tokens of a sequence that a step brings forth or takes in.
        whole: whether the remaining model is part of the unit of work.
    """

    attention: Time
    rest: Time
    attention_bytes: float
    weight_bytes: float
    power_w: float
    batch: float
    batch_limit: float
    memory_fill: float
    tokens: float
    whole: bool

    @property
    def attention_s(self) -> float:
        return self.attention.total_s

    @property
    def rest_s(self) -> float:
        """Seconds of the remaining model: projections, feed-forward, output head."""
        return self.rest.total_s

    @property
    def latency_s(self) -> float:
        """Seconds of the unit of work: attention, or the whole model."""
        return self.attention_s + (self.rest_s if self.whole else 0.0)

    @property
    def dram_bytes(self) -> float:
        """Compulsory bytes of the unit of work."""
        return self.attention_bytes + (self.weight_bytes if self.whole else 0.0)

    @property
    def energy_j(self) -> float:
        """Joules of the unit of work."""
        return self.power_w * self.latency_s

    @property
    def attention_energy_j(self) -> float:
        return self.power_w * self.attention_s

    @property
    def rest_energy_j(self) -> float:
        """Joules of the remaining model."""
        return self.power_w * self.rest_s

    @property
    def tokens_per_s(self) -> float:
        return self.batch * self.tokens / self.latency_s


@dataclass(frozen=True)
class _Demand:
    """What one sequence asks for in one step, all layers.

    Attributes:
        operations: of attention. rows: K or V rows read or written. bytes: beside rows. cached: K and V rows that
            memory holds. positions: tokens through the blocks.
    """

    operations: float
    rows: float
    bytes: float
    cached: float
    positions: float


def price_processor(
    processor: Processor, shape: ModelShape, n: float, workload: Workload, grouped: bool = True
) -> ProcessorPrice:
    """What one step of dense attention costs on a processor.

    Args:
        shape: geometry of the model; its `weight_bits` is replaced by the processor's.
        n: mean visible tokens of a query.
        grouped: whether the query heads of a KV head share its fetches.
    """
    prefill = workload.phase == "prefill"
    queries = max(float(workload.context), n) if prefill else 1.0
    read_for = shape.kv_heads if grouped else shape.query_heads
    visible = queries if prefill else n  # of a prompt every row is read once
    return _price(processor, shape, n, workload, _Demand(
        # A multiply-add is two operations; each query head takes one per element of K and one per element of V.
        operations=4.0 * n * queries * shape.head_dim * shape.query_heads * shape.layers,
        rows=2.0 * (visible * read_for + queries * shape.kv_heads) * shape.layers,
        bytes=0.0,
        cached=2.0 * max(n, float(workload.context)) * read_for * shape.layers,
        positions=queries,
    ))  # fmt: skip


def processor_metrics(processor: Processor, stats: Statistics, workload: Workload) -> dict[str, FloatArray]:
    """Metrics of measured settings on a processor: name -> [S], names as `dse.cost.price.METRICS`.

    Raises:
        BadInput: a setting reloads tokens from slow memory, to which a processor states no link.
    """
    prices = [_setting(processor, stats, workload, i) for i in range(stats.settings)]
    names = (
        "latency_s", "energy_j", "dram_bytes", "attention_s", "attention_energy_j", "rest_s", "rest_energy_j",
        "tokens_per_s", "batch", "batch_limit", "memory_fill", "power_w",
    )  # fmt: skip
    return {name: np.asarray([getattr(p, name) for p in prices], dtype=np.float64) for name in names}


def _setting(processor: Processor, stats: Statistics, workload: Workload, i: int) -> ProcessorPrice:
    shape = stats.shape
    heads = shape.layers * shape.kv_heads

    def total(name: str) -> float:
        return float((stats.counters[name][i] * stats.weights[i]).sum())

    if total("rows_reloaded"):
        raise BadInput(
            f"processor {processor.name}: a setting brings tokens back from slow memory; price it on an accelerator"
        )
    share = stats.sharing / shape.group  # of what is counted once per query head where nothing is shared
    written = total("rows_written") * share
    rebuilt = total("rows_rebuilt") * share
    products = total("qk_rows_0") + total("pv_rows")
    products = products * shape.head_dim + total("estimate_macs") + total("controller_macs")
    products += total("margins") * shape.head_dim
    tokens = max(stats.n, float(workload.context))
    read = total("k_rows_0") + total("v_rows")
    cached = read if rebuilt else 2.0 * heads * tokens / share
    # A rebuilt token passes through the blocks of all layers; counters hold it once per layer and KV head.
    own = written / heads if workload.phase == "prefill" else 1.0
    extra = rebuilt / heads if workload.scope == "model" else 0.0
    operations = 2.0 * products + sum(total(name) for name in ACTIONS)
    if workload.scope == "attention":
        operations += 2.0 * rebuilt / heads * shape.block_parameters
    return _price(processor, shape, stats.n, workload, _Demand(
        operations=operations,
        rows=read + 2.0 * written,
        bytes=total("meta_read_bytes") + total("meta_write_bytes"),
        cached=cached,
        positions=own + extra,
    ))  # fmt: skip


def _price(
    processor: Processor, shape: ModelShape, n: float, workload: Workload, demand: _Demand
) -> ProcessorPrice:
    peak, bandwidth = processor["peak_tflops"] * 1e12, processor["memory_gbps"] * 1e9
    launch_s = shape.layers * processor["launch_us"] * 1e-6
    row_bytes = shape.head_dim * processor["operand_bits"] / 8
    parameters = float(shape.block_parameters + shape.head_parameters)
    weights = parameters * processor["weight_bits"] / 8
    whole = workload.scope == "model"
    capacity, held = processor["memory_gib"] * 2.0**30, weights if whole else 0.0
    each = demand.cached * row_bytes
    limit = float(math.floor(max(capacity - held, 0.0) / each))
    batch = max(limit, 1.0) if workload.batch == LARGEST else float(workload.batch)
    size = (demand.rows * row_bytes + demand.bytes) * batch
    through = demand.positions * shape.block_parameters + shape.head_parameters
    return ProcessorPrice(
        attention=Time(
            demand.operations * batch / (processor["attention_compute_efficiency"] * peak),
            size / (processor["attention_memory_efficiency"] * bandwidth),
            processor["attention_launches"] * launch_s,
        ),
        rest=Time(
            2.0 * through * batch / (processor["rest_compute_efficiency"] * peak),
            weights / (processor["rest_memory_efficiency"] * bandwidth),
            processor["rest_launches"] * launch_s,
        ),
        attention_bytes=size,
        weight_bytes=weights,
        power_w=processor["power_w"],
        batch=batch,
        batch_limit=limit,
        memory_fill=(held + batch * each) / capacity,
        tokens=float(workload.context or n) if workload.phase == "prefill" else 1.0,
        whole=whole,
    )
