"""What each kind of chart is drawn from: runs read, points explained, spaces swept, published numbers looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.cli.environment import Environment
from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dse.charts.breakdown import Explained
    from dse.charts.marks import Published
    from dse.cli.plot import Wish
    from dse.results import Run

Drawn = tuple["Figure", dict[str, Any]]

RATIOS = {"speedup", "energy_saving", "dram_reduction", "speedup_end_to_end"}
"""Columns that mean something only beside the baseline they refer to."""

SAMPLE = 60
"""Most points whose streams are drawn."""


def draw_front(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Fronts, with what was asked for around them."""
    from dse.charts.cloud import cloud
    from dse.charts.front import front_figure
    from dse.cli.runs import fronts
    from dse.results import read_run
    from dse.space import load_space

    paths = [Path(run) for run in runs]
    drawn = fronts(paths)
    if any(run.note for run in drawn) and RATIOS & {wish.x, wish.y, wish.colour, wish.size}:
        environment.remark(
            "note: these runs have different baselines, their ratios do not compare; latency_s does"
        )
    found = None
    marks: list[Published] = []
    if len(paths) == 1:
        run = read_run(paths[0])
        drawn = [replace(drawn[0], limits=run.space.constraints)]
        if wish.cloud:
            found = cloud(run, load_space(paths[0] / "space.toml"), wish.x, wish.y)
        if wish.published:
            marks = published(run)
    elif wish.cloud or wish.published:
        raise BadInput(
            f"--{'cloud' if wish.cloud else 'published'}: needs exactly one run; found {len(paths)}"
        )
    figure = front_figure(
        drawn, x=wish.x, y=wish.y, colour=wish.colour, size=wish.size, width=wish.width, title=wish.title,
        cloud=found, published=marks,
    )  # fmt: skip
    if wish.published and not any({wish.x, wish.y} & set(mark.values) for mark in marks):
        known = sorted({metric for mark in marks for metric in mark.values})
        environment.remark(
            "note: no published point of these algorithms has these axes"
            + (f"; there are some for {', '.join(known)}" if known else "")
        )
    return figure, {"x": wish.x, "y": wish.y}


def published(run: Run) -> list[Published]:
    """Published operating points that mean the same as columns of this run."""
    from dse.charts.marks import Published
    from dse.validation import SYSTEMS, validate

    # quantity of a validated number -> columns it can stand beside. All are ratios over dense attention of twelve
    # bits on the system's own machine, which is what `speedup_same_hardware` says.
    columns: dict[str, dict[str, tuple[str, ...]]] = {
        "token-picker": {
            "speedup": ("speedup_same_hardware", "speedup"),
            "off-chip access, dense over pruned": ("dram_reduction",),
            "energy, dense over pruned": ("energy_saving",),
        },
        "a3": {
            "speedup over base, BERT, conservative": ("speedup_same_hardware",),
            "speedup over base, BERT, aggressive": ("speedup_same_hardware",),
        },
    }
    baseline = run.space.baseline
    own = {"token-picker": "topick", "a3": "a3"}
    found = []
    for system in sorted(set(run.front["algorithm"]) & set(columns) & set(SYSTEMS)):
        same = (
            baseline.processor is None
            and baseline.knobs.get("k_bits") == 12
            and own[system] in run.space.base
        )
        for row in validate([system]):
            for column in columns[system].get(row.quantity, ()):
                if row.published is not None and (same or column == "speedup_same_hardware"):
                    source = row.source.partition(",")[0] + (
                        f", {row.source.split(', ')[1]}" if ", " in row.source else ""
                    )
                    found.append(Published(system, {column: row.published}, source))
    return found


def _only(runs: tuple[str, ...], kind: str) -> Run:
    from dse.results import read_run

    if len(runs) != 1:
        raise BadInput(f"--kind {kind}: needs exactly one run; found {len(runs)}")
    return read_run(runs[0])


def _title(run: Run, wish: Wish) -> str:
    from dse.cli.runs import title

    return wish.title if wish.title is not None else title(run.space)


def _explained(run: Run, chosen: Sequence[str]) -> list[Explained]:
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


def _chosen(run: Run, wish: Wish) -> list[str]:
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

    run = _only(runs, "breakdown")
    points = _explained(run, _chosen(run, wish))
    facts = {
        "points": [
            {"caption": p.caption, "time_s": times(p.story), "energy_j": energies(p.story)} for p in points
        ]
    }
    return breakdown_figure(points, _title(run, wish), wish.width), facts


def draw_roofline(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Roofs."""
    from dse.charts.breakdown import roofline_figure

    run = _only(runs, "roofline")
    points = _explained(run, _chosen(run, wish))
    facts = {
        "points": [{"caption": p.caption, "macs": p.macs, "peak_bytes_s": p.peak_bytes_s} for p in points]
    }
    return roofline_figure(points, _title(run, wish), wish.width), facts


def draw_dram(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Streams of kept rows."""
    from dse.charts.streams import Stream, streams_figure
    from dse.cli.points import find_point
    from dse.cost.explain import explain

    run = _only(runs, "dram")
    ids = [str(i) for i in run.front["point"]]
    step = max(1, -(-len(ids) // SAMPLE))
    found = []
    for name in wish.points or ids[::step]:
        point = find_point(str(run.directory), name, ())
        story = explain(point.stats, point.design, point.workload, point.components)
        for stream in story["streams"]:
            kept = stream["rows"] / point.stats.streams
            found.append(Stream(point.algorithm, stream["stream"], kept, stream["efficiency"]))
    if len(ids) > SAMPLE and not wish.points:
        environment.remark(f"note: every {step}th of {len(ids)} points is drawn")
    curves = _random_rows(run)
    facts = {
        "streams": [vars(s) for s in found],
        "at random": {k: list(zip(*v, strict=True)) for k, v in curves.items()},
    }
    return streams_figure(found, curves, _title(run, wish), wish.width), facts


def _random_rows(run: Run) -> dict[str, tuple[list[float], list[float]]]:
    """Efficiency of rows kept independently of each other, on the baseline's machine with each DRAM of the run."""
    import numpy as np

    from dse.cost.explain import explain
    from dse.cost.workload import Workload
    from dse.hardware.presets import load_preset
    from dse.profiles.schema import Form
    from dse.validation.bench import Work, dense_counts, scattered, shape

    base: dict[str, Any] = dict(run.space.baseline.hardware) or (
        dict(load_preset(run.space.base)) if run.space.base != "explicit" else {}
    )
    if not base:
        return {}
    n = float(run.space.workload.context)
    kept = np.geomspace(0.01, 1.0, 25)
    curves = {}
    for kind in sorted(set(run.front["hardware.dram"])):
        row = run.front[run.front["hardware.dram"] == kind].iloc[0]
        design = {**base, "dram": kind, "dram_channels": int(row["hardware.dram_channels"])}
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


def draw_parallel(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Parallel coordinates."""
    from dse.charts.parallel import parallel_figure, usual_axes

    run = _only(runs, "parallel")
    columns = list(wish.columns) or usual_axes(run.front, list(run.space.objectives))
    return parallel_figure(run.front, columns, _title(run, wish), wish.width), {"columns": columns}


def draw_knobs(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """Response of accuracy and bytes to a knob."""
    from dataclasses import asdict

    from dse.charts.labels import brief
    from dse.charts.response import response_figure, responses
    from dse.profiles.store import load_profile, shipped_profiles
    from dse.space import load_space, shipped_spaces

    if len(runs) != 1:
        raise BadInput(f"--kind knobs: needs exactly one profile, space or run; found {len(runs)}")
    source, grouped = runs[0], True
    contexts: tuple[int, ...] = ()
    if Path(source).is_dir() or source.endswith(".toml") or source in shipped_spaces():
        space = load_space(Path(source) / "space.toml" if Path(source).is_dir() else source)
        profile, grouped, contexts = space.profile, space.workload.grouped, (space.workload.context,)
    elif source.endswith(".npz") or source in shipped_profiles():
        profile = load_profile(source)
    else:
        known = [*shipped_profiles(), *shipped_spaces()]
        raise BadInput(f"{source}: no such profile, space or run; {nearest(source, known)}")
    algorithm = wish.algorithm
    if not algorithm:
        algorithm = max((a for a in profile.algorithms if a != "dense"), key=lambda a: len(profile.rows(a)))
    fixed = {key.removeprefix(f"{algorithm}."): value for key, value in map(_assigned, wish.overrides)}
    knob, series, held = responses(profile, algorithm, wish.knob, wish.by, fixed, contexts, grouped)
    # A value stays on the line of its knob; one that is empty says nothing.
    words = ", ".join(f"{k}\u00a0{brief(v)}" for k, v in held.items() if brief(v))
    sharing = "" if grouped else "; every query head fetches for itself"
    title = f"{profile.name}, {profile.phase}{sharing}\n{words}" if wish.title is None else wish.title
    figure = response_figure(algorithm, knob, series, title, wish.width)
    return figure, {
        "algorithm": algorithm,
        "knob": knob,
        "fixed": held,
        "series": [asdict(s) for s in series],
    }


def _assigned(text: str) -> tuple[str, Any]:
    from dse.space.source import parse_override

    path, value = parse_override(text)
    return ".".join(path), value


def draw_winner(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """A map from runs, or from sweeps of one space."""
    from dataclasses import asdict

    from dse.charts.winner import winner_figure

    keys = [text.partition("=")[0] for text in wish.over]
    alone = len(runs) == 1
    cells, x, y, title = _swept(environment, runs[0], wish) if alone else _compared(runs, keys, wish)
    figure = winner_figure(cells, x, y, wish.budget, title if wish.title is None else wish.title, wish.width)
    return figure, {"cells": [asdict(c) for c in cells], "budget": wish.budget}


def _swept(environment: Environment, source: str, wish: Wish) -> Any:
    import itertools

    from dse.charts.winner import cell
    from dse.cli.runs import title
    from dse.errors import DseError
    from dse.search.sweep import sweep
    from dse.space import load_space

    if len(wish.over) not in (1, 2):
        raise BadInput(
            "--kind winner: name one or two axes: --over workload.batch=1,4,16 --over hardware.dram=hbm2,lpddr5"
        )
    axes = [_axis(text) for text in wish.over]
    place = Path(source) / "space.toml" if Path(source).is_dir() else source
    if len(axes) == 1:
        axes.append(("", [""]))
    cells, first = [], None
    todo = list(itertools.product(*(values for _, values in axes)))
    with environment.progress_bar("space") as move:
        for done, (a, b) in enumerate(todo):
            overrides = [
                *wish.overrides,
                *(f"{k}={_toml(v)}" for (k, _), v in zip(axes, (a, b), strict=True) if k),
            ]
            space = load_space(place, overrides)
            first = first or space
            try:
                front = sweep(space).front
            except DseError as error:
                if isinstance(error, BadInput):
                    raise
                environment.remark(f"note: {a}, {b}: {error}")
                move(done + 1, len(todo))
                continue
            cells.append(cell(front, wish.budget, a, b))
            move(done + 1, len(todo))
    assert first is not None
    words = title(first).splitlines()[0]
    for key, _ in axes:  # what varies is on the axes, not in the title
        last = key.partition(".")[2]
        words = ", ".join(part for part in words.split(", ") if not (last and part.startswith(f"{last} ")))
    return cells, _axis_name(axes[0][0]), _axis_name(axes[1][0]), words


def _compared(runs: tuple[str, ...], keys: Sequence[str], wish: Wish) -> Any:
    """Runs as cells: on the axes stand the one or two settings in which their spaces differ."""
    from dse.charts.winner import cell
    from dse.results import read_run
    from dse.search.compare import flat

    found = [read_run(run) for run in runs]
    tables = [flat(run.space) for run in found]
    if not keys:
        differing = [
            k
            for k in tables[0]
            if len({repr(t.get(k)) for t in tables}) > 1 and not k.startswith("baseline.")
        ]
        keys = [k for k in differing if k.startswith(("workload.", "hardware."))][:2]
    if not keys:
        raise BadInput(
            "--kind winner: the spaces of these runs differ in no entry of workload or hardware; name one with --over KEY"
        )
    for key in keys:
        if key not in tables[0]:
            raise BadInput(f"--over {key}: no such entry; {nearest(key, tables[0])}")
    pairs = [tuple(t.get(k) for k in keys) for t in tables]
    if len(set(map(repr, pairs))) < len(pairs):
        raise BadInput(
            f"--kind winner: two runs have the same {' and '.join(keys)}; leave one out, or name other keys"
        )
    order = sorted(range(len(found)), key=lambda i: tuple((isinstance(v, str), v) for v in pairs[i]))
    cells = [
        cell(found[i].front, wish.budget, pairs[i][0], pairs[i][1] if len(keys) > 1 else "") for i in order
    ]
    names = [*map(_axis_name, keys), ""]
    return cells, names[0], names[1], ""


def _axis(text: str) -> tuple[str, list[Any]]:
    """``key=v1,v2``, or ``key=[...]`` in TOML."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise BadInput(f"--over {text}: no values; write KEY=V1,V2,...")
    return key, [_value(v) for v in values.strip("[]").split(",")]


def _value(text: str) -> Any:
    text = text.strip().strip("\"'")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _axis_name(key: str) -> str:
    """A key in words with its unit."""
    from dse.charts.labels import label

    if key.startswith("hardware."):
        return label(key).axis
    last = key.rpartition(".")[2]
    units = {"context": "context (tokens)", "batch": "batch (sequences)"}
    return units.get(last, last.replace("_", " "))


def draw_waterfall(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """From what was published to what is left of a whole step."""
    from dataclasses import asdict

    from dse.charts.waterfall import waterfall_figure
    from dse.cli.waterfall import steps

    run = _only(runs, "waterfall")
    found, title = steps(environment, run, wish.algorithm, wish.budget)
    figure = waterfall_figure(found, title if wish.title is None else wish.title, wish.width)
    return figure, {"steps": [asdict(s) for s in found]}
