"""ADORE (Zhang et al., Findings of ACL 2024): its one published number, on a processor like the one it ran on.

The paper prints that throughput improves by up to 221.8 % over full attention, but neither cache size nor rebuilt
tokens nor context nor batch. Read as "by" it is 3.218x, as "to" 2.218x. No constant here is set on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from dse.cost.processor import price_processor, processor_metrics
from dse.cost.workload import LARGEST, Workload
from dse.hardware.processors import Processor, load_processor, make_processor
from dse.profiles.schema import Form, ModelShape
from dse.validation.bench import Work
from dse.validation.row import Row

PAPER: Final = "Zhang et al., ACL 2024, abstract"
ARITHMETIC: Final = "worked by hand"
READINGS: Final = {"to 221.8 %": 2.218, "by 221.8 %": 3.218}

HEAD_PARAMETERS: Final = 32_000 * 4096
LLAMA: Final = ModelShape(32, 32, 32, 128, 6_740_000_000 - HEAD_PARAMETERS, HEAD_PARAMETERS, 16)
"""LLaMA-2-7B: 6.74e9 weights touched per token."""

CONTEXTS: Final = (1024, 2048, 4096, 8192)
CACHES: Final = (256, 512, 1024)
REBUILT: Final = (0, 1, 4)
BATCHES: Final = (1, 4, 8, 16, 32, 64)


def roofline() -> Processor:
    """An A100 with 80 GB that reaches its data sheet: no losses, no launches."""
    ideal = {
        f"{part}_{what}_efficiency": 1.0 for part in ("attention", "rest") for what in ("compute", "memory")
    }
    return make_processor("validation", "roofline", {**ideal, "launch_us": 0.0}, load_processor("a100-80gb"))


def _work(tokens: float, cached: float | None, rebuilt: int) -> Work:
    """One step of one head: dense over `tokens`, or over `cached` with rebuilt tokens."""
    read = tokens if cached is None else cached
    positions = 1 + (0 if cached is None else rebuilt)
    seen = read if cached is None else cached + positions
    counts = {
        "k_rows_0": read, "k_runs_0": 1.0, "v_rows": read, "v_runs": 1.0, "rows_written": float(positions),
        "qk_rows_0": positions * seen, "pv_rows": positions * seen, "exponentials": positions * seen,
        "divisions": positions * 128.0, "rows_rebuilt": positions - 1.0,
    }  # fmt: skip
    return Work(Form((16,), 16, 16, releases=cached is not None), tokens, LLAMA, counts)


@dataclass(frozen=True)
class Case:
    """One setting of the grid: tokens per second over dense attention, at one batch and at each one's largest."""

    tokens: int
    cached: int
    rebuilt: int
    batch: int
    equal: float
    capacity: float


def throughput(processor: Processor, work: Work, batch: int) -> tuple[float, float]:
    """Tokens per second, and how full memory is."""
    found = processor_metrics(processor, work.statistics(), Workload(batch=batch, scope="model"))
    return float(np.ravel(found["tokens_per_s"])[0]), float(np.ravel(found["memory_fill"])[0])


def grid() -> list[Case]:
    """All settings of the grid whose dense rival fits in memory."""
    processor = load_processor("a100-80gb")
    cases = []
    for tokens, cached, rebuilt in product(CONTEXTS, CACHES, REBUILT):
        if cached + rebuilt + 1 >= tokens:
            continue
        dense, ours = _work(tokens, None, 0), _work(tokens, cached, rebuilt)
        largest = throughput(processor, ours, LARGEST)[0] / throughput(processor, dense, LARGEST)[0]
        for batch in BATCHES:
            base, fill = throughput(processor, dense, batch)
            if fill <= 1:
                equal = throughput(processor, ours, batch)[0] / base
                cases.append(Case(tokens, cached, rebuilt, batch, equal, largest))
    return cases


def rows() -> list[Row]:
    """Worked checks, and where the published number is reached."""
    return [*_checks(), *_region()]


def _checks() -> Iterator[Row]:
    ideal = roofline()
    setting = "LLaMA-2-7B in 16 bit on an A100 80 GB at its data sheet's rates"

    def step(tokens: float, batch: int) -> float:
        return price_processor(ideal, LLAMA, tokens, Workload(batch=batch, scope="model")).latency_s

    yield Row("adore", "speedup at 4096 tokens, cache of 256, batch 16", 3.06, step(4096, 16) / step(256, 16),
              ARITHMETIC, setting, "identity", "x", 0.01)  # fmt: skip
    rest = price_processor(ideal, LLAMA, 256, Workload(scope="model")).rest
    yield Row("adore", "positions that one stream of weights pays for", 153, rest.memory_s / rest.compute_s,
              ARITHMETIC, f"{setting}; rebuilt tokens are free up to here", "identity", "positions", 0.01)  # fmt: skip
    two, one = (price_processor(ideal, LLAMA, n, Workload()).attention_bytes for n in (2, 1))
    yield Row("adore", "bytes of K and V per token", 524_288, two - one, ARITHMETIC, "LLaMA-2-7B in 16 bit",
              "identity", "B", 0.01)  # fmt: skip


def _region() -> Iterator[Row]:
    cases = grid()
    setting = (
        f"LLaMA-2-7B on a100-80gb at published efficiencies, whole model; {len(cases)} settings: contexts of "
        f"{_list(CONTEXTS)}, caches of {_list(CACHES)}, {_list(REBUILT)} tokens rebuilt, batches of {_list(BATCHES)} "
        "where full attention fits in memory; the paper's setting is not published"
    )
    for reading, times in READINGS.items():
        reached = [case for case in cases if case.equal >= times]
        where = "; ".join(_smallest(reached, tokens) for tokens in CONTEXTS)
        yield Row(
            "adore", f"settings {times}x faster at equal batch ('{reading}')", None, 100 * len(reached) / len(cases),
            PAPER, f"{setting}; {where}", "independent", "%",
        )  # fmt: skip
        enough = [case for case in cases if case.capacity >= times]
        yield Row(
            "adore", f"settings {times}x faster, each at its largest batch", None, 100 * len(enough) / len(cases), PAPER,
            f"the same settings; median {sorted(case.capacity for case in cases)[len(cases) // 2]:.1f}x", "independent",
            "%",
        )  # fmt: skip


def _list(values: Sequence[int]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"


def _smallest(reached: list[Case], tokens: int) -> str:
    """The least batch at which a context reaches a number, and with which cache."""
    here = [case for case in reached if case.tokens == tokens]
    if not here:
        return f"{tokens} tokens: never"
    case = min(here, key=lambda c: (c.batch, -c.cached, -c.rebuilt))
    return f"{tokens} tokens: from batch {case.batch} (cache {case.cached}, {case.rebuilt} rebuilt)"
