"""Names of files and folders that cannot be meant are refused before anything is computed or written."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from cli.conftest import Dse, snapshot

RUN = "results/tiny"

WRITERS = {
    "front": ("front", RUN, "--format", "csv"),
    "plot": ("plot", RUN),
    "compare": ("compare", RUN, RUN),
    "report": ("report", RUN, "--no-validation", "--points", "0", "--breakdowns", "0"),
    "match": ("match", "tiny.toml", "--settings-only"),
}
SUFFIX = {"front": ".csv", "plot": ".svg", "compare": ".svg", "report": ".html", "match": ".toml"}


@pytest.fixture
def place(swept: Path, tmp_path: Path) -> Path:
    shutil.copytree(swept, tmp_path / "home")
    return tmp_path / "home"


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("kind", ["device", "pipe", "directory", "long", "empty", "newline", "below a file"])
def test_what_is_no_file_is_never_written(dse: Dse, place: Path, command: str, kind: str) -> None:
    suffix = SUFFIX[command]
    name = {
        "long": "x" * 300 + suffix, "empty": "", "newline": f"a\nb{suffix}", "below a file": f"tiny.toml/a{suffix}",
    }.get(kind, f"a{suffix}")  # fmt: skip
    if kind == "device":  # a device that a test may lose: a link to one counts as one
        (place / name).symlink_to("/dev/null")
    elif kind == "pipe":
        os.mkfifo(place / name)
    elif kind == "directory":
        (place / name).mkdir()
    before = snapshot(place)
    answer = dse(*WRITERS[command], "-o", name, cwd=place)
    assert answer.code == 2, answer
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert snapshot(place) == before
    if kind == "device":
        assert (place / name).is_symlink()
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    if kind == "pipe":
        assert stat.S_ISFIFO((place / name).stat().st_mode)


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("target", ["there", "not there", "itself"])
def test_a_link_is_never_replaced(dse: Dse, place: Path, command: str, target: str) -> None:
    name = f"a{SUFFIX[command]}"
    if target == "there":
        (place / "there").write_text("precious")
    (place / name).symlink_to(name if target == "itself" else target)
    before = snapshot(place)
    answer = dse(*WRITERS[command], "-o", name, cwd=place)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1), answer
    assert f"{name}: " in answer.stderr
    assert "link" in answer.stderr
    assert snapshot(place) == before
    assert (place / name).is_symlink()


@pytest.mark.parametrize("name", ["front.csv", "run.json", "space.toml"])
@pytest.mark.parametrize("command", ["front", "match"])
def test_a_file_of_a_run_is_never_replaced(dse: Dse, place: Path, command: str, name: str) -> None:
    before = snapshot(place)
    answer = dse(*WRITERS[command], "-o", f"{RUN}/{name}", cwd=place)
    assert answer.code == 2
    assert f"{RUN}/{name}: belongs to the run in {RUN}; nothing was overwritten" in answer.stderr
    assert snapshot(place) == before


def test_settings_replace_settings_and_nothing_else(dse: Dse, place: Path) -> None:
    space = (place / "tiny.toml").read_bytes()
    answer = dse(*WRITERS["match"], "-o", "tiny.toml", cwd=place)
    assert answer.code == 2
    assert "tiny.toml: is no grid of settings; nothing was overwritten" in answer.stderr
    assert (place / "tiny.toml").read_bytes() == space
    for _ in range(2):
        assert dse(*WRITERS["match"], "-o", "settings.toml", cwd=place).code == 0


def test_a_match_looks_at_its_folder_before_it_computes(dse: Dse, place: Path) -> None:
    for name in ("tiny.toml", RUN, "link"):
        (place / "link").unlink(missing_ok=True)
        (place / "link").symlink_to(place / "results")
        answer = dse("match", "-o", name, cwd=place)
        assert answer.code == 2
        assert "nothing was overwritten, choose another folder with --output" in answer.stderr, answer


@pytest.mark.parametrize(
    "arguments",
    [("sweep", "tiny.toml", "-o", ""), ("front", ""), ("plot", ""), ("explain", " "), ("check", "a\nb")],
)
def test_an_unset_variable_is_no_name(dse: Dse, place: Path, arguments: tuple[str, ...]) -> None:
    before = snapshot(place)
    answer = dse(*arguments, cwd=place)
    assert answer.code == 2
    assert "must be the name of a file or folder" in answer.stderr or "printable" in answer.stderr
    assert snapshot(place) == before


@pytest.mark.parametrize("word", ["\x1b[2J", "\x07", "\u202etxt", "\ud800"])
def test_what_would_move_a_cursor_is_spelt_out(dse: Dse, place: Path, word: str) -> None:
    for arguments in (("front", word), ("plot", RUN, "--title", word), (word,), ("sweep", "--set", word)):
        answer = dse(*arguments, cwd=place)
        assert answer.code == 2
        assert "holds the control character" in answer.stderr
        assert answer.stderr.removesuffix("\n").isprintable()


def test_a_path_that_is_too_long_is_the_users_mistake(dse: Dse, place: Path) -> None:
    answer = dse("front", "x/" * 3000, cwd=place)
    assert answer.code == 2
    assert answer.stderr.endswith("file name too long\n")


NAMES = [
    "ideographic\u3000space", "no-break\u00a0space", "Screenshot 9.41\u202fAM", "family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "latin\udce9", "private\ue000use",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_people_have_are_names(dse: Dse, place: Path, name: str) -> None:
    try:
        (place / name).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    shutil.copytree(place / RUN, place / name / "run")
    shutil.copy(place / "tiny.toml", place / name)
    for command, words in WRITERS.items():
        given = [
            f"{name}/run" if word == RUN else f"{name}/{word}" if "." in word else word for word in words
        ]
        written = f"{name}/{command}{SUFFIX[command]}"
        answer = dse(*given, "-o", written, cwd=place)
        assert answer.code == 0, (command, answer.stderr)
        assert (place / written).stat().st_size
    answer = dse("sweep", f"{name}/tiny.toml", "-o", f"{name}/swept", cwd=place)
    assert answer.code == 0, answer.stderr
    answer = dse("front", f"{name}/swept", cwd=place)
    assert answer.code == 0, answer.stderr
    answer = dse("front", f"{name}/{name}", cwd=place)
    assert answer.code == 2
    assert answer.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize("word", ["\x1b[2J", "\x07", "\u2028", "\u202e", "\u2066", "\x85", "\ud800"])
def test_names_that_deceive_a_reader_are_refused_as_places_too(dse: Dse, place: Path, word: str) -> None:
    before = snapshot(place)
    answer = dse("plot", RUN, "-o", f"a{word}b.svg", cwd=place)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert answer.stderr.removesuffix("\n").isprintable()
    assert snapshot(place) == before
