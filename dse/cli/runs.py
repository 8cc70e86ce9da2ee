"""What commands share about runs: where they go, how they are titled and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dse.inputs import spelt_out

if TYPE_CHECKING:
    from dse.charts.front import Fronts
    from dse.space import Space


def baseline_name(space: Space) -> str:
    """What speedups refer to, in words: `dense, 12-bit, on topick-gqa`, or `titan-xp, 32-bit`."""
    if space.baseline.processor is not None:
        return str(space.baseline)
    where = "a design of its own" if space.base == "explicit" else space.base
    return f"{space.baseline}, on {where}"


def title(space: Space) -> str:
    """Two lines over a chart: the workload, and what speedup is measured against."""
    w = space.workload
    shared = "" if w.grouped else "; as if every query head had its own keys and values"
    profile = spelt_out(Path(w.profile).stem if w.profile.endswith(".npz") else w.profile)
    return f"{profile}, {w.words()}\nbaseline: {baseline_name(space)}{shared}"


def names_apart(paths: Iterable[Path]) -> list[str]:
    """What each run is called in a chart: the name of its directory, or the path where two are named alike."""
    paths = list(paths)
    names = [spelt_out(path.resolve().name) for path in paths]
    return names if len(set(names)) == len(names) else [spelt_out(str(path)) for path in paths]


def fronts(paths: Sequence[Path]) -> list[Fronts]:
    """The runs in these directories, named apart, ready to draw."""
    from dse.charts.front import Fronts
    from dse.results import read_run

    runs = [read_run(path) for path in paths]
    # Speedups over different baselines do not compare: the chart says which is whose.
    differ = len({run.info["baseline"]["latency_s"] for run in runs}) > 1
    workloads = len({run.space.workload.words() for run in runs}) > 1
    # Another workload has another baseline; where its name is the same, the title says it.
    differ = differ and (not workloads or len({baseline_name(run.space) for run in runs}) > 1)
    return [
        Fronts(
            name,
            run.front,
            title(run.space),
            "\n".join(
                words
                for words, needed in (
                    (run.space.workload.words(), workloads),
                    (f"over {baseline_name(run.space)}", differ),
                )
                if needed
            ),
            limits=run.space.constraints,
            sampled=run.info.get("kind") == "study",
        )
        for name, run in zip(names_apart(paths), runs, strict=True)
    ]
