"""The command line: `dse`. Each command parses, calls the library, prints, and holds nothing else.

Only click is imported until a command is known, so that `dse --help` feels instant.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dse.cli.signals import asked_to_end

if TYPE_CHECKING:
    from dse.cli.environment import Environment

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, environment: Environment | None = None) -> int:
    """Run one command and return its exit code, see `dse.cli.app.main`.

    Without arguments it is the whole of this process.
    """
    try:
        with asked_to_end(for_good=arguments is None) as asked:
            try:
                from dse.cli.app import main as run

                return run(arguments, environment, asked)
            except (
                KeyboardInterrupt,
                Exception,
            ) as error:  # while modules are loaded, or the last line is said
                if not (asked.word or isinstance(error, KeyboardInterrupt)):
                    raise
                sys.stderr.write(f"error: {asked.word or 'interrupted'}\n")
                return 130
    except KeyboardInterrupt:  # all was said and done
        return 130
