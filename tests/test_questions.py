"""Values that are valid and hardly meant are asked about; usual ones are not; a question decides nothing."""

from __future__ import annotations

from typing import Any

import pytest
from profiles.synthetic import profile

from dse.charts.labels import METRICS as LABELS
from dse.errors import BadInput
from dse.hardware.components import COMPONENTS
from dse.hardware.processors import load_processor, processor_names
from dse.space import Space, load_space, shipped_spaces
from dse.space.definition import Limits
from dse.space.names import METRICS, MORE_IS_BETTER
from dse.space.questions import questions

PROFILE = profile()
TABLE: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "workload": {"profile": "tiny", "context": 128},
    "algorithms": {"beta": {"keep": "all"}},
    "hardware": {"base": "topick"},
}


def read(*overrides: str) -> Space:
    return load_space(TABLE, overrides, profile=PROFILE)


@pytest.mark.parametrize(
    ("override", "question"),
    [
        ("hardware.memory_gib=8192", "memory_gib = 8192 GiB is very much; did you mean 8 (8192 MiB)?"),
        ("hardware.overhead_pj_per_op=1.62e-12", "is very little; did you mean 1.62 (1.62e-12 J)?"),
        ("hardware.dram_channel_gbps=0.5", "dram_channel_gbps = 0.5 GB/s is very little"),
        ("hardware.dram_channel_gbps=[16, 128]", "did you mean 32 on 4 channels?"),
        ("hardware.key_buffer_kib=65536", "did you mean 64 (65536 bytes)?"),
        ("hardware.for.beta.memory_gib=4096", "memory_gib = 4096 GiB is very much"),
        ("constraints.latency_s.max=5", "constraints.latency_s.max = 5 s is very much; did you mean 5e-06 (5 us) or 0.005 (5 ms)?"),
        ("constraints.energy_j.max=20", "did you mean 2e-05 (20 uJ) or 0.02 (20 mJ)?"),
        ("constraints.area_mm2.max=60e-6", "is very little; did you mean 60 (6e-05 m2)?"),
        ("constraints.area_mm2.max=60e6", "is very much; did you mean 60 (60000000 um2)?"),
        ("constraints.power_w.max=5000", "did you mean 5 (5000 mW)"),
        ("constraints.dram_bytes.max=2", "is very little; did you mean 2000000 (2 MB)"),
        ("components.multiply_8_pj=2e-4", "the shipped value is 0.2; did you mean 0.2 (0.0002 nJ)?"),
        ('baseline={ processor = "h200", parameters.power_w = 400000 }', "did you mean 400 (400000 mW) or"),
        ('baseline={ processor = "h200", parameters.launch_us = 4e-6 }', "did you mean 4 (4e-06 s)"),
        ('objectives.minimize=["speedup", "nll_increase"]', "speedup is minimised, though more of it is better"),
        ('objectives.maximize=["latency_s", "speedup"]', "latency_s is maximised, though less of it is better"),
    ],
)  # fmt: skip
def test_what_is_asked(override: str, question: str) -> None:
    asked = set(read(override).notes) - set(read().notes)
    assert len(asked) == 1
    assert question in asked.pop()


@pytest.mark.parametrize(
    "override",
    [
        "hardware.memory_gib=0", "hardware.memory_gib=16", "hardware.overhead_pj_per_op=0", "hardware.dram_channel_gbps=0",
        "hardware.dram_channel_gbps=32", "constraints.latency_s.max=5e-6", "constraints.area_mm2.max=60",
        "constraints.power_w.max=5", "constraints.speedup.min=1e6", "constraints.tokens_per_s.min=1e6",
        "components.multiply_8_pj=0.4", "components.multiply_8_pj=0", 'objectives.minimize=["latency_s", "nll_increase"]',
        'objectives.maximize=["batch", "speedup"]', 'baseline.processor="h200"', 'baseline.processor="titan-xp"', "constraints.latency_s.min=0",
    ],
)  # fmt: skip
def test_what_is_not(override: str) -> None:
    assert read(override).notes == read().notes


def test_every_shipped_processor_is_as_one_would_mean_it() -> None:
    for name in processor_names():
        assert questions({}, {}, {}, {}, {}, load_processor(name)) == (), name


def test_no_shipped_space_is_asked_about() -> None:
    for name in shipped_spaces():
        assert all(
            "did you mean" not in note and " is very " not in note for note in load_space(name).notes
        ), name


def test_every_unit_of_constants_is_asked_about_without_an_error() -> None:
    for name, row in COMPONENTS.items():
        for factor in (1e-3, 1e3, 1e-6, 1e6):
            for text in questions({}, {}, {}, {}, {name: row.value * factor}):
                assert text.startswith(f"components.{name} = ")


def test_a_limit_is_asked_about_by_its_unit_alone() -> None:
    for metric in METRICS:
        for value in (1e-30, 1e30):
            for end in ("low", "high"):
                for text in questions({}, {}, {}, {metric: Limits(**{end: value})}, {}):
                    assert text.startswith(f"constraints.{metric}.{'min' if end == 'low' else 'max'} = ")


def test_directions_are_those_of_the_charts() -> None:
    for metric in METRICS:
        if LABELS[metric].larger_is_better is not None:
            assert LABELS[metric].larger_is_better is (metric in MORE_IS_BETTER), metric


def test_bytes_come_whole() -> None:
    for value in ("0.00032", "31.5"):
        with pytest.raises(
            BadInput, match=r"components\.hbm2_atom_bytes: found .* whole number of bytes from 1"
        ):
            read(f"components.hbm2_atom_bytes={value}")


@pytest.mark.parametrize(("name", "word"), [("hbm2_ports", "ports"), ("ddr4_groups", "bank groups")])
def test_what_is_counted_comes_whole(name: str, word: str) -> None:
    """Half a port has no unevenness: its times would be no numbers, and its points would be gone."""
    for value in ("0.5", "1.5"):
        with pytest.raises(BadInput, match=rf"components\.{name}: found .* whole number of {word} from 1"):
            read(f"components.{name}={value}")
    assert read(f"components.{name}=1").components[name] == 1.0


def test_a_reference_alone_leaves_the_objectives_as_they_are() -> None:
    space = read("objectives.reference.speedup=0.5")
    assert dict(space.objectives) == dict(read().objectives)
    assert space.reference == {"speedup": 0.5}
