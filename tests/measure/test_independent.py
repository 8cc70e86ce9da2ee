"""`dse profile run` against a second implementation of three algorithms, on text no profile was measured on.

Nothing of `dse.algorithms` is used: Token-Picker, exact top-k and the exact probability threshold are written
down again, query by query and token by token where that is the definition, in float64 and integers. Only the
model and the scales that the shipped profile holds are shared. Source: Park et al., "Token-Picker", DAC 2024.

Rows are queries of one head: `lower`, `upper` [C, R, N] bound the logits of R rows over N tokens after each of C
key chunks, `seen` [R] is how many tokens a row may see. A rule gives which chunks were fetched [C, R, N], and
whose value was [R, N].
"""

from __future__ import annotations

import numpy as np
import pytest

from dse.cli import main
from dse.models.load import load_model
from dse.models.text import find_text
from dse.profiles.schema import ACCURACY
from dse.profiles.store import load_profile

pytestmark = pytest.mark.model

MODEL = "smollm2-135m"
CONTEXT = 256
BITS = 12
THRESHOLD = 1e-3
LAG = 256
KEPT = 64

GRID = f"""
[[grid]]
algorithm = "token-picker"
threshold = {THRESHOLD}
chunks = "4+4+4"
mode = "stream"
lag = [0, {LAG}]

[[grid]]
algorithm = "token-picker"
threshold = {THRESHOLD}
chunks = "4+4+4"
mode = "breadth"

[[grid]]
algorithm = "oracle-top-k"
k = {KEPT}

[[grid]]
algorithm = "oracle-threshold"
threshold = {THRESHOLD}
"""


def integers(x, step):
    return np.clip(np.rint(x / step), -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1).astype(np.int64)


def softmax(scores, allowed):
    scores = np.where(allowed, scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def bounds(q, k, scale, widths):
    """Least and largest logit [C, R, N] of integer queries [R, d] whose keys [N, d] are known chunk by chunk.

    Unread bits of a two's-complement key add between 0 and 2**unread - 1 to every element.
    """
    most = np.maximum(q, 0).sum(axis=1, keepdims=True)
    least = np.minimum(q, 0).sum(axis=1, keepdims=True)
    lower, upper = [], []
    for unread in BITS - np.cumsum(widths):
        known = q.astype(float) @ (k >> unread << unread).T.astype(float)  # integers below 2**53: exact
        lower.append(scale * (known + (2**unread - 1) * least))
        upper.append(scale * (known + (2**unread - 1) * most))
    return np.array(lower), np.array(upper)


def token_picker_stream(lower, upper, seen, lag):
    """Token after token, the first one and then from the newest back; a further chunk comes `lag` tokens later.

    Of chunks that come at the same time the first chunk counts first: nothing published says, and little depends
    on it.
    """
    chunks, rows, tokens = lower.shape
    peak = np.where(np.arange(tokens) < seen[:, None], lower[-1], -np.inf).max(axis=1)[:, None]
    lower, upper = np.exp(lower - peak), np.exp(upper - peak)
    fetched = np.zeros(lower.shape, bool)
    wanted = np.ones((rows, tokens), bool)
    denominator = np.zeros(rows)
    for slot in range(int(seen.max()) + (chunks - 1) * lag):
        for chunk in range(chunks):
            number = slot - chunk * lag  # of the token in visiting order whose chunk arrives now
            token = 0 if number == 0 else seen - number
            arrives = (number >= 0) & (number < seen) & wanted[np.arange(rows), token % tokens]
            at = np.flatnonzero(arrives), np.broadcast_to(token, rows)[arrives]
            fetched[chunk][at] = True
            denominator[at[0]] += lower[chunk][at] - (lower[chunk - 1][at] if chunk else 0)
            wanted[at] = upper[chunk][at] > THRESHOLD * denominator[at[0]]
    return fetched, fetched[-1] & wanted


def token_picker_breadth(lower, upper, seen):
    """Chunk after chunk: all tokens that are left are tested against the denominator of the whole row."""
    live = np.arange(lower.shape[2]) < seen[:, None]
    peak = np.where(live, lower[-1], -np.inf).max(axis=1)[:, None]
    known, fetched = np.zeros(live.shape), []
    for low, high in zip(np.exp(lower - peak), np.exp(upper - peak), strict=True):
        fetched.append(live)
        known = np.where(live, low, known)
        live = live & (high > THRESHOLD * known.sum(axis=1, keepdims=True))
    return np.array(fetched), live


def top_k(lower, upper, seen):
    visible = np.arange(lower.shape[2]) < seen[:, None]
    rank = np.argsort(np.argsort(np.where(visible, -lower[-1], np.inf), axis=1), axis=1)
    return visible[None], visible & (rank < KEPT)


def above_threshold(lower, upper, seen):
    visible = np.arange(lower.shape[2]) < seen[:, None]
    return visible[None], visible & (softmax(lower[-1], visible) > THRESHOLD)


RULES = {
    "stream, no lag": ((4, 4, 4), lambda *a: token_picker_stream(*a, lag=0)),
    "stream, lag": ((4, 4, 4), lambda *a: token_picker_stream(*a, lag=LAG)),
    "breadth": ((4, 4, 4), token_picker_breadth),
    "top-k": ((BITS,), top_k),
    "threshold": ((BITS,), above_threshold),
}


def key(setting):
    """The name in `RULES` of a measured setting."""
    if setting.algorithm != "token-picker":
        return setting.algorithm.removeprefix("oracle-")
    lag = ", lag" if setting.knobs["lag"] else ", no lag"
    return setting.knobs["mode"] + (lag if setting.knobs["mode"] == "stream" else "")


def decode(model, scales, tokens, rule):
    """The last quarter of `tokens` [c + 1] under `rule`, after a dense float prompt.

    Returns the perplexity, and by counter name the fetched fraction of visible tokens of every layer and KV head.
    """
    context = len(tokens) - 1
    prompt = context * 3 // 4
    heads, group, dim = model.shape.kv_heads, model.shape.group, model.shape.head_dim
    seen = np.arange(prompt, context) + 1
    keys, values, counts = [], [], {}
    widths, select = rule

    def dense(layer, q, k, v):
        keys.append(k[0])
        values.append(v[0])
        out = np.empty_like(q[0])
        for head in range(heads * group):
            scores = q[0, head] @ k[0, head // group].T / np.sqrt(dim)
            out[head] = softmax(scores, np.tri(prompt, dtype=bool)) @ v[0, head // group]
        return out[None]

    def sparse(layer, q, k, v):
        k = np.concatenate([keys[layer], k[0]], axis=1)
        v = np.concatenate([values[layer], v[0]], axis=1)
        out = np.empty_like(q[0])
        for head in range(heads):
            step_q, step_k, step_v = (scales[f"{name}.{BITS}"][layer, head] for name in "qkv")
            stored = integers(k[head], step_k)
            mine = range(head * group, (head + 1) * group)
            limits = [
                bounds(integers(q[0, h], step), stored, step * step_k / np.sqrt(dim), widths)
                for h, step in zip(mine, step_q, strict=True)
            ]
            lower, upper = (np.concatenate(side, axis=1) for side in zip(*limits, strict=True))
            fetched, kept = select(lower, upper, np.tile(seen, group))
            weights = softmax(lower[-1], kept)  # after the last chunk the bounds are the score
            out[list(mine)] = (weights @ (integers(v[head], step_v) * step_v)).reshape(group, -1, dim)
            masks = {f"k_rows_{c}": mask for c, mask in enumerate(fetched)} | {"v_rows": kept}
            for name, mask in masks.items():
                mask = mask.reshape(group, len(seen), -1)
                for scope, fraction in (
                    ("head", mask.sum() / (group * seen.sum())),
                    ("group", mask.any(axis=0).sum() / seen.sum()),
                ):
                    table = counts.setdefault(f"{scope}.{name}", np.zeros((model.shape.layers, heads)))
                    table[layer, head] = fraction
        return out[None]

    model.run(tokens[None, :prompt], np.arange(prompt), dense)
    hidden = model.run(tokens[None, prompt:context], np.arange(prompt, context), sparse)[0]
    logits = model.logits(hidden).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.exp(-logits[np.arange(len(hidden)), tokens[prompt + 1 :]].mean()), counts


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One window of technical text, measured by the command line."""
    folder = tmp_path_factory.mktemp("measured")
    grid = folder / "grid.toml"
    grid.write_text(GRID)
    answer = main(
        ["profile", "run", "--quiet", "--text", "technical", "--part", "selection", "--grid", str(grid)]
        + ["--context", str(CONTEXT), "--windows", "1", "-o", str(folder / "run")]
    )
    assert answer == 0
    profile = load_profile(str(next((folder / "run").glob("*.npz"))))
    assert {key(setting) for setting in profile.settings} == set(RULES)
    return profile


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


@pytest.mark.parametrize("name", RULES)
def test_a_second_implementation_agrees(measured, model, name):
    row = next(i for i, setting in enumerate(measured.settings) if key(setting) == name)
    book, start = measured.provenance.windows[0]
    text = find_text("technical").tokens(model.tokenizer)[book]
    perplexity, fetched = decode(
        model, load_profile(MODEL).scales, text[start : start + CONTEXT + 1], RULES[name]
    )
    assert measured.accuracy[row, 0, ACCURACY.index("perplexity")] == pytest.approx(perplexity, rel=2e-3)
    visible = float(measured.mean_context[0])
    for counter, mine in fetched.items():
        share = model.shape.group if counter.startswith("head.") else 1
        theirs = measured.counter(counter)[row, 0] / (visible * share)
        np.testing.assert_allclose(theirs.mean(), mine.mean(), rtol=0, atol=1e-3, err_msg=counter)
        np.testing.assert_allclose(theirs, mine, rtol=0, atol=5e-3, err_msg=counter)
