"""One published number beside ours, and what their agreement proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Proof = Literal["independent", "fitted", "identity"]

PROOFS: Final[dict[str, str]] = {
    "independent": "no constant of ours was set on this number, nor on one it follows from",
    "fitted": "a constant was set on this number, or on one so close to it that agreement proves little",
    "identity": "follows from its own inputs by arithmetic; shows that units and bookkeeping are right",
}
"""What agreement with a published number says about the model."""


@dataclass(frozen=True)
class Row:
    """One published number and ours.

    Attributes:
        system: whose number: the name of a module of `dse.validation`.
        quantity: what it is. unit: of both numbers, empty for ratios.
        published: the number, None where the source gives none (then ours is only shown).
        ours: recomputed through the cost model, presets and profiles of this package; None where something
            is not there, `assumed` then says what.
        tolerance: greatest error of agreement, None for numbers that are only shown.
        absolute: whether error and tolerance are differences instead of fractions of the published number.
        source: where the number is printed. assumed: everything the source leaves open and we chose.
        proves: one of `PROOFS`.
        reference: what the source's own formula gives, where it prints one.
    """

    system: str
    quantity: str
    published: float | None
    ours: float | None
    source: str
    assumed: str
    proves: Proof
    unit: str = ""
    tolerance: float | None = None
    absolute: bool = False
    reference: float | None = None

    @property
    def error(self) -> float | None:
        """Ours against the published number, signed; a fraction of it unless `absolute`."""
        if self.ours is None or self.published is None:
            return None
        if self.absolute:
            return self.ours - self.published
        return self.ours / self.published - 1.0 if self.published else None

    @property
    def within(self) -> bool | None:
        """Whether ours agrees; None for numbers that are only shown."""
        if self.tolerance is None:
            return None
        error = self.error
        # A number that should be there and is not does not agree. (Not "<=": NaN must not agree.)
        return error is not None and abs(error) <= self.tolerance + 1e-9

    @property
    def failed(self) -> bool:
        """Whether this row fails the command."""
        return self.proves == "independent" and self.within is False

    def as_dict(self) -> dict[str, object]:
        """The row for JSON."""
        return {
            "system": self.system, "quantity": self.quantity, "unit": self.unit, "published": self.published,
            "ours": self.ours, "reference": self.reference, "error": self.error,
            "error_is": "difference" if self.absolute else "fraction", "tolerance": self.tolerance,
            "within": self.within, "proves": self.proves, "source": self.source, "assumed": self.assumed,
        }  # fmt: skip


@dataclass(frozen=True)
class Tally:
    """How many rows there are of each kind, and how many agree.

    Attributes:
        independent, within: rows that can fail the command, and those of them inside their tolerance.
        fitted, identity: other rows with a tolerance; `*_within` of them agree.
        shown: rows without tolerance, of whatever kind.
    """

    independent: int
    within: int
    fitted: int
    fitted_within: int
    identity: int
    identity_within: int
    shown: int

    @property
    def text(self) -> str:
        """The closing line."""
        return (
            f"{self.independent} independent: {self.within} within tolerance; "
            f"{self.fitted} fitted: {self.fitted_within}; {self.identity} identity: {self.identity_within}; "
            f"{self.shown} shown without tolerance"
        )


def tally(rows: list[Row]) -> Tally:
    """Count rows."""

    def count(proves: str, agree: bool = False) -> int:
        return sum(r.proves == proves and r.within is not None and (r.within or not agree) for r in rows)

    return Tally(
        independent=count("independent"),
        within=count("independent", True),
        fitted=count("fitted"),
        fitted_within=count("fitted", True),
        identity=count("identity"),
        identity_within=count("identity", True),
        shown=sum(r.within is None for r in rows),
    )
