"""The same spaces searched with Optuna: a study asks for points one after the other instead of pricing all.

For evaluations that are dear (accuracy measured on the fly) and spaces too large to enumerate. `run.study` is the
Python interface, `dse study` the command.
"""

from __future__ import annotations
