"""Static quantisation scales from calibration text: the step that loses least mean squared error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.quantize import Scales, to_integers
from dse.archives import Damaged, read_arrays
from dse.errors import BadInput
from dse.measure.material import BLOCK, Window, attention, need_finite
from dse.measure.npz import make_folder, write_arrays
from dse.models.protocol import Model
from dse.profiles.schema import ModelShape

FloatArray = NDArray[np.floating[Any]]

WIDTHS: Final = (4, 5, 6, 7, 8, 10, 12, 14, 16)
CLIPS: Final = np.linspace(0.25, 1.0, 16)
"""Fractions of the largest magnitude tried as the end of the range."""

MAKE: Final = "make them with 'dse profile calibrate'"
"""What to do where scales are wrong, ends messages."""

NAMES: Final = ("q", "k", "v", "k_channel", "v_channel")


def best_scale(x: FloatArray, bits: int) -> FloatArray:
    """The step size with least squared rounding error over the last axis of `x` [..., n]; returns [...]."""
    peak = np.maximum(np.abs(x).max(axis=-1), 1e-8)
    best = np.full(peak.shape, np.inf)
    scale = peak.copy()
    for clip in CLIPS:
        step = clip * peak / (2 ** (bits - 1) - 1)
        wide = step[..., None].astype(x.dtype)
        error = np.square(to_integers(x, wide, bits) * wide - x).sum(axis=-1, dtype=np.float64)
        scale = np.where(error < best, step, scale)
        best = np.minimum(error, best)
    result: FloatArray = scale
    return result


def calibrate(model: Model, chosen: Sequence[Window]) -> dict[str, FloatArray]:
    """Scales of every layer from dense passes over `chosen`.

    Returns arrays by name and width, e.g. ``k.8`` [L, H], ``q.12`` [L, H, G], ``v_channel.4`` [L, H, d].
    """
    shape = model.shape
    out: dict[str, list[FloatArray]] = {f"{n}.{b}": [] for n in NAMES for b in WIDTHS}
    tokens = np.stack([w.tokens[:-1] for w in chosen])

    def attend(layer: int, q: FloatArray, k: FloatArray, v: FloatArray) -> FloatArray:
        need_finite(model, f"layer {layer}: queries, keys or values", q, k, v)
        grouped = q.reshape(len(chosen), shape.kv_heads, shape.group, -1, shape.head_dim)
        flat = {
            "q": np.moveaxis(grouped, 0, 2).reshape(shape.kv_heads, shape.group, -1),
            "k": np.moveaxis(k, 0, 1).reshape(shape.kv_heads, -1),
            "v": np.moveaxis(v, 0, 1).reshape(shape.kv_heads, -1),
            "k_channel": np.moveaxis(k, 3, 0).swapaxes(1, 2).swapaxes(0, 1),
            "v_channel": np.moveaxis(v, 3, 0).swapaxes(1, 2).swapaxes(0, 1),
        }
        for name in ("k_channel", "v_channel"):
            flat[name] = flat[name].reshape(shape.kv_heads, shape.head_dim, -1)
        for name, values in flat.items():
            thinned = values[..., ::5] if values.shape[-1] > 200_000 else values
            for bits in WIDTHS:
                out[f"{name}.{bits}"].append(best_scale(np.ascontiguousarray(thinned), bits))
        attended = np.empty_like(q)
        for first in range(0, q.shape[2], BLOCK):
            stop = min(first + BLOCK, q.shape[2])
            for b in range(len(q)):
                attended[b : b + 1, :, first:stop] = attention(
                    q[b : b + 1, :, first:stop],
                    k[b : b + 1, :, :stop],
                    v[b : b + 1, :, :stop],
                    first,
                    window=model.windows[layer],
                )[0]
        return attended

    with np.errstate(all="ignore"):
        model.run(tokens, np.arange(tokens.shape[1]), attend)
    return {name: np.stack(per_layer).astype(np.float32) for name, per_layer in out.items()}


def save_scales(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of `calibrate` (and any others), replacing the file in one step. Raises `BadInput`."""
    make_folder(path.parent)
    write_arrays(path, arrays)


def scale_arrays(path: Path) -> dict[str, FloatArray]:
    """The arrays of `calibrate` as `save_scales` wrote them. Raises `BadInput` where it is no such file."""
    try:
        data = read_arrays(path)
        found = {f"{name}.{bits}": data[f"{name}.{bits}"] for name in NAMES for bits in WIDTHS}
    except Damaged as error:
        raise BadInput(f"{path}: no calibrated scales ({error}); {MAKE}") from None
    for name, values in found.items():
        if values.dtype.kind != "f" or not (np.isfinite(values).all() and (values > 0).all()):
            raise BadInput(f"{path}: {name}: holds other than positive finite numbers; {MAKE}")
    return found


def check_scales(path: Path, shape: ModelShape) -> None:
    """Raise `BadInput` where the scales at `path` are not those of a network of this shape."""
    heads = (shape.layers, shape.kv_heads)
    wide = {"q": (shape.group,), "k_channel": (shape.head_dim,), "v_channel": (shape.head_dim,)}
    for name, values in scale_arrays(path).items():
        right = heads + wide.get(name.partition(".")[0], ())
        if values.shape != right:
            raise BadInput(
                f"{path}: {name}: has shape {values.shape}, the model {right}; {MAKE} from this model"
            )


def load_scales(path: Path) -> list[Scales]:
    """One `Scales` per layer from a file of `save_scales`. Raises `BadInput` where it is no such file."""
    arrays = scale_arrays(path)
    tables = [{b: arrays[f"{n}.{b}"] for b in WIDTHS} for n in NAMES]
    layers = len(arrays[f"k.{WIDTHS[0]}"])
    return [Scales(*({b: a[layer] for b, a in table.items()} for table in tables)) for layer in range(layers)]
