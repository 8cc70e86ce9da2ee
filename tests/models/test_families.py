"""Every family: the engine against the published equations, and every file format against the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import KINDS, Kind, decoder, slow_logits, weights, write_directory, write_gguf

from dse.errors import BadInput
from dse.models.decoder import Decoder, dense_attention
from dse.models.families import OtherFamily
from dse.models.load import load_decoder, load_model

TOKENS = np.random.default_rng(3).integers(0, 61, (2, 19))

# What a file of this kind cannot say: llama.cpp has no Mistral of its own, and its Gemma files state no score scale.
IN_GGUF = [k for k in KINDS if k not in ("mistral", "gemma2", "gemma3")]


def logits(model: Decoder) -> np.ndarray:
    return model.logits(model.forward_dense(TOKENS, row_block=4))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def test_the_engine_equals_the_published_equations(kind: Kind) -> None:
    w = weights(kind)
    model = decoder(kind, w)
    found = logits(model)
    for window in range(len(TOKENS)):
        twin = slow_logits(kind, w, TOKENS[window])
        np.testing.assert_allclose(found[window], twin, atol=3e-4 * np.abs(twin).max())
    assert model.windows == kind.seen


def test_each_part_of_a_family_changes_the_result() -> None:
    """Otherwise a part that the engine leaves out, and the equations above with it, would not show."""
    for name, plain in (("qwen2", "llama"), ("qwen3", "llama"), ("mistral", "llama"), ("gemma3", "gemma")):
        kind = KINDS[name]
        w = weights(kind)
        full = slow_logits(kind, w, TOKENS[0])
        bare = Kind(plain, plain, layers=kind.layers, gemma=kind.gemma, tied=kind.tied, base=kind.base)
        assert np.abs(full - slow_logits(bare, w, TOKENS[0])).max() > 0.1 * np.abs(full).max()


def test_steps_over_a_cache_of_the_callers_equal_the_full_pass(kind: Kind) -> None:
    """The network keeps nothing: whoever attends keeps keys and values, windows included."""
    model = decoder(kind, weights(kind))
    full = model.forward_dense(TOKENS)
    cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def attend(layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        old = cache.get(layer)
        both = (
            (k, v) if old is None else tuple(np.concatenate(p, axis=2) for p in zip(old, (k, v), strict=True))
        )
        cache[layer] = both
        return dense_attention(q, *both, window=model.windows[layer])

    parts = []
    for first, stop in ((0, 7), (7, 8), (8, 9), (9, 19)):
        positions = np.broadcast_to(np.arange(first, stop), (2, stop - first))
        parts.append(model.run(TOKENS[:, first:stop], positions, attend))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, rtol=1e-3, atol=1e-3)


def test_every_window_may_be_at_positions_of_its_own(kind: Kind) -> None:
    model = decoder(kind, weights(kind))
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def attend(layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        seen.append((q, k))
        return dense_attention(q, k, v)

    positions = np.array([[3, 9, 4], [40, 2, 11]])
    model.run(TOKENS[:, :3], positions, attend)
    together, seen = seen, []
    for b in range(2):
        seen.clear()
        model.run(TOKENS[b : b + 1, :3], positions[b], attend)
        for (q, k), (one_q, one_k) in zip(together, seen, strict=True):
            np.testing.assert_allclose(q[b], one_q[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(k[b], one_k[0], rtol=1e-4, atol=1e-4)


def test_a_directory_gives_the_network(kind: Kind, tmp_path: Path) -> None:
    w = weights(kind)
    model = load_decoder(write_directory(kind, w, tmp_path / "model"))
    np.testing.assert_allclose(logits(model), logits(decoder(kind, w)), rtol=1e-4, atol=1e-4)
    assert (model.windows, model.name, model.vocabulary, model.context) == (kind.seen, "model", 61, 512)
    assert model.shape == decoder(kind, w).shape
    assert len(model.sha256) == 64


@pytest.mark.parametrize("name", IN_GGUF)
def test_a_gguf_file_gives_the_network(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    w = weights(kind)
    model = load_decoder(write_gguf(kind, w, tmp_path / "model.gguf"))
    np.testing.assert_allclose(logits(model), logits(decoder(kind, w)), rtol=1e-4, atol=1e-4)


def test_gemma_3_in_a_gguf_file_has_windows_by_its_period(tmp_path: Path) -> None:
    fields = {k: v for k, v in vars(KINDS["gemma3"]).items() if k != "score_width"}
    kind = Kind(**fields)
    w = weights(kind)
    model = load_decoder(write_gguf(kind, w, tmp_path / "model.gguf"))
    assert model.windows == (5, 5, 5, 5, 5, 0, 5)
    np.testing.assert_allclose(logits(model), logits(decoder(kind, w)), rtol=1e-4, atol=1e-4)
    stated = write_gguf(
        kind, w, tmp_path / "stated.gguf", **{"attention.sliding_window_pattern": [True] * 4 + [False] * 3}
    )
    assert load_decoder(stated).windows == (5, 5, 5, 5, 0, 0, 0)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_half_precision_and_shards(dtype: str, tmp_path: Path) -> None:
    kind = KINDS["qwen3"]
    w = weights(kind)
    whole = load_decoder(write_directory(kind, w, tmp_path / "whole", dtype))
    cut = load_decoder(write_directory(kind, w, tmp_path / "cut", dtype, shards=3))
    assert np.array_equal(logits(whole), logits(cut))
    assert whole.sha256 != cut.sha256
    exact = logits(decoder(kind, w))
    error = np.linalg.norm(logits(whole) - exact) / np.linalg.norm(exact)
    assert 0 < error < (0.1 if dtype == "BF16" else 0.02)


@pytest.mark.parametrize("name", ["llama-3", "gemma3"])
def test_newer_configurations_say_the_same(name: str, tmp_path: Path) -> None:
    """Rotary parameters in one table, and a type for every layer."""
    kind = KINDS[name]
    w = weights(kind)
    if name == "llama-3":
        old = write_directory(kind, w, tmp_path / "old")
        table = {"rope_theta": kind.base, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
        table |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        changes: dict[str, Any] = {"rope_scaling": ...}
    else:
        old = write_directory(kind, w, tmp_path / "old")
        table = {
            "full_attention": {"rope_type": "default", "rope_theta": kind.base},
            "sliding_attention": {"rope_type": "default", "rope_theta": kind.local_base},
        }
        types = ["sliding_attention" if n else "full_attention" for n in kind.windows]
        changes = {"layer_types": types}
    new = write_directory(kind, w, tmp_path / "new", rope_theta=..., rope_parameters=table, **changes)
    assert np.array_equal(logits(load_decoder(old)), logits(load_decoder(new)))


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, (0, 0, 0)),
        ({"sliding_window": 5, "use_sliding_window": False}, (0, 0, 0)),
        ({"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1}, (0, 5, 5)),
        ({"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 0}, (5, 5, 5)),
    ],
)
def test_windows_of_qwen(changes: dict[str, Any], windows: tuple[int, ...], tmp_path: Path) -> None:
    kind = KINDS["qwen2"]
    assert (
        load_decoder(write_directory(kind, weights(kind), tmp_path / "model", **changes)).windows == windows
    )


def test_a_directory_without_the_head_of_its_own_ties_it(tmp_path: Path) -> None:
    kind = KINDS["llama-3"]
    w = weights(kind)
    model = load_decoder(write_directory(kind, w, tmp_path / "model", tie_word_embeddings=...))
    assert model.weights.head is model.weights.embedding
    with pytest.raises(BadInput, match=r"tensor 'lm_head\.weight' is missing"):
        load_decoder(write_directory(kind, w, tmp_path / "untied", tie_word_embeddings=False))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"model_type": "bloom"}, "found 'bloom'; the NumPy engine runs llama,"),
        ("llama", {"model_type": ...}, "model_type: found None"),
        ("llama", {"attention_bias": True}, "attention_bias: found True"),
        ("llama", {"mlp_bias": True}, "mlp_bias: found True"),
        ("llama", {"hidden_act": "relu"}, "hidden_act: found 'relu'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config: found"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling: found 'yarn'"),
        ("gemma3", {"layer_types": ["chunked_attention"] * 7}, "layer_types: found 'chunked_attention'"),
        ("qwen3", {"model_type": "llama"}, "is not part of its family of networks (6 such)"),
    ],
)
def test_other_directories_name_the_other_backend(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_directory(KINDS[name], weights(KINDS[name]), tmp_path / "model", **changes)
    with pytest.raises(OtherFamily) as caught:
        load_model(folder, "numpy")
    assert message in str(caught.value)
    assert "the transformers backend (extra `torch`)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "gemma2",
            {"attn_logit_softcapping": 50.0},
            "attn_logit_softcapping: found 50.0; scores that are squashed",
        ),
        ("gemma2", {"attn_logit_softcapping": ...}, "attn_logit_softcapping: found 50.0"),
        ("llama", {"hidden_size": "big"}, "hidden_size: found 'big'; a whole number of 1 to"),
        ("llama", {"num_attention_heads": ...}, "num_attention_heads: found None"),
        ("llama", {"num_hidden_layers": 4}, "tensor 'model.layers.3.input_layernorm.weight' is missing"),
        ("llama", {"num_key_value_heads": 3}, "4 query heads, 3 KV heads of width 8; whole groups"),
        ("llama", {"intermediate_size": 41}, "has shape (40, 24); (41, 24) would be right"),
        ("llama", {"rope_theta": "x"}, "rope_theta: found 'x'; a number would be right"),
        ("llama", {"rope_scaling": 3}, "rope_scaling: found 3; a table would be right"),
        ("gemma3", {"layer_types": ["full_attention"]}, "layer_types: found"),
    ],
)
def test_wrong_directories_are_named(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_directory(KINDS[name], weights(KINDS[name]), tmp_path / "model", **changes)
    with pytest.raises(BadInput, match=f"^{folder}") as caught:
        load_decoder(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_soft_capped_scores_in_a_gguf_file_are_refused(tmp_path: Path) -> None:
    kind = KINDS["gemma2"]
    path = write_gguf(kind, weights(kind), tmp_path / "model.gguf")
    with pytest.raises(
        BadInput, match=r"gemma2\.attn_logit_softcapping: found 50\.0; scores that are squashed"
    ):
        load_decoder(path)


def test_an_unknown_backend_is_corrected() -> None:
    with pytest.raises(BadInput, match="did you mean 'transformers'"):
        load_model(None, "transformer")
