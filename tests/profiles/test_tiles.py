"""Prefill profiles: counters per tile of queries, beside decode files that know nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.errors import BadInput
from dse.profiles.merge import merge_profiles
from dse.profiles.profile import COLUMN, TILE_COLUMNS, build_profile, rounded
from dse.profiles.schema import QUERY_TILES, SCOPES, tile_columns
from dse.profiles.store import read_profile, shipped_profiles, write_profile
from profiles.synthetic import fields, profile, settings


def prefill_fields(seed: int = 0, rows: list[Any] | None = None) -> dict[str, Any]:
    given = fields(seed, rows) | {"phase": "prefill"}
    first = np.asarray(given["counters"], np.float32)[..., TILE_COLUMNS]
    shares = np.array([1.0, 0.7, 0.5, 0.3, 0.1], np.float32)
    given["tile_counters"] = np.stack([first * share for share in shares], axis=2)
    return given


@pytest.mark.parametrize("seed", range(3))
def test_round_trip(tmp_path: Path, seed: int) -> None:
    given = prefill_fields(seed)
    for name in ("counters", "accuracy", "tile_counters"):
        given[name][1, 1] = np.nan
    made = build_profile(**given)
    write_profile(tmp_path / "p.npz", made)
    back = read_profile(tmp_path / "p.npz")
    assert back.checksum == made.checksum
    assert back.tile_counters is not None
    assert made.tile_counters is not None
    np.testing.assert_array_equal(back.tile_counters, made.tile_counters)


def test_only_columns_that_say_something_are_stored(tmp_path: Path) -> None:
    write_profile(tmp_path / "p.npz", build_profile(**prefill_fields()))
    with np.load(tmp_path / "p.npz") as data:
        stored = data["tile_counters"]
    used = np.any(prefill_fields()["tile_counters"], axis=(0, 1, 2, 3, 4)).sum()
    assert stored.shape[0] == used < len(tile_columns())
    assert stored.shape[3] == len(QUERY_TILES) - 1


def test_a_decode_file_is_what_it_was(tmp_path: Path) -> None:
    shipped = shipped_profiles()["smollm2-135m"]
    write_profile(tmp_path / "again.npz", read_profile(shipped))
    with np.load(shipped) as old, np.load(tmp_path / "again.npz") as new:
        assert old.files == new.files
        for name in old.files:
            assert old[name].tobytes() == new[name].tobytes(), name


def test_tiles_replace_the_fetches_and_nothing_else() -> None:
    made = build_profile(**prefill_fields())
    assert made.tile_counters is not None
    for number, tile in enumerate(QUERY_TILES):
        at = made.at_tile(tile)
        np.testing.assert_array_equal(at.counters[..., TILE_COLUMNS], made.tile_counters[:, :, number])
        shared = [*TILE_COLUMNS, *(COLUMN[f"{scope}.meta_read_bytes"] for scope in SCOPES)]
        others = np.delete(np.arange(made.counters.shape[-1]), shared)
        np.testing.assert_array_equal(at.counters[..., others], made.counters[..., others])


def test_metadata_is_shared_as_the_keys_it_describes() -> None:
    made = build_profile(**prefill_fields())
    for number, share in enumerate([1.0, 0.7, 0.5, 0.3, 0.1]):
        at = made.at_tile(QUERY_TILES[number])
        for scope in SCOPES:
            np.testing.assert_allclose(
                at.counter(f"{scope}.meta_read_bytes"),
                made.counter(f"{scope}.meta_read_bytes") * share,
                rtol=1e-6,
            )


def test_rounding_keeps_tile_one_equal_to_the_counters() -> None:
    made = rounded(build_profile(**prefill_fields()), 9)
    assert made.tile_counters is not None
    np.testing.assert_array_equal(made.tile_counters[:, :, 0], made.counters[..., TILE_COLUMNS])


def test_the_checksum_covers_the_tiles() -> None:
    given = prefill_fields()
    before = build_profile(**given).checksum
    given["tile_counters"][0, 0, 4, 0, 0] *= 0.5
    assert build_profile(**given).checksum != before


def test_merging_carries_the_tiles() -> None:
    whole = prefill_fields()
    half = len(settings()) // 2

    def part(rows: slice) -> Any:
        cut = ("settings", "counters", "histograms", "accuracy", "window_nll", "tile_counters")
        names = {s.algorithm for s in whole["settings"][rows]}
        given = whole | {name: whole[name][rows] for name in cut}
        return build_profile(
            **given | {"defaults": {a: k for a, k in whole["defaults"].items() if a in names}}
        )

    a, b = part(slice(half)), part(slice(half, None))
    assert merge_profiles(a, b).checksum == build_profile(**whole).checksum
    with pytest.raises(BadInput, match="tile_counters: in one of the two only"):
        merge_profiles(a, build_profile(**prefill_fields() | {"tile_counters": None}))


def broken(change: str) -> dict[str, Any]:
    given = prefill_fields()
    tiles = given["tile_counters"]
    if change == "shape":
        given["tile_counters"] = tiles[:, :, :2]
    elif change == "first":
        tiles[0, 0, 0, 0, 0, 0] += 1
    elif change == "rise":
        tiles[0, 0, 3] = tiles[0, 0, 1]
    elif change == "infinite":
        tiles[0, 0, 4] = np.inf
    elif change == "phase":
        given["phase"] = "decode"
    return given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", "tile_counters: shape"),
        ("first", "tile 1 differs"),
        ("rise", "rise with the tile"),
        ("infinite", "tile_counters: holds an infinity"),
        ("phase", "in a decode profile"),
    ],
)
def test_broken_tiles_are_refused(change: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build_profile(**broken(change))


def test_tiles_that_were_not_measured_are_named() -> None:
    with pytest.raises(BadInput, match="query tile 32"):
        build_profile(**prefill_fields()).at_tile(32)
    with pytest.raises(BadInput, match=r"query tile 4.*\(decode\)"):
        profile().at_tile(4)
    assert profile().at_tile(1).checksum == profile().checksum


def test_damaged_tile_headers_are_refused(tmp_path: Path) -> None:
    import json

    path = tmp_path / "p.npz"
    write_profile(path, build_profile(**prefill_fields()))
    with np.load(path) as data:
        arrays = dict(data)
    for key, value in (("tiles", [1, 2]), ("tile_columns", ["group.nonsense"]), ("tile_columns", [])):
        header = json.loads(arrays["header"].tobytes()) | {key: value}
        changed = arrays | {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
        np.savez(path, **changed)  # type: ignore[arg-type]
        with pytest.raises(BadInput, match="tile"):
            read_profile(path)
    without = arrays.copy()
    del without["tile_counters"]
    np.savez(path, **without)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"header\.tile"):
        read_profile(path)
