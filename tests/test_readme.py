"""Every command that README shows runs, in order, in one folder; every picture it shows is made by one of them.

A block of commands that cannot run here stands behind a comment that says why: ``<!-- not run: needs a cluster -->``.
A block that is a file stands behind ``<!-- file: my-question.toml -->``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|file): (?P<said>[^\n]*?) -->\n\n?)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
LIMIT_S = 280
"""Of one command; nothing in README takes that long on two cores."""


def blocks(kind: str) -> list[re.Match[str]]:
    return [found for found in BLOCK.finditer(README) if found["kind"] == kind]


def commands() -> list[str]:
    """Lines of all blocks that are run, continued lines joined, comments left out."""
    lines = []
    for block in blocks("sh"):
        if block["mark"] != "not run":
            text = block["text"].replace("\\\n", " ")
            lines += [line.split("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as far as commands see it."""
    home = tmp_path_factory.mktemp("readme")
    for name in ("spaces", "results/published", "tests/examples"):
        shutil.copytree(ROOT / name, home / name)
    for block in BLOCK.finditer(README):
        if block["mark"] == "file":
            (home / block["said"]).write_text(block["text"], encoding="utf-8")
    return home


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_runs(command: str, home: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{home}:{os.environ['PATH']}",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
    }
    shim = home / "dse"
    if not shim.exists():
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dse "$@"\n')
        shim.chmod(0o755)
    done = subprocess.run(
        ["bash", "-ec", command], cwd=home, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_most_of_the_readme_is_run() -> None:
    assert len(commands()) >= 20
    for block in blocks("sh"):
        if block["mark"] == "not run":
            assert len(block["said"]) > 5, f"why is this not run?\n{block['text']}"


def test_every_picture_is_made_by_a_command() -> None:
    made = " ".join(block["text"] for block in blocks("sh"))
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file(), picture
        assert picture in made or str(Path(picture).parent) in made, f"no command of README makes {picture}"


def test_every_link_into_the_project_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
