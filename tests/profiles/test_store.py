from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.errors import BadInput
from dse.profiles import store
from dse.profiles.profile import Profile, arrays_of, build_profile
from dse.profiles.store import load_profile, read_profile, shipped_profiles, write_profile
from profiles.synthetic import fields, profile


def same(a: Profile, b: Profile) -> bool:
    plain = ("name", "phase", "shape", "contexts", "settings", "provenance", "defaults", "checksum")
    return all(getattr(a, f) == getattr(b, f) for f in plain) and all(
        np.array_equal(x, y, equal_nan=True) and x.dtype == y.dtype
        for x, y in zip(arrays_of(a).values(), arrays_of(b).values(), strict=True)
    )


@pytest.mark.parametrize("seed", range(5))
def test_round_trip(tmp_path: Path, seed: int) -> None:
    given = fields(seed)
    given["counters"][1, 1] = np.nan
    given["accuracy"][1, 1] = np.nan
    made = build_profile(**given)
    write_profile(tmp_path / "deep" / "tiny.npz", made)
    assert same(read_profile(tmp_path / "deep" / "tiny.npz"), made)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["tiny.npz"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.npz"
    write_profile(path, profile())
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(BadInput, match="no space left"):
        write_profile(path, profile(1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.npz"]


@pytest.fixture
def raw(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "tiny.npz"
    write_profile(path, profile())
    with np.load(path) as data:
        return path, dict(data)


def rewrite(path: Path, arrays: dict[str, Any], **header: Any) -> None:
    table = json.loads(arrays["header"].tobytes()) | header
    text = json.dumps({k: v for k, v in table.items() if v is not ...}).encode()
    np.savez_compressed(path, **{**arrays, "header": np.frombuffer(text, dtype=np.uint8)})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"schema": 99}, "schema: 99"),
        ({"colour": 1}, "header.colour: unknown key"),
        ({"schema": True}, "schema: True"),
        ({"nmae": "x"}, "header.nmae: unknown key; did you mean 'name'?"),
        ({"phase": ...}, "header.phase: missing"),
        ({"name": 3}, "header.name: 3; must be str"),
        ({"contexts": [64, 128.5]}, "contexts: [64, 128.5]; must be whole numbers"),
        ({"columns": ["group.v_rowz"]}, "columns: ['group.v_rowz']"),
        ({"accuracy": []}, "accuracy: columns []"),
        ({"shape": {"layers": 2}}, "shape.query_heads: missing"),
        ({"settings": [{"algorithm": "x", "knobs": {"a": [1]}, "form": {}}]}, "settings[0]"),
        ({"defaults": {"beta": 4}}, "defaults.beta"),
        ({"checksum": "0" * 64}, "checksum: does not match"),
        ({"name": "other"}, "checksum: does not match"),
    ],
)
def test_a_strange_header_is_refused(raw: tuple[Path, dict[str, Any]], header: Any, message: str) -> None:
    path, arrays = raw
    rewrite(path, arrays, **header)
    with pytest.raises(BadInput) as caught:
        read_profile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changed_numbers_are_noticed(raw: tuple[Path, dict[str, Any]]) -> None:
    path, arrays = raw
    arrays["accuracy"][0, 0, 0] += 0.01
    rewrite(path, arrays)
    with pytest.raises(BadInput, match="checksum"):
        read_profile(path)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(raw: tuple[Path, dict[str, Any]], keep: float) -> None:
    path, _ = raw
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(BadInput, match="damaged or truncated"):
        read_profile(path)


def test_a_damaged_byte_is_noticed(raw: tuple[Path, dict[str, Any]]) -> None:
    path, _ = raw
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadInput):
        read_profile(path)


class Trap:
    """Unpickling this leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_pickled_objects_are_refused_unopened(raw: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, arrays = raw
    trace = tmp_path / "executed"
    np.savez_compressed(path, **{**arrays, "accuracy": np.array([Trap(trace)], dtype=object)})
    with pytest.raises(BadInput, match="dtype object"):
        read_profile(path)
    assert not trace.exists()


def test_other_dtypes_missing_and_extra_arrays_are_refused(raw: tuple[Path, dict[str, Any]]) -> None:
    path, arrays = raw
    np.savez_compressed(path, **{**arrays, "accuracy": arrays["accuracy"].astype(np.float16)})
    with pytest.raises(BadInput, match="dtype float16"):
        read_profile(path)
    np.savez_compressed(path, **{**arrays, "extra": np.zeros(1)})
    with pytest.raises(BadInput, match=r"extra\.npy"):
        read_profile(path)
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if k != "accuracy"})
    with pytest.raises(BadInput, match=r"accuracy\.npy"):
        read_profile(path)


def test_a_file_that_claims_to_be_huge_is_refused(
    raw: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = raw
    monkeypatch.setattr(store, "MAX_BYTES", 1000)
    with pytest.raises(BadInput, match="unpacks to"):
        read_profile(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04"])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="not a readable profile"):
        read_profile(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BadInput, match="do not belong"):
        read_profile(path)


def test_missing_file_and_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such profile"):
        read_profile(tmp_path / "none.npz")
    with pytest.raises(BadInput, match="profile 'nobody': not shipped"):
        load_profile("nobody")
    with pytest.raises(BadInput, match="no such profile"):
        load_profile("./nobody.npz")


def test_every_shipped_profile_is_readable() -> None:
    for name, path in shipped_profiles().items():
        assert load_profile(name).name == name, path


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot write"):
        write_profile(tmp_path / "file" / "p.npz", profile())
