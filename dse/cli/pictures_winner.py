"""The winner map: from sweeps of one space over two axes, or from runs of spaces that differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.cli.environment import Environment
from dse.cli.options import check_once
from dse.errors import BadInput, nearest

if TYPE_CHECKING:
    from dse.charts.winner import Cell
    from dse.cli.pictures import Drawn
    from dse.cli.plot import Wish
    from dse.space import Space


Axes = list[tuple[str, list[Any]]]
"""Key and values of each axis of a map; two of them, the second without a key where there is one."""


def draw_winner(environment: Environment, runs: tuple[str, ...], wish: Wish) -> Drawn:
    """A map from runs, or from sweeps of one space."""
    from dataclasses import asdict

    from dse.charts.winner import winner_figure
    from dse.search.report import plain_json

    keys = [text.partition("=")[0] for text in wish.over]
    alone = len(runs) == 1
    if not alone and (len(keys) > 2 or any("=" in text for text in wish.over)):
        raise BadInput(
            f"--over {wish.over[-1]}: the axes of a map of several runs are one or two keys, their values the runs'; write "
            "--over KEY"
        )
    cells, axes, title = _swept(environment, runs[0], wish) if alone else _compared(runs, keys, wish)
    title = title if wish.title is None else wish.title
    x, y = (_axis_name(key) for key, _ in axes)
    figure = winner_figure(cells, x, y, wish.budget, title, wish.width, _ticks(axes))
    return figure, {"cells": plain_json([asdict(c) for c in cells]), "budget": wish.budget}


def _swept(environment: Environment, source: str, wish: Wish) -> tuple[list[Cell], Axes, str]:
    import itertools

    from dse.charts.labels import brief
    from dse.charts.winner import cell
    from dse.cli.runs import title
    from dse.errors import DseError
    from dse.inputs import split_key
    from dse.search.sweep import sweep
    from dse.space.source import parse_overrides

    if len(wish.over) not in (1, 2):
        raise BadInput(
            "--kind winner: name one or two axes: --over workload.batch=1,4,16 --over hardware.dram=hbm2,lpddr5"
        )
    given = {path for _, path, _ in parse_overrides(wish.overrides)}
    for text in wish.over:
        key = text.partition("=")[0]
        _check_decides(key, text)
        if split_key(key) in given:
            raise BadInput(f"--over {key}: is given by --set too; an axis has its values from --over alone")
    place = str(Path(source) / "space.toml") if Path(source).is_dir() else source
    axes = [_axis(text, place, wish.overrides) for text in wish.over]
    if len({key for key, _ in axes}) < len(axes):
        raise BadInput(f"--over {axes[0][0]}: named twice; the two axes of a map differ")
    if len(axes) == 1:
        axes.append(("", [""]))
    cells, first = [], None
    todo = list(itertools.product(*(values for _, values in axes)))
    with environment.progress_bar("space") as move:
        for done, pair in enumerate(todo):
            keys = {k: v for (k, _), v in zip(axes, pair, strict=True) if k}
            try:
                space, absent = measured_space(
                    place, [*wish.overrides, *(f"{k}={_toml(v)}" for k, v in keys.items())]
                )
            except BadInput as error:
                raise _of_axis(error, keys) from None
            first = first or space
            where = ", ".join(f"{k.rpartition('.')[2]} {brief(v)}" for k, v in keys.items())
            if absent:
                environment.remark(f"note: {where}: {', '.join(absent)} not measured, left out")
            try:
                front = sweep(space).front
            except DseError as error:
                if isinstance(error, BadInput):
                    raise
                environment.remark(f"note: {where}: {error}")
            else:
                cells.append(cell(front, wish.budget, *pair))
            move(done + 1, len(todo))
    assert first is not None
    words = title(first).splitlines()[0]
    for key, _ in axes:  # what varies is on the axes, not in the title
        last = key.partition(".")[2]
        words = ", ".join(part for part in words.split(", ") if not (last and part.startswith(f"{last} ")))
        if key == "workload.grouped":
            words = words.partition(";")[0]
    return cells, axes, words


def _check_decides(key: str, text: str) -> None:
    """Raise where an axis lies in no part of a space that decides its result."""
    from dse.space.reading import DECIDING

    section, dot, _ = key.partition(".")
    if section.strip() not in DECIDING or not dot:
        known = ", ".join(DECIDING)
        raise BadInput(f"--over {text}: no axis; must be a key of one of {known}, such as workload.batch")


def _of_axis(error: BadInput, keys: Collection[str]) -> BadInput:
    """An error about a value that was set because it stands on an axis, with the option that was typed."""
    message = str(error)
    for key in keys:
        if re.match(rf"--set {re.escape(key)}[.:=]", message):
            return BadInput(message.replace("--set", "--over", 1))
    return error


def measured_space(source: str, overrides: Sequence[str]) -> tuple[Space, list[str]]:
    """A space without the algorithms that its profile does not hold at its context, and their names.

    Raises:
        BadInput: as `load_space`, for any other reason.
    """
    from dataclasses import replace

    from dse.space.definition import DENSE
    from dse.space.reading import read_written, resolved

    written = read_written(source)
    try:
        return resolved(written, overrides), []
    except BadInput as error:
        reason = error
    algorithms = written.table.get("algorithms")
    if not isinstance(algorithms, dict):
        raise reason

    def only(names: Collection[str], lost: tuple[str, ...]) -> Space:
        kept = {name: knobs for name, knobs in algorithms.items() if name in names}
        without = replace(written, table={**written.table, "algorithms": kept})
        return resolved(without, [text for text in overrides if not text.startswith(lost)])

    try:
        known = only((DENSE,), ("algorithms.",))
    except BadInput:
        raise reason from None
    there = known.profile.measured(known.workload.context)
    absent = [n for n in algorithms if not any(there[i] for i in known.profile.rows(n))]
    if not absent or DENSE in absent:
        raise reason
    rest = [name for name in algorithms if name not in absent]
    return only(rest, tuple(f"algorithms.{name}." for name in absent)), absent


def _compared(runs: tuple[str, ...], keys: Sequence[str], wish: Wish) -> tuple[list[Cell], Axes, str]:
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
        keys = [
            k
            for k in differing
            if k.startswith(("workload.", "hardware.")) and all(_is_one(t.get(k)) for t in tables)
        ][:2]
    if not keys:
        raise BadInput(
            "--kind winner: the spaces of these runs differ in no entry of workload or hardware that has one value in "
            "each; name one with --over KEY"
        )
    for key in keys:
        if key not in tables[0]:
            raise BadInput(f"--over {key}: no such entry; {nearest(key, tables[0])}")
        for run, table in zip(runs, tables, strict=True):
            if not _is_one(table.get(key)):
                raise BadInput(f"--over {key}: {run} has {table.get(key)!r}; must be one value in each run")
    pairs = [tuple(t.get(k) for k in keys) for t in tables]
    if len(set(map(repr, pairs))) < len(pairs):
        raise BadInput(
            f"--kind winner: two runs have the same {' and '.join(keys)}; leave one out, or name other keys"
        )
    order = sorted(range(len(found)), key=lambda i: tuple((isinstance(v, str), v) for v in pairs[i]))
    cells = [
        cell(found[i].front, wish.budget, pairs[i][0], pairs[i][1] if len(keys) > 1 else "") for i in order
    ]
    axes = [(key, [pair[i] for pair in pairs]) for i, key in enumerate(keys)]
    return cells, (axes + [("", [])])[:2], ""


def _is_one(value: Any) -> bool:
    """Whether an entry of a space is one value, and no axis or nothing."""
    return isinstance(value, str | int | float)


def _axis(text: str, source: str, overrides: Sequence[str]) -> tuple[str, list[Any]]:
    """``key=v1,v2``, ``key=[...]`` in TOML, or ``key=all``."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise BadInput(f"--over {text}: no values; write KEY=V1,V2,...")
    if values == "all":
        return key, _every(key, source, overrides)
    found = [_value(v) for v in values.strip("[]").split(",")]
    check_once(f"--over {text}", found, "value")
    return key, found


def _every(key: str, source: str, overrides: Sequence[str]) -> list[Any]:
    """All values of a key that has few: the contexts a profile holds, or a choice of the hardware."""
    from dse.hardware.parameters import PARAMETERS

    if key == "workload.context":
        return list(measured_space(source, overrides)[0].profile.contexts)
    if key == "workload.grouped":
        return [True, False]
    choices = {f"hardware.{name}": p.choices for name, p in PARAMETERS.items() if p.choices}
    if key not in choices:
        known = ", ".join(("workload.context", "workload.grouped", *choices))
        raise BadInput(f"--over {key}=all: its values are not to be counted; all is for {known}")
    return list(choices[key])


def _ticks(axes: Axes) -> dict[str, str]:
    """What the ticks of values say that do not speak for themselves."""
    from dse.charts.labels import brief
    from dse.hardware.dram import device_rows

    said = {}
    devices = device_rows()
    for key, values in axes:
        for value in values:
            if key == "workload.grouped":
                said[brief(value)] = "shared by the\ngroup" if value else "one each"
            elif key == "hardware.dram" and value in devices:
                said[value] = f"{value}\n{devices[value]['atom_bytes']} B"
    return said


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

    if key == "hardware.dram":
        return "DRAM, bytes of an atom"
    if key.startswith("hardware."):
        return label(key).axis
    if key.startswith("algorithms."):
        return key.partition(".")[2]
    last = key.rpartition(".")[2]
    units = {
        "context": "context (tokens)", "batch": "batch (sequences)", "grouped": "keys and values of the query heads",
    }  # fmt: skip
    return units.get(last, last.replace("_", " "))
