"""The model around attention, memory capacity, and the worked figures of a cache that rebuilds tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from systems_by_hand import GROUP, SHAPE, SYSTEMS, N, dense, table

from dse.cost.price import BOUNDS, METRICS, price
from dse.cost.statistics import Statistics, statistics
from dse.cost.workload import LARGEST, Workload
from dse.hardware.presets import load_preset
from dse.profiles.schema import Form, ModelShape, counter_columns

ALL = statistics(
    [s.form for s in SYSTEMS.values()], np.stack([table(s.counts, 0.5) for s in SYSTEMS.values()]), SHAPE, N
)

LLAMA_7B = ModelShape(
    layers=32, query_heads=32, kv_heads=32, head_dim=128, block_parameters=6_607_000_000,
    head_parameters=131_000_000, weight_bits=16,
)  # fmt: skip

# A machine with the ratio of an A100 with 80 GB (312 T operations/s, 2,039 GB/s) that reaches its peaks.
BIG: dict[str, Any] = load_preset("dense-array") | {
    "lanes": 1024, "multipliers": 128, "multiplier_bits": 16, "operand_bits": 16, "clock_ghz": 312 / 2 / 1024 / 0.128,
    "dram_channels": 64, "dram_channel_gbps": 2039 / 64, "outstanding_requests": 65536, "key_buffer_kib": 65536.0,
    "value_buffer_kib": 65536.0, "heads_in_flight": 64, "exponent_units": 4096, "memory_gib": 80.0, "row_bus": "free",
    "node_nm": 7.0, "accumulators": 4096, "select_comparators": 1024,
}  # fmt: skip


def cached(
    rows: float, rebuilt: float = 0.0, reloaded: float = 0.0, n: float = 4096, keeps: bool = False
) -> Statistics:
    """16-bit attention over `rows` of n tokens, every head alike; the others are released unless it `keeps` them."""
    columns = counter_columns()
    counts = {"group.k_rows_0": rows, "group.k_runs_0": 1, "group.v_rows": rows, "group.v_runs": 1,
              "qk_rows_0": rows, "pv_rows": rows, "exponentials": rows, "group.rows_written": 1 + rebuilt,
              "group.rows_rebuilt": rebuilt, "group.rows_reloaded": reloaded}  # fmt: skip
    table_ = np.zeros((1, LLAMA_7B.layers, LLAMA_7B.kv_heads, len(columns)))
    for name, value in counts.items():
        table_[..., columns.index(name)] = value
    return statistics([Form((16,), 16, 16, releases=rows < n and not keeps)], table_, LLAMA_7B, n, classes=1)


def one(stats: Statistics, design: dict[str, Any], workload: Workload) -> dict[str, float]:
    return {name: float(np.ravel(value)[0]) for name, value in price(stats, design, workload).items()}


def test_throughput_of_a_small_cache_by_pen() -> None:
    """LLaMA-2-7B in 16 bit, 4,096 tokens, 256 kept, batch 16: (13.48 + 34.36) / (13.48 + 2.15) GB = 3.06."""
    work = Workload(context=4096, batch=16, scope="model")
    full, small = one(cached(4096), BIG, work), one(cached(256), BIG, work)
    assert full["dram_bytes"] / small["dram_bytes"] == pytest.approx(3.06, rel=0.01)
    assert full["latency_s"] / small["latency_s"] == pytest.approx(3.06, rel=0.01)
    assert small["tokens_per_s"] / full["tokens_per_s"] == pytest.approx(3.06, rel=0.01)


def test_rebuilt_tokens_are_free_until_the_multipliers_bind() -> None:
    """312e12 operations/s against 2,039e9 bytes/s of 16-bit weights: 153 positions per step."""
    refresh = 1 / (1 - 350 / 3900)
    for rebuilt, free in ((0, True), (8, True), (9, True), (12, False), (20, False)):
        found = one(cached(256, rebuilt), BIG, Workload(context=4096, batch=16, scope="model"))
        alone = one(cached(256), BIG, Workload(context=4096, batch=16, scope="model"))
        assert (found["rest_s"] == pytest.approx(alone["rest_s"])) == free
        positions = 16 * (1 + rebuilt)
        if not free:
            # Beyond it, time follows the positions; refresh puts the edge a tenth higher.
            assert found["rest_s"] / alone["rest_s"] == pytest.approx(positions / (153 * refresh), rel=0.02)


def test_memory_limits_the_batch_by_pen() -> None:
    """80 GiB less 13.48 GB of weights over 4,096 tokens of 524,288 B each, and over 256 of them."""
    per_token, room = 524_288, 80 * 2**30 - 6.738e9 * 2
    for stats, tokens in ((cached(4096), 4096), (cached(256, reloaded=1.0), 256)):
        found = one(stats, BIG, Workload(context=4096, batch=LARGEST, scope="model"))
        assert found["batch"] == found["batch_limit"] == np.floor(room / (tokens * per_token))
        assert 1 - tokens * per_token / 2**30 / 80 < found["memory_fill"] <= 1
    # Reading few tokens is not releasing the others.
    kept = one(cached(256, keeps=True), BIG, Workload(context=4096, batch=LARGEST, scope="model"))
    assert kept["batch_limit"] == np.floor(room / (4096 * per_token))


def test_a_larger_batch_serves_more_tokens() -> None:
    rates = [
        one(cached(256), BIG, Workload(context=4096, batch=b, scope="model"))["tokens_per_s"]
        for b in (1, 2, 8, 64, LARGEST)
    ]
    assert rates == sorted(rates)


@pytest.mark.parametrize("batch", [1, 7])
def test_the_model_is_its_two_parts(batch: int) -> None:
    design = load_preset("topick")
    found = price(ALL, design, Workload(batch=batch, scope="model"))
    apart = price(ALL, design, Workload(batch=batch))
    assert found["latency_s"] == pytest.approx(found["attention_s"] + found["rest_s"])
    assert found["energy_j"] == pytest.approx(found["attention_energy_j"] + found["rest_energy_j"])
    assert (found["floor_s"] <= found["latency_s"]).all()
    assert (found["power_chip_w"] < found["power_w"]).all()
    # Without rebuilt tokens the attention part is attention alone.
    plain = [i for i, s in enumerate(SYSTEMS.values()) if not s.counts.get("rows_rebuilt")]
    for name in ("attention_s", "attention_energy_j"):
        assert found[name][plain] == pytest.approx(apart[name][plain])
    assert apart["latency_s"] == pytest.approx(apart["attention_s"])
    weights = (SHAPE.block_parameters + SHAPE.head_parameters) * SHAPE.weight_bits / 8
    assert found["dram_bytes"] - apart["dram_bytes"] == pytest.approx(weights)


def test_the_largest_batch_follows_settings_and_designs_as_points_priced_alone() -> None:
    work = Workload(context=1000, batch=LARGEST, scope="model")
    design: dict[str, Any] = load_preset("topick") | {"memory_gib": 0.004}
    channels = np.asarray([[1, 2, 8]])
    sizes = np.asarray([0.002, 0.02]).reshape(1, 1, 2)
    grid = {**design, "dram_channels": channels[..., None], "memory_gib": sizes}
    found = price(ALL, grid, work)
    shape = (ALL.settings, 3, 2)
    for s in range(0, ALL.settings, 3):
        for c, g in ((0, 0), (2, 1)):
            alone = price(
                ALL.take([s]),
                {**design, "dram_channels": int(channels[0, c]), "memory_gib": float(sizes[0, 0, g])},
                work,
            )
            for name in METRICS:
                whole = np.broadcast_to(found[name], shape)[s, c, g]
                assert whole == pytest.approx(np.ravel(alone[name])[0], rel=1e-12), name
    assert len(np.unique(found["batch"])) > 2


def test_the_bound_may_lie_outside_attention() -> None:
    light = statistics([Form((4,), 4, 12)], table(dense(4, 10).counts)[None], SHAPE, 10.0)
    for batch, bound in ((1, "weights"), (4096, "projections")):
        slow = load_preset("topick") | {"lanes": 1, "multipliers": 64}
        stats = (
            light
            if bound == "weights"
            else statistics(
                [Form((4,), 4, 12)],
                table({"k_rows_0": 1, "k_runs_0": 1, "qk_rows_0": GROUP})[None],
                SHAPE,
                1.0,
            )
        )
        found = price(stats, slow if bound == "projections" else load_preset("topick"),
                      Workload(batch=batch, scope="model"), ("bound",))  # fmt: skip
        assert BOUNDS[int(found["bound"].ravel()[0])] == bound


def test_more_memory_never_holds_fewer_sequences() -> None:
    sizes = np.asarray([[1e-4, 1e-3, 0.01, 1.0, 100.0]])
    found = price(
        ALL, load_preset("topick") | {"memory_gib": sizes}, Workload(scope="model"), ("batch_limit",)
    )
    assert (np.diff(np.broadcast_to(found["batch_limit"], (ALL.settings, 5)), axis=1) >= 0).all()
