from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dse as package
from cli.conftest import Dse


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(dse: Dse, shell: str) -> None:
    answer = dse("completion", shell)
    assert answer.code == 0
    assert f"_DSE_COMPLETE={shell}_complete" in answer.stdout
    assert "dse" in answer.stdout


def complete(words: str, folder: Path) -> list[str]:
    """What bash would offer for a line that ends in the word being typed."""
    number = len(words.split(" ")) - 1
    environment = {
        **os.environ, "COMP_WORDS": words, "COMP_CWORD": str(number), "_DSE_COMPLETE": "bash_complete",
        "PYTHONPATH": str(Path(package.__file__).parents[1]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from dse.cli import main; raise SystemExit(main([]))"], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_real_names_complete(swept: Path) -> None:
    assert complete("dse sweep quick", swept) == ["quickstart"]
    assert complete("dse front results/", swept)[:1] == ["results/tiny"]
    assert "energy_saving" in complete("dse plot results/tiny -y energy", swept)
    assert complete("dse comp", swept) == ["compare", "completion"]


def test_an_unknown_shell_is_refused(dse: Dse) -> None:
    answer = dse("completion", "tcsh")
    assert answer.code == 2
    assert "tcsh" in answer.stderr
