"""Presets and the strict reading of hardware values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse.cost.price import price
from dse.cost.statistics import Statistics, statistics
from dse.cost.workload import Workload
from dse.errors import BadInput
from dse.hardware.dram import device_rows
from dse.hardware.parameters import PARAMETERS, HardwareValue, check_design, check_value
from dse.hardware.presets import load_constants, load_preset, preset_names, read_preset
from dse.hardware.processors import load_processor
from dse.profiles.schema import FETCH_COUNTERS, Form, ModelShape, counter_columns


def test_shipped_presets() -> None:
    assert set(preset_names()) >= {
        "topick", "topick-gqa", "spatten", "spatten-1-8", "a3", "mnnfast", "theta", "adore", "dense-array",
    }  # fmt: skip


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_complete_and_sourced(name: str) -> None:
    preset = read_preset(name)
    assert list(preset.design) == list(PARAMETERS)
    assert check_design(name, preset.design) == preset.design
    assert preset.description
    for entry in (*preset.entries.values(), *preset.components.values()):
        assert entry.source
        assert entry.confidence


def test_topick_matches_bandwidth_with_lanes() -> None:
    """512 bytes per cycle of DRAM feed 16 lanes of 64 elements of 4 bit."""
    d = load_preset("topick")
    assert d["dram_channel_gbps"] == 0
    channel_gbps = float(device_rows()[str(d["dram"])]["channel_gbps"])
    per_cycle = float(d["dram_channels"]) * channel_gbps / float(d["clock_ghz"])
    assert per_cycle == 512
    assert float(d["lanes"]) * float(d["multipliers"]) * float(d["multiplier_bits"]) / 8 == per_cycle


@pytest.mark.parametrize("name", preset_names())
def test_presets_leave_the_bandwidth_of_a_channel_to_the_device(name: str) -> None:
    """So that an axis over `dram` does not give LPDDR5 the channels of HBM2."""
    assert load_preset(name)["dram_channel_gbps"] == 0


def test_gqa_preset_only_widens_what_a_query_group_needs() -> None:
    one, three = load_preset("topick"), load_preset("topick-gqa")
    changed = {name: (one[name], three[name]) for name in one if one[name] != three[name]}
    assert set(changed) == {"lanes", "exponent_units", "select_comparators", "accumulators"}
    assert all(wide == 3 * narrow for narrow, wide in changed.values())  # type: ignore[operator]


def test_a_users_file_works_in_place_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('schema = 1\nbase = "topick"\n[design]\nlanes = 4\n', encoding="utf-8")
    assert load_preset(path) == load_preset("topick") | {"lanes": 4}
    assert load_preset(str(path)) == load_preset(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lanes = 4", "lanes: no such key"),
        ("schema = 2\n[design]", "schema: found 2; must be 1"),
        ("schema = 1", "design: missing"),
        ("schema = 1\n[design]\nlanes = 4", "missing; must be"),
        ('schema = 1\nbase = "topik"\n[design]', "did you mean 'topick'"),
        (
            'schema = 1\nbase = "topick"\n[design]\nlane = 4',
            "lane: no such hardware parameter; did you mean 'lanes'",
        ),
        (
            'schema = 1\nbase = "topick"\n[design]\nlanes = 0',
            "lanes: found 0; must be an integer from 1 to 4096",
        ),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = 2.5', "lanes: found 2.5"),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = true', "lanes: found True"),
        ('schema = 1\nbase = "topick"\n[design]\nclock_ghz = nan', "clock_ghz: found nan"),
        ('schema = 1\nbase = "topick"\n[design]\ndram = "hbm22"', "did you mean 'hbm2'"),
        ('schema = 1\nbase = "topick"\n[design]\ndram = 3', "dram: found 3; must be one of"),
        ('schema = 1\nbase = "topick"\n[design]\ndram_channels = 12', "a power of two"),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = { valu = 4 }', "did you mean 'value'"),
        ('schema = 1\nbase = "topick"\n[design]\nlanes = { source = "x" }', "has no value"),
        ("schema = 1\n[design\n", "not TOML"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load_preset(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


CONSTANTS = 'schema = 1\nbase = "{base}"\n[design]\n[components]\n{entry}\n'


def test_only_machines_whose_silicon_is_published_state_constants() -> None:
    own = {name: set(load_constants(name)) for name in preset_names()}
    assert {name for name, constants in own.items() if constants} == {"a3", "spatten", "spatten-1-8"}
    assert own["spatten-1-8"] == own["spatten"]


def test_a_users_constants_replace_those_of_the_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CONSTANTS.format(base="spatten", entry="exponent_um2 = 5"), encoding="utf-8")
    assert load_constants(path) == load_constants("spatten") | {"exponent_um2": 5.0}
    assert load_preset(path) == load_preset("spatten")
    entry = read_preset(path).components["exponent_um2"]
    assert (entry.source, entry.confidence) == ("the user's file", "as given")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("exponent_um = 5", "components: exponent_um: no such constant; did you mean 'exponent_um2'"),
        ("exponent_um2 = -5", "components: exponent_um2: found -5; must be a number from 0, in um2"),
        ("exponent_um2 = true", "components: exponent_um2: found True"),
        ("exponent_um2 = inf", "components.exponent_um2: found inf; numbers must be finite"),
        ("nominal_clock_ghz = 0", "must be a number above 0, in GHz"),
        ("exponent_um2 = { valu = 5 }", "exponent_um2.valu: no such key; did you mean 'value'"),
    ],
)
def test_wrong_constants_are_named(tmp_path: Path, entry: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CONSTANTS.format(base="topick", entry=entry), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load_constants(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_processors_have_no_constants(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('schema = 1\nbase = "titan-xp"\n[processor]\n[components]\n', encoding="utf-8")
    with pytest.raises(BadInput, match="components: no such key"):
        load_processor(path)


@pytest.mark.parametrize("name", [name for name in preset_names() if load_constants(name)])
def test_every_constant_of_a_preset_changes_its_prices(name: str) -> None:
    design, own = load_preset(name), load_constants(name)
    before = price(works(), design, Workload(), overrides=own)
    for constant in own:
        less = {key: value for key, value in own.items() if key != constant}
        after = price(works(), design, Workload(), overrides=less)
        assert any(not np.allclose(after[m], before[m], rtol=1e-9, atol=0) for m in before), constant


def test_bases_may_not_go_in_circles(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'schema = 1\nbase = "{path}"\n[design]\n', encoding="utf-8")
    with pytest.raises(BadInput, match="base"):
        load_preset(path)


def test_zero_has_a_meaning_only_where_it_is_stated() -> None:
    assert check_value("x", "value_lanes", 0) == 0
    assert check_value("x", "dram_channel_gbps", 0) == 0.0
    with pytest.raises(BadInput):
        check_value("x", "lanes", 0)


def works(n: float = 2000.0) -> Statistics:
    """Settings that between them use every engine."""
    group = 2.0
    base = {
        "k_rows_0": n, "k_runs_0": 1, "v_rows": n, "v_runs": 1, "rows_written": 1, "qk_rows_0": group * n,
        "pv_rows": group * n, "exponentials": group * n, "divisions": group,
    }  # fmt: skip
    sparse = {"v_rows": 0.1 * n, "v_runs": 0.09 * n, "pv_rows": group * 0.1 * n}
    settings = [
        (Form((12,), 12, 12), base),
        (Form((4, 4, 4), 12, 12, v_after="token", lag=32),
         {**base, **sparse, "k_rows_1": 0.9 * n, "k_runs_1": 0.1 * n, "k_rows_2": 0.2 * n, "k_runs_2": 0.15 * n,
          "qk_rows_1": 1.8 * n, "qk_rows_2": 0.4 * n, "compares": 4.0 * n, "margins": 6.0}),
        (Form((8, 4), 12, 12, v_after="row", chunk_order="row"),
         {**base, **sparse, "k_rows_1": 0.1 * n, "k_runs_1": 1, "qk_rows_1": 0.2 * n, "select_calls": group,
          "select_elements": group * n, "select_kept": 0.2 * n, "importance_adds": 9 * group * n, "row_waits": group,
          "second_passes": 0.2}),
        (Form((9,), 9, 9, v_after="row"),
         {**base, **sparse, "search_steps": 4 * n, "sort_elements": 64 * n, "meta_read_bytes": 9 * n, "row_waits": 4}),
        (Form((8,), 8, 12, 16, 16),
         {**base, "controller_macs": 5e4, "scalar_ops": 300, "rows_reloaded": 900.0, "rank_calls": 1,
          "rank_elements": n, "rank_kept": n / 2}),
    ]  # fmt: skip
    few = 0.05 * n
    settings.append((Form((8,), 8, 8), {
        **base, "k_rows_0": few, "k_runs_0": few, "qk_rows_0": group * few, "v_rows": few, "v_runs": few,
        "pv_rows": group * few, "exponentials": group * few,
    }))  # fmt: skip
    shape = ModelShape(2, 4, 2, 64, 600_000, 100_000)
    columns = counter_columns()
    table = np.zeros((len(settings), 2, 2, len(columns)))
    for i, (_, counts) in enumerate(settings):
        for name, value in counts.items():
            for scope in ("group.", "head.") if name in FETCH_COUNTERS else ("",):
                table[i, ..., columns.index(scope + name)] = value
    return statistics([form for form, _ in settings], table, shape, n, classes=0)


def another(name: str, value: HardwareValue) -> HardwareValue:
    """A valid value that differs."""
    parameter = PARAMETERS[name]
    if parameter.kind == "choice":
        return next(choice for choice in parameter.choices if choice != value)
    number = float(value) * 2 or parameter.high / 2
    number = number if number <= parameter.high else float(value) / 2
    return int(number) if parameter.kind == "int" else number


@pytest.mark.parametrize("name", preset_names())
def test_every_key_of_a_preset_changes_some_result(name: str) -> None:
    design = load_preset(name)
    # More tokens than any buffer here holds, and few enough for all of them.
    cases = [
        (works(), Workload()), (works(), Workload(batch=0, scope="model")), (works(100.0), Workload()),
    ]  # fmt: skip
    before = [price(stats, design, w) for stats, w in cases]
    for key, value in design.items():
        changed = design | {key: another(key, value)}
        assert check_value(name, key, changed[key]) != value
        after = [price(stats, changed, w) for stats, w in cases]
        moved = any(
            not np.allclose(a[metric], b[metric], rtol=1e-9, atol=0)
            for a, b in zip(before, after, strict=True)
            for metric in a
        )
        assert moved, key


@pytest.mark.parametrize(("name", "setting"), [("theta", "top-theta"), ("adore", "adore")])
def test_machines_of_ours_have_the_memory_and_the_area_of_topick(name: str, setting: str) -> None:
    ours, topick = load_preset(name), load_preset("topick")
    for key in ("dram", "dram_channels", "dram_channel_gbps", "node_nm", "clock_ghz", "outstanding_requests"):
        assert ours[key] == topick[key], key
    stats = works()
    dense, picker = stats.take([0]), stats.take([1])
    reference = price(picker, topick, Workload(), ("area_mm2",))["area_mm2"]
    # What each algorithm adds to the bare machine: comparators and compensation, or ranking.
    extra = {"top-theta": ("compares", "scalar_ops"), "adore": ("rank_elements", "controller_macs")}[setting]
    counters = dict(dense.counters)
    for counter in extra:
        counters[counter] = np.full_like(counters[counter], 100.0)
    counters["rank_calls"] = np.full_like(counters["rank_calls"], float("rank_elements" in extra))
    mine = price(replace(dense, counters=counters), ours, Workload(), ("area_mm2",))["area_mm2"]
    assert float(np.ravel(mine)[0]) == pytest.approx(float(np.ravel(reference)[0]), rel=0.02)


def test_an_eighth_of_spatten_is_an_eighth() -> None:
    whole, eighth = load_preset("spatten"), load_preset("spatten-1-8")
    changed = {key for key in whole if whole[key] != eighth[key]}
    assert changed >= {"lanes", "value_lanes", "dram_channels", "exponent_units", "select_comparators"}
    assert all(float(whole[key]) == 8 * float(eighth[key]) for key in changed)


def test_a_user_file_of_text_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="is not text"):
        load_preset(path)


def test_the_file_that_names_a_missing_base_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    head = 'schema = 1\nbase = "{}"\n[design]\nlanes = 2\n'
    Path("in/top.toml").write_text(head.format("mid.toml"))
    Path("in/mid.toml").write_text(head.format("no/such.toml"))
    with pytest.raises(BadInput, match=r"^in/mid\.toml:2: base: no preset or file 'no/such\.toml'"):
        load_preset("in/top.toml")
    Path("in/mid.toml").write_text(head.format("low.toml"))
    for folder, lanes in (("in", 4), (".", 8)):
        Path(folder, "low.toml").write_text(f'schema = 1\nbase = "topick"\n[design]\nlanes = {lanes}\n')
    with pytest.raises(BadInput, match=r"^in/mid\.toml:2: base: low\.toml: there is one here and another"):
        load_preset("in/top.toml")
