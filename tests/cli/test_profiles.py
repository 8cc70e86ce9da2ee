"""What `dse list profiles`, `dse profile show` and `dse profile merge` say about profiles of several contexts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from profiles.synthetic import settings
from profiles.test_merge import at, scales
from profiles.test_tiles import build_profile, prefill_fields

from cli.conftest import Dse
from dse.cli import list as list_module
from dse.cli.environment import Environment
from dse.cli.profile_merge import merge
from dse.profiles import store
from dse.profiles.coverage import coverage
from dse.profiles.merge import merge_profiles
from dse.profiles.store import load_profile, read_profile, write_profile

SHORT, LONG = at({256: 8}), at({1024: 2}, settings()[:10])
WHOLE = merge_profiles(SHORT, LONG)


def test_the_list_tells_what_is_measured_and_what_is_missing(dse: Dse) -> None:
    answer = dse("list", "profiles")
    entries = {e["name"]: e for e in dse("list", "profiles", "--json").json}
    profile = load_profile("smollm2-135m")
    entry = entries["smollm2-135m"]
    for covered in coverage(profile):
        assert entry["windows"][str(covered.context)] == covered.windows
        assert entry["measured"][str(covered.context)] == {a: n for a, n in covered.settings.items() if n}
        assert f"dense {covered.settings['dense']}" in answer.stdout
    text = answer.stdout
    assert "missing, tier 2:" in text
    for name in ("contexts 1024", "retrieval by depth", "context 4096: not measured"):
        assert name in text
    assert "token-picker.threshold 0." in " ".join(text.split())
    assert any(e["knob"] == "threshold" and e["share"] < 0.05 for e in entry["interpolation"])
    assert entries["smollm2-135m-code"]["contexts"] == []


def test_a_row_per_context_with_its_own_windows(
    dse: Dse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(tmp_path / "tiny.npz", WHOLE)
    write_profile(tmp_path / "tiny-prefill.npz", build_profile(**prefill_fields()))
    paths = {p.stem: p for p in sorted(tmp_path.glob("*.npz"))}
    monkeypatch.setattr(store, "shipped_profiles", lambda: paths)
    lines = dse("list", "profiles").stdout.splitlines()
    rows = [" ".join(line.split()) for line in lines if line.startswith("tiny ")]
    assert rows == ["tiny decode 256 8 dense 9, alpha 6, beta 3", "tiny decode 1024 2 dense 9, alpha 1"]
    text = " ".join(" ".join(lines).split())
    assert "tiles of 1, 4, 16, 64, 128 queries" in text
    assert "  smollm2-135m: not measured (contexts 256, 512, 1024)" in lines


def test_show_names_the_windows_of_its_context_and_what_is_not_measured_there(
    dse: Dse, tmp_path: Path
) -> None:
    write_profile(tmp_path / "tiny.npz", WHOLE)
    long = dse("profile", "show", "tiny.npz").stdout
    assert "context 1024" in long.splitlines()[0]
    assert "2 windows" in long.splitlines()[0]
    assert "context 1024 (2 windows): dense 9, alpha 1 settings; not measured: beta" in long
    short = dse("profile", "show", "tiny.npz", "--context", "256").stdout
    assert "8 windows" in short.splitlines()[0]
    assert "between measured values of beta.keep (3 of them, 1 left out in turn)" in " ".join(short.split())
    assert "beta.keep" not in long


def test_show_names_the_widths_of_the_scales(dse: Dse, tmp_path: Path) -> None:
    write_profile(tmp_path / "tiny.npz", at({256: 8}, scales=scales()))
    assert "k at 8 bit; v_channel at 4 bit" in dse("profile", "show", "tiny.npz").stdout


def test_profiles_merge_from_files(tmp_path: Path) -> None:
    write_profile(tmp_path / "a.npz", SHORT)
    write_profile(tmp_path / "b.npz", LONG)
    out = io.StringIO()
    arguments = [
        str(tmp_path / "a.npz"),
        str(tmp_path / "b.npz"),
        "-o",
        str(tmp_path / "m.npz"),
        "--name",
        "both",
        "--json",
    ]
    merge.main(arguments, standalone_mode=False, obj=Environment(out, io.StringIO()))
    merged = read_profile(tmp_path / "m.npz")
    assert (merged.name, merged.contexts, merged.window_counts) == ("both", (256, 1024), (8, 2))
    assert json.loads(out.getvalue())["checksum"] == merged.checksum


def test_planes_are_judged_from_four_values_on() -> None:
    error = {"algorithm": "a", "knob": "k", "values": 3, "share": 0.5}
    entry = {"name": "p", "interpolation": [error], "missing": []}
    assert list_module._profile_remarks([entry]) == []
    entry["interpolation"] = [{**error, "values": 4}]
    assert "a.k 50.0%" in list_module._profile_remarks([entry])[0]
