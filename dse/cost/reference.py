"""The readable twin of `price`: one setting, one design, plain numbers, a loop over every layer and KV head.

No load classes, no arrays: what a user would work out by pen. `price` with one class per head must agree with
it; with a few classes the difference is the error of the classes. What streams take is in
`dse.cost.reference_dram`, energy and area in `dse.cost.reference_budget`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dse.cost.reference_dram import Fetch, atom_ns, fetch, memory_kind, soft_max
from dse.cost.workload import LARGEST, Workload
from dse.hardware.components import Components, components
from dse.hardware.parameters import PARAMETERS, HardwareValue
from dse.profiles.schema import FETCH_COUNTERS, Form, ModelShape, counter_columns

Count = Callable[[str], float]


EULER_GAMMA = 0.5772156649015329


@dataclass(frozen=True)
class Head:
    """One KV head's share: seconds alone and of its busiest resource, bytes moved, pages opened.

    `rounds` and `tiles` are times its rows are gone through, and tiles of queries; both 1 in decode. `key_away` and
    `value_away` are 1 where its keys or values come from memory, 0 where they lie in the buffer.
    """

    alone_s: float
    busiest_s: float
    dram_bytes: float
    useful_bytes: float
    activations: float
    rounds: float
    tiles: float
    key_away: float
    value_away: float


Row = Sequence[float]


def counts_of(counters: Sequence[Sequence[Row]], shape: ModelShape, grouped: bool) -> list[Count]:
    """A look-up of counters by name for every KV head."""
    columns = {name: i for i, name in enumerate(counter_columns())}
    scope = "group" if grouped else "head"

    def of(row: Row) -> Count:
        return lambda name: float(row[columns[f"{scope}.{name}" if name in FETCH_COUNTERS else name]])

    return [of(counters[layer][head]) for layer in range(shape.layers) for head in range(shape.kv_heads)]


def reference(
    form: Form,
    counters: Sequence[Sequence[Row]],
    shape: ModelShape,
    n: float,
    design: Mapping[str, HardwareValue],
    workload: Workload,
    grouped: bool = True,
    overrides: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Times (s), DRAM bytes and DRAM joules of one step; names as `dse.cost.price.METRICS`, ``dram_j`` beside.

    Args:
        form, counters: one setting; counters are [layers][kv_heads][len(counter_columns())].
        shape, n, grouped: as in `dse.cost.statistics.statistics`.
        design: plain values of every hardware parameter. overrides: component constants, all but
            ``dram_time_factor``, which this twin leaves at 1.
    """
    constants = components(overrides)
    design = {**{name: p.default for name, p in PARAMETERS.items() if p.default is not None}, **design}
    each = counts_of(counters, shape, grouped)
    heads = [_head(count, form, shape, n, design, workload, grouped, constants) for count in each]
    kind = memory_kind(design, constants)
    batch, limit, fill = _batch(each, form, shape, n, design, workload, grouped, constants)
    tasks = shape.kv_heads * batch  # of a layer, which the next layer waits for
    flight = float(design["heads_in_flight"])
    attention = 0.0
    for head in heads:
        period = max(head.busiest_s, head.alone_s / flight)
        attention += batch * (period + (head.alone_s - period) / tasks)
    moved = sum(head.dram_bytes for head in heads) * batch
    opened = sum(head.activations for head in heads) * batch
    dram_j = (moved * 8 * kind["bit_pj"] + opened * kind["activation_pj"]) * 1e-12
    rest_s, weights, _ = _rest(each, shape, design, workload, grouped, batch, constants)
    whole = workload.scope == "model"
    latency = attention + (rest_s if whole else 0.0)
    tokens = float(workload.context or n) if workload.phase == "prefill" else 1.0
    return {
        "latency_s": latency,
        "attention_s": attention,
        "rest_s": rest_s,
        "tokens_per_s": batch * tokens / latency,
        "dram_bytes": moved + (weights if whole else 0.0),
        "dram_j": dram_j,
        "batch": batch,
        "batch_limit": limit,
        "memory_fill": fill,
    }


def _batch(
    each: list[Count], form: Form, shape: ModelShape, n: float, design: Mapping[str, HardwareValue],
    workload: Workload, grouped: bool, constants: Components,
) -> tuple[float, float, float]:  # fmt: skip
    """Sequences taken, sequences that fit, bytes held over capacity."""
    row_bits = (form.k_bits + form.v_bits) * shape.head_dim + form.k_scale_bits + form.v_scale_bits
    own = float(design["dram_channels"]) * memory_kind(design, constants)["channel_gib"]
    capacity = (float(design["memory_gib"]) or own) * 2**30
    weights = (shape.block_parameters + shape.head_parameters) * shape.weight_bits / 8
    held = weights if workload.scope == "model" else 0.0
    tokens = max(n, float(workload.context))
    rows = len(each) * tokens * (1 if grouped else shape.group)
    if form.releases:
        rows = max(sum(count("k_rows_0") for count in each), sum(count("v_rows") for count in each))
    cache = rows * row_bits / 8
    limit = math.floor(max(capacity - held, 0.0) / cache)
    batch = max(float(limit), 1.0) if workload.batch == LARGEST else float(workload.batch)
    return batch, float(limit), (held + batch * cache) / capacity


def _rest(
    each: list[Count], shape: ModelShape, design: Mapping[str, HardwareValue], workload: Workload, grouped: bool,
    batch: float, constants: Components,
) -> tuple[float, float, float]:  # fmt: skip
    """Seconds of the model around attention, bytes of its weights, multiply-adds."""
    kind = memory_kind(design, constants)
    share = 1.0 if grouped else 1.0 / shape.group
    positions = 1.0
    if workload.phase == "prefill":
        positions = sum(max(count("rows_written") * share, 1.0) for count in each) / len(each)
    if workload.scope == "model":
        positions += sum(count("rows_rebuilt") * share for count in each) / len(each)
    parameters = shape.block_parameters + shape.head_parameters
    weights = parameters * shape.weight_bits / 8
    ports = float(design["dram_channels"]) * kind["ports"]
    half = float(design["key_buffer_kib"]) * 512 / kind["atom_bytes"]
    window = max(1.0, min(float(design["outstanding_requests"]), half))
    per_page = kind["page_bytes"] / kind["atom_bytes"]
    stream_s = weights / kind["atom_bytes"] * atom_ns(kind, ports, window, per_page, 0.0) * 1e-9 / ports
    passes = math.ceil(shape.weight_bits / float(design["multiplier_bits"]))
    passes *= math.ceil(8 / float(design["operand_bits"]))
    products = batch * (positions * shape.block_parameters + shape.head_parameters)
    rate = (float(design["lanes"]) + float(design["value_lanes"])) * float(design["multipliers"])
    compute_s = products * passes / (rate * float(design["clock_ghz"]) * 1e9)
    return max(stream_s, compute_s), weights, products


def _select_cycles(calls: float, elements: float, kept: float, comparators: float) -> float:
    """Cycles of all quick-selects of a kind."""
    if elements <= 0:
        return 0.0
    n, k = max(elements / calls, 1.0), min(kept / calls, elements / calls)
    a = min(max(k / n, 1e-12), 1 - 1e-12)
    partitioned = 2 * n * (1 - a * math.log(a) - (1 - a) * math.log1p(-a))

    def harmonic(x: float) -> float:
        return math.log(x + 0.5) + EULER_GAMMA + 1 / (24 * (x + 0.5) ** 2)

    passes = max(1.0, harmonic(k) + harmonic(n - k) - 1)
    return calls * (partitioned / comparators + 3.5 * passes)


def _head(
    count: Count, form: Form, shape: ModelShape, n: float, design: Mapping[str, HardwareValue], workload: Workload,
    grouped: bool, constants: Components,
) -> Head:  # fmt: skip
    """One KV head of one layer: a token's step, or a prompt's pass in tiles of queries."""
    d = {name: float(value) for name, value in design.items() if not isinstance(value, str)}
    kind, dim, group = memory_kind(design, constants), shape.head_dim, shape.group
    planes, chunks = design["layout"] == "planes", form.k_chunk_bits
    by_row, row_order = form.v_after == "row", form.chunk_order == "row"
    whole_row, prefill = by_row or row_order, workload.phase == "prefill"
    sharing, visible = (group, n) if grouped else (1, n * group)
    atom, channels = kind["atom_bytes"], int(d["dram_channels"])
    ports = channels * kind["ports"]
    key_half, value_half = d["key_buffer_kib"] * 512, d["value_buffer_kib"] * 512
    key_window = max(1.0, min(d["outstanding_requests"], key_half / atom))
    value_window = max(1.0, min(d["outstanding_requests"], value_half / atom))
    k_scale, v_scale = form.k_scale_bits, form.v_scale_bits
    row_bits = (form.k_bits + form.v_bits) * dim + k_scale + v_scale

    # Tiles of queries, and rounds where a tile does not fit the buffers.
    positions = tiles = rounds = together = 1.0
    population = visible
    if prefill:
        positions = max(count("rows_written") * sharing / group, 1.0)
        tile = min(float(workload.query_tile), positions)
        tiles = float(math.ceil(positions / tile))
        population = tiles * (visible + (tile - 1) / 2 * visible / n)
        waiting = count("qk_rows_0") / positions * constants["score_bits"] / 8 if whole_row else 0.0
        in_key = key_half / (sharing * dim * form.q_bits / 8 + waiting * sharing / group)
        in_value = value_half / (sharing * dim * 32 / 8)
        again = math.ceil(tile / max(1, math.floor(min(in_key, in_value))))
        rounds, together = tiles * again, tile / again
    repeat = rounds / tiles

    # Operands that lie in the buffers.
    on_chip = design["residence"] == "buffers"
    key_size = visible * (form.k_bits * dim + k_scale) / 8
    value_size = visible * (form.v_bits * dim + v_scale) / 8
    key_away = 0.0 if on_chip and key_size <= d["key_buffer_kib"] * 1024 else 1.0
    value_away = 0.0 if on_chip and value_size <= d["value_buffer_kib"] * 1024 else 1.0

    # Fetches.
    key_pitch = math.ceil((form.k_bits * dim + k_scale) / 8)
    key = Fetch()
    for c, bits in enumerate(chunks):
        plane = math.ceil(bits * dim / 8)
        beside = math.ceil((bits * dim + k_scale) / 8) if c == 0 else plane
        length, pitch = (plane, plane) if planes else (beside, key_pitch)
        rows, runs = count(f"k_rows_{c}"), count(f"k_runs_{c}")
        key += fetch(kind, channels, key_window, population, rows, runs, length, pitch)
    if planes and k_scale:
        width = math.ceil(k_scale / 8)
        rows, runs = count("k_rows_0"), count("k_runs_0")
        key += fetch(kind, channels, key_window, population, rows, runs, width, width)
    width = math.ceil((form.v_bits * dim + (0 if planes else v_scale)) / 8)
    v_rows, v_runs = count("v_rows"), count("v_runs")
    value = fetch(kind, channels, value_window, population, v_rows, v_runs, width, width)
    if planes and v_scale:
        width = math.ceil(v_scale / 8)
        value += fetch(kind, channels, value_window, population, v_rows, v_runs, width, width)
    key, value = key.times(key_away), value.times(value_away)
    per_page = kind["page_bytes"] / atom
    dense_s = atom_ns(kind, ports, key_window, per_page, 0.0) * 1e-9 / ports
    meta_read, meta_write = count("meta_read_bytes") * key_away, count("meta_write_bytes") * key_away
    meta_atoms = max(meta_read / atom, 1.0) if meta_read else 0.0
    index_atoms = max(meta_write / atom, 1.0) if meta_write else 0.0
    if planes:
        pieces = [
            math.ceil(b / 8 / atom) for b in (*(c * dim for c in chunks), k_scale, v_scale, form.v_bits * dim)
        ]
        row_atoms, row_opens = float(sum(pieces)), float(sum(min(p, 1) for p in pieces))
    else:
        row_atoms = math.ceil((form.k_bits * dim + k_scale) / 8 / atom)
        row_atoms += math.ceil((form.v_bits * dim + v_scale) / 8 / atom)
        row_opens = 2.0
    if prefill:
        row_atoms = row_bits / 8 / atom
        row_opens = row_atoms / per_page
    written = count("rows_written") * max(key_away, value_away)
    write_each = atom_ns(kind, ports, d["outstanding_requests"], row_atoms / row_opens, 0.0) * 1e-9 / ports
    write_s = written * row_atoms * write_each + index_atoms * dense_s
    passes = min(count("second_passes"), rounds * group / sharing)
    scores = count("qk_rows_0") / positions * constants["score_bits"] / 8 if whole_row else 0.0
    kept_planes = sum(count(f"k_rows_{c}") * bits for c, bits in enumerate(chunks[:-1])) / tiles * dim / 8
    missing = max(kept_planes - max(key_half - scores * together, 0.0), 0.0) if whole_row else 0.0
    spilled = max(scores - key_half, 0.0) * positions
    refetch_atoms = (2 * spilled + missing * passes * key_away) / atom
    refetch_s = refetch_atoms * dense_s

    # Work.
    cycle = 1e-9 / d["clock_ghz"]
    fold = math.ceil(dim / d["multipliers"])
    row_s = fold / max(1, d["multipliers"] // dim) * cycle
    narrow, wide = d["multiplier_bits"], d["operand_bits"]
    query = math.ceil(form.q_bits / wide)
    own_s = group * positions * d["row_overhead_cycles"] * cycle
    score_s = sum(count(f"qk_rows_{c}") * math.ceil(bits / narrow) for c, bits in enumerate(chunks))
    score_s = score_s * query * row_s / d["lanes"]
    product_s = count("pv_rows") * math.ceil(form.v_bits / narrow) * query
    product_s = product_s * row_s / (d["value_lanes"] or d["lanes"]) + own_s
    prepare = count("estimate_macs") * math.ceil(form.q_bits / narrow) * query
    prepare += count("controller_macs") * math.ceil(16 / narrow) * math.ceil(16 / wide)
    if workload.scope == "attention":
        position = shape.block_parameters / (shape.layers * shape.kv_heads) * sharing / group
        prepare += count("rows_rebuilt") * position * math.ceil(shape.weight_bits / narrow) * query
    prepare_s = prepare * cycle / (d["lanes"] * d["multipliers"])
    exponent_s = max(count("exponentials"), count("divisions")) * cycle / d["exponent_units"]
    lane_s = (count("compares") + count("scalar_ops") + count("margins") * fold) * cycle / d["lanes"]
    comparators = d["select_comparators"]
    select_s = cycle * _select_cycles(
        count("select_calls"), count("select_elements"), count("select_kept"), comparators
    )
    rank_s = cycle * _select_cycles(
        count("rank_calls"), count("rank_elements"), count("rank_kept"), comparators
    )
    importance_s = count("importance_adds") * cycle / d["accumulators"]
    steps = count("search_steps")
    fill = group * positions * constants["search_fill_cycles"] * min(steps, 1.0)
    search_s = (steps + fill) * cycle / d["search_engines"]
    sort_s = count("sort_elements") * max(1.0, math.log2(max(n, 2.0))) * cycle / comparators
    slow_s = count("rows_reloaded") * row_bits / 8 / (d["slow_gbps"] * 1e9)
    later = [c for c in range(1, len(chunks)) if not row_order]
    answer_s = (kind["start_ns"] + constants["controller_ns"]) * 1e-9
    scoreboard_s = (
        sum(count(f"qk_rows_{c}") for c in later) * answer_s / (d["lanes"] * d["scoreboard_entries"])
    )

    # Phases.
    per_tile = population / tiles
    window = min(max(per_tile if form.lag < 0 else form.lag + 1, 1.0), per_tile)
    trips = levels = 0.0
    for c in later:
        asked = min(count(f"k_rows_{c}") / population, 1.0)
        trips += population / window * (1 - (1 - asked) ** window)
        levels += min(count(f"k_rows_{c}"), tiles)
    trips, levels = trips * key_away * repeat, levels * key_away * repeat
    shared, own = (0.0, product_s) if d["value_lanes"] else (product_s, 0.0)
    row_softmax = design["softmax"] == "row"
    along, after_scores = (0.0 if by_row else 1.0), (0.0 if by_row or row_softmax else 1.0)
    key_s, value_s = key.alone_s * repeat, value.alone_s * repeat + write_s
    first = max(
        key_s + refetch_s + along * value_s,
        score_s + own_s + after_scores * shared,
        after_scores * own,
        0.0 if row_softmax else exponent_s + own_s,
        lane_s,
        scoreboard_s,
        trips * answer_s,
    )
    second = max((1 - along) * value_s, (1 - after_scores) * shared, (1 - after_scores) * own)
    series = min(count("meta_read_bytes"), 1.0) * key_away * answer_s + key_away * answer_s
    series += (1 - along) * rounds * value_away * answer_s
    series += passes * key_away * answer_s if row_order else 0.0
    series += levels * answer_s
    series += min(v_rows, rounds) * value_away * answer_s if form.v_after == "token" else 0.0
    drain_cycles = 0.0 if d["row_overhead_cycles"] else constants["row_drain_cycles"]
    series += select_s + count("row_waits") / sharing / together * drain_cycles * cycle
    series += exponent_s + own_s if row_softmax else 0.0
    phases = max(meta_atoms * dense_s, prepare_s, search_s, slow_s) + first + second + series
    even = [soft_max(kind, limits) for limits in (key + value).even_ns]
    memory_s = min(even, default=0.0) * repeat * 1e-9 + meta_atoms * dense_s + write_s + refetch_s
    busiest = max(memory_s, score_s + prepare_s + shared, own, exponent_s, lane_s, select_s, rank_s,
                  importance_s, search_s, sort_s, scoreboard_s, slow_s)  # fmt: skip
    atoms = (
        (key.atoms + value.atoms) * repeat + meta_atoms + written * row_atoms + index_atoms + refetch_atoms
    )
    opened = (key.activations + value.activations) * repeat + written * row_opens
    opened += (meta_atoms + index_atoms + refetch_atoms) / per_page
    return Head(
        max(phases, rank_s, importance_s, sort_s),
        busiest,
        atoms * atom,
        key.useful_bytes + value.useful_bytes + meta_read + meta_write + written * row_bits / 8,
        opened,
        rounds,
        tiles,
        key_away,
        value_away,
    )
