from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from abuse.pacing import undrawn

from cli.conftest import TINY, Dse
from dse.cli import main
from dse.cli.environment import Environment
from dse.hardware.parameters import PARAMETERS
from dse.profiles.store import read_profile, write_profile
from dse.results import read_run

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
        "energy (µJ)",
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


def test_baselines_differ_in_what_the_ratio_that_is_drawn_is_over(
    dse: Dse, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.cli.sweep._draw", undrawn)
    for watts in (100, 200):  # as fast, and not as frugal
        processor = ("--set", "baseline.processor=titan-xp", "--set", f"baseline.parameters.power_w={watts}")
        assert dse("sweep", "tiny.toml", *processor, "-o", f"at-{watts}", cwd=home).code == 0
    for metric, told in (("energy_saving", True), ("speedup", False)):
        answer = dse("plot", "at-100", "at-200", "-y", metric, "-o", "both.svg", cwd=home)
        assert answer.code == 0
        assert ("different baselines" in answer.stderr) == told, metric


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


@pytest.mark.parametrize("workload", [{"scope": "model"}, {"batch": "max"}])
def test_a_waterfall_ends_in_ratios_of_the_front(
    dse: Dse, home: Path, monkeypatch: pytest.MonkeyPatch, workload: dict[str, str]
) -> None:
    monkeypatch.setattr("dse.cli.sweep._draw", undrawn)
    given = [word for key, value in workload.items() for word in ("--set", f"workload.{key}={value}")]
    assert dse("sweep", "tiny.toml", *given, "-o", "run", cwd=home).code == 0
    asked = ("--kind", "waterfall", "--algorithm", "token-picker", "--budget", 0.1, "-o", "w.svg", "--json")
    steps = {step["name"]: step["gain"] for step in dse("plot", "run", *asked, cwd=home).json["steps"]}
    front = read_run(home / "run").front
    within = front[front["nll_increase"] <= 0.1]
    best = {name: rows.loc[rows["speedup"].idxmax()] for name, rows in within.groupby("algorithm")}
    mine, dense = best["token-picker"], best["dense"]
    end_to_end = float(mine["speedup_end_to_end"] / dense["speedup_end_to_end"])
    assert steps["of a whole step"] == pytest.approx(end_to_end, rel=1e-9)
    assert steps["over the best dense"] == pytest.approx(float(mine["speedup"] / dense["speedup"]), rel=1e-9)
    # On its own machine at 8 bits, by the sequence: dense attention fits as many as its rows are narrow.
    knobs = ("--set", "dense.k_bits=8", "--set", "dense.v_bits=8", "--set", "dense.scale=token")
    machine = [
        word
        for name in PARAMETERS
        for word in ("--set", f"hardware.{name}={json.dumps(mine[f'hardware.{name}'], default=float)}")
    ]
    wide = dse("explain", "run", *knobs, *machine, "--json", cwd=home).json["metrics"]
    pace = [m["latency_s"] / m["batch"] for m in (wide, mine)]
    assert steps["over 8-bit dense"] == pytest.approx(float(pace[0] / pace[1]), rel=1e-9)


def test_points_that_move_no_bytes_have_no_place_under_the_roofs(
    dse: Dse, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.cli.sweep._draw", undrawn)
    buffers = ("--set", "hardware.key_buffer_kib=4096", "--set", "hardware.value_buffer_kib=4096")
    given = (*buffers, "--set", 'hardware.residence=["dram", "buffers"]', "--set", "hardware.lanes=48")
    goals = (
        "--set",
        'objectives.maximize=["speedup"]',
        "--set",
        'objectives.minimize=["nll_increase", "area_mm2"]',
    )
    answer = dse("sweep", "tiny.toml", *given, *goals, "-o", "run", cwd=home)
    assert answer.code == 0
    assert "divide" not in answer.stderr
    front = read_run(home / "run").front
    still = front["dram_bytes"] == 0
    assert still.sum() > 0
    assert front["dram_reduction"].isna().tolist() == still.tolist()
    point = front["point"][still].iloc[0]
    answer = dse("plot", "run", "--kind", "roofline", "--point", point, "-o", "r.svg", cwd=home)
    assert answer.code == 2
    assert "their keys and values lie in the buffers" in answer.stderr
    assert dse("explain", "run", point, cwd=home).code == 0


def test_a_map_of_winners_sweeps_the_space(dse: Dse, home: Path) -> None:
    over = ("--over", "workload.batch=1,4", "--over", "hardware.dram=hbm2,lpddr5")
    answer = dse(
        "plot", "tiny.toml", "-k", "winner", *over, "--budget", "0.1", "--json", "-o", "map.svg", cwd=home
    )
    assert [(c["x"], c["y"]) for c in answer.json["cells"]] == [
        ("1", "hbm2"), ("1", "lpddr5"), ("4", "hbm2"), ("4", "lpddr5"),
    ]  # fmt: skip
    assert "batch (sequences)" in (home / "map.svg").read_text()


def test_a_map_of_runs_needs_one_value_of_its_keys_in_each(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", "-o", "both", cwd=home)  # lanes are an axis
    for lanes in (24, 48):
        for batch in (1, 4):
            more = ("--set", f"hardware.lanes={lanes}", "--set", f"workload.batch={batch}")
            assert dse("sweep", "tiny.toml", *more, "-o", f"at-{lanes}-{batch}", cwd=home).code == 0

    def refused(*arguments: str) -> str:
        answer = dse("plot", "-k", "winner", "-o", "map.svg", *arguments, cwd=home)
        assert answer.code == 2
        assert answer.stderr.count("\n") == 1
        return answer.stderr

    runs = ("at-24-1", "at-48-1", "at-24-4", "at-48-4")
    assert "differ in no entry of workload or hardware that has one value" in refused("both", "at-24-1")
    assert "hardware.lanes: both has [24, 48]" in refused("both", "at-24-1", "--over", "hardware.lanes")
    assert "write --over KEY" in refused(*runs, "--over", "hardware.lanes=24,48")
    more = ("workload.batch", "hardware.lanes", "workload.context")
    assert "write --over KEY" in refused(*runs, *(word for key in more for word in ("--over", key)))
    assert dse("plot", *runs, "-k", "winner", "--budget", "0.1", "-o", "map.svg", cwd=home).code == 0


def test_one_algorithm_beside_dense(dse: Dse, swept: Path, tmp_path: Path) -> None:
    answer = dse("plot", RUN, "--algorithm", "spatten", "-o", tmp_path / "a.svg", cwd=swept)
    assert answer.code == 0
    text = (tmp_path / "a.svg").read_text()
    assert "dense (the rival)" in text
    assert "spatten" in text
    assert "token-picker" not in text
    answer = dse("plot", RUN, "--algorithm", "spaten", "-o", tmp_path / "b.svg", cwd=swept)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert "did you mean 'spatten'" in answer.stderr


def test_runs_of_other_workloads_say_which(dse: Dse, home: Path) -> None:
    dse("sweep", "tiny.toml", cwd=home)
    dse("sweep", "tiny.toml", "--set", "workload.batch=4", "-o", "four", cwd=home)
    answer = dse("plot", RUN, "four", "-o", "both.svg", cwd=home)
    assert "different baselines" in answer.stderr
    text = " ".join(re.findall(r"<(?:text|tspan)[^>]*>([^<]+)", (home / "both.svg").read_text()))
    assert "decode, context 1024, batch 4, attention alone" in text
    assert "no better than dense in tiny" in text
    assert "over dense, 12-bit" not in text, "the common title has the baseline"


def test_a_map_takes_whatever_contexts_the_profile_has(dse: Dse, home: Path) -> None:
    over = ("--over", "workload.context=all", "--over", "workload.grouped=all")
    answer = dse(
        "plot", "tiny.toml", "-k", "winner", *over, "--budget", "0.1", "--json", "-o", "m.svg", cwd=home
    )
    assert [(c["x"], c["y"]) for c in answer.json["cells"]] == [("1024", "true"), ("1024", "false")]
    assert all(c["low"] <= c["gain"] <= c["high"] for c in answer.json["cells"])
    text = " ".join(re.findall(r"<(?:text|tspan)[^>]*>([^<]+)", (home / "m.svg").read_text()))
    for expected in ("keys and values", "shared by the", "one each", "context (tokens)"):
        assert expected in text
    assert "context 1024" not in text, "what is on an axis is not in the title"


def test_an_algorithm_that_was_not_measured_is_left_out_of_a_map_and_said(
    dse: Dse, home: Path, made_profile: Path
) -> None:
    profile = read_profile(made_profile)
    losses = profile.accuracy.copy()
    losses[profile.rows("spatten")] = np.nan
    write_profile(home / "tiny.npz", replace(profile, accuracy=losses))
    answer = dse("plot", "tiny.toml", "-k", "winner", "--over", "workload.batch=1,2", "-o", "m.svg", cwd=home)
    assert answer.code == 0, answer.stderr
    assert "note: batch 2: spatten not measured, left out" in answer.stderr


def test_a_space_nested_too_deeply_is_no_map(dse: Dse, home: Path) -> None:
    (home / "deep.toml").write_text("x = " + "[" * 6000)
    over = ("--over", "workload.batch=1,2")
    answer = dse("plot", "deep.toml", "--kind", "winner", *over, "-o", "m.svg", cwd=home)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert "nested too deeply" in answer.stderr


def test_an_axis_of_a_map_is_not_set_too(dse: Dse, home: Path) -> None:
    more = ("--set", "workload.batch=4", "--over", "workload.batch=1,2")
    answer = dse("plot", "tiny.toml", "--kind", "winner", *more, "-o", "m.svg", cwd=home)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert "--over workload.batch: is given by --set too" in answer.stderr


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("name=a,b", "--over name=a,b: no axis; must be a key of one of workload, "),
        ("schema=1,2", "--over schema=1,2: no axis"),
        ("hardware=1,2", "--over hardware=1,2: no axis"),
        ("hardware.lames=1,2", "--over hardware.lames: unknown key; did you mean 'lanes'?"),
        ("workload.batch=0,1", "--over workload.batch: found 0; must be"),
        ("workload.batch=nan,1", "--over workload.batch: found nan; numbers must be finite"),
    ],
)
def test_an_axis_of_a_map_decides_something_and_is_named_as_it_was_typed(
    dse: Dse, home: Path, over: str, says: str
) -> None:
    answer = dse("plot", "tiny.toml", "--kind", "winner", "--over", over, "-o", "m.svg", cwd=home)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert f"error: {says}" in answer.stderr


def test_a_map_finds_base_and_profile_beside_its_space(dse: Dse, home: Path, made_profile: Path) -> None:
    """Also where an algorithm is left out, which was not measured."""
    profile = read_profile(made_profile)
    losses = profile.accuracy.copy()
    losses[profile.rows("spatten")] = np.nan
    folder = home / "sub"
    folder.mkdir()
    text = (home / "tiny.toml").read_text().replace('"topick-gqa"', '"own.toml"')
    (folder / "tiny.toml").write_text(text)
    (folder / "own.toml").write_text('schema = 1\nbase = "topick-gqa"\n[design]\nclock_ghz = 0.5\n')
    (home / "tiny.npz").unlink()
    write_profile(folder / "tiny.npz", replace(profile, accuracy=losses))
    words = ("plot", "sub/tiny.toml", "-k", "winner", "--over", "workload.batch=1,2", "-o", "m.svg")
    answer = dse(*words, cwd=home)
    assert answer.code == 0, answer.stderr
    assert "spatten not measured, left out" in answer.stderr


def test_a_map_takes_the_profile_that_its_space_would(dse: Dse, home: Path, made_profile: Path) -> None:
    """Of two that differ neither, also where an algorithm is left out that one of them lacks."""
    profile = read_profile(made_profile)
    losses = profile.accuracy.copy()
    losses[profile.rows("spatten")] = np.nan
    folder = home / "colleague"
    folder.mkdir()
    shutil.copy(home / "tiny.toml", folder)
    write_profile(folder / "tiny.npz", replace(profile, accuracy=losses))
    words = ("plot", "colleague/tiny.toml", "-k", "winner", "--over", "workload.batch=1,2", "-o", "m.svg")
    answer = dse(*words, cwd=home)
    assert answer.code == 2
    assert "there is one here and another beside the file" in answer.stderr
    (home / "tiny.npz").unlink()
    answer = dse(*words, cwd=home)
    assert answer.code == 0, answer.stderr
    assert "spatten not measured, left out" in answer.stderr


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory, made_profile: Path) -> Path:
    """A directory with a sweep of `tiny.toml` and a study of it; for tests that only read."""
    folder = tmp_path_factory.mktemp("studied")
    shutil.copy(made_profile, folder / "tiny.npz")
    larger = TINY.replace("lanes = [24, 48]", "lanes = [12, 24, 48]")
    (folder / "tiny.toml").write_text(larger, encoding="utf-8")
    with contextlib.chdir(folder):
        for words in (
            ("sweep", "tiny.toml"),
            ("study", "tiny.toml", "--trials", "70", "--sampler", "random"),
        ):
            assert main([*words, "--json"], Environment(io.StringIO(), io.StringIO())) == 0
    return folder


def test_a_study_grows_to_its_stated_hypervolume(dse: Dse, studied: Path, tmp_path: Path) -> None:
    study = f"{RUN}-study"
    info = json.loads((studied / study / "run.json").read_text())
    for x in ("trials", "seconds"):
        answer = dse(
            "plot", study, "-k", "hypervolume", "-x", x, "-o", tmp_path / "h.svg", "--json", cwd=studied
        )
        assert answer.code == 0, answer.stderr
        (line,) = answer.json["studies"]
        assert line["trials"] == info["trials"] == 70
        assert line["hypervolume"] == pytest.approx(info["hypervolume"], rel=1e-12)
        assert answer.json["reference_point"] == pytest.approx(info["reference_point"])


def test_no_study_beats_the_exact_front(dse: Dse, studied: Path, tmp_path: Path) -> None:
    answer = dse(
        "plot", f"{RUN}-study", RUN, "-k", "hypervolume", "-o", tmp_path / "h.svg", "--json", cwd=studied
    )
    (line,) = answer.json["studies"]
    assert 0 < line["hypervolume"] <= answer.json["exact"]["tiny"] * (1 + 1e-12)
    assert "of the exact front" in (tmp_path / "h.svg").read_text()


@pytest.mark.parametrize("run", [RUN, f"{RUN}-study"])
def test_importance_of_a_sweep_and_of_a_study(dse: Dse, studied: Path, tmp_path: Path, run: str) -> None:
    answer = dse("plot", run, "-k", "importance", "-o", tmp_path / "i.svg", "--json", cwd=studied)
    assert answer.code == 0, answer.stderr
    assert set(answer.json["importance"]) == {"front", "speedup", "nll_increase"}
    for shares in answer.json["importance"].values():
        assert sum(shares.values()) == pytest.approx(1)
    words = " ".join(re.findall(r"<(?:text|tspan)[^>]*>([^<]+)", (tmp_path / "i.svg").read_text()))
    assert "PED-ANOVA" in words
    assert ("trials of the study (random)" if run.endswith("study") else "drawn at random") in words


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ((RUN,), ("-k", "hypervolume"), "no study among the runs"),
        ((f"{RUN}-study",), ("-k", "hypervolume", "-x", "trial"), "did you mean 'trials'"),
        ((f"{RUN}-study", RUN), ("-k", "importance"), "needs exactly one run; found 2"),
        ((RUN,), ("-k", "importance", "--samples", "20"), "at least 50 are needed"),
        ((RUN,), ("-k", "winner", "--over", "workload.batch=all"), "not to be counted"),
    ],
)
def test_a_search_that_cannot_be_drawn_is_said_in_one_line(
    dse: Dse, studied: Path, tmp_path: Path, runs: tuple[str, ...], options: tuple[str, ...], message: str
) -> None:
    answer = dse("plot", *runs, *options, "-o", tmp_path / "x.svg", cwd=studied)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert message in answer.stderr
    assert not (tmp_path / "x.svg").exists()


def test_a_damaged_table_of_trials_is_said_in_one_line(dse: Dse, studied: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(studied / f"{RUN}-study", study)
    (study / "trials.csv").write_text("trial,algorithm\n0,dense\n")
    answer = dse("plot", study, "-k", "hypervolume", "-o", tmp_path / "x.svg", cwd=studied)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert "no column 'feasible'" in answer.stderr
    (study / "journal.log").unlink(missing_ok=True)


def test_published_points_are_told_apart_from_none(dse: Dse, swept: Path, tmp_path: Path) -> None:
    answer = dse("plot", RUN, "--published", "-o", tmp_path / "p.svg", cwd=swept)
    assert (
        "no published point of these algorithms has these axes; there are some for speedup_same_hardware"
        in answer.stderr
    )
    answer = dse(
        "plot", RUN, "--published", "-y", "speedup_same_hardware", "-o", tmp_path / "p.svg", cwd=swept
    )
    assert (answer.code, answer.stderr) == (0, "")
    assert "published: token-picker 2.28 x" in (tmp_path / "p.svg").read_text()


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
        (("-k", "knobs", "--set", "context=77"), "the profile holds"),
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


def test_curves_of_a_second_knob_are_of_one_context(dse: Dse, tmp_path: Path) -> None:
    """The shipped profile has three contexts: every combination would be nine curves in eight colours."""
    arguments = ("plot", "smollm2-135m", "-k", "knobs", "--algorithm", "token-picker", "--json", "-o")

    def names(*more: str) -> list[str]:
        series = dse(*arguments, str(tmp_path / "k.png"), *more).json["series"]
        return [one["name"] for one in series]

    assert {name.partition("context ")[2] for name in names()} == {"256", "512", "1024"}
    assert {name.partition("context ")[2] for name in names("--by", "chunks")} == {"1024"}
    assert {name.partition("context ")[2] for name in names("--by", "chunks", "--set", "context=512")} == {
        "512"
    }
