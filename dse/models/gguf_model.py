"""Networks in GGUF files: llama.cpp's names of metadata and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import FloatArray
from dse.models.decoder import Decoder
from dse.models.families import ELSEWHERE, FAMILIES, SOFT_CAPPED, Family, Geometry, assemble, sliding_windows
from dse.models.gguf import GgufFile
from dse.models.tokenizer import gguf_tokenizer

TENSORS: Final[Mapping[str, str]] = {
    "embedding": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
    "rope_factors": "rope_freqs.weight",
    "attention_norm": "attn_norm.weight",
    "query": "attn_q.weight",
    "key": "attn_k.weight",
    "value": "attn_v.weight",
    "query_bias": "attn_q.bias",
    "key_bias": "attn_k.bias",
    "value_bias": "attn_v.bias",
    "query_norm": "attn_q_norm.weight",
    "key_norm": "attn_k_norm.weight",
    "output": "attn_output.weight",
    "attention_post_norm": "post_attention_norm.weight",
    "feed_forward_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "feed_forward_post_norm": "post_ffw_norm.weight",
}
"""Name of every role; those of a layer follow ``blk.<layer>.``."""

INTERLEAVED: Final = ("llama",)
"""Architectures whose Q and K rows llama.cpp's converter reorders (Mistral's files call themselves llama)."""

GEMMA_WINDOW: Final = {"gemma2": 4096}
"""Window of an architecture whose older files do not state it."""

GEMMA_27B: Final = ("gemma3", 62)
"""Architecture and layers of the model whose scores are scaled by D / Hq in place of d."""


class _Tensors:
    """The weights of a file by role."""

    def __init__(self, file: GgufFile, architecture: str, heads: Mapping[str, int]) -> None:
        self.file = file
        self.heads = heads if architecture in INTERLEAVED else {}
        self.asked: set[str] = set()

    def get(self, role: str, layer: int | None, shape: tuple[int, ...]) -> FloatArray:
        name = TENSORS[role] if layer is None else f"blk.{layer}.{TENSORS[role]}"
        self.asked.add(name)
        values = self.file.tensor(name, shape)
        return unpermute(values, self.heads[role]) if role in self.heads else values

    def has(self, role: str) -> bool:
        return TENSORS[role] in self.file.tensors

    def unused(self) -> list[str]:
        return sorted(self.file.tensors.keys() - self.asked)


def load_gguf(file: GgufFile, name: str) -> Decoder:
    """The network in `file`, called `name`.

    Raises:
        BadInput: another architecture, a variant that is not supported, missing or misshapen tensors.
    """
    architecture = file.require("general.architecture", str)
    family = FAMILIES.get(architecture)
    if family is None:
        raise BadInput(
            f"{file.path}: general.architecture: found {architecture!r}; "
            f"{', '.join(map(repr, FAMILIES))} are supported; {ELSEWHERE}"
        )
    count = _counts(file, architecture)
    heads, kv_heads = count["attention.head_count"], count["attention.head_count_kv"]
    width = file.get(f"{architecture}.attention.key_length", count["embedding_length"] // heads)
    window = _window(file, architecture, family)
    _refuse_variants(file, architecture, width)
    source = _Tensors(file, architecture, {"query": heads, "key": kv_heads})
    rope_base = _positive(file, f"{architecture}.rope.freq_base", family.rope_base)
    local = _positive(
        file, f"{architecture}.rope.freq_base_swa", family.window_rope_base or rope_base
    )  # newer files state it
    geometry = Geometry(
        where=str(file.path),
        layers=count["block_count"],
        dim=count["embedding_length"],
        hidden=count["feed_forward_length"],
        query_heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        vocabulary=_vocabulary(file),
        context=count["context_length"],
        norm_epsilon=_positive(file, f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5),
        rope_base=rope_base,
        rope_factors=_rope_factors(file, architecture, width, source),
        windows=_pattern(file, architecture, family, count["block_count"], window),
        window_rope_base=local if family.window_rope_base else None,
        # The file does not state a score scale; of its family's sizes only this one differs from 1 / sqrt(d).
        score_width=count["embedding_length"] / heads
        if (architecture, count["block_count"]) == GEMMA_27B
        else 0.0,
        logit_cap=file.get(f"{architecture}.final_logit_softcapping", 0.0),
    )
    return assemble(
        family,
        geometry,
        source,
        name=name,
        sha256=file.sha256,
        make_tokenizer=lambda: gguf_tokenizer(file),
    )


def _counts(file: GgufFile, architecture: str) -> dict[str, int]:
    keys = (
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "context_length",
        "attention.head_count",
    )
    counts = {key: file.require(f"{architecture}.{key}", int) for key in keys}
    counts["attention.head_count_kv"] = file.get(f"{architecture}.attention.head_count_kv", counts[keys[-1]])
    for key, value in counts.items():
        if value < 1:
            raise BadInput(f"{file.path}: {architecture}.{key}: found {value}; at least 1 would be right")
    return counts


def _positive(file: GgufFile, key: str, default: float) -> float:
    value = file.get(key, default)
    if not 0.0 < value < np.inf:
        raise BadInput(f"{file.path}: {key}: found {value}; a positive number would be right")
    return value


def _refuse_variants(file: GgufFile, architecture: str, width: int) -> None:
    """Refuses what would change the arithmetic without changing any tensor's name."""
    standard: dict[str, Any] = {
        "rope.dimension_count": width,
        "attention.value_length": width,
        "attention.causal": True,
        "expert_count": 0,
    }
    for key, value in standard.items():
        found = file.get(f"{architecture}.{key}", value)
        if found != value:
            raise BadInput(
                f"{file.path}: {architecture}.{key}: found {found!r}; only {value!r} is supported; {ELSEWHERE}"
            )
    key = f"{architecture}.attn_logit_softcapping"
    if capping := file.get(key, 50.0 if architecture == "gemma2" else 0.0):
        raise BadInput(f"{file.path}: {key}: found {capping!r}; {SOFT_CAPPED}")


def _window(file: GgufFile, architecture: str, family: Family) -> int:
    window = file.get(f"{architecture}.attention.sliding_window", GEMMA_WINDOW.get(architecture, 0))
    if window < 0 or (window and not family.sliding):
        raise BadInput(
            f"{file.path}: {architecture}.attention.sliding_window: found {window}; "
            f"only {'a positive number' if family.sliding else 0} is supported"
        )
    return window


def _pattern(file: GgufFile, architecture: str, family: Family, layers: int, window: int) -> tuple[int, ...]:
    """Which layers have the window: by the file where it says so, otherwise by the family's period."""
    key = f"{architecture}.attention.sliding_window_pattern"
    stated = file.metadata.get(key)
    if isinstance(stated, list):  # one flag per layer
        if len(stated) != layers:
            raise BadInput(f"{file.path}: {key}: found {len(stated)} entries; one per layer would be right")
        return tuple(window if flag else 0 for flag in stated)
    period = family.sliding if stated is None else file.get(key, 0)
    return sliding_windows(
        min(layers, len(file.tensors)), period, window
    )  # a damaged count allocates nothing


def _rope_factors(file: GgufFile, architecture: str, width: int, source: _Tensors) -> FloatArray | None:
    """Divisors [d / 2] of the rotary frequencies: a tensor of them (Llama 3), or one number for all (linear)."""
    if source.has("rope_factors"):
        factors = source.get("rope_factors", None, (width // 2,))
        if not np.all(factors > 0):
            raise BadInput(
                f"{file.path}: rope_freqs.weight: found factors <= 0; positive ones would be right"
            )
        return factors
    key = f"{architecture}.rope.scaling.type"
    kind = file.get(key, "none")
    if kind == "linear":
        factor = _positive(file, f"{architecture}.rope.scaling.factor", 1.0)
        return np.full(width // 2, factor, dtype=np.float32)
    if kind != "none":
        raise BadInput(
            f"{file.path}: {key}: found {kind!r}; only 'none' and 'linear' are supported; {ELSEWHERE}"
        )
    return None


def _vocabulary(file: GgufFile) -> int:
    info = file.tensors.get(TENSORS["embedding"])
    if info is None or len(info.shape) != 2:
        raise BadInput(f"{file.path}: tensor 'token_embd.weight' is missing or no matrix; the model needs it")
    return info.shape[0]


def unpermute(w: FloatArray, heads: int) -> FloatArray:
    """Undoes llama.cpp's row order of Q and K [heads d, D].

    Its converter interleaves the two halves of each head, for a rotation of neighbouring dimensions; put
    back, the rotation of half-split dimensions applies.
    """
    rows, columns = w.shape
    return w.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
