"""Names of the metrics a space may minimise, maximise or constrain, and where each comes from."""

from __future__ import annotations

from typing import Final

from dse.profiles.schema import ACCURACY

PRICED: Final = (
    "latency_s", "floor_s", "energy_j", "dram_bytes", "area_mm2", "power_w", "power_chip_w", "tokens_per_s",
    "attention_s", "attention_energy_j", "rest_s", "rest_energy_j", "batch", "batch_limit", "memory_fill",
)  # fmt: skip
"""Computed by `dse.cost.price`: of one step, attention alone or the whole model as the workload's scope says."""

DERIVED: Final = (
    "speedup", "speedup_same_hardware", "speedup_best_dense", "speedup_end_to_end", "attention_share",
    "energy_saving", "dram_reduction",
)  # fmt: skip
"""Computed by `dse.search` from prices, the baseline and dense attention."""

LARGEST: Final = 1e60
"""Most that a metric may be, in size: its square and a product of four are numbers still."""

MORE_IS_BETTER: Final = frozenset(
    {*DERIVED, "top1_agreement", "tokens_per_s", "batch_limit"} - {"attention_share"}
)
"""Metrics to maximise; of all others less is better, or (the batch) neither."""

METRICS: Final = (*DERIVED, *ACCURACY, *PRICED)
"""Every numeric metric of a point, in the order of `front.csv`."""
