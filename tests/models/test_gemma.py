"""The second known model: windows, a start token, a large vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from dse.models.catalog import known_model
from dse.models.decoder import Decoder
from dse.models.load import load_decoder
from dse.models.text import book

KNOWN = known_model("gemma-3-270m")

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not KNOWN.installed, reason=f"optional weights are missing; run `{KNOWN.install}`"),
]


@pytest.fixture(scope="module")
def model() -> Decoder:
    return load_decoder("gemma-3-270m")


def test_its_shape(model: Decoder) -> None:
    shape = model.shape
    assert (shape.layers, shape.query_heads, shape.kv_heads, shape.head_dim) == (18, 4, 1, 256)
    assert (model.vocabulary, model.dim, model.context) == (262144, 640, 32768)
    assert model.windows == (512, 512, 512, 512, 512, 0) * 3
    assert model.sha256 == KNOWN.sha256


def test_it_goes_on_as_other_implementations_do(model: Decoder) -> None:
    tokenizer = model.tokenizer
    prompt = "The capital of France is Paris. The capital of Germany is"
    tokens = np.concatenate(([tokenizer.bos], tokenizer.encode(prompt)))
    for _ in range(13):
        hidden = model.forward_dense(tokens[None])
        tokens = np.append(tokens, model.logits(hidden[0, -1]).argmax())
    answer = tokenizer.decode(tokens)
    assert answer == f"<bos>{prompt} Berlin. The capital of the United States is Washington, D."


def test_it_reads_prose_and_needs_its_start_token(model: Decoder) -> None:
    tokens = book("holmes", model.tokenizer)[10000:10257].copy()
    assert model.tokenizer.bos == 2

    def perplexity() -> float:
        hidden = model.forward_dense(tokens[None, :-1])
        return float(np.exp(model.nll(hidden[0, :-1], tokens[1:-1]).astype(np.float64).mean()))

    without = perplexity()
    tokens[0] = 2
    # 28 over four windows of 1024 tokens of other places; a wrong base, window or norm gives hundreds.
    assert perplexity() < 45
    assert without > 1.5 * perplexity()
