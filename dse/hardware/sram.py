"""SRAM macros: access energy, leakage and area by capacity, word width and node.

Between 22 and 65 nm: CACTI 7 runs (low-standby-power cells and periphery, one read-write port, 350 K),
log-log interpolated in capacity, width and node. CACTI must not be extrapolated below 22 nm (its 22 nm is
already below published 7 nm accesses), so from there down energy is interpolated towards the three accesses
published at 7 nm (Jouppi et al., ISCA 2021, Table 2: E = 7.2 + 0.21 sqrt(KiB) pJ per 64 bit, within 4 %),
area follows Stillmaker & Baas, and leakage stays at its 22 nm value, which is an assumption.

CACTI picks another internal organisation at some capacities, so a larger macro can come out cheaper. The
tables are made monotone in capacity, the nearest way (isotonic regression of the logarithms): a larger buffer
never costs less. Against published chips expect a
factor of 2 to 5 in area (20 KiB in 0.35 mm2 at 40 nm, Ham et al., HPCA 2020, is five times CACTI).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.hardware.technology import area_scale

FloatArray = NDArray[np.float64]

QUANTITIES: Final = ("read_pj", "write_pj", "leakage_mw", "area_mm2")
WIDTH_EXPONENT: Final = 0.6
"""Access energy goes with word width to about this power (0.58 to 0.65 over the CACTI runs)."""


@dataclass(frozen=True)
class Macro:
    """One macro's costs, broadcast over the arguments of `macro`."""

    read_j: FloatArray
    write_j: FloatArray
    leakage_w: FloatArray
    area_mm2: FloatArray


@dataclass(frozen=True)
class _Table:
    log_node: FloatArray  # [N] ascending
    log_capacity: FloatArray  # [C] ascending, bytes
    log_width: FloatArray  # [W] ascending, bits
    values: FloatArray  # [4, N, C, W] natural logs


def isotonic(line: FloatArray) -> FloatArray:
    """The nearest line that never falls (least squares): falling neighbours are pooled at their mean."""
    pools: list[tuple[float, int]] = []
    for value in line.tolist():
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, k) = pools[-2:]
            pools[-2:] = [((a * m + b * k) / (m + k), m + k)]
    return np.repeat([value for value, _ in pools], [size for _, size in pools])


@lru_cache(maxsize=1)
def _table() -> _Table:
    text = (files("dse.hardware") / "data" / "sram_cacti7.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    nodes = sorted({float(r["node_nm"]) for r in rows})
    capacities = sorted({float(r["capacity_bytes"]) for r in rows})
    widths = sorted({float(r["word_bits"]) for r in rows})
    values = np.full((len(QUANTITIES), len(nodes), len(capacities), len(widths)), np.nan)
    for r in rows:
        at = (
            nodes.index(float(r["node_nm"])),
            capacities.index(float(r["capacity_bytes"])),
            widths.index(float(r["word_bits"])),
        )
        values[(slice(None), *at)] = [np.log(float(r[q])) for q in QUANTITIES]
    log_width, log_capacity = np.log(widths), np.log(capacities)
    # CACTI finds no organisation for 1-2 KiB with very wide words: they cost what the next larger macro does.
    for q in range(len(QUANTITIES)):
        for n in range(len(nodes)):
            for w in range(len(widths)):
                line = values[q, n, :, w]
                known = ~np.isnan(line)
                line[~known] = np.interp(log_capacity[~known], log_capacity[known], line[known])
                values[q, n, :, w] = isotonic(line)
    return _Table(np.log(nodes), log_capacity, log_width, values)


def _position(x: FloatArray, grid: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Left grid index and fraction of each `x`, clamped to the grid."""
    inside = np.clip(x, grid[0], grid[-1])
    index = np.clip(np.searchsorted(grid, inside, side="right") - 1, 0, len(grid) - 2)
    return index, (inside - grid[index]) / (grid[index + 1] - grid[index])


def macro(capacity_bytes: ArrayLike, word_bits: ArrayLike, node_nm: ArrayLike) -> Macro:
    """Costs of one single-port macro, in joules per access, watts and mm2; arguments broadcast.

    Below 1 KiB area and leakage go down in proportion and access energy stays (periphery dominates); above
    8 MiB area and leakage go up in proportion and access energy with the square root. Words beyond the table
    (32 to 1,024 bits) are several macros side by side, or a narrow word of the narrowest.
    """
    t = _table()
    capacity, width, node = np.broadcast_arrays(
        np.asarray(capacity_bytes, dtype=np.float64),
        np.asarray(word_bits, dtype=np.float64),
        np.asarray(node_nm, dtype=np.float64),
    )
    macros = np.maximum(1.0, width / np.exp(t.log_width[-1]))  # side by side
    capacity, width = capacity / macros, width / macros
    log_c, log_w, log_n = np.log(capacity), np.log(width), np.log(node)
    (i, fi), (j, fj), (k, fk) = (
        _position(log_n, t.log_node),
        _position(log_c, t.log_capacity),
        _position(log_w, t.log_width),
    )
    found = np.zeros((len(QUANTITIES), *log_c.shape))
    for di, wi in ((0, 1 - fi), (1, fi)):
        for dj, wj in ((0, 1 - fj), (1, fj)):
            for dk, wk in ((0, 1 - fk), (1, fk)):
                found += t.values[:, i + di, j + dj, k + dk] * (wi * wj * wk)
    outside = log_c - np.clip(log_c, t.log_capacity[0], t.log_capacity[-1])
    found[:2] += 0.5 * np.maximum(outside, 0.0) + WIDTH_EXPONENT * np.minimum(0.0, log_w - t.log_width[0])
    found[2:] += outside
    # Below 22 nm: how far (in log node) from CACTI's last node towards the published accesses.
    below = np.clip((t.log_node[0] - log_n) / (t.log_node[0] - np.log(7.0)), 0.0, 1.0)
    published = np.log(7.2 + 0.21 * np.sqrt(capacity / 1024)) + WIDTH_EXPONENT * (log_w - np.log(64.0))
    found[:2] += below * (published - found[:2])
    values = np.exp(found) * macros
    shrink = np.where(log_n < t.log_node[0], area_scale(node, 22.0), 1.0)
    return Macro(values[0] * 1e-12, values[1] * 1e-12, values[2] * 1e-3, values[3] * shrink)
