"""What dense attention at a setting's own operand widths would cost."""

from __future__ import annotations

from collections.abc import Mapping

from dse.profiles.lookup import Resolution, Selection, Source, measured_rows, take
from dse.profiles.profile import Profile
from dse.profiles.schema import KnobValue
from dse.space.definition import DENSE


class DenseWidths:
    """The measured dense settings by operand width, other knobs at their defaults.

    They answer what dense attention at a point's own widths would cost; they need not be in the space.
    """

    def __init__(self, profile: Profile, context: int) -> None:
        rows = measured_rows(profile, DENSE, context) if DENSE in profile.algorithms else []
        others = {k: v for k, v in profile.defaults.get(DENSE, {}).items() if k not in ("k_bits", "v_bits")}
        usual = [r for r in rows if _agrees(profile.settings[r].knobs, others)]
        self.rows = usual or rows
        self.profile, self.context = profile, context

    def nearest(self, k_bits: int, v_bits: int) -> int:
        """The row of the narrowest setting at least this wide in K and V, else of the widest."""
        forms = {row: self.profile.settings[row].form for row in self.rows}
        wide = [row for row, f in forms.items() if f.k_bits >= k_bits and f.v_bits >= v_bits]

        def width(row: int) -> tuple[int, int, int]:
            return (forms[row].k_bits + forms[row].v_bits, forms[row].k_bits, row)

        return min(wide, key=width) if wide else max(self.rows, key=width)

    def take(self, rows: list[int]) -> Selection:
        """Profile rows by number."""
        sources = tuple(Source(self.profile.settings[row], (row,), (1.0,)) for row in rows)
        return take(Resolution(self.profile, DENSE, self.context, sources, 0))


def _agrees(knobs: Mapping[str, KnobValue], wanted: Mapping[str, KnobValue]) -> bool:
    return all(knobs.get(k) == v for k, v in wanted.items())
