"""`dse completion`: the script that makes a shell complete commands, options, and real names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from dse.cli.environment import Environment
from dse.cli.options import common

VARIABLE: Final = "_DSE_COMPLETE"
"""What the script sets when it asks for completions."""

_WHERE: Final = {
    "bash": 'eval "$(dse completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(dse completion zsh)"   in ~/.zshrc, after compinit',
    "fish": "dse completion fish > ~/.config/fish/completions/dse.fish",
}


@click.command(name="completion")
@click.argument("shell", type=click.Choice(list(_WHERE)))
@common("debug")
@click.pass_obj
def command(environment: Environment, shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish.

    \b
        eval "$(dse completion bash)"                               in ~/.bashrc
        eval "$(dse completion zsh)"                                in ~/.zshrc, after compinit
        dse completion fish > ~/.config/fish/completions/dse.fish
    """
    from click.shell_completion import get_completion_class

    from dse.cli.app import group

    kind = get_completion_class(shell)
    assert kind is not None
    maker = kind(group, {}, "dse", VARIABLE)
    # The script itself needs no shell here; click's bash class would look for one to check its version.
    environment.print(maker.source_template % maker.source_vars())


def spaces(incomplete: str) -> list[str]:
    """Shipped spaces."""
    from dse.space import shipped_spaces

    return list(shipped_spaces())


def run_directories(incomplete: str) -> list[str]:
    """Directories that hold a run: here, below results/, and below what is typed already."""
    typed = Path(incomplete if incomplete.endswith("/") else os.path.dirname(incomplete) or ".")
    places = [typed, *sorted(typed.glob("*/"))] if typed.is_dir() else []
    if not incomplete:
        places += [Path("results"), *sorted(Path("results").glob("*/"))]
    found = [str(p.parent) for place in places for p in (*place.glob("run.json"), *place.glob("*/run.json"))]
    return sorted(name for name in set(found) - {"."} if name.isprintable())


def profiles(incomplete: str) -> list[str]:
    """Shipped profiles."""
    from dse.profiles.store import shipped_profiles

    return list(shipped_profiles())


def presets(incomplete: str) -> list[str]:
    """Named machines."""
    from dse.hardware.presets import preset_names

    return list(preset_names())


def metrics(incomplete: str) -> list[str]:
    """Metrics, and hardware parameters by their columns."""
    from dse.hardware.parameters import PARAMETERS
    from dse.space.names import METRICS

    return [*METRICS, *(f"hardware.{name}" for name in PARAMETERS)]


def systems(incomplete: str) -> list[str]:
    """Systems with published numbers."""
    from dse.validation import SYSTEMS

    return list(SYSTEMS)


def algorithms(incomplete: str) -> list[str]:
    """Algorithms that are installed."""
    from dse.algorithms import registry

    return list(registry())


def styles(incomplete: str) -> list[str]:
    """Styles of charts."""
    from dse.charts.style import STYLES

    return list(STYLES)


def keys(incomplete: str) -> list[str]:
    """What `--set` and `--over` take, up to the equals sign."""
    from dse.hardware.parameters import PARAMETERS

    workload = ("profile", "phase", "context", "batch", "grouped")
    return [f"workload.{name}=" for name in workload] + [f"hardware.{name}=" for name in PARAMETERS]


Source = Callable[[str], Sequence[str]]

_ANYWHERE: Final[dict[str, tuple[Source, ...]]] = {
    # name of a parameter -> what completes it, in every command
    "x": (metrics,), "y": (metrics,), "colour": (metrics,), "size": (metrics,), "sort": (metrics,),
    "columns": (metrics,), "overrides": (keys,), "over": (keys,), "algorithm": (algorithms,),
    "algorithms": (algorithms,), "look": (styles,), "space": (spaces,), "systems": (systems,),
    "runs": (run_directories,), "run": (run_directories,), "a": (run_directories,), "b": (run_directories,),
}  # fmt: skip
_IN: Final[dict[tuple[str, str], tuple[Source, ...]]] = {
    ("plot", "runs"): (run_directories, spaces, profiles),
    ("explain", "run"): (run_directories, spaces, presets),
}
_FILES: Final = frozenset({"runs", "run", "a", "b", "space"})
"""Parameters that may also be a path."""


def attach(wanted: click.Command) -> click.Command:
    """Give the parameters of a command, and of its sub-commands, their completions. Returns the command."""
    for parameter in wanted.params:
        sources = _IN.get((wanted.name or "", parameter.name or ""), _ANYWHERE.get(parameter.name or "", ()))
        if sources:
            parameter._custom_shell_complete = _completer(sources, parameter.name in _FILES)
    if isinstance(wanted, click.Group):
        for child in wanted.commands.values():
            attach(child)
    return wanted


def _completer(sources: Sequence[Source], files: bool) -> Any:
    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = (
            incomplete.rpartition(",") if parameter.name == "columns" else ("", "", incomplete)
        )
        names = dict.fromkeys(name for source in sources for name in source(last))
        found = [CompletionItem(f"{before}{comma}{name}") for name in names if name.startswith(last)]
        if files and (not found or "/" in incomplete):
            found.append(CompletionItem(incomplete, type="file"))
        return found

    return complete
