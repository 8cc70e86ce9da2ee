"""What a page says, as plain values: runs with their points, comparisons, validation, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from dse.charts.labels import brief, label
from dse.errors import BadInput
from dse.report.columns import pack, short

if TYPE_CHECKING:
    import pandas as pd

    from dse.report.sample import Sample
    from dse.results import Run
    from dse.search.compare import Comparison, Side
    from dse.space import Space
    from dse.validation import Row

_MARKERS: Final = {
    # matplotlib's, in which charts name their markers -> the page's
    "x": "x", "o": "circle", "s": "square", "^": "triangle", "D": "diamond", "v": "inverted_triangle",
    "P": "plus", "X": "hex", "p": "star", "*": "square_pin", "<": "triangle_pin", ">": "circle_dot",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One run and what was found out about it for the page.

    Attributes:
        name: unlike any other on the page.
        place: the directory as it was given.
        title, baseline: the workload and what speedups refer to, in words.
        space: with its profile; None where that could not be loaded.
        sample: random points of the space; None without.
        breakdowns: point -> `dse.report.breakdown.reduced`.
        notes: what a reader must know.
    """

    name: str
    place: str
    run: Run
    title: str
    baseline: str
    space: Space | None = None
    sample: Sample | None = None
    breakdowns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def content(title: str, parts: Sequence[Part], rows: Sequence[Row] | None, version: str) -> dict[str, Any]:
    """Everything on the page.

    Args:
        rows: of `dse validate`; None to leave the section out.
        version: of what draws the chart.
    """
    import dse
    from dse.charts.scales import LINEAR_BELOW, LINEAR_SHARE, LOSSES
    from dse.charts.style import RIVAL
    from dse.space.names import METRICS

    tables = [table for part in parts for table in _tables(part)]
    return {
        "title": title,
        "made": {"dse": dse.__version__, "chart": version},
        "columns": columns(tables, METRICS),
        "looks": looks({str(name) for table in tables for name in table["algorithm"].unique()}),
        "losses": {"names": list(LOSSES), "linear_below": LINEAR_BELOW, "linear_share": LINEAR_SHARE},
        "rival": RIVAL,
        "runs": [_run(part) for part in parts],
        "comparisons": comparisons(parts),
        "validation": None if rows is None else validation(rows),
    }


def _tables(part: Part) -> list[pd.DataFrame]:
    return [part.run.front, *([part.sample.points] if part.sample is not None else [])]


def columns(tables: Sequence[pd.DataFrame], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Every column an axis, a colour, a filter or a table may show, and how it is called."""
    names = dict.fromkeys(str(c) for table in tables for c in table.columns)
    ordered = [m for m in metrics if m in names]
    ordered += [c for c in names if c.startswith("hardware.")]
    ordered += [c for c in names if "." in c and not c.startswith("hardware.")]
    found = []
    for name in ordered:
        known = label(name)
        owner, _, last = name.rpartition(".")
        better = {True: "more", False: "less", None: ""}[known.larger_is_better]
        found.append({
            "name": name, "title": known.title if owner in ("", "hardware") else last,
            "unit": known.unit, "scale": known.scale, "better": better, "log": known.log, "owner": owner,
        })  # fmt: skip
    return found


def looks(names: set[str]) -> dict[str, dict[str, str]]:
    """Algorithm -> its colours on light and dark and its marker, as in every chart."""
    from dse.charts import style

    with style.styled("dark"):
        dark = style.looks(names)
    with style.styled("paper"):
        light = style.looks(names)
    order = sorted(names, key=lambda name: (name != style.RIVAL, list(light).index(name)))
    return {
        name: {
            "light": light[name][0],
            "dark": dark[name][0],
            "marker": _MARKERS.get(light[name][1], "circle"),
        }
        for name in order
    }


def _run(part: Part) -> dict[str, Any]:
    from dse.charts.findings import sentence
    from dse.report.sample import SETTING
    from dse.search.compare import baseline_of

    run, info = part.run, part.run.info
    study = info.get("kind") == "study"
    about = part.sample
    return {
        "name": part.name,
        "place": part.place,
        "title": part.title,
        "baseline": part.baseline,
        "over": baseline_of(run),
        "kind": info.get("kind", "sweep"),
        "sentence": "" if study else sentence(run.front),
        "objectives": {m: "more" if up else "less" for m, up in run.space.objectives.items()},
        "limits": {
            m: {k: v for k, v in (("min", x.low), ("max", x.high)) if v is not None}
            for m, x in run.space.constraints.items()
        },
        "front": pack(run.front),
        "sample": None
        if about is None
        else {"points": pack(about.points, 32, SETTING), "priced": about.priced, "total": about.total},
        "breakdowns": dict(part.breakdowns),
        "notes": [*part.notes, *([] if info["status"] == "complete" else ["the run is partial"])],
        "provenance": provenance(part),
        "commands": commands(part),
        "space": run.space.to_toml(),
    }


def provenance(part: Part) -> list[list[str]]:
    """What the run rests on, as pairs of name and text."""
    run, info = part.run, part.run.info
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    found = [
        ["directory", part.place],
        ["space", f"{run.space.name}, digest {info['space_digest']}"],
        ["points", _points(info)],
        ["baseline", part.baseline],
        ["hypervolume", _volume(run)],
        ["profile", f"{info['profile'].get('name', '')}, checksum {info['profile'].get('checksum', '')}"],
    ]
    if part.space is not None:
        about = part.space.profile.provenance
        found += [
            ["model", f"{about.model}, SHA-256 {about.model_sha256}"],
            ["text", f"{about.text}, SHA-256 {about.text_sha256}"],
            ["measured by", f"{about.command} (seed {about.seed})"],
            ["measured as", about.notes],
        ]
    found += [["versions", versions], ["seed", str(info["seed"])], ["seconds", f"{info['seconds']:.3g}"]]
    return [pair for pair in found if pair[1]]


def _points(info: Mapping[str, Any]) -> str:
    text = (
        f"{info['points']:,} in the space, {info['evaluated']:,} evaluated, {info['infeasible']:,} infeasible"
    )
    return text + (f", {info['excluded']:,} excluded by proof" if info["excluded"] else "")


def _volume(run: Run) -> str:
    """The hypervolume of the run's front with the point it counts from."""
    where = ", ".join(f"{name} {brief(value)}" for name, value in run.info["reference_point"].items())
    return f"{run.info['hypervolume']:.6g}, reference point {where}"


def commands(part: Part) -> list[list[str]]:
    """How to make the run again: what was typed, and what needs nothing but this page."""
    found = [["as it was run", part.run.info["command"]]]
    if part.run.info.get("kind") != "study":
        again = f"dse sweep space.toml --seed {part.run.info['seed']} -o again"
        found.append(["from the resolved space below, saved as space.toml", again])
    return found


def comparisons(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Every two runs side by side, as `dse compare` puts them; a note where two do not compare."""
    from dse.search.compare import compare

    found: list[dict[str, Any]] = []
    for a, b in combinations(parts, 2):
        try:
            pair = compare(a.run, b.run, (a.name, b.name))
        except BadInput as error:
            found.append({"a": {"name": a.name}, "b": {"name": b.name}, "refused": str(error)})
            continue
        found.append(_comparison(pair))
    return found


def _comparison(pair: Comparison) -> dict[str, Any]:
    return {
        "a": _side(pair.a),
        "b": _side(pair.b),
        "objectives": {m: "more" if up else "less" for m, up in pair.objectives.items()},
        "reference": short(dict(pair.reference)),
        "joint": short(float(pair.joint)),
        "change": short(float(pair.change), 4),
        "differences": [[key, _text(pair_[0]), _text(pair_[1])] for key, pair_ in pair.differences.items()],
        "notes": list(pair.notes),
    }


def _side(side: Side) -> dict[str, Any]:
    ids = side.points["point"].astype(str)
    return {
        "name": side.name,
        "front": len(ids),
        "hypervolume": short(float(side.hypervolume)),
        "dominated": ids[side.dominated].tolist(),
        "equalled": ids[side.equalled].tolist(),
        "best": short(dict(side.best)),
        "algorithms": {name: list(counts) for name, counts in side.algorithms.items()},
    }


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " ".join(brief(v) for v in value)
    return brief(value)


def validation(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows of `dse validate` by system, and its closing line."""
    from dse.validation import PROOFS, SYSTEMS, tally

    return {
        "systems": [
            {
                "title": title,
                "tally": tally(mine).text,
                "failed": sum(row.failed for row in mine),
                "rows": [{**short(row.as_dict()), "failed": row.failed} for row in mine],
            }
            for name, (_, title) in SYSTEMS.items()
            if (mine := [row for row in rows if row.system == name])
        ],
        "proofs": dict(PROOFS),
        "tally": tally(list(rows)).text,
    }
