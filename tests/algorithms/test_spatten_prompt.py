"""SpAtten's summarisation stage against a plain loop over layers, heads, queries and tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.algorithms import build
from dse.algorithms.prompt import Passage, PromptRun, Summarises
from dse.algorithms.quantize import Scales
from dse.algorithms.spatten import keep_ratios
from dse.algorithms.spatten_prompt import largest_of_each
from dse.errors import BadInput

LAYERS, HEADS, GROUP, LENGTH, DIM, BLOCK = 6, 2, 2, 40, 8, 16
WIDTHS = (4, 6, 8, 10, 12)


def scales():
    one = {b: np.full(HEADS, 4.5 / 2 ** (b - 1), np.float32) for b in WIDTHS}
    q = {b: np.full((HEADS, GROUP), 9 / 2 ** (b - 1), np.float32) for b in WIDTHS}
    return Scales(q, one, one, {}, {})


def operands(seed=0):
    """Per layer q [H, G, N, d], k and v [H, N, d]."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(LAYERS):
        q = rng.standard_normal((HEADS, GROUP, LENGTH, DIM)).astype(np.float32) * 2
        out.append((q, *rng.standard_normal((2, HEADS, LENGTH, DIM)).astype(np.float32)))
    return out


def run_prompt(knobs, data, windows=(0,) * LAYERS, length=LENGTH):
    """Per layer: output, survivors, and notes (head, attended, visible)."""
    passage = Passage(LAYERS, HEADS, GROUP, length, BLOCK, [scales()] * LAYERS, windows)
    run = build("spatten", knobs).start_prompt(passage)
    assert isinstance(run, PromptRun)
    layers = []
    for layer, (q, k, v) in enumerate(data):
        notes = []
        out = run.attend(layer, q, k, v, lambda *note, notes=notes: notes.append(note))
        layers.append((out, run.alive.copy(), notes))
    return layers


def rounded(x, step, bits):
    return np.clip(np.rint(x / np.float32(step)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def plain(knobs, data, windows):
    """The same, one query of one head at a time: outputs, survivors, and per head [rows of masks]."""
    algorithm = build("spatten", knobs)
    msb, lsb = (*algorithm.widths, 0)[:2]
    bits = msb + lsb
    keep = algorithm.settings["value_keep"]
    tokens, heads = list(range(LENGTH)), [(h, g) for h in range(HEADS) for g in range(GROUP)]
    received, asked = np.zeros(LENGTH), np.zeros(LENGTH)
    strength = dict.fromkeys(heads, 0.0)
    layers = []
    for layer, (q, k, v) in enumerate(data):
        if layer:
            importance = received / np.maximum(asked, 1)
            if algorithm.settings["importance"] == "prompt":
                importance = received
            wanted = max(1, math.floor(algorithm.token_ratios(LAYERS)[layer] * LENGTH + 1e-9))
            recent = min(algorithm.settings["recent"], wanted)
            if wanted < len(tokens):
                old, new = tokens[:-recent], tokens[-recent:]
                best = sorted(old, key=lambda j: -importance[j])[: wanted - recent]
                tokens = sorted(best + new)
            wanted = max(1, math.floor(algorithm.head_ratios(LAYERS)[layer] * HEADS * GROUP + 1e-9))
            heads = sorted(heads, key=lambda head: -strength[head])[:wanted]
        out = np.zeros_like(q)
        masks = {}
        for i in tokens:
            seen = [j for j in tokens if j <= i and (not windows[layer] or j > i - windows[layer])]
            asked[seen] += 1
            for h, g in heads:
                query = rounded(q[h, g, i], 9 / 2**11, 12) * np.float32(9 / 2**11) * DIM**-0.5
                whole = rounded(k[h, seen], 4.5 / 2 ** (bits - 1), bits)
                step = 4.5 / 2 ** (bits - 1)

                def softmax(keys, query=query, step=step):
                    s = keys.astype(np.float64) * step @ query
                    e = np.exp(s - s.max())
                    return e / e.sum()

                p = softmax(np.floor(whole / 2**lsb) * 2**lsb)
                flat = lsb > 0 and p.max() < algorithm.settings["confidence"]
                if flat:
                    p = softmax(whole)
                count = max(1, math.floor(keep * len(seen) + 1e-9)) if keep < 1 else len(seen)
                kept = np.argsort(-p, kind="stable")[:count]
                values = rounded(v[h, seen], 4.5 / 2**7, 8) * 4.5 / 2**7
                out[h, g, i] = p[kept] @ values[kept]
                received[seen] += p
                strength[h, g] += np.abs(out[h, g, i]).sum()
                masks[h, g, i] = (seen, seen if flat else [], [seen[n] for n in kept])
        layers.append((out, tokens, masks))
    return layers


SETTINGS = {
    "tokens": {"keep": 0.4, "front": 0.2, "chunks": "8", "recent": 3},
    "sum": {"keep": 0.4, "front": 0.2, "chunks": "8", "importance": "prompt"},
    "steps": {"schedule": "0:0.9,2:0.5,4:0.2", "chunks": "6+4", "confidence": 0.3},
    "values": {"keep": 0.6, "value_keep": 0.3, "chunks": "12"},
    "heads": {"keep": 1.0, "head_keep": 0.5, "chunks": "8"},
    "all": {"keep": 0.5, "front": 0.0, "value_keep": 0.4, "head_keep": 0.6, "confidence": 0.4},
}


@pytest.mark.parametrize("windows", [(0,) * LAYERS, (0, 9, 0, 9, 9, 0)], ids=["full", "sliding"])
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_plain_loop(name, windows):
    data = operands()
    got, want = run_prompt(SETTINGS[name], data, windows), plain(SETTINGS[name], data, windows)
    for (out, alive, notes), (plain_out, tokens, masks) in zip(got, want, strict=True):
        assert alive.tolist() == tokens
        np.testing.assert_allclose(out, plain_out, atol=2e-5)
        rows = dict.fromkeys(range(HEADS), 0)
        for h, attended, visible in notes:
            for t in range(len(visible)):
                i = tokens[rows[h]]
                rows[h] += 1
                for g in range(GROUP):
                    first, second, values = masks.get((h, g, i), ([], [], []))
                    streams = [(attended.k_masks[0], first), (attended.v_mask, values)]
                    if len(attended.k_masks) == 2:
                        streams.append((attended.k_masks[1], second))
                    for mask, expected in streams:
                        row = visible[t] if mask is None else mask[0, 0, g, t]
                        assert np.flatnonzero(row).tolist() == sorted(expected)
        assert set(rows.values()) == {len(tokens)}


def test_work_is_what_the_masks_say():
    for out, alive, notes in run_prompt(SETTINGS["all"], operands()):
        total = {}
        for _, attended, _ in notes:
            for key, value in attended.work.items():
                total[key] = total.get(key, 0) + value
        pairs = sum(a.k_masks[0].sum() if a.k_masks[0] is not None else GROUP * s.sum() for _, a, s in notes)
        again = sum(a.k_masks[1].sum() for _, a, _ in notes)
        kept = sum(a.v_mask.sum() for _, a, _ in notes)
        heads = np.abs(out).sum(axis=(2, 3)).astype(bool).sum()
        assert total["exponentials"] == total["divisions"] == pairs + again
        assert total["select_elements"] == pairs
        assert total["select_kept"] == kept
        assert total["select_calls"] == total["compares"] == heads * len(alive)
        assert total["second_passes"] == sum(a.k_masks[1].any(axis=-1).sum() for _, a, _ in notes)
    assert any("rank_calls" in a.work and a.work["rank_calls"] > 0 for _, a, _ in notes)


def test_one_ranking_per_layer_over_what_entered_it():
    layers = run_prompt({"schedule": "1:0.5,3:0.25", "chunks": "8"}, operands())
    want = {1: (LENGTH, LENGTH // 2), 3: (LENGTH // 2, LENGTH // 4)}
    for layer, (_, _, notes) in enumerate(layers):
        for name, value in zip(("rank_elements", "rank_kept"), want.get(layer, (0, 0)), strict=True):
            assert sum(a.work.get(name, 0) for _, a, _ in notes) == value
        assert sum(a.work.get("rank_calls", 0) for _, a, _ in notes) == (layer in want)


def test_pruned_tokens_never_return_and_the_last_ones_stay():
    layers = run_prompt({"keep": 0.2, "front": 0.0, "recent": 5}, operands())
    ratios = keep_ratios("linear", 0.2, 0.0, LAYERS)
    for (_, before, _), (out, after, _), ratio in zip(layers, layers[1:], ratios[1:], strict=False):
        assert set(after) <= set(before)
        assert len(after) == min(len(before), max(1, int(ratio * LENGTH + 1e-9)))
        assert after.tolist()[-5:] == list(range(LENGTH - 5, LENGTH))[-len(after) :]
        gone = np.setdiff1d(np.arange(LENGTH), after)
        assert (out[:, :, gone] == 0).all()


def test_the_first_layer_does_not_look_ahead():
    """Which token survives depends on the whole prompt; what a layer computes over its survivors does not."""
    knobs = {"keep": 0.5, "front": 0.0, "value_keep": 0.4, "confidence": 0.4}
    data = operands()
    bent = [tuple(x.copy() for x in layer) for layer in data]
    for q, k, v in bent:
        q[:, :, 25:] += 1
        k[:, 25:] -= 1
        v[:, 25:] *= 2
    a, b = run_prompt(knobs, data)[0], run_prompt(knobs, bent)[0]
    assert (a[0][:, :, :25] == b[0][:, :, :25]).all()
    assert (a[0][:, :, 25:] != b[0][:, :, 25:]).any()
    first, again = a[2][0][1], b[2][0][1]
    assert (first.v_mask == again.v_mask).all()
    for _, _, notes in run_prompt(knobs, data):
        for _, attended, visible in notes:
            assert not (attended.v_mask & ~visible).any()


def test_the_mean_is_fair_to_late_tokens_and_the_sum_is_not():
    """With uniform attention every token gets the same mean; the sum favours the first ones."""
    data = [(q * 0, k, v) for q, k, v in operands()]
    by_sum = run_prompt({"schedule": "1:0.5", "chunks": "8", "importance": "prompt"}, data)[1][1]
    assert by_sum.tolist() == [*range(LENGTH // 2 - 1), LENGTH - 1]


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 6),
    size=st.integers(1, 30),
    levels=st.sampled_from([1, 2, 5, 1000]),
    ratio=st.floats(0.01, 1.0),
)
def test_largest_of_each_row_with_ties(seed, rows, size, levels, ratio):
    rng = np.random.default_rng(seed)
    first = int(rng.integers(0, size))
    visible = np.arange(size)[None] <= np.minimum(first + np.arange(rows), size - 1)[:, None]
    p = np.where(visible, rng.integers(0, levels, (2, rows, size)) / levels, 0.0)
    keep = np.maximum(1, (ratio * visible.sum(axis=-1)).astype(np.int64))
    kept = largest_of_each(p, keep, visible)
    assert not (kept & ~visible).any()
    for g in range(2):
        for t in range(rows):
            seen = np.flatnonzero(visible[t])
            order = sorted(seen, key=lambda j, row=p[g, t]: (-row[j], -j))
            assert np.flatnonzero(kept[g, t]).tolist() == sorted(order[: keep[t]])


def test_what_has_no_meaning_in_a_prompt_is_refused():
    with pytest.raises(BadInput, match=r"spatten.importance: 'empty'"):
        run_prompt({"importance": "empty"}, operands())
    assert isinstance(build("spatten"), Summarises)
    assert not isinstance(build("dense"), Summarises)
