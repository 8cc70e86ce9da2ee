"""The profile's schema: what a measurement records and what the cost model may ask for.

A profile is the only thing that algorithms and hardware share. It is closed and versioned: the names below
are all there is, a measurement fills every one of them (zero where an algorithm does no such thing), and a
price that needs another one needs a new schema version.

Unless said otherwise a counter is the **mean number per decode step, for one layer and one KV head** (in
prefill: per prompt pass). `n` is the number of visible tokens. The query heads that share a KV head form a
*group* of size `g`. Fetches are counted twice:

- scope ``group``: the union over the group, i.e. what a machine fetches that shares K and V among the group;
- scope ``head``: the sum over the group's heads, i.e. what a machine fetches that treats every query head as
  if it had keys and values of its own.

Work is counted once, summed over the heads of the group: sharing a fetch does not share a multiplication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SCHEMA_VERSION: Final = 1

MAX_CHUNKS: Final = 12
"""Most bit chunks a key can be cut into (twelve 1-bit planes)."""

HISTOGRAM_BINS: Final = 16
"""Bin 0 counts zeros, bin i >= 1 counts values in [2**(i-1), 2**i), the last bin everything above."""

KnobValue = bool | int | float | str
Knobs = Mapping[str, KnobValue]

SCOPES: Final = ("group", "head")


def _chunked(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{c}" for c in range(MAX_CHUNKS))


FETCH_COUNTERS: Final[tuple[str, ...]] = (
    *_chunked("k_rows"),  # tokens whose K chunk c was fetched from the cache
    *_chunked("k_runs"),  # maximal runs of consecutive tokens in that stream (mean run = rows / runs)
    "v_rows",  # tokens whose V was fetched
    "v_runs",
    "meta_read_bytes",  # metadata fetched: page summaries, sorted keys, controller keys (not scales: see Form)
    "meta_write_bytes",
    "rows_written",  # tokens whose K and V were written back (1 in plain decode)
    "rows_rebuilt",  # tokens whose K and V were recomputed by a forward position of their own
    "rows_reloaded",  # tokens whose K and V came back from slow memory
)

WORK_COUNTERS: Final[tuple[str, ...]] = (
    *_chunked("qk_rows"),  # (head, token) pairs multiplied with K chunk c: head_dim multiply-adds each
    "pv_rows",  # (head, token) pairs whose V was accumulated: head_dim multiply-adds each
    "exponentials",
    "divisions",
    "compares",  # threshold comparisons
    "select_calls",  # top-k selections that the next phase waits for
    "select_elements",  # ... elements that enter them
    "select_kept",  # ... elements they keep
    "rank_calls",  # top-k selections off the critical path (token and head importance)
    "rank_elements",
    "rank_kept",
    "importance_adds",  # accumulations into importance scores
    "margins",  # (query head, chunk) score margins generated from a query
    "search_steps",  # iterations of a greedy candidate search over sorted key columns
    "sort_elements",  # key elements inserted into sorted columns
    "estimate_macs",  # multiply-adds spent on estimates (page bounds, sketches), at query width
    "controller_macs",  # multiply-adds of a learned controller, 16 bit
    "scalar_ops",  # adds and multiplies of compensation terms, 32 bit
    "second_passes",  # query heads that recompute a whole row with more bits
    "row_waits",  # times a query head must finish a whole row before it may go on
)

HISTOGRAMS: Final = ("v_rows_histogram", "v_run_histogram")
"""Distribution over steps of the group's V rows, and of their run lengths; fractions that sum to 1."""

ACCURACY: Final[tuple[str, ...]] = (
    "nll_increase",  # nats per token over float32 dense attention at the same positions; mean over windows
    "nll_increase_low",  # paired 95 % interval (Student t over windows)
    "nll_increase_high",
    "nll_increase_distant",  # the same, over tokens that a dense model with a short window loses > 0.5 nat on
    "perplexity",
    "perplexity_increase",
    "kl_mean",  # KL(dense || this), nats
    "kl_p99",
    "top1_agreement",  # fraction of positions whose most likely token is the dense one
    "output_error",  # |o - o_dense| / |o_dense| of attention outputs at the same inputs, mean
)


QUERY_TILES: Final = (1, 4, 16, 64, 128)
"""Prefill only: numbers of consecutive queries that share a fetch. Each divides the next."""


def tile_columns() -> tuple[str, ...]:
    """The counters that a prefill profile holds per query tile, in storage order.

    Fetched rows and runs when every `tile` consecutive queries of a prompt share one fetch: the sum over tiles
    of the union over a tile's queries, over the heads of the group too in scope ``group`` and for each head apart
    in scope ``head``. At tile 1 they are the counters of the same names.
    """
    streams = (*_chunked("k_rows"), *_chunked("k_runs"), "v_rows", "v_runs")
    return tuple(f"{scope}.{name}" for scope in SCOPES for name in streams)


def counter_columns() -> tuple[str, ...]:
    """The columns of the counter table, in storage order: fetches per scope (``group.v_rows``), then work."""
    fetch = tuple(f"{scope}.{name}" for scope in SCOPES for name in FETCH_COUNTERS)
    return fetch + WORK_COUNTERS


@dataclass(frozen=True)
class Form:
    """How a knob setting stores and orders things: the facts besides counts that a price depends on.

    Attributes:
        k_chunk_bits: widths of the stored K planes, most significant first; they sum to the K width.
        v_bits, q_bits: operand widths; `q_bits` is the width at which queries sit on chip.
        k_scale_bits, v_scale_bits: scale bits stored and fetched with every K or V row (0: static scales).
        v_after: when V rows are known. ``"none"``: always, V streams like K; ``"token"``: as each token is
            decided, while K still streams; ``"row"``: only when the query head's whole row is finished.
        chunk_order: how chunks after the first are asked for. ``"token"``: by each token as soon as it is
            undecided (latency hidden by requests in flight); ``"row"``: in a second pass over the row.
        lag: tokens that go by between a request for a further chunk and its answer. Decisions were measured
            with exactly this delay, so a machine must not run further ahead of an answer; -1: no limit.
        releases: whether tokens that are no longer read are given back to memory for good: a sequence then holds
            only what a step reads. Otherwise every token stays, whether a step reads it or not.
    """

    k_chunk_bits: tuple[int, ...]
    v_bits: int
    q_bits: int
    k_scale_bits: int = 0
    v_scale_bits: int = 0
    v_after: str = "none"
    chunk_order: str = "token"
    lag: int = -1
    releases: bool = False

    @property
    def k_bits(self) -> int:
        return sum(self.k_chunk_bits)


@dataclass(frozen=True)
class Setting:
    """One knob setting of one algorithm: the row of a profile."""

    algorithm: str
    knobs: Knobs
    form: Form

    @property
    def key(self) -> str:
        """Readable identity, independent of knob order: ``spatten(keep=0.5, theta=0.1)``."""
        inner = ", ".join(f"{k}={self.knobs[k]!r}" for k in sorted(self.knobs))
        return f"{self.algorithm}({inner})"


@dataclass(frozen=True)
class ModelShape:
    """The geometry a profile was measured on, and what the rest of the model costs.

    `block_parameters` are the weights of all layers that every generated token multiplies (projections and
    feed-forward), `head_parameters` those of the output head; `weight_bits` is the stored width assumed when
    the whole model is priced.
    """

    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    block_parameters: int
    head_parameters: int
    weight_bits: int = 8

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.query_heads // self.kv_heads


@dataclass(frozen=True)
class Provenance:
    """Where a profile came from; free of this machine's paths."""

    model: str
    model_sha256: str
    text: str
    text_sha256: str
    windows: tuple[tuple[str, int], ...] = ()  # (book, first token)
    seed: int = 0
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
