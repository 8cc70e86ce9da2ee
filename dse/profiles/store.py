"""Profiles on disk: one compressed `.npz` each, read strictly and written atomically.

The file holds a JSON header as bytes (array ``header``) and plain float arrays. Nothing in it is ever
unpickled. Counters that are zero everywhere are left out and named by their absence from ``columns``. A prefill
profile with counters per query tile has an array and two header entries more; its first tile is not stored, since
`counters` holds the same numbers. Quantisation scales are arrays of their own, ``scales.k.8`` and so on.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from dse.errors import BadInput, nearest
from dse.inputs import is_file, parse_json
from dse.outputs import atomic
from dse.profiles.profile import (
    SCALE_NAME,
    TILE_COLUMNS,
    Profile,
    arrays_of,
    build_profile,
    check_profile,
    plain_setting,
    profile_checksum,
)
from dse.profiles.schema import (
    ACCURACY,
    QUERY_TILES,
    SCHEMA_VERSION,
    Form,
    KnobValue,
    ModelShape,
    Provenance,
    Setting,
    counter_columns,
    tile_columns,
)

MAX_BYTES = 4 << 30
"""Most bytes a profile may take in memory; a file that claims more is refused before it is unpacked."""

MAX_RATIO = 200
SMALL_BYTES = 256 << 20
"""A file may unpack to so many times its size, or to so many bytes; measured ones grow by 15."""

MAX_HEADER = 16 << 20

_DTYPES = {
    "header": np.uint8,
    "counters": np.float32,
    "histograms": np.float32,
    "accuracy": np.float64,
    "window_nll": np.float64,
    "mean_context": np.float64,
    "baseline_perplexity": np.float64,
}
_HEADER = {
    "schema": int,
    "name": str,
    "phase": str,
    "shape": dict,
    "contexts": list,
    "settings": list,
    "defaults": dict,
    "provenance": dict,
    "columns": list,
    "accuracy": list,
    "checksum": str,
}
_TILES = "tile_counters"
_SCALES = "scales."
_TILE_HEADER = {"tiles": list, "tile_columns": list}


def write_profile(path: Path, profile: Profile) -> None:
    """Write `profile` to `path` (`.npz`), through a temporary file beside it and a rename.

    Raises:
        BadInput: the profile breaks an invariant, or the place cannot be written.
    """
    check_profile(profile)
    columns = counter_columns()
    used = [i for i in range(len(columns)) if profile.counters[..., i].any()]  # NaN counts as used
    header = {
        "schema": SCHEMA_VERSION,
        "name": profile.name,
        "phase": profile.phase,
        "shape": asdict(profile.shape),
        "contexts": list(profile.contexts),
        "settings": [plain_setting(s) for s in profile.settings],
        "defaults": {a: dict(k) for a, k in profile.defaults.items()},
        "provenance": asdict(profile.provenance),
        "columns": [columns[i] for i in used],
        "accuracy": list(ACCURACY),
        "checksum": profile_checksum(profile),
    }
    packed = np.ascontiguousarray(np.moveaxis(profile.counters[..., used], -1, 0))
    tiles: dict[str, Any] = {}
    if profile.tile_counters is not None:
        later = profile.tile_counters[:, :, 1:]
        kept = [i for i in range(len(TILE_COLUMNS)) if later[..., i].any()]
        header |= {"tiles": list(QUERY_TILES), "tile_columns": [tile_columns()[i] for i in kept]}
        tiles[_TILES] = np.ascontiguousarray(np.moveaxis(later[..., kept], -1, 0))
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    arrays: dict[str, Any] = {"header": np.frombuffer(text, dtype=np.uint8), **arrays_of(profile)}
    # Column by column: values of one counter resemble each other, which compresses better.
    arrays |= {"counters": packed, **tiles}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise BadInput(
            f"{path}: cannot write: {(error.strerror or 'error').lower()}; choose another file"
        ) from None


def read_profile(path: Path) -> Profile:
    """The profile in `path`, every invariant checked and its checksum verified.

    Raises:
        BadInput: no such file, not a profile, truncated, another schema version, or changed by hand.
    """
    if not is_file(path):
        raise BadInput(f"{path}: no such profile; `dse list profiles` shows what is shipped")
    try:
        arrays = _read_arrays(path)
        header = _read_header(arrays.pop("header").tobytes(), _TILES in arrays)
        return _assemble(header, arrays)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def _read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of the file, after their declared names, dtypes and sizes have been found acceptable.

    Raises:
        BadInput: they are not, or the file is damaged.
    """
    try:
        names = _acceptable(path)
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except BadInput:
        raise
    except Exception as error:  # what the readers of zip and npy raise on damaged bytes is not documented
        raise BadInput("not a readable profile (damaged or truncated); measure or fetch it again") from error


def _acceptable(path: Path) -> list[str]:
    """The names of the arrays in a file, none of which has been unpacked yet."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        names = [member.filename for member in archive.infolist()]
        for member in members.values():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
                raise BadInput(
                    f"{member.filename}: packed in a way that profiles never are; measure it again"
                )
        more = [name.removesuffix(".npy") for name in names]
        more = [
            n
            for n in more
            if n == _TILES or (n.startswith(_SCALES) and SCALE_NAME.fullmatch(n.removeprefix(_SCALES)))
        ]
        dtypes: dict[str, Any] = _DTYPES | dict.fromkeys(more, np.float32)
        wanted = {f"{name}.npy" for name in dtypes}
        if sorted(names) != sorted(wanted):
            odd = sorted(set(names) ^ wanted) or sorted(names)
            raise BadInput(f"arrays {odd} are missing or do not belong; a profile holds {sorted(_DTYPES)}")
        total = 0
        for name, dtype in dtypes.items():
            with archive.open(f"{name}.npy") as file:
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, found = read(file)
                size = members[f"{name}.npy"].file_size - file.tell()
            if found != np.dtype(dtype).newbyteorder("<"):
                raise BadInput(f"{name}: dtype {found}; must be {np.dtype(dtype)}")
            if min(shape, default=0) < 0 or math.prod(shape) * found.itemsize != size:
                raise BadInput(f"{name}: shape {shape} does not fit its {size} bytes")
            if name == "header" and size > MAX_HEADER:
                raise BadInput(f"header: {size} bytes; at most {MAX_HEADER} are allowed")
            total += size * _widening(name, shape)
    most = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * path.stat().st_size))
    if total > most:
        raise BadInput(f"unpacks to {total} bytes; at most {most} are allowed for a file of its size")
    return list(dtypes)


def _widening(name: str, shape: tuple[int, ...]) -> int:
    """How many times an array grows in memory: counters that are zero everywhere are not stored."""
    columns = {"counters": len(counter_columns()), _TILES: len(TILE_COLUMNS)}.get(name, 1)
    return -(-columns // max(1, shape[0])) if shape else 1


def _read_header(text: bytes, tiled: bool) -> dict[str, Any]:
    try:
        header = parse_json("header", text.decode(), "measure or fetch the profile again")
    except UnicodeDecodeError:
        raise BadInput("header: is not text; measure or fetch the profile again") from None
    if not isinstance(header, dict):
        raise BadInput("header: must be a table")
    version = header.get("schema")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BadInput(
            f"schema: {version!r}; this version of dse reads {SCHEMA_VERSION}: measure the profile again"
            f"{', or update dse' if type(version) is int and version > SCHEMA_VERSION else ''}"
        )
    _strict(header, _HEADER | _TILE_HEADER if tiled else _HEADER, "header")
    if header["accuracy"] != list(ACCURACY):
        raise BadInput(f"accuracy: columns {header['accuracy']}; must be {list(ACCURACY)}")
    known = {"columns": counter_columns(), "tile_columns": tile_columns()}
    for name in ("columns", "tile_columns") if tiled else ("columns",):
        unknown = [c for c in header[name] if c not in known[name]]
        if unknown or len(set(map(str, header[name]))) != len(header[name]):
            raise BadInput(f"{name}: {unknown or 'duplicates'}; must be distinct counters of the schema")
    if tiled and header["tiles"] != list(QUERY_TILES):
        raise BadInput(f"tiles: {header['tiles']}; must be {list(QUERY_TILES)}")
    return header


def _strict(table: Any, kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`table` if it has exactly the keys of `kinds`, each of its kind (a bool is not an int)."""
    if not isinstance(table, dict):
        raise BadInput(f"{where}: {table!r}; must be a table")
    for key in table:
        if key not in kinds:
            raise BadInput(f"{where}.{key}: unknown key; {nearest(str(key), kinds)}")
    for key, kind in kinds.items():
        if key not in table:
            raise BadInput(f"{where}.{key}: missing")
        if not isinstance(table[key], kind) or (isinstance(table[key], bool) and kind is not bool):
            raise BadInput(f"{where}.{key}: {table[key]!r}; must be {kind.__name__}")
    return table


def _integers(values: Any, where: str) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(v) is not int for v in values):
        raise BadInput(f"{where}: {values!r}; must be whole numbers")
    return tuple(values)


def _knobs(table: Any, where: str) -> dict[str, KnobValue]:
    if not isinstance(table, dict) or any(
        not isinstance(v, bool | int | float | str) for v in table.values()
    ):
        raise BadInput(f"{where}: must be a table of numbers, text or truth values")
    return dict(table)


def _shape(table: Any) -> ModelShape:
    return ModelShape(**_strict(table, {f.name: int for f in fields(ModelShape)}, "shape"))


def _setting(table: Any, where: str) -> Setting:
    _strict(table, {"algorithm": str, "knobs": dict, "form": dict}, where)
    kinds = {f.name: int for f in fields(Form)} | {
        "k_chunk_bits": list,
        "v_after": str,
        "chunk_order": str,
        "releases": bool,
    }
    given = table["form"]
    if isinstance(given, dict):
        given = {"releases": False, **given}  # written only where it is true
    form = dict(_strict(given, kinds, f"{where}.form"))
    form["k_chunk_bits"] = _integers(form["k_chunk_bits"], f"{where}.form.k_chunk_bits")
    return Setting(table["algorithm"], _knobs(table["knobs"], f"{where}.knobs"), Form(**form))


def _provenance(table: Any) -> Provenance:
    kinds = {f.name: str for f in fields(Provenance)} | {"windows": list, "seed": int, "versions": dict}
    values = dict(_strict(table, kinds, "provenance"))
    windows = values["windows"]
    if any(
        not isinstance(w, list) or len(w) != 2 or type(w[0]) is not str or type(w[1]) is not int
        for w in windows
    ):
        raise BadInput("provenance.windows: must be pairs of a book and its first token")
    values["windows"] = tuple((book, start) for book, start in windows)
    if any(not isinstance(v, str) for v in values["versions"].values()):
        raise BadInput("provenance.versions: must be a table of texts")
    return Provenance(**values)


def _assemble(header: dict[str, Any], arrays: dict[str, Any]) -> Profile:
    settings = tuple(_setting(s, f"settings[{i}]") for i, s in enumerate(header["settings"]))
    packed, columns = arrays["counters"], counter_columns()
    if packed.ndim != 5 or packed.shape[0] != len(header["columns"]):
        raise BadInput(f"counters: shape {packed.shape}; must have one plane per entry of columns")
    counters = np.zeros((*packed.shape[1:], len(columns)), dtype=np.float32)
    for plane, name in zip(packed, header["columns"], strict=True):
        counters[..., columns.index(name)] = plane
    given = {**arrays, "counters": counters}
    if _TILES in arrays:
        given[_TILES] = _unpack_tiles(arrays[_TILES], header["tile_columns"], counters)
    given["scales"] = {
        name.removeprefix(_SCALES): given.pop(name) for name in list(given) if name.startswith(_SCALES)
    }
    profile = build_profile(
        name=header["name"],
        phase=header["phase"],
        shape=_shape(header["shape"]),
        contexts=_integers(header["contexts"], "contexts"),
        settings=settings,
        provenance=_provenance(header["provenance"]),
        defaults={a: _knobs(k, f"defaults.{a}") for a, k in header["defaults"].items()},
        **given,
    )
    if profile.checksum != header["checksum"]:
        raise BadInput("checksum: does not match the content; the file was changed after it was measured")
    return profile


def _unpack_tiles(packed: Any, names: list[str], counters: Any) -> Any:
    """`Profile.tile_counters` from the stored columns of all tiles but the first, and from `counters`."""
    settings, contexts, layers, heads, _ = counters.shape
    shape = (len(names), settings, contexts, len(QUERY_TILES) - 1, layers, heads)
    if packed.shape != shape:
        raise BadInput(f"{_TILES}: shape {packed.shape}; must be {shape}")
    out = np.zeros((settings, contexts, len(QUERY_TILES), layers, heads, len(TILE_COLUMNS)), np.float32)
    out[:, :, 0] = counters[..., TILE_COLUMNS]
    for plane, name in zip(packed, names, strict=True):
        out[:, :, 1:, ..., tile_columns().index(name)] = plane
    return out


def shipped_profiles() -> dict[str, Path]:
    """Name -> file of the profiles that come with the package, sorted by name."""
    folder = Path(str(resources.files("dse.profiles"))) / "data"
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}


def load_profile(name_or_path: str | Path) -> Profile:
    """A shipped profile by name, or any profile by path (anything with a slash or the suffix `.npz`)."""
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or os.sep in text or "/" in text or text.endswith(".npz"):
        return read_profile(Path(name_or_path))
    shipped = shipped_profiles()
    if text not in shipped:
        raise BadInput(
            f"profile {text!r}: not shipped; {nearest(text, shipped)}; a file is named by its path"
        )
    return read_profile(shipped[text])
