from __future__ import annotations

import numpy as np
import pytest

from dse.report.content import Part
from dse.report.sample import SETTING, sample


def test_a_sample_of_everything_is_the_space_and_holds_the_front(part: Part) -> None:
    assert part.space is not None
    info, front = part.run.info, part.run.front
    found = sample(part.run, part.space, 10**6)
    assert found.priced == found.total == info["points"]
    assert len(found.points) == info["points"] - info["infeasible"]
    # Every stored point is among them, with the very same price.
    shared = [c for c in front.columns if c in found.points and c not in ("accuracy", "speedup_best_dense")]
    keys = [c for c in shared if "." in c]
    mine = {tuple(map(str, row)): i for i, row in enumerate(found.points[keys].itertuples(index=False))}
    for _, row in front.iterrows():
        twin = found.points.iloc[mine[tuple(str(_as(found.points[c], row[c])) for c in keys)]]
        for name in ("latency_s", "energy_j", "area_mm2", "speedup", "nll_increase"):
            assert twin[name] == pytest.approx(row[name], rel=1e-12)
        assert twin["bound"] == row["bound"]


def _as(column: object, value: object) -> object:
    """A value of front.csv as the sample's column would hold it."""
    kind = column.dtype  # type: ignore[attr-defined]
    return kind.type(value) if kind.kind in "iuf" else value


def test_a_sample_is_random_and_the_same_each_time(part: Part) -> None:
    assert part.space is not None
    a, b, c = (sample(part.run, part.space, 40, seed) for seed in (0, 0, 1))
    assert a.priced == 40 < a.total
    assert a.points.equals(b.points)
    assert not a.points.equals(c.points)
    assert (a.points["nll_increase"] <= part.space.constraints["nll_increase"].high).all()


def test_settings_are_numbered_over_all_algorithms(part: Part) -> None:
    assert part.space is not None
    points = sample(part.run, part.space, 10**6).points
    knobs = [c for c in points if "." in c and not c.startswith("hardware.")] + ["algorithm", "nll_increase"]
    assert (points.groupby(SETTING)[knobs].nunique(dropna=False) == 1).all(axis=None)
    assert points[SETTING].nunique() == len(points[["algorithm", *knobs]].astype(str).drop_duplicates())
    assert np.issubdtype(points[SETTING].dtype, np.integer)
