"""Ways to spoil a model's folder: each makes a function that does it to the folder it is given. And grid files that are none."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from models.tiny_models import KINDS, hf_tensors, weights, write_safetensors

Change = Callable[[Path], object]
KIND = KINDS["llama"]
NAME = "model.layers.1.self_attn.q_proj.weight"
"""One of its tensors."""


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def content(name: str, raw: bytes | str) -> Change:
    return lambda folder: (folder / name).write_bytes(raw if isinstance(raw, bytes) else raw.encode())


def sparse(name: str, size: int, start: bytes = b"") -> Change:
    """A file that says it is large and takes no room."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(start)
        os.truncate(folder / name, size)

    return change


def fifo(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def link(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def header(entries: Any, data: bytes = b"") -> Change:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return content("model.safetensors", struct.pack("<Q", len(text)) + text + data)


def tensors(change_one: Callable[[dict[str, np.ndarray]], object]) -> Change:
    def change(folder: Path) -> None:
        all_of_them = hf_tensors(KIND, weights(KIND))
        change_one(all_of_them)
        write_safetensors(folder / "model.safetensors", all_of_them)

    return change


def index(where: dict[str, str]) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "one.safetensors")
        shutil.copy(folder / "one.safetensors", folder.parent / "stolen.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))

    return change


def tokenizer(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def pickled(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Bomb()))

    return change


def scaled(home: Path, **changes: Any) -> dict[str, Any]:
    """The arrays of the lab's scales, some of them changed; `k_8` is ``k.8``."""
    with np.load(home / "scales.npz") as data:
        arrays = {name: data[name] for name in data.files}
    return arrays | {name.replace("_8", ".8"): values for name, values in changes.items()}


def counts(tensor: int, entries: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensor, entries) + rest


TEXTS = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 100_000_000)
BYTES = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 0, 1 << 30)


DENSE = '[[grid]]\nalgorithm = "dense"\n'
GRIDS = {
    "key": ("[[grids]]\n", "grids: unknown key"),
    "knob": (DENSE + "kbits = 8\n", "did you mean 'k_bits'"),
    "algorithm": ('[[grid]]\nalgorithm = "dens"\n', "did you mean 'dense'"),
    "nan": (DENSE + "k_bits = nan\n", "found nan; numbers must be finite"),
    "digits": (DENSE + f"k_bits = {'9' * 5000}\n", "too many digits"),
    "no list": ("grid = [1]\n", "grid 1: found 1; a table"),
    "no table": ('grid = "x"\n', "no [[grid]] table"),
    "deep": ("grid = " + "[" * 5000, "nested too deeply"),
    "huge": (
        '[[grid]]\nalgorithm = "token-picker"\n'
        + "".join(f"{k} = [{', '.join(map(str, range(1, 2000)))}]\n" for k in ("threshold", "margin", "lag")),
        "settings; 20000 more are allowed",
    ),
    "many": (DENSE + "\n" + DENSE * 20_000 + f"k_bits = [{', '.join(['8'] * 15_000)}]\n", "settings; "),
    "pipe": ("", "g.toml: is a device or a pipe"),
    "endless": ("# " + "x" * (2 << 20), "has more than"),
}
"""Grid files, and what is said about each."""
