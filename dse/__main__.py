"""`python -m dse`: the same as `dse`."""

from __future__ import annotations

import sys

from dse.cli import main

sys.exit(main())
