"""Any architecture that transformers knows, behind the same protocol as the NumPy engine (extra `torch`).

transformers lets an attention function be registered by name. The one here hands the new positions' queries,
keys and values to whoever runs the model and puts back what comes in return, so every algorithm is the same code
as on the NumPy engine. The network runs in float32, on a GPU where there is one; attention runs in NumPy.

An architecture must compute attention through that registry, as a causal softmax of q . k: one that does not
(linear attention, a soft cap, position biases inside the scores) is found when it is loaded, and refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import FloatArray, IntArray
from dse.models.decoder import check_positions, dense_attention
from dse.models.protocol import Attend
from dse.models.safetensors import Checkpoint
from dse.models.tokenizer import Tokenizer, json_tokenizer
from dse.profiles.schema import ModelShape

NAME: Final = "dse"
"""Name of the attention function in transformers' registry."""

INSTALL: Final = "run `pip install '.[torch]'` in the checkout"

REFUSED: Final = ("softcap", "s_aux", "position_bias")
"""Arguments of an attention function that change what the softmax is taken of."""

ADAPTER: Final = "adapter_config.json"

PROBE: Final = 7
"""Tokens of the trial run that looks at a network's attention."""

TOLERANCE: Final = 1e-4


@dataclass
class _Turn:
    """One run of the network: who attends, and what was seen of the calls."""

    attend: Attend
    calls: int = 0
    queries: list[tuple[int, ...]] = field(default_factory=list)
    keys: list[tuple[int, ...]] = field(default_factory=list)
    values: list[tuple[int, ...]] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)


_turns: list[_Turn] = []
"""The runs under way, the innermost last."""


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Any, None]:
    """What transformers calls in every layer: q [B, Hq, T, d], k and v [B, H, T, d] -> [B, T, Hq, d]."""
    import torch

    if not _turns:
        raise RuntimeError("this network's attention is open: run it through dse")
    for name in REFUSED:
        if options.get(name) is not None:
            raise BadInput(f"model: its attention takes {name!r}; only a plain softmax of q . k is supported")
    turn = _turns[-1]
    layer = turn.calls
    turn.calls += 1
    for shapes, tensor in ((turn.queries, query), (turn.keys, key), (turn.values, value)):
        shapes.append(tuple(tensor.shape))
    turn.windows.append(int(options.get("sliding_window") or 0))
    width = query.shape[-1]
    if scaling is not None and not np.isclose(scaling, width**-0.5, rtol=1e-6):
        query = query * (scaling * width**0.5)
    q, k, v = (np.ascontiguousarray(t.float().cpu().numpy()) for t in (query, key, value))
    out = torch.from_numpy(np.ascontiguousarray(turn.attend(layer, q, k, v), dtype=np.float32))
    return out.to(device=query.device, dtype=query.dtype).transpose(1, 2).contiguous(), None


class TransformersModel:
    """A causal language model of transformers. Attributes as `dse.models.protocol.Model`, and `context`."""

    def __init__(self, network: Any, *, name: str, sha256: str = "", tokenizer: Path | None = None) -> None:
        """`network` is a loaded `AutoModelForCausalLM` whose attention is `NAME`.

        Raises:
            BadInput: its attention cannot be taken out of its hands.
        """
        self.name = name
        self.sha256 = sha256
        self.engine = "transformers"
        self._network = network.eval()
        self._base = _without_head(network)
        self._tokenizer = tokenizer
        self._head_in_forward = True
        self._embedding_scale = np.float32(1)
        self.context = int(getattr(network.config, "max_position_embeddings", None) or 1 << 20)
        self.vocabulary = int(network.get_input_embeddings().weight.shape[0])
        turn, hidden, logits = self._probe()
        self.shape = self._shape(turn)
        self.windows = self._windows(turn)
        self._check_head(hidden, logits)

    @classmethod
    def load(cls, folder: Path) -> TransformersModel:
        """The model in a Hugging Face directory of safetensors; nothing is fetched, no code of its own is run.

        Raises:
            BadInput: packages missing, not such a directory, or an architecture that cannot be measured.
        """
        try:
            import torch
            from transformers import AttentionInterface, AutoModelForCausalLM
            from transformers.utils import logging
        except ImportError as error:
            raise BadInput(f"package {error.name} is not installed; {INSTALL}") from None
        if not folder.is_dir():
            raise BadInput(f"model: {folder}: the transformers backend needs a Hugging Face directory")
        if (folder / ADAPTER).exists():
            raise BadInput(
                f"{folder / ADAPTER}: names another model to be loaded in place of this one; merge the adapter first"
            )
        checkpoint = Checkpoint(folder)  # refuses what is not safetensors before anything else reads it
        AttentionInterface.register(NAME, _attention)
        logging.disable_progress_bar()
        try:
            network = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation=NAME,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
            why = " ".join(str(error).split())[:200]
            raise BadInput(f"model: {folder}: transformers cannot load it: {why}") from None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        digest = hashlib.sha256((folder / "config.json").read_bytes() + checkpoint.sha256.encode())
        return cls(
            network.to(device),
            name=folder.resolve().name,
            sha256=digest.hexdigest(),
            tokenizer=folder / "tokenizer.json",
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the weights; BadInput when there is none."""
        if self._tokenizer is None:
            raise BadInput(f"model: {self.name}: has no tokenizer; load a model from disk")
        return json_tokenizer(self._tokenizer)

    def embed(self, tokens: IntArray) -> FloatArray:
        """[..., T] token ids to [..., T, D] as the first layer gets them, without what depends on the position."""
        return _numpy(self._rows(tokens)) * self._embedding_scale

    def _rows(self, tokens: IntArray) -> Any:
        """The embedding table's rows."""
        import torch

        with torch.no_grad():
            return self._network.get_input_embeddings()(self._tensor(tokens))

    def run(self, tokens: IntArray, positions: IntArray, attend: Attend) -> FloatArray:
        """All layers over tokens [B, T] at `positions` [T] or [B, T] -> [B, T, D], after the final norm.

        Raises:
            BadInput: a position past those the model was trained for.
        """
        check_positions(self.name, self.context, positions)
        turn = _Turn(attend)
        hidden = self._forward(tokens, positions, turn).last_hidden_state
        if turn.calls != self.shape.layers:
            raise BadInput(
                f"model: {self.name}: attention was asked for {turn.calls} times in {self.shape.layers} layers"
            )
        return _numpy(hidden)

    def logits(self, hidden: FloatArray) -> FloatArray:
        """Output head: [..., D] to [..., V]."""
        import torch

        flat = torch.from_numpy(np.ascontiguousarray(hidden.reshape(1, -1, hidden.shape[-1])))
        with torch.no_grad():
            out = self._head(flat.to(self._network.device))
        return _numpy(out).reshape(*hidden.shape[:-1], -1)

    def _head(self, hidden: Any) -> Any:
        """Logits [1, N, V] of hidden states [1, N, D]."""
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPast

        if not self._head_in_forward:
            return self._network.get_output_embeddings()(hidden)
        # The whole network with its layers left out: whatever it does to its logits (scales, caps) is done.
        with _replaced(self._base, lambda *_, **__: BaseModelOutputWithPast(last_hidden_state=hidden)):
            marker = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
            return self._network(input_ids=marker, use_cache=False).logits

    def _tensor(self, values: IntArray) -> Any:
        import torch

        return torch.from_numpy(np.array(values, dtype=np.int64)).to(self._network.device)

    def _forward(self, tokens: IntArray, positions: IntArray, turn: _Turn, **options: Any) -> Any:
        """What the network without its head returns."""
        import torch

        places = np.broadcast_to(positions, tokens.shape)
        _turns.append(turn)
        try:
            with torch.no_grad():
                return self._base(
                    input_ids=self._tensor(tokens),
                    position_ids=self._tensor(places),
                    use_cache=False,
                    **options,
                )
        finally:
            _turns.pop()

    def _probe(self) -> tuple[_Turn, Any, Any]:
        """Runs a few tokens densely: what attention was asked for, hidden states [1, T, D], logits [1, T, V]."""
        import torch

        def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
            return dense_attention(q, k, v)

        tokens = np.arange(PROBE)[None] % self.vocabulary
        turn = _Turn(attend)
        try:
            out = self._forward(tokens, np.arange(PROBE), turn, output_hidden_states=True)
            hidden = out.last_hidden_state
            if not turn.calls:
                raise BadInput(
                    f"model: {self.name}: {type(self._network).__name__} does not take its attention from "
                    "transformers' registry; its attention cannot be replaced"
                )
            self._embedding_scale = _proportion(_numpy(self._rows(tokens)), _numpy(out.hidden_states[0]))
            _turns.append(_Turn(attend))
            try:
                with torch.no_grad():
                    logits = self._network(
                        input_ids=self._tensor(tokens),
                        position_ids=self._tensor(np.arange(PROBE)[None]),
                        use_cache=False,
                    ).logits
            finally:
                _turns.pop()
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:
            why = " ".join(str(error).split())[:200]
            raise BadInput(f"model: {self.name}: cannot be run with its attention replaced: {why}") from None
        return turn, hidden, logits

    def _shape(self, turn: _Turn) -> ModelShape:
        shapes = {
            (q[1], k[1], q[3], v[3]) for q, k, v in zip(turn.queries, turn.keys, turn.values, strict=True)
        }
        if len(shapes) > 1:
            raise BadInput(f"model: {self.name}: its layers differ in heads; they must be all alike")
        ((heads, kv_heads, width, value_width),) = shapes
        if width != value_width or heads % kv_heads:
            raise BadInput(
                f"model: {self.name}: {heads} query heads of width {width}, {kv_heads} KV heads with values of "
                f"width {value_width}; whole groups and one width are needed"
            )
        head = self._network.get_output_embeddings().weight
        outside = {id(head), *(id(m.weight) for m in self._base.modules() if type(m).__name__ == "Embedding")}
        block = sum(p.numel() for p in self._base.parameters() if p.ndim > 1 and id(p) not in outside)
        return ModelShape(
            layers=turn.calls,
            query_heads=heads,
            kv_heads=kv_heads,
            head_dim=width,
            block_parameters=block,
            head_parameters=head.numel(),
        )

    def _windows(self, turn: _Turn) -> tuple[int, ...]:
        """Windows per layer, by the configuration's list of layer types where it has one."""
        config = self._network.config
        types = getattr(config, "layer_types", None)
        if types is None:
            return tuple(turn.windows)
        if others := sorted(set(types) - {"full_attention", "sliding_attention"}):
            raise BadInput(
                f"model: {self.name}: has layers of type {others[0]!r}; only plain attention is supported"
            )
        return tuple(int(config.sliding_window) if t == "sliding_attention" else 0 for t in types)

    def _check_head(self, hidden: Any, logits: Any) -> None:
        """Chooses how logits are made from hidden states, by what the whole network gave."""
        import torch

        for inside in (True, False):
            self._head_in_forward = inside
            try:
                with torch.no_grad():
                    found = self._head(hidden)
            except Exception:  # an architecture may need more of its layers than their output
                continue
            if found.shape == logits.shape and (found - logits).abs().max() <= TOLERANCE * logits.abs().max():
                return
        raise BadInput(f"model: {self.name}: its logits do not follow from its last hidden states")


def _proportion(a: FloatArray, b: FloatArray) -> np.float32:
    """r where b is r a; 1 where it is no multiple of it."""
    if a.shape != b.shape:
        return np.float32(1)
    ratio = float((a * b).sum() / max(float((a * a).sum()), 1e-30))
    return np.float32(ratio if np.allclose(b, ratio * a, rtol=1e-4, atol=1e-6) else 1)


def _without_head(network: Any) -> Any:
    """The network up to its last hidden states."""
    from transformers import PreTrainedModel

    if network.base_model is not network:
        return network.base_model
    # Some networks keep it under another name than they say.
    return next((m for m in network.children() if isinstance(m, PreTrainedModel)), network)


def _numpy(tensor: Any) -> FloatArray:
    values: FloatArray = np.ascontiguousarray(tensor.float().cpu().numpy())
    return values


@contextmanager
def _replaced(module: Any, forward: Any) -> Iterator[None]:
    """`module` with another forward function."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
