from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Dse

RUN = "results/tiny"


def test_without_options_the_chart_of_the_sweep_is_drawn_again(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    chart = home / RUN / "front.png"
    drawn = chart.read_bytes()
    chart.unlink()
    assert dse("plot", RUN, cwd=home).stdout == f"{RUN}/front.png\n"
    assert chart.read_bytes() == drawn


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_format_follows_the_suffix(dse: Dse, swept: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"chart.{suffix}"
    answer = dse("plot", RUN, "-o", path, "--json", cwd=swept)
    assert answer.json["chart"] == str(path)
    assert path.stat().st_size > 5000


def test_several_runs_in_one_chart(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    dse("sweep", "tiny.toml", "--set", "hardware.lanes=24", "-o", "results/narrow", cwd=home)
    assert dse("plot", RUN, "results/narrow", "-o", "both.svg", cwd=home).code == 0
    text = (home / "both.svg").read_text()
    assert "run: tiny" in text
    assert "run: narrow" in text


def test_axes_and_colour_by_name(dse: Dse, swept: Path, tmp_path: Path) -> None:
    answer = dse("plot", RUN, "-x", "area_mm2", "-y", "energy_j", "--colour", "nll_increase",
                 "--title", "mine", "-o", tmp_path / "a.svg", cwd=swept)  # fmt: skip
    assert answer.code == 0
    text = (tmp_path / "a.svg").read_text()
    for expected in (
        "area without DRAM (mm²)",
        "attention energy (µJ)",
        "accuracy loss (nats per token)",
        "mine",
    ):
        assert expected in text


def test_runs_with_different_baselines_are_not_compared_silently(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    dse(
        "sweep",
        "tiny.toml",
        "--set",
        "baseline.k_bits=8",
        "--set",
        "baseline.v_bits=8",
        "-o",
        "other",
        cwd=home,
    )
    answer = dse("plot", RUN, "other", "-o", "both.svg", cwd=home)
    assert "different baselines" in answer.stderr
    text = (home / "both.svg").read_text()
    assert "over dense, 12-bit, on topick-gqa" in text
    assert "over dense, 8-bit, on topick-gqa" in text
