"""Where a space comes from: its files and its overrides. Of two that contradict each other neither is taken in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from profiles.synthetic import profile

from dse.errors import BadInput
from dse.inputs import locate
from dse.profiles.store import write_profile
from dse.space import load_space
from dse.space.source import parse_overrides

PROFILE = profile()

TEXT = """\
schema = 1

[workload]
profile = "tiny.npz"
context = 128

[algorithms.beta]
keep = "all"

[hardware]
base = "topick"
"""


def test_a_profile_here_and_another_beside_the_space_are_not_chosen_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, here = tmp_path / "colleague", tmp_path / "here"
    for place in (folder, here):
        place.mkdir()
    monkeypatch.chdir(here)
    write_profile(folder / "tiny.npz", PROFILE)
    (folder / "space.toml").write_text(TEXT)
    assert load_space(folder / "space.toml").profile.checksum == PROFILE.checksum
    shutil.copy(folder / "tiny.npz", here)
    assert load_space(folder / "space.toml").profile.checksum == PROFILE.checksum  # the same one twice
    write_profile(here / "tiny.npz", profile(seed=1))
    with pytest.raises(
        BadInput, match=r"workload\.profile: tiny\.npz: there is one here and another beside the file"
    ):
        load_space(folder / "space.toml")
    full = load_space(folder / "space.toml", [f'workload.profile="{here / "tiny.npz"}"'])
    assert full.profile.checksum != PROFILE.checksum


def test_files_are_found_here_or_beside_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "colleague"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("a", folder) == Path("a")  # nowhere: the message names what was typed
    (folder / "a").write_text("1")
    assert locate("a", folder) == folder / "a"
    (tmp_path / "a").write_text("1")
    assert locate("a", folder) == Path("a")
    (tmp_path / "a").write_text("2")
    with pytest.raises(BadInput, match="give the full path of one"):
        locate("a", folder)


def test_a_base_lies_beside_the_space_and_its_own_base_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "colleague"
    (folder / "designs").mkdir(parents=True)
    (folder / "designs" / "small.toml").write_text('schema = 1\nbase = "mine.toml"\n[design]\nlanes = 4\n')
    (folder / "designs" / "mine.toml").write_text(
        'schema = 1\nbase = "topick"\n[design]\nlanes = 2\ndram_channels = 4\n'
    )
    text = TEXT.replace('base = "topick"', 'base = "designs/small.toml"')
    (folder / "space.toml").write_text(text)
    write_profile(folder / "tiny.npz", PROFILE)
    for place, name in ((tmp_path, "colleague/space.toml"), (folder, "space.toml")):
        monkeypatch.chdir(place)
        space = load_space(Path(name))
        assert (space.hardware["lanes"], space.hardware["dram_channels"]) == ((4,), (4,))


@pytest.mark.parametrize(
    "overrides",
    [
        ("hardware.lanes=8", "hardware.lanes=16"),
        ("hardware.lanes=8", "hardware.lanes=8"),
        ("hardware.lanes=8", "hardware={ base = 'topick' }"),
        ("a.b.c=1", "x=1", "a=1"),
    ],
)
def test_an_override_never_takes_the_place_of_another(overrides: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match=f"takes the place of --set {overrides[0]}; give one of them"):
        parse_overrides(overrides)


def test_an_override_may_add_to_another() -> None:
    parsed = parse_overrides(("hardware={ base = 'topick' }", "hardware.lanes=8", "hardware.lanesx=8"))
    assert [path for _, path, _ in parsed] == [("hardware",), ("hardware", "lanes"), ("hardware", "lanesx")]
