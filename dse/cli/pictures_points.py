"""Charts of single points, their prices taken apart: breakdown, roofs, DRAM streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dse.cli.environment import Environment
from dse.cli.pictures import Drawn, only, titled
from dse.errors import BadInput

if TYPE_CHECKING:
    from dse.charts.breakdown import Explained
    from dse.cli.plot import Wish
    from dse.results import Run

SAMPLE: Final = 60
"""Most points whose streams are drawn."""


def explained(run: Run, chosen: Sequence[str]) -> list[Explained]:
    """Points of a run by id, with their prices taken apart."""
    import numpy as np

    from dse.charts.breakdown import Explained
    from dse.charts.findings import short_knobs, varying
    from dse.cli.points import find_point
    from dse.cost.explain import explain
    from dse.cost.price import parts
    from dse.profiles.schema import MAX_CHUNKS

    found = []
    for name in chosen:
        point = find_point(str(run.directory), name, ())
        stats = point.stats
        story = explain(stats, point.design, point.workload, point.components)
        columns = varying(run.front[run.front["algorithm"] == point.algorithm], f"{point.algorithm}.")
        row = run.front.iloc[point.row or 0]
        knobs = short_knobs(row, {c: c.rpartition(".")[2] for c in columns})
        loss = float(row["nll_increase"])
        bits = stats.chunk_bits[0]
        rows = (
            sum(
                stats.counters[f"qk_rows_{c}"][0] * bits[c] / bits.sum()
                for c in range(min(MAX_CHUNKS, len(bits)))
            )
            + stats.counters["pv_rows"][0]
        )
        macs = float((rows * stats.weights[0]).sum()) * stats.shape.head_dim * story["metrics"]["batch"]
        machine = parts(stats, point.design, point.workload, point.components).machine
        caption = f"{point.algorithm} {knobs}".strip() + (f"; loss {loss:.3g}" if loss == loss else "")
        found.append(
            Explained(point.algorithm, caption, story, macs, float(np.ravel(machine.peak_bytes_s)[0]))
        )
    return found


def chosen(run: Run, wish: Wish) -> list[str]:
    """Ids of the points asked for, else of each algorithm's fastest within the budget."""
    from dse.charts.findings import gains

    if wish.points:
        return list(wish.points)
    best = [g.point for g in gains(run.front, wish.budget) if g.point is not None]
    if not best:
        raise BadInput(
            f"{run.directory}: no point stays within {wish.budget:g} nats per token; raise --budget or give --point"
        )
    return [str(point["point"]) for point in best]


def draw_breakdown(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Stacked bars of time and energy."""
    from dse.charts.breakdown import breakdown_figure, energies, times

    run = only(runs, "breakdown")
    points = explained(run, chosen(run, wish))
    facts = {
        "points": [
            {"caption": p.caption, "time_s": times(p.story), "energy_j": energies(p.story)} for p in points
        ]
    }
    return breakdown_figure(points, titled(run, wish), wish.width), facts


def draw_roofline(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Roofs."""
    from dse.charts.breakdown import attention_bytes, roofline_figure

    run = only(runs, "roofline")
    found = explained(run, chosen(run, wish))
    points = [p for p in found if attention_bytes(p.story)]
    if not points:
        raise BadInput(
            f"{run.directory}: no point of the roofline moves bytes, their keys and values lie in the buffers; name "
            "others with --point"
        )
    if len(points) < len(found):
        environment.remark(
            f"note: {len(found) - len(points)} of {len(found)} points move no bytes, and are left out"
        )
    facts = {
        "points": [{"caption": p.caption, "macs": p.macs, "peak_bytes_s": p.peak_bytes_s} for p in points]
    }
    return roofline_figure(points, titled(run, wish), wish.width), facts


def draw_dram(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Streams of kept rows."""
    from dse.charts.streams import Stream, streams_figure
    from dse.cli.points import find_point
    from dse.cost.explain import explain

    run = only(runs, "dram")
    ids = [str(i) for i in run.front["point"]]
    step = max(1, -(-len(ids) // SAMPLE))
    found = []
    for name in wish.points or ids[::step]:
        point = find_point(str(run.directory), name, ())
        story = explain(point.stats, point.design, point.workload, point.components)
        for stream in story["streams"]:
            found.append(Stream(point.algorithm, stream["stream"], stream["kept"], stream["efficiency"]))
    if len(ids) > SAMPLE and not wish.points:
        environment.remark(f"note: every {step}th of {len(ids)} points is drawn")
    curves = _random_rows(run)
    facts = {
        "streams": [vars(s) for s in found],
        "at random": {k: list(zip(*v, strict=True)) for k, v in curves.items()},
    }
    return streams_figure(found, curves, titled(run, wish), wish.width), facts


def _random_rows(run: Run) -> dict[str, tuple[list[float], list[float]]]:
    """Efficiency of rows kept independently of each other, for each DRAM of the run.

    The machine around it is the baseline's, or where that is a processor, the one of the first point with this DRAM.
    """
    import numpy as np

    from dse.cli.points import design_of_row
    from dse.cost.explain import explain
    from dse.cost.workload import Workload
    from dse.hardware.parameters import check_design
    from dse.profiles.schema import Form
    from dse.validation.bench import Work, dense_counts, scattered, shape

    n = float(run.space.workload.context)
    kept = np.geomspace(0.01, 1.0, 25)
    curves = {}
    for kind in sorted(set(run.front["hardware.dram"])):
        row = run.front[run.front["hardware.dram"] == kind].iloc[0]
        own = design_of_row(row)
        around = run.space.baseline.hardware or own
        # The curve is of memory: none where all lies in the buffers.
        memory = {"dram": kind, "dram_channels": own["dram_channels"], "residence": "dram"}
        design = check_design("", {**around, **memory})
        efficiencies = []
        for share in kept:
            counts = dense_counts(n) | {
                "v_rows": share * n, "v_runs": scattered(share * n, n), "pv_rows": share * n, "row_waits": 1.0,
            }  # fmt: skip
            work = Work(Form((12,), 12, 12, v_after="row"), n, shape(4, 4), counts)
            streams = explain(work.statistics(), design, Workload(), dict(run.space.components))["streams"]
            efficiencies.append(next(s["efficiency"] for s in streams if s["stream"] == "V"))
        curves[f"{kind}, 12-bit rows kept at random"] = ([float(k) for k in kept], efficiencies)
    return curves
