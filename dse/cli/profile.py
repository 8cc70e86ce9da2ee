"""`dse profile`: run a language model with an algorithm in place of its attention, and record a profile."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import PLACE
from dse.cli.profile_merge import merge
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
    new_file,
    scales_option,
    seed_option,
    setting_progress,
    text_option,
    typed_command,
)
from dse.cli.profile_probe import probe
from dse.cli.profile_show import show
from dse.cli.train import train


@click.group()
def command() -> None:
    """Run a language model and measure a profile (needs the `lm` extra and the model's weights)."""


for _one in (show, train, merge, probe):
    command.add_command(_one)


@command.command()
@model_option
@backend_option
@click.option("--name", help="Name of the profile.  [default: the model's]")
@grid_option
@algorithm_option
@knobs_option
@click.option(
    "--context", "contexts", multiple=True, type=click.IntRange(64, 8192), default=(1024,), show_default=True
)
@click.option(
    "--windows", type=click.IntRange(1, 256), default=16, show_default=True, help="Windows per context."
)
@click.option(
    "--phase",
    type=click.Choice(["decode", "prefill"]),
    default="decode",
    show_default=True,
    help="decode: dense prompt, then the algorithm; prefill: a prompt through the algorithm.",
)
@text_option
@click.option(
    "--part",
    type=click.Choice(["selection", "confirmation"]),
    default="selection",
    show_default=True,
    help="Which part of the text the windows come from.",
)
@scales_option
@controller_option
@click.option("-o", "--output", type=PLACE, required=True, help="Folder for shards and profile.")
@click.option("--pack-only", is_flag=True, help="Measure nothing; pack the shards that are there.")
@seed_option
@common("plugin", "jobs", "json", "quiet", "debug")
@click.pass_obj
def run(
    environment: Environment,
    model: str,
    backend: str,
    name: str | None,
    grid: str | None,
    algorithm: str | None,
    knobs: tuple[str, ...],
    contexts: tuple[int, ...],
    windows: int,
    phase: str,
    text: str,
    part: str,
    scales: Path | None,
    controller: Path | None,
    output: Path,
    pack_only: bool,
    seed: int,
    jobs: int,
) -> None:
    """Measure accuracy and access statistics of every setting; continue where an earlier run stopped."""
    need_lm()
    settings = chosen_settings(grid, algorithm, knobs, model, phase)
    from dse.errors import BadInput
    from dse.measure.job import Job, quiet_workers, shipped_scales
    from dse.measure.replace import check_replaceable
    from dse.measure.run import SHARDS, measure, pack
    from dse.profiles.profile import rounded
    from dse.profiles.store import write_profile

    if jobs > 1:
        quiet_workers()
    name = name or _name(model, text, part, phase)
    if Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise BadInput(f"--name {name}: is no name of a file; letters, digits, - and _ would be right")
    job = Job(
        model=model,
        name=name,
        settings=tuple(settings),
        contexts=tuple(sorted(set(contexts))),
        count=windows,
        part=part,
        seed=seed,
        scales=scales or shipped_scales(model),
        output=output,
        phase=phase,
        text=text,
        backend=backend,
        given={} if controller is None else {"controller": controller},
        command=typed_command(),
    )
    notes: list[str] = []
    path = output / f"{job.name}.npz"
    with nullcontext() if pack_only else held(output / SHARDS, environment):
        there = check_replaceable(job, path, pack_only)
        with setting_progress(environment) as progress:
            profile = (
                pack(job, notes.append, there)
                if pack_only
                else measure(job, jobs, progress, notes.append, there)
            )
        for note in notes:
            environment.remark(note)
        profile = rounded(profile)  # counters to 12 bits: a far smaller file, errors below 0.02 %
        write_profile(path, profile)
    if environment.json:
        environment.print_json(
            {
                "profile": str(path),
                "settings": len(profile.settings),
                "checksum": profile.checksum,
                "contexts": contexts,
            }
        )
    else:
        environment.print(f"{path}: {len(profile.settings)} settings at context {list(profile.contexts)}")


def _name(model: str, text: str, part: str, phase: str) -> str:
    from dse.profiles.naming import TEXTS, ProfileName

    stem = Path(model).stem
    if text not in TEXTS:
        stem, text = f"{stem}-{Path(text).stem}", TEXTS[0]
    return str(ProfileName(stem, text, part, phase))


@command.command()
@model_option
@backend_option
@click.option("--context", type=click.IntRange(64, 8192), default=1024, show_default=True)
@click.option("--windows", type=click.IntRange(1, 64), default=4, show_default=True)
@text_option
@click.option("-o", "--output", type=PLACE, required=True, help="File to write (.npz).")
@seed_option
@common("json", "quiet", "debug")
@click.pass_obj
def calibrate(
    environment: Environment,
    model: str,
    backend: str,
    context: int,
    windows: int,
    text: str,
    output: Path,
    seed: int,
) -> None:
    """Fit static quantisation scales to the calibration part of a text."""
    need_lm()
    new_file(output)
    from dse.measure.calibrate import calibrate as fit
    from dse.measure.calibrate import save_scales
    from dse.measure.material import windows as draw
    from dse.measure.overlap import PASSAGES, joined
    from dse.models.load import load_model
    from dse.models.text import find_text

    source = find_text(text)
    loaded = load_model(model, backend)
    chosen = draw(source.tokens(loaded.tokenizer), "calibration", context, windows, seed)
    save_scales(output, {**fit(loaded, chosen), PASSAGES: joined(w.tokens for w in chosen)})
    if environment.json:
        environment.print_json({"scales": str(output), "windows": [[w.book, w.start] for w in chosen]})
    else:
        environment.print(
            f"{output}: scales of {loaded.shape.layers} layers from {windows} windows of {context}"
        )


@command.command()
@common("json", "quiet", "debug")
@click.pass_obj
def models(environment: Environment) -> None:
    """List known models, and the command that installs what is missing."""
    need_lm()
    from dse.models.catalog import KNOWN_MODELS

    rows = [
        {"name": m.name, "licence": m.licence, "installed": m.installed, "install": m.install}
        for m in KNOWN_MODELS
    ]
    if environment.json:
        environment.print_json(rows)
        return
    for row in rows:
        state = "installed" if row["installed"] else f"missing: {row['install']}"
        environment.print(f"{row['name']}  {row['licence']}  {state}")
