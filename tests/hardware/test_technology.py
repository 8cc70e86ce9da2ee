"""Node scaling and datapath constants against the published tables."""

from __future__ import annotations

import numpy as np
import pytest

from dse.errors import BadInput
from dse.hardware.components import COMPONENTS, components
from dse.hardware.datapath import Technology
from dse.hardware.parameters import NODE_RULES
from dse.hardware.technology import area_scale, energy_scale

PAIR, STILLMAKER = (NODE_RULES.index(name) for name in ("published-pair", "stillmaker"))


def at(node: float, rule: int = PAIR) -> Technology:
    return Technology(np.asarray(node), np.asarray(rule), components())


@pytest.mark.parametrize(
    ("bits", "picojoule", "within"), [(8, 0.2, 1e-6), (32, 3.1, 0.01), (12, 0.446, 0.01)]
)
def test_multiply_energy_at_45_nm(bits: int, picojoule: float, within: float) -> None:
    assert float(at(45).multiply_j(bits, bits)) == pytest.approx(picojoule * 1e-12, rel=within)


@pytest.mark.parametrize(("bits", "picojoule"), [(8, 0.03), (16, 0.05), (32, 0.1)])
def test_add_energy_at_45_nm(bits: int, picojoule: float) -> None:
    assert float(at(45).add_j(bits)) == pytest.approx(picojoule * 1e-12, rel=0.1)


def test_the_two_rules_disagree_as_published() -> None:
    pair, still = energy_scale(7, 45, PAIR), energy_scale(7, 45, STILLMAKER)
    assert 1 / pair == pytest.approx(2.9, rel=0.02)
    assert 1 / still == pytest.approx(21.3, rel=0.02)
    assert area_scale(65, 45) == pytest.approx(1.5)
    assert area_scale(7, 45) == pytest.approx(0.059)


@pytest.mark.parametrize("rule", [PAIR, STILLMAKER])
def test_smaller_nodes_never_cost_more(rule: int) -> None:
    nodes = np.linspace(7, 65, 200)
    assert (np.diff(energy_scale(nodes, 45, rule)) > 0).all()
    assert (np.diff(area_scale(nodes, 45)) > 0).all()
    assert energy_scale(45, 45, rule) == pytest.approx(1)


def test_a_9_bit_lane_is_near_the_published_one() -> None:
    """Ham et al., HPCA 2020, Table I: 0.224 pJ and 1531 um2 per 9-bit multiply-add at 40 nm."""
    t = at(40)
    assert float(t.multiply_j(9, 9) + t.add_j(24)) == pytest.approx(0.224e-12, rel=0.45)
    assert float(t.multiply_add_mm2(9, 9)) * 1e6 == pytest.approx(1531, rel=0.25)


def test_every_constant_is_documented_and_in_its_range() -> None:
    for name, row in COMPONENTS.items():
        assert row.name == name
        assert row.source
        assert row.confidence in {"high", "medium", "low"}
        assert row.low <= row.value <= row.high


def test_overrides_are_checked() -> None:
    assert components({"exponent_pj": 3})["exponent_pj"] == 3.0
    for bad in (
        {"exponent": 1.0},
        {"exponent_pj": -1.0},
        {"exponent_pj": float("nan")},
        {"exponent_pj": True},
    ):
        with pytest.raises(BadInput, match="exponent"):
            components(bad)
