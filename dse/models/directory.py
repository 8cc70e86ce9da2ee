"""Networks in Hugging Face directories: ``config.json``, safetensors and ``tokenizer.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import FloatArray
from dse.models.decoder import Decoder
from dse.models.families import (
    ELSEWHERE,
    FAMILIES,
    SOFT_CAPPED,
    Family,
    Geometry,
    OtherFamily,
    assemble,
    sliding_windows,
)
from dse.models.safetensors import Checkpoint, read_json
from dse.models.tokenizer import json_tokenizer

MODEL_TYPES: Final[Mapping[str, str]] = {
    **{name: name for name in FAMILIES if name != "gemma3"},
    "gemma3_text": "gemma3",  # plain "gemma3" is the network with images
}
"""Family of every `model_type`."""

TENSORS: Final[Mapping[str, str]] = {
    "embedding": "embed_tokens.weight",
    "final_norm": "norm.weight",
    "attention_norm": "input_layernorm.weight",
    "query": "self_attn.q_proj.weight",
    "key": "self_attn.k_proj.weight",
    "value": "self_attn.v_proj.weight",
    "query_bias": "self_attn.q_proj.bias",
    "key_bias": "self_attn.k_proj.bias",
    "value_bias": "self_attn.v_proj.bias",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
    "output": "self_attn.o_proj.weight",
    "feed_forward_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
POST_NORMED: Final[Mapping[str, str]] = {
    "attention_post_norm": "post_attention_layernorm.weight",
    "feed_forward_norm": "pre_feedforward_layernorm.weight",
    "feed_forward_post_norm": "post_feedforward_layernorm.weight",
}
"""Names in families with norms after each half, where they differ."""

HEAD: Final = "lm_head.weight"
NOT_WEIGHTS: Final = "rotary_emb.inv_freq"
"""Ending of a table that old checkpoints hold though it follows from the configuration."""


MOST: Final = 1 << 24
"""Largest count in a configuration."""

MAX_LAYERS: Final = 1 << 12
MAX_WIDTH: Final = 1 << 16
LARGEST: Final = 1e30
"""Numbers below it can be squared in double precision and hold in single precision."""


class Config:
    """``config.json`` with checked types. A key that is null counts as missing."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def bad(self, key: str, found: object, right: str) -> BadInput:
        return BadInput(f"{self.path}: {key}: found {found!r}; {right} would be right")

    def count(self, key: str, default: int | None = None, most: int = MOST) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= most:
            raise self.bad(key, value, f"a whole number of 1 to {most}")
        return value

    def number(self, key: str, default: float, *, positive: bool = False) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < LARGEST:
            raise self.bad(key, value, "a number")
        if positive and not value:
            raise self.bad(key, value, "a positive number")
        return float(value)

    def table(self, key: str) -> Config:
        value = self.values.get(key) or {}
        if not isinstance(value, dict):
            raise self.bad(key, value, "a table")
        return Config(self.path, value)


class _Tensors:
    """The weights of a directory by role."""

    def __init__(self, checkpoint: Checkpoint, family: Family, tied: bool) -> None:
        self.checkpoint = checkpoint
        self.family = family
        self.names = {**TENSORS, **(POST_NORMED if family.post_norms else {})}
        # A network that was saved without its output head lacks the prefix.
        self.prefix = "" if TENSORS["embedding"] in checkpoint.names else "model."
        self.tied = tied
        self.asked = {HEAD} if tied else set()

    def get(self, role: str, layer: int | None, shape: tuple[int, ...]) -> FloatArray:
        place = "" if layer is None else f"layers.{layer}."
        name = HEAD if role == "head" else f"{self.prefix}{place}{self.names[role]}"
        self.asked.add(name)
        values = self.checkpoint.tensor(name, shape)
        if self.family.gemma and role.endswith("norm"):
            values += np.float32(1)
        return values

    def has(self, role: str) -> bool:
        return role == "head" and not self.tied

    def unused(self) -> list[str]:
        names = self.checkpoint.names.keys() - self.asked
        return sorted(name for name in names if not name.endswith(NOT_WEIGHTS))


def load_directory(folder: Path) -> Decoder:
    """The network in a Hugging Face directory, called by the directory's name.

    Raises:
        OtherFamily: a family or variant that the NumPy engine does not run.
        BadInput: files are missing or damaged.
    """
    config = Config(folder / "config.json", read_json(folder / "config.json"))
    kind = config.values.get("model_type")
    family = FAMILIES.get(MODEL_TYPES.get(str(kind), ""))
    if family is None:
        raise OtherFamily(
            f"{config.path}: model_type: found {kind!r}; the NumPy engine runs {', '.join(MODEL_TYPES)}; {ELSEWHERE}"
        )
    _refuse_variants(config, family, str(kind))
    checkpoint = Checkpoint(folder)
    tied = config.values.get("tie_word_embeddings")
    source = _Tensors(checkpoint, family, tied if isinstance(tied, bool) else HEAD not in checkpoint.names)
    geometry = _geometry(config, family, str(kind))
    digest = hashlib.sha256(config.path.read_bytes() + checkpoint.sha256.encode())
    return assemble(
        family,
        geometry,
        source,
        name=folder.resolve().name,
        sha256=digest.hexdigest(),
        make_tokenizer=lambda: json_tokenizer(folder / "tokenizer.json"),
    )


def _refuse_variants(config: Config, family: Family, kind: str) -> None:
    """Refuses what would change the arithmetic without changing any tensor's name."""
    activation = config.values.get("hidden_activation") or config.values.get("hidden_act")
    known = ("gelu_pytorch_tanh", None) if family.gemma else ("silu", None)
    for key, found, right in (
        ("hidden_act", activation, known),
        ("attention_bias", config.values.get("attention_bias"), (False, None)),
        ("mlp_bias", config.values.get("mlp_bias"), (False, None)),
        ("quantization_config", config.values.get("quantization_config"), (None,)),
        ("use_bidirectional_attention", config.values.get("use_bidirectional_attention"), (False, None)),
    ):
        if found not in right:
            raise OtherFamily(
                f"{config.path}: {key}: found {found!r}; the NumPy engine supports {right[0]!r}; {ELSEWHERE}"
            )
    capping = config.values.get("attn_logit_softcapping", 50.0 if kind == "gemma2" else None)
    if capping is not None:
        raise BadInput(f"{config.path}: attn_logit_softcapping: found {capping!r}; {SOFT_CAPPED}")


def _geometry(config: Config, family: Family, kind: str) -> Geometry:
    heads = config.count("num_attention_heads", most=MAX_WIDTH)
    layers = config.count("num_hidden_layers", most=MAX_LAYERS)
    dim = config.count("hidden_size")
    width = {"qwen3": 128, "gemma": 256, "gemma2": 256, "gemma3_text": 256}.get(kind, dim // heads)
    width = config.count("head_dim", width, MAX_WIDTH)
    context = config.count("max_position_embeddings")
    rope, local = _rotation(config, family)
    base = rope.number(
        "rope_theta", config.number("rope_theta", family.rope_base, positive=True), positive=True
    )
    return Geometry(
        where=str(config.path),
        layers=layers,
        dim=dim,
        hidden=config.count("intermediate_size"),
        query_heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=width,
        vocabulary=config.count("vocab_size"),
        context=context,
        norm_epsilon=config.number("rms_norm_eps", 1e-6),
        rope_base=base,
        rope_factors=rope_factors(rope, base, width, context),
        windows=_windows(config, family, kind, layers),
        window_rope_base=local,
        score_width=config.number("query_pre_attn_scalar", 256, positive=True) if family.post_norms else 0.0,
        logit_cap=config.number("final_logit_softcapping", 30.0 if kind == "gemma2" else 0.0)
        if config.values.get("final_logit_softcapping", 0) is not None
        else 0.0,
    )


def _rotation(config: Config, family: Family) -> tuple[Config, float | None]:
    """The table that describes rotary positions, and the base of layers with a window where it is another one.

    Newer files have one table `rope_parameters`, or one for each type of layer; older ones keep the base apart.
    """
    new = config.table("rope_parameters")
    if not new.values:
        local = config.number("rope_local_base_freq", family.window_rope_base or 0.0)
        return config.table("rope_scaling"), local if family.window_rope_base else None
    if "full_attention" in new.values:
        local = new.table("sliding_attention").number("rope_theta", family.window_rope_base or 0.0)
        return new.table("full_attention"), local or None
    return new, family.window_rope_base


def rope_factors(rope: Config, base: float, width: int, context: int) -> FloatArray | None:
    """Divisors [d / 2] of the rotary frequencies base ** (-2 i / d); `rope` holds `rope_type` and its numbers.

    Raises:
        OtherFamily: a kind of scaling other than "linear" and "llama3".
    """
    kind = rope.values.get("rope_type", rope.values.get("type", "default"))
    if kind == "default":
        return None
    factor = rope.number("factor", 1.0, positive=True)
    if kind == "linear":
        return np.full(width // 2, factor, dtype=np.float32)
    if kind != "llama3":
        raise OtherFamily(
            f"{rope.path}: rope_scaling: found {kind!r}; the NumPy engine supports 'linear' and 'llama3'; {ELSEWHERE}"
        )
    # Long wavelengths are stretched by `factor`, short ones stay, in between the two are mixed.
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    if high <= low:
        raise rope.bad("high_freq_factor", high, f"more than low_freq_factor, {low:g},")
    trained = rope.number("original_max_position_embeddings", context)
    frequency = base ** (-np.arange(width // 2) * 2.0 / width)
    turns = trained * frequency / (2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    factors: FloatArray = (1 / ((1 - share) / factor + share)).astype(np.float32)
    return factors


def _windows(config: Config, family: Family, kind: str, layers: int) -> tuple[int, ...]:
    """Which layers see a window: by `layer_types` where the file has them, otherwise by the family's rule."""
    off = config.values.get("sliding_window") is None and not family.sliding
    if off or (kind == "qwen2" and not config.values.get("use_sliding_window", False)):
        return ()
    if kind == "qwen3" and not config.values.get("use_sliding_window", False):
        return ()
    window = config.count("sliding_window", 4096)
    types = config.values.get("layer_types")
    if types is not None:
        if not isinstance(types, list) or len(types) != layers:
            raise config.bad("layer_types", types, "one for each layer")
        if others := sorted(set(map(str, types)) - {"full_attention", "sliding_attention"}):
            raise OtherFamily(f"{config.path}: layer_types: found {others[0]!r}; {ELSEWHERE}")
        return tuple(window if t == "sliding_attention" else 0 for t in types)
    if kind in ("qwen2", "qwen3"):
        full = int(config.number("max_window_layers", layers))
        return tuple(0 if i < full else window for i in range(layers))
    if not family.sliding:
        return (window,) * layers
    return sliding_windows(layers, config.count("sliding_window_pattern", family.sliding), window)
