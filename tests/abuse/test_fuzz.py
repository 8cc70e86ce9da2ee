"""Mutated inputs by the thousand: each is valid, or refused with one line and exit code 2.

`DSE_FUZZ=10000 DSE_FUZZ_REPORT=fuzz.json pytest tests/abuse/test_fuzz.py` is the whole campaign, on other inputs each
time; without it a fixed tenth of it runs.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tomli_w
from cli.conftest import TINY
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from abuse import lines, mutants
from abuse.conftest import AGAINST, RICHER, TALLIES, Yard
from dse.profiles import probes, store
from dse.profiles.profile import build_profile
from dse.results import read_run
from dse.space import load_space
from dse.space.names import PRICED

CAMPAIGN = "DSE_FUZZ" in os.environ
TOTAL = int(os.environ.get("DSE_FUZZ", "400"))


def share(part: float) -> settings:
    """`part` of all inputs; the same ones each time outside a campaign."""
    return settings(
        max_examples=max(20, round(TOTAL * part)),
        deadline=None,
        database=None,
        derandomize=not CAMPAIGN,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@share(0.25)
@given(st.sampled_from([TINY, RICHER, AGAINST]), mutants.mutations, st.integers(0, 3))
def test_spaces(yard: Yard, text: str, changes: list[tuple[str, int, int, str]], chance: int) -> None:
    content = mutants.mutate(text, changes)
    (yard.home / "fuzzed.toml").write_bytes(content)
    text = content.decode("utf-8", "replace")
    answer = yard.judge("spaces", text, "check", "fuzzed.toml", "--json")
    if answer.code != 0:
        return
    about = answer.json
    assert about["points"] == counted(yard.home / "fuzzed.toml", about), text
    # What `check` accepts a sweep must bear; where it is small, it is run.
    if about["points"] <= (20_000 if chance == 0 else 500):
        swept = yard.judge("sweeps", text, "sweep", "fuzzed.toml", "-o", "fuzzed", "--json")
        if swept.code == 0:
            sound(yard, about, swept.json)
            if chance == 0:
                alike(yard, text)
        remove(yard)


def alike(yard: Yard, text: str) -> None:
    """The last point of the front taken apart by itself has the price that the sweep stored."""
    row = read_run(yard.home / "fuzzed").front.iloc[-1]
    story = yard.judge("explained", text, "explain", "fuzzed", str(row["point"]), "--json").json
    for metric in (*PRICED, "nll_increase"):
        assert math.isclose(story["metrics"][metric], row[metric], rel_tol=1e-9, abs_tol=1e-30), metric


@share(0.03)
@given(mutants.extremes())
def test_extremes(yard: Yard, table: dict[str, Any]) -> None:
    """Whatever stands at the end of its range: numbers stay numbers, or no point fits, or one line says what overflowed."""
    (yard.home / "fuzzed.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    checked = yard.judge("extremes", repr(table), "check", "fuzzed.toml", "--json")
    if checked.code:  # of two constants each at an end of its range one may rule out the other
        assert re.search(r"components: .* must be (at most|less than) .*, which is ", checked.stderr), checked
        return
    about = checked.json
    swept = yard.judge("sweeps", repr(table), "sweep", "fuzzed.toml", "-o", "fuzzed", "--json")
    if swept.code == 0:
        sound(yard, about, swept.json)
        front = read_run(yard.home / "fuzzed").front
        for metric in (*PRICED, "speedup", "energy_saving"):
            assert np.isfinite(front[metric].to_numpy(float)).all(), metric
            assert (front[metric].to_numpy(float) >= 0).all(), metric
    remove(yard)


def counted(path: Path, about: dict[str, Any]) -> int:
    """Points of a space by multiplying the lengths of the lists in its resolved form."""
    plain = tomllib.loads(load_space(path).to_toml())

    def product(axes: dict[str, Any]) -> int:
        return math.prod(len(values) if isinstance(values, list) else 1 for values in axes.values())

    points = 0
    for name, knobs in plain["algorithms"].items():
        skips = knobs.pop("unmeasured", "refuse") == "skip"
        hardware = {k: v for k, v in plain["hardware"].items() if k not in ("base", "for")}
        hardware |= plain["hardware"].get("for", {}).get(name, {})
        said = about["algorithms"][name]
        assert said["skipped"] == 0 or skips
        assert said["settings"] + said["skipped"] == product(knobs)
        points += (product(knobs) - said["skipped"]) * product(hardware)
    return points


def sound(yard: Yard, about: dict[str, Any], info: dict[str, Any]) -> None:
    """What a sweep of a mutated space left: every point counted, finite numbers, a front of which none beats another."""
    assert info["points"] == about["points"] == info["evaluated"] + info["excluded"]
    assert info["infeasible"] < info["points"]
    text = (yard.home / "fuzzed" / "front.csv").read_text(encoding="utf-8")
    assert not set(text.lower().replace("\n", ",").split(",")) & {"nan", "inf", "-inf", "infinity"}
    run = read_run(yard.home / "fuzzed")
    goals = [(-1.0 if up else 1.0) * run.front[m].to_numpy(float) for m, up in run.space.objectives.items()]
    costs = np.column_stack(goals)
    assert np.isfinite(costs).all()
    best = costs[run.front["on_front"].to_numpy()]
    assert len(best) == info["front"] > 0
    for one in best:
        assert not ((costs <= one).all(axis=1) & (costs < one).any(axis=1)).any()
    for metric, limits in run.space.constraints.items():
        values = run.front[metric].to_numpy(float)
        assert limits.low is None or (values >= limits.low).all()
        assert limits.high is None or (values <= limits.high).all()


def remove(yard: Yard) -> None:
    shutil.rmtree(yard.home / "fuzzed", ignore_errors=True)


@share(0.15)
@given(mutants.overrides)
def test_overrides(yard: Yard, texts: list[str]) -> None:
    assume(all("\x00" not in text for text in texts))  # no shell hands these on
    words = [word for text in texts for word in ("--set", text)]
    yard.judge("overrides", repr(texts), "check", "tiny.toml", *words)


TABLES = ("presets/topick-gqa.toml", "presets/spatten.toml", "processors/titan-xp.toml")


@share(0.04)
@given(st.sampled_from(TABLES), mutants.mutations)
def test_presets_and_processors(yard: Yard, name: str, changes: list[tuple[str, int, int, str]]) -> None:
    content = mutants.mutate((resources.files("dse.hardware") / name).read_text("utf-8"), changes)
    (yard.home / "table.toml").write_bytes(content)
    key = "hardware.base" if name.startswith("presets") else "baseline.processor"
    words = ("check", "tiny.toml", "--set", f'{key}="./table.toml"')
    yard.judge("presets", content.decode("utf-8", "replace"), *words)


@share(0.07)
@given(mutants.mutations)
def test_profiles_on_a_bad_disk(yard: Yard, changes: list[tuple[str, int, int, str]]) -> None:
    (yard.home / "fuzzed.npz").write_bytes(mutants.damage(yard.profile, changes))
    yard.judge("profiles", repr(changes), "profile", "show", "./fuzzed.npz")


@share(0.08)
@given(mutants.json_changes, mutants.array_changes, st.booleans())
def test_profiles_made_up(
    yard: Yard, header: list[tuple[int, str, object]], arrays: list[tuple[str, str]], both: bool
) -> None:
    with np.load(io.BytesIO(yard.profile), allow_pickle=False) as data:
        content = {name: data[name] for name in data.files}
    record = mutants.mutate_json(json.loads(content["header"].tobytes()), header)
    if both:
        content = mutants.mutate_arrays(content, arrays)
    command = ("check", "tiny.toml", "--set", 'workload.profile="./fuzzed.npz"')

    def answer() -> str:
        packed = {**content, "header": np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)}
        (yard.home / "fuzzed.npz").write_bytes(mutants.pack(packed))
        return yard.judge("profiles", repr((header, arrays if both else None)), *command).stderr

    if "checksum: does not match" in answer():  # whoever changes a profile can compute its checksum too
        with mock.patch.object(store, "build_profile", side_effect=build_profile) as built:
            made = []
            built.side_effect = lambda **fields: made.append(build_profile(**fields)) or made[-1]
            answer()
        record["checksum"] = made[-1].checksum
        answer()


COMMANDS = (
    "front fuzzed", "front fuzzed --json --all", "front fuzzed --json --all", "front fuzzed --sort -speedup --rows 2",
    "sweep tiny.toml -o fuzzed", "explain fuzzed 1", "explain fuzzed 3 --json", "plot fuzzed -o a.svg", "compare fuzzed other",
    "compare other fuzzed --json", "report fuzzed -o a.html --no-validation --points 5 --breakdowns 1", "check fuzzed/space.toml",
    "plot fuzzed -o a.svg --kind breakdown", "plot fuzzed -o a.svg --kind parallel", "plot fuzzed -o a.svg --kind knobs",
    "plot fuzzed -o a.svg --kind dram", "plot fuzzed -o a.svg --kind roofline", "plot fuzzed -o a.svg --kind waterfall",
    "plot fuzzed -o a.svg --kind importance", "plot fuzzed other -o a.svg --kind winner", "plot fuzzed -o a.svg --cloud",
    "plot fuzzed other -o a.svg -y energy_j --colour area_mm2", "match fuzzed/space.toml --settings-only",
    "plot fuzzed -o a.svg --kind hypervolume",
)  # fmt: skip
"""What is done to runs; charts and pages stay below the two seconds too, once their libraries are imported."""

commands = st.one_of(st.sampled_from(COMMANDS[:5]), st.sampled_from(COMMANDS))


@share(0.12)
@given(st.sampled_from(["space.toml", "front.csv", "run.json"]), mutants.mutations, commands, st.booleans())
def test_runs_changed_by_hand(
    yard: Yard, name: str, changes: list[tuple[str, int, int, str]], command: str, sealed: bool
) -> None:
    files = {name: mutants.mutate(yard.run[name].decode(), changes)}
    yard.put_run("fuzzed", yard.reseal(files) if sealed else files)
    answer = yard.judge("runs", f"{name}, sealed {sealed}: {changes!r}", *command.split())
    if answer.code == 0 and not sealed and "--all" in command:
        assert answer.json == yard.rows, (name, changes)  # what differs from what was computed is never shown
    remove(yard)


@share(0.06)
@given(mutants.json_changes, commands, st.booleans())
def test_records_made_up(
    yard: Yard, changes: list[tuple[int, str, object]], command: str, sealed: bool
) -> None:
    record = mutants.mutate_json(json.loads(yard.run["run.json"]), changes)
    files = {"run.json": json.dumps(record).encode()}
    yard.put_run("fuzzed", yard.reseal(files) if sealed else files)
    yard.judge("runs", f"run.json, sealed {sealed}: {changes!r}", *command.split())
    remove(yard)


@share(0.05)
@given(mutants.json_changes, st.booleans(), st.booleans())
def test_probes(yard: Yard, changes: list[tuple[int, str, object]], sealed: bool, json_too: bool) -> None:
    record = mutants.mutate_json(json.loads((yard.home / "tiny.json").read_text()), changes)
    if sealed and isinstance(record, dict):
        record["checksum"] = probes._checksum(record)
    (yard.home / "fuzzed.json").write_text(json.dumps(record), encoding="utf-8")
    words = ("profile", "show", "./fuzzed.json", "--probes", *(["--json"] if json_too else []))
    yard.judge("probes", repr(changes), *words)


@share(0.15)
@given(lines.lines())
def test_command_lines(yard: Yard, words: list[str]) -> None:
    yard.judge("command lines", repr(words), *words)
    remove(yard)


def test_the_campaign_was_as_large_as_asked_for_and_no_walkover() -> None:
    """Inputs of every kind were tried, and of none were all refused: the mutants reach beyond the first check."""
    assert sum(tally.total for tally in TALLIES.values()) >= TOTAL * 0.97
    for kind in ("spaces", "overrides", "profiles", "runs", "probes", "command lines"):
        assert TALLIES[kind].refused > TALLIES[kind].total * 0.2, kind
        assert TALLIES[kind].valid > 0, kind
