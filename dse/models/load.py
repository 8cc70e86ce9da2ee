"""Any model by name or path: the catalogue's, a GGUF file, or a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path

from dse.errors import BadInput
from dse.models.catalog import DEFAULT_MODEL, KNOWN_MODELS, find_model
from dse.models.decoder import Decoder
from dse.models.gguf import GgufFile
from dse.models.gguf_model import load_gguf


def load_decoder(name_or_path: str | Path | None = None) -> Decoder:
    """The model on the NumPy engine.

    Raises:
        BadInput: missing, damaged, or not of a family the engine runs.
    """
    wanted = DEFAULT_MODEL if name_or_path is None else name_or_path
    path = find_model(wanted)
    file = GgufFile(path)
    for known in KNOWN_MODELS:
        if known.name == wanted:
            if file.sha256 != known.sha256:
                raise BadInput(f"{path}: not the known file {known.file}; run `{known.install}` again")
            return load_gguf(file, known.name)
    return load_gguf(file, path.stem)
