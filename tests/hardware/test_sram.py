"""SRAM macros: table points come back, buffers grow monotonically, published points are near."""

from __future__ import annotations

import csv
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.hardware.sram import isotonic, macro

ROWS = list(
    csv.DictReader(
        (files("dse.hardware") / "data" / "sram_cacti7.csv").read_text(encoding="utf-8").splitlines()
    )
)


def test_table_points_come_back() -> None:
    """Energies and areas that did not fall with capacity are the table's; those that did, near it."""
    same, off = 0, []
    for row in ROWS:
        found = macro(float(row["capacity_bytes"]), float(row["word_bits"]), float(row["node_nm"]))
        read = float(row["read_pj"]) * 1e-12
        same += bool(np.isclose(found.read_j, read))
        off.append(float(found.read_j) / read - 1)
    assert same >= 0.7 * len(ROWS)
    assert np.abs(off).mean() < 0.03


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_isotonic_lines_rise_and_keep_their_mean(values: list[float]) -> None:
    line = np.asarray(values)
    found = isotonic(line)
    assert (np.diff(found) >= -1e-12).all()
    assert found.mean() == pytest.approx(line.mean(), abs=1e-9)
    assert np.array_equal(isotonic(np.sort(line)), np.sort(line))
    # No rising line lies nearer: neither the running maximum nor the running minimum from behind.
    for other in (np.maximum.accumulate(line), np.minimum.accumulate(line[::-1])[::-1]):
        assert ((found - line) ** 2).sum() <= ((other - line) ** 2).sum() + 1e-9


@settings(deadline=None)
@given(st.floats(64, 2**26), st.floats(1.0, 4.0), st.floats(1, 4096), st.floats(7, 65))
def test_a_larger_buffer_never_costs_less(capacity: float, times: float, width: float, node: float) -> None:
    small, large = macro(capacity, width, node), macro(capacity * times, width, node)
    for quantity in ("read_j", "write_j", "leakage_w", "area_mm2"):
        assert getattr(large, quantity) >= getattr(small, quantity) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("node", "kib", "picojoule", "within"),
    [
        (45, 8, 10, 0.45), (45, 32, 20, 0.25), (45, 1024, 100, 0.10),  # Horowitz, ISSCC 2014
        (7, 8, 7.5, 0.05), (7, 32, 8.5, 0.05), (7, 1024, 14, 0.05),  # Jouppi et al., ISCA 2021, Table 2
    ],
)  # fmt: skip
def test_published_accesses(node: float, kib: float, picojoule: float, within: float) -> None:
    assert float(macro(kib * 1024, 64, node).read_j) == pytest.approx(picojoule * 1e-12, rel=within)


def test_leaving_capacities_out_is_interpolated_well() -> None:
    """Midpoints in log capacity lie between their neighbours."""
    for node in (22, 32, 45, 65):
        left, middle, right = (macro(c, 128, node) for c in (2**14, 2**14.5, 2**15))
        assert left.read_j <= middle.read_j <= right.read_j
