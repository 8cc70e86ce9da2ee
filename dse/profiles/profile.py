"""The table that a measurement leaves behind: `Profile`, its invariants and its checksum.

A profile joins two things measured by the very same queries: how much accuracy a knob setting costs, and what
it fetched and computed. It knows no model and no machine; `store` puts it on disk, `lookup` reads rows of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import BadInput
from dse.profiles.schema import (
    ACCURACY,
    HISTOGRAM_BINS,
    HISTOGRAMS,
    MAX_CHUNKS,
    QUERY_TILES,
    SCHEMA_VERSION,
    SCOPES,
    KnobValue,
    ModelShape,
    Provenance,
    Setting,
    counter_columns,
    tile_columns,
)

FloatArray = npt.NDArray[np.floating[Any]]

PHASES = ("prefill", "decode")
V_AFTER = ("none", "token", "row")
CHUNK_ORDER = ("token", "row")

COLUMN = {name: i for i, name in enumerate(counter_columns())}
"""Position of a counter in the last axis of `Profile.counters`."""

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

TILE_COLUMNS = [COLUMN[name] for name in tile_columns()]
"""Which counters `Profile.tile_counters` holds again for every query tile."""

ACCURACY_COLUMN = {name: i for i, name in enumerate(ACCURACY)}
"""Position of a metric in the last axis of `Profile.accuracy`."""


@dataclass(frozen=True)
class Profile:
    """Accuracy and access statistics of many knob settings on one model and text.

    Make one with `build_profile`, which fixes the dtypes, checks every invariant and computes the checksum.

    Attributes:
        name: what spaces call it, ``"smollm2-135m"``.
        phase: ``"decode"`` or ``"prefill"``.
        shape: geometry of the model.
        contexts: buckets; in decode context c holds the queries at positions (3c/4, c], in prefill it is a prompt of
            c tokens.
        settings: the rows.
        counters: float32 [settings, contexts, layers, kv_heads, counters]; NaN where not measured.
        histograms: float32 [settings, contexts, layers, kv_heads, 2, HISTOGRAM_BINS].
        accuracy: float64 [settings, contexts, len(ACCURACY)].
        window_nll: float64 [settings, contexts, windows], mean increase per window, nats per token. Contexts may
            have different numbers of windows: the last axis holds the most of them, NaN fills up the others.
        mean_context: float64 [contexts], mean number of visible tokens of the scored queries.
        baseline_perplexity: float64 [contexts], float32 dense attention at the same positions.
        provenance: where it came from.
        defaults: algorithm -> the knob values a space takes when it names none.
        checksum: SHA-256 of the content (settings and arrays, not the provenance).
        tile_counters: in prefill, fetches per prompt pass when consecutive queries share them: float32 [settings,
            contexts, len(QUERY_TILES), layers, kv_heads, len(tile_columns())]; None where they were not measured.
        scales: static quantisation scales behind the measurement, ``operand.bits`` (``k.8``) -> float32 [layers,
            kv_heads] or, per query head or channel, [layers, kv_heads, ...]; empty where the profile holds none.
    """

    name: str
    phase: str
    shape: ModelShape
    contexts: tuple[int, ...]
    settings: tuple[Setting, ...]
    counters: FloatArray
    histograms: FloatArray
    accuracy: FloatArray
    window_nll: FloatArray
    mean_context: FloatArray
    baseline_perplexity: FloatArray
    provenance: Provenance
    defaults: Mapping[str, Mapping[str, KnobValue]]
    checksum: str
    tile_counters: FloatArray | None = None
    scales: Mapping[str, FloatArray] = field(default_factory=dict)

    def at_tile(self, tile: int) -> Profile:
        """The same profile with `counters` as they are when `tile` consecutive queries share their fetches.

        Metadata (sorted keys, page summaries) is shared as the keys it describes: exactly so where all of it is
        read, and an estimate where a search decides what is. Work stays as it is. BadInput when that tile was not measured.
        """
        if tile == 1:
            return replace(self, tile_counters=None)
        if self.tile_counters is None or tile not in QUERY_TILES:
            have = list(QUERY_TILES) if self.tile_counters is not None else [1]
            raise BadInput(
                f"query tile {tile}: profile {self.name!r} ({self.phase}) does not hold it; it holds {have}"
            )
        counters = self.counters.copy()
        alone = {scope: counters[..., COLUMN[f"{scope}.k_rows_0"]].copy() for scope in SCOPES}
        counters[..., TILE_COLUMNS] = self.tile_counters[:, :, QUERY_TILES.index(tile)]
        for scope, rows in alone.items():
            shared = counters[..., COLUMN[f"{scope}.k_rows_0"]]
            counters[..., COLUMN[f"{scope}.meta_read_bytes"]] *= np.divide(
                shared, rows, out=np.ones_like(rows), where=rows > 0
            )
        return replace(self, counters=counters, tile_counters=None)

    def counter(self, name: str) -> FloatArray:
        """One counter, [settings, contexts, layers, kv_heads]."""
        return self.counters[..., COLUMN[name]]

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Names of the algorithms measured, in order of first appearance."""
        return tuple(dict.fromkeys(s.algorithm for s in self.settings))

    def rows(self, algorithm: str) -> list[int]:
        """Row numbers of an algorithm's settings."""
        return [i for i, s in enumerate(self.settings) if s.algorithm == algorithm]

    def knobs(self, algorithm: str) -> dict[str, list[KnobValue]]:
        """Knob -> its measured values, ascending (numbers first, then text, then truth values)."""
        found: dict[str, dict[tuple[int, float | str], KnobValue]] = {}
        for setting in self.settings:
            if setting.algorithm == algorithm:
                for knob, value in setting.knobs.items():
                    found.setdefault(knob, {})[canonical(value)] = value
        return {knob: [values[k] for k in sorted(values, key=_order)] for knob, values in found.items()}

    @cached_property
    def window_counts(self) -> tuple[int, ...]:
        """Windows of text behind every figure, one number per context; 0 where nothing was measured."""
        scored = np.isfinite(self.window_nll)
        return tuple(int(scored[:, c].any(axis=0).sum()) for c in range(len(self.contexts)))

    def windows(self, context: int) -> tuple[tuple[str, int], ...]:
        """(book, first token) of the windows of one context; empty where the provenance does not list them."""
        at, listed = self.context_index(context), self.provenance.windows
        counts = self.window_counts
        if len(listed) != sum(counts):
            return ()
        return listed[sum(counts[:at]) : sum(counts[: at + 1])]

    def measured(self, context: int) -> npt.NDArray[np.bool_]:
        """[settings]: which were measured at a context (a finite loss and finite counters)."""
        at = self.context_index(context)
        loss = np.isfinite(self.accuracy[:, at, ACCURACY_COLUMN["nll_increase"]])
        return loss & np.isfinite(self.counters[:, at]).all(axis=(1, 2, 3))

    def context_index(self, context: int) -> int:
        """Position of a context bucket; BadInput when it was not measured."""
        if context not in self.contexts:
            have = list(self.contexts)
            raise BadInput(f"context {context}: profile {self.name!r} does not hold it; it holds {have}")
        return self.contexts.index(context)


def canonical(value: KnobValue) -> tuple[int, float | str]:
    """Identity of a knob value: 1 and 1.0 are one value, True and "1" are others."""
    if isinstance(value, bool):
        return (2, float(value))
    if isinstance(value, int | float):
        return (0, float(value))
    return (1, value)


def _order(key: tuple[int, float | str]) -> tuple[int, float, str]:
    kind, value = key
    return (kind, 0.0, value) if isinstance(value, str) else (kind, value, "")


def setting_key(algorithm: str, knobs: Mapping[str, KnobValue]) -> tuple[Any, ...]:
    """Hashable identity of a setting, independent of knob order and of 1 against 1.0."""
    return (algorithm, *((name, canonical(knobs[name])) for name in sorted(knobs)))


def build_profile(
    *,
    name: str,
    phase: str,
    shape: ModelShape,
    contexts: Sequence[int],
    settings: Sequence[Setting],
    counters: npt.ArrayLike,
    histograms: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    window_nll: npt.ArrayLike,
    mean_context: npt.ArrayLike,
    baseline_perplexity: npt.ArrayLike,
    provenance: Provenance,
    defaults: Mapping[str, Mapping[str, KnobValue]],
    tile_counters: npt.ArrayLike | None = None,
    scales: Mapping[str, npt.ArrayLike] | None = None,
) -> Profile:
    """A checked `Profile` with its checksum; shapes as in `Profile`.

    Raises:
        BadInput: an invariant does not hold; the message names the field.
    """
    profile = Profile(
        name=name,
        phase=phase,
        shape=shape,
        contexts=tuple(contexts),
        settings=tuple(settings),
        counters=_plain(counters, np.float32),
        histograms=_plain(histograms, np.float32),
        accuracy=_plain(accuracy, np.float64),
        window_nll=_plain(window_nll, np.float64),
        mean_context=_plain(mean_context, np.float64),
        baseline_perplexity=_plain(baseline_perplexity, np.float64),
        provenance=provenance,
        defaults={a: dict(k) for a, k in defaults.items()},
        checksum="",
        tile_counters=None if tile_counters is None else _plain(tile_counters, np.float32),
        scales={name: _plain(values, np.float32) for name, values in sorted((scales or {}).items())},
    )
    check_profile(profile)
    return replace(profile, checksum=profile_checksum(profile))


def _plain(array: npt.ArrayLike, dtype: type[np.floating[Any]]) -> FloatArray:
    """A C-ordered copy without negative zeros or NaN payloads, so that equal content has equal bytes."""
    out: FloatArray = np.asarray(np.array(array, dtype=dtype, order="C") + dtype(0))  # a sum of no axes is no array
    out[np.isnan(out)] = np.nan
    return out


def rounded(profile: Profile, bits: int = 12) -> Profile:
    """The same profile with counters and histograms kept to `bits` mantissa bits.

    The relative error is at most 2**-(bits+1). Trailing zero bits are what makes the compressed file small;
    12 bits are far below the sampling error of any counter. Accuracy is left alone.
    """
    if not 1 <= bits <= 23:
        raise BadInput(f"mantissa bits: {bits}; a float32 has 1 to 23")
    return build_profile(
        **{
            **{f: getattr(profile, f) for f in profile.__dataclass_fields__ if f != "checksum"},
            "counters": _round_mantissa(profile.counters, bits),
            "histograms": _round_mantissa(profile.histograms, bits),
            "tile_counters": None
            if profile.tile_counters is None
            else _round_mantissa(profile.tile_counters, bits),
        }
    )


def _round_mantissa(array: FloatArray, bits: int) -> FloatArray:
    mantissa, exponent = np.frexp(array)
    scale = np.float32(2.0 ** (bits + 1))
    out: FloatArray = np.ldexp(np.round(mantissa * scale) / scale, exponent)
    return out


def profile_checksum(profile: Profile) -> str:
    """SHA-256 over what a price or an accuracy can depend on; the same on every machine."""
    digest = hashlib.sha256()
    content = {
        "schema": SCHEMA_VERSION,
        "name": profile.name,
        "phase": profile.phase,
        "shape": asdict(profile.shape),
        "contexts": profile.contexts,
        "settings": [plain_setting(s) for s in profile.settings],
        "defaults": profile.defaults,
        "counters": counter_columns(),
        "accuracy": ACCURACY,
    }
    if profile.scales:
        content["scales"] = list(profile.scales)
    digest.update(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    for array in arrays_of(profile).values():
        digest.update(str(array.shape).encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def plain_setting(setting: Setting) -> dict[str, Any]:
    """A setting as plain data; what was added to `Form` later is left out where it says nothing."""
    table = asdict(setting)
    if not setting.form.releases:
        del table["form"]["releases"]
    return table


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
