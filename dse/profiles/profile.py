"""The table that a measurement leaves behind: `Profile`, its invariants and its checksum.

A profile joins two things measured by the very same queries: how much accuracy a knob setting costs, and what
it fetched and computed. It knows no model and no machine; `store` puts it on disk, `lookup` reads rows of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import BadInput
from dse.profiles.columns import ACCURACY_COLUMN as ACCURACY_COLUMN
from dse.profiles.columns import COLUMN as COLUMN
from dse.profiles.columns import TILE_COLUMNS as TILE_COLUMNS
from dse.profiles.columns import FloatArray as FloatArray
from dse.profiles.identity import canonical as canonical
from dse.profiles.identity import order
from dse.profiles.identity import plain_setting as plain_setting
from dse.profiles.identity import setting_key as setting_key
from dse.profiles.invariants import PHASES as PHASES
from dse.profiles.invariants import SCALE_NAME as SCALE_NAME
from dse.profiles.invariants import arrays_of as arrays_of
from dse.profiles.invariants import check_profile as check_profile
from dse.profiles.schema import (
    ACCURACY,
    QUERY_TILES,
    SCHEMA_VERSION,
    SCOPES,
    KnobValue,
    ModelShape,
    Provenance,
    Setting,
    counter_columns,
)


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
        return {knob: [values[k] for k in sorted(values, key=order)] for knob, values in found.items()}

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
    out: FloatArray = np.asarray(
        np.array(array, dtype=dtype, order="C") + dtype(0)
    )  # a sum of no axes is no array
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
