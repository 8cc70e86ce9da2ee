"""Batches as large as fit, the whole model, and prompts: what a workload may ask for beside one decode step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles.synthetic import profile

from dse.cost.price import price
from dse.cost.statistics import statistics_from
from dse.errors import BadInput, DseError
from dse.profiles.lookup import select
from dse.profiles.store import write_profile
from dse.results import read_run, write_run
from dse.search import sweep as sweeping
from dse.search.evaluate import evaluate
from dse.search.sweep import CLASSES, sweep
from dse.space import Space, load_space, parse_resolved
from search.tiny_prefill import CONTEXT, prefill_profile

PROFILE = profile()
TABLE: dict[str, Any] = {
    "schema": 1,
    "name": "work",
    "workload": {"profile": "tiny", "context": 128},
    "algorithms": {"dense": {"k_bits": [4, 8, 12], "v_bits": [4, 8, 12]}, "beta": {"keep": "all"}},
    "hardware": {"base": "topick", "lanes": [4, 16], "memory_gib": [0.0002, 0.0004]},
}


def space_of(*overrides: str) -> Space:
    return load_space(TABLE, overrides, profile=PROFILE)


@pytest.mark.parametrize("scope", ["attention", "model"])
def test_with_the_largest_batch_ratios_go_by_the_token(scope: str) -> None:
    result = sweep(
        space_of("workload.batch=max", f"workload.scope={scope}", "baseline.hardware.memory_gib=0.0001")
    )
    front, base = result.front, result.info["baseline"]
    assert front["batch"].nunique() > 1
    assert (front["batch"] == front["batch_limit"]).all()
    assert (front["memory_fill"] <= 1).all()
    assert (front["memory_fill"] > 0.5).all()
    assert base["batch"] != front["batch"].iloc[0]
    theirs = base["batch"] / base["latency_s"]
    assert (front["tokens_per_s"] / theirs).to_numpy() == pytest.approx(front["speedup"].to_numpy())
    each = base["energy_j"] / base["batch"]
    assert (each / (front["energy_j"] / front["batch"])).to_numpy() == pytest.approx(
        front["energy_saving"].to_numpy()
    )
    whole = front["batch"] / (front["attention_s"] + front["rest_s"])
    model = base["batch"] / (base["attention_s"] + base["rest_s"])
    assert (whole / model).to_numpy() == pytest.approx(front["speedup_end_to_end"].to_numpy())
    share = front["attention_s"] / (front["attention_s"] + front["rest_s"])
    assert front["attention_share"].to_numpy() == pytest.approx(share.to_numpy())
    if scope == "model":
        assert front["speedup"].to_numpy() == pytest.approx(front["speedup_end_to_end"].to_numpy())
    # A rival's step counts by the sequence too.
    dense = front[(front["algorithm"] == "dense")]
    for _, row in front[front["best_dense_as_accurate"]].iterrows():
        rivals = dense[dense["nll_increase"] <= row["nll_increase"]]
        best = (rivals["tokens_per_s"]).max()
        assert row["speedup_best_dense"] == pytest.approx(row["tokens_per_s"] / best)


def test_throughput_may_be_an_objective() -> None:
    change = 'objectives={ maximize = ["tokens_per_s"], minimize = ["nll_increase"] }'
    front = sweep(space_of("workload.batch=max", change)).front
    usual = sweep(space_of("workload.batch=max")).front
    assert front["point"].tolist() == usual["point"].tolist()


def test_the_whole_model_is_end_to_end_by_itself() -> None:
    apart, whole = (
        sweep(space_of(f"workload.scope={s}", "workload.batch=4")).front for s in ("attention", "model")
    )
    assert whole["speedup"].to_numpy() == pytest.approx(whole["speedup_end_to_end"].to_numpy())
    common = apart.merge(
        whole, on=[c for c in apart if c.startswith(("hardware.", "dense.", "beta."))] + ["algorithm"]
    )
    assert len(common)
    for name in ("speedup_end_to_end", "attention_share", "attention_s"):
        assert common[f"{name}_x"].to_numpy() == pytest.approx(common[f"{name}_y"].to_numpy()), name


def test_a_batch_that_does_not_fit_is_infeasible() -> None:
    space = space_of("workload.batch=24")
    result = sweep(space)
    assert 0 < result.info["infeasible_by"]["memory_fill"] < space.size
    assert (result.front["memory_fill"] <= 1).all()
    small = {"algorithm": "dense", "dense.k_bits": 12, "dense.v_bits": 12, "hardware.memory_gib": 0.0001}
    large = {**small, "hardware.memory_gib": 1.0}
    assert evaluate(space, [small, large])["feasible"].tolist() == [False, True]
    with pytest.raises(DseError, match=r"none of 48 points .* memory_fill by 48 points; .* above max 1"):
        sweep(space_of("workload.batch=100000"))
    # A limit of one's own may be tighter, never looser.
    tight = sweep(space_of("workload.batch=4", "constraints.memory_fill.max=0.3"))
    assert tight.front["memory_fill"].max() <= 0.3
    loose = sweep(space_of("workload.batch=24", "constraints.memory_fill.max=7"))
    assert loose.front["memory_fill"].max() <= 1


def test_the_words_of_a_workload_are_checked() -> None:
    for change, message in (
        ("batch=most", "found 'most'; must be a whole number"),
        ("scope=modle", "found 'modle'; did you mean 'model'"),
        ("query_tile=16", "decode has one query per sequence"),
    ):
        with pytest.raises(BadInput, match=rf"--set workload\.{change.split('=')[0]}: {message}"):
            space_of(f"workload.{change}")
    assert (
        space_of("workload.batch=max").workload.words()
        == "decode, context 128, the largest batch that fits, attention alone"
    )


@pytest.mark.parametrize("changes", [(), ("workload.batch=max", "workload.scope=model")])
def test_a_workload_survives_its_resolved_form(changes: tuple[str, ...], tmp_path: Path) -> None:
    space = space_of(*changes)
    read = parse_resolved(space.to_toml(), "space.toml")
    assert read.workload == space.workload
    assert read.digest() == space.digest()
    assert ("scope" in space.plain()["workload"]) == bool(changes)
    result = sweep(space)
    write_run(tmp_path / "run", result)
    assert read_run(tmp_path / "run").space.workload == space.workload


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    write_profile(folder / "tiny-prefill.npz", prefill_profile(folder))
    write_profile(folder / "tiny.npz", PROFILE)
    return folder


def prefill(folder: Path, *overrides: str) -> Space:
    path = f"workload.profile={folder / 'tiny.npz'}"
    small = ["hardware.lanes=[8, 32]", "hardware.multipliers=64", "hardware.exponent_units=[16, 64]",
             "hardware.select_comparators=16", "hardware.accumulators=64", "hardware.key_buffer_kib=[16, 64]",
             "hardware.dram_channels=[2, 8]", "constraints.nll_increase.max=10"]  # fmt: skip
    return load_space("prefill", [path, f"workload.context={CONTEXT}", *small, *overrides])


def test_a_prompts_statistics_are_those_of_its_tile(prompts: Path) -> None:
    space = prefill(prompts)
    assert space.workload.profile.endswith("tiny-prefill.npz")  # the sibling of the one that was named
    assert space.workload.words() == f"prefill in tiles of 64, context {CONTEXT}, batch 1, attention alone"
    assert load_space(space.plain()).profile.checksum == space.profile.checksum
    front = sweep(space).front
    measured = prefill_profile(prompts).at_tile(64)
    for _, row in front.iterrows():
        name = str(row["algorithm"])
        knobs = {k: [row[f"{name}.{k}"]] for k in space.algorithms[name].knobs}
        rows = select(measured, name, knobs, CONTEXT)
        stats = statistics_from(rows, measured.shape, rows.mean_context, True, CLASSES)
        design = {p: row[f"hardware.{p}"] for p in space.hardware}
        found = price(stats, design, space.workload.priced(), ("latency_s", "energy_j", "tokens_per_s"))
        for metric, value in found.items():
            assert row[metric] == pytest.approx(float(np.asarray(value).reshape(-1)[0]), rel=1e-11), (
                name,
                metric,
            )
    assert set(front["algorithm"]) == {"dense", "spatten", "top-theta", "mnnfast"}


def test_shared_fetches_never_cost_bytes(prompts: Path) -> None:
    alone, shared = (prefill(prompts, f"workload.query_tile={t}") for t in (1, 64))
    assert alone.digest() != shared.digest()
    points: list[dict[str, Any]] = [
        {"algorithm": "dense", "dense.k_bits": 12, "dense.v_bits": 12},
        {"algorithm": "spatten", "spatten.keep": 0.5, "spatten.chunks": "12", "spatten.head_keep": 1.0},
        {"algorithm": "mnnfast", "mnnfast.threshold": 1e-3, "mnnfast.gate": True},
    ]
    first, second = evaluate(alone, points), evaluate(shared, points)
    assert (second["dram_bytes"] < first["dram_bytes"]).all()
    assert set(first["point"]).isdisjoint(second["point"])
    with pytest.raises(BadInput, match=r"workload\.query_tile: found 3; must be one of 1, 4, 16, 64, 128"):
        prefill(prompts, "workload.query_tile=3")


def test_a_profile_without_such_prompts_is_refused(prompts: Path, tmp_path: Path) -> None:
    write_profile(tmp_path / "tiny.npz", PROFILE)
    with pytest.raises(BadInput, match=r"workload\.phase: found 'prefill'; profile 'tiny' holds 'decode'"):
        prefill(tmp_path)


def test_prompts_taken_apart_have_the_same_front(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = prefill(prompts, "workload.scope=model", "workload.batch=2")
    whole = sweep(space).front
    monkeypatch.setattr(sweeping, "APART_POINTS", 0)
    again = sweep(space)
    assert again.front["point"].tolist() == whole["point"].tolist()
    assert again.front["ties"].tolist() == whole["ties"].tolist()
    assert again.front["tokens_per_s"].to_numpy() == pytest.approx(whole["tokens_per_s"].to_numpy())
