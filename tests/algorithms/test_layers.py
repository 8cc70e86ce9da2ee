"""Knobs that differ by layer: each layer runs as the algorithm with that layer's knobs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dse.algorithms import BUILT_IN, TopTheta, build
from dse.algorithms.layers import Layered
from dse.algorithms.thresholds import Thresholds
from dse.errors import BadInput

LAYERED = [cls for cls in BUILT_IN if issubclass(cls, Layered) and not cls.needs]
OTHER = {"threshold": 0.2, "together": 4, "search": 1.5, "post": 40.0, "skip": False, "budget": 32, "k": 3}
OTHER |= {"recent": 5, "sinks": 1, "margin": 0.2, "lag": 2, "recheck": True}


def text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("cls", LAYERED)
def test_every_layer_runs_with_its_own_knobs(cls, make_call):
    base = {"dense_layers": 0} if cls.name == "quest" else {}
    for knob in cls.layered:
        if OTHER[knob] == cls.defaults()[knob] or knob == "recheck":
            continue
        schedule = f"0: {knob}={text(OTHER[knob])}; 3-: {knob} = {text(OTHER[knob])}"
        mixed = build(cls.name, {**base, "layers": schedule})
        plain, other = build(cls.name, base), build(cls.name, {**base, knob: OTHER[knob]})
        for layer in range(4):
            call = make_call(40, layer=layer)
            want = (other if layer in (0, 3) else plain).attend(call)
            found = mixed.attend(call)
            assert (found.out == want.out).all()
            for name, total in want.work.items():
                np.testing.assert_array_equal(found.work[name], total)
            for mask, wanted in zip(
                [*found.k_masks, found.v_mask], [*want.k_masks, want.v_mask], strict=True
            ):
                assert (mask is None and wanted is None) or (mask == wanted).all()


def test_the_knob_changes_something(make_call):
    call = make_call(41, layer=0)
    plain = build("oracle-top-k", {"k": 9}).attend(call)
    mixed = build("oracle-top-k", {"k": 9, "layers": "0-1: k=2"}).attend(call)
    assert plain.v_mask.sum() == 4.5 * mixed.v_mask.sum()


def test_thresholds_follow_the_schedule(make_call):
    algorithm = TopTheta({"k": 8, "k0": 20, "layers": "1: k0=30; 3: k=5, vmc=false"})
    assert algorithm.aims(5) == (20, 30, 8, 5, 8)
    algorithm.prepare(Thresholds("post", (20, 30, 8, 5), np.array([40]), np.full((4, 2, 3, 1), 0.05)))
    for layer in range(4):
        assert algorithm.attend(make_call(42, layer=layer)).v_mask.any()
    call = make_call(42, layer=3)
    want = TopTheta({"k": 5, "vmc": False}, thresholds=algorithm.thresholds).attend(call)
    assert (algorithm.attend(call).out == want.out).all()
    wrong = TopTheta({"k": 8, "k0": 20, "layers": "3: k=6"}, thresholds=algorithm.thresholds)
    with pytest.raises(BadInput, match="wanted"):
        wrong.attend(call)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("threshold=1e-3", r"mnnfast\.layers: 'threshold=1e-3' is no 'LAYER: knob=value"),
        ("0: thresold=1e-3", r"'thresold' does not differ by layer; did you mean 'threshold'"),
        ("0: test=exp", "'test' does not differ by layer"),
        ("0: threshold", r"threshold: no value; write 'threshold=\.\.\.'"),
        ("0: threshold=a", r"mnnfast\.layers\.threshold: expected float, got 'a'"),
        ("0: threshold=7.0", r"mnnfast\.layers\.threshold: 7\.0 is outside"),
        ("0: threshold=" + "[" * 150, r"threshold: expected float, got '\[\["),
        ("0: threshold=" + "[" * 5000, "threshold: a value of 5000 characters; at most 200"),
        ("0: threshold=" + "9" * 5000, "threshold: a value of 5000 characters; at most 200"),
        ("9" * 5000 + ": threshold=0.1", "is no 'LAYER: knob=value"),
        ("0-" + "9" * 5000 + ": threshold=0.1", "is no 'LAYER: knob=value"),
        ("; ".join(f"{n}: threshold=0.1" for n in range(9000)), "a text of .* characters; at most 10000"),
        ("3-1: threshold=0.1", "layers go up, such as '1-3'"),
        (
            "0-2: threshold=0.1; 2: threshold=0.2",
            "'2: threshold=0.2' names a layer that an earlier part names",
        ),
    ],
)
def test_bad_schedules_are_named(layers, says):
    with pytest.raises(BadInput, match=says):
        build("mnnfast", {"layers": layers})


def test_a_variant_may_not_change_what_the_machine_sees():
    with pytest.raises(BadInput, match="must be those of all layers"):
        build("a3", {"fetch": "demand", "layers": "0: post=0.0"})


@pytest.mark.parametrize("layers", ["4: threshold=0.1", "2-4: threshold=0.1", "4-: threshold=0.1"])
def test_layers_the_model_lacks_are_refused(layers, make_call):
    algorithm = build("mnnfast", {"layers": layers})
    with pytest.raises(BadInput, match="there is no layer 4; the model has 4"):
        algorithm.attend(make_call(43))
    assert algorithm.attend(dataclasses.replace(make_call(43), layers=5)).out.any()
