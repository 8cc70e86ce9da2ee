"""Joining profiles: settings and contexts that were measured apart become one table.

Only what measured the same model on the same text may be joined, and where two profiles hold the same setting at
the same context they must have measured the same. Windows of text belong to a context: contexts may have
different numbers of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from functools import reduce

import numpy as np

from dse.errors import BadInput
from dse.profiles.profile import FloatArray, Profile, build_profile, setting_key
from dse.profiles.schema import KnobValue, Provenance, Setting

_ROWS = ("counters", "histograms", "accuracy", "window_nll", "tile_counters")
_PER_CONTEXT = ("mean_context", "baseline_perplexity")


def merge_all(profiles: Iterable[Profile]) -> Profile:
    """`merge_profiles` over one or more profiles, from the first to the last."""
    return reduce(merge_profiles, profiles)


def merge_profiles(a: Profile, b: Profile) -> Profile:
    """The settings of `a`, then those only `b` has, at the contexts that either has.

    A setting that was not measured at a context stays NaN there.

    Raises:
        BadInput: they measured another model, text or phase, other windows at a context that both have, or one
            setting differently; the message names what, and the context where it matters.
    """
    _check_same_material(a, b)
    contexts = tuple(sorted({*a.contexts, *b.contexts}))
    settings = _joined_settings(a, b)
    rows = {
        field: _joined_rows(a, b, field, contexts, settings)
        for field in _ROWS
        if getattr(a, field) is not None
    }
    per_context = {
        field: [_at_context(b if c in b.contexts else a, field, c) for c in contexts]
        for field in _PER_CONTEXT
    }
    return build_profile(
        name=a.name,
        phase=a.phase,
        shape=a.shape,
        contexts=contexts,
        settings=settings,
        provenance=_joined_provenance(a, b, contexts),
        defaults=_joined_defaults(a, b),
        scales=a.scales,
        **rows,
        **per_context,
    )


def _check_same_material(a: Profile, b: Profile) -> None:
    for field in ("name", "phase", "shape"):
        if getattr(a, field) != getattr(b, field):
            raise BadInput(
                f"{field}: {getattr(a, field)} and {getattr(b, field)}; merged profiles must agree"
            )
    for field in ("model_sha256", "text_sha256", "seed"):
        if getattr(a.provenance, field) != getattr(b.provenance, field):
            raise BadInput(f"provenance.{field}: differs; merged profiles measure one model on one text")
    if (a.tile_counters is None) != (b.tile_counters is None):
        raise BadInput("tile_counters: in one of the two only; merged profiles must agree")
    odd = [n for n in {**a.scales, **b.scales} if not _equal(a.scales.get(n), b.scales.get(n))]
    if odd:
        raise BadInput(f"scales.{odd[0]}: differs or is missing; merged profiles quantise alike")
    for context in sorted(set(a.contexts) & set(b.contexts)):
        for field in _PER_CONTEXT:
            if not np.array_equal(
                _at_context(a, field, context), _at_context(b, field, context), equal_nan=True
            ):
                raise BadInput(f"{field}: context {context}: differs; merged profiles score the same queries")
        counts = [p.window_counts[p.context_index(context)] for p in (a, b)]
        if 0 not in counts and (counts[0] != counts[1] or a.windows(context) != b.windows(context)):
            raise BadInput(
                f"window_nll: context {context}: {counts[0]} and {counts[1]} windows, or other ones; merged "
                "profiles score the same windows"
            )


def _equal(a: FloatArray | None, b: FloatArray | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b)


def _at_context(profile: Profile, field: str, context: int) -> FloatArray:
    values: FloatArray = getattr(profile, field)[profile.context_index(context)]
    return values


def _joined_settings(a: Profile, b: Profile) -> tuple[Setting, ...]:
    known = {setting_key(s.algorithm, s.knobs): s for s in a.settings}
    fresh = []
    for setting in b.settings:
        other = known.get(setting_key(setting.algorithm, setting.knobs))
        if other is None:
            fresh.append(setting)
        elif other.form != setting.form:
            raise BadInput(f"setting {setting.key}: two different forms; measure it again in one of them")
    return (*a.settings, *fresh)


def _joined_rows(
    a: Profile, b: Profile, field: str, contexts: tuple[int, ...], settings: tuple[Setting, ...]
) -> FloatArray:
    """One array over all settings and contexts, NaN where neither profile measured."""
    tail = getattr(a, field).shape[2:]
    if field == "window_nll":
        tail = (max(a.window_nll.shape[-1], b.window_nll.shape[-1]),)
    out: FloatArray = np.full((len(settings), len(contexts), *tail), np.nan, dtype=getattr(a, field).dtype)
    place = {setting_key(s.algorithm, s.knobs): i for i, s in enumerate(settings)}
    for profile in (a, b):
        table = getattr(profile, field)
        for j, setting in enumerate(profile.settings):
            row = place[setting_key(setting.algorithm, setting.knobs)]
            for context in profile.contexts:
                values = table[j, profile.context_index(context)]
                if np.isnan(values).all():
                    continue
                target = out[row, contexts.index(context), ..., : values.shape[-1]]
                if not np.isnan(target).all() and not np.array_equal(target, values, equal_nan=True):
                    raise BadInput(
                        f"setting {setting.key}: context {context}: measured twice with different results "
                        f"({field}); keep one of them"
                    )
                target[...] = values
    return out


def _joined_defaults(a: Profile, b: Profile) -> dict[str, dict[str, KnobValue]]:
    for algorithm in set(a.defaults) & set(b.defaults):
        if dict(a.defaults[algorithm]) != dict(b.defaults[algorithm]):
            raise BadInput(f"defaults.{algorithm}: differ; merged profiles must agree")
    return {algorithm: dict(knobs) for algorithm, knobs in {**b.defaults, **a.defaults}.items()}


def _joined_provenance(a: Profile, b: Profile, contexts: tuple[int, ...]) -> Provenance:
    first, second = a.provenance, b.provenance
    windows: list[tuple[str, int]] = []
    for context in contexts:
        owners = [p for p in (a, b) if context in p.contexts]
        windows += next((w for w in (p.windows(context) for p in owners) if w), ())
    return Provenance(
        **{
            **{f.name: getattr(first, f.name) for f in fields(Provenance)},
            "text": "; ".join(dict.fromkeys((first.text, second.text))),
            "windows": first.windows if first.windows == second.windows else tuple(windows),
            "command": _joined(first.command, second.command),
            "notes": _joined(first.notes, second.notes),
            "versions": {**second.versions, **first.versions},
        }
    )


def _joined(a: str, b: str) -> str:
    lines = dict.fromkeys(line for text in (a, b) for line in text.splitlines() if line)
    return "\n".join(lines)
