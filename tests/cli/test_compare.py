from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Dse

RUN = "results/tiny"


@pytest.fixture
def two(dse: Dse, home: Path) -> Path:
    """A directory with a run and one of fewer lanes on another baseline."""
    dse("sweep", "tiny.toml", cwd=home)
    changes = ("--set", "hardware.lanes=24", "--set", "baseline.k_bits=8", "--set", "baseline.v_bits=8")
    dse("sweep", "tiny.toml", *changes, "-o", "narrow", cwd=home)
    return home


def test_two_runs_side_by_side(dse: Dse, two: Path) -> None:
    answer = dse("compare", RUN, "narrow", "-o", "both.svg", cwd=two)
    assert answer.code == 0
    for expected in ("narrow against tiny: hypervolume", "reference point speedup", "dominated by tiny",
                     "hardware.lanes", "24 48", "what differs in the spaces"):  # fmt: skip
        assert expected in answer.stdout
    assert "B's ratios are taken over A's baseline" in answer.stderr
    text = (two / "both.svg").read_text()
    for expected in ("reference point", "hypervolume", "speedup over the baseline (x)"):
        assert expected in text


def test_json_is_clean_and_says_it_all(dse: Dse, two: Path) -> None:
    answer = dse("compare", RUN, "narrow", "--json", cwd=two)
    found = answer.json
    assert found["a"]["name"] == "tiny"
    assert found["hypervolume_joint"] >= max(found[side]["hypervolume"] for side in "ab")
    assert found["hypervolume_difference"] == found["b"]["hypervolume"] - found["a"]["hypervolume"]
    assert found["a"]["dominated"] == [], "fewer lanes are never faster"
    assert found["differences"]["hardware.lanes"] == {"a": [24, 48], "b": 24}
    assert found["rebased"]["speedup"] != 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RUN, "nowhere"), "nowhere: no such run"),
        ((RUN, RUN, "-x", "speedpu", "-o", "a.svg"), "did you mean 'speedup'"),
        ((RUN, RUN, "-x", "speedup"), "dse compare: -x: has no effect here; they are of the chart"),
        ((RUN, RUN, "--style", "dark"), "dse compare: --style: has no effect here"),
        ((RUN, RUN, "-o", "a.jpg"), "a chart is one of .png, .svg, .pdf"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    dse: Dse, swept: Path, arguments: tuple[str, ...], message: str
) -> None:
    answer = dse("compare", *arguments, cwd=swept)
    assert answer.code == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
