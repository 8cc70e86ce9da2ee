"""One dense attention head: what pen and paper say, and four public cost models within 3.2x of each other."""

from __future__ import annotations

from typing import Final

from dse.profiles.schema import Form
from dse.validation.bench import Bench, Work, dense_counts, shape
from dse.validation.row import Row

PEN: Final = "pen and paper"
HEAD: Final = "d 64, context 1024, 8 bit"
TABLE: Final = {"hbm2_bit_pj": 4.0, "hbm2_activation_pj": 0.0}
"""The energy table of the comparison: 4 pJ per DRAM bit, activations inside."""

NARROW: Final = {"dram_channels": 1, "dram_channel_gbps": 16.0}
ARRAYS: Final = (("16 x 16", 4, 524_288.0), ("32 x 32", 16, 131_072.0))


def rows() -> list[Row]:
    """Decode and prefill of one head on 16 bytes per cycle."""
    form = Form((8,), 8, 8)
    decode = Work(form, 1024, shape(1, 1), dense_counts(1024))
    bench = Bench("dense-array", {"lanes": 4, **NARROW}, TABLE)
    metrics, story = bench.price(decode), bench.story(decode)
    fetched = sum(v for k, v in story["energy_j"].items() if k in ("dram key", "dram value")) * 1e6
    machine = f"{HEAD}; dense-array with one channel of 16 GB/s at 1 GHz"
    result = [
        Row("dense", "decode: DRAM bytes", 131_200, metrics["dram_bytes"], PEN,
            f"{machine}; query and output, 128 B, stay on chip here", "independent", "B", 0.01),
        Row("dense", "decode: cycles at peak bandwidth", 8_200, metrics["floor_s"] * 1e9, PEN,
            f"{machine}; the floor, scores on chip", "independent", "cycles", 0.01),
        Row("dense", "decode: DRAM energy", 4.198, fetched, PEN,
            f"{machine}; 4 pJ per bit, no activations, no background", "independent", "uJ", 0.01),
        Row("dense", "decode: cycles with refresh, start-up, real DRAM", 8_200, metrics["latency_s"] * 1e9,
            f"{PEN} (AccelForge 8,328, ZigZag 8,390, SCALE-Sim 18,390 with scores off chip)", machine,
            "independent", "cycles"),
    ]  # fmt: skip
    prefill = Work(form, 1024, shape(1, 1), dense_counts(1024, 1024))
    for name, lanes, cycles in ARRAYS:
        on = Bench("dense-array", {"lanes": lanes, "exponent_units": lanes, **NARROW}, TABLE)
        result.append(
            Row("dense", f"prefill: cycles of QK and PV, {name} array", cycles, on.price(prefill)["latency_s"] * 1e9,
                PEN, f"{HEAD}, not causal; keys and values fetched once", "independent", "cycles", 0.05)
        )  # fmt: skip
    return result
