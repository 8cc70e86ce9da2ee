"""A small space on a profile made by pen; its exact front comes from a sweep."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from cli.conftest import TINY
from cli.conftest import dse as dse  # a fixture
from cli.synthetic import synthetic_profile

from dse.profiles.profile import Profile
from dse.profiles.store import write_profile
from dse.space import load_space
from dse.space.definition import Space

THRESHOLD = "threshold = [1e-4, 1e-3, 1e-2]"


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No test waits for ever for another process."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the test took more than four minutes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(240)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def profile() -> Profile:
    return synthetic_profile()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> Path:
    """A directory with ``tiny.toml`` and the profile it names."""
    path = tmp_path_factory.mktemp("study")
    write_profile(path / "tiny.npz", profile)
    (path / "tiny.toml").write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def space(folder: Path) -> Space:
    return load_space(folder / "tiny.toml")


@pytest.fixture
def home(tmp_path: Path, folder: Path) -> Path:
    """A copy of `folder` for one test."""
    for name in ("tiny.npz", "tiny.toml"):
        shutil.copy(folder / name, tmp_path / name)
    return tmp_path
