"""Operating points that papers print, on the axes that mean the same as theirs.

The numbers are those of `dse.validation`, where each is recomputed; here they are only marked. ADORE's gain is over
another machine's throughput, for which no column of a front stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dse.space.definition import Space

SAME: Final = "speedup_same_hardware"
"""Over dense attention on the same machine: compares whatever baseline a run has."""


@dataclass(frozen=True)
class Published:
    """An operating point that others printed.

    Attributes:
        algorithm: whose. values: metric -> number, in the units of `front.csv`.
        source: where it is printed.
        bits, base: dense attention of which width on which preset its ratios are over; or
        processor: which processor they are over.
    """

    algorithm: str
    values: Mapping[str, float]
    source: str
    bits: float = 0
    base: str = ""
    processor: str = ""

    def over(self, space: Space) -> dict[str, float]:
        """Those of its numbers that compare with a run of this space."""
        baseline = space.baseline
        if baseline.processor is not None:
            same = baseline.processor.name == self.processor
        else:
            widths = {baseline.knobs.get(name) for name in ("k_bits", "v_bits")}
            same = widths == {self.bits} and space.base == self.base
        return {name: value for name, value in self.values.items() if same or name == SAME}


_SPATTEN: Final = "Wang et al., HPCA 2021"
_A3: Final = "Ham et al., HPCA 2020, Fig. 14a"

OPERATING_POINTS: Final = (
    Published(
        "token-picker", {SAME: 2.28, "speedup": 2.28, "dram_reduction": 2.57, "energy_saving": 2.41},
        "Park et al., DAC 2024", 12, "topick",
    ),
    Published("spatten", {"dram_reduction": 10.0}, f"{_SPATTEN}, mean of 30 tasks", 32, "spatten"),
    Published(
        "spatten", {"speedup": 162.0, "energy_saving": 1193.0, "speedup_end_to_end": 35.0},
        f"{_SPATTEN}, over a TITAN Xp", processor="titan-xp",
    ),
    Published("a3", {SAME: 1.85}, f"{_A3}, BERT, conservative"),
    Published("a3", {SAME: 5.69}, f"{_A3}, BERT, aggressive"),
    Published("mnnfast", {SAME: 3.65}, "Jang et al., ISCA 2019, Fig. 9, one thread of a processor"),
    # All keys and a third of the value rows, keys and values of one width: 2 / (1 + 1/3).
    Published(
        "top-theta", {"dram_reduction": 1.5}, "Berestizshevsky et al., arXiv 2502.08363, 3x fewer value rows",
        12, "theta",
    ),
)  # fmt: skip


def operating_points(space: Space) -> list[Published]:
    """Published points of a space's algorithms, with the numbers that compare with its runs."""
    found = []
    for point in OPERATING_POINTS:
        values = point.over(space)
        if point.algorithm in space.algorithms and values:
            found.append(Published(point.algorithm, values, point.source))
    return found
