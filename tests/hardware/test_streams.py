"""Single streams: channels loaded unevenly, short streams, rows in random order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.hardware import dram
from dse.hardware.parameters import DRAM_KINDS
from dse.hardware.streams import Stream, channel_load, passage

HBM2 = dram.device(DRAM_KINDS.index("hbm2"))
LEGACY = dram.device(DRAM_KINDS.index("hbm2-legacy"))


def load(stream: Stream, ports: int, mapping: str = "group", keep: float = 1.0) -> float:
    return channel_load(LEGACY, ports, stream, keep, keep, mapping)


def test_a_power_of_two_pitch_camps_on_few_channels_by_pen() -> None:
    """Rows of 128 B at a pitch of 512 B = 8 channels x 64 B touch 2 of 8 channels; at 576 B all of them alike."""
    assert load(Stream(4096, 4096, 1, 128, 512), 8) == pytest.approx(4.0)
    assert load(Stream(4096, 4096, 1, 128, 576), 8) == pytest.approx(1.0)
    assert load(Stream(4096, 4096, 1, 128, 128), 8) == pytest.approx(1.0)


def test_a_short_stream_reaches_few_channels_by_pen() -> None:
    """4 KiB are two pages of 2 KiB: two of eight channels if whole pages are interleaved, all if atoms are."""
    stream = Stream(64, 64, 1, 64, 64)
    assert load(stream, 8, "page") == pytest.approx(4.0)
    assert load(stream, 8, "atom") == pytest.approx(1.0)
    assert load(Stream(3, 3, 1, 64, 64), 8, "atom") == pytest.approx(8 / 3)


@settings(deadline=None)
@given(
    st.sampled_from([16, 32, 64, 128]), st.sampled_from([0, 0, 32, 64, 192, 384]), st.floats(0.05, 1),
    st.sampled_from([2, 4, 8, 16]), st.sampled_from(["group", "atom", "page"]),
)  # fmt: skip
def test_the_busiest_channel_has_at_least_the_mean_and_at_most_all(
    size: int, gap: int, keep: float, ports: int, mapping: str
) -> None:
    found = load(Stream(5000, 5000 * keep, 100, size, size + gap), ports, mapping, keep)
    assert 1 - 1e-9 <= found <= ports + 1e-9


def test_an_in_order_stream_is_the_array_form() -> None:
    """Where channels are loaded alike, this is `dse.hardware.dram`."""
    population, rows, runs = 20000.0, 5000.0, 3750.0
    stream = Stream(population, rows, runs, 96, 96)
    found = passage(HBM2, 16, 512.0, stream)
    keep, sixteen = np.float64(rows / population), np.float64(16)
    start = dram.start_probability(population, rows, runs)
    touch = dram.touched(keep, start, *dram.overlap_slots(96, 96, 32))
    reads = dram.reads_per_activation(
        HBM2, sixteen, keep, start, np.float64(rows / runs), touch, np.float64(96), np.float64(96),
        np.float64(population * 3),
    )  # fmt: skip
    each = dram.atom_ns(HBM2, sixteen, np.float64(512), reads, dram.unevenness(touch))
    assert found.ns(HBM2) == pytest.approx(float(touch * population * 3 / 16 * each), rel=1e-3)
    assert found.fetched_bytes == pytest.approx(float(touch) * population * 96)


@settings(deadline=None)
@given(st.floats(0.03, 0.9), st.sampled_from([32, 64, 128, 256]), st.sampled_from([64.0, 512.0, 4096.0]))
def test_random_order_is_never_faster(keep: float, size: int, window: float) -> None:
    n = 40000.0
    rows = n * keep
    ordered = Stream(n, rows, rows * (1 - keep), size, size)
    shuffled = Stream(n, rows, rows, size, size, shuffled=True)
    a, b = (passage(HBM2, 16, window, s, trc_ns=48.0).ns(HBM2) for s in (ordered, shuffled))
    assert b >= a * 0.8  # the two forms were fitted apart and cross where nothing shares a page


def test_a_lone_atom_per_page_waits_for_its_bank() -> None:
    few = passage(HBM2, 16, 512.0, Stream(1e6, 1000, 1000, 32, 32, True), trc_ns=48.0)
    slow = passage(HBM2, 16, 512.0, Stream(1e6, 1000, 1000, 32, 32, True), trc_ns=96.0)
    assert few.reads == pytest.approx(1.0, abs=0.05)
    assert slow.ns(HBM2) > few.ns(HBM2)
    assert few.fetched_bytes == 32000
