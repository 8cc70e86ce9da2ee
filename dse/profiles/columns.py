"""Where each counter and each metric stands in a profile's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dse.profiles.schema import ACCURACY, counter_columns, tile_columns

FloatArray = npt.NDArray[np.floating[Any]]

COLUMN = {name: i for i, name in enumerate(counter_columns())}
"""Position of a counter in the last axis of `Profile.counters`."""

TILE_COLUMNS = [COLUMN[name] for name in tile_columns()]
"""Which counters `Profile.tile_counters` holds again for every query tile."""

ACCURACY_COLUMN = {name: i for i, name in enumerate(ACCURACY)}
"""Position of a metric in the last axis of `Profile.accuracy`."""
