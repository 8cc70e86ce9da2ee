"""A prompt's pass: tiles of queries, what they fetch and compute, and a pipeline of rows by pen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from systems_by_hand import GROUP, SHAPE, SYSTEMS, System, dense, prompt, table

from dse.cost.explain import explain
from dse.cost.price import METRICS, price
from dse.cost.sensitivity import ladder
from dse.cost.statistics import Statistics, statistics
from dse.cost.workload import Workload
from dse.errors import BadInput
from dse.hardware.presets import load_preset
from dse.profiles.schema import Form, ModelShape, counter_columns

LENGTH = 512
VISIBLE = (LENGTH + 1) / 2


def dense_prompt(tile: int, bits: int = 12) -> System:
    """Dense, causal: each tile fetches what its last query sees."""
    tiles = LENGTH // tile
    rows = tile * tiles * (tiles + 1) / 2
    pairs = GROUP * LENGTH * VISIBLE
    return System(
        Form((bits,), bits, 12),
        {"k_rows_0": rows, "k_runs_0": tiles, "v_rows": rows, "v_runs": tiles, "rows_written": LENGTH,
         "qk_rows_0": pairs, "pv_rows": pairs, "exponentials": pairs, "divisions": GROUP * LENGTH},
    )  # fmt: skip


def stats_of(system: System, grouped: bool = True) -> Statistics:
    return statistics([system.form], table(system.counts)[None], SHAPE, VISIBLE, grouped)


def work(tile: int, **more: Any) -> Workload:
    return Workload("prefill", context=LENGTH, query_tile=tile, **more)


def one(system: System, design: dict[str, Any], workload: Workload) -> dict[str, float]:
    return {k: float(np.ravel(v)[0]) for k, v in price(stats_of(system), design, workload).items()}


@pytest.mark.parametrize("tile", [1, 4, 16, 64, 128])
def test_a_dense_prompt_fetches_by_tiles_and_multiplies_once(tile: int) -> None:
    design: dict[str, Any] = load_preset("topick-gqa") | {
        "key_buffer_kib": 4096.0,
        "value_buffer_kib": 4096.0,
    }
    story = explain(stats_of(dense_prompt(tile)), design, work(tile))
    heads, dim, tiles = SHAPE.layers * SHAPE.kv_heads, SHAPE.head_dim, LENGTH // tile
    rows = tile * tiles * (tiles + 1) / 2
    assert story["dram_bytes"]["key"] == pytest.approx(heads * rows * 12 * dim / 8)
    assert story["dram_bytes"]["write"] == pytest.approx(heads * LENGTH * 2 * 12 * dim / 8)
    cycles = GROUP * LENGTH * VISIBLE * (3 + 3) / 48  # three passes of 4 bit, 48 lanes
    assert story["busy_s"]["multipliers"] == pytest.approx(heads * cycles * 2e-9)
    assert story["metrics"]["latency_s"] >= story["metrics"]["floor_s"]


def test_sharing_a_fetch_turns_a_prompt_from_memory_to_multipliers() -> None:
    design: dict[str, Any] = load_preset("topick-gqa") | {"heads_in_flight": 8}
    found = [one(dense_prompt(t), design, work(t, batch=8)) for t in (1, 4, 16, 64)]
    assert [f["latency_s"] for f in found] == sorted((f["latency_s"] for f in found), reverse=True)
    assert [f["dram_bytes"] for f in found] == sorted((f["dram_bytes"] for f in found), reverse=True)
    first, last = (ladder(stats_of(dense_prompt(t)), design, work(t, batch=8))[0].name for t in (1, 64))
    assert (first, last) == ("memory", "multipliers")


def test_a_tile_that_does_not_fit_is_fetched_in_rounds_by_pen() -> None:
    """128 queries x 2 heads x 64 x 32 bit of outputs are 64 KiB: half of 16 KiB holds an eighth of them."""
    wide: dict[str, Any] = load_preset("topick-gqa") | {"key_buffer_kib": 1024.0, "value_buffer_kib": 1024.0}
    fits, narrow = one(dense_prompt(128), wide, work(128)), {**wide, "value_buffer_kib": 16.0}
    rounds = one(dense_prompt(128), narrow, work(128))
    written = SHAPE.layers * SHAPE.kv_heads * LENGTH * 2 * 12 * 64 / 8
    assert rounds["dram_bytes"] - written == pytest.approx(8 * (fits["dram_bytes"] - written))


@pytest.mark.parametrize("name", [*SYSTEMS])
def test_more_buffer_never_slows_a_prompt(name: str) -> None:
    stats = stats_of(prompt(SYSTEMS[name], LENGTH, 64))
    for buffer in ("key_buffer_kib", "value_buffer_kib"):
        sizes = np.asarray([[1.0, 2.0, 8.0, 32.0, 100.0, 1000.0, 65536.0]])
        found = price(stats, {**load_preset("topick"), buffer: sizes}, work(64), METRICS)
        latency = np.broadcast_to(found["latency_s"], (1, sizes.size))
        assert (np.diff(latency, axis=1) <= latency[:, 1:] * 1e-12).all(), buffer
        assert (latency >= found["floor_s"] * (1 - 1e-12)).all()
        assert all(np.isfinite(v).all() for v in found.values())


def test_a_prompt_of_one_token_is_a_step() -> None:
    """Tile 1, one query: the same times and bytes as decoding, but for a write that fills no atom."""
    system = dense(12, 1.0)
    stats = statistics([system.form], table(system.counts)[None], SHAPE, 1.0)
    prefill = price(stats, load_preset("topick"), Workload("prefill", context=1))
    decode = price(stats, load_preset("topick"), Workload(context=1))
    for name in ("floor_s", "dram_bytes", "rest_s", "area_mm2", "batch_limit"):
        assert np.ravel(prefill[name]) == pytest.approx(np.ravel(decode[name])), name


def test_the_model_takes_every_token_of_a_prompt_through_its_blocks() -> None:
    slow: dict[str, Any] = load_preset("topick") | {"lanes": 1}
    prompt_s = one(dense_prompt(64), slow, work(64))["rest_s"]
    block, head = SHAPE.block_parameters, SHAPE.head_parameters
    assert prompt_s == pytest.approx(
        (LENGTH * block + head) * 2 / 64 * 2e-9
    )  # 8-bit weights: two passes of 4


def test_decode_has_no_query_tile() -> None:
    with pytest.raises(BadInput, match="query_tile"):
        Workload(query_tile=4)
    with pytest.raises(BadInput, match="query_tile"):
        Workload("prefill", query_tile=0)


def pipeline(n: float, searched: float = 0.0) -> tuple[Statistics, dict[str, Any]]:
    """One query over n keys that lie on chip, on single-row stages with 9 cycles of their own (Ham et al., 2020)."""
    columns = counter_columns()
    rows = np.zeros((1, 1, 1, len(columns)))
    counts = {"group.k_rows_0": n, "group.k_runs_0": 1, "group.v_rows": n, "group.v_runs": 1, "qk_rows_0": n,
              "pv_rows": n, "exponentials": n, "divisions": 1, "search_steps": searched}  # fmt: skip
    for name, value in counts.items():
        rows[..., columns.index(name)] = value
    design = load_preset("dense-array") | {
        "lanes": 1, "value_lanes": 1, "multipliers": 64, "multiplier_bits": 9, "operand_bits": 9, "exponent_units": 1,
        "key_buffer_kib": 64.0, "value_buffer_kib": 64.0, "row_overhead_cycles": 9, "softmax": "row",
        "residence": "buffers", "heads_in_flight": 1, "clock_ghz": 1.0,
    }  # fmt: skip
    return statistics([Form((9,), 9, 9)], rows, ModelShape(1, 1, 1, 64, 0, 0), n), design


@pytest.mark.parametrize("n", [20, 186, 320])
def test_a_pipeline_of_three_stages_by_pen(n: int) -> None:
    """A query takes 3 n + 27 cycles alone, and follows another every n + 9 (Ham et al., HPCA 2020, section III)."""
    stats, design = pipeline(n)
    alone = price(stats, design, Workload())
    assert alone["latency_s"] == pytest.approx((3 * n + 27) * 1e-9)
    assert alone["dram_bytes"] == 0
    many = price(stats, design | {"heads_in_flight": 64}, Workload(batch=1001))
    assert many["latency_s"] == pytest.approx((3 * n + 27 + 1000 * (n + 9)) * 1e-9)


def test_operands_stay_on_chip_only_where_they_fit() -> None:
    stats, design = pipeline(320)
    sizes = np.asarray([[16.0, 22.0, 23.0, 64.0]])  # 320 rows of 64 x 9 bit are 22.5 KiB
    found = price(stats, {**design, "key_buffer_kib": sizes}, Workload(), ("dram_bytes", "latency_s"))
    assert (np.broadcast_to(found["dram_bytes"], (1, 4)) > 0).tolist() == [[True, True, False, False]]
    assert (np.diff(found["latency_s"]) <= 0).all()


def test_a_search_fills_its_queues_first() -> None:
    stats, design = pipeline(320, searched=160)
    busy = explain(stats, design, Workload())["busy_s"]
    assert busy["search"] == pytest.approx(164e-9)
