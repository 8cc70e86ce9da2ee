"""What a price needs from profile rows: counters of a few load classes, and the forms of the settings.

The layers and KV heads of a model do not keep the same number of tokens, and the time of a sum of heads is
not that of the mean head (one waits for memory, the next for its multipliers). So the heads of each setting
are grouped into a few *load classes* of similar traffic; a class is priced at the mean of its members and
counts as many times as it has members. With one class per head nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dse.errors import DseError
from dse.profiles.schema import (
    FETCH_COUNTERS,
    WORK_COUNTERS,
    Form,
    ModelShape,
    Setting,
    counter_columns,
)

FloatArray = NDArray[np.float64]

COUNTERS: Final = FETCH_COUNTERS + WORK_COUNTERS
V_AFTER: Final = ("none", "token", "row")
CHUNK_ORDER: Final = ("token", "row")
LLOYD_ROUNDS: Final = 12


class Rows(Protocol):
    """Profile rows of one algorithm at one context, as a look-up returns them."""

    @property
    def settings(self) -> Sequence[Setting]: ...

    @property
    def counters(self) -> NDArray[np.floating]: ...  # [S, layers, kv_heads, len(counter_columns())]


@dataclass(frozen=True)
class Statistics:
    """Counters and forms of S settings in K load classes.

    Attributes:
        shape: geometry of the model.
        n: mean visible tokens.
        grouped: whether the query heads of a KV head share its fetches.
        counters: name (without scope) -> [S, K], mean per head of the class.
        weights: [S, K], KV heads per class; each row sums to layers * kv_heads.
        chunk_bits: [S, C] widths of the K planes, 0 where a setting has fewer.
        v_bits, q_bits, k_scale_bits, v_scale_bits, lag: [S]; releases: [S] bool.
        v_after, chunk_order: [S], indices into `V_AFTER` and `CHUNK_ORDER`.
    """

    shape: ModelShape
    n: float
    grouped: bool
    counters: Mapping[str, FloatArray]
    weights: FloatArray
    chunk_bits: FloatArray
    v_bits: FloatArray
    q_bits: FloatArray
    k_scale_bits: FloatArray
    v_scale_bits: FloatArray
    lag: FloatArray
    releases: NDArray[np.bool_]
    v_after: NDArray[np.intp]
    chunk_order: NDArray[np.intp]

    @property
    def settings(self) -> int:
        return int(self.weights.shape[0])

    @property
    def classes(self) -> int:
        return int(self.weights.shape[1])

    @property
    def chunks(self) -> int:
        return int(self.chunk_bits.shape[1])

    @property
    def sharing(self) -> int:
        """Query heads that one fetch serves."""
        return self.shape.group if self.grouped else 1

    @property
    def streams(self) -> float:
        """Tokens the fetches of one KV head range over: n, or n for each query head that fetches alone."""
        return self.n if self.grouped else self.n * self.shape.group

    def take(self, rows: Sequence[int] | NDArray[np.intp] | slice) -> Statistics:
        """The statistics of some of the settings."""
        fields = {
            name: getattr(self, name)[rows]
            for name in ("weights", "chunk_bits", "v_bits", "q_bits", "k_scale_bits", "v_scale_bits", "lag",
                         "releases", "v_after", "chunk_order")
        }  # fmt: skip
        counters = {name: values[rows] for name, values in self.counters.items()}
        return Statistics(shape=self.shape, n=self.n, grouped=self.grouped, counters=counters, **fields)


def statistics_from(
    selection: Rows, shape: ModelShape, n: float, grouped: bool = True, classes: int = 4
) -> Statistics:
    """Statistics of the rows a profile look-up selected; arguments as `statistics`."""
    forms = [setting.form for setting in selection.settings]
    return statistics(forms, selection.counters, shape, n, grouped, classes)


def statistics(
    forms: Sequence[Form],
    counters: NDArray[np.floating],
    shape: ModelShape,
    n: float,
    grouped: bool = True,
    classes: int = 4,
) -> Statistics:
    """Statistics of S settings.

    Args:
        forms: one per setting.
        counters: [S, layers, kv_heads, len(counter_columns())], means per decode step.
        shape: geometry of the model the counters were measured on.
        n: mean visible tokens.
        grouped: share fetches in the group of a KV head (scope ``group``) or not (scope ``head``).
        classes: load classes; 0, or as many as there are heads, for one class per head.

    Raises:
        DseError: an array has the wrong shape, or a counter is negative or not finite.
    """
    columns = counter_columns()
    wanted = (len(forms), shape.layers, shape.kv_heads, len(columns))
    if counters.shape != wanted:
        raise DseError(f"statistics: counters have shape {counters.shape}; must be {wanted}")
    scope = "group" if grouped else "head"
    names = [f"{scope}.{name}" for name in FETCH_COUNTERS] + list(WORK_COUNTERS)
    picked = [columns.index(name) for name in names]
    heads = shape.layers * shape.kv_heads
    table = np.asarray(counters, dtype=np.float64).reshape(len(forms), heads, len(columns))[:, :, picked]
    if not np.isfinite(table).all() or (table < 0).any():
        raise DseError("statistics: counters must be finite and not negative; these rows were not measured")
    chunks = max(len(form.k_chunk_bits) for form in forms)
    chunk_bits = np.zeros((len(forms), chunks))
    for i, form in enumerate(forms):
        chunk_bits[i, : len(form.k_chunk_bits)] = form.k_chunk_bits
    v_bits = np.asarray([form.v_bits for form in forms], dtype=np.float64)
    load = _traffic(table, chunk_bits, v_bits, shape.head_dim)
    means, weights = _classify(table, load, heads if classes <= 0 else min(classes, heads))
    return Statistics(
        shape=shape,
        n=float(n),
        grouped=grouped,
        counters={name: means[:, :, i] for i, name in enumerate(COUNTERS)},
        weights=weights,
        chunk_bits=chunk_bits,
        v_bits=v_bits,
        q_bits=np.asarray([form.q_bits for form in forms], dtype=np.float64),
        k_scale_bits=np.asarray([form.k_scale_bits for form in forms], dtype=np.float64),
        v_scale_bits=np.asarray([form.v_scale_bits for form in forms], dtype=np.float64),
        lag=np.asarray([form.lag for form in forms], dtype=np.float64),
        releases=np.asarray([form.releases for form in forms], dtype=np.bool_),
        v_after=np.asarray([V_AFTER.index(form.v_after) for form in forms], dtype=np.intp),
        chunk_order=np.asarray([CHUNK_ORDER.index(form.chunk_order) for form in forms], dtype=np.intp),
    )


def _traffic(table: FloatArray, chunk_bits: FloatArray, v_bits: FloatArray, head_dim: int) -> FloatArray:
    """Bytes each head asks for, [S, heads]: the load that classes are formed on."""
    load = table[:, :, COUNTERS.index("v_rows")] * v_bits[:, None]
    for c in range(chunk_bits.shape[1]):
        load = load + table[:, :, COUNTERS.index(f"k_rows_{c}")] * chunk_bits[:, c, None]
    return load * head_dim / 8 + table[:, :, COUNTERS.index("meta_read_bytes")]


def _classify(table: FloatArray, load: FloatArray, classes: int) -> tuple[FloatArray, FloatArray]:
    """Means [S, K, counters] and sizes [S, K] of classes of similar load (1-D k-means from quantiles)."""
    settings, heads = load.shape
    if classes == heads:
        return table, np.ones((settings, heads))
    order = np.argsort(load, axis=1, kind="stable")
    ranked = np.take_along_axis(load, order, axis=1)
    # In one dimension a class is a stretch of the ranking, so Lloyd's rounds only move the cuts between
    # stretches.
    label = np.repeat(np.minimum(np.arange(heads) * classes // heads, classes - 1)[None, :], settings, axis=0)
    for _ in range(LLOYD_ROUNDS):
        member = label[:, :, None] == np.arange(classes)
        size = member.sum(axis=1)
        centre = np.einsum("sh,shk->sk", ranked, member) / np.maximum(size, 1)
        centre = np.maximum.accumulate(np.where(size > 0, centre, -np.inf), axis=1)
        cuts = 0.5 * (centre[:, 1:] + centre[:, :-1])
        label = (ranked[:, :, None] > cuts[:, None, :]).sum(axis=2)
    member = (label[:, :, None] == np.arange(classes)).astype(np.float64)
    size = member.sum(axis=1)
    sorted_table = np.take_along_axis(table, order[:, :, None], axis=1)
    means = np.einsum("shk,shc->skc", member, sorted_table) / np.maximum(size, 1.0)[:, :, None]
    return means, size
