"""Hand-written profile rows of every system of the project, and of window and page selection.

Numbers are round guesses of the right size for a head of 1,000 visible tokens: what matters is that every counter
a system needs is there and gets a price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.profiles.schema import FETCH_COUNTERS, Form, ModelShape, counter_columns

N = 1000.0
GROUP = 2
SHAPE = ModelShape(
    layers=3, query_heads=4, kv_heads=2, head_dim=64, block_parameters=600_000, head_parameters=100_000
)


@dataclass(frozen=True)
class System:
    """Form and counters of one KV head; fetches for scope ``group``, scope ``head`` is twice that."""

    form: Form
    counts: dict[str, float]


def dense(bits: int = 12, n: float = N) -> System:
    return System(
        Form((bits,), bits, 12),
        {"k_rows_0": n, "k_runs_0": 1, "v_rows": n, "v_runs": 1, "rows_written": 1, "qk_rows_0": GROUP * n,
         "pv_rows": GROUP * n, "exponentials": GROUP * n, "divisions": GROUP},
    )  # fmt: skip


def kept(p: float, run: float = 0.0) -> tuple[float, float]:
    """Rows and runs of a kept fraction; independent rows unless a mean run is given."""
    rows = p * N
    return rows, rows / run if run else rows * (1 - p) + p


def _system(form: Form, **counts: float) -> System:
    return System(form, {**dense().counts, **counts})


def _rows(name: str, p: float, run: float = 0.0) -> dict[str, float]:
    rows, runs = kept(p, run)
    stem, _, chunk = name.partition("_")
    tail = f"_{chunk}" if chunk else ""
    return {f"{stem}_rows{tail}": rows, f"{stem}_runs{tail}": runs}


def token_picker(lag: int = -1) -> System:
    return _system(
        Form((4, 4, 4), 12, 12, v_after="token", lag=lag),
        **_rows("k_1", 0.96), **_rows("k_2", 0.126), **_rows("v", 1 / 12.1),
        qk_rows_1=GROUP * 0.96 * N, qk_rows_2=GROUP * 0.126 * N, pv_rows=GROUP * N / 12.1,
        exponentials=GROUP * 2 * 2.086 * N, compares=GROUP * 2.086 * N, margins=GROUP * 3,
    )  # fmt: skip


def spatten() -> System:
    return _system(
        Form((8, 4), 12, 12, v_after="row", chunk_order="row"),
        **{name: 0.1 * value for name, value in {"k_rows_1": N, "k_runs_1": 1}.items()},
        **_rows("v", 0.3), qk_rows_1=GROUP * 0.1 * N, pv_rows=GROUP * 0.3 * N, exponentials=GROUP * 1.1 * N,
        select_calls=GROUP, select_elements=GROUP * N, select_kept=GROUP * 0.3 * N,
        rank_calls=1, rank_elements=N, rank_kept=0.6 * N, importance_adds=GROUP * N,
        second_passes=0.2, row_waits=GROUP,
    )  # fmt: skip


def top_theta() -> System:
    return _system(
        Form((12,), 12, 12, v_after="token"),
        **_rows("v", 0.15, 3.0), pv_rows=GROUP * 0.12 * N, exponentials=GROUP * 0.12 * N, compares=GROUP * N,
        scalar_ops=GROUP * 200,
    )  # fmt: skip


def adore() -> System:
    return _system(
        Form((8,), 8, 12, k_scale_bits=16, v_scale_bits=16, releases=True),
        **_rows("k_0", 0.4, 5.0), **_rows("v", 0.4, 5.0), qk_rows_0=GROUP * 0.4 * N, pv_rows=GROUP * 0.4 * N,
        exponentials=GROUP * 0.4 * N, controller_macs=5e4, rank_calls=1, rank_elements=N, rank_kept=0.4 * N,
        meta_read_bytes=2000, meta_write_bytes=16, rows_written=2.5, rows_rebuilt=0.05, rows_reloaded=2.0,
    )  # fmt: skip


def a3() -> System:
    return _system(
        Form((9,), 9, 9, v_after="row"),
        **_rows("k_0", 0.2), **_rows("v", 0.05), qk_rows_0=GROUP * 0.2 * N, pv_rows=GROUP * 0.05 * N,
        exponentials=GROUP * 0.05 * N, compares=GROUP * 0.2 * N, search_steps=GROUP * N / 2, sort_elements=64,
        meta_read_bytes=64 * N * 2.25, meta_write_bytes=64 * 2.25, row_waits=2 * GROUP,
    )  # fmt: skip


def mnn_fast() -> System:
    return _system(
        Form((8,), 8, 12, v_after="row"),
        **_rows("v", 0.1), pv_rows=GROUP * 0.08 * N, compares=GROUP * N, row_waits=GROUP,
    )  # fmt: skip


def window(tokens: float = 256) -> System:
    return _system(
        Form((8,), 8, 12),
        k_rows_0=tokens, k_runs_0=2, v_rows=tokens, v_runs=2, qk_rows_0=GROUP * tokens, pv_rows=GROUP * tokens,
        exponentials=GROUP * tokens,
    )  # fmt: skip


def pages() -> System:
    return _system(
        Form((8,), 8, 12),
        **_rows("k_0", 0.25, 20.0), **_rows("v", 0.25, 20.0), qk_rows_0=GROUP * 0.25 * N, pv_rows=GROUP * 0.25 * N,
        exponentials=GROUP * 0.25 * N, estimate_macs=GROUP * 63 * 128, select_calls=GROUP,
        select_elements=GROUP * 63, select_kept=GROUP * 16, meta_read_bytes=63 * 128, meta_write_bytes=128 / 16,
    )  # fmt: skip


SYSTEMS: dict[str, System] = {
    "dense": dense(),
    "dense-6-bit": dense(6),
    "token-picker": token_picker(),
    "token-picker-lag-32": token_picker(32),
    "spatten": spatten(),
    "top-theta": top_theta(),
    "adore": adore(),
    "a3": a3(),
    "mnnfast": mnn_fast(),
    "window": window(),
    "pages": pages(),
}


def table(counts: dict[str, float], spread: float = 0.0) -> NDArray[np.float64]:
    """Counters [layers, kv_heads, columns]; `spread` scales sparse heads apart (0: all alike)."""
    columns = counter_columns()
    found = np.zeros((SHAPE.layers, SHAPE.kv_heads, len(columns)))
    heads = SHAPE.layers * SHAPE.kv_heads
    factor = (1.0 + spread * np.linspace(-1, 1, heads)).reshape(SHAPE.layers, SHAPE.kv_heads)
    for name, value in counts.items():
        sparse = (name.startswith("v_r") and counts["v_rows"] < N) or (
            name == "pv_rows" and value < GROUP * N
        )
        scaled = value * (factor if sparse else 1.0)
        if name in FETCH_COUNTERS:
            found[..., columns.index(f"group.{name}")] = scaled
            found[..., columns.index(f"head.{name}")] = scaled * GROUP
        else:
            found[..., columns.index(name)] = scaled
    return found


def prompt(system: System, length: int, tile: int) -> System:
    """A system's decode step made a prompt's pass: work for every query, fetches for every tile of them.

    Queries of a tile keep different tokens, so sparse streams fetch more than one query's rows per tile.
    """
    counts = dict(system.counts)
    tiles = -(-length // tile)
    visible = (length + tile) / 2
    for name, value in system.counts.items():
        if name in FETCH_COUNTERS and name.split("_")[0] in ("k", "v"):
            if "_rows" in name:
                keep = min(1.0, value / N)
                counts[name] = tiles * visible * (1.0 - (1.0 - keep) ** (1.0 + 0.1 * (tile - 1)))
                runs = name.replace("_rows", "_runs")
                counts[runs] = max(tiles * system.counts[runs] * visible / N, 1.0)
        elif "_runs" not in name:
            counts[name] = (
                value * length * (1.0 if name in ("rows_written", "divisions") else (length + 1) / 2 / N)
            )
    counts["rows_written"] = float(length)
    return System(system.form, counts)
