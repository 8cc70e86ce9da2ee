"""What holds of every profile, whoever made it: checked before it is used, written or read."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.errors import BadInput
from dse.profiles.columns import ACCURACY_COLUMN, COLUMN, TILE_COLUMNS, FloatArray
from dse.profiles.identity import setting_key
from dse.profiles.schema import (
    ACCURACY,
    HISTOGRAM_BINS,
    HISTOGRAMS,
    MAX_CHUNKS,
    QUERY_TILES,
    Setting,
    counter_columns,
)

if TYPE_CHECKING:
    from dse.profiles.profile import Profile

PHASES = ("prefill", "decode")
V_AFTER = ("none", "token", "row")
CHUNK_ORDER = ("token", "row")

SCALE_NAME = re.compile(r"[a-z][a-z_]*\.[0-9]{1,2}")
"""What a table of scales may be called."""

MAX_SCALES = 4096
"""Most scales of one KV head and width: one per channel of a wide head."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What a profile may be called; the names of its algorithms and knobs have no dot, which joins the two elsewhere."""

LARGEST = 1e30
"""Largest number of any array: sums and products of such still have room."""

MOST = {"k_scale_bits": 4096, "v_scale_bits": 4096, "lag": 1 << 40, "weight_bits": 64}
"""Largest values of whole numbers where not `MANY`."""

MANY = 1 << 48


def arrays_of(profile: Profile) -> dict[str, FloatArray]:
    """The arrays that a profile has, by field name, in a fixed order."""
    names = ("counters", "histograms", "accuracy", "window_nll", "mean_context", "baseline_perplexity")
    arrays: dict[str, FloatArray] = {name: getattr(profile, name) for name in names}
    if profile.tile_counters is not None:
        arrays["tile_counters"] = profile.tile_counters
    arrays |= {f"scales.{name}": values for name, values in profile.scales.items()}
    return arrays


def check_profile(profile: Profile) -> None:
    """Raise BadInput (``field: what; what would be right``) where an invariant of the schema is broken."""
    _check_identity(profile)
    for setting in profile.settings:
        _check_form(setting)
    _check_knobs(profile)
    _check_arrays(profile)


def _check_identity(profile: Profile) -> None:
    if not NAME.fullmatch(profile.name):
        raise BadInput(
            f"name: {profile.name!r}; use letters, digits, '-', '_' and '.', a letter or digit first, at most 100"
        )
    if profile.phase not in PHASES:
        raise BadInput(f"phase: {profile.phase!r}; valid: {', '.join(PHASES)}")
    s = profile.shape
    for field_name, value in asdict(s).items():
        if value < (0 if field_name.endswith("_parameters") else 1):
            raise BadInput(f"shape.{field_name}: {value}; must be positive")
        if value > MOST.get(field_name, MANY):
            raise BadInput(f"shape.{field_name}: {value}; must be at most {MOST.get(field_name, MANY)}")
    if s.query_heads % s.kv_heads:
        raise BadInput(f"shape.query_heads: {s.query_heads}; must be a multiple of kv_heads = {s.kv_heads}")
    contexts = profile.contexts
    if not contexts or any(c < 1 for c in contexts) or list(contexts) != sorted(set(contexts)):
        raise BadInput(f"contexts: {list(contexts)}; must be positive, distinct and ascending")
    if not profile.settings:
        raise BadInput("settings: none; a profile holds at least one")


def _check_form(setting: Setting) -> None:
    form, where = setting.form, f"setting {setting.key}: form"
    if not 1 <= len(form.k_chunk_bits) <= MAX_CHUNKS or any(b < 1 for b in form.k_chunk_bits):
        raise BadInput(
            f"{where}.k_chunk_bits: {form.k_chunk_bits}; must be 1 to {MAX_CHUNKS} positive widths"
        )
    if min(form.v_bits, form.q_bits) < 1 or max(form.k_bits, form.v_bits, form.q_bits) > 32:
        raise BadInput(f"{where}: K, V and Q widths must be 1 to 32 bits")
    if form.k_scale_bits < 0 or form.v_scale_bits < 0:
        raise BadInput(f"{where}: scale bits must not be negative")
    for name in ("k_scale_bits", "v_scale_bits", "lag"):
        if getattr(form, name) > MOST[name]:
            raise BadInput(f"{where}.{name}: {getattr(form, name)}; must be at most {MOST[name]}")
    if form.v_after not in V_AFTER:
        raise BadInput(f"{where}.v_after: {form.v_after!r}; valid: {', '.join(V_AFTER)}")
    if form.chunk_order not in CHUNK_ORDER:
        raise BadInput(f"{where}.chunk_order: {form.chunk_order!r}; valid: {', '.join(CHUNK_ORDER)}")
    if form.lag < -1:
        raise BadInput(f"{where}.lag: {form.lag}; must be -1 (no limit) or a number of tokens")


def _check_knobs(profile: Profile) -> None:
    names: dict[str, frozenset[str]] = {}
    seen: set[tuple[Any, ...]] = set()
    for setting in profile.settings:
        for name in (setting.algorithm, *setting.knobs):
            if not NAME.fullmatch(name) or "." in name:
                raise BadInput(f"setting {setting.key}: {name!r}; use letters, digits, '-' and '_' in names")
        for knob, value in setting.knobs.items():
            if isinstance(value, int | float) and not abs(value) <= LARGEST:  # also refuses NaN
                raise BadInput(f"setting {setting.key}: knob {knob!r} is not finite, or too large")
        have = frozenset(setting.knobs)
        if names.setdefault(setting.algorithm, have) != have:
            raise BadInput(
                f"setting {setting.key}: knobs {sorted(have)}; every setting of one algorithm has the same "
                f"knobs, here {sorted(names[setting.algorithm])}"
            )
        key = setting_key(setting.algorithm, setting.knobs)
        if key in seen:
            raise BadInput(f"setting {setting.key}: appears twice; a setting is measured once")
        seen.add(key)
    for algorithm, values in profile.defaults.items():
        if algorithm not in names:
            raise BadInput(f"defaults.{algorithm}: no setting of this algorithm was measured")
        unknown = sorted(set(values) - names[algorithm])
        if unknown:
            raise BadInput(
                f"defaults.{algorithm}.{unknown[0]}: not a knob; valid: {sorted(names[algorithm])}"
            )


def _check_arrays(profile: Profile) -> None:
    s, c = len(profile.settings), len(profile.contexts)
    grid = (s, c, profile.shape.layers, profile.shape.kv_heads)
    windows = profile.window_nll.shape[-1] if profile.window_nll.ndim == 3 else 0
    expected = {
        "counters": (*grid, len(COLUMN)),
        "histograms": (*grid, len(HISTOGRAMS), HISTOGRAM_BINS),
        "accuracy": (s, c, len(ACCURACY)),
        "window_nll": (s, c, windows),
        "mean_context": (c,),
        "baseline_perplexity": (c,),
        "tile_counters": (s, c, len(QUERY_TILES), *grid[2:], len(TILE_COLUMNS)),
    }
    for name, array in arrays_of(profile).items():
        if array.shape != expected.get(name, array.shape):  # scales are checked below
            raise BadInput(f"{name}: shape {array.shape}; must be {expected[name]}")
        if np.isinf(array).any():
            raise BadInput(f"{name}: holds an infinity; not measured is NaN")
        if (np.abs(array) > LARGEST).any():
            raise BadInput(f"{name}: holds a number beyond {LARGEST:g}; nothing measured is")
    with np.errstate(invalid="ignore"):
        if (profile.counters < 0).any():
            where = np.argwhere(profile.counters < 0)[0]
            raise BadInput(
                f"counters: {counter_columns()[where[-1]]} of {profile.settings[where[0]].key} is negative; "
                "a counter is a mean number of events"
            )
        if (profile.histograms < 0).any() or (profile.histograms > 1.001).any():
            raise BadInput("histograms: outside 0..1; a bin is a fraction")
        if not (profile.mean_context > 0).all():
            raise BadInput("mean_context: must be positive, in tokens")
    _check_windows(profile)
    _check_tiles(profile)
    _check_scales(profile)


def _check_windows(profile: Profile) -> None:
    """Every setting measured at a context was scored on the same windows; only the padding is NaN."""
    losses = profile.accuracy[..., ACCURACY_COLUMN["nll_increase"]]
    for c, (context, count) in enumerate(zip(profile.contexts, profile.window_counts, strict=True)):
        expected = np.arange(profile.window_nll.shape[-1]) < count
        for i, setting in enumerate(profile.settings):
            finite = np.isfinite(profile.window_nll[i, c])
            nothing = not finite.any() and not np.isfinite(losses[i, c])
            if not nothing and not np.array_equal(finite, expected):
                raise BadInput(
                    f"window_nll: context {context}: {setting.key} has {int(finite.sum())} windows of {count}; "
                    "all settings of a context are scored on the same windows, numbered from 0"
                )


def _check_scales(profile: Profile) -> None:
    """Quantisation scales: one per layer and head (and query head or channel), finite and positive."""
    for name, array in profile.scales.items():
        if not SCALE_NAME.fullmatch(name):
            raise BadInput(f"scales.{name}: unknown name; must be operand.bits, such as k.8 or v_channel.4")
        lead = (profile.shape.layers, profile.shape.kv_heads)
        if array.ndim not in (2, 3) or array.shape[:2] != lead or array.shape[-1] > MAX_SCALES:
            raise BadInput(f"scales.{name}: shape {array.shape}; must be {lead} and at most one axis more")
        if not (np.isfinite(array) & (array > 0)).all():
            raise BadInput(f"scales.{name}: a scale is zero, negative or not finite")


def _check_tiles(profile: Profile) -> None:
    tiles = profile.tile_counters
    if tiles is None:
        return
    if profile.phase != "prefill":
        raise BadInput(f"tile_counters: in a {profile.phase} profile; only a prompt has tiles of queries")
    if not np.array_equal(tiles[:, :, 0], profile.counters[..., TILE_COLUMNS], equal_nan=True):
        raise BadInput("tile_counters: tile 1 differs from counters; a tile of one query shares nothing")
    with np.errstate(invalid="ignore"):
        if (np.diff(tiles, axis=2) > 0).any() or (tiles < 0).any():
            raise BadInput(
                "tile_counters: rise with the tile or are negative; a union never exceeds its members"
            )
