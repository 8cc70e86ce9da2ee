"""Trains the controller of ADORE-style caches on a model's own attention over calibration text.

The recipe: dense attention averaged over layers and heads; a token is wanted by a query if it is among the
`label` most attended ones; binary cross-entropy over pairs, wanted ones weighing `pos_weight`; AdamW with a
cosine. That much follows from what is known of ADORE (see `dse.algorithms.adore`) and a pilot. Ours, because
tens of thousands of tokens teach 150,000 weights by heart otherwise: `dropout` of embedding elements, without
which held-out loss rises from the second pass over the text on. Every `held`-th window is never trained on and
tells what was learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from dse.algorithms.contract import Algorithm, BoolArray, FloatArray, IntArray
from dse.algorithms.controllers import GruWeights, buckets, unit_rms
from dse.algorithms.operands import largest
from dse.archives import Damaged, read_arrays
from dse.errors import BadInput
from dse.inputs import parse_json
from dse.measure.gru import AdamW, initial, loss_and_gradient, states
from dse.measure.material import Window, windows
from dse.measure.npz import write_arrays
from dse.measure.overlap import PASSAGES, RUN, Prints, prints
from dse.measure.tables import Setup
from dse.measure.traces import mean_attention
from dse.models.protocol import Model

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is."""

RIGHT: Final = "train one with 'dse profile train'"
"""What to do where a controller is wrong, ends messages."""

REVISION: Final = 1
"""Raised whenever the same recipe would give other weights."""

CLIP: Final = 1.0
"""Largest norm of a gradient."""

LOWEST_RATE: Final = 0.05
"""Learning rate at the end, as a fraction of the one at the start."""

JUDGED: Final = (128, 256)
"""Cache sizes at which held-out windows tell how much attention a controller keeps."""


@dataclass(frozen=True)
class Recipe:
    """Everything training depends on besides the model.

    Attributes:
        windows, context, seed: calibration text; every `held`-th window is held out.
        label: how many of the most attended tokens a query wants.
        state, keys: widths of the GRU and of its keys.
        steps, batch, rows: updates, windows per update, queries per window and update.
        rate, decay, dropout, pos_weight: of the optimiser, the embeddings and the loss.
    """

    windows: int = 36
    context: int = 1024
    held: int = 6
    label: int = 64
    state: int = 64
    keys: int = 32
    steps: int = 500
    batch: int = 6
    rows: int = 96
    rate: float = 3e-3
    decay: float = 0.05
    dropout: float = 0.5
    pos_weight: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class Traces:
    """Windows as training sees them: `embedded` [W, T, D] at unit RMS, `attention` [W, T, T] float16."""

    embedded: FloatArray
    attention: FloatArray


def trace(model: Model, chosen: Sequence[Window], progress: Progress) -> Traces:
    """Dense attention over every window: one dense pass each, T x T x 2 bytes kept."""
    tokens = np.stack([w.tokens[:-1] for w in chosen])
    attention = np.zeros((*tokens.shape, tokens.shape[1]), np.float16)
    for number, text in enumerate(tokens):
        progress("dense attention", number, len(tokens))
        attention[number] = mean_attention(model, text)
    return Traces(unit_rms(model.embed(tokens)), attention)


def wanted(attention: FloatArray, label: int) -> BoolArray:
    """[W, T, T]: the `label` most attended tokens of every query, itself included; all where there are fewer."""
    out = np.zeros(attention.shape, bool)
    past = np.tri(attention.shape[-1], dtype=bool)
    for window, rows in zip(out, attention, strict=True):
        window[:] = largest(np.where(past, rows.astype(np.float32), -np.inf), label)
    return out


def held_out(count: int, length: int, recipe: Recipe) -> BoolArray:
    """Which of `count` windows of `length` tokens are not trained on.

    Raises:
        BadInput: a recipe that leaves nothing to train on or to judge by.
    """
    out: BoolArray = np.arange(count) % recipe.held == recipe.held - 1
    if out.all() or not out.any() or recipe.label >= length:
        raise BadInput(
            f"train: {count} windows of {length} tokens with every {recipe.held}th held out and {recipe.label} "
            "wanted tokens leave nothing to learn from; more windows, longer ones or fewer wanted tokens would"
        )
    return out


def train(traces: Traces, recipe: Recipe, progress: Progress) -> tuple[GruWeights, dict[str, float]]:
    """The weights, rounded to the 16 bit they are kept in, and what they do on held-out windows (`judge`).

    Raises:
        BadInput: as `held_out`.
    """
    count, length, dim = traces.embedded.shape
    out = held_out(count, length, recipe)
    labels = wanted(traces.attention, recipe.label)
    learned = np.flatnonzero(~out)
    rng = np.random.default_rng(recipe.seed)
    weights, optimiser = initial(dim, recipe.state, recipe.keys, rng), AdamW(recipe.decay)
    queries = np.arange(recipe.label, length)
    for step in range(recipe.steps):
        progress("training", step, recipe.steps)
        pick = rng.choice(learned, min(recipe.batch, len(learned)), replace=False)
        rows = np.sort(rng.choice(queries, min(recipe.rows, len(queries)), replace=False))
        stays = rng.random((len(pick), length, dim), np.float32) >= recipe.dropout
        embedded = traces.embedded[pick] * stays / np.float32(1 - recipe.dropout)
        _, gradient = loss_and_gradient(
            weights, embedded, rows, labels[np.ix_(pick, rows)], recipe.pos_weight
        )
        norm = np.sqrt(sum(float(np.square(g).sum(dtype=np.float64)) for g in gradient.values()))
        if norm > CLIP:
            gradient = {name: g * np.float32(CLIP / norm) for name, g in gradient.items()}
        cosine = 0.5 + 0.5 * np.cos(np.pi * step / recipe.steps)
        weights = optimiser.step(weights, gradient, recipe.rate * (LOWEST_RATE + (1 - LOWEST_RATE) * cosine))
    kept = GruWeights(**{n: a.astype(np.float16).astype(np.float32) for n, a in _arrays(weights).items()})
    held = Traces(traces.embedded[out], traces.attention[out])
    return kept, judge(kept, held, labels[out], recipe)


def judge(weights: GruWeights, traces: Traces, labels: BoolArray, recipe: Recipe) -> dict[str, float]:
    """What the controller does on windows it has not seen, beside the window of the same size.

    Returns `loss`; `recall` and `window_recall` of the wanted tokens by as many best-scored and newest ones; for
    every cache size of `JUDGED` shorter than the text `mass_M`, `window_mass_M` and `oracle_mass_M`: attention
    on the M tokens kept (with 4 sinks in the first two), over queries of the last quarter.
    """
    length = traces.embedded.shape[1]
    rows = np.arange(recipe.label, length, 4)
    out = {"loss": loss_and_gradient(weights, traces.embedded, rows, labels[:, rows], recipe.pos_weight)[0]}
    features = np.concatenate([states(weights, traces.embedded), traces.embedded], axis=-1)
    key, bias = features @ weights.key, features @ weights.bias
    sums: dict[str, list[float]] = {}
    for t in range(length * 3 // 4, length, 8):
        past = np.arange(t + 1)
        query = features[:, t, : weights.state] @ weights.query * weights.keys**-0.5
        scores = np.matmul(key[:, : t + 1], query[:, :, None])[:, :, 0] + bias[:, : t + 1]
        scores += weights.recency[buckets(t - past)]
        newest = np.broadcast_to(past.astype(float), scores.shape)
        row, want = traces.attention[:, t, : t + 1].astype(np.float64), labels[:, t, : t + 1]
        total = np.count_nonzero(want, axis=-1)
        for name, by in (("recall", scores), ("window_recall", newest)):
            found = np.count_nonzero(largest(by, recipe.label) & want, axis=-1) / total
            sums.setdefault(name, []).append(float(found.mean()))
        for size in (size for size in JUDGED if size < length):
            sunk = past < 4
            for name, by in (
                ("mass", np.where(sunk, np.inf, scores)),
                ("window_mass", np.where(sunk, np.inf, newest)),
                ("oracle_mass", row),
            ):
                mass = (row * largest(by, size)).sum(axis=-1).mean()
                sums.setdefault(f"{name}_{size}", []).append(float(mass))
    return out | {name: float(np.mean(values)) for name, values in sums.items()}


def _arrays(weights: GruWeights) -> dict[str, FloatArray]:
    return {f.name: getattr(weights, f.name) for f in fields(weights)}


def save_controller(
    path: Path, weights: GruWeights, about: dict[str, Any], passages: Prints | None = None
) -> None:
    """Write weights (16 bit), their provenance and prints of their text, replacing the file in one step."""
    arrays: dict[str, Any] = {n: a.astype(np.float16) for n, a in _arrays(weights).items()}
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise BadInput(f"{path}: training ran away from finite numbers; nothing was kept")
    if passages is not None:
        arrays[PASSAGES] = passages
    write_arrays(path, {"about": np.array(json.dumps(about, sort_keys=True)), **arrays})


def load(path: Path) -> GruWeights:
    """The weights at `path`, in float32; `BadInput` where it is no controller."""
    try:
        data = read_arrays(path)
        found = {f.name: data[f.name] for f in fields(GruWeights)}
        if any(a.dtype.kind != "f" for a in found.values()):
            raise Damaged("other than numbers")
        return GruWeights(**{name: a.astype(np.float32) for name, a in found.items()})
    except (Damaged, ValueError, TypeError, IndexError) as error:
        raise BadInput(f"{path}: no controller ({error}); {RIGHT}") from None


def provenance(path: Path) -> dict[str, Any]:
    """What the file says it was trained on and how well it does; `BadInput` where it is no controller."""
    try:
        found = parse_json(f"{path}: about", str(read_arrays(path)["about"]), RIGHT)
        return dict(found)
    except (Damaged, ValueError, TypeError) as error:
        raise BadInput(f"{path}: no controller ({error}); {RIGHT}") from None


def shipped(model: str) -> Path:
    """Where the controller of a known model ships; the file may be absent."""
    return Path(str(files("dse.measure"))) / "controllers" / f"{model}.npz"


@cache
def _trained_on(path: Path) -> str | None:
    """Checksum of the model a controller was trained on; None where there is no such file."""
    return str(provenance(path)["model_sha256"]) if path.exists() else None


def train_on_text(
    model: Model, texts: Mapping[str, IntArray], recipe: Recipe, progress: Progress
) -> tuple[GruWeights, dict[str, Any], Prints]:
    """Weights for `model` from the calibration part of `texts`, their provenance, and prints of what they saw.

    Prints are every `dse.measure.overlap.RUN`-th one, so that twice as many tokens in a row are always noticed.
    """
    held_out(recipe.windows, recipe.context, recipe)  # before the long part
    chosen = windows(texts, "calibration", recipe.context, recipe.windows, recipe.seed)
    with np.errstate(all="ignore"):  # what is not finite is found by looking
        weights, result = train(trace(model, chosen, progress), recipe, progress)
    about = {
        "revision": REVISION,
        "model": model.name,
        "model_sha256": model.sha256,
        "recipe": asdict(recipe),
        "windows": [[w.book, w.start] for w in chosen],
        "tokens_sha256": hashlib.sha256(
            np.stack([w.tokens for w in chosen]).astype("<i8").tobytes()
        ).hexdigest(),
        "numpy": np.__version__,
        "held_out": {name: round(value, 4) for name, value in result.items()},
    }
    return weights, about, np.concatenate([prints(w.tokens)[::RUN] for w in chosen])


def path(algorithm: Algorithm, setup: Setup) -> Path:
    """The user's file, the shipped one if it was trained on this very model, or one of this measurement's own."""
    if setup.given:
        _check_width(setup.given, setup.model)
        return setup.given
    ready = shipped(setup.known_as)
    if _trained_on(ready) == setup.model.sha256:
        return ready
    wanted = json.dumps([REVISION, setup.model.sha256, asdict(Recipe())])
    return setup.folder / f"controller-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.npz"


@cache
def _width(path: Path) -> int:
    return load(path).dim


def _check_width(path: Path, model: Model) -> None:
    dim = model.embed(np.zeros(1, np.int64)).shape[-1]
    if _width(path) != dim:
        raise BadInput(
            f"{path}: a controller of a model {_width(path)} wide, this one is {dim} wide; {RIGHT}"
        )


def make(algorithm: Algorithm, setup: Setup, path: Path) -> None:
    """Train by the default recipe: some minutes for a model of 135 M weights."""
    trained = train_on_text(setup.model, setup.texts, Recipe(), lambda what, done, total: None)
    save_controller(path, *trained)
