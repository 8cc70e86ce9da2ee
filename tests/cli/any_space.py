"""Spaces drawn at random over what a space can say: hardware of all algorithms and of one, bases, baselines, batches,
scopes, prompts, constraints, objectives, constants. Small enough to sweep in a moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from cli.synthetic import synthetic_profile
from dse.profiles.profile import Profile

PROFILE, PROMPTS, OTHER_TEXT = "tiny.npz", "tiny-prefill.npz", "tiny-confirmation.npz"

OWN: Final = """\
schema = 1
base = "topick-gqa"

[design]
lanes = 5
key_buffer_kib = 77.0

[components]
exponent_um2 = { value = 5000, source = "a die photo", confidence = "measured" }
"""
"""A base of its own, ``own.toml`` beside the space."""

AXES: Final[dict[str, list[Any]]] = {
    "lanes": [4, 8, 24, 48], "multipliers": [32, 64, 128], "multiplier_bits": [4, 8, 12], "operand_bits": [8, 12],
    "value_lanes": [0, 8], "clock_ghz": [0.5, 0.75, 1.3], "node_nm": [65.0, 28.0], "overhead_pj_per_op": [0.0, 0.3],
    "node_rule": ["published-pair", "stillmaker"], "key_buffer_kib": [8.0, 64.0, 192.0], "heads_in_flight": [1, 2, 4],
    "value_buffer_kib": [16.0, 150.5], "dram": ["hbm2", "ddr4", "lpddr5", "gddr6"], "dram_channels": [1, 2, 8],
    "dram_channel_gbps": [0.0, 16.0, 25.6], "memory_gib": [0.0, 0.5, 4.0], "layout": ["planes", "token-major"],
    "row_bus": ["shared", "free"], "outstanding_requests": [16, 256], "fetch_ports": [0, 8],
    "scoreboard_entries": [8, 32], "exponent_units": [1, 16, 64], "select_comparators": [1, 16],
    "row_overhead_cycles": [0, 5], "softmax": ["streamed", "row"], "residence": ["dram", "buffers"],
}  # fmt: skip

BASES: Final = (
    "topick-gqa", "topick", "spatten", "a3", "theta", "dense-array", "mnnfast", "own.toml",
)  # fmt: skip

UP: Final = (
    "speedup", "speedup_end_to_end", "energy_saving", "dram_reduction", "speedup_same_hardware",
    "speedup_best_dense", "tokens_per_s",
)  # fmt: skip
DOWN: Final = (
    "nll_increase", "area_mm2", "energy_j", "power_w", "dram_bytes", "latency_s", "kl_mean", "floor_s",
)  # fmt: skip


def uneven_profile(name: str = "tiny", factor: float = 1.0) -> Profile:
    """The synthetic profile with heads that differ, one load class each, so that prices are those of every head."""
    profile = synthetic_profile(name)
    share = factor * np.random.default_rng(1).uniform(0.6, 1.0, profile.counters.shape[:4])
    counters = (profile.counters * share[..., None]).astype(np.float32)
    return replace(profile, counters=counters)


def any_space(seed: int) -> dict[str, Any]:
    """A table for `load_space`: every fourth is of prompts, every third takes the largest batch that fits."""
    rng = np.random.default_rng(seed)
    prompts = seed % 4 == 3

    def some(values: Any, least: int = 1, most: int | None = None) -> list[Any]:
        count = int(rng.integers(least, min(len(values), most or len(values)) + 1))
        return [values[i] for i in sorted(rng.permutation(len(values))[:count])]

    def one(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    def axes(least: int, most: int) -> dict[str, Any]:
        drawn = {name: some(AXES[name], 1, 2) for name in some(list(AXES), least, most)}
        return {name: values[0] if len(values) == 1 else values for name, values in drawn.items()}

    algorithms: dict[str, Any] = {}
    names = ["dense", "spatten", "top-theta", "mnnfast"] if prompts else ["dense", "token-picker", "spatten"]
    for name in some(names):
        bits = some([8, 12] if prompts else [4, 6, 8, 12], 1, 3)
        algorithms[name] = {
            ("dense", False): {
                "k_bits": bits, "v_bits": bits, "scale": one(["head", "token", "channel"]), "unmeasured": "skip",
            },
            ("dense", True): {"k_bits": bits, "v_bits": bits, "unmeasured": "skip"},
            ("token-picker", False): {
                "threshold": some([1e-4, 2e-4, 1e-3, 2e-3, 1e-2], 1, 2), "margin": one([0.5, 0.7, 1.0]),
                "chunks": some(["4+4+4", "6+6", "12"], 1, 2),
            },
            ("spatten", False): {"keep": some([0.3, 0.4, 0.9], 1, 2), "value_keep": one([0.3, 0.6, 1.0])},
            ("spatten", True): {"keep": 0.5, "chunks": "12", "value_keep": some([0.4, 1.0])},
            ("top-theta", True): {"k": 32},
            ("mnnfast", True): {"threshold": 1e-3, "gate": True},
        }[name, prompts]  # fmt: skip
    hardware = {"base": one(BASES), **axes(0, 3)}
    if rng.random() < 0.5:
        hardware["for"] = {name: axes(1, 2) for name in some(list(algorithms), 1, 1)}
    workload = {
        "profile": PROMPTS if prompts else PROFILE,
        "context": 160 if prompts else 1024,
        "batch": "max" if seed % 3 == 0 else one([1, 2, 7]),
        "grouped": bool(rng.random() < 0.7),
        "scope": one(["attention", "attention", "model"]),
    }
    if prompts:
        workload |= {"phase": "prefill", "query_tile": one([1, 16, 64])}
    table = {"schema": 1, "name": "any", "workload": workload, "algorithms": algorithms, "hardware": hardware}
    if rng.random() < 0.5:
        up, down = some(UP, 0, 2), some(DOWN, 0, 2)
        if len(up) + len(down) >= 2:
            table["objectives"] = {"maximize": up, "minimize": down}
    if rng.random() < 0.3:
        table["constraints"] = {"nll_increase": {"max": float(rng.uniform(0.1, 0.4))}}
    if seed % 4 == 1:
        table["baseline"] = {"processor": one(["a100-80gb", "titan-xp"])}
        if rng.random() < 0.5:
            table["baseline"]["parameters"] = {"memory_gbps": 321.0, "launch_us": 1.5}
    elif rng.random() < 0.5:
        table["baseline"] = {"algorithm": "dense", "k_bits": 8, "v_bits": 8, "hardware": axes(0, 2)}
        single = {k: v for k, v in table["baseline"]["hardware"].items() if not isinstance(v, list)}
        table["baseline"]["hardware"] = single
    if rng.random() < 0.4:
        table["components"] = {"exponent_um2": 4321.0, "controller_ns": 33.0}
    return table
