"""The same space gives the same front to the last byte, however the work is cut, shared out and ordered."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cost.few import few_ranges

from dse.profiles.store import write_profile
from dse.results import front_csv
from dse.search import shards, tasks
from dse.search import sweep as sweeping
from dse.search.sweep import SweepResult, sweep
from dse.space import load_space

from .test_keep import PROFILE, TABLE

HARDWARE = {
    "base": "topick", "lanes": [4, 16, 32], "dram_channels": [1, 4], "multipliers": [4, 16], "heads_in_flight": [1, 4],
}  # fmt: skip
CUTS = ((0, 10, 1 << 17), (0, 100, 1 << 17), (1 << 40, 10, 5), (1 << 40, 10, 40))
"""From which size on prices are taken apart, points of a task, and of a block."""

CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"objectives": {"maximize": ["speedup"], "minimize": ["nll_increase"]}},
    {"constraints": {"area_mm2": {"max": 40}, "speedup_best_dense": {"min": 0.9}}},
    {"objectives": {"maximize": ["speedup_best_dense"], "minimize": ["energy_j", "area_mm2"]}},
)
"""Spaces that take different ways through the search."""

REPO = Path(__file__).parents[2]
VOLATILE = ("seconds", "points_per_second", "peak_memory_bytes")
HOW = ("evaluated", "excluded", "excluded_by", "infeasible", "infeasible_by", "algorithms")
"""Counts that skipping changes: what is excluded by proof is not looked at."""


def said(result: SweepResult, *without: str) -> tuple[str, str]:
    """What a result writes, but for what the clock says."""
    info = {k: v for k, v in result.info.items() if k not in (*VOLATILE, *without)}
    return front_csv(result.front), json.dumps(info)


@pytest.fixture(params=range(len(CHANGES)))
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with few_ranges():
        yield {**TABLE, "hardware": HARDWARE, **CHANGES[request.param]}


def test_jobs_and_engines(table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "TASK_POINTS", (20, 40))
    for apart in (0, 1 << 40):
        monkeypatch.setattr(sweeping, "APART_POINTS", apart)
        whole = said(sweep(load_space(table, profile=PROFILE)))
        for engine, jobs in (("loky", 2), ("threading", 3), ("multiprocessing", 2)):
            assert said(sweep(load_space(table, profile=PROFILE), jobs=jobs, engine=engine)) == whole


def test_order_of_arrival(table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(
        function: Callable[[Any], Any], pieces: Sequence[tuple[int, Any]], jobs: int, engine: str
    ) -> Iterator[tuple[int, Any]]:
        done = [(number, function(argument)) for number, argument in pieces]
        yield from chance.sample(done, len(done))

    chance = random.Random(5)
    monkeypatch.setattr(sweeping, "TASK_POINTS", (20, 40))
    monkeypatch.setattr(tasks, "BLOCKS_PER_TASK", 1)
    monkeypatch.setattr(shards, "BLOCK_POINTS", 7)
    for apart in (0, 1 << 40):
        monkeypatch.setattr(sweeping, "APART_POINTS", apart)
        whole = said(sweep(load_space(table, profile=PROFILE)))
        with monkeypatch.context() as patch:
            patch.setattr(sweeping, "compute", shuffled)
            for _ in range(3):
                assert said(sweep(load_space(table, profile=PROFILE))) == whole


def test_shards(table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are those of the point, not of the array it was priced in."""
    whole = said(sweep(load_space(table, profile=PROFILE)), *HOW)
    for apart, least, block in CUTS:
        monkeypatch.setattr(sweeping, "APART_POINTS", apart)
        monkeypatch.setattr(sweeping, "TASK_POINTS", (least, least))
        monkeypatch.setattr(shards, "BLOCK_POINTS", block)
        assert said(sweep(load_space(table, profile=PROFILE)), *HOW) == whole
        assert said(sweep(load_space(table, profile=PROFILE), skip=False), *HOW) == whole


def test_processes(tmp_path: Path) -> None:
    """Neither the order of hash tables nor the number of threads of a linear-algebra library is in the numbers."""
    write_profile(tmp_path / "tiny.npz", PROFILE)
    workload = {"profile": "tiny.npz", "context": 128}
    (tmp_path / "same.toml").write_text(tomli_w.dumps({**TABLE, "workload": workload}), encoding="utf-8")
    fronts = set()
    for seed, threads in (("0", "1"), ("1", "2"), ("4294967295", "1")):
        out = tmp_path / seed
        command = [sys.executable, "-m", "dse", "sweep", "same.toml", "-o", str(out), "--quiet"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPO),
            "PYTHONHASHSEED": seed,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        fronts.add((out / "front.csv").read_bytes())
    assert len(fronts) == 1
