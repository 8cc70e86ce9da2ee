"""Mutated inputs: what a careless hand, a damaged disk or an attacker makes of a valid file."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dse.hardware.components import COMPONENTS, COUNTED, FACTOR, POWER_FACTOR
from dse.hardware.parameters import PARAMETERS

EVIL: list[str] = [
    "nan", "-inf", "+inf", "1e999", "-0.0", "5e-324", "1e308", "-1", "0", "1", "2", "true", "false", '""', '"\\u0000"',
    '"\\u001b[2J"', '"../../../etc/passwd"', '"/dev/zero"', '"."', '"~"', '"%s%n{0}"', '"__import__(\'os\')"', '"max"',
    '"all"', '"skip"', '"dense"', '"topick"', '"hbm2"', '"12"', '"4+4+4"', "[]", "{}", "[[]]", "[{}]", "[1, 1.0]",
    "[1, true]", '[1, "1"]', "[4, 8]", "[24, 48, 24]", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "0x7fffffffffffffff",
    "9223372036854775807", "-9223372036854775809", "9" * 400, "9" * 5000, "0x" + "f" * 3000, "1" + "_0" * 30, "1e-400",
    "{ log = [1e-320, 1e308], points = 9 }", "{ log = [-1, 1], points = 9 }", "{ linear = [1, 2], points = 1000000000 }",
    "{ linear = [-1e308, 1e308], points = 3 }", "{ range = [0, 1e308], step = 1e-300 }", "{ range = [1, 2], step = 0 }",
    "{ powers_of_two = [1, 4611686018427387904] }", "{ powers_of_two = [3, 5] }", "{ linear = [1, 4096], points = 9999 }",
    "{ min = 1, max = 0 }", "{ max = 1e-300 }", "{ max = 1e300 }", "{ value = 3 }", "[" * 50 + "]" * 50,
    "[" * 3000 + "]" * 3000, "{a=" * 40 + "1" + "}" * 40, ".".join("a" * 40), '"' + "x" * 5000 + '"', '"' + "é" * 150_000 + '"',
    "[" + "0, " * 20_000 + "]", "[" + ", ".join(map(str, range(1, 3000))) + "]", '"""\n' + "x = 1\n" * 50 + '"""', "1e9",
    "512e9", "0.045", "65536", "196608", "2e-13", "1 # = 2", "= 3", "'", '"', "\\", "\x00", "\ufeff", "\u2028", "\r",
]  # fmt: skip
"""Texts that stand where a value belongs."""

KEYS: list[str] = [
    "schema", "name", "description", "workload.profile", "workload.context", "workload.batch", "workload.phase",
    "workload.grouped", "workload.scope", "workload.query_tile", "workload.profile_sha256", "algorithms",
    "algorithms.dense.k_bits", "algorithms.dense.unmeasured", "algorithms.token-picker.threshold",
    "algorithms.token-picker.chunks", "algorithms.spatten.keep", "algorithms.nothing", "hardware", "hardware.base",
    "hardware.lanes", "hardware.clock_ghz", "hardware.dram", "hardware.dram_channels", "hardware.dram_channel_gbps",
    "hardware.key_buffer_kib", "hardware.memory_gib", "hardware.layout", "hardware.node_nm", "hardware.for.dense.lanes",
    "hardware.for.nothing.lanes", "hardware.for", "objectives.maximize", "objectives.minimize", "objectives.reference.speedup",
    "constraints.area_mm2", "constraints.area_mm2.max", "constraints.nll_increase.min", "constraints.latency_s",
    "baseline.algorithm", "baseline.processor", "baseline.k_bits", "baseline.hardware.lanes", "baseline.parameters.power_w",
    "components.multiply_8_pj", "components.dram_time_factor", "components.hbm2_bit_pj", "components.x", "__class__", "a.b.c",
    '"".""', "hardware.lanes.x",
]  # fmt: skip

PLAUSIBLE: list[tuple[str, str]] = [
    (key, value)
    for key, texts in {
        "hardware.lanes": ("1", "4096", "4097", "16.0", "[8, 64]", "{ powers_of_two = [1, 64] }", "{ range = [1, 9], step = 2 }"),
        "hardware.clock_ghz": ("0.01", "5", "1e9", "500", "{ log = [0.1, 4], points = 4 }", "{ linear = [1, 2], points = 3 }"),
        "hardware.dram_channel_gbps": ("0", "200", "512", "512e9", "128", "[16, 32]"),
        "hardware.key_buffer_kib": ("1", "65536", "196608", "1e-3"),
        "hardware.memory_gib": ("0", "1e-6", "1e6", "8589934592"),
        "hardware.dram": ('"hbm2"', '"hbm4"', '["ddr4", "lpddr5"]'),
        "hardware.dram_channels": ("1", "64", "3", "[2, 4]"),
        "hardware.node_nm": ("7", "65", "0.045", "4.5e-8"),
        "hardware.layout": ('"planes"', '["planes", "token-major"]'),
        "hardware.row_overhead_cycles": ("0", "1000"),
        "hardware.outstanding_requests": ("1", "65536"),
        "hardware.overhead_pj_per_op": ("0", "100"),
        "workload.batch": ("1", "64", "1000000", '"max"', "0"),
        "workload.scope": ('"model"', '"attention"'),
        "workload.grouped": ("false", "true"),
        "workload.context": ("1024", "512"),
        "workload.phase": ('"decode"', '"prefill"'),
        "algorithms.dense.k_bits": ("8", "[4, 5]", '"all"', "[4.5]", "3"),
        "algorithms.token-picker.threshold": ("5e-4", "{ log = [1e-4, 1e-2], points = 7 }", '"all"', "0.5"),
        "algorithms.token-picker.margin": ("0.75", "1", "[0.5, 1.0]"),
        "algorithms.spatten.keep": ("0.4", '"all"', "1.5"),
        "algorithms.spatten.unmeasured": ('"skip"', '"refuse"'),
        "constraints.area_mm2.max": ("20", "1e-9", "1e12"),
        "constraints.latency_s.max": ("1e-3", "1e-30"),
        "constraints.speedup.min": ("0", "1e9"),
        "objectives.minimize": ('["nll_increase", "energy_j"]', '["latency_s", "area_mm2", "kl_mean"]', '["speedup"]'),
        "baseline.k_bits": ("8", "5", "4.5"),
        "baseline.hardware.lanes": ("8", "[8, 9]"),
        "components.multiply_8_pj": ("0", "2e-5", "2000", "2e-13"),
        "components.dram_time_factor": ("0", "1e-4", "1e4"),
        "components.hbm2_channel_gib": ("0", "1e-3", "1e4"),
        "components.multiply_energy_power": ("0.2", "19"),
        "components.nominal_clock_ghz": ("1e-4", "1e4"),
    }.items()
    for value in texts
]  # fmt: skip
"""Keys with values that are right or nearly so: these reach what lies behind the reading."""

values = st.one_of(
    st.sampled_from(EVIL),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.text(max_size=30),
    st.text(max_size=12).map(lambda t: json.dumps(t)),
    st.lists(st.integers(-3, 70), max_size=6).map(str),
    st.lists(st.floats(0, 10), max_size=6).map(str),
)

_kinds = st.sampled_from(
    [
        *["plausible"] * 8, *["value"] * 3, "key", "drop", "double", "insert", "byte", "cut", "swap", "line", "digit",
    ]
)  # fmt: skip
_mutation = st.tuples(_kinds, st.integers(0, 10_000), st.integers(0, 10_000), values)
mutations = st.lists(_mutation, min_size=1, max_size=4)
overrides = st.lists(
    st.one_of(
        st.sampled_from(PLAUSIBLE).map("=".join),
        st.sampled_from(PLAUSIBLE).map("=".join),
        st.tuples(st.sampled_from(KEYS), values).map("=".join),
        st.tuples(st.text(max_size=20), values).map("".join),
    ),
    min_size=1,
    max_size=3,
)


def mutate(text: str, changes: list[tuple[str, int, int, str]]) -> bytes:
    """A text file after some changes: lines, keys and values first, bytes last."""
    lines = text.split("\n")
    raw: list[tuple[str, int, int]] = []
    for kind, a, b, value in changes:
        at = a % max(1, len(lines))
        line = lines[at] if lines else ""
        key, equals, _ = line.partition("=")
        if kind == "plausible":
            _place(lines, *PLAUSIBLE[a % len(PLAUSIBLE)])
        elif kind == "value" and equals:
            lines[at] = f"{key}= {value}"
        elif kind in ("value", "line"):
            lines.insert(at, f"{KEYS[b % len(KEYS)].rpartition('.')[2]} = {value}")
        elif kind == "key":
            lines[at] = line[: b % (len(line) + 1)] + value[:3] + line[b % (len(line) + 1) :]
        elif kind == "drop" and lines:
            del lines[at]
        elif kind == "double":
            lines.insert(b % (len(lines) + 1), line)
        elif kind == "insert":
            lines.insert(at, value)
        elif kind == "swap" and lines:
            other = b % len(lines)
            lines[at], lines[other] = lines[other], lines[at]
        else:
            raw.append((kind, a, b))
    content = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    return _bytes(content, raw)


def _place(lines: list[str], key: str, value: str) -> None:
    """Set a key in its section, which is added where there is none."""
    section, _, name = key.partition(".")
    if f"[{section}]" not in lines:
        lines.append(f"[{section}]")
    start = lines.index(f"[{section}]") + 1
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("[")), len(lines))
    for at in range(start, end):
        if lines[at].partition("=")[0].strip() == name:
            del lines[at]
            break
    lines.insert(start, f"{name} = {value}")


def damage(content: bytes, changes: list[tuple[str, int, int, str]]) -> bytes:
    """A binary file after bits flipped, parts cut out, doubled or overwritten."""
    return _bytes(bytearray(content), [(kind, a * 7919 + b, b) for kind, a, b, _ in changes])


def _bytes(content: bytearray, changes: list[tuple[str, int, int]]) -> bytes:
    for kind, a, b in changes:
        if not content:
            break
        at = a % len(content)
        if kind == "cut":
            del content[at:]
        elif kind == "digit":
            places = [i for i, c in enumerate(content) if chr(c).isdigit()]
            if places:
                place = places[a % len(places)]
                content[place] = ord("0") + (content[place] - ord("0") + 1 + b % 9) % 10
        elif kind in ("drop", "swap"):
            del content[at : at + 1 + b % 64]
        elif kind == "double":
            content[at:at] = content[at : at + 1 + b % 64]
        else:
            content[at] ^= 1 << (b % 8)
    return bytes(content)


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1e308, -1e308, 10**30, -(10**30), 1 << 62, 5e-324, "", "x", "..", "../../x", "\x1b[2J", "a" * 300,
    [], {}, [[]], [None], {"": 0}, [1, 2], ["a"], {"a": {"b": {}}}, "nan", [1e308] * 3,
]  # fmt: skip
"""JSON values where others belong."""

json_changes = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.sampled_from(["set", "drop", "key", "grow", "nudge", "nudge", "nudge"]),
        st.sampled_from(ODD),
    ),
    min_size=1,
    max_size=3,
)


def mutate_json(value: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """A JSON value with entries somewhere inside replaced, dropped, renamed or multiplied."""
    for number, kind, value_of in changes:
        odd = copy.deepcopy(value_of)  # one that is put in twice must not hold itself
        places = [(holder, key) for holder, key in _places(value)]
        if not places:
            return odd
        holder, key = places[number % len(places)]
        if kind == "set":
            holder[key] = odd
        elif kind == "drop":
            del holder[key]
        elif kind == "key" and isinstance(holder, dict):
            holder[str(odd)[:40]] = holder.pop(key)
        elif kind == "nudge":
            old = holder[key]
            if isinstance(old, bool):
                holder[key] = not old
            elif isinstance(old, int | float):
                holder[key] = type(old)(old * 1.125) or type(old)(1)
            elif isinstance(old, str):
                holder[key] = f"{old}0"
        elif isinstance(holder, list):
            holder.extend([holder[key]] * 3)
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


array_changes = st.lists(
    st.tuples(
        st.sampled_from(["header", "counters", "histograms", "accuracy", "window_nll", "mean_context", "baseline_perplexity"]),
        st.sampled_from(
            ["nan", "inf", "huge", "negative", "empty", "flat", "double", "object", "complex", "missing", "text", "zero", "big-endian", "fortran"]
        ),
    ),
    min_size=1,
    max_size=2,
)  # fmt: skip


def mutate_arrays(arrays: dict[str, Any], changes: list[tuple[str, str]]) -> dict[str, Any]:
    """The arrays of a profile with contents, shapes or dtypes that do not belong."""
    out = dict(arrays)
    for name, kind in changes:
        if name not in out:
            continue
        old = np.array(out[name])
        with np.errstate(all="ignore"):
            out[name] = {
                "nan": lambda old=old: np.full_like(old, np.nan) if old.dtype.kind == "f" else old,
                "inf": lambda old=old: np.full_like(old, np.inf) if old.dtype.kind == "f" else old,
                "huge": lambda old=old: (old + np.finfo(old.dtype).max) if old.dtype.kind == "f" else old,
                "negative": lambda old=old: -old if old.dtype.kind == "f" else old,
                "empty": lambda old=old: np.atleast_1d(old)[..., :0],
                "flat": lambda old=old: old.reshape(-1),
                "double": lambda old=old: np.tile(np.atleast_1d(old), (2, *[1] * (max(1, old.ndim) - 1))),
                "object": lambda old=old: old.astype(object),
                "complex": lambda old=old: np.zeros(old.shape, complex),
                "missing": lambda: None,
                "text": lambda: np.array(["x" * 50]),
                "zero": lambda old=old: np.zeros((), old.dtype),
                "big-endian": lambda old=old: old.astype(old.dtype.newbyteorder(">")),
                "fortran": lambda old=old: np.asfortranarray(old),
            }[kind]()
        if out[name] is None:
            del out[name]
    return out


def pack(arrays: dict[str, Any]) -> bytes:
    """As `numpy.savez_compressed`, object arrays pickled."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def claim(content: bytes, name: str, shape: tuple[int, ...], body: bytes = b"") -> bytes:
    """A profile one of whose arrays says it has another shape; `body` stands for its numbers."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(
                member.filename,
                head.getvalue() + body if member.filename == f"{name}.npy" else old.read(member),
            )
    return out.getvalue()


@st.composite
def extremes(draw: st.DrawFn) -> dict[str, Any]:
    """Hardware, workload and constants at the ends of what is valid, many at once."""
    hardware: dict[str, Any] = {"base": "topick-gqa"}
    for name in draw(st.lists(st.sampled_from(sorted(PARAMETERS)), max_size=16, unique=True)):
        known = PARAMETERS[name]
        ends: list[Any] = list(known.choices) or [known.low, known.high]
        if known.zero_means:
            ends.append(0)
        hardware[name] = draw(st.sampled_from([int(v) if known.kind == "int" else v for v in ends]))
    constants = {}
    for name in draw(st.lists(st.sampled_from(sorted(COMPONENTS)), max_size=6, unique=True)):
        row = COMPONENTS[name]
        factor = POWER_FACTOR if name.endswith("_power") else FACTOR
        ends = [row.value * factor, row.value / factor, *([] if row.positive else [0.0])]
        if name.endswith(tuple(COUNTED)):
            ends = [1.0, row.value * factor]  # whole numbers
        constants[name] = draw(st.sampled_from([v for v in ends if v or not row.positive]))
    workload = {
        "profile": "tiny.npz",
        "context": 1024,
        "batch": draw(st.sampled_from([1, 1_000_000, "max"])),
        "scope": draw(st.sampled_from(["attention", "model"])),
        "grouped": draw(st.booleans()),
    }
    algorithms = {"token-picker": {"threshold": [1e-4, 1e-2]}, "spatten": {"keep": [0.3, 0.9]}}
    return {
        "schema": 1, "name": "extreme", "workload": workload, "algorithms": algorithms, "hardware": hardware,
        "components": constants,
    }  # fmt: skip
