"""What each metric is called on an axis, in which unit, and which way is better.

Of what - attention alone, or the whole model - stands in the title of a chart: `WorkloadSpec.words`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Label:
    """Attributes:
    title: name in words.
    unit: shown unit; "" for ratios and shares.
    scale: shown value = stored value (SI) x `scale`.
    larger_is_better: None where there is no better.
    log: whether values usually span decades.
    """

    title: str
    unit: str = ""
    scale: float = 1.0
    larger_is_better: bool | None = None
    log: bool = False

    @property
    def axis(self) -> str:
        """Axis label: name and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


METRICS: Final[dict[str, Label]] = {
    "speedup": Label("speedup over the baseline", "x", larger_is_better=True, log=True),
    "speedup_same_hardware": Label(
        "speedup over dense on the same design", "x", larger_is_better=True, log=True
    ),
    "speedup_best_dense": Label("speedup over the best dense", "x", larger_is_better=True, log=True),
    "speedup_end_to_end": Label("end-to-end speedup", "x", larger_is_better=True, log=True),
    "attention_share": Label("share of attention in a step", larger_is_better=False),
    "nll_increase": Label("accuracy loss", "nats per token", larger_is_better=False),
    "nll_increase_distant": Label(
        "accuracy loss on distant context", "nats per token", larger_is_better=False
    ),
    "perplexity": Label("perplexity", larger_is_better=False),
    "perplexity_increase": Label("perplexity increase", larger_is_better=False),
    "nll_increase_low": Label("accuracy loss, low end", "nats per token", larger_is_better=False),
    "nll_increase_high": Label("accuracy loss, high end", "nats per token", larger_is_better=False),
    "kl_p99": Label("99th percentile of KL divergence from dense", "nats", larger_is_better=False, log=True),
    "kl_mean": Label("mean KL divergence from dense", "nats", larger_is_better=False, log=True),
    "top1_agreement": Label("top-1 agreement with dense", larger_is_better=True),
    "output_error": Label("attention output error, relative", larger_is_better=False, log=True),
    "latency_s": Label("latency", "µs", 1e6, larger_is_better=False, log=True),
    "floor_s": Label("latency floor", "µs", 1e6, larger_is_better=False, log=True),
    "energy_j": Label("energy", "µJ", 1e6, larger_is_better=False, log=True),
    "energy_saving": Label("energy saving over the baseline", "x", larger_is_better=True, log=True),
    "dram_bytes": Label("DRAM traffic", "MB", 1e-6, larger_is_better=False, log=True),
    "dram_reduction": Label("DRAM traffic reduction", "x", larger_is_better=True, log=True),
    "tokens_per_s": Label("tokens", "1/s", larger_is_better=True),
    "attention_s": Label("time of attention", "µs", 1e6, larger_is_better=False, log=True),
    "attention_energy_j": Label("energy of attention", "µJ", 1e6, larger_is_better=False, log=True),
    "rest_s": Label("time of the rest of a step", "µs", 1e6, larger_is_better=False, log=True),
    "rest_energy_j": Label("energy of the rest of a step", "µJ", 1e6, larger_is_better=False, log=True),
    "batch": Label("batch", "sequences"),
    "batch_limit": Label("largest batch that fits", "sequences", larger_is_better=True),
    "memory_fill": Label("share of memory filled"),
    "area_mm2": Label("area without DRAM", "mm²", larger_is_better=False, log=True),
    "power_w": Label("power with DRAM", "W", larger_is_better=False),
    "power_chip_w": Label("power of the chip", "W", larger_is_better=False),
}


_HARDWARE: Final[dict[str, str]] = {
    # parameters whose own name, less its unit, would read oddly
    "multiplier_bits": "multiplier width",
    "operand_bits": "multiplier width, query side",
    "clock_ghz": "clock",
    "node_nm": "technology node",
    "overhead_pj_per_op": "overhead per operation",
    "dram_channel_gbps": "bandwidth of a DRAM channel",
    "memory_gib": "memory capacity",
    "slow_gbps": "link to the slow memory",
    "pe_count": "multipliers of all lanes",
}


def label(name: str) -> Label:
    """The label of a column; a knob is shown by its own name, a hardware parameter by its own with its unit."""
    section, _, last = name.rpartition(".")
    if section != "hardware":
        return METRICS.get(name, Label(name.replace("_", " ")))
    from dse.hardware.parameters import PARAMETERS

    unit = PARAMETERS[last].unit if last in PARAMETERS else ""
    words = _HARDWARE.get(last) or last.removesuffix(f"_{unit.lower()}").replace("_", " ")
    return Label(words.replace("dram", "DRAM"), unit)


def brief(value: Any) -> str:
    """A knob or parameter value as one would type it: `0.001`, `1e-4`, `4+4+4`, `16`, `true`; "" for none."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (int, float)):
        return str(value)
    if value != 0 and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.6g}"
