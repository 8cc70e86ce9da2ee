"""What a profile is called: ``model[-text][-part][-phase]``, the usual text, part and phase left out.

``smollm2-135m`` is prose, the part that sweeps choose on, in decode; ``smollm2-135m-confirmation`` the same on the
part kept for confirmation; ``smollm2-135m-code-prefill`` prompts of program text.
"""

from __future__ import annotations

from dataclasses import dataclass

from dse.errors import BadInput, nearest
from dse.profiles.profile import PHASES

TEXTS = ("prose", "technical", "code")
PARTS = ("selection", "confirmation", "calibration")
USUAL_PHASE = "decode"


@dataclass(frozen=True)
class ProfileName:
    """The parts of a profile's name; the defaults are what is left out of it.

    Attributes:
        model: may itself hold hyphens.
        text: what kind of text, of `TEXTS`; part: of `PARTS`; phase: of `PHASES`.
    """

    model: str
    text: str = TEXTS[0]
    part: str = PARTS[0]
    phase: str = USUAL_PHASE

    def __post_init__(self) -> None:
        for value, valid, what in (
            (self.text, TEXTS, "text"),
            (self.part, PARTS, "part"),
            (self.phase, PHASES, "phase"),
        ):
            if value not in valid:
                raise BadInput(f"profile name: {what} {value!r}; {nearest(value, valid)}")

    def __str__(self) -> str:
        words = [self.model]
        for value, usual in ((self.text, TEXTS[0]), (self.part, PARTS[0]), (self.phase, USUAL_PHASE)):
            if value != usual:
                words.append(value)
        return "-".join(words)

    @classmethod
    def parse(cls, name: str) -> ProfileName:
        """The parts of a name; every name has a reading, and `str` of it is the name in its usual form."""
        words = name.split("-")
        found = {}
        for key, valid in (("phase", PHASES), ("part", PARTS), ("text", TEXTS)):
            if len(words) > 1 and words[-1] in valid:
                found[key] = words.pop()
        return cls("-".join(words), **found)
