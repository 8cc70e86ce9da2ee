"""What an algorithm gives back, held against its contract: arrays that do not fit would be broadcast in silence.

An output of one column is a full one to NumPy, and a mask of too few tokens counts as one that fetched little: both
would end in a profile as numbers. What a query may not see is refused too: in a window that is scored all at once the
tokens to come lie beside those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dse.algorithms.contract import Algorithm, Attended, BoolArray, Call, FloatArray
from dse.errors import BadInput, nearest
from dse.measure.counting import COLUMNS
from dse.measure.material import NotFinite


def attend(algorithm: Algorithm, call: Call) -> Attended:
    """`algorithm.attend(call)`, checked; the algorithm cannot change the arrays of the call.

    Raises:
        BadInput: what comes back is not as `Attended` says, or asks for tokens that a query may not see.
        NotFinite: the output is not finite everywhere.
    """
    frozen = replace(call, q=_frozen(call.q), k=_frozen(call.k), v=_frozen(call.v))
    attended = algorithm.attend(frozen)
    check(algorithm, attended, call.q)
    visible = call.visible()
    for name, mask in _masks(attended):
        if mask is None:
            continue
        wanted = (*call.q.shape[:2], (1, call.q.shape[2]), *visible.shape)
        _check_shape(algorithm, name, mask.shape, wanted)
        if (mask & ~visible).any():
            raise _wrong(
                algorithm, name, "holds tokens that a query may not see", "only those of call.visible()"
            )
    return attended


def check(algorithm: Algorithm, attended: Any, q: FloatArray) -> None:
    """Raise where `attended` is not what `Attended` says, as far as that shows without knowing who may see what.

    Args:
        q: [B, H, G, T, d], the queries it was made for.
    """
    if not isinstance(attended, Attended):
        raise BadInput(
            f"{algorithm.name}: attend() returned {type(attended).__name__}; must be "
            "dse.algorithms.contract.Attended"
        )
    out = attended.out
    if not isinstance(out, np.ndarray) or out.dtype.kind != "f":
        raise _wrong(algorithm, "out", f"is of {_kind(out)}", "a NumPy array of floating-point numbers")
    _check_shape(algorithm, "out", out.shape, q.shape)
    if not np.isfinite(out).all():
        raise NotFinite("what attend() returned as out is not finite everywhere")
    chunks = len(algorithm.form().k_chunk_bits)
    if len(attended.k_masks) != chunks:
        raise _wrong(
            algorithm, "k_masks", f"holds {len(attended.k_masks)}", f"{chunks}, one for every chunk of form()"
        )
    batch, heads, group, queries, _ = q.shape
    for name, mask in _masks(attended):
        if mask is None:
            continue
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise _wrong(algorithm, name, f"is of {_kind(mask)}", "None or a NumPy array of bool")
        # One row stands for all heads of a group, or for all queries, where they share the fetch.
        _check_shape(algorithm, name, mask.shape, (batch, heads, (1, group), (1, queries), None))
    for name, total in attended.work.items():
        if name not in COLUMNS:
            raise BadInput(f"{algorithm.name}: work: no counter {name!r}; {nearest(name, COLUMNS)}")
        values = np.asarray(total)
        sound = values.dtype.kind in "fiu" and ((values >= 0) & np.isfinite(values)).all()
        if not sound or values.shape not in ((), (heads,)):
            raise _wrong(algorithm, f"work[{name!r}]", f"is {total!r}", f"numbers from 0, one or {heads}")


def _masks(attended: Attended) -> list[tuple[str, BoolArray | None]]:
    """The masks by name."""
    keys = [(f"k_masks[{c}]", mask) for c, mask in enumerate(attended.k_masks)]
    return [*keys, ("v_mask", attended.v_mask)]


def _frozen(array: FloatArray) -> FloatArray:
    view = array.view()
    view.flags.writeable = False
    return view


def _check_shape(
    algorithm: Algorithm, name: str, shape: Sequence[int], wanted: Sequence[int | tuple[int, int] | None]
) -> None:
    """Raise unless `shape` is the wanted one; of two lengths either is right, None is any."""
    fits = len(shape) == len(wanted) and all(
        right is None or size in (right if isinstance(right, tuple) else (right,))
        for size, right in zip(shape, wanted, strict=True)
    )
    if not fits:
        longest = (right[-1] if isinstance(right, tuple) else right for right in wanted)
        right = ", ".join("N" if size is None else str(size) for size in longest)
        raise _wrong(algorithm, name, f"has shape {tuple(shape)}", f"({right})")


def _kind(value: object) -> str:
    return f"dtype {value.dtype}" if isinstance(value, np.ndarray) else f"type {type(value).__name__}"


def _wrong(algorithm: Algorithm, name: str, found: str, right: str) -> BadInput:
    return BadInput(f"{algorithm.name}: attend(): {name} {found}; must be {right}")
