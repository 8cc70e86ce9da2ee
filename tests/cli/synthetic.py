"""A small profile made by pen: plausible counts and losses of the quickstart's algorithms, no model run."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from dse.algorithms.dense import Dense
from dse.algorithms.spatten import SpAtten
from dse.algorithms.token_picker import TokenPicker
from dse.profiles.profile import COLUMN, Profile, build_profile
from dse.profiles.schema import ACCURACY, HISTOGRAM_BINS, ModelShape, Provenance, Setting

CONTEXT = 1024
VISIBLE = 896.5  # mean over positions 768..1024
WINDOWS = 6


def synthetic_profile(name: str = "tiny", layers: int = 2) -> Profile:
    """`layers` identical layers of two KV heads with three query heads each, one context."""
    shape = ModelShape(
        layers=layers,
        query_heads=6,
        kv_heads=2,
        head_dim=64,
        block_parameters=layers * 3_500_000,
        head_parameters=28_000_000,
    )
    rows = [
        _dense(bits, scale) for bits in (4, 5, 6, 7, 8, 10, 12, 16) for scale in ("head", "token", "channel")
    ]
    rows += [
        _token_picker(threshold, chunks, margin)
        for threshold, chunks, margin in itertools.product(
            (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), ("4+4+4", "6+6", "12", "4+4"), (0.5, 1.0)
        )
    ]
    rows += [
        _spatten(keep, value_keep)
        for keep, value_keep in itertools.product((0.3, 0.5, 0.7, 0.9), (0.3, 0.6, 1.0))
    ]
    count = len(rows)
    counters = np.zeros((count, 1, layers, shape.kv_heads, len(COLUMN)), np.float32)
    histograms = np.zeros((count, 1, layers, shape.kv_heads, 2, HISTOGRAM_BINS), np.float32)
    accuracy = np.full((count, 1, len(ACCURACY)), np.nan)
    window = np.zeros((count, 1, WINDOWS))
    for i, (_, counts, loss) in enumerate(rows):
        for column, value in counts.items():
            counters[i, ..., COLUMN[column]] = value
        for which, value in enumerate(
            (counts["group.v_rows"], counts["group.v_rows"] / counts["group.v_runs"])
        ):
            histograms[i, ..., which, min(HISTOGRAM_BINS - 1, 1 + int(math.log2(max(1.0, value))))] = 1
        half = 0.0004 + 0.1 * abs(loss)
        values = {
            "nll_increase": loss, "nll_increase_low": loss - half, "nll_increase_high": loss + half,
            "nll_increase_distant": 2 * loss, "perplexity": 22 * math.exp(loss),
            "perplexity_increase": 22 * (math.exp(loss) - 1), "kl_mean": abs(loss), "kl_p99": 5 * abs(loss),
            "top1_agreement": math.exp(-abs(loss)), "output_error": math.sqrt(abs(loss)),
        }  # fmt: skip
        accuracy[i, 0] = [values[column] for column in ACCURACY]
        window[i, 0] = loss
    return build_profile(
        name=name,
        phase="decode",
        shape=shape,
        contexts=(CONTEXT,),
        settings=[setting for setting, _, _ in rows],
        counters=counters,
        histograms=histograms,
        accuracy=accuracy,
        window_nll=window,
        mean_context=[VISIBLE],
        baseline_perplexity=[22.0],
        provenance=Provenance("none", "0" * 64, "none", "0" * 64, notes="made by pen for tests"),
        defaults={a.name: dict(a.defaults()) for a in (Dense, TokenPicker, SpAtten)},
    )


Row = tuple[Setting, dict[str, float], float]


def _counts(k_rows: list[float], v_rows: float, **work: float) -> dict[str, float]:
    """Fetches shared by a group of three that asks for 1.5 times what one head asks for."""
    counts = {"group.rows_written": 1.0, "head.rows_written": 3.0}
    for c, rows in enumerate(k_rows):
        head = rows if rows == VISIBLE else rows / 1.5
        runs = 1.0 if rows == VISIBLE else rows / 2.0
        counts |= {f"group.k_rows_{c}": rows, f"head.k_rows_{c}": 3 * head, f"qk_rows_{c}": 3 * head}
        counts |= {f"group.k_runs_{c}": runs, f"head.k_runs_{c}": 3 * runs}
    head = v_rows if v_rows == VISIBLE else v_rows / 1.5
    runs = 1.0 if v_rows == VISIBLE else v_rows / 2.0
    counts |= {"group.v_rows": v_rows, "head.v_rows": 3 * head, "pv_rows": 3 * head}
    counts |= {"group.v_runs": runs, "head.v_runs": 3 * runs}
    return counts | {"divisions": 3.0} | work


def _dense(bits: int, scale: str) -> Row:
    algorithm = Dense({"k_bits": bits, "v_bits": bits, "scale": scale})
    loss = (40.0 * 4.0**-bits if bits < 12 else -5e-5) * {"head": 8.0, "token": 1.0, "channel": 2.0}[scale]
    counts = _counts([VISIBLE], VISIBLE, exponentials=3 * VISIBLE)
    return Setting("dense", algorithm.settings, algorithm.form()), counts, loss


def _token_picker(threshold: float, chunks: str, margin: float) -> Row:
    algorithm = TokenPicker({"threshold": threshold, "chunks": chunks, "margin": margin})
    kept = min(1.0, 0.35 * (1e-4 / threshold) ** 0.35 * (0.9 if margin < 1 else 1.0))
    parts = len(algorithm.widths)
    k_rows = [VISIBLE * (1.0 if c == 0 else kept ** (c / parts)) for c in range(parts)]
    answers = sum(k_rows)
    counts = _counts(k_rows, VISIBLE * kept, exponentials=2 * answers, compares=answers, margins=3.0 * parts)
    loss = 3.0 * threshold * (1.2 if margin < 1 else 1.0) + (0.002 if chunks == "4+4" else 1e-4)
    return Setting("token-picker", algorithm.settings, algorithm.form()), counts, loss


def _spatten(keep: float, value_keep: float) -> Row:
    settings: dict[str, Any] = {"keep": keep, "value_keep": value_keep}
    algorithm = SpAtten(settings)
    rows = VISIBLE * (0.15 + 0.85 * keep)
    counts = _counts(
        [rows, 0.4 * rows], rows * value_keep, exponentials=1.4 * 3 * rows, compares=3 * rows,
        second_passes=1.2, row_waits=3.0, rank_calls=1.0, rank_elements=rows, rank_kept=rows * 0.9, importance_adds=3 * rows,
        select_calls=3.0 if value_keep < 1 else 0.0, select_elements=3 * rows if value_keep < 1 else 0.0,
        select_kept=3 * rows * value_keep if value_keep < 1 else 0.0,
    )  # fmt: skip
    loss = 0.2 * (1 - keep) ** 1.5 + 0.02 * (1 - value_keep) + 0.002
    return Setting("spatten", algorithm.settings, algorithm.form()), counts, loss
