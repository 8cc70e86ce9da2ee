"""The command group: finds a command's module when it is called, and turns every error into one line."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from typing import Any, Final, TextIO

import click

from dse.cli.environment import Environment, Stdout, StdoutLost, system_environment
from dse.cli.signals import Asked
from dse.errors import MOST, BadInput, DseError, ExitCode, nearest, one_line

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    # name: (module, what it does); each module's attribute `command` is the click command
    "sweep": ("dse.cli.sweep", "Evaluate a whole space and keep its front."),
    "study": ("dse.cli.study", "Search a space with Optuna, on one machine or many."),
    "front": ("dse.cli.front", "Print or export the front of a run (table, CSV, JSON)."),
    "explain": ("dse.cli.explain", "Say where the time, energy and area of one point go, and what binds it."),
    "plot": ("dse.cli.plot", "Draw charts of runs, spaces and profiles (PNG, SVG, PDF)."),
    "compare": ("dse.cli.compare", "Put the fronts of two runs side by side."),
    "report": ("dse.cli.report", "Make one self-contained interactive page of runs."),
    "profile": ("dse.cli.profile", "Run a language model and measure a profile."),
    "validate": ("dse.cli.validate", "Recompute published numbers and show them beside ours."),
    "list": ("dse.cli.list", "List what there is: spaces, algorithms, hardware, profiles, components."),
    "match": ("dse.cli.match", "Compare algorithms at equal accuracy, on text nothing was chosen on."),
    "check": ("dse.cli.check", "Check a space and say how large it is, without running it."),
    "completion": ("dse.cli.completion", "Print the script that completes names in bash, zsh or fish."),
}


OUTPUT: Final = ("-o", "--output")
"""What a name to write comes after."""


class Stopped(Exception):
    """Somebody asked the command to end; `click` would print an empty line first."""


class ReaderGone(Exception):
    """Whoever read our output has stopped; `click` would turn the broken pipe into exit code 1."""


class LazyGroup(click.Group):
    """A group whose commands are listed by name alone and imported when one is called."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error
        except KeyboardInterrupt as error:
            raise Stopped from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        if ctx.resilient_parsing and "_DSE_COMPLETE" in os.environ:
            from dse.cli.completion import attach

            return attach(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {name!r}; {nearest(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import dse

        click.echo(f"dse {dse.__version__}")
        ctx.exit()


@click.group(
    name="dse",
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def group(ctx: click.Context, debug: bool) -> None:
    """Explore the design space of sparse-attention accelerators.

    What an algorithm skips was measured in a real language model; what that is worth depends on the chip.
    Begin with `dse sweep`, which needs no arguments and takes seconds.
    """
    ctx.obj.debug |= debug
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None, environment: Environment | None, asked: Asked) -> int:
    """Run one command and return its exit code (`ExitCode`).

    Args:
        arguments: what follows `dse`; None: this process's.
        environment: streams to talk to; None: this process's.
        asked: who asked this process to end.
    """
    environment = environment or system_environment()
    code = int(ExitCode.FAILED)
    try:
        # Of workers that are let go before they are done.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"joblib\..*")
        with (
            _warnings_in_one_line(environment),
            redirect_stdout(environment.stdout),
            redirect_stderr(environment.stderr),
        ):
            code = _run(sys.argv[1:] if arguments is None else arguments, environment, asked)
        environment.stdout.flush()
        return int(code)
    except (BrokenPipeError, ReaderGone):
        _give_up(environment)
        return int(ExitCode.DONE)
    except StdoutLost as error:
        _give_up(environment)
        if code == ExitCode.DONE:
            _say(environment, str(error))
        return int(code or ExitCode.FAILED)


def _give_up(environment: Environment) -> None:
    """Nobody takes our output any more. Python flushes once more at exit: let it."""
    if isinstance(environment.stdout, Stdout):
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), environment.stdout.fileno())


def _say(environment: Environment, text: str) -> None:
    with suppress(OSError):  # stderr leads to the same full disk
        environment.error(one_line(text))


@contextmanager
def _warnings_in_one_line(environment: Environment) -> Iterator[None]:
    """What a library warns of is a remark: one line, without the place in its source."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        environment.remark(f"note: {one_line(str(message))}")

    if not environment.debug:
        warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _check_words(arguments: Sequence[str]) -> None:
    """Raise BadInput where an argument would move a terminal's cursor when it is repeated, or is no text at all.

    Of names of files more is taken: of one that is there, and of one to write.
    """
    for number, (before, argument) in enumerate(zip(("", *arguments), arguments, strict=False), 1):
        if not argument.isprintable() or len(argument) > MOST:
            from dse.cli.places import is_tame
            from dse.inputs import check_text

            to_write = before in OUTPUT or argument.startswith(("-o", "--output="))
            if is_tame(argument) and (to_write or os.path.lexists(argument)):
                continue
            check_text(argument, partial(_complain, number))


def _complain(number: int, message: str) -> BadInput:
    return BadInput(f"dse: argument {number}: {message}")


def _run(arguments: Sequence[str], environment: Environment, asked: Asked) -> int:
    environment.debug |= "--debug" in arguments  # also where reading the arguments fails
    try:
        _check_words(arguments)
        group.main(arguments, prog_name="dse", standalone_mode=False, obj=environment)
        return ExitCode.DONE
    except (BrokenPipeError, ReaderGone):
        raise
    except (click.Abort, KeyboardInterrupt, Stopped):
        return _interrupted(environment, asked)
    except click.ClickException as error:
        if environment.debug:
            traceback.print_exc(file=environment.stderr)
        _say(environment, _usage(error))
        return ExitCode.BAD_INPUT
    except Exception as error:
        if environment.debug:
            traceback.print_exc(file=environment.stderr)
        if asked.word:
            return _interrupted(environment, asked)
        code, text = _failure(error, environment.debug)
        _say(environment, text)
        return code


def _interrupted(environment: Environment, asked: Asked) -> int:
    _say(environment, asked.word or "interrupted")
    return ExitCode.INTERRUPTED


_USERS: Final = frozenset({
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
    errno.EROFS,
})  # fmt: skip
"""What a user's choice of place brings about."""


def _failure(error: Exception, debug: bool) -> tuple[int, str]:
    """The exit code of an error, and what to say about it."""
    if isinstance(error, DseError):
        return error.exit_code, str(error)
    if isinstance(error, OSError):
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        if error.errno == errno.ENOENT and not error.filename and not _has_place():
            return ExitCode.BAD_INPUT, "the working directory is gone; change to one that is there"
        code = ExitCode.BAD_INPUT if error.errno in _USERS else ExitCode.FAILED
        return code, f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, MemoryError):
        return ExitCode.FAILED, "out of memory; a smaller space or fewer --jobs need less"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ExitCode.FAILED, what if debug else f"{what} (add --debug to see where)"


def _has_place() -> bool:
    """Whether the directory that the command runs in is still there."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _usage(error: click.ClickException) -> str:
    """A usage error in the house style: command, what was found, what would be right."""
    context = getattr(error, "ctx", None)
    where = f"{context.command_path}: " if context is not None else ""
    if isinstance(error, click.NoSuchOption) and context is not None:
        known = [
            name for p in context.command.get_params(context) for name in p.opts if name.startswith("--")
        ]
        return f"{where}no option {error.option_name!r}; {nearest(error.option_name, known)}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        name = (
            error.param.opts[-1]
            if isinstance(error.param, click.Option)
            else (error.param.name or "").upper()
        )
        return f"{where}{name} is missing; see `{context.command_path if context else 'dse'} --help`"
    if isinstance(error, click.BadParameter) and error.param is not None:
        name = (
            error.param.opts[-1]
            if isinstance(error.param, click.Option)
            else (error.param.name or "").upper()
        )
        return f"{where}{name}: {error.message[:1].lower()}{error.message[1:]}"
    message = error.format_message()
    return f"{where}{message[:1].lower()}{message[1:]}"
