"""``[workload]``: what is run, and the profile it is run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dse.cost.workload import SCOPES
from dse.errors import BadInput, nearest
from dse.inputs import is_file, locate, places
from dse.profiles.naming import ProfileName
from dse.profiles.profile import PHASES, Profile
from dse.profiles.schema import QUERY_TILES
from dse.profiles.store import load_profile
from dse.space.definition import MOST, QUERY_TILE, WorkloadSpec
from dse.space.source import Place

KEYS: Final[Mapping[str, type]] = {
    "profile": str, "phase": str, "context": int, "batch": int, "grouped": bool, "profile_sha256": str,
    "scope": str, "query_tile": int,
}  # fmt: skip
"""Key of ``[workload]`` -> what its value is."""

BATCH: Final = f'a whole number from 1 to 1000000, or "{MOST}" for the largest that fits'


def read_workload(table: Mapping[str, Any], place: Place) -> WorkloadSpec:
    """The table ``[workload]``, checked by itself."""
    place = place / "workload"
    if "workload" not in table:
        raise place.error("missing; must be a table with at least profile and context")
    written = place.table(table["workload"], tuple(KEYS))
    for key, value in written.items():
        if key == "batch" and value == MOST:
            continue
        if type(value) is not KEYS[key]:
            what = {str: "text", int: "a whole number", bool: "true or false"}[KEYS[key]]
            raise (place / key).error(f"found {value!r}; must be {BATCH if key == 'batch' else what}")
    for key in ("profile", "context"):
        if key not in written:
            raise (place / key).error("missing")
    workload = WorkloadSpec(**written)
    if workload.phase not in PHASES:
        raise (place / "phase").error(f"found {workload.phase!r}; {nearest(workload.phase, PHASES)}")
    if isinstance(workload.batch, int) and not 1 <= workload.batch <= 1_000_000:
        raise (place / "batch").error(f"found {workload.batch}; must be {BATCH}")
    if workload.scope not in SCOPES:
        raise (place / "scope").error(f"found {workload.scope!r}; {nearest(workload.scope, SCOPES)}")
    if "query_tile" in written and workload.phase != "prefill":
        raise (place / "query_tile").error(f"{workload.phase} has one query per sequence; remove the key")
    if workload.phase != "prefill":
        return workload
    if "query_tile" not in written:
        return replace(workload, query_tile=QUERY_TILE)
    if workload.query_tile not in QUERY_TILES:
        known = ", ".join(map(str, QUERY_TILES))
        raise (place / "query_tile").error(f"found {workload.query_tile}; must be one of {known}")
    return workload


def named_profile(workload: WorkloadSpec, place: Place, folder: Path) -> tuple[Profile, WorkloadSpec]:
    """The profile a workload names, or where that holds another phase, the one of the workload's phase beside it.

    A file is looked for where the command runs and beside the space; that of a space that was run (which holds its
    checksum) also by its bare name and in the folders above (`dse.inputs.places`), where the checksum decides.

    Args:
        folder: where the space lies.

    Returns:
        The profile, and the workload with the place where it was found.

    Raises:
        BadInput: there is none, it is damaged, or there are two that differ.
    """
    at = place / "workload" / "profile"
    try:
        if not _is_path(workload.profile):
            named, name = load_profile(workload.profile), workload.profile
        elif workload.profile_sha256 and not at.by_override:
            named, name = _of_checksum(workload, folder)
        else:
            path = locate(workload.profile, folder)
            named, name = load_profile(path), _spelt(path)
    except BadInput as error:
        raise at.error(str(error)) from None
    workload = replace(workload, profile=name)
    if named.phase == workload.phase:
        return named, workload
    sibling = _of_phase(name, workload.phase)
    try:
        found = load_profile(sibling)
    except BadInput:
        return named, workload  # refused by `fitted`, which says what the named one holds
    return found, replace(workload, profile=sibling)


def _of_checksum(workload: WorkloadSpec, folder: Path) -> tuple[Profile, str]:
    """The profile with the workload's checksum and its place; where none has it, the first of that name."""
    other: tuple[Profile, str] | None = None
    for path in places(workload.profile, folder):
        if is_file(path):
            found = load_profile(path)
            if found.checksum == workload.profile_sha256:
                return found, _spelt(path)
            other = other or (found, _spelt(path))
    if other is None:
        raise BadInput(
            f"{workload.profile}: no such profile, here or in the folders above the space; put the one with checksum "
            f"{workload.profile_sha256[:12]} into {folder}"
        )
    return other


def _is_path(name: str) -> bool:
    """Whether a profile's name is a file's place, and no name that is shipped."""
    return "/" in name or name.endswith(".npz")


def _spelt(path: Path) -> str:
    """A path as the name of a profile."""
    return str(path) if _is_path(str(path)) else f"./{path}"


def _of_phase(name: str, phase: str) -> str:
    """The name of a profile of the same model and text in another phase."""
    folder, slash, last = name.rpartition("/")
    suffix = ".npz" if last.endswith(".npz") else ""
    parts = ProfileName.parse(last.removesuffix(suffix))
    return f"{folder}{slash}{replace(parts, phase=phase)}{suffix}"


def fitted(workload: WorkloadSpec, place: Place, profile: Profile) -> tuple[WorkloadSpec, Profile]:
    """The workload with the profile's checksum, and the profile at the workload's query tile.

    Raises:
        BadInput: the profile does not hold its phase, context or tile.
    """
    place = place / "workload"
    if workload.phase != profile.phase:
        raise (place / "phase").error(
            f"found {workload.phase!r}; profile {profile.name!r} holds {profile.phase!r}"
        )
    if workload.context not in profile.contexts:
        have = ", ".join(map(str, profile.contexts))
        raise (place / "context").error(f"found {workload.context}; profile {profile.name!r} holds {have}")
    if workload.profile_sha256 and workload.profile_sha256 != profile.checksum:
        raise (place / "profile_sha256").error(
            f"profile {profile.name!r} (checksum {profile.checksum[:12]}) is not the one this space was run with "
            f"({workload.profile_sha256[:12]}); find that one, or remove the key and sweep the space again"
        )
    workload = replace(workload, profile_sha256=profile.checksum)
    if workload.phase != "prefill":
        return workload, profile
    try:
        return workload, profile.at_tile(workload.query_tile)
    except BadInput as error:
        raise (place / "query_tile").error(str(error)) from None
