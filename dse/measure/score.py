"""Run one setting inside the model and record what it lost and what it touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dse.algorithms.contract import Algorithm
from dse.algorithms.quantize import Scales
from dse.measure.material import Window
from dse.measure.outcome import Score
from dse.measure.stateful import score_stateful
from dse.measure.stateless import score_stateless
from dse.models.protocol import Model


def score(
    model: Model,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    chosen: Sequence[Window],
    folders: Sequence[Path],
) -> Score:
    """Measure `algorithm` over `chosen`, whose dense passes lie in `folders`."""
    run = score_stateful if algorithm.stateful else score_stateless
    return run(model, algorithm, scales, chosen, folders)
