"""Seeds that sweeps and studies take."""

from __future__ import annotations

from typing import Final

MAX_SEED: Final = 2**32 - 1
"""Largest seed that everything that draws random numbers takes."""
