"""A tiny random Llama and a tiny text: everything but the weights' meaning."""

from __future__ import annotations

import numpy as np
import pytest

from dse.measure.calibrate import calibrate, load_scales, save_scales
from dse.measure.material import Window, prepare
from dse.models.decoder import Decoder, Layer, Weights


def tiny_llama(
    layers=3, heads=4, kv_heads=2, dim=32, head_dim=8, vocabulary=50, hidden=48, seed=0
) -> Decoder:
    rng = np.random.default_rng(seed)

    def matrix(rows, columns, gain=1.0):
        return (gain * rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    blocks = tuple(
        Layer(
            np.ones(dim, np.float32),
            matrix((heads + 2 * kv_heads) * head_dim, dim, 2.0),
            matrix(dim, heads * head_dim),
            np.ones(dim, np.float32),
            matrix(2 * hidden, dim),
            matrix(dim, hidden),
        )
        for _ in range(layers)
    )
    embedding = matrix(vocabulary, dim, 3.0)
    weights = Weights(embedding, blocks, np.ones(dim, np.float32), embedding)
    return Decoder(weights, query_heads=heads, kv_heads=kv_heads, head_dim=head_dim)


@pytest.fixture(scope="session")
def model():
    return tiny_llama()


@pytest.fixture(scope="session")
def chosen():
    rng = np.random.default_rng(1)
    return [Window(f"text{i}", 0, rng.integers(0, 50, 65)) for i in range(3)]


@pytest.fixture(scope="session")
def folders(model, chosen, tmp_path_factory):
    return list(prepare(model, chosen, tmp_path_factory.mktemp("dense")))


@pytest.fixture(scope="session")
def scales(model, chosen, tmp_path_factory):
    path = tmp_path_factory.mktemp("scales") / "scales.npz"
    save_scales(path, calibrate(model, chosen))
    return load_scales(path)
