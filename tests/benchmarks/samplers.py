"""How close each sampler of `dse study` comes to the exact front: a table for README.

    nice -n 19 python tests/benchmarks/samplers.py                       # the quickstart, 500 trials, five seeds
    python tests/benchmarks/samplers.py --trials 200 --seeds 3 tpe nsga2

The exact front is a sweep's; every share is of its hypervolume, from its reference point. No sampler is given
anything of that front. A row is printed as soon as its seeds are through.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import pandas as pd

from dse.errors import BadInput
from dse.search.front import hypervolume
from dse.search.sweep import sweep
from dse.space import load_space
from dse.space.definition import Space
from dse.study.run import study

MULTI_OBJECTIVE = ("local", "tpe", "nsga2", "nsga3", "qmc", "random", "grid", "gp")


def volume(space: Space, front: pd.DataFrame, reference: dict[str, float]) -> float:
    """Hypervolume of a front from a sweep's reference point."""
    signs = np.array([-1.0 if up else 1.0 for up in space.objectives.values()])
    costs = front[list(space.objectives)].to_numpy(dtype=np.float64) * signs
    return hypervolume(costs, [reference[m] * s for m, s in zip(space.objectives, signs, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samplers", nargs="*", default=MULTI_OBJECTIVE)
    parser.add_argument("--space", default="quickstart")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    space = load_space(arguments.space)
    exact = sweep(space)
    reference = exact.info["reference_point"]
    whole = volume(space, exact.front, reference)
    print(f"{space.name}: {space.size:,} points, exact hypervolume {whole:.6g}, {arguments.trials} trials")
    print(
        "| sampler | median share | least | most | duplicates | CPU s per study |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for sampler in arguments.samplers:
        shares, duplicates, started = [], [], time.process_time()
        for seed in range(arguments.seeds):
            try:
                found = study(space, trials=arguments.trials, sampler=sampler, seed=seed)
            except BadInput as error:
                print(f"| {sampler} | {error} | | | | |")
                break
            shares.append(volume(space, found.front, reference) / whole)
            duplicates.append(found.info["duplicates"])
        else:
            seconds = (time.process_time() - started) / arguments.seeds
            print(
                f"| {sampler} | {statistics.median(shares):.2%} | {min(shares):.2%} | {max(shares):.2%} | "
                f"{statistics.median(duplicates):.0f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
