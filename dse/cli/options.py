"""The options that several commands share: defined once, spelt and explained the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from dse.cli.environment import Environment
from dse.cli.places import PLACE
from dse.errors import BadInput
from dse.search.seeds import MAX_SEED

F = TypeVar("F", bound=Callable[..., Any])

MAX_JOBS: Final = 1024
"""Most worker processes of one command; more machines share a scheduler."""


def _flag(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    """A callback that raises a flag of the environment instead of passing it to the command."""

    def raise_flag(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        environment = ctx.find_object(Environment)
        if value and environment is not None:
            setattr(environment, name, True)

    return raise_flag


def _load(ctx: click.Context, parameter: click.Parameter, paths: tuple[str, ...]) -> None:
    """Make the algorithms known before the command looks for one."""
    if paths and not ctx.resilient_parsing:
        from dse.algorithms import register

        for path in paths:
            register(path)


_OPTIONS: Final[dict[str, Callable[[F], F]]] = {
    "output": click.option(
        "-o",
        "--output",
        type=PLACE,
        metavar="DIR",
        help="Run directory to write.  [default: results/<space name>]",
    ),
    "style": click.option(
        "--style", "look", default="paper", show_default=True, metavar="NAME", help="paper, slide or dark."
    ),
    "chart": click.option(
        "-o",
        "--output",
        type=PLACE,
        metavar="FILE",
        help="Chart to write: .png, .svg or .pdf.",
    ),
    "set": click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one entry of the space: a dotted path and a TOML value. Repeatable.",
    ),
    "plugin": click.option(
        "--plugin",
        multiple=True,
        metavar="MODULE:CLASS",
        is_eager=True,
        expose_value=False,
        callback=_load,
        help="Import an algorithm of your own; it then goes by its name. Repeatable.",
    ),
    "jobs": click.option(
        "-j",
        "--jobs",
        type=click.IntRange(1, MAX_JOBS),
        default=1,
        show_default=True,
        metavar="N",
        help="Worker processes.",
    ),
    "engine": click.option(
        "--engine",
        default="loky",
        show_default=True,
        metavar="NAME",
        help="joblib backend that runs the workers.",
    ),
    "seed": click.option(
        "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, metavar="N", help="Seed."
    ),
    "fresh": click.option("--fresh", is_flag=True, help="Compute again even if the run is complete."),
    "json": click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_flag("json"),
        help="Machine-readable result on stdout, everything else on stderr.",
    ),
    "quiet": click.option(
        "-q",
        "--quiet",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_flag("quiet"),
        help="No progress and no remarks.",
    ),
    "debug": click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_flag("debug"),
        help="Show the traceback of an error.",
    ),
}


def common(*names: str) -> Callable[[F], F]:
    """Decorate a command with shared options, listed by `--help` in the order given."""

    def decorate(function: F) -> F:
        for name in reversed(names):
            function = _OPTIONS[name](function)
        return function

    return decorate


def refuse_unused(useless: Mapping[str, str], why: str) -> None:
    """Raise where an option was given that does nothing here.

    Args:
        useless: parameter of the running command -> how its option is spelt.
        why: ends the message: which options go together.

    Raises:
        click.UsageError: the first such option, and why.
    """
    context = click.get_current_context()
    for name, option in useless.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option}: has no effect here; {why}", context)


def check_once(option: str, values: Sequence[Any], what: str) -> None:
    """Raise BadInput where one of an option's values appears twice; `what` is what each of them names."""
    for value in values:
        if values.count(value) > 1:
            raise BadInput(f"{option}: {value!r} appears twice; name every {what} once")
