"""The tokenizer built from a file, on a vocabulary small enough to tokenise by hand."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import byte_alphabet

from dse.errors import BadInput
from dse.models.gguf import GgufFile
from dse.models.tokenizer import _library_errors, gguf_tokenizer, json_tokenizer


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


def written(path: Path, pre: str, tokens: list[str], merges: list[str] | None, **more: Any) -> GgufFile:
    """A file with nothing but a tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama" if merges is None else "gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    if merges is not None:
        writer.add_token_merges(merges)
    for key, value in more.items():
        getattr(writer, key)(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


ALPHABET = byte_alphabet()


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        # By the published expressions: numbers one digit at a time, or three; contractions; line breaks apart.
        ("qwen2", "I'LL pay 1234\n\n now", ["I", "'LL", "Ġpay", "Ġ", "1", "2", "3", "4", "ĊĊ", "Ġnow"]),
        ("llama-bpe", "I'LL pay 1234\n\n now", ["I", "'LL", "Ġpay", "Ġ", "123", "4", "ĊĊ", "Ġnow"]),
        ("gpt-2", "I'll pay 1234\n\n now", ["I", "'ll", "Ġpay", "Ġ1234", "ĊĊ", "Ġnow"]),
    ],
)
def test_words_are_cut_as_published(tmp_path: Path, pre: str, text: str, words: list[str]) -> None:
    """Every word and every prefix of it is a token, so that a word is never cut once it is found."""
    prefixes = sorted({w[:i] for w in words for i in range(2, len(w) + 1)}, key=lambda w: (len(w), w))
    merges = [f"{p[:-1]} {p[-1]}" for p in prefixes]
    more = {} if pre != "llama-bpe" else {"add_bos_token_id": 0}
    tokenizer = gguf_tokenizer(written(tmp_path / "t.gguf", pre, [*ALPHABET, *prefixes], merges, **more))
    tokens = [*ALPHABET, *prefixes]
    found = [tokens[i] for i in tokenizer.encode(text)]
    assert found == words
    assert tokenizer.decode(tokenizer.encode(text)) == text


PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{b:02X}>" for b in range(256)),
    "▁",
    "a",
    "b",
    "ab",
    "▁a",
    "▁ab",
    "aba",
]


def pieces_file(path: Path, **more: Any) -> GgufFile:
    scores = [0.0] * 259 + [-9.0, -8.0, -7.0, -1.0, -3.0, -2.0, -4.0]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 7
    add = {"add_token_scores": scores, "add_token_types": kinds, "add_bos_token_id": 1, "add_unk_token_id": 0}
    return written(path, "default", PIECES, None, **(add | more))


def test_sentencepiece_joins_by_score(tmp_path: Path) -> None:
    tokenizer = gguf_tokenizer(pieces_file(tmp_path / "t.gguf", add_add_space_prefix=False))

    def cut(text: str) -> list[str]:
        return [PIECES[i] for i in tokenizer.encode(text)]

    assert cut("ab") == ["ab"]
    assert cut("aba") == ["aba"]  # ab + a
    assert cut(" ab") == ["▁ab"]
    assert cut("bab") == ["b", "ab"]
    assert cut("aé") == ["a", "<0xC3>", "<0xA9>"]  # bytes of what is no piece
    assert tokenizer.bos == 1
    for text in ("ab aba  b", " é", "a\nb"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sentencepiece_may_put_a_space_in_front(tmp_path: Path) -> None:
    tokenizer = gguf_tokenizer(pieces_file(tmp_path / "t.gguf"))
    assert [PIECES[i] for i in tokenizer.encode("ab")] == ["▁ab"]
    assert tokenizer.decode(tokenizer.encode("ab b")) == "ab b"


def test_a_start_token_is_known_but_not_added(tmp_path: Path, tiny_file: Path) -> None:
    assert gguf_tokenizer(GgufFile(tiny_file)).bos is None
    assert gguf_tokenizer(pieces_file(tmp_path / "no.gguf", add_add_bos_token=False)).bos is None
    with pytest.raises(BadInput, match="bos_token_id: found 900"):
        gguf_tokenizer(pieces_file(tmp_path / "bad.gguf", add_bos_token_id=900))
    with pytest.raises(BadInput, match=r"\.token_type: 2 and 266 entries; one for each of the 266"):
        gguf_tokenizer(pieces_file(tmp_path / "few.gguf", add_token_scores=[0.0, 1.0]))


def saved_json(path: Path, bos: bool) -> Path:
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({t: i for i, t in enumerate(["<s>", *ALPHABET])}, []))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.enable_truncation(3)
    inner.enable_padding(length=8)
    if bos:
        inner.add_special_tokens(["<s>"])
        inner.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    inner.save(str(path))
    return path


@pytest.mark.parametrize("bos", [False, True])
def test_a_tokenizer_file(tmp_path: Path, bos: bool) -> None:
    """Whole texts come out, though the file asks for truncation and padding."""
    tokenizer = json_tokenizer(saved_json(tmp_path / "tokenizer.json", bos))
    assert tokenizer.decode(tokenizer.encode("hello you")) == "hello you"
    assert tokenizer.bos == (0 if bos else None)
    assert tokenizer.vocabulary == 257


def test_missing_and_damaged_tokenizer_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.json is needed"):
        json_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="not a tokenizer"):
        json_tokenizer(tmp_path / "tokenizer.json")


def test_threads_that_overlap_leave_stderr_where_it_was() -> None:
    before = os.fstat(2)
    entered, go = threading.Event(), threading.Event()

    def first() -> None:
        with _library_errors("first"):
            entered.set()
            go.wait(1.0)  # long enough for the second to come in, were it let

    def second() -> None:
        entered.wait()
        with _library_errors("second"):
            go.set()
            one.join(0.2)  # the first leaves before the second

    one, two = threading.Thread(target=first), threading.Thread(target=second)
    try:
        for thread in (one, two):
            thread.start()
        for thread in (one, two):
            thread.join()
        assert os.path.samestat(os.fstat(2), before)
    finally:
        if not os.path.samestat(os.fstat(2), before):
            os.dup2(1, 2)
