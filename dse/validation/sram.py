"""SRAM: the interpolated table predicts capacities that were left out of it, and published accesses."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Final

import numpy as np

from dse.hardware import sram
from dse.validation.row import Row

SOURCE: Final = "CACTI 7 runs, dse/hardware/data/sram_cacti7.csv"
TITLES: Final = {
    "read_pj": "read energy",
    "write_pj": "write energy",
    "area_mm2": "area",
    "leakage_mw": "leakage",
}
PUBLISHED: Final = (
    # node, KiB, pJ per 64 bit read, source, tolerance
    (45, 8, 10.0, "Horowitz, ISSCC 2014"), (45, 32, 20.0, "Horowitz, ISSCC 2014"),
    (45, 1024, 100.0, "Horowitz, ISSCC 2014"),
)  # fmt: skip


def left_out() -> dict[str, list[float]]:
    """Relative errors where a capacity is predicted from those on both its sides, by quantity."""
    text = (files("dse.hardware") / "data" / "sram_cacti7.csv").read_text(encoding="utf-8")
    simulated = {
        (float(r["node_nm"]), float(r["word_bits"]), float(r["capacity_bytes"])): r
        for r in csv.DictReader(text.splitlines())
    }
    found: dict[str, list[float]] = {name: [] for name in TITLES}
    for (node, width, capacity), row in simulated.items():
        sides = (node, width, capacity / 2), (node, width, capacity * 2)
        if not all(side in simulated for side in sides):
            continue
        below, above = (sram.macro(side[2], width, node) for side in sides)
        for name, scale in (("read_pj", 1e-12), ("write_pj", 1e-12), ("leakage_mw", 1e-3), ("area_mm2", 1.0)):
            attribute = {"read_pj": "read_j", "write_pj": "write_j", "leakage_mw": "leakage_w"}.get(
                name, name
            )
            # The middle of two capacities a factor of four apart, log-log, is their geometric mean.
            middle = float(np.sqrt(getattr(below, attribute) * getattr(above, attribute)))
            found[name].append(middle / (float(row[name]) * scale) - 1)
    return found


def rows() -> list[Row]:
    """Mean errors of left-out capacities, and published accesses."""
    result = []
    for name, values in left_out().items():
        errors = np.abs(values)
        result.append(
            Row("sram", f"mean error of {TITLES[name]}, one capacity left out", 0.0, float(errors.mean()), SOURCE,
                f"{len(errors)} macros with both neighbours; 90th percentile {np.quantile(errors, 0.9):.3f}",
                "independent", "1", 0.10, True)
        )  # fmt: skip
    for node, kib, picojoule, source in PUBLISHED:
        ours = float(sram.macro(kib * 1024, 64, node).read_j) * 1e12
        result.append(
            Row("sram", f"64-bit read of {kib} KiB at {node} nm", picojoule, ours, source,
                "low-standby-power cells at 350 K; the source names none", "independent", "pJ")
        )  # fmt: skip
    return result
