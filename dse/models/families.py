"""The families of models the NumPy engine runs, and how a network is put together from named weights.

A file format says which family a model is of, what its `Geometry` is and under which name each weight lies; the
rest is here, once for every format.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from dse.errors import BadInput
from dse.models.arrays import FloatArray
from dse.models.decoder import Decoder, Layer, Weights
from dse.models.tokenizer import Tokenizer

ELSEWHERE: Final = "the transformers backend (extra `torch`) runs other models, from Hugging Face directories"

SOFT_CAPPED: Final = "scores that are squashed before the softmax are not the q . k that every algorithm decides on; not supported"


class OtherFamily(BadInput):
    """A sound model that the NumPy engine does not run."""


@dataclass(frozen=True)
class Family:
    """What a family adds to a plain Llama block.

    Attributes:
        biases: queries, keys and values have biases.
        head_norms: query and key heads are normalised before rotation.
        post_norms: the output of either half of a block is normalised before it is added.
        gemma: GELU, embeddings scaled by sqrt(D), and norms that Hugging Face stores as w - 1.
        sliding: how many layers make a period whose last layer sees everything while the others have a window;
            0: layers have a window only where the model says so.
        rope_base: rotary base of models that do not state it.
        window_rope_base: rotary base of layers with a window, where it is not the common one.
    """

    biases: bool = False
    head_norms: bool = False
    post_norms: bool = False
    gemma: bool = False
    sliding: int = 0
    rope_base: float = 10000.0
    window_rope_base: float | None = None


FAMILIES: Final[Mapping[str, Family]] = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(biases=True),
    "qwen3": Family(head_norms=True),
    "gemma": Family(gemma=True),
    "gemma2": Family(gemma=True, post_norms=True, sliding=2),
    "gemma3": Family(
        gemma=True, post_norms=True, head_norms=True, sliding=6, rope_base=1e6, window_rope_base=1e4
    ),
}


SINGLE_BYTES: Final = 4
"""Of a weight in memory."""


@dataclass(frozen=True)
class Geometry:
    """Sizes and constants of one model; `where` is the file that messages name.

    Attributes:
        windows: per layer, 0 for layers that see everything.
        score_width: scores are q . k / sqrt(score_width).
        logit_cap: soft cap of the logits, 0 for none.
    """

    where: str
    layers: int
    dim: int
    hidden: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    norm_epsilon: float
    rope_base: float
    windows: tuple[int, ...] = ()
    window_rope_base: float | None = None
    rope_factors: FloatArray | None = None
    score_width: float = 0.0
    logit_cap: float = 0.0

    def check(self) -> None:
        """Raises `BadInput` where heads do not form whole groups of an even width."""
        if self.query_heads % self.kv_heads or self.head_dim < 2 or self.head_dim % 2:
            raise BadInput(
                f"{self.where}: {self.query_heads} query heads, {self.kv_heads} KV heads of width "
                f"{self.head_dim}; whole groups and an even width would be right"
            )

    def check_memory(self) -> None:
        """Raises `BadInput` where the weights in single precision are more than this machine's memory."""
        block = self.dim * (2 * (self.query_heads + self.kv_heads) * self.head_dim + 3 * self.hidden)
        need, have = SINGLE_BYTES * (self.layers * block + self.vocabulary * self.dim), memory()
        if need > have:
            raise BadInput(
                f"{self.where}: its weights take {need >> 30} GiB in single precision, this machine has {have >> 30}; "
                "a smaller model is needed"
            )


def memory() -> int:
    """Bytes of this machine's memory; what no machine has where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 60


class Source(Protocol):
    """Where weights come from."""

    def get(self, role: str, layer: int | None, shape: tuple[int, ...]) -> FloatArray:
        """The weight of a role ("query", "gate", ...), of one layer or of none; BadInput unless of `shape`."""
        ...

    def has(self, role: str) -> bool:
        """Whether a weight outside the layers is there."""
        ...

    def unused(self) -> list[str]:
        """Names of weights nobody asked for."""
        ...


def sliding_windows(layers: int, period: int, window: int) -> tuple[int, ...]:
    """Every `period`-th layer sees everything (0), the others `window` tokens."""
    return tuple(0 if (i + 1) % period == 0 else window for i in range(layers)) if period and window else ()


def assemble(
    family: Family,
    geometry: Geometry,
    source: Source,
    *,
    name: str,
    sha256: str,
    make_tokenizer: Callable[[], Tokenizer],
) -> Decoder:
    """Reads every weight and makes the network.

    Raises:
        BadInput: a weight is missing, has another shape, or the model has weights that its family has not.
    """
    g = geometry
    g.check()
    g.check_memory()
    queries, keys = g.query_heads * g.head_dim, g.kv_heads * g.head_dim

    def layer(i: int) -> Layer:
        def get(role: str, *shape: int) -> FloatArray:
            return source.get(role, i, shape)

        def both(a: FloatArray, *others: FloatArray) -> FloatArray:
            joined: FloatArray = np.concatenate((a, *others))
            return joined

        extra: dict[str, Any] = {}
        if family.biases:
            extra["qkv_bias"] = both(
                get("query_bias", queries), get("key_bias", keys), get("value_bias", keys)
            )
        if family.head_norms:
            extra["query_norm"] = get("query_norm", g.head_dim)
            extra["key_norm"] = get("key_norm", g.head_dim)
        if family.post_norms:
            extra["attention_post_norm"] = get("attention_post_norm", g.dim)
            extra["feed_forward_post_norm"] = get("feed_forward_post_norm", g.dim)
        return Layer(
            attention_norm=get("attention_norm", g.dim),
            qkv=both(get("query", queries, g.dim), get("key", keys, g.dim), get("value", keys, g.dim)),
            output=get("output", g.dim, queries),
            feed_forward_norm=get("feed_forward_norm", g.dim),
            gate_up=both(get("gate", g.hidden, g.dim), get("up", g.hidden, g.dim)),
            down=get("down", g.dim, g.hidden),
            **extra,
        )

    layers = tuple(layer(i) for i in range(g.layers))
    table = (g.vocabulary, g.dim)
    embedding = source.get("embedding", None, table)
    head = source.get("head", None, table) if source.has("head") else embedding
    weights = Weights(embedding, layers, source.get("final_norm", None, (g.dim,)), head)
    if extra := source.unused():
        raise OtherFamily(
            f"{g.where}: tensor {extra[0]!r} is not part of its family of networks ({len(extra)} such); {ELSEWHERE}"
        )
    return Decoder(
        weights,
        query_heads=g.query_heads,
        kv_heads=g.kv_heads,
        head_dim=g.head_dim,
        context=g.context,
        rope_base=g.rope_base,
        rope_factors=g.rope_factors,
        norm_epsilon=g.norm_epsilon,
        activation="gelu" if family.gemma else "silu",
        embedding_scale=g.dim**0.5 if family.gemma else 1.0,
        query_scale=(g.head_dim / g.score_width) ** 0.5 if g.score_width else 1.0,
        logit_cap=g.logit_cap,
        windows=g.windows,
        window_rope_base=g.window_rope_base,
        name=name,
        sha256=sha256,
        make_tokenizer=make_tokenizer,
    )
