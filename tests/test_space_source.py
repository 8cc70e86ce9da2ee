"""Where a space comes from: its files and its overrides. Of two that contradict each other neither is taken in silence."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from profiles.synthetic import profile

from dse.errors import BadInput
from dse.hardware.parameters import PARAMETERS
from dse.inputs import locate
from dse.profiles.store import write_profile
from dse.space import load_space
from dse.space.source import parse_override, parse_overrides

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
    assert locate("a", Path("colleague")) == locate("a", folder) == Path("colleague/a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert locate("a", folder) == folder / "a"
    monkeypatch.chdir(tmp_path)
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


def test_a_base_counts_however_much_is_stated_beside_it() -> None:
    needed = [name for name, parameter in PARAMETERS.items() if parameter.default is None]
    table = tomllib.loads(TEXT)
    table["hardware"] = {"base": "spatten"}
    plain = load_space(table, profile=PROFILE)
    assert plain.components
    table["hardware"] |= {name: plain.hardware[name][0] for name in needed}
    stated = load_space(table, profile=PROFILE)
    assert (stated.hardware, stated.components) == (plain.hardware, plain.components)
    table["hardware"]["base"] = "spaten"
    with pytest.raises(BadInput, match=r"hardware\.base: no preset or file 'spaten'; did you mean 'spatten'"):
        load_space(table, profile=PROFILE)


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


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "9" * 25, "[1, nan]", "{ max = inf }"])
def test_an_override_that_is_toml_is_never_taken_for_a_word(value: str) -> None:
    with pytest.raises(
        BadInput, match=r"--set a\.b(\.max)?: found .*numbers (must be finite|have at most 64)"
    ):
        parse_override(f"a.b={value}")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a space in a folder of its own was run: its profile lies beside it."""
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "results" / "run").mkdir(parents=True)
    write_profile(project / "sub" / "tiny.npz", PROFILE)
    (project / "sub" / "s.toml").write_text(TEXT)
    monkeypatch.chdir(project)
    space = load_space("sub/s.toml")
    assert space.workload.profile == "sub/tiny.npz"
    (project / "results" / "run" / "space.toml").write_text(space.to_toml())
    return project


@pytest.mark.parametrize("cwd", [".", "sub", "results", "results/run", ".."])
def test_a_space_that_was_run_is_read_from_everywhere(
    ran: Path, monkeypatch: pytest.MonkeyPatch, cwd: str
) -> None:
    run = ran / "results" / "run" / "space.toml"
    monkeypatch.chdir(ran / cwd)
    for place in (run, Path(os.path.relpath(run))):
        space = load_space(place)
        assert space.profile.checksum == PROFILE.checksum
        assert Path(space.workload.profile).is_file()
        assert load_space(place).digest() == load_space(ran / "sub" / "s.toml").digest()


def test_a_space_that_was_run_and_moved_is_read_with_the_profile_beside_it(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ran / "results" / "run", tmp_path / "colleague" / "run")
    monkeypatch.chdir(tmp_path / "colleague")
    with pytest.raises(BadInput) as caught:
        load_space("run/space.toml")
    assert str(caught.value).startswith("run/space.toml:")
    assert str(caught.value).endswith(f"put the one with checksum {PROFILE.checksum[:12]} into run")
    shutil.copy(ran / "sub" / "tiny.npz", "run")
    assert load_space("run/space.toml").workload.profile == "run/tiny.npz"


def test_of_two_profiles_a_space_that_was_run_takes_its_own(ran: Path) -> None:
    """Measured again where the name points to; what was run with lies beside the run."""
    run = ran / "results" / "run"
    other = profile(seed=1)
    write_profile(ran / "sub" / "tiny.npz", other)
    with pytest.raises(BadInput, match="is not the one this space was run with") as caught:
        load_space("results/run/space.toml")
    assert {PROFILE.checksum[:12], other.checksum[:12]} <= set(re.findall(r"\w{12}", str(caught.value)))
    write_profile(run / "tiny.npz", PROFILE)
    assert load_space("results/run/space.toml").profile.checksum == PROFILE.checksum
    with pytest.raises(BadInput, match="is not the one"):  # what was typed is never passed over
        load_space("results/run/space.toml", ["workload.profile=sub/tiny.npz"])


def test_a_file_without_the_usual_ending_stays_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path / "tiny", PROFILE)
    (tmp_path / "s.toml").write_text(TEXT.replace("tiny.npz", "./tiny"))
    (tmp_path / "run.toml").write_text(load_space("s.toml").to_toml())
    assert load_space("run.toml").workload.profile == "./tiny"


def test_an_error_names_the_file_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "."):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "s.toml").write_text(TEXT.replace("keep", "kep"))
    write_profile(tmp_path / "tiny.npz", PROFILE)
    for name in ("in/s.toml", "s.toml"):
        with pytest.raises(BadInput, match=f"^{name}:8: algorithms.beta.kep: unknown knob"):
            load_space(name)
    with pytest.raises(
        BadInput, match=r"^quickstart\.toml:\d+: workload\.context: "
    ):  # not where the package lies
        load_space("quickstart", profile=PROFILE)


@pytest.mark.parametrize("name", ["ü ñ2", ".hidden"])
def test_a_file_whose_name_cannot_be_a_space_s_is_asked_for_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(TEXT)
    with pytest.raises(BadInput) as caught:
        load_space(path, profile=PROFILE)
    assert str(caught.value).startswith(
        f"{path}: name: missing, and the file's, {name!r}, will not do; write name ="
    )
    path.write_text(f'name = "ü"\n{TEXT}')
    with pytest.raises(BadInput, match=r"toml:1: name: found 'ü'; write name ="):
        load_space(path, profile=PROFILE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[algorithms.beta]", "[[algorithms.beta]]"),
        ("[workload]", "[[workload]]"),
        ("[hardware]", "[[ hardware ]]"),
    ],
)
def test_an_array_where_a_table_belongs_is_found_at_its_line(tmp_path: Path, old: str, new: str) -> None:
    text = TEXT.replace(old, new)
    (tmp_path / "s.toml").write_text(text)
    line = text.splitlines().index(new) + 1
    with pytest.raises(BadInput, match=rf"s\.toml:{line}: {old.strip('[]')}: found .* must be a table"):
        load_space(tmp_path / "s.toml", profile=PROFILE)
