"""`Space`: what is explored, as values; its TOML form, its digest and its size."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dse.cost.workload import LARGEST, Workload
from dse.errors import BadInput
from dse.hardware.parameters import PARAMETERS, HardwareValue
from dse.hardware.processors import Processor
from dse.profiles.lookup import Resolution, Selection, resolve, select
from dse.profiles.profile import Profile
from dse.profiles.schema import KnobValue

SCHEMA = 1
"""Version of the space's TOML form."""

MOST = "max"
"""The batch that stands for the largest that fits in memory."""

QUERY_TILE = 64
"""Consecutive queries of a prompt that share a fetch, where a space does not say."""

DENSE = "dense"
"""The algorithm every other one is compared with."""

KnobAxes = Mapping[str, tuple[KnobValue, ...]]
HardwareAxes = Mapping[str, tuple[HardwareValue, ...]]


@dataclass(frozen=True)
class WorkloadSpec:
    """What is run.

    Attributes:
        profile: name or path.
        context: bucket of it. batch: sequences taken together, or `MOST`.
        grouped: whether query heads share the fetches of their KV head.
        scope: ``attention`` or the whole ``model``. query_tile: 1 in decode.
    """

    profile: str
    phase: str = "decode"
    context: int = 1024
    batch: int | str = 1
    grouped: bool = True
    profile_sha256: str = ""
    scope: str = "attention"
    query_tile: int = 1

    def priced(self) -> Workload:
        """As prices take it."""
        batch = LARGEST if isinstance(self.batch, str) else self.batch
        return Workload(self.phase, self.context, batch, self.scope, self.query_tile)

    def words(self) -> str:
        """What is run and priced, in words: `prefill in tiles of 64, context 1024, batch 8, attention alone`."""
        tiles = f" in tiles of {self.query_tile}" if self.phase == "prefill" else ""
        batch = "the largest batch that fits" if self.by_sequence else f"batch {self.batch}"
        scope = "whole model" if self.scope == "model" else "attention alone"
        return f"{self.phase}{tiles}, context {self.context}, {batch}, {scope}"

    @property
    def by_sequence(self) -> bool:
        """Whether each point takes the batch that fits it: steps differ in size, and speed is that of a sequence."""
        return self.batch == MOST

    def plain(self) -> dict[str, Any]:
        """The table ``[workload]``; keys that came later are left out where they say what always was."""
        table: dict[str, Any] = {
            "profile": self.profile,
            "profile_sha256": self.profile_sha256,
            "phase": self.phase,
            "context": self.context,
            "batch": self.batch,
            "grouped": self.grouped,
        }
        if self.scope != "attention":
            table["scope"] = self.scope
        if self.phase == "prefill":
            table["query_tile"] = self.query_tile
        return table


@dataclass(frozen=True)
class AlgorithmSpec:
    """Knob axes of one algorithm; `skip` drops combinations that were not measured."""

    knobs: KnobAxes
    skip: bool = False


@dataclass(frozen=True)
class Baseline:
    """The one point all speedups refer to: a knob setting on a complete design, or a processor.

    With a processor, `algorithm` is empty: it computes dense attention at its own operand width.
    """

    algorithm: str
    knobs: Mapping[str, KnobValue]
    hardware: Mapping[str, HardwareValue]
    processor: Processor | None = None

    @classmethod
    def on(cls, processor: Processor) -> Baseline:
        """A processor as the baseline."""
        return cls("", {}, {}, processor)

    def __str__(self) -> str:
        """``dense, 12-bit`` or ``titan-xp, 32-bit``; `dense, 8/12-bit` where K and V differ."""
        if self.processor is not None:
            return str(self.processor)
        widths = [f"{float(self.knobs[name]):g}" for name in ("k_bits", "v_bits") if name in self.knobs]
        return f"{self.algorithm}, {'/'.join(dict.fromkeys(widths))}-bit" if widths else self.algorithm

    def plain(self, usual: Collection[str] = ()) -> dict[str, Any]:
        """The table ``[baseline]`` in full: reading it needs neither a preset nor a processor's file.

        Args:
            usual: parameters that the space leaves at their defaults; where this design does too, it says nothing.
        """
        if self.processor is not None:
            return {"processor": self.processor.name, "parameters": self.processor.values}
        hardware = {k: v for k, v in self.hardware.items() if k not in usual or v != PARAMETERS[k].default}
        return {"algorithm": self.algorithm, **self.knobs, "hardware": hardware}


@dataclass(frozen=True)
class Limits:
    """Bounds of one metric, inclusive."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Space:
    """A resolved space: every knob and every hardware parameter has its values.

    Attributes:
        hardware: every parameter -> its values (one value: not swept).
        hardware_for: algorithm -> parameters whose values differ for it.
        objectives: metric -> True where it is maximised, in the order written (maximised ones first).
        reference: metric -> worst value the hypervolume counts from, where the user fixed one.
        components: component constants that replace the shipped ones.
        notes: what was filled in, one line each.
        overridden: whether ``--set`` changed the file.
        table: the profile, in prefill with fetches as its query tile shares them; None where a space was only read
            back, which then cannot be sized or swept.
    """

    name: str
    description: str
    workload: WorkloadSpec
    algorithms: Mapping[str, AlgorithmSpec]
    base: str
    hardware: HardwareAxes
    objectives: Mapping[str, bool]
    constraints: Mapping[str, Limits]
    baseline: Baseline
    hardware_for: Mapping[str, HardwareAxes] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)
    components: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    overridden: bool = False
    table: Profile | None = field(default=None, compare=False, repr=False)

    @property
    def profile(self) -> Profile:
        """The profile the space refers to."""
        if self.table is None:
            raise BadInput(f"space {self.name!r}: was read without its profile; load it with load_space")
        return self.table

    def axes(self, algorithm: str) -> dict[str, tuple[HardwareValue, ...]]:
        """Every hardware parameter -> its values for an algorithm."""
        return {**self.hardware, **self.hardware_for.get(algorithm, {})}

    def designs(self, algorithm: str) -> int:
        """Number of designs an algorithm is priced on."""
        return math.prod(len(v) for v in self.axes(algorithm).values())

    @cached_property
    def resolutions(self) -> dict[str, Resolution]:
        """Algorithm -> its knob settings with the profile rows each comes from."""
        return {
            name: resolve(
                self.profile, name, spec.knobs, self.workload.context, defaults={}, skip_unmeasured=spec.skip
            )
            for name, spec in self.algorithms.items()
        }

    def baseline_rows(self) -> Selection:
        """The baseline's profile row; a processor has none."""
        if self.baseline.processor is not None:
            raise BadInput(f"space {self.name!r}: its baseline is a processor, which has no profile row")
        knobs = {knob: [value] for knob, value in self.baseline.knobs.items()}
        return select(self.profile, self.baseline.algorithm, knobs, self.workload.context, defaults={})

    @cached_property
    def size(self) -> int:
        """Number of points."""
        return sum(len(r.sources) * self.designs(name) for name, r in self.resolutions.items())

    def digest(self) -> str:
        """SHA-256 of everything that decides the result; name, description and notes do not."""
        plain = self.plain()
        for key in ("name", "description"):
            plain.pop(key, None)
        plain["hardware"].pop("base")
        plain["baseline"].pop("processor", None)  # as with the base, its values decide
        plain["workload"].pop("profile")  # its checksum stands for it
        text = json.dumps(as_floats(plain), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """The space as the table that its TOML form holds; loading it gives an equal space."""
        objectives: dict[str, Any] = {
            "maximize": [m for m, up in self.objectives.items() if up],
            "minimize": [m for m, up in self.objectives.items() if not up],
        }
        if self.reference:
            objectives["reference"] = dict(self.reference)
        hardware: dict[str, Any] = {"base": self.base}
        # A parameter that is newer than a run and at its default is what that run knew.
        usual = [name for name, p in PARAMETERS.items() if self.hardware[name] == (p.default,)]
        hardware |= {name: _short(self.hardware[name]) for name in PARAMETERS if name not in usual}
        if self.hardware_for:
            hardware["for"] = {a: {k: _short(v) for k, v in x.items()} for a, x in self.hardware_for.items()}
        table: dict[str, Any] = {
            "schema": SCHEMA,
            "name": self.name,
            "description": self.description,
            "workload": self.workload.plain(),
            "algorithms": {
                name: {
                    **({"unmeasured": "skip"} if spec.skip else {}),
                    **{knob: list(values) for knob, values in spec.knobs.items()},
                }
                for name, spec in self.algorithms.items()
            },
            "hardware": hardware,
            "objectives": objectives,
            "constraints": {
                metric: {k: v for k, v in (("min", x.low), ("max", x.high)) if v is not None}
                for metric, x in self.constraints.items()
            },
            "baseline": self.baseline.plain(usual),
        }
        if self.components:
            table["components"] = dict(self.components)
        return table

    def to_toml(self) -> str:
        """The resolved space as TOML, its notes as comments on top."""
        import tomli_w

        return "".join(f"# {note}\n" for note in self.notes) + tomli_w.dumps(self.plain())

    def without_profile(self) -> Space:
        """The same space, its profile left out (small to send or keep)."""
        return replace(self, table=None)


def _short(values: tuple[HardwareValue, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def as_floats(value: Any) -> Any:
    """Numbers as floats, so that 12 and 12.0 have one digest."""
    if isinstance(value, dict):
        return {k: as_floats(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_floats(v) for v in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
