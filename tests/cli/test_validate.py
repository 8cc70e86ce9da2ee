"""`dse validate` as a shell session."""

from __future__ import annotations

import pytest

from cli.conftest import Dse
from dse.validation import PROOFS, SYSTEMS, Row

KEYS = {
    "system", "quantity", "unit", "published", "ours", "reference", "error", "error_is", "tolerance", "within",
    "proves", "source", "assumed",
}  # fmt: skip


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows of the dense head: one that fails, one that is only shown, one with words to wrap."""
    rows = [
        Row("dense", "wrong", 10.0, 20.0, "a book", "nothing", "independent", "s", 0.1),
        Row("dense", "shown", None, 3.0, "a book", "nothing", "independent", "s"),
        Row(
            "dense",
            "fitted " + "far " * 30,
            1e-9,
            3e-9,
            "a book",
            "much " * 60,
            "fitted",
            "J",
            0.5,
            reference=2e-9,
        ),
    ]
    monkeypatch.setattr("dse.validation.dense.rows", lambda: rows)


def test_a_system_prints_its_numbers_and_where_they_are_from(dse: Dse) -> None:
    answer = dse("validate", "dense")
    assert answer.code == 0
    assert "131200" in answer.stdout
    assert "131072" in answer.stdout
    assert "1 % ok" in answer.stdout
    assert "Assumed:" in answer.stdout
    last = answer.stdout.rstrip().splitlines()[-1]
    assert last == "5 independent: 5 within tolerance; 0 fitted: 0; 0 identity: 0; 1 shown without tolerance"
    assert answer.stderr == ""


@pytest.mark.parametrize("columns", [100, 80])
def test_everything_fits_the_window(dse: Dse, columns: int) -> None:
    answer = dse("validate", columns=columns)
    assert max(map(len, answer.stdout.splitlines())) <= columns
    for _, title in SYSTEMS.values():
        assert title in answer.stdout
    assert all(f"{proof}: " in answer.stdout.replace("\n", " ") for proof in PROOFS)


def test_an_independent_row_outside_its_tolerance_fails_the_command(dse: Dse, pretend: None) -> None:
    answer = dse("validate", "dense")
    assert answer.code == 1
    assert "10 % FAILS" in answer.stdout
    assert "50 % off" in answer.stdout
    assert "outside its tolerance: dense: wrong: +100.0 %" in answer.stderr
    assert answer.stderr.splitlines()[-1] == (
        "error: validate: 1 of 1 independent rows are outside their tolerance"
    )
    assert "1 independent: 0 within tolerance; 1 fitted: 0; 0 identity: 0; 1 shown" in answer.stdout
    assert dse("validate", "dense", "--json").code == 1


def test_brief_drops_sources(dse: Dse, pretend: None) -> None:
    answer = dse("validate", "dense", "--brief")
    assert "wrong" in answer.stdout
    assert "a book" not in answer.stdout
    assert "2.000e-9" not in answer.stdout
    assert "2.000e-9" in dse("validate", "dense").stdout


def test_json_holds_every_row_in_full(dse: Dse, pretend: None) -> None:
    found = dse("validate", "dense", "--json").json
    assert set(found) == {
        "rows", "systems", "proofs", "independent", "within", "failed", "shown", "fitted", "fitted_within", "identity",
        "identity_within",
    }  # fmt: skip
    assert all(set(row) == KEYS for row in found["rows"])
    wrong, shown, fitted = found["rows"]
    assert (wrong["published"], wrong["ours"], wrong["error"], wrong["within"]) == (10.0, 20.0, 1.0, False)
    assert wrong["error_is"] == "fraction"
    assert (shown["published"], shown["error"], shown["tolerance"], shown["within"]) == (
        None,
        None,
        None,
        None,
    )
    assert fitted["proves"] == "fitted"
    assert (found["independent"], found["within"], found["failed"], found["fitted"]) == (1, 0, 1, 1)
    assert found["systems"] == {"dense": SYSTEMS["dense"][1]}
    assert found["proofs"] == PROOFS


def test_json_of_real_rows_is_strict(dse: Dse) -> None:
    found = dse("validate", "a3", "adore", "top-theta", "--json").json
    assert {row["system"] for row in found["rows"]} == {"a3", "adore", "top-theta"}


def test_an_unknown_system_is_named(dse: Dse) -> None:
    answer = dse("validate", "spaten")
    assert answer.code == 2
    assert answer.stderr == "error: validate: spaten: no such system; did you mean 'spatten'?\n"
