"""The price of one decode step on a processor (GPU or CPU): a roofline at published efficiencies, plus launches.

    time = max(operations / (efficiency x peak), bytes / (efficiency x bandwidth)) + launches x cost

once for attention and once for the remaining model; energy = attributed power x time. Form of the model:
Williams et al., "Roofline", CACM 2009, with a constant per started operation, because unfused attention of one
sequence on a GPU takes the same time whatever its length (Wang et al., HPCA 2021: 0.478 ms per layer on a
TITAN Xp). The processor computes dense attention at its own operand width; a batch shares weights, not keys.

Counted are the bytes that no program can avoid: keys and values read once, those of the new token and the
weights. A program that copies its cache (as eager frameworks do) shows as a lower efficiency, not as more bytes.
Queries, scores and outputs stay on chip.
"""

from __future__ import annotations

from dataclasses import dataclass

from dse.cost.workload import Workload
from dse.hardware.processors import Processor
from dse.profiles.schema import ModelShape


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
    """One decode step of all layers for the whole batch.

    Attributes:
        attention, rest: times of attention and of the remaining model.
        dram_bytes: compulsory bytes of attention.
        power_w: attributed to both.
    """

    attention: Time
    rest: Time
    dram_bytes: float
    power_w: float

    @property
    def latency_s(self) -> float:
        """Seconds of attention."""
        return self.attention.total_s

    @property
    def energy_j(self) -> float:
        """Joules of attention."""
        return self.power_w * self.latency_s

    @property
    def rest_s(self) -> float:
        """Seconds of the remaining model: projections, feed-forward, output head."""
        return self.rest.total_s

    @property
    def rest_energy_j(self) -> float:
        """Joules of the remaining model."""
        return self.power_w * self.rest_s


def price_processor(
    processor: Processor, shape: ModelShape, n: float, workload: Workload, grouped: bool = True
) -> ProcessorPrice:
    """What one decode step costs on a processor.

    Args:
        shape: geometry of the model; its `weight_bits` is replaced by the processor's.
        n: mean visible tokens.
        grouped: whether the query heads of a KV head share its fetches.
    """
    peak, bandwidth = processor["peak_tflops"] * 1e12, processor["memory_gbps"] * 1e9
    launch_s = shape.layers * processor["launch_us"] * 1e-6
    # A multiply-add is two operations; each query head takes one per element of K and one per element of V.
    operations = 4.0 * n * shape.head_dim * shape.query_heads * shape.layers * workload.batch
    read_for = shape.kv_heads if grouped else shape.query_heads
    rows = 2.0 * (n * read_for + shape.kv_heads) * shape.layers * workload.batch
    size = rows * shape.head_dim * processor["operand_bits"] / 8
    parameters = float(shape.block_parameters + shape.head_parameters)
    weights = parameters * processor["weight_bits"] / 8
    return ProcessorPrice(
        attention=Time(
            operations / (processor["attention_compute_efficiency"] * peak),
            size / (processor["attention_memory_efficiency"] * bandwidth),
            processor["attention_launches"] * launch_s,
        ),
        rest=Time(
            2.0 * parameters * workload.batch / (processor["rest_compute_efficiency"] * peak),
            weights / (processor["rest_memory_efficiency"] * bandwidth),
            processor["rest_launches"] * launch_s,
        ),
        dram_bytes=size,
        power_w=processor["power_w"],
    )
