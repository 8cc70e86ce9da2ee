"""What one knob does: accuracy with its interval, and the bytes that are fetched, straight from a profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.labels import brief, label
from dse.charts.scales import fit
from dse.charts.sheet import sheet
from dse.charts.style import colours, shade
from dse.errors import BadInput, nearest
from dse.profiles.profile import ACCURACY_COLUMN, canonical
from dse.profiles.schema import MAX_CHUNKS, KnobValue
from dse.search.report import BUDGETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dse.profiles.profile import Profile

_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
BESIDE: Final = 0.012
"""Share of the axis that neighbouring series are moved apart."""

LOGARITHMIC: Final = 20.0
"""A knob whose positive values span more than this factor gets a logarithmic axis."""


@dataclass(frozen=True)
class Response:
    """Measured values of one knob, all others fixed.

    Attributes:
        name: what sets it apart: the context, and the value of a second knob. values: of the knob.
        loss, low, high: nats per token, with the 95 % interval. fetched: bytes of keys and values per step.
        dense: bytes of dense attention at the same widths.
    """

    name: str
    values: tuple[KnobValue, ...]
    loss: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fetched: tuple[float, ...]
    dense: tuple[float, ...]


def fetched_bytes(profile: Profile, row: int, context: int, grouped: bool = True) -> tuple[float, float]:
    """Bytes of K, V, their scales and metadata that one step (a prompt's pass) reads, and what dense attention reads at
    those widths.

    Summed over layers and KV heads; what a machine asks for, before rounding to DRAM atoms.
    """
    at = profile.context_index(context)
    form, d = profile.settings[row].form, profile.shape.head_dim
    scope = "group" if grouped else "head"

    def total(name: str) -> float:
        return float(profile.counter(f"{scope}.{name}")[row, at].sum(dtype=float))

    keys = [total(f"k_rows_{c}") for c in range(MAX_CHUNKS)]
    bits = (
        sum(k * b for k, b in zip(keys, form.k_chunk_bits, strict=False)) * d
        + total("v_rows") * form.v_bits * d
    )
    bits += keys[0] * form.k_scale_bits + total("v_rows") * form.v_scale_bits
    shape = profile.shape
    if profile.phase == "prefill":
        # Each query, or tile of them, sees another part of the prompt; dense fetches it all.
        streams = float(profile.counter(f"{scope}.k_rows_0")[:, at].sum(axis=(1, 2), dtype=float).max())
    else:
        streams = (
            shape.layers * shape.kv_heads * (1 if grouped else shape.group) * float(profile.mean_context[at])
        )
    dense = streams * ((form.k_bits + form.v_bits) * d + form.k_scale_bits + form.v_scale_bits)
    return bits / 8 + total("meta_read_bytes"), dense / 8


def responses(
    profile: Profile,
    algorithm: str,
    knob: str = "",
    by: str = "",
    fixed: Mapping[str, KnobValue] | None = None,
    contexts: Sequence[int] = (),
    grouped: bool = True,
) -> tuple[str, list[Response], dict[str, KnobValue]]:
    """Series of measured settings along one knob.

    Args:
        knob: which; default: of those not fixed, the one with the most measured values.
        by: a second knob; one series per value.
        fixed: values of other knobs; those left out stay at their defaults, or at the commonest value where no
            setting was measured with the default.
        contexts: default: all.

    Returns:
        The knob, its series, and the values that stayed fixed.

    Raises:
        BadInput: unknown algorithm or knob, a knob that is both drawn and fixed, a fixed value that was not
            measured, or fewer than two values that were.
    """
    if algorithm not in profile.algorithms:
        raise BadInput(
            f"{profile.name}: no algorithm {algorithm!r}; {nearest(algorithm, profile.algorithms)}"
        )
    known = profile.knobs(algorithm)
    for name in (knob, by, *(fixed or {})):
        if name and name not in known:
            raise BadInput(f"{algorithm}: no knob {name!r}; {nearest(name, known)}")
    for name, value in (fixed or {}).items():
        if name in (knob, by):
            raise BadInput(
                f"{algorithm}.{name}: is drawn along its values; it cannot be fixed to {value!r} too"
            )
        if not isinstance(value, KnobValue) or canonical(value) not in map(canonical, known[name]):
            have = ", ".join(str(v) or '""' for v in known[name])
            raise BadInput(f"{algorithm}.{name}: {value!r} was not measured; measured: {have}")
    measured = [i for i in profile.rows(algorithm) if any(profile.measured(c)[i] for c in profile.contexts)]
    held = {**profile.defaults.get(algorithm, {}), **(fixed or {})}
    free = [name for name in known if name != by and name not in (fixed or {})]
    if not free:
        raise BadInput(f"{algorithm}: every knob is fixed; leave one to draw")
    knob = knob or max(free, key=lambda k: len(_along(profile, measured, k, by, held)))
    rows = _along(profile, measured, knob, by, held)
    if len({canonical(profile.settings[i].knobs[knob]) for i in rows}) < 2:
        others = [k for k in known if len(_along(profile, measured, k, "", held)) > 1]
        raise BadInput(
            f"{algorithm}.{knob}: fewer than two values were measured with all other knobs fixed; "
            f"knobs with more: {', '.join(others) or 'none'}"
        )
    found = []
    for context in contexts or profile.contexts:
        there = [i for i in rows if profile.measured(context)[i]]
        groups: dict[str, list[int]] = {}
        for i in there:
            groups.setdefault(f"{by} {brief(profile.settings[i].knobs[by])}" if by else "", []).append(i)
        for text, members in groups.items():
            members.sort(key=lambda i: _rank(profile.settings[i].knobs[knob]))
            if len(members) > 1:
                name = ", ".join(
                    t for t in (text, f"context {context}" if len(profile.contexts) > 1 else "") if t
                )
                found.append(_series(profile, members, knob, context, name, grouped))
    if not found:
        raise BadInput(f"{algorithm}.{knob}: fewer than two values were measured at any one context")
    return knob, found, {k: v for k, v in held.items() if k not in (knob, by) and len(known.get(k, ())) > 1}


def _rank(value: KnobValue) -> tuple[int, float, str]:
    kind, key = canonical(value)
    return (kind, 0.0, str(key)) if isinstance(key, str) else (kind, float(key), "")


def _along(
    profile: Profile, rows: Sequence[int], knob: str, by: str, held: Mapping[str, KnobValue]
) -> list[int]:
    """Rows whose other knobs are as held."""

    def fits(i: int) -> bool:
        knobs = profile.settings[i].knobs
        return all(
            canonical(value) == canonical(held[name])
            for name, value in knobs.items()
            if name not in (knob, by) and name in held
        )

    return [i for i in rows if knob in profile.settings[i].knobs and fits(i)]


def _series(
    profile: Profile, rows: Sequence[int], knob: str, context: int, name: str, grouped: bool
) -> Response:
    at = profile.context_index(context)

    def accuracy(metric: str) -> tuple[float, ...]:
        return tuple(float(profile.accuracy[i, at, ACCURACY_COLUMN[metric]]) for i in rows)

    moved = [fetched_bytes(profile, i, context, grouped) for i in rows]
    return Response(
        name, tuple(profile.settings[i].knobs[knob] for i in rows), accuracy("nll_increase"),
        accuracy("nll_increase_low"), accuracy("nll_increase_high"), tuple(m for m, _ in moved),
        tuple(d for _, d in moved),
    )  # fmt: skip


def response_figure(
    algorithm: str, knob: str, series: Sequence[Response], title: str = "", width: float | None = None
) -> Figure:
    """Two panels over the knob: accuracy loss with 95 % intervals above, bytes fetched below."""
    import numpy as np
    from matplotlib.lines import Line2D

    with sheet(width) as paper:
        wide = paper.wide
        above, below = paper.figure.subplots(2, 1, sharex=True)
        places = _scale(below, series)
        handles: list[Any] = []
        inks = colours()
        for number, one in enumerate(series):
            kind: Any = {
                "color": inks[number % len(inks)], "marker": _MARKERS[number % len(_MARKERS)],
                "markersize": 3.6 * wide,
            }  # fmt: skip
            # Side by side, so that no interval hides another.
            xs = [places(v, number - (len(series) - 1) / 2) for v in one.values]
            loss = np.array(one.loss)
            bars = np.clip(np.nan_to_num([loss - one.low, one.high - loss]), 0, None)
            above.errorbar(xs, loss, yerr=bars, elinewidth=0.6 * wide, capsize=1.5 * wide, **kind)
            below.plot(xs, np.array(one.fetched) / 1e6, **kind)
            below.plot(
                xs,
                np.array(one.dense) / 1e6,
                color=kind["color"],
                linestyle=(0, (1, 1.5)),
                linewidth=0.8 * wide,
            )
            if one.name:
                handles.append(Line2D([], [], label=one.name, **kind))
        handles.append(
            Line2D([], [], color=shade(0.35), linestyle=(0, (1, 1.5)), linewidth=0.8 * wide,
                   label="dense, same widths")
        )  # fmt: skip
        fit(above, "y", "nll_increase", np.concatenate([[*s.loss, *s.low, *s.high] for s in series]))
        for budget in BUDGETS:
            if budget < above.get_ylim()[1]:
                above.axhline(budget, color=shade(0.6), linestyle=(0, (1, 2)), linewidth=0.6, zorder=1)
        below.set_ylim(0, 1.08 * max(max(*s.fetched, *s.dense) for s in series) / 1e6)
        above.set_ylabel(label("nll_increase").axis.replace(" (", "\n("))
        below.set_ylabel("keys and values\nfetched (MB/step)")
        below.set_xlabel(f"{algorithm}.{knob}")
        return paper.close(title, above, handles, min(paper.width / wide, 4.4))


def _scale(axes: Axes, series: Sequence[Response]) -> Any:
    """The axis of the knob, and where on it each value goes."""
    every = sorted({canonical(v): v for one in series for v in one.values}.values(), key=_rank)
    if any(isinstance(v, str | bool) for v in every):
        axes.set_xticks(range(len(every)), [brief(v) for v in every])
        axes.set_xlim(-0.4, len(every) - 0.6)
        order = {canonical(v): i for i, v in enumerate(every)}
        return lambda value, beside: order[canonical(value)] + BESIDE * beside * (len(every) - 0.2)
    numbers = [float(v) for v in every]
    logarithmic = numbers[0] > 0 and numbers[-1] / numbers[0] > LOGARITHMIC
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(numbers, [brief(v) for v in every])
    axes.minorticks_off()
    span = math.log(numbers[-1] / numbers[0]) if logarithmic else numbers[-1] - numbers[0]

    def place(value: KnobValue, beside: float) -> float:
        away = BESIDE * beside * span
        return float(value) * math.exp(away) if logarithmic else float(value) + away

    return place
