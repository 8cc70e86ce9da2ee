"""Token-Picker (Park et al., DAC 2024): what the abstract prints, on the preset `topick`.

Only the abstract and second-hand summaries could be read. The preset's numbers are recalled, not verified; that they
fit each other (512 B per cycle of memory, 16 lanes of 32 B) is no confirmation.
"""

from __future__ import annotations

from typing import Final

from dse.profiles.schema import Form
from dse.validation.bench import Bench, Work, dense_counts, scattered, shape
from dse.validation.measured import at_loss, profiles, reduction
from dse.validation.row import Row

ABSTRACT: Final = "Park et al., DAC 2024, abstract"
SUMMARY: Final = "Park et al., DAC 2024, second-hand summary (abstract rounds it)"

TOKENS: Final = 1024
VALUE_PRUNING: Final = 12.1
"""Published mean: one V row in 12.1 is fetched."""
ACCESS: Final = 2.57
LATER_CHUNKS: Final = 2 * 3 / ACCESS - 3 / VALUE_PRUNING - 1
"""Chunks after the first that a mean token fetches, from the two published reductions: 1.087 of 2."""
THIRD: Final = 0.127
"""... of which third chunks: between the survivors, 0.083, and what synthetic attention gives, 0.15."""

SETTING: Final = (
    f"preset topick (recalled, not verified), GPT2-Large's 36 layers and 20 heads of 64, n = {TOKENS}, iid tokens; "
    f"{1 + LATER_CHUNKS:.2f} chunks per token follow from 2.57x and 12.1x, third chunks {THIRD}"
)


def dense(tokens: float = TOKENS) -> Work:
    """12-bit dense attention."""
    return Work(Form((12,), 12, 12), tokens, shape(36, 20), dense_counts(tokens))


def pruned(tokens: float = TOKENS) -> Work:
    """The published mean kept fractions."""
    second, third, kept = (x * tokens for x in (LATER_CHUNKS - THIRD, THIRD, 1 / VALUE_PRUNING))
    chunks = tokens + second + third
    counts = dense_counts(tokens) | {
        "k_rows_1": second, "k_runs_1": scattered(second, tokens), "qk_rows_1": second,
        "k_rows_2": third, "k_runs_2": scattered(third, tokens), "qk_rows_2": third,
        "v_rows": kept, "v_runs": scattered(kept, tokens), "pv_rows": kept,
        "exponentials": 2 * chunks, "compares": chunks, "margins": 3, "divisions": kept,
    }  # fmt: skip
    return Work(Form((4, 4, 4), 12, 12, v_after="token"), tokens, shape(36, 20), counts)


def rows() -> list[Row]:
    """Reductions through the preset, and pruning measured in the shipped models."""
    bench = Bench("topick")
    base, ours = bench.price(dense()), bench.price(pruned())
    result = [
        Row("token-picker", "off-chip access, dense over pruned", ACCESS, base["dram_bytes"] / ours["dram_bytes"],
            SUMMARY, SETTING, "identity", "x", 0.01, reference=2 / (1 / 1.44 + 1 / VALUE_PRUNING)),
        Row("token-picker", "speedup", 2.28, base["latency_s"] / ours["latency_s"], SUMMARY,
            f"{SETTING}; against dense 12 bit on the same preset", "independent", "x", 0.10),
        Row("token-picker", "energy, dense over pruned", 2.41, base["energy_j"] / ours["energy_j"], SUMMARY,
            f"{SETTING}; overhead per operation was fitted to a recalled chip power", "fitted", "x"),
    ]  # fmt: skip
    for name, profile in profiles().items():
        values = reduction(profile, "head.v_rows")
        for budget in (0.05, 0.3):
            for context, found, series in at_loss(
                profile, "token-picker", "threshold", budget, values,
                accept=lambda setting: setting.knobs.get("chunks") == "4+4+4" and setting.knobs.get("margin") == 1.0,
            ):  # fmt: skip
                result.append(
                    Row("token-picker", f"V pruning in {name}, context {context}, perplexity +{budget:g}",
                        VALUE_PRUNING, found, ABSTRACT, f"other models and text than the paper's; {series}",
                        "independent", "x")
                )  # fmt: skip
    return result
