"""Where the settings of a measurement come from."""

from __future__ import annotations

import pytest

from dse.cli.settings import settings_of_file, settings_of_options
from dse.errors import BadInput


def knobs(settings, name):
    return [setting.settings[name] for setting in settings]


def test_a_space_file_is_measured_by_its_algorithm_tables(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        "schema = 1\n[algorithms.token-picker]\nthreshold = { log = [1e-4, 1e-2], points = 3 }\n"
        'chunks = ["4+4+4", "12"]\nunmeasured = "skip"\n[algorithms.window]\nrecent = 64\n'
    )
    found = settings_of_file(str(path))
    assert [a.name for a in found] == ["token-picker"] * 6 + ["window"]
    assert sorted(set(knobs(found[:6], "threshold"))) == [1e-4, 1e-3, 1e-2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[algorithms]\ntoken-picker = 3", "algorithms.token-picker: found 3; must be a table"),
        ("[algorithms.window]\nrecent = 'all'", "list the values to measure"),
        ("[algorithms.window]\nrecent = []", "the axis is empty"),
        ("[algorithms.windows]\nrecent = 1", r"space\.toml:1: .*unknown algorithm 'windows'"),
        ("[algorithms.window]\n\nrecent = -1", r"space\.toml:3: algorithms\.window\.recent: -1 is outside"),
        ("algorithms = {", "not TOML"),
    ],
)
def test_bad_space_files_are_refused(tmp_path, text, says):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        settings_of_file(str(path))


def test_options_take_values_and_lists():
    found = settings_of_options("token-picker", ("threshold=[1e-3, 1e-2]", "chunks=6+6"))
    assert knobs(found, "threshold") == [1e-3, 1e-2]
    assert knobs(found, "chunks") == ["6+6", "6+6"]
    with pytest.raises(BadInput, match="expected KNOB=VALUE"):
        settings_of_options("token-picker", ("threshold",))


def test_a_number_that_is_none_is_no_word():
    with pytest.raises(BadInput, match="--set threshold: found nan; numbers must be finite"):
        settings_of_options("token-picker", ("threshold=nan",))
