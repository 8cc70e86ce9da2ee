"""The closed form of DRAM streams against simulations, and what always holds of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.hardware import dram
from dse.hardware.parameters import DRAM_KINDS

STREAMS = Path(__file__).parent / "data" / "dram_streams.csv"

# The simulated devices (their simulator's timings; one-cycle row commands; energies play no part here).
# atom, page, groups, banks per group, tCK, CL (cycles), tRCD, tRP, tCCD_L, tRRD_S, tRRD_L, tFAW, tRFC, tREFI, GB/s
SIMULATED: dict[str, tuple[float, ...]] = {
    "hbm2_legacy_8ch": (64, 2048, 4, 4, 1.0, 14, 14, 14, 2, 4, 6, 30, 260, 3900, 32),
    "hbm2_pc_16": (32, 1024, 4, 4, 1.0, 14, 14, 14, 4, 4, 6, 16, 260, 3900, 16),
    "ddr4_2400_4ch": (64, 8192, 4, 4, 0.83, 17, 14.11, 14.11, 4.98, 3.32, 4.98, 21.58, 348.6, 7768.8, 19.28),
    "ddr4_3200_1ch": (64, 8192, 4, 4, 0.63, 22, 13.86, 13.86, 5.04, 2.52, 5.04, 21.42, 352.8, 7862.4, 25.4),
    "lpddr4_3200_4ch": (32, 2048, 1, 8, 0.625, 28, 18.1, 18.1, 5, 10, 10, 40, 280, 3904, 6.4),
}
MAPPINGS = {"page_ch": "page", "atom_ch": "atom", "bg_ch": "group"}


def simulated(name: str) -> dram.Device:
    atom, page, groups, banks, tck, cl, trcd, trp, ccd, rrd_s, rrd_l, faw, rfc, refi, gbps = (
        np.float64(x) for x in SIMULATED[name]
    )
    zero = np.float64(0)
    return dram.Device(
        ports=np.float64(1), channel_gbps=gbps, atom_bytes=atom, page_bytes=page, groups=groups,
        banks_per_group=banks, tck_ns=tck, cl_ns=cl * tck, trcd_ns=trcd, trp_ns=trp, tccd_l_ns=ccd, trrd_s_ns=rrd_s,
        trrd_l_ns=rrd_l, tfaw_ns=faw, trfc_ns=rfc, trefi_ns=refi, row_bus_ns=zero, activation_pj=zero, bit_pj=zero,
        background_mw=zero, phy_mm2=zero, phy_mw=zero,
    )  # fmt: skip


def predict(row: dict[str, str]) -> tuple[float, float, float]:
    """Time (ns), bytes and reads per activation of one simulated stream."""
    device, ports = simulated(row["config"]), np.float64(row["channels"])
    population, kept = np.float64(row["rows_scanned"]), np.float64(row["rows_kept"])
    keep = kept / population
    run = np.float64(row["mean_run"] or (1 / (1 - keep) if keep < 1 else kept))
    size, pitch = np.float64(row["row_bytes"]), np.float64(row["stride"])
    start = dram.start_probability(population, kept, kept / run)
    touch = dram.touched(keep, start, *dram.overlap_slots(size, pitch, device.atom_bytes))
    span = population * pitch / device.atom_bytes
    mapping = MAPPINGS[row["mapping"]]
    reads = dram.reads_per_activation(device, ports, keep, start, run, touch, size, pitch, span, mapping)
    each = dram.atom_ns(device, ports, np.float64(row["window"]), reads, dram.unevenness(touch), mapping)
    atoms = touch * span
    return float(device.start_ns + atoms / ports * each), float(atoms * device.atom_bytes), float(reads)


@pytest.fixture(scope="module")
def streams() -> list[dict[str, str]]:
    return list(csv.DictReader(STREAMS.read_text(encoding="utf-8").splitlines()))


def test_times_match_simulated_streams(streams: list[dict[str, str]]) -> None:
    """A quarter of the simulated kept-row, clustered and sequential streams; all of them give 4.8 % and 13 %."""
    errors = np.asarray([predict(r)[0] / (float(r["cycles"]) * float(r["tCK_ns"])) - 1 for r in streams])
    assert np.abs(errors).mean() <= 0.08
    assert np.quantile(np.abs(errors), 0.9) <= 0.20


def test_the_mapping_that_designs_use_matches_better(streams: list[dict[str, str]]) -> None:
    chosen = [r for r in streams if r["mapping"] == "bg_ch"]
    errors = np.asarray([predict(r)[0] / (float(r["cycles"]) * float(r["tCK_ns"])) - 1 for r in chosen])
    assert np.abs(errors).mean() <= 0.04


def test_bytes_and_activations_match_simulated_streams(streams: list[dict[str, str]]) -> None:
    fetched = np.asarray([predict(r)[1] / float(r["fetched_bytes"]) - 1 for r in streams])
    assert np.abs(fetched).max() <= 0.03
    reads = np.asarray(
        [predict(r)[2] / float(r["reads_per_act"]) - 1 for r in streams if r["pattern"] != "sequential"]
    )
    assert np.abs(reads).mean() <= 0.10


@pytest.mark.parametrize(
    ("row", "pitch", "unit", "expected"),
    [
        (32, 32, 32, ((1, 1.0),)),
        (96, 96, 32, ((1, 1.0),)),
        (16, 16, 32, ((2, 1.0),)),
        (96, 96, 64, ((1, 2 / 3), (2, 1 / 3))),
        (32, 96, 32, ((0, 2 / 3), (1, 1 / 3))),
        (48, 48, 32, ((1, 2 / 3), (2, 1 / 3))),
        (2, 2, 32, ((16, 1.0),)),
    ],
)
def test_overlaps_by_pen(row: int, pitch: int, unit: int, expected: tuple[tuple[int, float], ...]) -> None:
    found = dram.overlaps(row, pitch, unit)
    assert [m for m, _ in found] == [m for m, _ in expected]
    assert [f for _, f in found] == pytest.approx([f for _, f in expected])


@settings(deadline=None)
@given(
    row=st.integers(1, 200), gap=st.sampled_from([0, 0, 1, 16, 32, 64, 500]), unit=st.sampled_from([32, 64])
)
def test_overlaps_count_the_atoms_of_whole_periods(row: int, gap: int, unit: int) -> None:
    pitch, rows = row + gap, 64  # 64 rows are whole periods of either unit
    touched = {a for i in range(rows) for a in range(i * pitch // unit, (i * pitch + row - 1) // unit + 1)}
    found = dram.overlaps(row, pitch, unit)
    assert len(found) <= dram.SLOTS
    assert sum(f for _, f in found) == pytest.approx(1)
    assert len(touched) == pytest.approx(sum(f for m, f in found if m > 0) * rows * pitch / unit)


@settings(deadline=None)
@given(
    st.sampled_from([32, 64]),
    st.sampled_from([16, 24, 32, 48, 64, 96]),
    st.floats(0.02, 0.9),
    st.floats(1, 30),
)
def test_expected_bytes_match_a_random_stream(unit: int, row: int, keep: float, run: float) -> None:
    """Atoms touched by a two-state Markov chain of kept rows, against the closed form fed its rows and runs."""
    run = max(run, 1 / (1 - keep))
    n, rng = 20_000, np.random.default_rng(7)
    leave, enter = 1 / run, keep / ((1 - keep) * run)
    draws, kept, state = rng.random(n), np.zeros(n, dtype=bool), False
    for i in range(n):
        state = draws[i] >= leave if state else draws[i] < enter
        kept[i] = state
    rows, runs = kept.sum(), (kept & ~np.roll(kept, 1)).sum()
    if rows < 200:
        return
    begin = np.flatnonzero(kept) * row
    atoms = np.unique(
        np.concatenate([np.minimum(begin + o, begin + row - 1) // unit for o in range(0, row + unit, 8)])
    )
    start = dram.start_probability(n, rows, runs)
    touch = dram.touched(np.float64(rows / n), start, *dram.overlap_slots(row, row, unit))
    assert touch * n * row / unit == pytest.approx(len(atoms), rel=0.05)


@pytest.mark.parametrize("kind", DRAM_KINDS)
def test_dense_streams_reach_most_of_the_peak(kind: str) -> None:
    device = dram.device(DRAM_KINDS.index(kind))
    per_page = device.page_bytes / device.atom_bytes
    each = dram.atom_ns(device, device.ports, np.float64(4096), per_page, np.float64(0))
    assert 0.85 <= device.burst_ns / each <= 1.0


def test_peak_of_a_channel_is_that_of_its_ports() -> None:
    device = dram.device(DRAM_KINDS.index("hbm2"), 32.0)
    assert device.atom_bytes / device.burst_ns * device.ports == pytest.approx(32.0)


def test_a_faster_channel_costs_phy_area_and_power() -> None:
    own, twice, half = (dram.device(DRAM_KINDS.index("hbm2"), gbps) for gbps in (0.0, 64.0, 16.0))
    for name in ("phy_mm2", "phy_mw", "background_mw"):
        assert getattr(twice, name) == pytest.approx(2 * getattr(own, name))
        assert getattr(half, name) == pytest.approx(getattr(own, name))


def test_streams_fetched_together_hide_activations_under_columns() -> None:
    """Two rows of three limits in turn (columns bind one, activations the other) cost no more than one by one."""
    device = dram.device(DRAM_KINDS.index("hbm2"))
    long, short = (np.float64(x) for x in (100.0, 1.0)), (np.float64(x) for x in (12.0, 36.0))
    (a, b), (c, d), none = long, short, np.float64(0)
    apart = dram.combined(device, (a, b, none)) + dram.combined(device, (c, d, none))
    together = dram.combined(device, (a + c, b + d, none))
    assert together == pytest.approx(112 * device.refresh, rel=1e-3)
    assert apart == pytest.approx(136 * device.refresh, rel=1e-3)


def test_a_dense_stream_opens_whole_pages_by_pen() -> None:
    """2,688 atoms on 16 ports x 4 groups are 42 per group: two pages of 32, 21 reads each."""
    device, one = dram.device(DRAM_KINDS.index("hbm2")), np.float64(1)
    for atoms, reads in ((2688, 21), (2048, 32), (4096, 32), (640, 10), (32, 1)):
        found = dram.reads_per_activation(
            device, np.float64(16), one, one, np.float64(atoms / 3), one, np.float64(96), np.float64(96),
            np.float64(atoms),
        )  # fmt: skip
        assert found == pytest.approx(reads)


def test_background_holds_refresh_by_pen() -> None:
    """Simulated: 65 mW and 61 nJ every 3.9 us; DDR4 493 mW and 665 nJ every 7.8 us, times 0.47."""
    for kind, milliwatts in (
        ("hbm2", 65 + 61 / 3.9),
        ("hbm2-legacy", 65 + 61 / 3.9),
        ("ddr4", 0.47 * (493 + 665 / 7.8)),
    ):
        device = dram.device(DRAM_KINDS.index(kind))
        assert device.background_mw == pytest.approx(milliwatts, rel=0.02)


@pytest.mark.parametrize("kind", DRAM_KINDS)
def test_every_device_has_a_source(kind: str) -> None:
    row = dram.device_rows()[kind]
    assert row["source"]
    assert row["confidence"] in {"high", "medium", "low"}


@pytest.mark.parametrize(("name", "value"), [("hbm2_page_bytes", 16), ("hbm2_trefi_ns", 100.0)])
def test_constants_that_contradict_each_other_are_refused(name: str, value: float) -> None:
    """A page of less than an atom, or a refresh that never ends."""
    with pytest.raises(BadInput, match=rf"hbm2_.* must be (at most|less than) {name}, which is {value:g}"):
        dram.check_devices({name: value})
    dram.check_devices({})
    dram.check_devices({"hbm2_page_bytes": 32.0})
