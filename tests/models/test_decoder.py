"""The network against a slow float64 twin, and the properties that measuring on it relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from dse.errors import BadInput
from dse.models.decoder import dense_attention
from dse.models.load import load_decoder

TOKENS = np.random.default_rng(3).integers(0, 261, (2, 23))


def slow_hidden(tiny: Any, tokens: np.ndarray, heads: int, kv_heads: int) -> np.ndarray:
    """The published equations in float64, one window, one head and one query at a time: [T, D]."""

    def norm(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w

    def rope(vector: np.ndarray, position: int) -> np.ndarray:
        d = len(vector)
        out = np.empty(d)
        for i in range(d // 2):
            angle = position * 10000.0 ** (-2 * i / d)
            a, b = vector[i], vector[i + d // 2]
            out[i] = a * np.cos(angle) - b * np.sin(angle)
            out[i + d // 2] = b * np.cos(angle) + a * np.sin(angle)
        return out

    x = tiny.embedding[tokens].astype(np.float64)
    length = len(tokens)
    for layer in tiny.layers:
        w = {name: value.astype(np.float64) for name, value in layer.items()}
        y = norm(x, w["attn_norm"])
        q = (y @ w["attn_q"].T).reshape(length, heads, -1)
        k = (y @ w["attn_k"].T).reshape(length, kv_heads, -1)
        v = (y @ w["attn_v"].T).reshape(length, kv_heads, -1)
        attended = np.zeros_like(q)
        for h in range(heads):
            shared = h // (heads // kv_heads)
            keys = [rope(k[t, shared], t) for t in range(length)]
            for t in range(length):
                query = rope(q[t, h], t)
                scores = np.array([query @ keys[s] for s in range(t + 1)]) / np.sqrt(q.shape[-1])
                p = np.exp(scores - scores.max())
                attended[t, h] = p / p.sum() @ v[: t + 1, shared]
        x = x + attended.reshape(length, -1) @ w["attn_output"].T
        y = norm(x, w["ffn_norm"])
        gate = y @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w["ffn_up"].T)) @ w["ffn_down"].T
    return x


def slow_logits(tiny: Any, x: np.ndarray) -> np.ndarray:
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * tiny.final_norm
    return y @ tiny.embedding.T.astype(np.float64)


def test_the_forward_pass_equals_the_slow_twin(tiny: Any) -> None:
    model = tiny.llama()
    hidden = model.forward_dense(TOKENS, row_block=5)
    for window in range(len(TOKENS)):
        twin = slow_hidden(tiny, TOKENS[window], 4, 2)
        np.testing.assert_allclose(hidden[window], twin, rtol=2e-4, atol=2e-4 * np.abs(twin).max())
        logits = model.logits(hidden[window])
        np.testing.assert_allclose(logits, slow_logits(tiny, twin), atol=5e-4 * np.abs(logits).max())


def test_a_gguf_file_gives_the_same_network(tiny: Any, tiny_file: Path) -> None:
    loaded, made = load_decoder(tiny_file), tiny.llama()
    assert np.array_equal(loaded.forward_dense(TOKENS), made.forward_dense(TOKENS))
    assert loaded.shape == made.shape
    assert (loaded.vocabulary, loaded.dim, loaded.context, loaded.name) == (261, 32, 128, "tiny")
    assert len(loaded.sha256) == 64


def test_the_parameters_that_a_token_multiplies_are_counted(tiny: Any) -> None:
    shape = tiny.llama().shape
    assert shape.block_parameters == sum(
        w.size for layer in tiny.layers for name, w in layer.items() if "norm" not in name
    )
    assert shape.head_parameters == 261 * 32
    assert shape.group == 2


def test_eight_bit_weights_stay_close(tiny: Any, tmp_path: Path) -> None:
    model = load_decoder(tiny.write(tmp_path / "q8.gguf", quantised=True))
    exact = tiny.llama().forward_dense(TOKENS)
    error = np.linalg.norm(model.forward_dense(TOKENS) - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.05


@pytest.mark.parametrize("changed", [1, 8, 17, 22])
def test_the_future_changes_nothing(tiny: Any, changed: int) -> None:
    model = tiny.llama()
    other = TOKENS.copy()
    other[:, changed:] = (other[:, changed:] + 1) % 261
    before, after = (model.forward_dense(tokens, row_block=8) for tokens in (TOKENS, other))
    assert np.array_equal(before[:, :changed], after[:, :changed])
    assert not np.allclose(before[:, changed:], after[:, changed:])


def test_windows_do_not_see_each_other(tiny: Any) -> None:
    model = tiny.llama()
    both = model.forward_dense(TOKENS)
    other = TOKENS.copy()
    other[1] = (other[1] + 1) % 261
    assert np.array_equal(both[0], model.forward_dense(other)[0])


def test_row_blocks_change_nothing(tiny: Any) -> None:
    model = tiny.llama()
    whole = model.forward_dense(TOKENS, row_block=23)
    for rows in (1, 2, 7, 22, 100):
        np.testing.assert_allclose(model.forward_dense(TOKENS, row_block=rows), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step", [1, 4, 10])
def test_decoding_in_steps_equals_the_full_pass(tiny: Any, step: int) -> None:
    """Each step runs only its new tokens on cached keys and values, through the open interface."""
    model = tiny.llama()
    full = model.forward_dense(TOKENS)
    caches: list[list[np.ndarray]] = [[] for _ in range(model.shape.layers)]
    outputs = []
    for first in range(0, TOKENS.shape[1], step):
        new = TOKENS[:, first : first + step]
        positions = first + np.arange(new.shape[1])
        x = model.embed(new)
        for layer, cache in enumerate(caches):
            q, k, v = model.qkv(layer, x, positions)
            cache[:] = (
                [np.concatenate(p, axis=2) for p in zip(cache, (k, v), strict=True)] if cache else [k, v]
            )
            x = model.finish(layer, x, dense_attention(q, *cache, row_block=3))
        outputs.append(x)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), full, rtol=1e-4, atol=1e-4)


def test_finish_leaves_its_input_alone(tiny: Any) -> None:
    model = tiny.llama()
    x = model.embed(TOKENS)
    before = x.copy()
    q, k, v = model.qkv(0, x, np.arange(TOKENS.shape[1]))
    model.finish(0, x, dense_attention(q, k, v))
    assert np.array_equal(x, before)
    assert all(a.flags.c_contiguous and a.dtype == np.float32 for a in (q, k, v))


def test_query_heads_share_keys_in_consecutive_groups(tiny: Any) -> None:
    """A network whose shared K and V heads are written out per query head is the same network."""
    w = [dict(layer) for layer in tiny.layers]
    for layer in w:
        for name in ("attn_k", "attn_v"):
            layer[name] = np.repeat(layer[name].reshape(2, 8, -1), 2, axis=0).reshape(32, -1)
    apart = type(tiny)(tiny.embedding, w, tiny.final_norm).llama(kv_heads=4)
    np.testing.assert_allclose(
        apart.forward_dense(TOKENS), tiny.llama().forward_dense(TOKENS), rtol=1e-4, atol=1e-4
    )


def test_attention_depends_on_distances_only(tiny: Any) -> None:
    """Rotary positions: shifting every position by the same amount keeps the result."""
    model = tiny.llama()
    shifted = model.forward_dense(TOKENS, first_position=1000)
    np.testing.assert_allclose(shifted, model.forward_dense(TOKENS), rtol=2e-3, atol=2e-3)


def test_positions_need_not_be_consecutive(tiny: Any) -> None:
    model = tiny.llama()
    x = model.embed(TOKENS)
    order = np.array([5, 700, 0])
    q, k, _ = model.qkv(1, x[:, :3], order)
    for i, position in enumerate(order):
        one_q, one_k, _ = model.qkv(1, x[:, i : i + 1], np.array([position]))
        np.testing.assert_allclose(q[:, :, i : i + 1], one_q, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(k[:, :, i : i + 1], one_k, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="negative"):
        model.qkv(0, x, np.arange(TOKENS.shape[1]) - 1)


def test_nll_is_the_softmax_of_the_logits(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.llama()
    hidden = model.forward_dense(TOKENS)
    logits = model.logits(hidden[:, :-1]).astype(np.float64)
    expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, TOKENS[:, 1:, None], -1)[..., 0]
    np.testing.assert_allclose(model.nll(hidden[:, :-1], TOKENS[:, 1:]), expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("dse.models.decoder.HEAD_ROWS", 3)
    np.testing.assert_allclose(model.logits(hidden[:, :-1]), logits, rtol=1e-4, atol=1e-4)


def test_huge_gates_do_not_overflow(tiny: Any) -> None:
    model = tiny.llama()
    x = model.embed(TOKENS)
    w = model.weights.layers[0].gate_up
    w_before = w.copy()
    try:
        w *= 1e4
        with np.errstate(all="raise", under="ignore"):
            q, k, v = model.qkv(0, x, np.arange(TOKENS.shape[1]))
            assert np.isfinite(model.finish(0, x, dense_attention(q, k, v))).all()
    finally:
        w[:] = w_before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_count": 0}, "llama.block_count: found 0"),
        ({"block_count": 3}, "'blk.2.attn_norm.weight' is missing"),
        ({"block_count": 1}, "is not part of its family"),
        ({"block_count": 1 << 31}, "its weights take"),
        ({"embedding_length": None}, "metadata has no 'llama.embedding_length'"),
        ({"embedding_length": 64}, "would be right"),
        ({"attention.head_count": 3}, "would be right"),
        ({"attention.head_count": 1 << 30}, "would be right"),
        ({"attention.head_count_kv": 3}, "whole groups"),
        ({"attention.head_count_kv": 0}, "at least 1"),
        ({"attention.sliding_window": 16}, "llama.attention.sliding_window: found 16"),
        ({"rope.dimension_count": 4}, "only 8 is supported"),
        ({"rope.scaling.type": "yarn"}, "only 'none' and 'linear' are supported"),
        ({"context_length": "long"}, "found a str; a int"),
    ],
)
def test_other_networks_are_refused(tiny: Any, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tiny.write(tmp_path / "other.gguf", **changes)
    with pytest.raises(BadInput, match=f"^{path}: ") as caught:
        load_decoder(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "bert.gguf", "bert")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(
        BadInput, match=r"found 'bert'; 'llama', 'mistral', 'qwen2', 'qwen3', 'gemma', .* are"
    ):
        load_decoder(tmp_path / "bert.gguf")


def test_an_in_memory_network_has_no_tokenizer(tiny: Any) -> None:
    with pytest.raises(BadInput, match="has no tokenizer"):
        _ = tiny.llama().tokenizer


def test_positions_past_the_training_are_refused(tiny_file: Path) -> None:
    model = load_decoder(tiny_file)
    model.forward_dense(TOKENS, first_position=128 - TOKENS.shape[1])
    with pytest.raises(
        BadInput, match="tiny: token 129 is past the 128 it was trained for; measure a shorter"
    ):
        model.forward_dense(TOKENS, first_position=129 - TOKENS.shape[1])
