"""A tiny random Llama, in memory and as a GGUF file with a tokenizer of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tiny_models import byte_alphabet, interleave

from dse.models.decoder import Decoder, Layer, Weights

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, WIDTH = 32, 64, 2, 4, 2, 8


TOKENS = ["<|special|>", *byte_alphabet(), "th", "the", "Ġthe", "12"]
MERGES = ["t h", "th e", "Ġ the", "1 2"]


@dataclass(frozen=True)
class Tiny:
    """Plain matrices [out, in] of the tiny network, in the order of dimensions the equations use."""

    embedding: np.ndarray
    layers: list[dict[str, np.ndarray]]
    final_norm: np.ndarray

    def llama(self, **changes: Any) -> Decoder:
        layers = tuple(
            Layer(
                attention_norm=w["attn_norm"],
                qkv=np.concatenate((w["attn_q"], w["attn_k"], w["attn_v"])),
                output=w["attn_output"],
                feed_forward_norm=w["ffn_norm"],
                gate_up=np.concatenate((w["ffn_gate"], w["ffn_up"])),
                down=w["ffn_down"],
            )
            for w in self.layers
        )
        sizes = {"query_heads": HEADS, "kv_heads": KV_HEADS, "head_dim": WIDTH} | changes
        return Decoder(Weights(self.embedding, layers, self.final_norm, self.embedding), **sizes)

    def write(self, path: Path, *, quantised: bool = False, **changes: Any) -> Path:
        """Writes the network as llama.cpp's converter does; `changes` replace or (None) drop metadata."""
        writer = gguf.GGUFWriter(path, "llama")
        metadata: dict[str, Any] = {
            "block_count": len(self.layers),
            "context_length": 128,
            "embedding_length": DIM,
            "feed_forward_length": HIDDEN,
            "attention.head_count": HEADS,
            "attention.head_count_kv": KV_HEADS,
        } | changes
        for key, value in metadata.items():
            if isinstance(value, str):
                writer.add_string(f"llama.{key}", value)
            elif value is not None:
                writer.add_uint32(f"llama.{key}", value)
        writer.add_float32("llama.rope.freq_base", 10000.0)
        writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(TOKENS)
        writer.add_token_merges(MERGES)
        writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
        tensors = {"token_embd": self.embedding, "output_norm": self.final_norm}
        for i, layer in enumerate(self.layers):
            for name, w in layer.items():
                heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name)
                tensors[f"blk.{i}.{name}"] = w if heads is None else interleave(w, heads)
        for name, w in tensors.items():
            if quantised and w.ndim == 2:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(f"{name}.weight", gguf.quants.quantize(w, kind), raw_dtype=kind)
            else:
                writer.add_tensor(f"{name}.weight", w)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    random = np.random.default_rng(7)

    def matrix(rows: int, columns: int) -> np.ndarray:
        # Wide enough that attention is far from uniform: a mistake in it must show.
        return (random.standard_normal((rows, columns)) * 1.5 / np.sqrt(columns)).astype(np.float32)

    def norm() -> np.ndarray:
        return random.uniform(0.5, 1.5, DIM).astype(np.float32)

    layers = [
        {
            "attn_norm": norm(),
            "attn_q": matrix(HEADS * WIDTH, DIM),
            "attn_k": matrix(KV_HEADS * WIDTH, DIM),
            "attn_v": matrix(KV_HEADS * WIDTH, DIM),
            "attn_output": matrix(DIM, HEADS * WIDTH),
            "ffn_norm": norm(),
            "ffn_gate": matrix(HIDDEN, DIM),
            "ffn_up": matrix(HIDDEN, DIM),
            "ffn_down": matrix(DIM, HIDDEN),
        }
        for _ in range(LAYERS)
    ]
    return Tiny(matrix(len(TOKENS), DIM) * np.float32(3), layers, norm())


@pytest.fixture(scope="session")
def tiny_file(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("model") / "tiny.gguf")
