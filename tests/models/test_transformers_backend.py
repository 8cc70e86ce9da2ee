"""Both backends against transformers itself, on small random networks that it makes and saves.

These are the golden tests of the families: the weights and the reference are of transformers' own making.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_safetensors

from dse.errors import BadInput
from dse.models import load
from dse.models.decoder import Decoder, dense_attention
from dse.models.families import OtherFamily
from dse.models.load import load_decoder, load_model

if not (find_spec("torch") and find_spec("transformers")):
    pytest.skip("torch and transformers are not installed (extra `torch`)", allow_module_level=True)

import torch
import transformers

from dse.models.transformers_backend import TransformersModel

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "initializer_range": 0.3}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
NUMPY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED),
    "llama-3": (
        "LlamaConfig",
        {**GROUPED, "rope_theta": 5e4, "rope_scaling": LLAMA3, "tie_word_embeddings": True},
    ),
    "linear": ("LlamaConfig", {**GROUPED, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": 9}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen2-windows": (
        "Qwen2Config",
        {**GROUPED, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 16}),
    "gemma": ("GemmaConfig", {**GROUPED, "head_dim": 16}),
    "gemma2": (
        "Gemma2Config",
        {
            **GROUPED,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": None,
            "sliding_window": 9,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {**GROUPED, "num_hidden_layers": 7, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 9},
    ),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt-neox": ("GPTNeoXConfig", {**SIZES, "initializer_range": 0.3}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": 97,
            "n_embd": 48,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 256,
            "initializer_range": 0.3,
        },
    ),
    "phi3": ("Phi3Config", {**GROUPED, "sliding_window": 9, "pad_token_id": 0}),
    "cohere": ("CohereConfig", GROUPED),  # scales its logits
    "granite": ("GraniteConfig", {**GROUPED, "attention_multiplier": 0.1, "embedding_multiplier": 2.0}),
}
BOTH = NUMPY | OTHERS
TOKENS = np.random.default_rng(1).integers(3, 97, (2, 40))


class Saved:
    """A network that transformers saved, and the logits it gives for `TOKENS`."""

    def __init__(self, name: str, folder: Path) -> None:
        kind, options = BOTH[name]
        torch.manual_seed(7)
        network = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**options)).eval()
        with torch.no_grad():
            for key, value in network.named_parameters():
                if "norm" in key or key.endswith("bias"):  # not one and zero, as they begin
                    value.add_(0.2 * torch.randn_like(value))
            self.logits = network(torch.from_numpy(TOKENS), use_cache=False).logits.numpy()
        network.save_pretrained(folder)
        self.folder = folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Saved] = {}

    def get(name: str) -> Saved:
        if name not in made:
            made[name] = Saved(name, tmp_path_factory.mktemp("saved") / name)
        return made[name]

    return get


def dense_logits(model: Any) -> np.ndarray:
    def attend(layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        return dense_attention(q, k, v, window=model.windows[layer])

    return model.logits(model.run(TOKENS, np.arange(TOKENS.shape[1]), attend))


@pytest.mark.parametrize("name", NUMPY)
def test_the_numpy_engine_equals_transformers(name: str, saved: Any) -> None:
    golden = saved(name)
    model = load_decoder(golden.folder)
    assert np.abs(dense_logits(model) - golden.logits).max() < 3e-5 * np.abs(golden.logits).max()


@pytest.mark.parametrize("name", BOTH)
def test_the_backend_equals_transformers(name: str, saved: Any) -> None:
    golden = saved(name)
    model = TransformersModel.load(golden.folder)
    assert np.abs(dense_logits(model) - golden.logits).max() < 3e-5 * np.abs(golden.logits).max()
    assert model.vocabulary == 97


@pytest.mark.parametrize("name", NUMPY)
def test_both_backends_say_the_same_of_a_model(name: str, saved: Any) -> None:
    folder = saved(name).folder
    ours, theirs = load_decoder(folder), load_model(folder, "transformers")
    assert isinstance(theirs, TransformersModel)
    for key in ("name", "sha256", "shape", "windows", "vocabulary", "context"):
        assert getattr(ours, key) == getattr(theirs, key), key
    np.testing.assert_allclose(ours.embed(TOKENS), theirs.embed(TOKENS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt-neox", "gpt2", "gemma3", "qwen2-windows"])
def test_steps_over_a_cache_of_the_callers(name: str, saved: Any) -> None:
    golden = saved(name)
    model = TransformersModel.load(golden.folder)
    cache: dict[int, Any] = {}

    def attend(layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        old = cache.get(layer)
        cache[layer] = (
            (k, v) if old is None else [np.concatenate(p, axis=2) for p in zip(old, (k, v), strict=True)]
        )
        return dense_attention(q, *cache[layer], window=model.windows[layer])

    parts = []
    for first, stop in ((0, 20), (20, 21), (21, 22), (22, 40)):
        positions = np.broadcast_to(np.arange(first, stop), (2, stop - first))
        parts.append(model.logits(model.run(TOKENS[:, first:stop], positions, attend)))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), golden.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt-neox", "llama"])
def test_windows_at_positions_of_their_own(name: str, saved: Any) -> None:
    model = TransformersModel.load(saved(name).folder)
    seen: list[np.ndarray] = []

    def attend(layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        seen.append(k)
        return dense_attention(q, k, v)

    positions = np.array([[3, 90, 4], [40, 2, 11]])
    model.run(TOKENS[:, :3], positions, attend)
    together = seen.copy()
    for b in range(2):
        seen.clear()
        model.run(TOKENS[b : b + 1, :3], positions[b], attend)
        for whole, one in zip(together, seen, strict=True):
            np.testing.assert_allclose(whole[b], one[0], rtol=1e-4, atol=1e-4)


def test_positions_past_the_training_are_refused(saved: Any) -> None:
    model = TransformersModel.load(saved("gpt2").folder)
    with pytest.raises(BadInput, match="gpt2: token 257 is past the 256 it was trained for"):
        model.run(TOKENS[:, :1], np.array([256]), lambda layer, q, k, v: q)


def test_the_fitting_backend_is_taken(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_model(saved("llama").folder), Decoder)
    other = saved("gpt-neox").folder
    assert isinstance(load_model(other), TransformersModel)
    with pytest.raises(OtherFamily, match="transformers backend"):
        load_model(other, "numpy")
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(OtherFamily, match=r"found 'gpt_neox'; .* the transformers backend"):
        load_model(other)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "BloomConfig",
            {"vocab_size": 97, "hidden_size": 48, "n_layer": 2, "n_head": 4},
            "cannot be replaced",
        ),
        ("Gemma2Config", {**GROUPED, "head_dim": 16}, "its attention takes 'softcap'"),
        ("MambaConfig", {"vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2}, "attention replaced"),
    ],
)
def test_attention_that_cannot_be_taken_over_is_refused(
    kind: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    network = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**options))
    network.save_pretrained(tmp_path / "model")
    with pytest.raises(BadInput) as caught:
        load_model(tmp_path / "model", "transformers")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_are_never_read(saved: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved("gpt-neox").folder / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(
        BadInput, match=r"pytorch_model\.bin is a pickle, which can run code and is never read"
    ):
        load_model(tmp_path, "transformers")


def smollm2_directory(model: Decoder, folder: Path) -> Path:
    """The default model as a bfloat16 Hugging Face directory, without a tokenizer."""
    folder.mkdir()
    tensors = {
        "model.embed_tokens.weight": model.weights.embedding,
        "model.norm.weight": model.weights.final_norm,
    }
    for i, layer in enumerate(model.weights.layers):
        q, k, v = np.split(layer.qkv, (576, 768))
        gate, up = np.split(layer.gate_up, 2)
        attention = {"q_proj": q, "k_proj": k, "v_proj": v, "o_proj": layer.output}
        tensors |= {f"model.layers.{i}.self_attn.{n}.weight": w for n, w in attention.items()}
        tensors |= {
            f"model.layers.{i}.mlp.gate_proj.weight": gate,
            f"model.layers.{i}.mlp.up_proj.weight": up,
            f"model.layers.{i}.mlp.down_proj.weight": layer.down,
            f"model.layers.{i}.input_layernorm.weight": layer.attention_norm,
            f"model.layers.{i}.post_attention_layernorm.weight": layer.feed_forward_norm,
        }
    write_safetensors(folder / "model.safetensors", tensors, "BF16")
    config = {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.model
def test_the_default_model_as_a_bfloat16_directory(tmp_path: Path) -> None:
    """Its perplexity is the GGUF file's to 0.5 %, and both backends agree on it to four digits and more."""
    from dse.models.text import book

    original = load_decoder("smollm2-135m")
    tokens = book("holmes", original.tokenizer)[20000:20257]
    folder = smollm2_directory(original, tmp_path / "smollm2")

    def perplexity(model: Any) -> float:
        hidden = model.run(tokens[None, :-1], np.arange(256), lambda layer, q, k, v: dense_attention(q, k, v))
        logits = model.logits(hidden[0]).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = logits[np.arange(256), tokens[1:]] - np.log(np.exp(logits).sum(axis=-1))
        return float(np.exp(-chosen.mean()))

    file, ours, theirs = (
        perplexity(m) for m in (original, load_decoder(folder), load_model(folder, "transformers"))
    )
    assert ours == pytest.approx(file, rel=5e-3)
    assert theirs == pytest.approx(ours, rel=2e-5)
