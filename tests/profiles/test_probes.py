"""A table of probes is taken as it was written, or refused in one line: nothing in it is bent to fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.cli.probe_table import probe_rows, probe_table
from dse.errors import BadInput
from dse.profiles import probes
from dse.profiles.probes import Probe, Probes, read_probes, shipped_probes, write_probes

ROW = Probe("window", {"recent": 8}, ((True, False),), ((0.5, 1.5),), (3,), (0.5,))
TABLE = Probes("tiny", 320, 6, "abc", {"text": "none"}).having(ROW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_probes(tmp_path / "p.json", TABLE)
    return tmp_path / "p.json"


def change(path: Path, where: tuple[str | int, ...], value: Any) -> None:
    """Put a value (or, for ..., nothing) somewhere, with a checksum that fits."""
    document = json.loads(path.read_text())
    holder = document
    for key in where[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[where[-1]]
    else:
        holder[where[-1]] = value
    document["checksum"] = probes._checksum(document)
    path.write_text(json.dumps(document))


def test_what_ships_is_read() -> None:
    assert shipped_probes()
    for path in shipped_probes().values():
        assert read_probes(path).rows


def test_a_change_that_fits_is_read(path: Path) -> None:
    change(path, ("rows", 0, "same", 0), 4)
    assert read_probes(path).rows[0].same == (4,)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("context",), 1.5, "context: is missing or of the wrong kind"),
        (("context",), True, "context: is missing or of the wrong kind"),
        (("tokens",), -1, "tokens: is missing"),
        (("tokens",), 2, "same of row 1 is above tokens, 2"),
        (("model",), 3, "model: is missing"),
        (("provenance",), [], "provenance: is missing"),
        (("rows",), {}, "rows: is missing"),
        (("rows",), [[]], "rows: is missing"),
        (("more",), 1, "more: unknown key"),
        (("material",), ..., "material: is missing"),
        (("rows", 0, "more"), 1, "more of row 1"),
        (("rows", 0, "knobs"), {"a": [1]}, "knobs of row 1"),
        (("rows", 0, "algorithm"), "", "algorithm of row 1"),
        (("rows", 0, "right"), ["yes"], "right of row 1"),
        (("rows", 0, "right"), [[1, 0]], "right of row 1"),
        (("rows", 0, "right"), [], "right of row 1"),
        (("rows", 0, "right"), [[True]], "as long as each other"),
        (("rows", 0, "nll"), [[0.5, "1"]], "nll of row 1"),
        (("rows", 0, "nll"), [[0.5, -1]], "nll of row 1"),
        (("rows", 0, "nll"), [[0.5, 1e308]], "nll of row 1"),
        (("rows", 0, "same"), [3, 3], "as long as each other"),
        (("rows", 0, "same"), [2.5], "same of row 1"),
        (("rows", 0, "agree"), [1.5], "agree of row 1"),
        (("rows", 0, "agree"), ..., "agree of row 1"),
    ],
)
def test_what_no_probe_gives_is_refused(
    path: Path, where: tuple[str | int, ...], value: Any, message: str
) -> None:
    change(path, where, value)
    with pytest.raises(BadInput) as caught:
        read_probes(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_setting_stands_there_once(path: Path) -> None:
    document = json.loads(path.read_text())
    change(path, ("rows",), document["rows"] * 2)
    with pytest.raises(BadInput, match="a setting appears twice"):
        read_probes(path)


@pytest.mark.parametrize("depths", [1, 2, 3, 4, 9])
def test_a_table_has_a_column_for_each_of_few_depths(depths: int) -> None:
    nll = tuple(float(i) for i in range(depths))
    table = Probes("tiny", 320, 6, "abc", {"text": "none"}).having(
        Probe("window", {"recent": 8}, ((True,) * depths,), (nll,), (3,), (0.5,))
    )
    (row,) = probe_rows(table)
    assert len(row["nll_by_quarter"]) == min(depths, 4)
    assert row["nll_by_quarter"][0] == pytest.approx(np.mean(nll[: max(1, -(-depths // 4))]))
    shown = probe_table(table, 200)
    assert "nan" not in shown
    heads = shown.splitlines()[1]
    assert ("newest" in heads, "3rd" in heads) == (depths > 1, depths > 3)
