"""The contract every attention algorithm keeps.

An algorithm sees queries, keys and values of one layer as arrays and returns what came out and what it
touched. It knows no model, no file and no chip. Shapes: `B` windows, `H` KV heads, `G` query heads per KV
head, `T` queries, `N` keys, `d` head dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.quantize import Scales
from dse.errors import BadInput, nearest
from dse.profiles.schema import Form, Knobs, KnobValue

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Knob:
    """A parameter of an algorithm: what it may be, and its value when it is left out.

    `low` and `high` bound numbers (inclusive); `choices` lists the valid strings, empty where the
    algorithm parses the string itself.
    """

    name: str
    default: KnobValue
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: object, where: str) -> KnobValue:
        """`value` in this knob's type, or `BadInput` that names `where`, the value and what is valid."""
        want = type(self.default)
        if want is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not want:
            raise BadInput(f"{where}: expected {want.__name__}, got {value!r}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not np.isfinite(value):
                raise BadInput(f"{where}: {value!r} is not a finite number")
            if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
                raise BadInput(f"{where}: {value!r} is outside {self.low} to {self.high}")
        if self.choices and value not in self.choices:
            raise BadInput(f"{where}: unknown value {value!r}; {nearest(str(value), self.choices)}")
        assert isinstance(value, (bool, int, float, str))
        return value


def visible_keys(positions: IntArray, keys: int, window: int = 0) -> BoolArray:
    """[T, keys]: which of the first `keys` tokens a query at each of `positions` [T] may see."""
    tokens = np.arange(keys)
    seen = tokens <= positions[:, None]
    if window:
        seen &= tokens > positions[:, None] - window
    return np.asarray(seen)


@dataclass(frozen=True)
class Call:
    """One layer's attention for `T` consecutive queries.

    Attributes:
        layer: index of the layer, of `layers`.
        q: [B, H, G, T, d] float, after position encoding, not yet divided by sqrt(d).
        k, v: [B, H, N, d] float.
        first: position of the first query; query t sees keys 0 .. first + t.
        context: the nominal context length of the measurement (bucket).
        scales: calibrated quantisation scales of this layer's heads.
        first_head: the layer's KV head that axis H begins with, for algorithms that keep tables per head.
        window: how many tokens, itself included, a query of this layer may see at most; 0: all before it.
    """

    layer: int
    layers: int
    q: FloatArray
    k: FloatArray
    v: FloatArray
    first: int
    context: int
    scales: Scales
    first_head: int = 0
    window: int = 0

    def visible(self) -> BoolArray:
        """[T, N]: which keys each query may see."""
        return visible_keys(self.first + np.arange(self.q.shape[3]), self.k.shape[2], self.window)


@dataclass
class Attended:
    """What an algorithm computed and touched.

    Attributes:
        out: [B, H, G, T, d] attention output.
        k_masks: per K chunk, [B, H, G, T, N] bool: which tokens' chunk each query head asked for; `None`
            stands for every visible token.
        v_mask: likewise for V rows.
        work: work counters (names of `schema.WORK_COUNTERS`) as totals over B, G and T, each [H] or scalar.
            `qk_rows_c` and `pv_rows` follow from the masks when they are left out.
    """

    out: FloatArray
    k_masks: Sequence[BoolArray | None]
    v_mask: BoolArray | None
    work: dict[str, Any] = field(default_factory=dict)


class Algorithm(ABC):
    """An attention algorithm at one knob setting.

    Subclasses that keep nothing from query to query (`stateful` False) implement `attend`, and may be called
    with any number of queries at once. The others implement `start` and are then called query by query.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    knobs: ClassVar[tuple[Knob, ...]]
    stateful: ClassVar[bool] = False
    revision: int = 1
    """Raised whenever the same knobs would give other numbers: older measurements then no longer count."""
    needs: str = ""
    """What calibration must supply before this algorithm can run, a key of `dse.measure.tables`; empty: nothing."""

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        self.settings = self.check(knobs or {}, where or self.name)

    @classmethod
    def defaults(cls) -> dict[str, KnobValue]:
        return {knob.name: knob.default for knob in cls.knobs}

    @classmethod
    def check(cls, knobs: Mapping[str, object], where: str) -> Knobs:
        """All knobs with defaults filled in; `BadInput` for an unknown name or a value out of range."""
        known = {knob.name: knob for knob in cls.knobs}
        for name in knobs:
            if name not in known:
                raise BadInput(f"{where}.{name}: unknown knob; {nearest(name, known)}")
        return {n: k.check(knobs.get(n, k.default), f"{where}.{n}") for n, k in known.items()}

    def number(self, name: str) -> float:
        value = self.settings[name]
        assert isinstance(value, (int, float))
        return float(value)

    def integer(self, name: str) -> int:
        value = self.settings[name]
        assert isinstance(value, int)
        return int(value)

    def text(self, name: str) -> str:
        value = self.settings[name]
        assert isinstance(value, str)
        return value

    def prepare(self, table: object) -> None:
        """Take what `needs` names; called before anything is attended."""
        raise NotImplementedError(f"{self.name} needs {self.needs or 'nothing'}")

    @abstractmethod
    def form(self) -> Form:
        """Operand widths and order of events of this setting."""

    def attend(self, call: Call) -> Attended:
        """Attention of one layer for queries that do not depend on each other."""
        raise NotImplementedError(f"{self.name} is stateful: use start()")

    def start(self, prompt: Prompt) -> Run:
        """Begin decoding after a prompt."""
        raise NotImplementedError(f"{self.name} keeps no state: use attend()")


@dataclass(frozen=True)
class Prompt:
    """What decoding starts from: the cache of a dense prompt pass and what that pass saw.

    Attributes:
        k, v: per layer, [B, H, P, d].
        group: query heads per KV head.
        capacity: tokens the cache will grow to (prompt and decoded ones).
        context: the nominal context length.
        column_sum: [B, P] attention probability every prompt token received, summed over the prompt's
            queries, all heads and all layers.
        scales: quantisation scales per layer.
        tokens: [B, P] token ids of the prompt.
        embed: token ids [...] to the model's input embeddings [..., D].
        windows: per layer, how many tokens a query may see at most (0: all).
        attention: makes [B, capacity - P, capacity]: dense attention of the decoded positions, averaged over
            layers and query heads. Only oracles may call it.
    """

    k: Sequence[FloatArray]
    v: Sequence[FloatArray]
    group: int
    capacity: int
    context: int
    column_sum: FloatArray
    scales: Sequence[Scales]
    tokens: IntArray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    embed: Callable[[IntArray], FloatArray] | None = None
    windows: Sequence[int] = ()
    attention: Callable[[], FloatArray] | None = None


class Run(ABC):
    """A decode in progress: one token at a time, all layers in order."""

    @abstractmethod
    def step(self, position: int, tokens: IntArray) -> IntArray | None:
        """Begin the step of `tokens` [B] at `position` (tokens before it are in the cache).

        Returns positions [B, R], rising and before `position`, of tokens to recompute beside the new one, or
        None for none.
        """

    @abstractmethod
    def attend(self, layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> Attended:
        """One layer: q [B, H, G, R + 1, d], k and v [B, H, R + 1, d]; the new token comes last.

        Masks are [B, H, G, R + 1, cache rows]; with one row of queries where all of them share the fetch.
        """
