"""``[baseline] processor = "..."``: a GPU or CPU that speedups refer to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from dse.errors import BadInput, nearest
from dse.hardware.processors import (
    PROCESSOR_PARAMETERS,
    check_processor_value,
    load_processor,
    make_processor,
    processor_names,
)
from dse.inputs import locate
from dse.space.definition import Baseline
from dse.space.source import Place

KEYS: Final = ("processor", "parameters")
"""Keys of such a baseline: the name or file, and values that replace its own."""


def processor_baseline(
    written: Mapping[str, Any], place: Place, folder: Path | None = None, knobs: Collection[str] = ()
) -> Baseline:
    """The processor of a table that has the key ``processor``.

    Args:
        written: the table; `place`: where it stands.
        folder: where the space's file lies: a processor's file may lie beside it. None for a resolved space,
            which states every value and looks nothing up.
        knobs: names that would be right if the baseline were an algorithm.

    Raises:
        BadInput: it names an algorithm as well, the processor does not exist, or a value is wrong or missing.
    """
    for key in written:
        if key in ("algorithm", "hardware") or key in knobs:
            raise (place / key).error(
                'stands beside processor; a baseline is either processor = "..." or an algorithm with its knobs '
                "and hardware"
            )
        if key not in KEYS:
            raise (place / key).error(f"unknown key; {nearest(key, KEYS)}")
    name = written["processor"]
    if not isinstance(name, str) or not name:
        names = ", ".join(processor_names())
        raise (place / "processor").error(f"found {name!r}; must be a path or one of {names}")
    here = place / "parameters"
    values = here.table(written.get("parameters", {}))
    for key, value in values.items():
        if key not in PROCESSOR_PARAMETERS:
            raise (here / key).error(f"unknown key; {nearest(key, PROCESSOR_PARAMETERS)}")
        try:
            check_processor_value("", key, value)
        except BadInput as error:
            raise (here / key).error(str(error).removeprefix(f": {key}: ")) from None
    complete = set(values) == set(PROCESSOR_PARAMETERS)
    if folder is None or (complete and name not in processor_names()):
        try:
            return Baseline.on(make_processor("", Path(name).stem, values))
        except BadInput as error:
            raise here.error(str(error).removeprefix(": ")) from None
    is_path = "/" in name or name.endswith(".toml")
    try:
        known = load_processor(locate(name, folder) if is_path else name)
    except BadInput as error:
        raise (place / "processor").error(str(error)) from None
    return Baseline.on(make_processor("", known.name, values, known))
