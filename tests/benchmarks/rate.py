"""How fast sweeps are, what they need, and what other ways of doing the same take. Prints a table; asserts nothing.

    python tests/benchmarks/rate.py                  # rates against rivals, on one core
    python tests/benchmarks/rate.py --tasks 11       # every eleventh piece of the space: what a point costs in each
    python tests/benchmarks/rate.py --flat           # the rate over sizes 10^7 to 10^10 (minutes)
    python tests/benchmarks/rate.py --kills 20       # kill -9 after a random piece, resume, compare front.csv

Times are CPU seconds of this process: other work on the machine stretches the clock more than them. The yardstick
is ten elementwise NumPy passes (five products, five maxima) over as many float64 values, in cache.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dse.cost.price import price
from dse.search.keep import FOLDER
from dse.search.report import peak_memory_bytes
from dse.search.shards import Chunk
from dse.search.sweep import _Run, sweep
from dse.search.tasks import do
from dse.space import Space, load_space

SLICE = (
    "algorithms={dense={unmeasured='skip', k_bits=[4, 8], v_bits=[4, 8]}, "
    "token-picker={unmeasured='skip', threshold=[1e-3, 1e-2]}}"
)
"""Few knob settings: rivals price the same points, and they are slow."""

KILLED = (
    "algorithms={dense={unmeasured='skip', k_bits=[4, 8], v_bits=[4, 8]}, "
    "token-picker={unmeasured='skip', threshold=[1e-4, 1e-3, 1e-2], chunks=['4+4+4', '6+6', '12']}}"
)
"""What is killed and resumed: pieces enough that a kill falls between them."""

RIVAL_POINTS = 20_000

MOST_WHOLE = 10**10
"""Largest space of which pieces are evaluated point by point."""


def cpu(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def ten_passes() -> float:
    """CPU seconds per value of ten in-cache passes."""
    a, b, out = (np.random.default_rng(i).random(8192) for i in range(3))

    def passes() -> None:
        for _ in range(400):
            for _ in range(5):
                np.multiply(a, b, out=out)
                np.maximum(a, b, out=out)

    return min(cpu(passes)[0] for _ in range(5)) / (400 * 8192)


def some_points(space: Space) -> tuple[_Run, Chunk, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Settings and flat designs of points drawn from one algorithm."""
    run = _Run(space, None, 1, "loky", None, True, None)
    (chunk,) = run.chunks["token-picker"]
    rng = np.random.default_rng(0)
    count = int(np.prod(chunk.grid.shape))
    return run, chunk, rng.integers(0, len(chunk.knobs), RIVAL_POINTS), rng.integers(0, count, RIVAL_POINTS)


def numpy_rows(space: Space) -> tuple[float, int]:
    """Plain NumPy: full-length arrays, one element a point."""
    run, chunk, settings, designs = some_points(space)
    rows, design = chunk.rows.take(settings), chunk.grid.rows(designs)
    names = ("latency_s", "energy_j", "area_mm2", "power_w")
    return cpu(lambda: price(rows.stats, design, run.meter.workload, names))[0], RIVAL_POINTS


def pandas_apply(space: Space, points: int = 200) -> tuple[float, int]:
    """A table of designs, one call of the price a row."""
    import pandas as pd

    run, chunk, settings, designs = some_points(space)
    table = pd.DataFrame([{**chunk.grid.design(int(d)), "setting": int(s)}
                          for s, d in zip(settings[:points], designs[:points], strict=True)])  # fmt: skip
    names = ("latency_s", "energy_j", "area_mm2", "power_w")

    def one(row: Any) -> float:
        design = {k: v for k, v in row.items() if k != "setting"}
        stats = chunk.rows.take(np.array([row["setting"]])).stats
        return float(price(stats, design, run.meter.workload, names)["latency_s"].reshape(-1)[0])

    return cpu(lambda: table.apply(one, axis=1))[0], points


def optuna_sampler(space: Space, which: str, points: int = 200) -> tuple[float, int]:
    """Optuna asks for each point; the price is the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run, chunk, _, _ = some_points(space)
    axes = {name: list(chunk.grid.axes[name]) for name in chunk.grid.swept}
    lone = {name: values[0] for name, values in chunk.grid.axes.items() if len(values) == 1}
    stats = chunk.rows.take(np.zeros(1, dtype=np.intp)).stats
    names = ("latency_s", "energy_j", "area_mm2", "power_w")

    def objective(trial: Any) -> tuple[float, float]:
        design = lone | {name: trial.suggest_categorical(name, values) for name, values in axes.items()}
        found = price(stats, design, run.meter.workload, names)
        return float(found["latency_s"].reshape(-1)[0]), float(found["energy_j"].reshape(-1)[0])

    if which == "grid":
        # Its constructor lists the whole product: two values an axis, or it does not come back.
        sampler: Any = optuna.samplers.GridSampler(
            {name: values[:2] for name, values in axes.items()}, seed=0
        )
        axes = {name: values[:2] for name, values in axes.items()}
    else:
        sampler = optuna.samplers.BruteForceSampler(seed=0)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    return cpu(lambda: study.optimize(objective, n_trials=points))[0], points


def rates(space: Space) -> None:
    """The table of ways."""
    yardstick = ten_passes()
    rows = []
    for name, skip in (("dse sweep --every-point", False), ("dse sweep", True)):
        seconds, result = cpu(lambda skip=skip: sweep(space, skip=skip))
        evaluated = result.info["evaluated"]
        rows.append((name, seconds, result.info["points"], evaluated))
    for name, (seconds, points) in {
        "NumPy, full arrays": numpy_rows(space),
        "pandas apply": pandas_apply(space),
        "Optuna GridSampler": optuna_sampler(space, "grid"),
        "Optuna BruteForceSampler": optuna_sampler(space, "brute"),
    }.items():
        rows.append((name, seconds, points, points))
    best = rows[0][2] / rows[0][1]
    print(
        f"ten passes: {yardstick * 1e9:.2f} ns a value; peak memory {peak_memory_bytes() / 2**20:.0f} MiB\n"
    )
    print("| way | points | evaluated | CPU s | points a CPU second | times slower than the first |")
    print("|---|---|---|---|---|---|")
    for name, seconds, points, evaluated in rows:
        rate = points / seconds
        print(f"| {name} | {points:.3g} | {evaluated:.3g} | {seconds:.2f} | {rate:.3g} | {best / rate:.3g} |")
    each = rows[0][1] / rows[0][3]
    print(f"\nan evaluated point takes {each * 1e9:.1f} ns, {each / yardstick:.1f} times ten passes")


def some_tasks(table: str, every: int) -> None:
    """Every so many-th piece of a whole sweep, with and without skipping."""
    space = load_space(table)
    print("| way | points | ns a point | evaluated | ns an evaluated point | times ten passes |")
    print("|---|---|---|---|---|---|")
    for name, skip in (("--every-point", False), ("skipping", True)):
        if not skip and space.size > MOST_WHOLE:
            continue
        run = _Run(space, None, 1, "loky", None, skip, None)
        tasks = run.tasks(run.goal)[every // 2 :: every]
        yardstick = ten_passes()
        seconds, found = cpu(lambda tasks=tasks: [do(task) for task in tasks])
        evaluated = sum(f.evaluated for f in found)
        points = evaluated + sum(sum(f.excluded.values()) for f in found)
        yardstick = min(yardstick, ten_passes())
        each = seconds / max(1, evaluated)
        print(
            f"| {name} | {points:.3g} | {seconds / points * 1e9:.2f} | {evaluated / points:.1%} | "
            f"{each * 1e9:.1f} | {each / yardstick:.1f} |",
            flush=True,
        )


def flat(table: str) -> None:
    """Cost a point over sizes."""
    print("| points | evaluated | CPU s | ns a point | ns an evaluated point | peak MiB |")
    print("|---|---|---|---|---|---|")
    for lanes in (3, 27, 271, 2713):
        axis = ", ".join(str(1 + i) for i in range(lanes))
        space = load_space(table, [SLICE, f"hardware.lanes=[{axis}]"])
        seconds, result = cpu(lambda space=space: sweep(space))
        points, evaluated = result.info["points"], result.info["evaluated"]
        print(
            f"| {points:.3g} | {evaluated:.3g} | {seconds:.2f} | {seconds / points * 1e9:.2f} | "
            f"{seconds / evaluated * 1e9:.1f} | {peak_memory_bytes() / 2**20:.0f} |",
            flush=True,
        )


def kills(table: str, count: int) -> None:
    """Kill a sweep after a random number of its pieces, resume it, and compare its front with an undisturbed one."""
    chance = random.Random(0)
    space = load_space(table, [KILLED])
    run = _Run(space, None, 1, "loky", None, False, None)
    total = len(run.tasks(run.goal))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "dse.cli",
            "sweep",
            table,
            "--set",
            KILLED,
            "--every-point",
            "--quiet",
            "-o",
        ]
        whole, out = Path(folder) / "whole", Path(folder) / "killed"
        subprocess.run([*command, str(whole)], check=True, stdout=subprocess.DEVNULL)
        same = 0
        for number in range(count):
            wanted = chance.randrange(1, total)
            process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL)
            while len(list((out / FOLDER).glob("*.npz"))) < wanted and process.poll() is None:
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            pieces = len(list((out / FOLDER).glob("*.npz")))
            subprocess.run([*command, str(out)], check=True, stdout=subprocess.DEVNULL)
            equal = (out / "front.csv").read_bytes() == (whole / "front.csv").read_bytes()
            same += equal
            print(
                f"kill {number + 1}: {pieces} of {total} pieces kept, front.csv {'identical' if equal else 'DIFFERS'}",
                flush=True,
            )
            shutil.rmtree(out)
    print(f"{same} of {count} fronts identical")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="billion", help="a space's file or name")
    parser.add_argument("--whole", action="store_true", help="all of its settings, not a slice")
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--tasks", type=int, default=0, metavar="N", help="every N-th piece, in this process")
    parser.add_argument("--kills", type=int, default=0)
    given = parser.parse_args()
    if given.tasks:
        some_tasks(given.space, given.tasks)
    elif given.flat:
        flat(given.space)
    elif given.kills:
        kills(given.space, given.kills)
    else:
        rates(load_space(given.space, [] if given.whole else [SLICE]))


if __name__ == "__main__":
    main()
