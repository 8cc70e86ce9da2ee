"""A small made-up profile: three algorithms, two contexts, seeded numbers of sensible shapes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from dse.profiles.profile import COLUMN, Profile, build_profile
from dse.profiles.schema import (
    ACCURACY,
    HISTOGRAM_BINS,
    Form,
    ModelShape,
    Provenance,
    Setting,
)

SHAPE = ModelShape(
    layers=2, query_heads=4, kv_heads=2, head_dim=8, block_parameters=4000, head_parameters=500
)
CONTEXTS = (64, 128)
THRESHOLDS = (1e-4, 1e-3, 1e-2)
DEFAULTS: dict[str, dict[str, Any]] = {
    "dense": {"k_bits": 12, "v_bits": 12, "scale": "head"},
    "alpha": {"threshold": 1e-3, "chunks": "12", "flag": False},
    "beta": {"keep": 0.5},
}


def settings() -> list[Setting]:
    out = [
        Setting("dense", {"k_bits": k, "v_bits": v, "scale": "head"}, Form((k,), v, 12))
        for k, v in itertools.product((4, 8, 12), (4, 8, 12))
    ]
    for t, chunks in itertools.product(THRESHOLDS, ("6+6", "12")):
        bits = tuple(int(c) for c in chunks.split("+"))
        out.append(
            Setting(
                "alpha", {"threshold": t, "chunks": chunks, "flag": False}, Form(bits, 12, 12, v_after="row")
            )
        )
    out += [Setting("beta", {"keep": keep}, Form((8,), 8, 12)) for keep in (0.25, 0.5, 1.0)]
    return out


def fields(seed: int = 0, rows: list[Setting] | None = None, windows: int = 3) -> dict[str, Any]:
    """Arguments of `build_profile`."""
    rng = np.random.default_rng(seed)
    rows = settings() if rows is None else rows
    s, c = len(rows), len(CONTEXTS)
    counters = np.zeros((s, c, SHAPE.layers, SHAPE.kv_heads, len(COLUMN)), dtype=np.float32)
    accuracy = np.zeros((s, c, len(ACCURACY)))
    for i, setting in enumerate(rows):
        n = np.array(CONTEXTS)[:, None, None] * 0.875
        share = 1.0 if setting.algorithm == "dense" else rng.uniform(0.05, 0.9)
        kept = n * share * rng.uniform(0.8, 1.0, (c, SHAPE.layers, SHAPE.kv_heads))
        for scope, factor in (("group", 1.0), ("head", SHAPE.group)):
            counters[i, ..., COLUMN[f"{scope}.k_rows_0"]] = n * factor
            counters[i, ..., COLUMN[f"{scope}.k_runs_0"]] = factor
            counters[i, ..., COLUMN[f"{scope}.v_rows"]] = (n if share == 1.0 else kept) * factor
            counters[i, ..., COLUMN[f"{scope}.v_runs"]] = factor
            counters[i, ..., COLUMN[f"{scope}.rows_written"]] = 1
        counters[i, ..., COLUMN["pv_rows"]] = kept * SHAPE.group
        loss = 0.3 * 2.0**-setting.form.v_bits + 0.05 * (1 - share) + 0.001 * rng.normal(size=c)
        accuracy[i] = rng.uniform(0, 1, (c, len(ACCURACY)))
        accuracy[i, :, 0] = loss
        accuracy[i, :, 1], accuracy[i, :, 2] = loss - 0.002, loss + 0.002
        accuracy[i, :, 4] = 17.0 * np.exp(loss)
    histograms = rng.uniform(0, 1, (s, c, SHAPE.layers, SHAPE.kv_heads, 2, HISTOGRAM_BINS))
    return {
        "name": "tiny",
        "phase": "decode",
        "shape": SHAPE,
        "contexts": CONTEXTS,
        "settings": rows,
        "counters": counters,
        "histograms": histograms / histograms.sum(axis=-1, keepdims=True),
        "accuracy": accuracy,
        "window_nll": accuracy[:, :, :1] + 0.01 * rng.normal(size=(s, c, windows)),
        "mean_context": np.array(CONTEXTS) * 0.875,
        "baseline_perplexity": np.array([17.0, 16.0]),
        "provenance": Provenance(
            model="tiny",
            model_sha256="0" * 64,
            text="made up",
            text_sha256="1" * 64,
            windows=(("holmes", 0), ("history", 4096)),
            seed=seed,
            command="dse profile run --model tiny",
            versions={"numpy": "2"},
        ),
        "defaults": DEFAULTS,
    }


def profile(seed: int = 0, **changes: Any) -> Profile:
    return build_profile(**{**fields(seed), **changes})


def only(whole: Profile, keep: list[int]) -> Profile:
    """The profile with some of its rows, defaults of absent algorithms dropped."""
    rows = [whole.settings[i] for i in keep]
    present = {s.algorithm for s in rows}
    arrays = {f: getattr(whole, f)[keep] for f in ("counters", "histograms", "accuracy", "window_nll")}
    base = replace(whole, defaults={a: k for a, k in whole.defaults.items() if a in present})
    values = {f: getattr(base, f) for f in base.__dataclass_fields__ if f != "checksum"}
    return build_profile(**{**values, **arrays, "settings": rows})
