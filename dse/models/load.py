"""Any model by name or path: the catalogue's, a GGUF file, or a Hugging Face directory."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from dse.errors import BadInput, nearest
from dse.models.catalog import DEFAULT_MODEL, KNOWN_MODELS, find_model
from dse.models.decoder import Decoder
from dse.models.directory import load_directory
from dse.models.families import OtherFamily
from dse.models.gguf import GgufFile
from dse.models.gguf_model import load_gguf
from dse.models.protocol import Model
from dse.models.tokenizer import Tokenizer

BACKENDS: Final = ("auto", "numpy", "transformers")


class LanguageModel(Model, Protocol):
    """A model from disk: it also has a tokenizer."""

    context: int
    """Positions it was trained for."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that comes with the weights; BadInput when there is none."""
        ...


def load_model(name_or_path: str | Path | None = None, backend: str = "auto") -> LanguageModel:
    """A model by catalogue name, or from a GGUF file or Hugging Face directory.

    `backend` "auto" takes the NumPy engine where it runs the model, and transformers where it does not and both
    torch and transformers are installed.

    Raises:
        BadInput: missing, damaged, or nothing that is installed runs it.
    """
    if backend not in BACKENDS:
        raise BadInput(f"backend: {backend!r} is unknown; {nearest(backend, BACKENDS)}")
    if backend != "transformers":
        try:
            return load_decoder(name_or_path)
        except OtherFamily:
            path = find_model(name_or_path or DEFAULT_MODEL)
            if (
                backend == "numpy"
                or not path.is_dir()
                or not (find_spec("torch") and find_spec("transformers"))
            ):
                raise
    from dse.models.transformers_backend import TransformersModel

    return TransformersModel.load(find_model(name_or_path or DEFAULT_MODEL))


def load_decoder(name_or_path: str | Path | None = None) -> Decoder:
    """The model on the NumPy engine.

    Raises:
        OtherFamily: not of a family the engine runs.
        BadInput: missing or damaged.
    """
    wanted = DEFAULT_MODEL if name_or_path is None else name_or_path
    path = find_model(wanted)
    if path.is_dir():
        return load_directory(path)
    file = GgufFile(path)
    for known in KNOWN_MODELS:
        if known.name == wanted:
            if file.sha256 != known.sha256:
                remedy = (
                    "remove it, it is made again" if len(known.parts) > 1 else f"run `{known.install}` again"
                )
                raise BadInput(f"{path}: not the known file {known.file}; {remedy}")
            return load_gguf(file, known.name)
    return load_gguf(file, path.stem)
