"""SpAtten (Wang et al., HPCA 2021) on the preset `spatten`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Final

from dse.profiles.schema import Form
from dse.validation.bench import Bench, Work, dense_counts, general_constants, shape
from dse.validation.row import Proof, Row
from dse.validation.traces import MEAN, MEDIUM, SMALL, STEPS, generation

PAPER: Final = "Wang et al., HPCA 2021"
CODE: Final = "behavioural simulator released with Wang et al., HPCA 2021"

LSB_RATE: Final = 0.059
"""Heads that need the least significant bits, on average (section III-D)."""

STATIC: Final = Form((8, 4), 8, 12, v_after="row", chunk_order="row")
"""12-bit keys as the released RTL does them: 8 bits, then a forced second pass over 4 more."""
PROGRESSIVE: Final = STATIC
ONE_PASS: Final = Form((12,), 8, 12, v_after="row")
FULL: Final = Form((32,), 32, 16, v_after="row")

TASKS: Final = {
    "CoLA": 11, "SST-2": 25, "STS-B": 31, "QQP": 30, "MNLI-m": 39, "MNLI-mm": 39, "QNLI": 50, "MRPC": 53, "RTE": 64,
    "SQuAD v1": 165, "SQuAD v2": 165,
}  # fmt: skip
"""Mean lengths of the development sets in word pieces, as commonly quoted: the paper prints none."""
MODELS: Final = {"base": (12, 12), "large": (24, 16)}
LENGTHS: Final = "lengths as commonly quoted (" + ", ".join(f"{k} {v}" for k, v in TASKS.items()) + ")"

COMPARATORS: Final = {1: 168.4, 2: 298.8, 4: 485.4, 8: 652.8, 16: 776.2, 32: 770.9}
"""Fig. 19: GFLOPS by width of the selection engine."""

SET: Final = "the preset's own constants were set on this breakdown (`dse list hardware --json` names each)"
FETCHER: Final = (
    "32 queues each of 64 addresses of 8 B and of 64 words of 16 B, in registers of Shao et al., ISCA 2014; two crossbars "
    "of 32 x 16 at an estimated 1.5 um2 per bit and crosspoint (0 to 4 um2: -8 to +6 %)"
)

AREAS: Final = {
    # module: (mm2, our components, what was set on it)
    "Q x K with its SRAM": (
        7.123, ("half of multipliers", "sram key"),
        "SRAM at A3's published density; what is left set the area of a multiplier",
    ),
    "probability x V with its SRAM": (
        7.222, ("half of multipliers", "sram value"), "an array like that of Q x K, on which a constant was set",
    ),
    "softmax": (0.791, ("exponents", "dividers"), "the area of an exponent unit was set on this module"),
    "top-k engines": (0.498, ("selection", "ranking"), "the area of an engine was set on this module"),
    "QKV fetcher": (2.649, ("requests", "fetcher"), ""),
}  # fmt: skip
"""Fig. 13."""

ARRAY: Final[tuple[str, ...]] = "half of leakage multipliers", "half of leakage sram"
POWERS: Final = {
    # module: (W, our components, what was set on it)
    "QKV fetcher": (
        0.243, ("fetcher", "leakage fetcher", "leakage requests"),
        "an address and its data each through one queue and a millimetre of wire, a length chosen with this in sight",
    ),
    "Q x K with its SRAM": (
        1.13, ("multiply q x k", "sram key", "sram scores", *ARRAY),
        "energies were set on both arrays together, leakage is that of high-performance cells",
    ),
    "probability x V with its SRAM": (
        0.53, ("multiply p x v", "sram value", *ARRAY), "as for Q x K, the same energies",
    ),
    "softmax": (
        0.50, ("exponents", "divisions", "leakage exponents", "leakage dividers"), "the energy of an exponent was set on it",
    ),
    "top-k engines": (
        0.08, ("selection", "ranking", "leakage selection", "leakage ranking"), "the energy of an element was set on it",
    ),
}  # fmt: skip
"""Fig. 13."""

SRAMS: Final[tuple[str, ...]] = (
    "sram key",
    "sram value",
    "sram scores",
    "leakage sram",
    "fetcher",
    "leakage fetcher",
    "leakage requests",
)

LATENCIES: Final = {"GPT-2-Medium, WikiText-2": (MEDIUM, 2.72), "GPT-2-Small, WikiText-2": (SMALL, 1.10)}
"""Milliseconds of attention for 32 tokens, derived from Fig. 14 and Table IV."""


EIGHT: Final = 8
"""The released RTL rounds keys and values up to a multiple of what it takes per cycle."""
ROUNDED: Final = "keys rounded up to eight as in the released RTL"


def prompt(length: float, heads: int, multiple: int = EIGHT) -> Work:
    """One layer of a prompt pass of dense attention: every query after every key, K and V fetched once per head."""
    keys = multiple * ceil(length / multiple)
    products = ("qk_rows_0", "pv_rows", "exponentials", "divisions")
    counts = dense_counts(keys) | dict.fromkeys(products, length * keys)
    return Work(Form((8,), 8, 12), keys, shape(1, heads), counts)


def prompt_s(bench: Bench, length: float, layers: int, heads: int, multiple: int = EIGHT) -> float:
    """Seconds of a prompt pass; a layer begins when the one before is done."""
    return layers * bench.price(prompt(length, heads, multiple))["latency_s"]


def rows() -> list[Row]:
    """Every number of the paper that the price can give."""
    return [*_cycles(), *_traces(), *_widths(), *_bert(), *_budget(), *_generation()]


def _cycles() -> Iterator[Row]:
    for length, cycles in ((40, 2628), (128, 25_079)):
        ours = Bench("spatten").price(prompt(length, 12))["latency_s"] * 1e9
        # ceil(L / 8) blocks of keys: fetched, filled in by every query, then drained once per layer.
        blocks = -(-length // 8)
        reference = 12 * 2 * blocks + 12 * length * blocks + 103 + blocks
        yield Row(
            "spatten", f"cycles of a layer, 12 heads, {length} tokens", cycles, ours, CODE,
            f"8 bit, dense, {ROUNDED}; the simulator adds fetch, fill and drain, ours overlaps fetch", "independent", "cycles",
            0.10, reference=reference,
        )  # fmt: skip


def _traces() -> Iterator[Row]:
    published = {"medium": (MEDIUM, 6_143_004, 1_848_398), "small": (SMALL, 1_283_172, 255_180)}
    for name, (trace, keys, values) in published.items():
        heads = trace.replay()
        for what, number, ours in (
            ("keys", keys, sum(h.keys for h in heads)), ("values", values, sum(h.values for h in heads)),
        ):  # fmt: skip
            yield Row(
                "spatten", f"{what} kept in the GPT-2-{name} trace", number, ours, "traces released with " + PAPER,
                "schedule replayed; all later rows of this trace use it", "identity", "rows", 0.0,
            )  # fmt: skip


def _widths() -> Iterator[Row]:
    work = generation(MEDIUM, STATIC, 1.0)
    for width, gflops in COMPARATORS.items():
        seconds = Bench("spatten", {"select_comparators": width}).price(work)["latency_s"]
        yield Row(
            "spatten", f"throughput with a selection engine {width} wide", gflops,
            MEDIUM.dense_operations / seconds / 1e9, f"{PAPER}, Fig. 19",
            "the unnamed application is taken as the GPT-2-Medium WikiText-2 trace, GFLOPS as those of dense attention, "
            "12-bit keys in two passes (released RTL)", "independent", "GFLOPS", 0.10,
        )  # fmt: skip
    seconds = Bench("spatten").price(generation(MEDIUM, ONE_PASS))["latency_s"]
    yield Row(
        "spatten", "the same, 16 wide, keys in one pass", COMPARATORS[16], MEDIUM.dense_operations / seconds / 1e9,
        f"{PAPER}, Fig. 19", "as above, but all 12 bits fetched and multiplied at once", "independent", "GFLOPS",
    )  # fmt: skip
    # One pass of 32-bit operands: the step is drawn before quantisation.
    one_pass = {"multiplier_bits": 16, "operand_bits": 16}
    work = generation(MEDIUM, FULL)
    one, wide = (
        Bench("spatten", {"select_comparators": width, "lanes": 16, "value_lanes": 16, **one_pass}).price(
            work
        )
        for width in (1, 16)
    )
    yield Row(
        "spatten", "waterfall: selection engine 16 wide over 1 wide", 74.18 / (22.14 * 1.1 * 1.1),
        one["latency_s"] / wide["latency_s"], f"{PAPER}, Fig. 20 (prints 3x)",
        "GPT-2-Medium WikiText-2 trace in 32 bit; lanes doubled so that 32-bit operands take one cycle as drawn",
        "independent", "x", 0.15,
    )  # fmt: skip


def _bert() -> Iterator[Row]:
    def mean(multiple: int) -> float:
        speeds = [
            4.0 * length * length * 64 * layers * heads
            / prompt_s(Bench("spatten"), length, layers, heads, multiple)
            for layers, heads in MODELS.values()
            for length in TASKS.values()
        ]  # fmt: skip
        return sum(speeds) / len(speeds) / 1e12

    source = f"{PAPER}, section V-B"
    yield Row("spatten", "mean throughput of 22 BERT tasks", 1.61, mean(EIGHT), source,
              f"dense, 8 bit, {ROUNDED}; {LENGTHS}", "independent", "TFLOPS", 0.15, reference=1.72)  # fmt: skip
    yield Row("spatten", "the same, keys not rounded up", 1.61, mean(1), source, "as above otherwise", "independent",
              "TFLOPS")  # fmt: skip


def _table_two(bench: Bench) -> dict[str, dict[str, float]]:
    """Area and mean watts on the released GPT-2-Medium trace, by component."""
    work = generation(MEDIUM, PROGRESSIVE, LSB_RATE)
    # One engine selects values, one ranks tokens and heads: a counter shows that the second is there.
    story = bench.story(work.with_counts(rank_calls=1e-3, rank_elements=1e-3))
    seconds = story["metrics"]["latency_s"]
    watts = {name: joules / seconds for name, joules in story["energy_j"].items()}
    halves = (("multipliers", 2.0), ("leakage multipliers", 2.0), ("leakage sram", 2.0))
    area = dict(story["area_mm2"])
    for table, prefix in ((area, "half of "), (watts, "half of ")):
        table.update({prefix + name: table[name] / n for name, n in halves if name in table})
    return {"area": area, "watts": watts}


def _on_chip(watts: Mapping[str, float]) -> float:
    """Of everything but memory and its interface."""
    return sum(v for k, v in watts.items() if not k.startswith(("dram ", "half of ")) and k != "memory phy")


def chip_w(bench: Bench) -> float:
    """Watts of the chip on the released GPT-2-Medium trace."""
    return _on_chip(_table_two(bench)["watts"])


def _budget() -> Iterator[Row]:
    found = _table_two(Bench("spatten"))
    area, watts = found["area"], found["watts"]
    chip = sum(v for k, v in area.items() if k not in ("memory phy", "slow link") and "half of" not in k)
    figure, table = f"{PAPER}, Fig. 13", f"{PAPER}, Table II"
    yield Row(
        "spatten", "area", 18.71, chip, figure, f"without the memory PHY, which the paper leaves out; {SET}", "fitted",
        "mm2", 0.10,
    )  # fmt: skip
    for module, (mm2, components, why) in AREAS.items():
        proves: Proof = "fitted" if why else "independent"
        yield Row(
            "spatten", f"area of {module}", mm2, sum(area[c] for c in components), figure, why or FETCHER, proves, "mm2",
            0.10,
        )  # fmt: skip
    general = _table_two(Bench("spatten", constants=general_constants("spatten")))
    plain = sum(
        v for k, v in general["area"].items() if k not in ("memory phy", "slow link") and "half of" not in k
    )
    yield Row(
        "spatten", "area by general constants", 18.71, plain, figure,
        "the preset's own constants put aside: bare SRAM macros, multipliers laid out as densely as A3's",
        "independent", "mm2",
    )  # fmt: skip
    # The paper charges memory for activations, reads and writes: no background, no interface.
    memory = sum(v for k, v in watts.items() if k.startswith("dram ") and k != "dram background")
    trace = "GPT-2-Medium WikiText-2 trace, 8 + 4 bit, 5.9 % second passes; the paper averages eight tasks"
    charged = f"activations, reads and writes only, as the paper; {trace}"
    on_chip = _on_chip(watts)
    yield Row("spatten", "power", 8.30, memory + on_chip, table, f"{charged}; {SET}", "fitted", "W", 0.10)
    yield Row("spatten", "power of the memory", 5.71, memory, table, charged, "independent", "W", 0.10)
    yield Row(
        "spatten", "power of logic and SRAM", 2.60, on_chip, table, f"{trace}; {SET}", "fitted", "W", 0.10
    )
    for module, (published, parts, why) in POWERS.items():
        yield Row(
            "spatten", f"power of {module}", published, sum(watts[c] for c in parts), figure, f"{why}; {trace}",
            "fitted", "W", 0.10,
        )  # fmt: skip
    sram = sum(watts[c] for c in SRAMS)
    yield Row("spatten", "power of SRAM and queues", 1.24, sram, table,
              f"K and V buffers and the fetcher; on it the energy per access was set; {trace}", "fitted", "W", 0.10)  # fmt: skip
    yield Row("spatten", "power of logic", 1.36, on_chip - sram, table,
              f"everything but buffers and fetcher; overhead per operation was set on it; {trace}", "fitted", "W", 0.10)  # fmt: skip
    yield Row("spatten", "power of logic and SRAM by general constants", 2.60, _on_chip(general["watts"]), table,
              f"the preset's own constants put aside, but its overhead per operation; {trace}", "fitted", "W")  # fmt: skip


def _generation() -> Iterator[Row]:
    executed = {}
    for task, (trace, milliseconds) in LATENCIES.items():
        work = generation(trace, PROGRESSIVE, LSB_RATE)
        seconds = Bench("spatten").price(work)["latency_s"]
        yield Row(
            "spatten", f"attention of 32 tokens, {task}", milliseconds, seconds * 1e3,
            f"derived from {PAPER}, Fig. 14 and Table IV", "8 + 4 bit keys, 8-bit values, 5.9 % second passes",
            "independent", "ms",
        )  # fmt: skip
        executed[task] = 2.0 * 64 * sum(h.keys + h.values for h in trace.replay()) / seconds / 1e12
    yield Row(
        "spatten", "throughput of GPT-2", 0.43, executed["GPT-2-Medium, WikiText-2"], f"{PAPER}, section V-B",
        "operations done on one task, GPT-2-Medium WikiText-2, the least pruned of the eight", "independent", "TFLOPS",
    )  # fmt: skip
    yield from _savings()


def _savings() -> Iterator[Row]:
    for name, trace, (layers, heads) in (("Medium", MEDIUM, (24, 16)), ("Small", SMALL, (12, 12))):
        pruned = Bench("spatten").price(generation(trace, PROGRESSIVE, LSB_RATE))
        dense = Bench("spatten").price(
            Work(Form((32,), 32, 12), MEAN, shape(layers, heads), dense_counts(MEAN))
        )
        kept = sum(h.keys * (1 + LSB_RATE) + h.values for h in trace.replay())
        yield Row(
            "spatten", f"memory traffic saved, GPT-2-{name} WikiText-2", 10.0,
            dense["dram_bytes"] * len(STEPS) / pruned["dram_bytes"], f"{PAPER}, section V-B, mean of 30 tasks",
            "over dense attention in 32 bit, the baseline that fits the paper's 5.1x for quantisation", "independent",
            "x",
        )  # fmt: skip
        yield Row(
            "spatten", f"operations saved, GPT-2-{name} WikiText-2", 2.1, 2 * MEAN * layers * heads * len(STEPS) / kept,
            f"{PAPER}, section V-B, mean of 30 tasks", "one task of 30", "independent", "x",
        )  # fmt: skip
