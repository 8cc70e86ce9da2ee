"""Text to token ids: from the vocabulary inside a GGUF file, or from a ``tokenizer.json``."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite, prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.inputs import read_text
from dse.models.arrays import IntArray
from dse.models.gguf import GgufFile

_NORMAL, _CONTROL, _USER, _BYTE = 1, 3, 4, 6  # values of `tokenizer.ggml.token_type`

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS: Final = {
    "smollm": "",
    "gpt-2": "",
    "qwen2": _CONTRACTIONS + r"\p{N}" + _REST,
    "llama-bpe": _CONTRACTIONS + r"\p{N}{1,3}" + _REST,
}
"""Byte-level pre-tokenisers (`tokenizer.ggml.pre`) and how they cut words; "" is GPT-2's own expression."""

MAX_BYTES: Final = 40 << 20
"""Most bytes of a ``tokenizer.json``; the largest known has 33 million."""

MAX_GROWTH: Final = 1000
MAX_PIECE: Final = 512
MAX_PIECES: Final = 4 << 20
"""Most characters of one piece of a SentencePiece vocabulary, and of all of them; large ones have 2 million."""

SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space in SentencePiece vocabularies."""


class Tokenizer:
    """Text to token ids and back, without special tokens at either end.

    Attributes:
        vocabulary: number of tokens; sha256: of everything that decides the ids.
        bos: the token that the model expects at the start of every text; None where it expects none.
    """

    def __init__(self, inner: Any, vocabulary: int, sha256: str, bos: int | None = None) -> None:
        self._inner = inner
        self.vocabulary = vocabulary
        self.sha256 = sha256
        self.bos = bos

    def encode(self, text: str) -> IntArray:
        """Token ids [T] of `text`. Raises `BadInput` where the tokenizer cannot take it apart."""
        # Offsets are never used; leaving them out is faster where the library can.
        fast = getattr(self._inner, "encode_batch_fast", self._inner.encode_batch)
        with _library_errors("tokenizer: cannot take this text apart"):
            return np.array(fast([text], add_special_tokens=False)[0].ids, dtype=np.int64)

    def decode(self, tokens: IntArray) -> str:
        """The text of token ids [T], special tokens included."""
        text: str = self._inner.decode(np.asarray(tokens).tolist(), skip_special_tokens=False)
        return text


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise BadInput(
            "package tokenizers is not installed; run `pip install '.[lm]'` in the checkout"
        ) from None
    return tokenizers


_STDERR: Final = threading.RLock()
"""The process has one stderr: of two threads that put it aside at once, one would put back the other's nothing."""


@contextmanager
def _library_errors(where: str) -> Iterator[None]:
    """What the library makes of inputs that it cannot handle becomes `BadInput`.

    It raises plain Exception, or panics: then it has written to the process's stderr before Python hears of it.
    """
    with _STDERR, _silent_stderr():
        try:
            yield
        except (KeyboardInterrupt, SystemExit, MemoryError, BadInput):
            raise
        except BaseException as error:  # a panic is no Exception
            raise BadInput(f"{where} ({(str(error) or type(error).__name__).splitlines()[0]})") from None


@contextmanager
def _silent_stderr() -> Iterator[None]:
    before = None
    with suppress(OSError, ValueError):  # no stderr, or one that is no file
        sys.stderr.flush()
        before = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    try:
        yield
    finally:
        if before is not None:
            os.dup2(before, 2)
            os.close(before)


def json_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a Hugging Face ``tokenizer.json``; BadInput where it is missing or damaged."""
    text = read_text(path, MAX_BYTES, "the model's tokenizer.json is needed")
    with _library_errors(f"{path}: not a tokenizer"):
        inner = _library().Tokenizer.from_str(text)
        if inner.normalizer is not None and _growth(json.loads(inner.normalizer.__getstate__())) > MAX_GROWTH:
            raise BadInput(
                f"{path}: normalizer: makes texts more than {MAX_GROWTH} times longer; none that does so is read"
            )
        return wrap(inner, hashlib.sha256(text.encode()).hexdigest())


def _growth(normalizer: Any) -> float:
    """How many times longer the steps of a normalizer can make a text, at most."""
    if not isinstance(normalizer, dict):
        return 1.0
    if "normalizers" in normalizer:
        return prod(map(_growth, normalizer["normalizers"]))
    if normalizer.get("type") == "Replace":
        found = normalizer["pattern"].get("String")
        # A pattern may match between any two characters.
        return (
            1.0 + len(normalizer["content"])
            if not found
            else max(1.0, len(normalizer["content"]) / len(found))
        )
    return 1.0 + len(normalizer.get("prepend", ""))


def wrap(inner: Any, sha256: str) -> Tokenizer:
    """A `tokenizers.Tokenizer` as ours: whole texts, and the start token that its post-processor puts in front."""
    inner.no_truncation()
    inner.no_padding()
    plain, special = (inner.encode("a", add_special_tokens=s).ids for s in (False, True))
    begins = len(special) > len(plain) and special[1 : 1 + len(plain)] == plain
    return Tokenizer(inner, inner.get_vocab_size(), sha256, special[0] if begins else None)


def gguf_tokenizer(file: GgufFile) -> Tokenizer:
    """The tokenizer in a GGUF file.

    Raises:
        BadInput: it is neither byte-level BPE with a known pre-tokeniser nor SentencePiece BPE, or inconsistent.
    """
    with _library_errors(f"{file.path}: tokenizer.ggml: not a tokenizer"):
        return _gguf_tokenizer(file)


def _gguf_tokenizer(file: GgufFile) -> Tokenizer:
    model, pre = file.require("tokenizer.ggml.model", str), file.get("tokenizer.ggml.pre", "")
    tokens = _strings(file, "tokenizer.ggml.tokens")
    if not tokens or len(set(tokens)) != len(tokens):
        raise BadInput(f"{file.path}: tokenizer.ggml.tokens: empty or repeated; unique tokens would be right")
    kinds: list[Any] = file.get("tokenizer.ggml.token_type", [])
    if model == "gpt2" and pre in _PATTERNS:
        inner, digest = _byte_level(file, pre, tokens, kinds)
        add_bos = file.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe")
    elif model == "llama":
        inner, digest = _sentence_piece(file, tokens, kinds)
        add_bos = file.get("tokenizer.ggml.add_bos_token", True)
    else:
        raise BadInput(
            f"{file.path}: tokenizer.ggml.model, .pre: found {model!r}, {pre!r}; "
            f"'llama', and 'gpt2' with one of {', '.join(map(repr, _PATTERNS))} are supported"
        )
    added = _library().AddedToken
    control = [t for t, kind in zip(tokens, kinds, strict=False) if kind == _CONTROL]
    inner.add_special_tokens([added(token, special=True, normalized=False) for token in control])
    bos = file.require("tokenizer.ggml.bos_token_id", int) if add_bos else None
    if bos is not None and not 0 <= bos < len(tokens):
        raise BadInput(
            f"{file.path}: tokenizer.ggml.bos_token_id: found {bos}; a token's number would be right"
        )
    return Tokenizer(
        inner, len(tokens), hashlib.sha256("\n".join((*digest, "", *control)).encode()).hexdigest(), bos
    )


def _strings(file: GgufFile, key: str) -> list[str]:
    values: list[Any] = file.require(key, list)
    if not all(isinstance(value, str) for value in values):
        raise BadInput(f"{file.path}: {key}: found other values; strings would be right")
    return values


def _byte_level(file: GgufFile, pre: str, tokens: list[str], kinds: list[Any]) -> tuple[Any, list[str]]:
    """BPE over bytes; returns the tokenizer and what decides its ids."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = _strings(file, "tokenizer.ggml.merges")
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise BadInput(
                f"{file.path}: tokenizer.ggml.merges: found {merge!r}; 'a b' of tokens a, b, ab is right"
            )
        pairs.append((left, right))
    library = _library()
    cutters = library.pre_tokenizers
    # Llama 3 takes a word that is a token as it is, whatever its merges.
    inner = library.Tokenizer(
        library.models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre == "llama-bpe")
    )
    pattern = _PATTERNS[pre]
    steps = [cutters.ByteLevel(add_prefix_space=False, use_regex=not pattern)]
    if pattern:
        steps.insert(0, cutters.Split(library.Regex(pattern), behavior="isolated"))
    if pre == "smollm":
        steps.insert(0, cutters.Digits(individual_digits=True))
    if pre == "qwen2":
        inner.normalizer = library.normalizers.NFC()
    inner.pre_tokenizer = cutters.Sequence(steps)
    inner.decoder = library.decoders.ByteLevel()
    user = [t for t, kind in zip(tokens, kinds, strict=False) if kind == _USER]
    inner.add_tokens([library.AddedToken(token, special=False, normalized=False) for token in user])
    return inner, [pre, *tokens, "", *merges]


def _sentence_piece(file: GgufFile, tokens: list[str], kinds: list[Any]) -> tuple[Any, list[str]]:
    """SentencePiece BPE: joins the neighbours whose union has the best score; unknown characters become bytes.

    The file has scores in place of merges. Every way to cut a piece into two pieces is a merge, the ones of
    better pieces first, and among the ways to cut one piece those with the longer left part (the order that
    Hugging Face's conversion gives them).
    """
    scores: list[Any] = file.require("tokenizer.ggml.scores", list)
    if len(scores) != len(tokens) or len(kinds) != len(tokens):
        raise BadInput(
            f"{file.path}: tokenizer.ggml.scores, .token_type: {len(scores)} and {len(kinds)} entries; "
            f"one for each of the {len(tokens)} tokens would be right"
        )
    if not all(isinstance(score, int | float) and isfinite(score) for score in scores):
        raise BadInput(
            f"{file.path}: tokenizer.ggml.scores: found other values; finite numbers would be right"
        )
    if max(map(len, tokens)) > MAX_PIECE or sum(map(len, tokens)) > MAX_PIECES:
        raise BadInput(
            f"{file.path}: tokenizer.ggml.tokens: longer than {MAX_PIECE} characters, or {MAX_PIECES} in all; "
            "no known vocabulary is"
        )
    pieces = {
        token: float(score)
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
        if kind in (_NORMAL, _USER)
    }
    cuts = [
        (score, i, len(piece) - i, piece)
        for piece, score in pieces.items()
        for i in range(1, len(piece))
        if piece[:i] in pieces and piece[i:] in pieces
    ]
    cuts.sort(key=lambda cut: cut[:3], reverse=True)
    unknown = tokens[file.get("tokenizer.ggml.unknown_token_id", 0) % len(tokens)]
    library = _library()
    inner = library.Tokenizer(
        library.models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[(piece[:i], piece[i:]) for _, i, _, piece in cuts],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=_BYTE in kinds,
        )
    )
    prefix = file.get("tokenizer.ggml.add_space_prefix", True)
    normal, back = library.normalizers, library.decoders
    steps = [normal.Replace(" ", SPACE)]
    decoders = [back.Replace(SPACE, " "), back.ByteFallback(), back.Fuse()]
    if prefix:
        steps.insert(0, normal.Prepend(SPACE))
        decoders.append(back.Strip(" ", 1, 0))
    inner.normalizer = normal.Sequence(steps)
    inner.decoder = back.Sequence(decoders)
    user = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _USER]
    inner.add_tokens([library.AddedToken(token, special=False, normalized=False) for token in user])
    return inner, ["sentencepiece", str(prefix), *tokens, "", *(f"{s!r}" for s in scores)]
