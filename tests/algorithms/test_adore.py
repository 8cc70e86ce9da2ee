"""ADORE-style decoding: a plain twin, causality, what is counted, and what knobs may not say."""

from __future__ import annotations

import numpy as np
import pytest

from dse.algorithms.adore import Adore
from dse.algorithms.contract import Prompt
from dse.algorithms.quantize import Scales
from dse.errors import BadInput
from dse.measure.gru import initial

FLOAT = {"k_bits": 32, "v_bits": 32, "q_bits": 32}
LAYERS, HEADS, GROUP, DIM, BATCH, PROMPT, STEPS = 3, 2, 2, 4, 2, 14, 9
END = PROMPT + STEPS


class Text:
    """Queries, keys and values of every position, random and fixed: a "model" without layers that interact."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        shape = (LAYERS, BATCH, HEADS, END, DIM)
        self.k, self.v = rng.standard_normal((2, *shape)).astype(np.float32)
        self.q = rng.standard_normal((LAYERS, BATCH, HEADS, GROUP, END, DIM)).astype(np.float32) * 2
        self.tokens = rng.integers(0, 9, (BATCH, END))
        self.attention = rng.random((BATCH, STEPS, END))
        self.column_sum = rng.random((BATCH, PROMPT))
        self.table = rng.standard_normal((9, 6)).astype(np.float32)

    def prompt(self, windows=()):
        one = {b: np.full(HEADS, 4.5 / 2 ** (b - 1), np.float32) for b in (4, 8, 12)}
        q = {b: np.full((HEADS, GROUP), 9 / 2 ** (b - 1), np.float32) for b in (4, 8, 12)}
        return Prompt(
            [k[:, :, :PROMPT] for k in self.k],
            [v[:, :, :PROMPT] for v in self.v],
            GROUP,
            END,
            END,
            self.column_sum,
            [Scales(q, one, one, {}, {})] * LAYERS,
            self.tokens[:, :PROMPT],
            self.table.__getitem__,
            windows,
            lambda: self.attention,
        )


def algorithm_of(knobs):
    algorithm = Adore({**FLOAT, "cache": 8, "recent": 2, "sinks": 1, "rebuild": 2, **knobs})
    if algorithm.needs:
        algorithm.prepare(initial(6, 5, 3, np.random.default_rng(3)))
    return algorithm


def decode(knobs, text=None, windows=(), steps=STEPS):
    """Per step: the positions rebuilt (or None), the cached set before it, and what every layer returned."""
    text = text or Text()
    run = algorithm_of(knobs).start(text.prompt(windows))
    out = []
    for position in range(PROMPT, PROMPT + steps):
        again = run.step(position, text.tokens[:, position])
        asking = np.full((BATCH, 1), position)
        if again is not None:
            asking = np.concatenate([again, asking], axis=1)
        places, back = run.places.copy(), run.returning.copy()
        layers = []
        for layer in range(LAYERS):
            take = asking[:, None, :, None]
            k, v = (np.take_along_axis(x[layer], take, axis=2) for x in (text.k, text.v))
            q = np.take_along_axis(text.q[layer], take[:, :, None], axis=3)
            layers.append(run.attend(layer, q, k, v))
        out.append((again, places, back, layers))
    return out


def plain_attention(text, layer, b, h, g, position, keys):
    """One row in float64 over the given positions."""
    scores = text.k[layer, b, h, keys].astype(float) @ text.q[layer, b, h, g, position] / np.sqrt(DIM)
    p = np.exp(scores - scores.max())
    return p @ text.v[layer, b, h, keys] / p.sum()


CHOOSERS = ["gru", "accumulated", "window", "random", "oracle", "future"]


@pytest.mark.parametrize("restore", ["rebuild", "reload"])
@pytest.mark.parametrize("chooses", CHOOSERS)
def test_every_row_is_attention_over_the_cached_and_returned_tokens(chooses, restore):
    """Keys never change here, so each output must equal plain attention over the set the run says it holds."""
    text = Text()
    out = decode({"controller": chooses, "restore": restore}, text)
    for step, (again, places, back, layers) in enumerate(out):
        current = PROMPT + step
        assert (again is None) == (restore == "reload")
        assert places.shape == (BATCH, 8 + 2 + 1)
        asking = np.concatenate(
            [back if restore == "rebuild" else back[:, :0], np.full((BATCH, 1), current)], axis=1
        )
        for b in range(BATCH):
            assert len(set(places[b])) == places.shape[1]
            for layer, attended in enumerate(layers):
                for r, position in enumerate(asking[b]):
                    keys = places[b][places[b] <= position]
                    for h, g in np.ndindex(HEADS, GROUP):
                        want = plain_attention(text, layer, b, h, g, position, keys)
                        np.testing.assert_allclose(attended.out[b, h, g, r], want, atol=2e-5)


@pytest.mark.parametrize("chooses", CHOOSERS)
def test_cache_keeps_its_size_the_newest_tokens_and_the_sinks(chooses):
    out = decode({"controller": chooses, "recent": 3, "sinks": 2})
    for step, (again, places, _, _) in enumerate(out):
        cached = places[:, :8]
        for b in range(BATCH):
            assert {0, 1} <= set(cached[b])
            assert {PROMPT + step - 1, PROMPT + step - 2} <= set(cached[b])
            assert not set(cached[b]) & set(again[b])
        assert (np.diff(again, axis=1) > 0).all()
        assert (again < PROMPT + step).all()


def test_window_without_return_is_sliding_window_attention():
    text = Text()
    out = decode({"controller": "window", "rebuild": 0, "sinks": 0}, text)
    for step, (again, _, _, layers) in enumerate(out):
        assert again is None
        current = PROMPT + step
        for layer, attended in enumerate(layers):
            want = plain_attention(text, layer, 1, 0, 1, current, np.arange(current - 8, current + 1))
            np.testing.assert_allclose(attended.out[1, 0, 1, 0], want, atol=2e-5)


def test_returned_tokens_are_the_best_of_the_released_and_stay_if_they_are_good_enough():
    text = Text()
    out = decode({"controller": "oracle", "recent": 1, "sinks": 0}, text)
    for step, (again, places, _, _) in enumerate(out):
        for b in range(BATCH):
            score = text.attention[b, step]
            released = sorted(set(range(PROMPT + step)) - set(places[b, :8]), key=lambda i: score[i])
            assert set(again[b]) == set(released[-2:])
            if step + 1 < STEPS:
                others = sorted(places[b, :-1], key=lambda i: score[i])[-7:]
                assert set(out[step + 1][1][b, :8]) == {*others, PROMPT + step}


@pytest.mark.parametrize("chooses", ["gru", "accumulated", "window", "random"])
def test_the_future_changes_nothing(chooses):
    text, other = Text(), Text()
    at = PROMPT + 5
    other.k[..., at:, :], other.v[..., at:, :], other.q[..., at:, :] = 3, -9, 1
    other.tokens[:, at:] = 0
    one, two = (decode({"controller": chooses}, t, steps=5) for t in (text, other))
    for (again, places, _, layers), (again2, places2, _, layers2) in zip(one, two, strict=True):
        np.testing.assert_array_equal(again, again2)
        np.testing.assert_array_equal(places, places2)
        for a, b in zip(layers, layers2, strict=True):
            np.testing.assert_array_equal(a.out, b.out)


def test_layers_with_a_sliding_window_see_no_further_back():
    text = Text()
    out = decode({"controller": "random", "cache": 10}, text, windows=(0, 5, 0))
    _, places, back, layers = out[4]
    current = PROMPT + 4
    for r, position in enumerate([*back[0], current]):
        keys = places[0][(places[0] <= position) & (places[0] > position - 5)]
        want = plain_attention(text, 1, 0, 1, 0, position, keys)
        np.testing.assert_allclose(layers[1].out[0, 1, 0, r], want, atol=2e-5)
    seen = np.zeros(END, bool)
    for position in [*back[0], current]:
        seen[max(position - 4, 0) : position + 1] = True
    cached = np.append(places[0, :10], current)
    assert layers[1].v_mask[0, 0, 0, 0].sum() == seen[cached].sum()
    assert layers[0].v_mask[0, 0, 0, 0].sum() == 11


def test_widths_round_what_is_cached():
    text = Text()
    wide, narrow = decode({"controller": "window"}, text), decode({"controller": "window", "k_bits": 4}, text)
    assert np.abs(wide[0][3][0].out - narrow[0][3][0].out).max() > 1e-3
    with pytest.raises(BadInput, match="k_bits"):
        decode({"controller": "window", "k_bits": 7}, text)


def totals(knobs, step=3):
    """Counters of one step summed over layers and KV heads, per window."""
    _, _, _, layers = decode(knobs)[step]
    out: dict[str, float] = {}
    for attended in layers:
        for name, value in attended.work.items():
            out[name] = out.get(name, 0.0) + float(np.sum(np.broadcast_to(value, HEADS))) / BATCH
    return out


def test_counts_of_a_step_that_rebuilds():
    """Cache 8, 2 rebuilt, 17 tokens before the current one: once-per-step work is conserved over layers and heads."""
    work, places, back = totals({"controller": "gru"}), *decode({"controller": "gru"})[3][1:3]
    n = PROMPT + 4
    weights = initial(6, 5, 3, np.random.default_rng(3))
    assert work["controller_macs"] == pytest.approx(weights.token_macs + 3 * n)
    assert work["group.meta_read_bytes"] == work["head.meta_read_bytes"]
    assert work["group.meta_read_bytes"] == pytest.approx(
        (n * 4 + weights.size) * 2 + 2 * 4
    )  # keys and bias; ids of the rebuilt
    assert work["group.meta_write_bytes"] == pytest.approx(4 * 2 + 4)
    assert work["select_calls"] == pytest.approx(1)
    assert work["select_elements"] == pytest.approx(n - 1 - 8)
    assert work["select_kept"] == pytest.approx(2)
    assert work["rank_calls"] == pytest.approx(1)
    assert work["rank_elements"] == pytest.approx(11)
    assert work["rank_kept"] == pytest.approx(8)
    per_head = LAYERS * HEADS
    assert work["group.rows_rebuilt"] == 2 * per_head == work["head.rows_rebuilt"]
    assert work["group.rows_reloaded"] == 0
    pairs = sum((places <= position[:, None]).sum() for position in (*back.T, np.full(BATCH, n - 1))) / BATCH
    assert work["qk_rows_0"] == work["pv_rows"] == pairs * GROUP * per_head
    assert work["divisions"] == pytest.approx(3 * GROUP * per_head + 3 * 5)


def test_counts_of_a_step_that_reloads():
    work = totals({"controller": "oracle", "restore": "reload"})
    per_head = LAYERS * HEADS
    assert work["group.rows_rebuilt"] == 0
    assert work["group.rows_reloaded"] == 2 * per_head
    assert work["head.rows_reloaded"] == 2 * per_head * GROUP
    assert work["group.rows_written"] == 3 * per_head  # the two into the cache, the new one's copy out
    assert work["pv_rows"] == 11 * GROUP * per_head
    assert work["controller_macs"] == work["group.meta_read_bytes"] == 0


def test_slicing_is_free_moves_rows_or_multiplies_matrices():
    base, moved, product = (totals({"controller": "window", "slice": s, "k_bits": 8, "v_bits": 4})
                            for s in ("index", "gather", "matmul"))  # fmt: skip
    rows = 3 * LAYERS * HEADS * DIM * (8 + 4) / 8
    assert moved["group.meta_read_bytes"] - base["group.meta_read_bytes"] == rows
    assert moved["group.meta_write_bytes"] - base["group.meta_write_bytes"] == rows
    assert moved["head.meta_write_bytes"] - base["head.meta_write_bytes"] == rows * GROUP
    assert product["controller_macs"] - base["controller_macs"] == 8 * 11 * DIM * 2 * LAYERS * HEADS


def test_published_geometry_slices_by_matmul_at_ten_times_the_token():
    """LLaMA-2-7B (32 layers, 32 KV heads of 128), 512 cached, none rebuilt: 137.7 GFLOP per sequence and step."""
    layers, heads, dim, cache = 32, 32, 128, 512
    rng = np.random.default_rng(0)
    text = Prompt(
        [rng.standard_normal((1, 1, cache + 1, dim)).astype(np.float32)] * 2,
        [rng.standard_normal((1, 1, cache + 1, dim)).astype(np.float32)] * 2,
        1, cache + 2, cache + 2, np.zeros((1, cache + 1)), [Scales({}, {}, {}, {}, {})] * 2,
    )  # fmt: skip
    run = Adore({**FLOAT, "cache": cache, "rebuild": 0, "controller": "window", "slice": "matmul"}).start(
        text
    )
    run.step(cache + 1, np.zeros(1, np.int64))
    x = rng.standard_normal((1, 1, 1, dim)).astype(np.float32)
    macs = run.attend(0, x[:, :, None], x, x).work["controller_macs"]
    assert 2 * macs * layers * heads == pytest.approx(137.7e9, rel=1e-3)


def test_cached_rows_are_fetched_once_and_lie_together():
    _, _, _, layers = decode({"controller": "oracle"})[2]
    for attended in layers:
        assert attended.v_mask.shape == (BATCH, HEADS, GROUP, 1, 8 + 1)
        assert attended.v_mask.all()
        assert attended.k_masks[0].all()


@pytest.mark.parametrize(
    ("knobs", "word"),
    [
        ({"cache": 8, "recent": 8, "sinks": 1}, "cache"),
        ({"cache": 8, "controller": "accumulated", "sinks": 5, "recent": 1}, "cache"),
        ({"seed": 3}, "seed"),
        ({"controller": "oracle", "horizon": 3}, "horizon"),
        ({"controller": "lstm"}, "controller"),
        ({"restore": "recompute"}, "restore"),
    ],
)
def test_knobs_that_contradict_or_change_nothing_are_refused(knobs, word):
    with pytest.raises(BadInput, match=f"adore.{word}"):
        Adore(knobs)


def test_only_the_learned_controller_needs_a_table():
    assert Adore({}).needs == "controller"
    assert all(Adore({"controller": name}).needs == "" for name in CHOOSERS[1:])
    with pytest.raises(BadInput, match="dse profile train"):
        Adore({"cache": 8, "recent": 2, "sinks": 1}).start(Text().prompt())
    with pytest.raises(TypeError):
        Adore({}).prepare([1.0])
