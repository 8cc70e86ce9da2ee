"""Top-Theta (Berestizshevsky et al., arXiv 2502.08363): kept fractions, value rows of a group, and what we measure.

The two formulas are ours; their points are read off the plots in the authors' repository (top-k selection, to which
thresholds are calibrated).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log1p, log2
from typing import Final

from dse.profiles.schema import Form, ModelShape
from dse.validation.bench import Bench, Work, dense_counts, scattered
from dse.validation.measured import at_loss, profiles, reduction, sparsest
from dse.validation.row import Row

PLOTS: Final = "plots in the repository of Berestizshevsky et al., arXiv 2502.08363"
PAPER: Final = "Berestizshevsky et al., arXiv 2502.08363, abstract"

DENSE_LAYERS: Final = 2
DENSE_K: Final = 512
"""The first two layers keep 512."""

KEPT: Final = {
    # set: layers, {k: kept fraction of causal elements}
    "LLaMA-2-7B ARC-C": (32, {16: 0.0697, 32: 0.0966, 64: 0.1483, 128: 0.2472, 256: 0.4270, 512: 0.7079}),
    "LLaMA-2-7B ARC-E": (32, {16: 0.0787, 32: 0.1110, 64: 0.1684, 128: 0.2782, 256: 0.4754, 512: 0.7734}),
    "LLaMA-3-8B ARC-C": (32, {16: 0.0787, 32: 0.1101, 64: 0.1708, 128: 0.2854, 256: 0.4876, 512: 0.7865}),
    "LLaMA-3-8B ARC-E": (32, {16: 0.0899, 32: 0.1258, 64: 0.1930, 128: 0.3230, 256: 0.5448, 512: 0.8518}),
    "LLaMA-3-8B HellaSwag": (32, {16: 0.0872, 32: 0.1208, 64: 0.1881, 128: 0.3136, 256: 0.5310, 512: 0.8358}),
    "LLaMA-3-70B ARC-C": (80, {32: 0.0855, 128: 0.2670, 512: 0.7868}),
    "LLaMA-3-70B ARC-E": (80, {32: 0.0967, 128: 0.3006, 512: 0.8518}),
    "LLaMA-3-70B HellaSwag": (80, {32: 0.0944, 128: 0.2916, 512: 0.8361}),
}  # fmt: skip
"""Published kept fractions, 39 of them."""

UNION_SLOPE: Final = 0.52
"""e(G) = 1 + 0.52 log2 G, set on published value-row ratios of groups of 4 and 8."""


def kept_fraction(length: float, k: float) -> float:
    """Causal elements that k per row leave of a prompt of `length`; rows up to k stay whole."""
    if k >= length:
        return 1.0
    return k * (2 * length - k + 1) / (length * (length + 1))


def model_fraction(length: float, k: float, layers: int) -> float:
    """The same over all layers, of which the first two keep more."""
    first, other = kept_fraction(length, DENSE_K), kept_fraction(length, k)
    return (DENSE_LAYERS * first + (layers - DENSE_LAYERS) * other) / layers


def fitted_length(points: Sequence[tuple[int, float]], layers: int) -> float:
    """The length that leaves the least greatest error, to a token."""
    return float(
        min(range(600, 1400), key=lambda n: max(abs(model_fraction(n, k, layers) - f) for k, f in points))
    )


def union_rows(tokens: float, kept: float, group: int) -> float:
    """Distinct rows of V that `group` query heads need which keep `kept` < `tokens` of them each."""
    return tokens * (1 - exp(log1p(-kept / tokens) * (1 + UNION_SLOPE * log2(group))))


def rows() -> list[Row]:
    """Kept fractions, worked examples, and what the shipped models keep."""
    return [*_fractions(), *_examples(), *_measured()]


def _fractions() -> Iterator[Row]:
    inside, outside = [], []
    for layers, curve in KEPT.values():
        points = list(curve.items())
        length = fitted_length(points, layers)
        inside += [abs(model_fraction(length, k, layers) - f) for k, f in points]
        for k, fraction in points:
            others = [p for p in points if p[0] != k]
            outside.append(abs(model_fraction(fitted_length(others, layers), k, layers) - fraction))
    yield Row(
        "top-theta", f"kept fraction, worst of {len(inside)} published points", 0.0, max(inside), PLOTS,
        "one effective length per data set, set on its points", "fitted", "1", 0.005, True, 0.003,
    )  # fmt: skip
    yield Row(
        "top-theta", f"kept fraction, worst of {len(outside)}, each left out", 0.0, max(outside), PLOTS,
        "the effective length of a data set is set on its other points only", "independent", "1", None, True,
    )  # fmt: skip


def _examples() -> Iterator[Row]:
    arithmetic = "worked by hand from the formula"
    yield Row("top-theta", "kept fraction of 1113 tokens, k = 64", 0.11165, kept_fraction(1113, 64), arithmetic,
              "one layer", "identity", "1", 0.01)  # fmt: skip
    yield Row("top-theta", "kept fraction of 1113 tokens, k = 64, 32 layers", 0.14893, model_fraction(1113, 64, 32),
              arithmetic, "two layers keep 512", "identity", "1", 0.01)  # fmt: skip
    distinct = union_rows(4096, 128, 4)
    yield Row("top-theta", "rows of V for a group of 4, 4096 tokens, k = 128", 257, distinct, arithmetic,
              "union of partly equal choices", "identity", "rows", 0.01)  # fmt: skip
    # LLaMA-3-8B: 8 KV heads of 4 query heads, 128 elements, 16 bit.
    llama = ModelShape(32, 32, 8, 128, 0, 0)
    tokens, kept = 4096.0, 128.0
    dense = dense_counts(tokens, 4)
    some = dense | {
        "v_rows": distinct, "v_runs": scattered(distinct, tokens), "pv_rows": 4 * kept, "exponentials": 4 * kept,
        "divisions": 4 * kept, "compares": 4 * tokens,
    }  # fmt: skip
    bench = Bench("theta")
    ratio = (
        bench.price(Work(Form((16,), 16, 12, v_after="token"), tokens, llama, some))["dram_bytes"]
        / bench.price(Work(Form((16,), 16, 12), tokens, llama, dense))["dram_bytes"]
    )
    yield Row("top-theta", "K and V traffic over dense, the same example", 0.531, ratio, arithmetic,
              "LLaMA-3-8B in 16 bit on preset theta; keys are not saved, so never below 1/2", "identity", "1", 0.01)  # fmt: skip


def _measured() -> Iterator[Row]:
    loss = "at 0.01 nats lost (the paper: at most 1 % accuracy)"
    for phase, published, counter, what in (
        ("decode", 3.0, "group.v_rows", "V rows saved"), ("prefill", 10.0, "pv_rows", "attention elements saved"),
    ):  # fmt: skip
        found = False
        beyond: list[Row] = []
        for name, profile in profiles(phase).items():
            values = reduction(profile, counter)
            if counter.startswith("group."):
                values = values / profile.shape.group
            elif phase == "prefill":
                # Counted per prompt: every query of it sees the mean number of tokens.
                values = values * [[float(c) for c in profile.contexts]]
            for context, ours, series in at_loss(profile, "top-theta", "k", 0.01, values, "nll_increase"):
                found = True
                yield Row("top-theta", f"{what} in {phase}, {name}, context {context}", published, ours, PAPER,
                          f"{loss}; {series}", "independent", "x")  # fmt: skip
            for context, ours, lost in sparsest(profile, "top-theta", 0.01, values):
                beyond.append(
                    Row("top-theta", f"{what} in {phase}, {name}, context {context}", published, ours, PAPER,
                        f"the sparsest setting measured, which loses {lost:.4f} nats", "independent", "x")
                )  # fmt: skip
        if not found and beyond:
            yield from beyond
        elif not found:
            yield Row("top-theta", f"{what} in {phase}", published, None, PAPER,
                      f"no shipped profile holds top-theta in {phase} around 0.01 nats lost", "independent", "x")  # fmt: skip
