"""The real model against Hugging Face transformers, on the same weights and token ids.

The reference numbers are in data/transformers_reference.json with their provenance. The weights are needed:
without them these tests fail and say how to get them; ``-m "not model"`` leaves them out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.models.catalog import known_model
from dse.models.decoder import Decoder
from dse.models.load import load_decoder
from dse.models.text import TEXT_SHA256, book

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "transformers_reference.json").read_text()
)

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def model() -> Decoder:
    return load_decoder("smollm2-135m")


def test_the_reference_is_of_this_model_and_text(model: Decoder) -> None:
    assert REFERENCE["model"]["sha256"] == model.sha256 == known_model("smollm2-135m").sha256
    assert REFERENCE["text"]["sha256"] == TEXT_SHA256
    shape = model.shape
    assert (shape.layers, shape.query_heads, shape.kv_heads, shape.head_dim) == (30, 9, 3, 64)
    assert (model.vocabulary, model.dim, model.context) == (49152, 576, 8192)
    assert shape.head_parameters == 49152 * 576
    assert shape.block_parameters == 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)


@pytest.mark.parametrize("window", REFERENCE["windows"], ids=lambda w: w["book"])
def test_perplexity_equals_transformers(model: Decoder, window: dict[str, Any]) -> None:
    first, count = window["first_token"], window["tokens"]
    tokens = book(window["book"], model.tokenizer)[first : first + count]
    assert hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest() == window["token_ids_sha256"]
    hidden = model.forward_dense(tokens[None])
    nll = model.nll(hidden[0, :-1], tokens[1:]).astype(np.float64)
    # Four digits are asked for; the two implementations agree to six.
    assert nll.mean() == pytest.approx(window["nll_whole"], rel=5e-6)
    assert nll[3 * count // 4 :].mean() == pytest.approx(window["nll_last_quarter"], rel=5e-6)
    assert np.exp(nll.mean()) == pytest.approx(window["perplexity_whole"], rel=2e-5)
    assert np.exp(nll[3 * count // 4 :].mean()) == pytest.approx(window["perplexity_last_quarter"], rel=2e-5)
    for position, value in window["nll_at"].items():
        assert nll[int(position)] == pytest.approx(value, abs=1e-3)


def test_special_tokens_are_never_added(model: Decoder) -> None:
    tokenizer = model.tokenizer
    text = "The capital of France is Paris. In 1805,\n\nit was."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|im_start|>").tolist() == [1]
