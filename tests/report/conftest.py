"""A small run and pages made of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from cli.conftest import made_profile, swept  # noqa: F401  (fixtures)

from dse.cli.runs import baseline_name, title
from dse.report.content import Part
from dse.results import read_run
from dse.space import load_space


@pytest.fixture(scope="session")
def part(swept: Path) -> Part:  # noqa: F811
    """The run with its profile, without a sample."""
    with contextlib.chdir(swept):
        run = read_run(swept / "results/tiny")
        space = load_space(swept / "results/tiny/space.toml")
        return Part(
            "tiny", "results/tiny", run, title(run.space).splitlines()[0], baseline_name(run.space), space
        )
