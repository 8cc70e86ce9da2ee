"""SpAtten (Wang et al., HPCA 2021) against accelerators and processors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log
from typing import Final

from dse.cost.processor import ProcessorPrice, price_processor
from dse.cost.workload import Workload
from dse.hardware.processors import load_processor
from dse.validation import a3, mnnfast
from dse.validation.bench import Bench, Work, shape
from dse.validation.row import Proof, Row
from dse.validation.spatten import (
    LENGTHS,
    LSB_RATE,
    MODELS,
    PROGRESSIVE,
    TASKS,
    chip_w,
    prompt,
    prompt_s,
)
from dse.validation.traces import MEAN, MEDIUM, SMALL, STEPS, Trace, generation

PAPER: Final = "Wang et al., HPCA 2021"
TABLE: Final = f"{PAPER}, Table III"

TOKENS_PRUNED: Final = 1.2
"""Token and value pruning of BERT on average: 1.9x over 30 tasks and 3.8x over 8 leave this for 22 (derived)."""
HEADS_PRUNED: Final = 1.1
MEMORY_W: Final = 5.71 / 8
"""What the paper charges every machine of Table III for its memory."""

PROCESSORS: Final = {
    # processor: (name, speedup, energy saving, end to end) of section V-B
    "titan-xp": ("TITAN Xp", 162.0, 1193.0, 35.0),
    "xeon-e5-2640-v4": ("Xeon", 347.0, 4059.0, 122.0),
}
GENERATED: Final = {
    # model: trace, (layers, heads, width)
    "GPT-2-Small": (SMALL, (12, 12, 768)), "GPT-2-Medium": (MEDIUM, (24, 16, 1024)),
}  # fmt: skip
ACCELERATORS: Final = (
    "operations of dense attention per second; A3 and MNNFast at one per multiply-add, as the paper does"
)


def rows() -> list[Row]:
    """Table III, and the headline numbers over processors."""
    return [*_accelerators(), *_processors()]


def _mean(values: Sequence[float]) -> float:
    """Geometric mean."""
    return exp(sum(log(v) for v in values) / len(values))


def _eighth() -> tuple[float, float, float]:
    """SpAtten-1/8 over 22 BERT tasks: operations per second, counted as dense; watts of its chip on them, and an
    eighth of the watts of SpAtten's chip on GPT-2."""
    bench = Bench("spatten-1-8")
    speeds, watts = [], []
    for layers, heads in MODELS.values():
        for length in TASKS.values():
            left = max(1.0, length / TOKENS_PRUNED)
            work = prompt(left, heads)
            seconds = prompt_s(bench, left, layers, heads) / HEADS_PRUNED
            speeds.append(4.0 * length * length * 64 * layers * heads / seconds)
            metrics, story = bench.price(work), bench.story(work)
            watts.append(metrics["power_chip_w"] - story["power_w"]["memory phy"])
    return sum(speeds) / len(speeds), sum(watts) / len(watts), chip_w(Bench("spatten")) / 8


def _a3() -> tuple[float, float]:
    """Operations per second of A3 on BERT (conservative) at one per multiply-add, and watts of its chip on it."""
    bench, point = Bench("a3"), a3.POINTS[0]
    period = (a3.period_cycles(bench, point.work()) + point.sort_cycles) * 1e-9
    story = bench.story(point.work())
    leakage = sum(v for k, v in story["power_w"].items() if k.startswith("leakage"))
    dynamic = sum(
        v for k, v in story["energy_j"].items() if not k.startswith(("dram", "leakage", "memory phy"))
    )
    return 2.0 * point.tokens * 64 / period, dynamic / period + leakage


def _accelerators() -> Iterator[Row]:
    ours, on_bert, watts = _eighth()
    rival, rival_on_bert = _a3()
    rival_watts = sum(a3.busy_w(Bench("a3")))
    fast, lazy = (mnnfast.throughput(Bench("mnnfast"), always) / 2 for always in (False, True))
    pruned = (
        f"BERT keeps 1/{TOKENS_PRUNED} of its tokens and 1/{HEADS_PRUNED} of its heads (derived); {LENGTHS}"
    )

    def row(title: str, published: float, value: float, assumed: str, proves: Proof, judged: bool) -> Row:
        tolerance = 0.20 if judged else None
        return Row("against", f"SpAtten-1/8 over {title}", published, value, TABLE, f"{assumed}; {pruned}", proves, "x",
                   tolerance)  # fmt: skip

    yield Row("against", "SpAtten-1/8, throughput", 360.0, ours / 1e9, TABLE, pruned, "independent", "GOP/s")
    yield row("A3, throughput", 360 / 221, ours / rival,
              f"{ACCELERATORS} (at two, ours is {ours / rival / 2:.2f}); A3 on BERT, conservative", "independent", True)  # fmt: skip
    lazily = f"97 % of V rows skipped, which saves no time; {mnnfast.DIVISIONS}"
    yield row("MNNFast, throughput", 360 / 120, ours / fast, f"{ACCELERATORS}; {lazily}", "independent", True)
    yield row("MNNFast, throughput, MNNFast at two operations", 360 / 120, ours / fast / 2,
              f"every machine at two operations per multiply-add; {lazily}", "independent", False)  # fmt: skip
    yield row("MNNFast, throughput, outputs always divided", 360 / 120, ours / lazy,
              f"{ACCELERATORS}; 64 divisions of each query one after another, also in rows shorter than that",
              "independent", False)  # fmt: skip
    charged = (
        f"memory power of {MEMORY_W:.2f} W charged to both and A3's chip at all of its Table I, as the paper's 269 GOP/J "
        "of A3 show (221 GOP/s over 0.110 + 0.711 W); so SpAtten-1/8 too at an eighth of its Table II, the power of GPT-2, "
        "on which constants were set"
    )
    each = ours / (watts + MEMORY_W)
    yield row("A3, energy", 382 / 269, each / (rival / (rival_watts + MEMORY_W)), f"{charged}; {ACCELERATORS}",
              "fitted", True)  # fmt: skip
    yield row("MNNFast, energy", 382 / 120, each / (fast / 1.0),
              f"MNNFast at 1 W, which the paper takes as a tenth of an FPGA's; {charged}; {ACCELERATORS}; {lazily}",
              "fitted", True)  # fmt: skip
    loaded = (
        "each chip at what it draws on BERT, where its multipliers never wait for memory: energies per operation set on "
        "GPT-2's mean power, idle time included, charge a busy machine too much"
    )
    each = ours / (on_bert + MEMORY_W)
    yield row("A3, energy, chips as busy as on BERT", 382 / 269, each / (rival / (rival_on_bert + MEMORY_W)),
              f"{loaded}; {ACCELERATORS}", "fitted", False)  # fmt: skip
    yield row("MNNFast, energy, chip as busy as on BERT", 382 / 120, each / (fast / 1.0),
              f"{loaded}; {ACCELERATORS}; {lazily}", "fitted", False)  # fmt: skip


def on_processor(
    name: str, layers: int, heads: int, tokens: float, phase: str, width: int = 0
) -> ProcessorPrice:
    """One prompt of `tokens`, or one generated token that sees so many; `width` of the model for its weights."""
    model = shape(layers, heads, block=layers * 12 * width * width)
    workload = Workload(phase=phase, context=round(tokens) if phase == "prefill" else 0)
    return price_processor(load_processor(name), model, tokens, workload)


def _generated(trace: Trace) -> tuple[float, float]:
    """Seconds and joules of attention for 32 tokens."""
    found = Bench("spatten").price(generation(trace, PROGRESSIVE, LSB_RATE))
    return found["latency_s"], found["energy_j"]


def _processors() -> Iterator[Row]:
    bench = Bench("spatten")
    for processor, (title, speedup, saving, whole) in PROCESSORS.items():
        faster, saved = [], []
        for layers, heads in MODELS.values():
            for length in TASKS.values():
                slow = on_processor(processor, layers, heads, length, "prefill")
                metrics = bench.price(prompt(length, heads))
                faster.append(slow.attention_s / (layers * metrics["latency_s"]))
                saved.append(slow.attention_energy_j / (layers * metrics["energy_j"]))
        bert, bert_saved = _mean(faster), _mean(saved)
        faster, saved, ends = [], [], []
        for trace, (layers, heads, width) in GENERATED.values():
            slow = on_processor(processor, layers, heads, MEAN, "decode", width)
            seconds, joules = _generated(trace)
            faster.append(len(STEPS) * slow.attention_s / seconds)
            saved.append(len(STEPS) * slow.attention_energy_j / joules)
            rest = bench.price(_model(layers, heads, width))["rest_s"]
            ends.append((slow.attention_s + slow.rest_s) / (seconds / len(STEPS) + rest))
        generated, generated_saved = _mean(faster), _mean(saved)
        efficiency = load_processor(processor)
        assumed = (
            f"22 BERT prompts, dense, 8 bit ({bert:.0f}x), and WikiText-2 on both GPT-2 ({generated:.0f}x) for all eight "
            f"tasks; {efficiency['attention_launches']:g} launches of {efficiency['launch_us']:g} us per layer, set on "
            f"GPT-2's published times; {LENGTHS}"
        )
        yield Row("against", f"speedup over {title}, 30 tasks", speedup,
                  exp((22 * log(bert) + 8 * log(generated)) / 30), f"{PAPER}, section V-B", assumed, "fitted", "x")  # fmt: skip
        yield Row("against", f"energy saving over {title}, 30 tasks", saving,
                  exp((22 * log(bert_saved) + 8 * log(generated_saved)) / 30), f"{PAPER}, section V-B",
                  f"{efficiency['power_w']:g} W derived from GPT-2's energies; BERT {bert_saved:.0f}x, GPT-2 "
                  f"{generated_saved:.0f}x; lengths as above", "fitted", "x")  # fmt: skip
        yield Row("against", f"end to end over {title}", whole, _mean(ends), f"{PAPER}, section V-B",
                  "WikiText-2 on both GPT-2 for all eight tasks; weights of 8 bit streamed once per token, no output "
                  "head; attention and the rest one after another", "fitted", "x")  # fmt: skip


def _model(layers: int, heads: int, width: int) -> Work:
    """A model with its projections and feed-forward; attention over one token, which is not used."""
    counts = {"k_rows_0": 1.0, "k_runs_0": 1.0, "qk_rows_0": 1.0}
    return Work(PROGRESSIVE, 1.0, shape(layers, heads, block=layers * 12 * width * width), counts)
