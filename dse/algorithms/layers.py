"""Knobs that differ from layer to layer, for any algorithm that keeps no state.

The knob ``layers`` lists exceptions: ``"0: threshold=1e-5; 1-3: threshold=1e-4, gate=true; 28-: threshold=0.01"``,
layers counted from 0, values as in TOML (a bare word is a string). Layers that are not named run as the other
knobs say.
"""

from __future__ import annotations

import re
import tomllib
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final

from dse.algorithms.contract import Algorithm, Attended, Call, Knob
from dse.errors import BadInput, nearest

LAYERS: Final = Knob("layers", "", "knobs of single layers, such as '0: threshold=1e-5; 1-3: threshold=1e-4'")

ENTRY: Final = re.compile(r"\s*(\d{1,6})(\s*-\s*(\d{0,6}))?\s*:(.+)", re.DOTALL)

LAST: Final = 1_000_000
"""Stands for the last layer, whichever it is."""

MAX_TEXT: Final = 10_000
MAX_VALUE: Final = 200
"""Most characters of the whole knob, and of one value in it."""


class Layered(Algorithm):
    """An algorithm whose knobs `layered` may differ by layer: it lists `LAYERS` and implements `attend_layer`."""

    layered: ClassVar[tuple[str, ...]]

    def __init__(self, knobs: Mapping[str, object] | None = None, where: str = "") -> None:
        super().__init__(knobs, where)
        where = f"{where or self.name}.layers"
        self.exceptions: list[tuple[range, Layered]] = []
        text = self.text("layers")
        if len(text) > MAX_TEXT:
            raise BadInput(f"{where}: a text of {len(text)} characters; at most {MAX_TEXT} are allowed")
        for part in filter(str.strip, text.split(";")):
            span, changed = self._parse(part, where)
            if any(span.start < other.stop and other.start < span.stop for other, _ in self.exceptions):
                raise BadInput(f"{where}: {part.strip()!r} names a layer that an earlier part names")
            variant = type(self)({**self.settings, "layers": "", **changed}, where)
            if variant.form() != self.form():
                raise BadInput(
                    f"{where}: {part.strip()!r}: operand widths and order must be those of all layers"
                )
            self.exceptions.append((span, variant))

    def _parse(self, part: str, where: str) -> tuple[range, dict[str, object]]:
        match = ENTRY.fullmatch(part)
        if match is None:
            raise BadInput(
                f"{where}: {part.strip()!r} is no 'LAYER: knob=value, ...', such as '0-1: {self.layered[0]}=...'"
            )
        first, dashed, last, assignments = match.groups()
        stop = int(first) if dashed is None else int(last) if last else LAST
        if stop < int(first):
            raise BadInput(f"{where}: {part.strip()!r}: layers go up, such as '{stop}-{first}'")
        changed: dict[str, object] = {}
        for assignment in assignments.split(","):
            name, sign, value = (piece.strip() for piece in assignment.partition("="))
            if name not in self.layered:
                raise BadInput(f"{where}: {name!r} does not differ by layer; {nearest(name, self.layered)}")
            if not (sign and value):
                raise BadInput(f"{where}: {name}: no value; write '{name}=...'")
            if len(value) > MAX_VALUE:
                raise BadInput(
                    f"{where}: {name}: a value of {len(value)} characters; at most {MAX_VALUE} are allowed"
                )
            try:
                changed[name] = tomllib.loads(f"x = {value}")["x"]
            except (tomllib.TOMLDecodeError, ValueError, RecursionError):
                changed[name] = value
        return range(int(first), stop + 1), changed

    def variant(self, layer: int) -> Layered:
        """This algorithm with the knobs of `layer`."""
        for span, variant in self.exceptions:
            if layer in span:
                return variant
        return self

    def attend(self, call: Call) -> Attended:
        for span, _ in self.exceptions:
            last = span.start if span.stop > LAST else span.stop - 1
            if last >= call.layers:
                raise BadInput(f"{self.name}.layers: there is no layer {last}; the model has {call.layers}")
        return self.variant(call.layer).attend_layer(call)

    @abstractmethod
    def attend_layer(self, call: Call) -> Attended:
        """`attend` of a layer whose knobs are this instance's."""
