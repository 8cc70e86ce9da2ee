"""Every row is recomputed, says where it is from, and agrees where it claims to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dse.errors import BadInput
from dse.validation import PROOFS, SYSTEMS, Row, validate


def find(rows: list[Row], system: str, quantity: str) -> Row:
    (row,) = [r for r in rows if r.system == system and r.quantity == quantity]
    return row


def test_no_row_is_outside_its_tolerance(rows: list[Row]) -> None:
    """Independent ones fail the command; an identity or a fit that is off is a mistake of ours."""
    assert not [(r.system, r.quantity, r.error) for r in rows if r.within is False]


def test_every_row_is_complete(rows: list[Row]) -> None:
    names = [(r.system, r.quantity) for r in rows]
    assert len(set(names)) == len(names)
    for row in rows:
        assert row.system in SYSTEMS
        assert row.proves in PROOFS
        assert row.source
        assert row.assumed
        assert row.ours is not None or "shipped profile" in row.assumed
        assert row.published is not None or row.tolerance is None


def test_every_system_has_rows_and_can_be_asked_for_alone() -> None:
    for name in SYSTEMS:
        assert {row.system for row in validate([name])} == {name}
    with pytest.raises(BadInput, match="did you mean 'spatten'"):
        validate(["spaten"])


def test_what_the_papers_print(rows: list[Row]) -> None:
    """The published side, by hand."""
    printed = {
        ("dense", "decode: DRAM bytes"): 2 * 1024 * 64 + 2 * 64,
        ("token-picker", "speedup"): 2.28,
        ("spatten", "cycles of a layer, 12 heads, 40 tokens"): 120 + 2400 + 108,
        ("spatten", "cycles of a layer, 12 heads, 128 tokens"): 384 + 24576 + 119,
        ("spatten", "throughput with a selection engine 16 wide"): 776.2,
        ("spatten", "mean throughput of 22 BERT tasks"): 1.61,
        ("spatten", "power"): 8.30,
        ("against", "SpAtten-1/8 over A3, throughput"): 360 / 221,
        ("a3", "cycles between queries, n + 9"): 320 + 9,
        ("a3", "cycles of one query, 3n + 27"): 3 * 320 + 27,
        ("mnnfast", "speedup of one thread"): 3.65,
        ("adore", "positions that one stream of weights pays for"): 153,
    }
    for (system, quantity), value in printed.items():
        assert find(rows, system, quantity).published == value


def test_reference_formulas_of_spatten_give_its_own_cycles(rows: list[Row]) -> None:
    for tokens in (40, 128):
        row = find(rows, "spatten", f"cycles of a layer, 12 heads, {tokens} tokens")
        assert row.reference == row.published


def test_a_selection_engine_of_one_costs_what_quick_select_by_hand_costs() -> None:
    """One comparator binds: the sum of expected cycles over all heads, without any other resource."""
    import numpy as np

    from dse.cost.work import PASS_OVERHEAD, quick_select
    from dse.validation.bench import Bench
    from dse.validation.spatten import ONE_PASS
    from dse.validation.traces import MEDIUM, generation

    heads = MEDIUM.replay()
    keys, values = (np.asarray([getattr(h, name) for h in heads], float) for name in ("keys", "values"))
    elements, passes = quick_select(keys, values)
    cycles = (elements + PASS_OVERHEAD * passes).sum()
    seconds = Bench("spatten", {"select_comparators": 1}).price(generation(MEDIUM, ONE_PASS))["latency_s"]
    assert seconds == pytest.approx(cycles * 1e-9, rel=1e-3)


def _slow_selection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("dse.cost.work.PASS_OVERHEAD", 60.0)


def _slow_memory(patch: pytest.MonkeyPatch) -> None:
    from dse.hardware import components

    patch.setitem(components._VALUES, "hbm2_tfaw_ns", 90.0)


def _short_bytes(patch: pytest.MonkeyPatch) -> None:
    from dse.validation import dense

    patch.setattr(dense, "TABLE", {"hbm2_bit_pj": 5.0, "hbm2_activation_pj": 0.0})


def _wide_queues(patch: pytest.MonkeyPatch) -> None:
    from dse.hardware import components

    patch.setitem(components._VALUES, "fetch_fifo_entries", 96.0)


def _slow_preset(patch: pytest.MonkeyPatch) -> None:
    from dse.validation import bench

    real = bench.load_preset
    patch.setattr(bench, "load_preset", lambda name: real(name) | {"clock_ghz": 0.7})


@pytest.mark.parametrize(
    ("system", "break_it"),
    [
        ("spatten", _slow_selection),
        ("token-picker", _slow_memory),
        ("dense", _short_bytes),
        ("dense", _slow_preset),
        ("spatten", _slow_preset),
        ("spatten", _wide_queues),
        ("ramulator", _slow_memory),
    ],
)
def test_a_wrong_constant_makes_an_independent_row_fail(
    monkeypatch: pytest.MonkeyPatch, system: str, break_it: Callable[[pytest.MonkeyPatch], Any]
) -> None:
    before = {r.quantity for r in validate([system]) if r.failed}
    break_it(monkeypatch)
    after = {r.quantity for r in validate([system]) if r.failed}
    assert after > before


@pytest.mark.parametrize(
    ("preset", "constant", "quantity"),
    [
        ("spatten", "datapath_area_factor", "area of probability x V with its SRAM"),
        ("spatten", "exponent_um2", "area of softmax"),
        ("spatten", "sram_energy_factor", "power of SRAM and queues"),
        ("spatten", "sram_leakage_factor", "power of SRAM and queues"),
        ("spatten", "exponent_pj", "power of softmax"),
        ("spatten", "select_element_pj", "power of top-k engines"),
        ("a3", "sram_energy_factor", "dynamic power, every module busy"),
        ("a3", "value_energy_factor", "energy over base, BERT, conservative"),
        ("a3", "datapath_area_factor", "area"),
        ("a3", "logic_leakage_mw_mm2", "static power"),
    ],
)
def test_each_constant_of_a_published_machine_is_held_by_a_row(
    monkeypatch: pytest.MonkeyPatch, rows: list[Row], preset: str, constant: str, quantity: str
) -> None:
    from dse.validation import bench

    assert find(rows, preset, quantity).within
    real = bench.load_constants

    def wrong(name: str) -> dict[str, float]:
        found = real(name)
        return found | {constant: 3 * found[constant]} if name == preset else found

    monkeypatch.setattr(bench, "load_constants", wrong)
    assert find(validate([preset]), preset, quantity).within is False


def test_rows_that_presets_feed_are_never_independent(rows: list[Row]) -> None:
    """With every constant of its own put aside, a published machine's independent rows stay as they are."""
    from dse.validation.bench import general_constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dse.validation.bench.load_constants", lambda name: {})
        for system in ("spatten", "a3", "against"):
            for row in validate([system]):
                if row.proves == "independent":
                    assert row.ours == pytest.approx(find(rows, system, row.quantity).ours, rel=1e-9), (
                        row.quantity
                    )
    assert general_constants("topick") == {}


def test_the_traces_that_spatten_released_are_replayed_exactly() -> None:
    from dse.validation.traces import MEDIUM, SMALL

    for trace, sums in ((MEDIUM, (11_328, 11_424_288, 6_143_004, 1_848_398)),
                        (SMALL, (4_608, 4_647_168, 1_283_172, 255_180))):  # fmt: skip
        heads = trace.replay()
        found = (
            len(heads),
            *(sum(getattr(h, name) for h in heads) for name in ("visible", "keys", "values")),
        )
        assert found == sums


def test_top_theta_formulas_by_hand() -> None:
    from dse.validation.top_theta import KEPT, kept_fraction, model_fraction, union_rows

    assert sum(len(curve) for _, curve in KEPT.values()) == 39
    assert kept_fraction(1113, 64) == pytest.approx(64 * 2163 / 1_239_882)
    assert kept_fraction(64, 64) == 1.0
    # Rows of 3 tokens, 2 kept: 1 + 2 + 2 of 1 + 2 + 3.
    assert kept_fraction(3, 2) == pytest.approx(5 / 6)
    assert model_fraction(1113, 64, 32) == pytest.approx((30 * 0.11165 + 2 * 0.70820) / 32, abs=1e-5)
    assert union_rows(1000, 100, 1) == pytest.approx(100)
    assert 100 < union_rows(1000, 100, 4) < 400


def test_losses_between_settings_are_read_off_between_them() -> None:
    """A budget between two measured losses gives a value between theirs, and none beyond."""
    import numpy as np

    from dse.profiles.schema import ACCURACY
    from dse.validation.measured import at_loss, profiles, reduction

    profile = next(iter(profiles().values()))
    values = reduction(profile, "head.v_rows")
    lost = profile.accuracy[:, :, ACCURACY.index("perplexity_increase")]
    for context, found, _ in at_loss(profile, "token-picker", "threshold", 0.3, values):
        c = profile.contexts.index(context)
        mine = [
            i
            for i, s in enumerate(profile.settings)
            if s.algorithm == "token-picker" and np.isfinite(lost[i, c])
        ]
        assert found <= max(values[i, c] for i in mine)
        assert found >= min(values[i, c] for i in mine if lost[i, c] <= 0.3)
    assert not list(at_loss(profile, "token-picker", "threshold", 1e9, values))
