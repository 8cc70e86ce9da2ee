from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from dse.errors import BadInput
from dse.outputs import LOCK, atomic, clean, hold, write_text, write_together


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with suppress(RuntimeError), atomic(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_files_that_belong_together_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_together(tmp_path, {"a": "1", "b": "1"})
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_together(tmp_path, {"a": "2", "b": "2"})
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "1", "b": "1"}


def test_what_dead_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from dse.outputs import atomic\n"
        "with atomic(Path(sys.argv[1]) / 'a') as file: os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic(tmp_path / "b"):
        assert clean(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    foreign = tmp_path / ".c.0badc0de-1-0123abcd.tmp"
    foreign.touch()
    assert clean(tmp_path) == 0
    os.utime(foreign, (0, 0))
    assert clean(tmp_path) == 1


def test_a_folder_is_held_by_one_process_and_let_go_of(tmp_path: Path) -> None:
    place = tmp_path / "run"
    code = "import sys; from pathlib import Path; from dse.outputs import hold\nwith hold(Path(sys.argv[1])): pass"
    with hold(place) as held, hold(place) as same:
        assert held == same
        assert held.left == ""
        other = subprocess.run(
            [sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False
        )
        assert f"is being written by process {os.getpid()} on" in other.stderr
        assert (place / LOCK).is_file()
    assert not place.exists()  # nothing came of it
    place.mkdir()
    (place / LOCK).write_text('{"pid": 7, "host": "there", "since": "then", "process": "x"}')
    with hold(place) as held:
        assert held.left == "process 7 on there since then ended without finishing"
    assert list(place.iterdir()) == []


def test_links_that_lead_nowhere_are_no_directories(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("not/there")
    for name in ("loop", "nowhere"):
        with pytest.raises(BadInput, match=f"{name}: is a link that leads nowhere"), hold(tmp_path / name):
            pass
    with pytest.raises(OSError, match="symbolic links"), hold(tmp_path / "loop" / "run"):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises((OSError, BadInput)), hold(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "x"
