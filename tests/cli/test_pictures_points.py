"""Charts of single points: what is drawn around a run's own streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dse.cli.pictures_points import _random_rows
from dse.results import read_run


def test_rows_at_random_are_read_on_the_machine_of_the_run(against_own: Path) -> None:
    run = read_run(against_own / "results/against")
    curves = _random_rows(run)
    assert list(curves) == ["hbm2, 12-bit rows kept at random"]
    (against_own / "sub/own.toml").unlink()
    assert _random_rows(run) == curves
    front = run.front.assign(**{"hardware.outstanding_requests": 2})
    slower = _random_rows(replace(run, front=front))
    for (_, own), (_, few) in zip(curves.values(), slower.values(), strict=True):
        assert all(a > b for a, b in zip(own, few, strict=True))


def test_rows_at_random_come_from_memory_wherever_the_run_keeps_its_own(against_own: Path) -> None:
    run = read_run(against_own / "results/against")
    inside = run.front.assign(**{"hardware.residence": "buffers", "hardware.value_buffer_kib": 60000.0})
    stored = run.front.assign(**{"hardware.value_buffer_kib": 60000.0})
    assert _random_rows(replace(run, front=inside)) == _random_rows(replace(run, front=stored))
