"""Every hardware axis: its unit, range and meaning, and the strict reading of values users write.

The machine these describe: a stream of keys and values from DRAM through two buffers into `lanes`, each a row
of multipliers with an adder tree, beside exponent units, a selection engine and small per-lane logic. Engines
that a knob setting never uses cost it nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dse.errors import BadInput, nearest
from dse.hardware.units import meant

HardwareValue = int | float | str

DRAM_KINDS: Final = ("hbm2", "hbm2-legacy", "hbm2e", "hbm3", "gddr6", "ddr4", "lpddr4", "lpddr5")
LAYOUTS: Final = ("planes", "token-major")
NODE_RULES: Final = ("published-pair", "stillmaker")
ROW_BUSES: Final = ("shared", "free")
SOFTMAXES: Final = ("streamed", "row")
RESIDENCES: Final = ("dram", "buffers")


@dataclass(frozen=True)
class Parameter:
    """One hardware axis.

    Attributes:
        name: what users write under ``[hardware]``.
        unit: unit of the value, empty for counts and choices.
        kind: ``int``, ``float`` or ``choice``.
        description: one sentence for ``dse list hardware``.
        low, high: inclusive range of a number.
        choices: valid values of a choice.
        power_of_two: whether only powers of two are valid.
        zero_means: what the value 0 stands for, where 0 is below `low` and still valid.
        default: value of a design that does not name it; None where every design must.
    """

    name: str
    unit: str
    kind: Literal["int", "float", "choice"]
    description: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    power_of_two: bool = False
    zero_means: str = ""
    default: HardwareValue | None = None

    @property
    def valid(self) -> str:
        """The valid values, in words."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        shape = (
            "a power of two" if self.power_of_two else ("an integer" if self.kind == "int" else "a number")
        )
        unit = f" {self.unit}" if self.unit else ""
        zero = f", or 0 for {self.zero_means}" if self.zero_means else ""
        return f"{shape} from {self.low:g} to {self.high:g}{unit}{zero}"


def _table(*parameters: Parameter) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in parameters}


PARAMETERS: Final[Mapping[str, Parameter]] = _table(
    Parameter("lanes", "", "int", "multiplier rows that take one token each", 1, 4096),
    Parameter("multipliers", "per lane", "int", "multipliers and adder-tree inputs of one lane", 1, 4096),
    Parameter(
        "multiplier_bits",
        "bit",
        "int",
        "width of a multiplier on the key (or value) side; wider operands take several passes",
        1,
        16,
    ),
    Parameter(
        "operand_bits",
        "bit",
        "int",
        "width of a multiplier on the query (or probability) side; wider operands take several passes",
        1,
        16,
    ),
    Parameter(
        "value_lanes",
        "",
        "int",
        "lanes of a second array that only multiplies probabilities with values",
        1,
        4096,
        zero_means="one array that does both",
    ),
    Parameter(
        "clock_ghz",
        "GHz",
        "float",
        "clock of all on-chip logic; beyond the node's nominal one (1 GHz at 40 nm) energy and area grow with it",
        0.01,
        5.0,
    ),
    Parameter("node_nm", "nm", "float", "technology node of logic and SRAM", 7, 65),
    Parameter("node_rule", "", "choice", "how arithmetic energy follows the node", choices=NODE_RULES),
    Parameter(
        "overhead_pj_per_op",
        "pJ",
        "float",
        "clock, control and wires of a multiply-add pass of 8 x 8 bits at 45 nm; follows widths and node",
        0,
        100,
    ),
    Parameter("key_buffer_kib", "KiB", "float", "key buffer of each head in flight", 1, 65536),
    Parameter("value_buffer_kib", "KiB", "float", "value buffer of each head in flight", 1, 65536),
    Parameter(
        "heads_in_flight",
        "",
        "int",
        "KV heads whose phases overlap; each has its own key and value buffer",
        1,
        64,
    ),
    Parameter("dram", "", "choice", "memory device", choices=DRAM_KINDS),
    Parameter("dram_channels", "", "int", "memory channels", 1, 64, power_of_two=True),
    Parameter(
        "dram_channel_gbps",
        "GB/s",
        "float",
        "peak bandwidth of one channel",
        0.1,
        200,
        zero_means="the device's own",
    ),
    Parameter(
        "memory_gib",
        "GiB",
        "float",
        "capacity of all channels together: limits the sequences whose keys and values fit beside the weights",
        1e-6,
        1e6,
        zero_means="the device's own, per channel",
        default=0.0,
    ),
    Parameter("layout", "", "choice", "where the bit chunks of a key lie in memory", choices=LAYOUTS),
    Parameter(
        "row_bus",
        "",
        "choice",
        "whether activate and precharge commands share one row-command bus per HBM channel, or are free",
        choices=ROW_BUSES,
    ),
    Parameter("outstanding_requests", "atoms", "int", "memory reads in flight, all channels", 1, 65536),
    Parameter(
        "fetch_ports",
        "",
        "int",
        "requesters that a crossbar with queues of addresses and data connects to the memory channels",
        1,
        1024,
        zero_means="no crossbar: a machine that only streams",
        default=0,
    ),
    Parameter(
        "scoreboard_entries",
        "per lane",
        "int",
        "tokens a lane can hold while their next chunk is on its way",
        1,
        4096,
    ),
    Parameter("exponent_units", "", "int", "exponentials (and divisions) started per cycle", 1, 4096),
    Parameter("select_comparators", "", "int", "elements a selection engine partitions per cycle", 1, 1024),
    Parameter("accumulators", "", "int", "importance scores accumulated per cycle", 1, 4096),
    Parameter(
        "search_engines", "", "int", "greedy candidate searches that advance one step per cycle", 1, 256
    ),
    Parameter(
        "row_overhead_cycles",
        "cycles",
        "int",
        "cycles every query row takes in each stage beyond its products (filling a tree, a division); the last stage "
        "takes no other row meanwhile",
        1,
        1000,
        zero_means="none but row_drain_cycles where a row must be complete",
        default=0,
    ),
    Parameter(
        "softmax",
        "",
        "choice",
        "whether exponents and p x v follow each score (running maximum), or begin when a row is complete",
        choices=SOFTMAXES,
        default="streamed",
    ),
    Parameter(
        "residence",
        "",
        "choice",
        "whether keys and values come from memory, or already lie in the buffers where they fit",
        choices=RESIDENCES,
        default="dram",
    ),
    Parameter(
        "slow_gbps", "GB/s", "float", "link to the slow memory that evicted tokens return from", 0.1, 1000
    ),
)


def check_value(where: str, name: str, value: object) -> HardwareValue:
    """Validate one value of one axis.

    Args:
        where: file or other origin, leads the message.
        name: the axis as the user wrote it.
        value: what the user wrote.

    Returns:
        The value, an `int` widened to `float` for float axes.

    Raises:
        BadInput: unknown axis, wrong type, or value outside the range.
    """
    parameter = PARAMETERS.get(name)
    if parameter is None:
        raise BadInput(f"{where}: {name}: no such hardware parameter; {nearest(name, PARAMETERS)}")
    hint = ""
    if parameter.unit and isinstance(value, int | float):
        hint = meant(parameter.unit, value, parameter.low, parameter.high)
    bad = BadInput(f"{where}: {name}: found {value!r}; must be {parameter.valid}{hint}")
    if parameter.kind == "choice":
        if isinstance(value, str) and value in parameter.choices:
            return value
        if isinstance(value, str):
            raise BadInput(f"{bad}; {nearest(value, parameter.choices)}")
        raise bad
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad
    if parameter.zero_means and value == 0:
        return 0 if parameter.kind == "int" else 0.0
    if not parameter.low <= value <= parameter.high:  # also refuses NaN
        raise bad
    if parameter.kind == "float":
        return float(value)
    if value != int(value):
        raise bad
    if parameter.power_of_two and int(value) & (int(value) - 1):
        raise bad
    return int(value)


def check_design(where: str, design: Mapping[str, object]) -> dict[str, HardwareValue]:
    """Validate a complete design: every axis present, known and in range; defaults are filled in.

    Raises:
        BadInput: as `check_value`, or an axis without default is missing.
    """
    checked = {name: check_value(where, name, value) for name, value in design.items()}
    checked = {**{n: p.default for n, p in PARAMETERS.items() if p.default is not None}, **checked}
    missing = [name for name in PARAMETERS if name not in checked]
    if missing:
        raise BadInput(f"{where}: {missing[0]}: missing; must be {PARAMETERS[missing[0]].valid}")
    return checked
