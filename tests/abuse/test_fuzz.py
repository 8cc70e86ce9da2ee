"""Mutated inputs by the thousand: each is valid, or refused with one line and exit code 2.

`DSE_FUZZ=10000 DSE_FUZZ_REPORT=fuzz.json pytest tests/abuse/test_fuzz.py` is the whole campaign, on other inputs each
time; without it a fixed tenth of it runs.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from unittest import mock

import numpy as np
from cli.conftest import TINY
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from abuse import mutants
from abuse.conftest import AGAINST, RICHER, TALLIES, Yard
from dse.profiles import store
from dse.profiles.profile import build_profile

CAMPAIGN = "DSE_FUZZ" in os.environ
TOTAL = int(os.environ.get("DSE_FUZZ", "600"))


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


@share(0.40)
@given(st.sampled_from([TINY, RICHER, AGAINST]), mutants.mutations, st.integers(0, 19))
def test_spaces(yard: Yard, text: str, changes: list[tuple[str, int, int, str]], chance: int) -> None:
    content = mutants.mutate(text, changes)
    (yard.home / "fuzzed.toml").write_bytes(content)
    text = content.decode("utf-8", "replace")
    answer = yard.judge("spaces", text, "check", "fuzzed.toml", "--json")
    # What `check` accepts a sweep must bear; where it is small, it is run.
    if answer.code == 0 and chance == 0 and json.loads(answer.stdout)["points"] <= 20_000:
        yard.judge("sweeps", text, "sweep", "fuzzed.toml", "-o", "fuzzed")
        remove(yard)


def remove(yard: Yard) -> None:
    shutil.rmtree(yard.home / "fuzzed", ignore_errors=True)


@share(0.25)
@given(mutants.overrides)
def test_overrides(yard: Yard, texts: list[str]) -> None:
    assume(all("\x00" not in text for text in texts))  # no shell hands these on
    words = [word for text in texts for word in ("--set", text)]
    yard.judge("overrides", repr(texts), "check", "tiny.toml", *words)


@share(0.10)
@given(mutants.mutations)
def test_profiles_on_a_bad_disk(yard: Yard, changes: list[tuple[str, int, int, str]]) -> None:
    (yard.home / "fuzzed.npz").write_bytes(mutants.damage(yard.profile, changes))
    yard.judge("profiles", repr(changes), "profile", "show", "./fuzzed.npz")


@share(0.10)
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
    ("front", "fuzzed"),
    ("front", "fuzzed", "--json", "--all"),
    ("sweep", "tiny.toml", "-o", "fuzzed"),
    ("explain", "fuzzed", "1"),
)


@share(0.10)
@given(
    st.sampled_from(["space.toml", "front.csv", "run.json"]),
    mutants.mutations,
    st.sampled_from((0, 0, 0, 0, 1, 1, 1, 2, 3)),
)
def test_runs_changed_by_hand(
    yard: Yard, name: str, changes: list[tuple[str, int, int, str]], command: int
) -> None:
    content = mutants.mutate(yard.run[name].decode(), changes)
    yard.put_run("fuzzed", {name: content})
    yard.judge("runs", f"{name}: {changes!r}", *COMMANDS[command])
    remove(yard)


@share(0.05)
@given(mutants.json_changes, st.sampled_from((0, 0, 0, 0, 1, 1, 1, 2, 3)))
def test_records_made_up(yard: Yard, changes: list[tuple[int, str, object]], command: int) -> None:
    record = mutants.mutate_json(json.loads(yard.run["run.json"]), changes)
    yard.put_run("fuzzed", {"run.json": json.dumps(record).encode()})
    yard.judge("runs", f"run.json: {changes!r}", *COMMANDS[command])
    remove(yard)


def test_the_campaign_was_as_large_as_asked_for_and_no_walkover() -> None:
    """Inputs of every kind were tried, and of none were all refused: the mutants reach beyond the first check."""
    assert sum(tally.total for tally in TALLIES.values()) >= TOTAL * 0.97
    for kind in ("spaces", "overrides", "profiles", "runs"):
        assert TALLIES[kind].refused > TALLIES[kind].total * 0.2, kind
        assert TALLIES[kind].valid > 0, kind
