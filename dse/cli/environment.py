"""What a command talks to: the two streams, and what is known about the terminal behind them.

Commands never touch `sys.stdout` themselves; tests hand in streams of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO, cast

from dse.errors import DseError

DEFAULT_COLUMNS = 100
"""Width of tables when nothing says how wide the reader's window is (a pipe, a file)."""


class StdoutLost(DseError):
    """What stdout leads to takes no more, such as a full disk behind `>`."""


class Stdout:
    """A stream whose failing says that it was stdout: an error of the system names no file there.

    A reader that has gone stays a `BrokenPipeError`. Everything else is the stream's own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _named():
            return self._stream.write(text)

    def flush(self) -> None:
        with _named():
            self._stream.flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StdoutLost(f"stdout: cannot be written: {reason}") from None


@dataclass
class Environment:
    """Streams and terminal facts.

    Attributes:
        columns: width tables may fill, in characters.
        colour: whether stdout takes colour (a terminal, and `NO_COLOR` not set).
        progress: whether stderr takes a moving progress bar (a terminal).
        quiet: drop progress and remarks; results and errors stay.
        json: stdout carries one JSON document, whatever else is said goes to stderr.
        debug: show the traceback of an error.
    """

    stdout: TextIO
    stderr: TextIO
    columns: int = DEFAULT_COLUMNS
    colour: bool = False
    progress: bool = False
    quiet: bool = False
    json: bool = False
    debug: bool = False

    def print(self, text: str = "") -> None:
        """The result, for reading: on stdout, or on stderr where stdout carries JSON."""
        if not self.json:
            self.stdout.write(text + "\n")
        elif not self.quiet:
            self.stderr.write(text + "\n")

    def print_json(self, value: object) -> None:
        """The result, for machines: strict JSON on stdout (no NaN; see `plain`)."""
        self.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def remark(self, text: str) -> None:
        """Something worth knowing that is not the result: on stderr, unless quiet."""
        if not self.quiet:
            self.stderr.write(text + "\n")

    def error(self, text: str) -> None:
        """One line on stderr, whatever `text` holds."""
        self.stderr.write("error: " + " ".join(text.split()) + "\n")

    def style(self, text: str, **style: Any) -> str:
        """`text` in colour where stdout takes it, else unchanged."""
        if not self.colour or self.json:
            return text
        import click

        return click.style(text, **style)

    @contextmanager
    def progress_bar(self, unit: str = "point") -> Iterator[Callable[[int, int], None]]:
        """A callback `(done, total)` that moves a bar with rate and time left on stderr.

        The bar shows only on a terminal, and leaves nothing behind.
        """
        if self.quiet or not self.progress:
            yield lambda done, total: None
            return
        from tqdm import tqdm

        bar: tqdm[Any] = tqdm(
            file=self.stderr,
            unit=f" {unit}s",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            mininterval=0.2,
        )

        def move(done: int, total: int) -> None:
            if bar.total != total:
                bar.total = total
                bar.refresh()
            bar.update(done - bar.n)

        try:
            yield move
        finally:
            bar.close()


def system_environment() -> Environment:
    """The real streams. `COLUMNS` and `NO_COLOR` are obeyed; what cannot be encoded becomes `?`."""
    if sys.stdout is None or sys.stderr is None:  # closed by the caller (`>&-`)
        nothing = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (lives as long as the process)
        sys.stdout, sys.stderr = sys.stdout or nothing, sys.stderr or nothing
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    terminal = sys.stdout.isatty()
    columns = DEFAULT_COLUMNS
    if terminal or os.environ.get("COLUMNS", "").isdigit():
        columns = shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns
    return Environment(
        stdout=cast(TextIO, Stdout(sys.stdout)),
        stderr=sys.stderr,
        columns=max(40, columns),
        colour=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        progress=sys.stderr.isatty(),
    )


def plain(value: Any) -> Any:
    """`value` as strict JSON can carry it: NumPy scalars and arrays unpacked, NaN and infinities `null`."""
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
