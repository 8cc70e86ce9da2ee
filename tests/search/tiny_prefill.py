"""A prefill profile measured on a tiny random network: every algorithm of the shipped space ``prefill``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dse.algorithms import build
from dse.measure.accuracy import accuracy
from dse.measure.calibrate import calibrate, load_scales, save_scales
from dse.measure.prefill import prefill_windows, prepare_prefill, score_prefill
from dse.measure.thresholds import calibrate_thresholds
from dse.models.decoder import Decoder, Layer, Weights
from dse.profiles.profile import Profile, build_profile
from dse.profiles.schema import ModelShape, Provenance, Setting

CONTEXT = 160
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dense", {}),
    ("dense", {"k_bits": 8, "v_bits": 8}),
    ("spatten", {"chunks": "12", "keep": 0.5, "value_keep": 1.0}),
    ("spatten", {"chunks": "12", "keep": 0.5, "value_keep": 0.4}),
    ("top-theta", {"k": 32}),
    ("mnnfast", {"threshold": 1e-3, "gate": True}),
)


def network(layers: int = 2, heads: int = 4, kv_heads: int = 2, dim: int = 32, head_dim: int = 8) -> Decoder:
    """A random Llama of a vocabulary of 50."""
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Any:
        return (gain * rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    ones = np.ones(dim, np.float32)
    blocks = tuple(
        Layer(
            ones,
            matrix((heads + 2 * kv_heads) * head_dim, dim, 2.0),
            matrix(dim, heads * head_dim),
            ones,
            matrix(96, dim),
            matrix(dim, 48),
        )
        for _ in range(layers)
    )
    embedding = matrix(50, dim, 3.0)
    return Decoder(
        Weights(embedding, blocks, ones, embedding), query_heads=heads, kv_heads=kv_heads, head_dim=head_dim
    )


def prefill_profile(folder: Path) -> Profile:
    """Six settings at one context; losses are measured, on a network that knows nothing."""
    model = network()
    rng = np.random.default_rng(7)
    texts = {"one": rng.integers(0, 50, 3000), "two": rng.integers(0, 50, 3000)}
    chosen = prefill_windows(texts, "selection", CONTEXT, 2, seed=0)
    (folder / "dense").mkdir(exist_ok=True)
    folders = list(prepare_prefill(model, chosen, folder / "dense"))
    save_scales(folder / "scales.npz", calibrate(model, chosen))
    scales = load_scales(folder / "scales.npz")
    settings, scores, defaults = [], [], {}
    for name, knobs in SETTINGS:
        algorithm = build(name, knobs)
        if name == "top-theta":
            tokens = np.stack([w.tokens[:CONTEXT] for w in chosen])
            algorithm.prepare(calibrate_thresholds(model, tokens, "post", algorithm.aims(2), 0.0))
        scores.append(score_prefill(model, algorithm, scales, chosen, folders))
        settings.append(Setting(name, algorithm.settings, algorithm.form()))
        defaults[name] = dict(type(algorithm).defaults())
    rows = [accuracy(score) for score in scores]
    return build_profile(
        name="tiny-prefill",
        phase="prefill",
        shape=ModelShape(2, 4, 2, 8, 20_000, 1_600),
        contexts=(CONTEXT,),
        settings=settings,
        counters=np.stack([s.counters for s in scores])[:, None],
        histograms=np.stack([s.histograms for s in scores])[:, None],
        tile_counters=np.stack([s.tile_counters for s in scores])[:, None],
        accuracy=np.stack([row for row, _ in rows])[:, None],
        window_nll=np.stack([each for _, each in rows])[:, None],
        mean_context=[(CONTEXT + 1) / 2],
        baseline_perplexity=[50.0],
        provenance=Provenance("tiny", "0" * 64, "random", "1" * 64),
        defaults=defaults,
    )
