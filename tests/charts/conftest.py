"""A front made by pen, with every kind of point a chart must cope with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

DENSE = [
    (16, -0.00004, 0.75),
    (12, -0.0001, 1.0),
    (10, 0.0002, 1.2),
    (8, 0.0025, 1.5),
    (6, 0.045, 2.0),
    (4, 1.4, 3.0),
]
TOKEN_PICKER = [
    (1e-4, 0.0005, 1.4),
    (1e-3, 0.0033, 2.0),
    (3e-3, 0.0095, 2.4),
    (1e-2, 0.04, 3.2),
    (9e-3, 0.05, 2.2),
]
SPATTEN = [(0.9, 0.008, 0.9), (0.5, 0.13, 1.4), (0.25, 0.23, 1.7)]


def made_front(scale: float = 1.0) -> pd.DataFrame:
    """Rows as in `front.csv`; `scale` multiplies the sparse algorithms' speedups."""
    rows: list[dict[str, object]] = []
    for bits, loss, speedup in DENSE:
        rows.append({"algorithm": "dense", "nll_increase": loss, "speedup": speedup, "dense.k_bits": bits,
                     "dense.v_bits": bits})  # fmt: skip
    for threshold, loss, speedup in TOKEN_PICKER:
        rows.append({"algorithm": "token-picker", "nll_increase": loss, "speedup": scale * speedup,
                     "token-picker.threshold": threshold, "token-picker.chunks": "4+4+4"})  # fmt: skip
    for keep, loss, speedup in SPATTEN:
        rows.append({"algorithm": "spatten", "nll_increase": loss, "speedup": scale * speedup,
                     "spatten.keep": keep})  # fmt: skip
    points = pd.DataFrame(rows)
    half = 0.0005 + 0.1 * points["nll_increase"].abs()
    points["nll_increase_low"] = points["nll_increase"] - half
    points["nll_increase_high"] = points["nll_increase"] + half
    points["energy_j"] = 1e-5 / points["speedup"]
    points["area_mm2"] = np.linspace(4, 9, len(points))
    points["speedup_end_to_end"] = 1 / (0.88 + 0.12 / points["speedup"])
    points["attention_share"] = 0.12
    points["bound"] = "fetch K"
    points["hardware.lanes"] = 16
    losses, speedups = points["nll_increase"].to_numpy(), points["speedup"].to_numpy()
    points["on_front"] = [
        not ((losses <= loss) & (speedups >= speedup) & ((losses < loss) | (speedups > speedup))).any()
        for loss, speedup in zip(losses, speedups, strict=True)
    ]
    points.insert(0, "point", [f"{i:08x}" for i in range(len(points))])
    return points


@pytest.fixture
def front() -> pd.DataFrame:
    return made_front()
