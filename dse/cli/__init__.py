"""The command line: `dse`. Each command parses, calls the library, prints, and holds nothing else.

Only click is imported until a command is known, so that `dse --help` feels instant.
"""

from __future__ import annotations

from dse.cli.app import main

__all__ = ["main"]
