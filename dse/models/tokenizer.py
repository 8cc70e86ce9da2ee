"""Byte-level BPE built from the vocabulary and merges inside a GGUF file."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import IntArray
from dse.models.gguf import GgufFile

_SPECIAL: Final = 3  # `tokenizer.ggml.token_type` of control tokens

_SUPPORTED: Final = ("smollm",)
"""Pre-tokenisers (`tokenizer.ggml.pre`) known to be reproduced exactly."""


class Tokenizer:
    """Text to token ids and back, without special tokens at either end.

    Raises:
        BadInput: the file's tokenizer is not byte-level BPE with individual digits, or is inconsistent.
    """

    def __init__(self, file: GgufFile) -> None:
        model, pre = file.require("tokenizer.ggml.model", str), file.get("tokenizer.ggml.pre", "")
        if model != "gpt2" or pre not in _SUPPORTED:
            raise BadInput(
                f"{file.path}: tokenizer.ggml.model, .pre: found {model!r}, {pre!r}; "
                f"'gpt2' with one of {', '.join(map(repr, _SUPPORTED))} is supported"
            )
        tokens = _strings(file, "tokenizer.ggml.tokens")
        merges = _strings(file, "tokenizer.ggml.merges")
        kinds: list[Any] = file.get("tokenizer.ggml.token_type", [])
        vocabulary = {token: i for i, token in enumerate(tokens)}
        if not tokens or len(vocabulary) != len(tokens):
            raise BadInput(
                f"{file.path}: tokenizer.ggml.tokens: empty or repeated; unique tokens would be right"
            )
        pairs = []
        for merge in merges:
            left, _, right = merge.partition(" ")
            if not {left, right, left + right} <= vocabulary.keys():
                raise BadInput(
                    f"{file.path}: tokenizer.ggml.merges: found {merge!r}; 'a b' of tokens a, b, ab is right"
                )
            pairs.append((left, right))
        special = [token for token, kind in zip(tokens, kinds, strict=False) if kind == _SPECIAL]
        self._inner = _build(vocabulary, pairs, special)
        self.vocabulary = len(tokens)
        digest = hashlib.sha256("\n".join((pre, *tokens, "", *merges, "", *special)).encode())
        self.sha256 = digest.hexdigest()

    def encode(self, text: str) -> IntArray:
        """Token ids [T] of `text`."""
        # Offsets are never used; leaving them out is faster where the library can.
        fast = getattr(self._inner, "encode_batch_fast", self._inner.encode_batch)
        return np.array(fast([text], add_special_tokens=False)[0].ids, dtype=np.int64)

    def decode(self, tokens: IntArray) -> str:
        """The text of token ids [T], special tokens included."""
        text: str = self._inner.decode(np.asarray(tokens).tolist(), skip_special_tokens=False)
        return text


def _strings(file: GgufFile, key: str) -> list[str]:
    values: list[Any] = file.require(key, list)
    if not all(isinstance(value, str) for value in values):
        raise BadInput(f"{file.path}: {key}: found other values; strings would be right")
    return values


def _build(vocabulary: dict[str, int], merges: list[tuple[str, str]], special: list[str]) -> Any:
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    except ImportError:
        raise BadInput(
            "package tokenizers is not installed; run `pip install '.[lm]'` in the checkout"
        ) from None
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return inner
