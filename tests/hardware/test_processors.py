"""Processors: the shipped ones, a user's file, and the strict reading of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import BadInput
from dse.hardware.processors import (
    PROCESSOR_PARAMETERS,
    check_processor_value,
    load_processor,
    make_processor,
    processor_names,
)


def test_shipped_processors() -> None:
    assert set(processor_names()) >= {
        "titan-xp", "xeon-e5-2640-v4", "jetson-nano", "a100-40gb", "a100-80gb", "h100-sxm", "h200",
    }  # fmt: skip


@pytest.mark.parametrize("name", processor_names())
def test_every_value_of_a_shipped_processor_is_valid_and_sourced(name: str) -> None:
    processor = load_processor(name)
    assert list(processor.entries) == list(processor.values) == list(PROCESSOR_PARAMETERS)
    assert processor.name == name
    assert processor.description
    for key, entry in processor.entries.items():
        assert check_processor_value(name, key, entry.value) == entry.value
        assert entry.source
        assert entry.confidence


@pytest.mark.parametrize("name", processor_names())
def test_what_was_fitted_assumed_or_borrowed_is_not_called_certain(name: str) -> None:
    for key, entry in load_processor(name).entries.items():
        if any(word in entry.source for word in ("fitted", "assumption", "borrowed", "our count")):
            assert entry.confidence.split(",")[0] != "high", (key, entry)
        assert ("fitted" in entry.confidence) == entry.source.startswith("fitted"), (key, entry)


def test_the_cards_of_one_generation_differ_where_their_data_sheets_do() -> None:
    def differing(a: str, b: str) -> set[str]:
        one, two = load_processor(a).values, load_processor(b).values
        return {key for key in one if one[key] != two[key]}

    assert differing("a100-40gb", "a100-80gb") == {"memory_gbps", "memory_gib"}
    assert differing("h100-sxm", "h200") == {"memory_gbps", "memory_gib"}


def test_a_users_file_works_in_place_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('schema = 1\nbase = "h200"\n[processor]\nweight_bits = 8\n', encoding="utf-8")
    mine = load_processor(path)
    assert mine.values == load_processor("h200").values | {"weight_bits": 8}
    assert mine.entries["weight_bits"].source == "the user's file"
    assert mine.entries["power_w"] == load_processor("h200").entries["power_w"]
    assert str(mine) == "mine, 16-bit"
    assert load_processor(str(path)) == mine


def test_values_over_a_processor_keep_the_source_of_those_that_agree() -> None:
    base = load_processor("titan-xp")
    changed = make_processor("here", "x", {"power_w": 250, "launch_us": base["launch_us"]}, base)
    assert changed["power_w"] == 250
    assert changed.entries["power_w"].source == "the space"
    assert changed.entries["launch_us"] == base.entries["launch_us"]
    assert make_processor("here", "titan-xp", base.values).values == base.values
    with pytest.raises(BadInput, match="here: operand_bits: missing; must be an integer from 4 to 64"):
        make_processor("here", "x", {"power_w": 250})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("power_w = 4", "power_w: no such key"),
        ("schema = 2\n[processor]", "schema: found 2; must be 1"),
        ("schema = true\n[processor]", "schema: found True; must be 1"),
        ("schema = 1", "processor: missing"),
        ("schema = 1\ndescription = 3\n[processor]", "description: found 3"),
        ("schema = 1\n[processor]\npower_w = 4", "operand_bits: missing; must be an integer"),
        ('schema = 1\nbase = "titanxp"\n[processor]', "did you mean 'titan-xp'"),
        ("schema = 1\nbase = 3\n[processor]", "base: found 3"),
        (
            'schema = 1\nbase = "h200"\n[processor]\npower = 4',
            "no such processor parameter; did you mean 'power_w'",
        ),
        (
            'schema = 1\nbase = "h200"\n[processor]\npower_w = 0',
            "power_w: found 0; must be a number from 0.001",
        ),
        ('schema = 1\nbase = "h200"\n[processor]\npower_w = nan', "power_w: found nan"),
        ('schema = 1\nbase = "h200"\n[processor]\npower_w = true', "power_w: found True"),
        ('schema = 1\nbase = "h200"\n[processor]\npower_w = "x"', "power_w: found 'x'"),
        (
            'schema = 1\nbase = "h200"\n[processor]\noperand_bits = 8.5',
            "operand_bits: found 8.5; must be an integer",
        ),
        (
            'schema = 1\nbase = "h200"\n[processor]\nrest_memory_efficiency = 1.1',
            "must be a number from 0.0001 to 1",
        ),
        ('schema = 1\nbase = "h200"\n[processor]\npower_w = { valu = 4 }', "did you mean 'value'"),
        ('schema = 1\nbase = "h200"\n[processor]\npower_w = { source = "x" }', "no value"),
        ('schema = 1\nbase = "h200"\n[processor]\npower_w = { value = 4, source = 3 }', "must be text"),
        ("schema = 1\n[processor\n", "not TOML"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load_processor(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bases_may_not_go_in_circles_and_files_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'schema = 1\nbase = "{path}"\n[processor]\n', encoding="utf-8")
    with pytest.raises(BadInput, match="the chain of bases"):
        load_processor(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="is not text"):
        load_processor(path)
