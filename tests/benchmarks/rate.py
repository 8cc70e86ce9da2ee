"""How fast sweeps are, what they need, and what other ways of doing the same take. Prints a table; asserts nothing.

    python tests/benchmarks/rate.py                  # rates against rivals, on one core
    python tests/benchmarks/rate.py --flat           # the rate over sizes 10^7 to 10^10 (minutes)
    python tests/benchmarks/rate.py --kills 20       # kill -9 at random moments, resume, compare front.csv

Times are CPU seconds of this process: other work on the machine stretches the clock more than them. The yardstick
is ten elementwise NumPy passes (five products, five maxima) over as many float64 values, in cache.
"""

from __future__ import annotations

import argparse
import os
import random
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
from dse.space import Space, load_space

SLICE = (
    "algorithms={dense={unmeasured='skip', k_bits=[4, 8], v_bits=[4, 8]}, "
    "token-picker={unmeasured='skip', threshold=[1e-3, 1e-2]}}"
)
"""Few knob settings: rivals price the same points, and they are slow."""

RIVAL_POINTS = 20_000


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
    """Kill a sweep at random moments, resume it every time, and compare its front with an undisturbed one."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dse.cli", "sweep", table, "--set", SLICE, "--quiet", "-o"]
        whole = Path(folder) / "whole"
        started = time.monotonic()
        subprocess.run([*command, str(whole)], check=True, stdout=subprocess.DEVNULL)
        length = time.monotonic() - started
        for number in range(count):
            run = Path(folder) / "killed"
            process = subprocess.Popen([*command, str(run)], stdout=subprocess.DEVNULL)
            time.sleep(chance.random() * length)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            pieces = len(list((run / FOLDER).glob("*.npz")))
            subprocess.run([*command, str(run)], check=True, stdout=subprocess.DEVNULL)
            same = (run / "front.csv").read_bytes() == (whole / "front.csv").read_bytes()
            print(
                f"kill {number + 1}: {pieces} pieces kept, front.csv {'identical' if same else 'DIFFERS'}",
                flush=True,
            )
            for path in sorted(run.glob("*")):
                path.unlink()
            run.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="billion", help="a space's file or name")
    parser.add_argument("--whole", action="store_true", help="all of its settings, not a slice")
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--kills", type=int, default=0)
    given = parser.parse_args()
    if given.flat:
        flat(given.space)
    elif given.kills:
        kills(given.space, given.kills)
    else:
        rates(load_space(given.space, [] if given.whole else [SLICE]))


if __name__ == "__main__":
    main()
