"""What a comparison at equal accuracy leaves behind: a table, a JSON object, the settings, in one folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from dse.errors import BadInput
from dse.inputs import parse_json, read_text
from dse.results import MAX_INFO, write_text
from dse.search.match import FIGURES, Judged, Match, Pick
from dse.search.report import plain_json, versions
from dse.space.definition import Space

TABLE, INFO, SETTINGS, SPACE = "match.csv", "match.json", "settings.toml", "space.toml"

PICTURES: Final = ("match.png", "match.svg")
OURS: Final = (TABLE, SETTINGS, SPACE, *PICTURES, INFO)
"""All that a comparison consists of. The last one is put in place last: a folder that has it has all of one kind."""

MATCH_SCHEMA = 1

COLUMNS: Final = (
    "budget", "algorithm", "oracle", "within_budget", "same_loss", "gain_over_dense",
    "nll_increase", "nll_increase_low", "nll_increase_high",
    "selection_nll_increase", "selection_nll_increase_low", "selection_nll_increase_high",
    *FIGURES, "bound", "point",
)  # fmt: skip
"""What a row of ``match.csv`` begins with, also where no algorithm reaches any budget."""

Draw = Callable[[Path], None]
"""Adds charts to the folder."""


def settings_toml(space: Space, picks: Iterable[Pick], chosen_on: str) -> str:
    """The chosen settings as a grid that `dse profile run --grid` measures, each once, the baseline's first.

    `chosen_on` is the profile's name.
    """
    import tomli_w

    tables: list[dict[str, Any]] = []
    if space.baseline.processor is None:
        tables.append({"algorithm": space.baseline.algorithm, **space.baseline.knobs})
    tables += [{"algorithm": pick.algorithm, **pick.knobs} for pick in picks]
    unique = {json.dumps(_floats(table), sort_keys=True): table for table in tables}
    head = (
        f"# Chosen on profile {chosen_on}, context {space.workload.context}, by dse match: the fastest setting "
        "of each\n# algorithm within each accuracy budget, and the baseline. Measure them on other text:\n"
        "# dse profile run --grid THIS-FILE --part confirmation\n"
    )
    return head + tomli_w.dumps({"grid": list(unique.values())})


def _floats(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in table.items()}


def record(row: Judged) -> dict[str, Any]:
    """One row as plain values under the names of ``front.csv`` (knobs and hardware apart)."""
    pick = row.pick
    values = (
        pick.budget, pick.algorithm, pick.oracle, row.kept, row.letters, row.gain,
        *row.loss, *pick.loss, *(row.figures[name] for name in FIGURES), row.bound, pick.point,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def table(match: Match) -> str:
    """All rows as CSV: figures first, then dotted knobs and hardware, empty where they do not apply."""
    import pandas as pd

    rows = []
    for row in match.rows:
        knobs = {f"{row.pick.algorithm}.{k}": v for k, v in row.pick.knobs.items()}
        hardware = {f"hardware.{k}": v for k, v in row.pick.design.items()}
        rows.append((record(row), knobs, hardware))
    columns = [*COLUMNS, *dict.fromkeys(c for part in (1, 2) for r in rows for c in r[part])]
    frame = pd.DataFrame(
        [{**figures, **knobs, **hardware} for figures, knobs, hardware in rows], columns=columns, dtype=object
    )
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def info(match: Match, command: str) -> dict[str, Any]:
    """The object of ``match.json``: rows, pairs, what no setting reaches, and where it all comes from."""
    found = match.search.info
    plain: dict[str, Any] = plain_json({
        "schema": MATCH_SCHEMA,
        "space": match.space.name,
        "space_digest": found["space_digest"],
        "grouped": match.space.workload.grouped,
        "context": match.space.workload.context,
        "batch": match.space.workload.batch,
        "budgets": match.budgets,
        "profile": found["profile"],
        "confirmation": {
            "name": match.confirmation.name,
            "checksum": match.confirmation.checksum,
            "text": match.confirmation.provenance.text,
            "windows": match.confirmation.window_counts[
                match.confirmation.context_index(match.space.workload.context)
            ],
        },
        "baseline": found["baseline"],
        "rows": [
            {**record(r), "alike": r.alike, "knobs": dict(r.pick.knobs), "hardware": dict(r.pick.design)}
            for r in match.rows
        ],
        "not_reached": [{"budget": budget, "algorithm": name} for budget, name in match.absent],
        "pairs": [
            {
                "budget": p.budget,
                "first": p.first,
                "second": p.second,
                "nll_difference": p.difference.mean,
                "nll_difference_low": p.difference.low,
                "nll_difference_high": p.difference.high,
                "distinct": p.difference.distinct,
            }
            for p in match.pairs
        ],
        "points": found["points"],
        "versions": versions(),
        "command": command,
    })  # fmt: skip
    return plain


def check_directory(directory: Path) -> None:
    """Raise BadInput where no comparison can be written, or something else lies; creates nothing.

    What space a comparison there is of is left to `check_folder`.
    """
    choose = "nothing was overwritten, choose another folder with --output"
    parent = next(p for p in directory.absolute().parents if p.exists())
    if directory.is_symlink():
        raise BadInput(f"{directory}: is a symbolic link; {choose}")
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise BadInput(
            f"{directory}: cannot be created, {parent} is not a folder that can be written; {choose}"
        )
    if directory.exists():
        _digest(directory)


def check_folder(directory: Path, digest: str, replace: bool = False) -> None:
    """Raise BadInput where something else than a match of the same space lies; creates nothing.

    `replace` allows a match of another space, or of the same one on an older profile.
    """
    choose = "nothing was overwritten, choose another folder with --output"
    there = _digest(directory) if directory.exists() else ""
    if there and there != digest and not replace:
        raise BadInput(
            f"{directory}: holds the comparison of another space, or of this one on another profile; {choose}, or "
            "give --replace"
        )


def _digest(directory: Path) -> str:
    """The space of the comparison in a folder; empty where there is nothing in it, or half of one.

    Raises:
        BadInput: it is no folder, or there is something else in it, be it beside a comparison.
    """
    choose = "nothing was overwritten, choose another folder with --output"
    if not directory.is_dir():
        raise BadInput(f"{directory}: is not a directory; {choose}")
    content = sorted(p.name for p in directory.iterdir())
    if not content:
        return ""
    other = [name for name in content if name not in OURS]
    if other and (directory / INFO).exists():
        raise BadInput(f"{directory}: holds {other[0]!r} beside a comparison; move it away, or {choose}")
    if not other and TABLE in content and INFO not in content:  # what replaced it was killed
        return ""
    try:
        about = parse_json(str(directory / INFO), read_text(directory / INFO, MAX_INFO, choose), choose)
        return str(about["space_digest"])
    except (BadInput, KeyError, TypeError):
        raise BadInput(
            f"{directory}: holds {content[0]!r} and no comparison by dse match; {choose}"
        ) from None


def write_match(
    directory: Path, match: Match, command: str, draw: Draw | None = None, replace: bool = False
) -> None:
    """Write the folder: it appears whole, or replaces an older comparison of the same space file by file.

    `match.json` is in place last: without it a folder is no comparison, and the next one completes it. `draw` adds
    `PICTURES`; `replace` as in `check_folder`.

    Raises:
        BadInput: as `check_folder`, or the place cannot be written.
    """
    about = info(match, command)
    check_folder(directory, about["space_digest"], replace)
    part = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        part.chmod(0o755)
        write_text(part / TABLE, table(match))
        write_text(part / INFO, json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        write_text(part / SPACE, match.space.to_toml())
        chosen_on = match.search.info["profile"]["name"]
        write_text(part / SETTINGS, settings_toml(match.space, (r.pick for r in match.rows), chosen_on))
        if draw is not None:
            draw(part)
        _place(part, directory)
    except OSError as error:
        raise BadInput(f"{directory}: cannot be written: {error.strerror}; choose another folder") from None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _place(new: Path, place: Path) -> None:
    """Put the files of `new`, all of them on the disk, where `place` is; no other file there is touched."""
    if not place.exists():
        os.replace(new, place)
        return
    (place / INFO).unlink(missing_ok=True)
    for name in OURS:
        if (new / name).exists():
            os.replace(new / name, place / name)
        else:
            (place / name).unlink(missing_ok=True)
