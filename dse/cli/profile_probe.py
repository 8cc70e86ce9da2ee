"""`dse profile probe`: retrieval by depth and free-running agreement, which scoring given text does not show."""

from __future__ import annotations

from pathlib import Path

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import PLACE
from dse.cli.profile_options import (
    algorithm_option,
    backend_option,
    chosen_settings,
    controller_option,
    grid_option,
    held,
    knobs_option,
    model_option,
    need_lm,
    scales_option,
    seed_option,
    setting_progress,
    text_option,
    typed_command,
)


@click.command()
@model_option
@backend_option
@grid_option
@algorithm_option
@knobs_option
@click.option("--context", type=click.IntRange(128, 8192), default=1024, show_default=True)
@click.option(
    "--windows", type=click.IntRange(1, 64), default=8, show_default=True, help="Stretches of text used."
)
@click.option(
    "--depths", type=click.IntRange(2, 32), default=8, show_default=True, help="Questions per stretch."
)
@click.option(
    "--tokens",
    type=click.IntRange(1, 256),
    default=64,
    show_default=True,
    help="Tokens generated after each.",
)
@text_option
@scales_option
@controller_option
@click.option(
    "-o",
    "--output",
    type=PLACE,
    required=True,
    help="Table to write (.json); what it already holds is kept.",
)
@seed_option
@common("plugin", "jobs", "json", "quiet", "debug")
@click.pass_obj
def probe(
    environment: Environment,
    model: str,
    backend: str,
    grid: str | None,
    algorithm: str | None,
    knobs: tuple[str, ...],
    context: int,
    windows: int,
    depths: int,
    tokens: int,
    text: str,
    scales: Path | None,
    controller: Path | None,
    output: Path,
    seed: int,
    jobs: int,
) -> None:
    """Ask for facts read long ago, and compare freely written text with the dense model's; continue if stopped.

    `dse profile show --probes` prints the table.
    """
    need_lm()
    settings = chosen_settings(grid, algorithm, knobs, model)
    from dse.cli.probe_table import probe_table
    from dse.errors import BadInput
    from dse.measure.job import TABLES, Job, quiet_workers, shipped_scales
    from dse.measure.probe import Plan
    from dse.measure.probe import probe as measure

    if output.suffix != ".json":
        raise BadInput(f"{output}: must end in .json: probes are one table")
    if jobs > 1:
        quiet_workers()
    job = Job(
        model=model,
        name=Path(model).stem,
        settings=tuple(settings),
        contexts=(context,),
        count=windows,
        part="selection",
        seed=seed,
        scales=scales or shipped_scales(model),
        output=output.parent,
        text=text,
        backend=backend,
        given={} if controller is None else {"controller": controller},
        command=typed_command(),
    )
    with held(output.parent / TABLES, environment), setting_progress(environment) as progress:
        table = measure(Plan(job, depths, tokens), output, jobs, progress)
    if environment.json:
        environment.print_json({"probes": str(output), "settings": len(table.rows), "context": table.context})
    else:
        environment.print(probe_table(table, environment.columns))
