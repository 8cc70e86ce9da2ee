from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.hardware.components import COMPONENTS, FACTOR, check_constant
from dse.hardware.parameters import PARAMETERS, check_value
from dse.hardware.units import MISTAKEN, meant, question


@pytest.mark.parametrize(
    ("name", "value", "asked"),
    [
        ("clock_ghz", 1e9, "did you mean 1 (1e+09 Hz)?"),
        ("clock_ghz", 500, "did you mean 0.5 (500 MHz)?"),
        ("dram_channel_gbps", 512, "did you mean 32 (512 GB/s over 16 channels)?"),
        ("dram_channel_gbps", 512e9, "did you mean 32 (5.12e+11 B/s over 16 channels)?"),
        ("dram_channel_gbps", 32e9, "did you mean 32 (3.2e+10 B/s)?"),
        ("key_buffer_kib", 196608, "did you mean 192 (196608 bytes)?"),
        ("memory_gib", 8 << 30, "did you mean 8 (8.58993459e+09 bytes)?"),
        ("node_nm", 0.045, "did you mean 45 (0.045 um)?"),
    ],
)
def test_a_unit_that_was_mistaken_is_asked_for(name: str, value: float, asked: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_value("a.toml", name, value)
    assert str(caught.value).endswith(asked)


@given(st.sampled_from(sorted(MISTAKEN)), st.floats(1e-6, 1e6), st.floats(1.5, 100), st.floats(1e-12, 1e12))
def test_what_is_asked_for_lies_in_range(unit: str, low: float, span: float, value: float) -> None:
    text = meant(unit, value, low, low * span)
    assert not text or not low <= value <= low * span
    if text:
        right = float(text.partition("mean ")[2].partition(" ")[0])
        assert low * (1 - 1e-6) <= right <= low * span * (1 + 1e-6)


def test_no_usual_value_is_questioned() -> None:
    assert question("key_buffer_kib", "KiB", 196) == ""
    assert question("key_buffer_kib", "KiB", 65536).endswith("did you mean 64 (65536 bytes)?")
    assert question("dram_channel_gbps", "GB/s", 32) == ""
    assert question("dram_channel_gbps", "GB/s", 128).endswith("did you mean 32 on 4 channels?")
    assert question("lanes", PARAMETERS["lanes"].unit, 4096) == ""


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_every_shipped_constant_is_its_own_right_value(name: str) -> None:
    value = COMPONENTS[name].value
    assert check_constant("a", name, value) == value
    if value and not name.endswith("_power"):
        for wrong in (value * FACTOR * 1.01, value / FACTOR / 1.01):
            with pytest.raises(BadInput, match="the shipped value is"):
                check_constant("a", name, wrong)
