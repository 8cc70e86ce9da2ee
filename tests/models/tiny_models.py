"""Tiny random networks of every family: as published equations, in memory, as GGUF files and as directories.

The equations are in float64, one query at a time, and share no code with the engine.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from dse.models.decoder import Decoder, Layer, Weights

DIM, HIDDEN, HEADS, KV_HEADS, WIDTH, VOCABULARY = 24, 40, 4, 2, 8, 61
EPSILON = 1e-5


@dataclass(frozen=True)
class Kind:
    """What distinguishes a family's network, as its paper states it."""

    name: str
    model_type: str
    layers: int = 3
    biases: bool = False
    head_norms: bool = False
    post_norms: bool = False
    gemma: bool = False
    tied: bool = False
    windows: tuple[int, ...] = ()
    base: float = 10000.0
    local_base: float = 10000.0
    score_width: float = WIDTH
    logit_cap: float = 0.0
    rope: str = "default"

    @property
    def seen(self) -> tuple[int, ...]:
        return self.windows or (0,) * self.layers


KINDS = {
    k.name: k
    for k in (
        Kind("llama", "llama"),
        Kind("llama-3", "llama", tied=True, base=500.0, rope="llama3"),
        Kind("linear", "llama", rope="linear"),
        Kind("mistral", "mistral", windows=(5, 5, 5)),
        Kind("qwen2", "qwen2", biases=True),
        Kind("qwen3", "qwen3", head_norms=True, base=1e6),
        Kind("gemma", "gemma", gemma=True, tied=True),
        Kind(
            "gemma2",
            "gemma2",
            gemma=True,
            tied=True,
            post_norms=True,
            windows=(5, 0, 5),
            score_width=12,
            logit_cap=3,
        ),
        Kind(
            "gemma3",
            "gemma3_text",
            layers=7,
            gemma=True,
            tied=True,
            post_norms=True,
            head_norms=True,
            windows=(5, 5, 5, 5, 5, 0, 5),
            base=1e6,
            score_width=12,
        ),
    )
}

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def factors(kind: Kind) -> np.ndarray:
    """What the frequency of every pair of dimensions is divided by."""
    if kind.rope == "linear":
        return np.full(WIDTH // 2, 4.0)
    out = np.ones(WIDTH // 2)
    if kind.rope == "llama3":
        for i in range(WIDTH // 2):
            wavelength = 2 * np.pi * kind.base ** (2 * i / WIDTH)
            if wavelength > 64 / 1.0:
                out[i] = 8.0
            elif wavelength > 64 / 4.0:
                smooth = (64 / wavelength - 1.0) / (4.0 - 1.0)
                out[i] = 1 / ((1 - smooth) / 8.0 + smooth)
    return out


def weights(kind: Kind, seed: int = 5) -> dict[str, np.ndarray]:
    """Matrices [out, in] and vectors by role, those of layer i as ``i.role``. Norms are the factors themselves."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float = 1.5) -> np.ndarray:
        # Wide enough that attention is far from uniform: a mistake in it must show.
        return (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    def norm(size: int) -> np.ndarray:
        return random.uniform(0.5, 1.5, size).astype(np.float32)

    out = {"embedding": matrix(VOCABULARY, DIM, 3.0), "final_norm": norm(DIM)}
    if not kind.tied:
        out["head"] = matrix(VOCABULARY, DIM)
    sizes = {"query": HEADS * WIDTH, "key": KV_HEADS * WIDTH, "value": KV_HEADS * WIDTH}
    for i in range(kind.layers):
        layer = {
            "attention_norm": norm(DIM),
            **{role: matrix(size, DIM) for role, size in sizes.items()},
            "output": matrix(DIM, HEADS * WIDTH),
            "feed_forward_norm": norm(DIM),
            "gate": matrix(HIDDEN, DIM),
            "up": matrix(HIDDEN, DIM),
            "down": matrix(DIM, HIDDEN),
        }
        if kind.biases:
            layer |= {f"{r}_bias": random.standard_normal(s).astype(np.float32) for r, s in sizes.items()}
        if kind.head_norms:
            layer |= {"query_norm": norm(WIDTH), "key_norm": norm(WIDTH)}
        if kind.post_norms:
            layer |= {"attention_post_norm": norm(DIM), "feed_forward_post_norm": norm(DIM)}
        out |= {f"{i}.{role}": w for role, w in layer.items()}
    return out


def slow_logits(kind: Kind, w: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits [T, V] of tokens [T]."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    length = len(tokens)

    def norm(x: np.ndarray, role: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * w[role]

    def rope(vector: np.ndarray, position: int, base: float, divisors: np.ndarray) -> np.ndarray:
        out = np.empty(WIDTH)
        for i in range(WIDTH // 2):
            angle = position * base ** (-2 * i / WIDTH) / divisors[i]
            a, b = vector[i], vector[i + WIDTH // 2]
            out[i] = a * np.cos(angle) - b * np.sin(angle)
            out[i + WIDTH // 2] = b * np.cos(angle) + a * np.sin(angle)
        return out

    x = w["embedding"][tokens] * (DIM**0.5 if kind.gemma else 1)
    for layer in range(kind.layers):
        y = norm(x, f"{layer}.attention_norm")
        projected = {}
        for role, heads in (("query", HEADS), ("key", KV_HEADS), ("value", KV_HEADS)):
            z = y @ w[f"{layer}.{role}"].T + (w[f"{layer}.{role}_bias"] if kind.biases else 0)
            projected[role] = z.reshape(length, heads, WIDTH)
            if kind.head_norms and role != "value":
                projected[role] = norm(projected[role], f"{layer}.{role}_norm")
        window = kind.seen[layer]
        local = window and kind.model_type == "gemma3_text"
        turn = (kind.local_base, np.ones(WIDTH // 2)) if local else (kind.base, factors(kind))
        attended = np.zeros((length, HEADS, WIDTH))
        for h in range(HEADS):
            shared = h // (HEADS // KV_HEADS)
            keys = [rope(projected["key"][t, shared], t, *turn) for t in range(length)]
            for t in range(length):
                query = rope(projected["query"][t, h], t, *turn)
                first = max(0, t + 1 - window) if window else 0
                scores = np.array([query @ keys[s] for s in range(first, t + 1)]) / np.sqrt(kind.score_width)
                p = np.exp(scores - scores.max())
                attended[t, h] = p / p.sum() @ projected["value"][first : t + 1, shared]
        y = attended.reshape(length, -1) @ w[f"{layer}.output"].T
        x = x + (norm(y, f"{layer}.attention_post_norm") if kind.post_norms else y)
        y = norm(x, f"{layer}.feed_forward_norm")
        g = y @ w[f"{layer}.gate"].T
        if kind.gemma:
            g = 0.5 * g * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g**3)))
        else:
            g = g / (1 + np.exp(-g))
        y = (g * (y @ w[f"{layer}.up"].T)) @ w[f"{layer}.down"].T
        x = x + (norm(y, f"{layer}.feed_forward_post_norm") if kind.post_norms else y)
    logits = norm(x, "final_norm") @ w.get("head", w["embedding"]).T
    return kind.logit_cap * np.tanh(logits / kind.logit_cap) if kind.logit_cap else logits


def decoder(kind: Kind, w: dict[str, np.ndarray]) -> Decoder:
    """The engine on these weights."""

    def layer(i: int) -> Layer:
        def get(role: str) -> np.ndarray:
            return w[f"{i}.{role}"]

        extra = {}
        if kind.biases:
            extra["qkv_bias"] = np.concatenate([get(f"{r}_bias") for r in ("query", "key", "value")])
        for flag, roles in (
            (kind.head_norms, ("query_norm", "key_norm")),
            (kind.post_norms, ("attention_post_norm", "feed_forward_post_norm")),
        ):
            extra |= {role: get(role) for role in roles if flag}
        return Layer(
            attention_norm=get("attention_norm"),
            qkv=np.concatenate([get(r) for r in ("query", "key", "value")]),
            output=get("output"),
            feed_forward_norm=get("feed_forward_norm"),
            gate_up=np.concatenate((get("gate"), get("up"))),
            down=get("down"),
            **extra,
        )

    layers = tuple(layer(i) for i in range(kind.layers))
    return Decoder(
        Weights(w["embedding"], layers, w["final_norm"], w.get("head", w["embedding"])),
        query_heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=WIDTH,
        rope_base=kind.base,
        rope_factors=factors(kind),
        norm_epsilon=EPSILON,
        activation="gelu" if kind.gemma else "silu",
        embedding_scale=DIM**0.5 if kind.gemma else 1.0,
        query_scale=(WIDTH / kind.score_width) ** 0.5,
        logit_cap=kind.logit_cap,
        windows=kind.windows,
        window_rope_base=kind.local_base if kind.model_type == "gemma3_text" else None,
    )


HF_LAYER = {
    "attention_norm": "input_layernorm.weight",
    **{r: f"self_attn.{r[0]}_proj.weight" for r in ("query", "key", "value", "output")},
    **{f"{r}_bias": f"self_attn.{r[0]}_proj.bias" for r in ("query", "key", "value")},
    **{f"{r}_norm": f"self_attn.{r[0]}_norm.weight" for r in ("query", "key")},
    **{r: f"mlp.{r}_proj.weight" for r in ("gate", "up", "down")},
}


def hf_tensors(kind: Kind, w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights under Hugging Face's names, norms of Gemma less one."""
    names = HF_LAYER | {"feed_forward_norm": "post_attention_layernorm.weight"}
    if kind.post_norms:
        names |= {
            "attention_post_norm": "post_attention_layernorm.weight",
            "feed_forward_norm": "pre_feedforward_layernorm.weight",
            "feed_forward_post_norm": "post_feedforward_layernorm.weight",
        }
    top = {
        "embedding": "model.embed_tokens.weight",
        "final_norm": "model.norm.weight",
        "head": "lm_head.weight",
    }
    out = {}
    for key, value in w.items():
        layer, _, role = key.rpartition(".")
        name = f"model.layers.{layer}.{names[role]}" if layer else top[role]
        out[name] = value - np.float32(1) if kind.gemma and role.endswith("norm") else value
    return out


def hf_config(kind: Kind) -> dict[str, Any]:
    """``config.json`` as the family's models have it."""
    config: dict[str, Any] = {
        "model_type": kind.model_type,
        "vocab_size": VOCABULARY,
        "hidden_size": DIM,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": kind.layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": WIDTH,
        "max_position_embeddings": 512,
        "rms_norm_eps": EPSILON,
        "rope_theta": kind.base,
        "tie_word_embeddings": kind.tied,
    }
    if kind.rope == "linear":
        config["rope_scaling"] = {"type": "linear", "factor": 4.0}
    if kind.rope == "llama3":
        config["rope_scaling"] = {"rope_type": "llama3", **LLAMA3}
    config["hidden_activation" if kind.gemma else "hidden_act"] = (
        "gelu_pytorch_tanh" if kind.gemma else "silu"
    )
    if kind.windows:
        config["sliding_window"] = max(kind.windows)
    if kind.post_norms:
        config |= {"query_pre_attn_scalar": kind.score_width, "attn_logit_softcapping": None}
        config["final_logit_softcapping"] = kind.logit_cap or None
    return config


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, as its 16 bits (ties to even)."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], kind: str = "F32") -> None:
    """One safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    at = 0
    for name, value in tensors.items():
        stored = to_bf16(value) if kind == "BF16" else value.astype({"F32": "<f4", "F16": "<f2"}[kind])
        blobs.append(stored.tobytes())
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + len(blobs[-1])]}
        at += len(blobs[-1])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_directory(
    kind: Kind, w: dict[str, np.ndarray], folder: Path, dtype: str = "F32", shards: int = 1, **changes: Any
) -> Path:
    """A Hugging Face directory; `changes` replace or (with ...) drop keys of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in (hf_config(kind) | changes).items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = hf_tensors(kind, w)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return folder
    names = list(tensors)
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, {n: tensors[n] for n in names[i::shards]}, dtype)
        where |= dict.fromkeys(names[i::shards], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


GGUF_LAYER = {
    "attention_norm": "attn_norm.weight",
    **{r: f"attn_{r[0]}.weight" for r in ("query", "key", "value")},
    **{f"{r}_bias": f"attn_{r[0]}.bias" for r in ("query", "key", "value")},
    **{f"{r}_norm": f"attn_{r[0]}_norm.weight" for r in ("query", "key")},
    "output": "attn_output.weight",
    "attention_post_norm": "post_attention_norm.weight",
    "feed_forward_norm": "ffn_norm.weight",
    **{r: f"ffn_{r}.weight" for r in ("gate", "up", "down")},
    "feed_forward_post_norm": "post_ffw_norm.weight",
}


def interleave(w: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's row order of Q and K: the halves of each head alternate."""
    return np.ascontiguousarray(
        w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
    )


def write_gguf(
    kind: Kind, w: dict[str, np.ndarray], path: Path, tokens: tuple[str, ...] = (), **changes: Any
) -> Path:
    """The network as llama.cpp's converter writes it; `changes` are more metadata, or (None) less.

    With `tokens` it has a SentencePiece vocabulary of them.
    """
    architecture = kind.name.partition("-")[0] if kind.name != "linear" else "llama"
    writer = gguf.GGUFWriter(path, architecture)
    metadata: dict[str, Any] = {
        "block_count": kind.layers,
        "context_length": 512,
        "embedding_length": DIM,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": WIDTH,
        "attention.value_length": WIDTH,
        "attention.layer_norm_rms_epsilon": EPSILON,
        "rope.freq_base": kind.base,
    }
    if kind.windows:
        metadata["attention.sliding_window"] = max(kind.windows)
    if kind.rope == "linear":
        metadata |= {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    for key, value in (metadata | changes).items():
        name = f"{architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    if tokens:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
        writer.add_token_types([1] * len(tokens))
        writer.add_add_bos_token(False)
        writer.add_add_space_prefix(False)
    top = {"embedding": "token_embd.weight", "final_norm": "output_norm.weight", "head": "output.weight"}
    if kind.rope == "llama3":
        writer.add_tensor("rope_freqs.weight", factors(kind).astype(np.float32))
    for key, value in w.items():
        layer, _, role = key.rpartition(".")
        heads = {"query": HEADS, "key": KV_HEADS}.get(role)
        if architecture == "llama" and heads:
            value = interleave(value, heads)
        writer.add_tensor(f"blk.{layer}.{GGUF_LAYER[role]}" if layer else top[role], value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
