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


def test_every_kind_is_drawn_from_a_run(dse: Dse, swept: Path, tmp_path: Path) -> None:
    for kind, *options in (
        ("breakdown", "--budget", "0.1"), ("roofline", "--budget", "0.1"), ("dram",), ("parallel",),
        ("knobs", "--algorithm", "token-picker"), ("waterfall", "--budget", "0.1", "--algorithm", "spatten"),
    ):  # fmt: skip
        answer = dse(
            "plot", RUN, "--kind", kind, *options, "-o", tmp_path / f"{kind}.svg", "--json", cwd=swept
        )
        assert answer.code == 0, (kind, answer.stderr)
        assert answer.json["kind"] == kind
        assert (tmp_path / f"{kind}.svg").stat().st_size > 5000


def test_a_map_of_winners_sweeps_the_space(dse: Dse, home: Path) -> None:
    over = ("--over", "workload.batch=1,4", "--over", "hardware.dram=hbm2,lpddr5")
    answer = dse(
        "plot", "tiny.toml", "-k", "winner", *over, "--budget", "0.1", "--json", "-o", "map.svg", cwd=home
    )
    assert [(c["x"], c["y"]) for c in answer.json["cells"]] == [
        ("1", "hbm2"), ("1", "lpddr5"), ("4", "hbm2"), ("4", "lpddr5"),
    ]  # fmt: skip
    assert "batch (sequences)" in (home / "map.svg").read_text()


def test_the_cloud_holds_every_point_that_fits(dse: Dse, swept: Path, tmp_path: Path) -> None:
    answer = dse("plot", RUN, "--cloud", "-o", tmp_path / "cloud.svg", cwd=swept)
    assert answer.code == 0
    assert "points, darker: more" in (tmp_path / "cloud.svg").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-k", "winner"), "name one or two axes"),
        (("-k", "pie"), "pie"),
        (("--width", "wide"), "must be column, page, or 2 to 20 inches"),
        (("--style", "papr"), "did you mean 'paper'"),
        (("-k", "breakdown", "--point", "nonsense"), "no point 'nonsense'"),
        (("-k", "knobs", "--algorithm", "token-piker"), "did you mean 'token-picker'"),
        (("--cloud", "-x", "hardware.lanes"), "not known of every point"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    dse: Dse, swept: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    answer = dse("plot", RUN, *options, "-o", tmp_path / "x.svg", cwd=swept)
    assert answer.code == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "x.svg").exists()


def test_a_budget_that_no_point_keeps_is_said_in_one_line(dse: Dse, home: Path) -> None:
    lossy = [f"algorithms.dense.{knob}=[4, 6]" for knob in ("k_bits", "v_bits")]
    dse("sweep", "tiny.toml", "--set", lossy[0], "--set", lossy[1], "-o", RUN, cwd=home)
    answer = dse("plot", RUN, "-k", "breakdown", "--budget", "0", "-o", "x.svg", cwd=home)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert "raise --budget or give --point" in answer.stderr
    assert not (home / "x.svg").exists()
