"""A shell session in a function: `dse("sweep", "quickstart")` runs in a directory of its own."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.any_space import OWN
from cli.synthetic import synthetic_profile
from dse.cli import main
from dse.cli.environment import DEFAULT_COLUMNS, Environment
from dse.profiles.store import write_profile


@dataclass(frozen=True)
class Answer:
    """What a command left on its streams, and its exit code."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """stdout as strict JSON."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(self.stdout, parse_constant=refuse)


def answer(folder: Path, *arguments: object, columns: int = DEFAULT_COLUMNS, colour: bool = False) -> Answer:
    """A command in this process, in a folder, with streams of its own."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder):
        code = main([str(a) for a in arguments], Environment(out, err, columns=columns, colour=colour))
    return Answer(code, out.getvalue(), err.getvalue())


Dse = Callable[..., Answer]


@pytest.fixture
def dse(tmp_path: Path) -> Dse:
    """Run `dse` in-process, in `cwd` (default: this test's directory), with streams of its own."""

    def run(*arguments: object, cwd: Path = tmp_path, columns: int = 100, colour: bool = False) -> Answer:
        return answer(cwd, *arguments, columns=columns, colour=colour)

    return run


TINY = """\
schema = 1
description = "a small space for tests"

[workload]
profile = "tiny.npz"
context = 1024

[algorithms.dense]
unmeasured = "skip"
k_bits = [4, 6, 8, 12]
v_bits = [4, 6, 8, 12]

[algorithms.token-picker]
threshold = [1e-4, 1e-3, 1e-2]
chunks = ["4+4+4", "6+6"]

[algorithms.spatten]
keep = [0.3, 0.9]

[hardware]
base = "topick-gqa"
lanes = [24, 48]
dram_channels = [4, 8]

[constraints]
nll_increase = { max = 0.3 }
"""


@pytest.fixture(scope="session")
def made_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic profile, written once."""
    path = tmp_path_factory.mktemp("profile") / "tiny.npz"
    write_profile(path, synthetic_profile())
    return path


@pytest.fixture
def home(tmp_path: Path, made_profile: Path) -> Path:
    """A directory with `tiny.toml` and the profile it names."""
    shutil.copy(made_profile, tmp_path / "tiny.npz")
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory, made_profile: Path) -> Path:
    """A directory where `dse sweep tiny.toml` has run; for tests that only read."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copy(made_profile, folder / "tiny.npz")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    with contextlib.chdir(folder):
        assert main(["sweep", "tiny.toml", "--json"], Environment(io.StringIO(), io.StringIO())) == 0
    return folder


AGAINST = """\
schema = 1

[workload]
profile = "tiny.npz"
context = 1024

[algorithms.dense]
k_bits = 8
v_bits = 8

[algorithms.token-picker]
threshold = [1e-3, 1e-2]
chunks = "6+6"
margin = 0.5

[hardware]
base = "sub/own.toml"
lanes = [24, 48]
clock_ghz = 1.0
dram_channels = 2

[hardware.for.token-picker]
clock_ghz = 0.7

[baseline]
processor = "a100-80gb"
"""


@pytest.fixture(scope="session")
def against(tmp_path_factory: pytest.TempPathFactory, made_profile: Path) -> Path:
    """A directory with `against.toml`, its base and its run against a processor; for tests that only read."""
    folder = tmp_path_factory.mktemp("against")
    shutil.copy(made_profile, folder / "tiny.npz")
    (folder / "sub").mkdir()
    (folder / "sub/own.toml").write_text(OWN, encoding="utf-8")
    (folder / "against.toml").write_text(AGAINST, encoding="utf-8")
    with contextlib.chdir(folder):
        assert main(["sweep", "against.toml", "--json"], Environment(io.StringIO(), io.StringIO())) == 0
    return folder


@pytest.fixture
def against_own(against: Path, tmp_path: Path) -> Path:
    """A copy of `against` to change."""
    return Path(shutil.copytree(against, tmp_path / "against"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
