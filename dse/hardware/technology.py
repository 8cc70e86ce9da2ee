"""How energy and area follow the technology node.

Two published views of energy disagree sevenfold at 7 nm, so the rule is a parameter:

- ``published-pair``: a power law through the operation tables published at 45 nm (Horowitz, ISSCC 2014) and
  7 nm (Jouppi et al., ISCA 2021, Table 2). Their geometric mean ratio is 2.9.
- ``stillmaker``: Stillmaker & Baas, Integration 58 (2017), at each node's nominal supply. Ratio 21.

Area always follows Stillmaker & Baas: no area of 7 nm arithmetic is published.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.hardware.parameters import NODE_RULES

FloatArray = NDArray[np.float64]

PAIR_EXPONENT: Final = 0.57
"""log(2.9) / log(45 / 7): arithmetic energy goes with node to this power under ``published-pair``."""


@lru_cache(maxsize=1)
def _nodes() -> tuple[FloatArray, FloatArray, FloatArray]:
    text = (files("dse.hardware") / "data" / "nodes.csv").read_text(encoding="utf-8")
    rows = sorted(
        (float(r["node_nm"]), float(r["energy_vs_45"]), float(r["area_vs_45"]))
        for r in csv.DictReader(text.splitlines())
    )
    table = np.asarray(rows)
    return np.log(table[:, 0]), np.log(table[:, 1]), np.log(table[:, 2])


def energy_scale(node_nm: ArrayLike, from_nm: float, rule: ArrayLike) -> FloatArray:
    """Energy of the same operation at `node_nm` over its energy at `from_nm`.

    Args:
        node_nm: target nodes in nm.
        from_nm: node at which the energy is known.
        rule: index into `NODE_RULES`, broadcast against `node_nm`.
    """
    log_node, log_energy, _ = _nodes()
    target = np.log(np.asarray(node_nm, dtype=np.float64))
    pair = np.exp(PAIR_EXPONENT * (target - np.log(from_nm)))
    still = np.exp(np.interp(target, log_node, log_energy) - np.interp(np.log(from_nm), log_node, log_energy))
    chosen = np.where(np.asarray(rule) == NODE_RULES.index("stillmaker"), still, pair)
    return np.asarray(chosen, dtype=np.float64)


def area_scale(node_nm: ArrayLike, from_nm: float) -> FloatArray:
    """Area of the same logic at `node_nm` over its area at `from_nm` (log-log between table nodes)."""
    log_node, _, log_area = _nodes()
    target = np.log(np.asarray(node_nm, dtype=np.float64))
    scale = np.exp(np.interp(target, log_node, log_area) - np.interp(np.log(from_nm), log_node, log_area))
    return np.asarray(scale, dtype=np.float64)
