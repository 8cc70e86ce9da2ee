from __future__ import annotations

import copy
import math
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from profiles.synthetic import profile

from dse.errors import BadInput
from dse.hardware.components import COMPONENTS
from dse.hardware.parameters import PARAMETERS
from dse.hardware.presets import load_constants, load_preset
from dse.hardware.processors import load_processor
from dse.inputs import key_lines
from dse.profiles.store import write_profile
from dse.space import load_space, parse_resolved, shipped_spaces
from dse.space.axes import axis_values
from dse.space.source import Place, parse_override

PROFILE = profile()

TEXT = """\
# A comment with a key = in it.
schema = 1
name = "small"

[workload]
profile = "tiny"
context = 128

[algorithms.alpha]
threshold = { log = [1e-4, 1e-2], points = 3 }
chunks = ["6+6", "12"]

[algorithms.beta]
keep = "all"

[hardware]
base = "topick"
lanes = [4, 8, 16]
dram = "lpddr5"
dram_channels = { powers_of_two = [1, 8] }

[objectives]
maximize = ["speedup"]
minimize = ["nll_increase"]

[constraints]
area_mm2 = { max = 20 }
"""


def load(text: str, tmp_path: Path, *overrides: str) -> Any:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return load_space(path, overrides, profile=PROFILE)


def test_a_space_is_resolved_against_its_profile(tmp_path: Path) -> None:
    space = load(TEXT, tmp_path)
    assert space.algorithms["alpha"].knobs == {
        "threshold": (1e-4, 1e-3, 1e-2),
        "chunks": ("6+6", "12"),
        "flag": (False,),
    }
    assert space.algorithms["beta"].knobs == {"keep": (0.25, 0.5, 1.0)}
    assert space.algorithms["dense"].knobs["k_bits"] == (4, 8, 12)
    assert list(space.algorithms) == ["dense", "alpha", "beta"]
    assert len(space.notes) == 1
    assert space.hardware["dram_channels"] == (1, 2, 4, 8)
    assert space.hardware["clock_ghz"] == (load_preset("topick")["clock_ghz"],)
    assert space.size == (9 + 6 + 3) * 3 * 4
    assert space.workload.profile_sha256 == PROFILE.checksum
    assert (space.workload.phase, space.workload.batch, space.workload.grouped) == ("decode", 1, True)


def test_the_baseline_stands_on_the_base_design_with_the_single_values_of_the_space(tmp_path: Path) -> None:
    base = load(TEXT, tmp_path).baseline
    preset = load_preset("topick")
    assert base.knobs == {"k_bits": 12, "v_bits": 12, "scale": "head"}
    assert base.hardware == {**preset, "dram": "lpddr5"}
    other = load(TEXT, tmp_path, "baseline.k_bits=8", "baseline.hardware.lanes=4").baseline
    assert other.knobs["k_bits"] == 8
    assert other.hardware["lanes"] == 4
    assert load(TEXT, tmp_path, "hardware.lanes=8").baseline.hardware["lanes"] == 8


def test_a_processor_as_the_baseline(tmp_path: Path) -> None:
    space = load(TEXT, tmp_path, "baseline.processor=titan-xp", "baseline.parameters.power_w=110")
    processor = space.baseline.processor
    assert processor.values == {**load_processor("titan-xp").values, "power_w": 110}
    assert processor.entries["launch_us"] == load_processor("titan-xp").entries["launch_us"]
    assert str(space.baseline) == "titan-xp, 32-bit"
    assert (
        space.digest()
        != load(TEXT, tmp_path, "baseline.processor=titan-xp").digest()
        != load(TEXT, tmp_path).digest()
    )
    with pytest.raises(BadInput, match="is a processor"):
        space.baseline_rows()
    assert str(load(TEXT, tmp_path, "baseline.v_bits=8").baseline) == "dense, 12/8-bit"


def test_a_resolved_processor_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('schema = 1\nbase = "h200"\n[processor]\npower_w = 500\n')
    space = load(TEXT, tmp_path, "baseline.processor=mine.toml")  # beside the space
    assert str(space.baseline) == "mine, 16-bit"
    assert space.baseline.processor["power_w"] == 500
    (tmp_path / "mine.toml").unlink()
    again = load(space.to_toml(), tmp_path)
    assert again.plain() == space.plain()
    assert again.digest() == space.digest()
    read = parse_resolved(space.to_toml(), "space.toml")
    assert read.plain() == space.plain()
    lines = [line for line in space.to_toml().splitlines() if not line.startswith("power_w")]
    for parse in (lambda text: parse_resolved(text, "space.toml"), lambda text: load(text, tmp_path)):
        with pytest.raises(BadInput, match="baseline"):
            parse("\n".join(lines))


def test_the_resolved_form_is_enough_and_has_the_same_digest(tmp_path: Path) -> None:
    component = f"components.{next(iter(COMPONENTS))}=1.5"
    changes = ("hardware.for.beta.lanes=[2, 4]", "objectives.reference.speedup=0.5", component)
    space = load(TEXT, tmp_path, *changes)
    again = load(space.to_toml(), tmp_path)
    assert again.plain() == space.plain()
    assert again.digest() == space.digest()
    assert again.size == space.size
    read = parse_resolved(space.to_toml(), "space.toml")
    assert read.digest() == space.digest()
    assert read.plain() == space.plain()
    assert space.to_toml().startswith("# dense attention was added")


def test_parameters_at_their_defaults_are_not_stated(tmp_path: Path) -> None:
    """What a run of an older dse does not know is at its default: it stays readable, its digest stays the same."""
    newer = [n for n, p in PARAMETERS.items() if p.default is not None]
    assert newer
    space = load(TEXT, tmp_path)
    plain = space.plain()
    assert not {*newer} & {*plain["hardware"], *plain["baseline"]["hardware"]}
    older = [line for line in space.to_toml().splitlines() if line.split(" = ")[0] not in newer]
    assert parse_resolved("\n".join(older), "space.toml").digest() == space.digest()
    for change in ("hardware.memory_gib=[0.0, 1.0]", "hardware.memory_gib=2.0", "hardware.for.beta.memory_gib=2.0",
                   "baseline.hardware.memory_gib=2.0"):  # fmt: skip
        other = load(TEXT, tmp_path, change)
        assert other.digest() != space.digest(), change
        for again in (load(other.to_toml(), tmp_path), parse_resolved(other.to_toml(), "space.toml")):
            assert again.hardware == other.hardware, change
            assert again.baseline == other.baseline, change
            assert again.digest() == other.digest(), change
    # The baseline takes the space's single value, unless it says that it has none.
    back = load(TEXT, tmp_path, "hardware.memory_gib=2.0", "baseline.hardware.memory_gib=0.0")
    assert back.baseline.hardware["memory_gib"] == 0
    assert parse_resolved(back.to_toml(), "space.toml").baseline == back.baseline


def test_a_bases_own_constants_hold_unless_the_space_gives_others(tmp_path: Path) -> None:
    name, other = list(COMPONENTS)[:2]
    (tmp_path / "mine.toml").write_text(
        f'schema = 1\nbase = "topick"\n[design]\nlanes = 7\n[components]\n{name} = 1.25\n{other} = 2.5\n'
    )
    base = f"hardware.base='{tmp_path / 'mine.toml'}'"
    assert load(TEXT, tmp_path).components == load_constants("topick")
    space = load(TEXT, tmp_path, base)
    assert {name: 1.25, other: 2.5}.items() <= space.components.items()
    own = load(TEXT, tmp_path, base, f"components.{name}=3.0")
    assert {name: 3.0, other: 2.5}.items() <= own.components.items()
    (tmp_path / "mine.toml").unlink()  # the resolved form states them
    assert load(own.to_toml(), tmp_path).components == own.components
    assert parse_resolved(own.to_toml(), "space.toml").digest() == own.digest()
    assert len({load(TEXT, tmp_path).digest(), space.digest(), own.digest()}) == 3


def test_the_digest_follows_the_content_only(tmp_path: Path) -> None:
    digest = load(TEXT, tmp_path).digest()
    assert load(TEXT.replace('"small"', '"other"'), tmp_path).digest() == digest
    assert load(TEXT.replace("[4, 8, 16]", "[4.0, 8, 16]"), tmp_path).digest() == digest
    for change in ("hardware.lanes=[4, 8]", "workload.batch=2", "constraints.area_mm2.max=21",
                   "algorithms.beta.keep=0.5", "baseline.k_bits=8", "workload.grouped=false",
                   "objectives.minimize=[\"energy_j\"]"):  # fmt: skip
        assert load(TEXT, tmp_path, change).digest() != digest, change


def test_overrides(tmp_path: Path) -> None:
    space = load(TEXT, tmp_path, "hardware.lanes=[2, 4]", "hardware.dram=hbm2", "algorithms.alpha.chunks=12",
                 "workload.context=64", "constraints.area_mm2.max=9")  # fmt: skip
    assert space.hardware["lanes"] == (2, 4)
    assert space.hardware["dram"] == ("hbm2",)
    assert space.algorithms["alpha"].knobs["chunks"] == ("12",)
    assert space.workload.context == 64
    assert space.constraints["area_mm2"].high == 9
    assert space.overridden
    assert not load(TEXT, tmp_path).overridden


def test_unmeasured_combinations_can_be_skipped(tmp_path: Path) -> None:
    text = TEXT.replace("[algorithms.beta]\nkeep", '[algorithms.beta]\nunmeasured = "skip"\nkeep')
    text = text.replace('keep = "all"', "keep = [0.1, 0.25, 0.3, 7]")
    space = load(text, tmp_path)
    assert space.resolutions["beta"].skipped == 2
    assert [s.status for s in space.resolutions["beta"].sources] == ["measured", "interpolated"]


def test_a_table_works_like_a_file_and_is_not_changed() -> None:
    table = tomllib.loads(TEXT)
    before = copy.deepcopy(table)
    space = load_space(table, ["hardware.lanes=8"], profile=PROFILE)
    assert table == before
    assert space.hardware["lanes"] == (8,)


def test_an_empty_algorithm_is_its_default_point_and_objectives_have_defaults(tmp_path: Path) -> None:
    text = 'schema = 1\n[workload]\nprofile = "tiny"\ncontext = 64\n[algorithms.beta]\n[hardware]\nbase = "topick"\n'
    space = load(text, tmp_path)
    assert space.name == "space"
    assert len(space.resolutions["beta"].sources) == 1
    assert space.objectives == {"speedup": True, "nll_increase": False}


ERRORS = [
    # text replaced, replacement, what the message must say
    ("threshold =", "treshold =", "space.toml:10: algorithms.alpha.treshold: unknown knob; did you mean 'threshold'?"),
    ("[algorithms.beta]", "[algorithms.bta]", "space.toml:13: algorithms.bta: not in profile 'tiny'; did you mean 'beta'?"),
    ("lanes =", "lames =", "space.toml:18: hardware.lames: unknown key; did you mean 'lanes'?"),
    ("[objectives]", "[objective]", "space.toml:22: objective: unknown key; did you mean 'objectives'?"),
    ("context = 128", "contxt = 128", "space.toml:7: workload.contxt: unknown key; did you mean 'context'?"),
    ("context = 128", "", "workload.context: missing"),
    ("context = 128", "context = 100", "space.toml:7: workload.context: found 100; profile 'tiny' holds 64, 128"),
    ("context = 128", "context = 128.0", "workload.context: found 128.0; must be a whole number"),
    ("context = 128", "context = true", "workload.context: found True; must be a whole number"),
    ("context = 128", 'context = 128\nphase = "prefil"', "workload.phase: found 'prefil'; did you mean 'prefill'?"),
    ("context = 128", 'context = 128\nphase = "prefill"', "profile 'tiny' holds 'decode'"),
    ("context = 128", "context = 128\nbatch = 0", "workload.batch: found 0"),
    ("context = 128", "context = 128\ngrouped = 1", "workload.grouped: found 1; must be true or false"),
    ("context = 128", 'context = 128\nprofile_sha256 = "ab"', "is not the one this space was run with (ab); find that one, or remove the key"),
    ("schema = 1", "schema = 2", "space.toml:2: schema: found 2; must be 1"),
    ("schema = 1", "", "space.toml: schema: missing; must be 1"),
    ("schema = 1", "schema = 1\nlanes = 4", "space.toml:3: lanes: unknown key; did you mean 'hardware.lanes'?"),
    ("schema = 1", "schema = 1\nbatch = 4", "space.toml:3: batch: unknown key; did you mean 'workload.batch'?"),
    ("schema = 1", "schema = 1\nkeep = 4", "space.toml:3: keep: unknown key; did you mean 'algorithms.beta.keep'?"),
    ("context = 128", 'context = 128\nbatch = "most"', "workload.batch: found 'most'; must be a whole number from 1 to 1000000, or \"max\" for"),
    ("schema = 1", "schema = true", "schema: found True; must be 1"),
    ('name = "small"', 'name = "../up"', "name: found '../up'"),
    ('name = "small"', "name = 3", "name: found 3; must be text"),
    ("[4, 8, 16]", "[]", "space.toml:18: hardware.lanes: the axis is empty"),
    ("[4, 8, 16]", "[4, 8, 4]", "hardware.lanes: 4 appears twice"),
    ("[4, 8, 16]", "[4, 8, 4.0]", "hardware.lanes: 4.0 appears twice"),
    ("[4, 8, 16]", '["4"]', "hardware.lanes: found '4'; must be an integer from 1 to 4096"),
    ("[4, 8, 16]", "[4, 8.5]", "hardware.lanes: found 8.5"),
    ("[4, 8, 16]", "[4, -8]", "hardware.lanes: found -8"),
    ("[4, 8, 16]", "[4, true]", "hardware.lanes: found True"),
    ("[4, 8, 16]", "[4, [8]]", "hardware.lanes: found [8]"),
    ("[4, 8, 16]", "nan", "hardware.lanes: found nan; numbers must be finite"),
    ("[4, 8, 16]", "[4, inf]", "hardware.lanes: found inf; numbers must be finite"),
    ("[4, 8, 16]", "{ linear = [1, 4] }", "hardware.lanes: found keys ['linear']; must be linear and points"),
    ("[4, 8, 16]", "{ liner = [1, 4], points = 4 }", "hardware.lanes: found {'liner'"),
    ("[4, 8, 16]", "{ linear = [1, 4], points = 1000001 }", "hardware.lanes.points: found 1000001"),
    ("[4, 8, 16]", "{ range = [1, 9000000], step = 1 }", "hardware.lanes: 9e+06 values; at most 10000"),
    ("[4, 8, 16]", "{ range = [1, 9], step = 0 }", "hardware.lanes.step: found 0"),
    ("[4, 8, 16]", "{ powers_of_two = [3, 8] }", "hardware.lanes.powers_of_two: found [3, 8]"),
    ("[4, 8, 16]", "{ powers_of_two = [8, 4] }", "hardware.lanes.powers_of_two: found [8, 4]"),
    ("[4, 8, 16]", "{ log = [0, 8], points = 3 }", "hardware.lanes.log: starts at 0"),
    ('"lpddr5"', '"lpdr5"', "space.toml:19: hardware.dram: found 'lpdr5'"),
    ('base = "topick"', 'base = "topik"', "space.toml:17: hardware.base: no preset or file 'topik'; did you mean 'topick'?"),
    ('base = "topick"', "", "hardware.base: missing; must be one of"),
    ('base = "topick"', "base = 3", "hardware.base: found 3"),
    ("dram = ", "for = 3\ndram = ", "hardware.for: found 3; must be a table"),
    ("dram = ", "for.gamma.lanes = 3\ndram = ", "hardware.for.gamma: no such algorithm in this space"),
    ("points = 3", "points = 1", "algorithms.alpha.threshold.points: found 1"),
    ("[1e-4, 1e-2]", "[1e-4, 1.0]", "space.toml:10: algorithms.alpha.threshold: 1.0 was not measured at context 128; measured from 0.0001 to 0.01"),
    ('["6+6", "12"]', '["4+4+4"]', "space.toml:11: algorithms.alpha.chunks: '4+4+4' was not measured at context 128; measured: '12', '6+6'"),
    ('["6+6", "12"]', "[12]", 'algorithms.alpha.chunks: found 12; must be text: "12", "6+6"'),
    ('keep = "all"', 'keep = "al"', "algorithms.beta.keep: 'al' was not measured"),
    ('keep = "all"', 'unmeasured = "drop"', "algorithms.beta.unmeasured: found 'drop'"),
    ('keep = "all"', "keep = 1979-05-27", "algorithms.beta.keep: found datetime.date(1979, 5, 27)"),
    ('["speedup"]', '["spedup"]', "objectives.maximize: 'spedup' is not a metric; did you mean 'speedup'?"),
    ('["speedup"]', '["nll_increase"]', "objectives.minimize: 'nll_increase' appears twice"),
    ('["speedup"]', "[]", "objectives: 1 objectives; must be 2 to 4"),
    ('["speedup"]', '"speedup"', "objectives.maximize: found 'speedup'; must be a list of metrics"),
    ("area_mm2 =", "area_m2 =", "space.toml:27: constraints.area_m2: unknown key; did you mean 'area_mm2'?"),
    ("{ max = 20 }", "20", "constraints.area_mm2: found 20; must be { min = ... }, { max = ... } or both"),
    ("{ max = 20 }", "{ mx = 20 }", "constraints.area_mm2.mx: unknown key"),
    ("{ max = 20 }", "{ min = 30, max = 20 }", "constraints.area_mm2: min 30 is above max 20"),
    ("{ max = 20 }", '{ max = "20" }', "constraints.area_mm2.max: found '20'; must be a number"),
    ("[constraints]", "[baseline]\nkbits = 3\n[constraints]", "baseline.kbits: unknown key; did you mean 'k_bits'?"),
    ("[constraints]", "[baseline]\nk_bits = 16\n[constraints]", "baseline: dense.k_bits: 16 was not measured"),
    ("[constraints]", '[baseline]\nalgorithm = "dens"\n[constraints]', "baseline.algorithm: 'dens' is not in profile"),
    ("[constraints]", '[baseline]\nprocessor = "titanxp"\n[constraints]', "space.toml:27: baseline.processor: no processor or file 'titanxp'; did you mean 'titan-xp'?"),
    ("[constraints]", '[baseline]\nprocessor = 3\n[constraints]', "baseline.processor: found 3; must be a path or one of a100-40gb"),
    ("[constraints]", '[baseline]\nprocesor = "h200"\n[constraints]', "baseline.procesor: unknown key; did you mean 'processor'?"),
    ("[constraints]", '[baseline]\nprocessor = "h200"\nalgorithm = "dense"\n[constraints]', "space.toml:28: baseline.algorithm: stands beside processor"),
    ("[constraints]", '[baseline]\nprocessor = "h200"\nk_bits = 8\n[constraints]', "space.toml:28: baseline.k_bits: stands beside processor"),
    ("[constraints]", '[baseline]\nprocessor = "h200"\n[baseline.hardware]\nlanes = 4\n[constraints]', "baseline.hardware: stands beside processor"),
    ("[constraints]", '[baseline]\nprocessor = "h200"\nparameter = 8\n[constraints]', "baseline.parameter: unknown key; did you mean 'parameters'?"),
    ("[constraints]", '[baseline]\nprocessor = "h200"\nparameters.power = 8\n[constraints]', "baseline.parameters.power: unknown key; did you mean 'power_w'?"),
    ("[constraints]", '[baseline]\nprocessor = "h200"\nparameters.power_w = -8\n[constraints]', "baseline.parameters.power_w: found -8; must be a number from"),
    ("[constraints]", '[baseline]\nprocessor = "h200"\nparameters = 8\n[constraints]', "baseline.parameters: found 8; must be a table"),
    ("[constraints]", "[baseline]\nparameters.power_w = 8\n[constraints]", 'baseline.parameters: belongs to a processor; name one with processor = "..."'),
    ("[constraints]", "[baseline.hardware]\nlanes = [4, 8]\n[constraints]", "baseline.hardware.lanes: must be one value"),
    ("[constraints]", "[components]\nx = 1\n[constraints]", "components.x: unknown key"),
    ("schema = 1", "schema = ", "space.toml: not TOML"),
    ("[hardware]", "[workload]", "space.toml: not TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), ERRORS)
def test_errors_name_the_file_the_line_the_key_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(BadInput) as caught:
        load(TEXT.replace(old, new, 1), tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "space.toml"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hardware.lames=4", "--set hardware.lames: unknown key; did you mean 'lanes'?"),
        ("hardware.lanes", "--set hardware.lanes: must be a dotted key"),
        ("hardware.lanes=[4", "--set hardware.lanes=[4: '[4' is not a TOML value"),
        ("hardware.lanes=abc", "--set hardware.lanes: found 'abc'"),
        ("hardware.lanes.x=3", "--set hardware.lanes.x=3: lanes is not a table"),
        ("=3", "--set =3: must be a dotted key"),
        ("name=a b", "is not a TOML value"),
        ("name=1\nschema = 7", "must be one value"),
        ("algorithms.gamma.x=1", "--set algorithms.gamma: not in profile 'tiny'"),
        ("alpha.threshold=1", "--set alpha: unknown key; did you mean 'algorithms.alpha'?"),
        ("threshold=1", "--set threshold: unknown key; did you mean 'algorithms.alpha.threshold'?"),
    ],
)
def test_override_errors_name_the_override(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(TEXT, tmp_path, override)
    assert message in str(caught.value)


def test_missing_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        load_space(tmp_path / "none.toml")
    with pytest.raises(BadInput, match="is a directory"):
        load_space(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="is not text"):
        load_space(tmp_path / "bytes.toml")
    with pytest.raises(
        BadInput, match="space 'quickstrat': no such shipped space or file; did you mean 'quickstart'"
    ):
        load_space("quickstrat")


def test_the_profile_of_a_space_may_lie_beside_it(tmp_path: Path) -> None:
    write_profile(tmp_path / "mine.npz", PROFILE)
    path = tmp_path / "space.toml"
    path.write_text(TEXT.replace('"tiny"', '"mine.npz"'))
    assert load_space(path).profile.checksum == PROFILE.checksum
    path.write_text(TEXT.replace('"tiny"', '"other.npz"'))
    with pytest.raises(BadInput, match=r"space\.toml:6: workload\.profile: other\.npz: no such profile"):
        load_space(path)


def test_shipped_spaces_are_valid_toml_of_this_schema() -> None:
    spaces = shipped_spaces()
    assert "quickstart" in spaces
    for path in spaces.values():
        assert tomllib.loads(path.read_text())["schema"] == 1


PLACE = Place("t")


@given(st.floats(1e-6, 1e3), st.floats(1.5, 1e4), st.integers(2, 40))
def test_logarithmic_axes_have_equal_ratios_and_exact_ends(low: float, span: float, points: int) -> None:
    values = [float(v) for v in axis_values({"log": [low, low * span], "points": points}, PLACE)]
    assert (values[0], values[-1], len(values)) == (low, low * span, points)
    ratios = [b / a for a, b in zip(values, values[1:], strict=False)]
    assert all(math.isclose(r, ratios[0], rel_tol=1e-9) for r in ratios)


def test_generated_axes() -> None:
    assert axis_values({"log": [1e-5, 1e-2], "points": 4}, PLACE) == (1e-5, 1e-4, 1e-3, 1e-2)
    assert axis_values({"linear": [0.1, 0.5], "points": 5}, PLACE) == (0.1, 0.2, 0.3, 0.4, 0.5)
    whole = axis_values({"linear": [1, 9], "points": 5}, PLACE)
    assert whole == (1, 3, 5, 7, 9)
    assert all(type(v) is int for v in whole)
    assert axis_values({"powers_of_two": [1, 16]}, PLACE) == (1, 2, 4, 8, 16)
    assert axis_values({"range": [0.1, 0.45], "step": 0.1}, PLACE) == (0.1, 0.2, 0.3, 0.4)
    assert axis_values({"range": [2, 10], "step": 4}, PLACE) == (2, 6, 10)
    assert axis_values("hbm2", PLACE) == ("hbm2",)


@given(st.lists(st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6)), min_size=1, unique_by=float))
def test_a_list_is_its_own_axis(values: list[float]) -> None:
    assert list(axis_values(values, PLACE)) == values


def test_lines_are_found_in_every_spelling() -> None:
    text = 'a = 1\n[b."c-d"]\n"e" = 2\nf.g = 3\n[ h . i ]\n  j=4 # x = 5\n'
    assert key_lines(text) == {
        ("a",): 1, ("b", "c-d"): 2, ("b", "c-d", "e"): 3, ("b", "c-d", "f", "g"): 4, ("h", "i"): 5,
        ("h", "i", "j"): 6,
    }  # fmt: skip


def test_tables_of_an_array_are_counted() -> None:
    text = "[[a]]\nx = 1\n[[a]]\ny = 2\n[a.b]\nz = 3\n[[ a.c ]]\n[[a.c]]\nz = 4\n[d]\nx = 5\n"
    lines = key_lines(text)
    assert lines["a",] == lines["a", "1"] == 1
    assert (lines["a", "1", "x"], lines["a", "2"], lines["a", "2", "y"]) == (2, 3, 4)
    assert (lines["a", "2", "b", "z"], lines["a", "2", "c"], lines["a", "2", "c", "2", "z"]) == (6, 7, 9)
    assert lines["d", "x"] == 11
    assert ("a", "x") not in lines


def test_override_values_are_toml_or_bare_words() -> None:
    assert parse_override("a.b=1.5") == (("a", "b"), 1.5)
    assert parse_override("a=hbm2") == (("a",), "hbm2")
    assert parse_override("a=4+4+4") == (("a",), "4+4+4")
    assert parse_override('a.b-c.d = ["x", "y"]') == (("a", "b-c", "d"), ["x", "y"])
    assert parse_override("a={ max = 2 }") == (("a",), {"max": 2})
    assert parse_override("a=true") == (("a",), True)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, dse; assert not {'numpy', 'pandas', 'moocore', 'joblib'} & set(sys.modules);"
        "assert dse.sweep and dse.load_space and dse.load_profile and dse.__version__;"
        "assert not {'pandas', 'moocore', 'matplotlib', 'optuna', 'joblib'} & set(sys.modules);"
        "assert {'sweep', 'load_space', 'load_profile', '__version__'} <= set(dir(dse))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_toml_form_is_read_by_any_toml_reader(tmp_path: Path) -> None:
    space = load(TEXT, tmp_path)
    table = tomllib.loads(space.to_toml())
    assert table == tomllib.loads(tomli_w.dumps(space.plain()))
    assert table["workload"]["profile_sha256"] == PROFILE.checksum
