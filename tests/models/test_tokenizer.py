"""The tokenizer built from a file, on a vocabulary small enough to tokenise by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.models.gguf import GgufFile
from dse.models.tokenizer import gguf_tokenizer


def pieces(file: GgufFile, text: str) -> list[str]:
    tokens = file.metadata["tokenizer.ggml.tokens"]
    return [tokens[i] for i in gguf_tokenizer(file).encode(text)]


def test_merges_apply_within_words(tiny_file: Path) -> None:
    file = GgufFile(tiny_file)
    assert pieces(file, "the them") == ["the", "Ġthe", "m"]
    assert pieces(file, "théa") == ["th", "Ã", "©", "a"]


def test_digits_stand_alone(tiny_file: Path) -> None:
    """Though the vocabulary has a merge for "12": digits are split before merging."""
    file = GgufFile(tiny_file)
    assert pieces(file, "a12") == ["a", "1", "2"]


def test_no_special_token_is_added(tiny_file: Path) -> None:
    tokenizer = gguf_tokenizer(GgufFile(tiny_file))
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.encode("<|special|>").tolist() == [0]
    assert tokenizer.vocabulary == 261
    assert tokenizer.encode("the").dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_survives_a_round_trip(tiny_file: Path, text: str) -> None:
    tokenizer = gguf_tokenizer(GgufFile(tiny_file))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "bert", "found 'bert', 'smollm'"),
        ("pre", "falcon", "'gpt2' with one of 'smollm', 'gpt-2', 'qwen2', 'llama-bpe' are supported"),
        ("model", "llama", "metadata has no 'tokenizer.ggml.scores'"),
        ("tokens", [], "empty or repeated"),
        ("tokens", ["a", "a"], "empty or repeated"),
        ("tokens", ["a", 1], "strings would be right"),
        ("merges", ["t h", "q"], "found 'q'"),
        ("merges", ["t zebra"], "found 't zebra'"),
        ("merges", "t h", "found a str; a list"),
    ],
)
def test_other_tokenizers_are_refused(tiny_file: Path, key: str, value: Any, message: str) -> None:
    file = GgufFile(tiny_file)
    file.metadata[f"tokenizer.ggml.{key}"] = value
    with pytest.raises(BadInput, match=f"^{tiny_file}: ") as caught:
        gguf_tokenizer(file)
    assert message in str(caught.value)


def test_the_checksum_follows_the_content(tiny_file: Path) -> None:
    file = GgufFile(tiny_file)
    first = gguf_tokenizer(file).sha256
    assert gguf_tokenizer(GgufFile(tiny_file)).sha256 == first
    file.metadata["tokenizer.ggml.merges"] = file.metadata["tokenizer.ggml.merges"][:-1]
    assert gguf_tokenizer(file).sha256 != first
