"""Presets and the strict reading of hardware values."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import BadInput
from dse.hardware.dram import device_rows
from dse.hardware.parameters import PARAMETERS, check_design, check_value
from dse.hardware.presets import load_preset, preset_names, read_preset


def test_shipped_presets() -> None:
    assert set(preset_names()) >= {"topick", "topick-gqa", "spatten", "dense-array"}


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_complete_and_sourced(name: str) -> None:
    preset = read_preset(name)
    assert list(preset.design) == list(PARAMETERS)
    assert check_design(name, preset.design) == preset.design
    assert preset.description
    for entry in preset.entries.values():
        assert entry.source
        assert entry.confidence


def test_topick_matches_bandwidth_with_lanes() -> None:
    """512 bytes per cycle of DRAM feed 16 lanes of 64 elements of 4 bit."""
    d = load_preset("topick")
    assert d["dram_channel_gbps"] == 0
    channel_gbps = float(device_rows()[str(d["dram"])]["channel_gbps"])
    per_cycle = float(d["dram_channels"]) * channel_gbps / float(d["clock_ghz"])
    assert per_cycle == 512
    assert float(d["lanes"]) * float(d["multipliers"]) * float(d["multiplier_bits"]) / 8 == per_cycle


@pytest.mark.parametrize("name", preset_names())
def test_presets_leave_the_bandwidth_of_a_channel_to_the_device(name: str) -> None:
    """So that an axis over `dram` does not give LPDDR5 the channels of HBM2."""
    assert load_preset(name)["dram_channel_gbps"] == 0


def test_gqa_preset_only_widens_what_a_query_group_needs() -> None:
    one, three = load_preset("topick"), load_preset("topick-gqa")
    changed = {name: (one[name], three[name]) for name in one if one[name] != three[name]}
    assert set(changed) == {"lanes", "exponent_units", "select_comparators", "accumulators"}
    assert all(wide == 3 * narrow for narrow, wide in changed.values())  # type: ignore[operator]


def test_a_users_file_works_in_place_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('schema = 1\nbase = "topick"\n[design]\nlanes = 4\n', encoding="utf-8")
    assert load_preset(path) == load_preset("topick") | {"lanes": 4}
    assert load_preset(str(path)) == load_preset(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lanes = 4", "lanes: no such key"),
        ("schema = 2\n[design]", "schema: found 2; must be 1"),
        ("schema = 1", "design: missing"),
        ("schema = 1\n[design]\nlanes = 4", "missing; must be"),
        ('schema = 1\nbase = "topik"\n[design]', "did you mean 'topick'"),
        (
            'schema = 1\nbase = "topick"\n[design]\nlane = 4',
            "lane: no such hardware parameter; did you mean 'lanes'",
        ),
        (
            'schema = 1\nbase = "topick"\n[design]\nlanes = 0',
            "lanes: found 0; must be an integer from 1 to 4096",
        ),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = 2.5', "lanes: found 2.5"),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = true', "lanes: found True"),
        ('schema = 1\nbase = "topick"\n[design]\nclock_ghz = nan', "clock_ghz: found nan"),
        ('schema = 1\nbase = "topick"\n[design]\ndram = "hbm22"', "did you mean 'hbm2'"),
        ('schema = 1\nbase = "topick"\n[design]\ndram = 3', "dram: found 3; must be one of"),
        ('schema = 1\nbase = "topick"\n[design]\ndram_channels = 12', "a power of two"),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = { valu = 4 }', "did you mean 'value'"),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = { source = "x" }', "has no value"),
        ("schema = 1\n[design\n", "not TOML"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load_preset(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bases_may_not_go_in_circles(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'schema = 1\nbase = "{path}"\n[design]\n', encoding="utf-8")
    with pytest.raises(BadInput, match="base"):
        load_preset(path)


def test_zero_has_a_meaning_only_where_it_is_stated() -> None:
    assert check_value("x", "value_lanes", 0) == 0
    assert check_value("x", "dram_channel_gbps", 0) == 0.0
    with pytest.raises(BadInput):
        check_value("x", "lanes", 0)
