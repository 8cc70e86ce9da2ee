"""DRAM: the same closed form against another simulator, on memory kinds as the package ships them.

248 streams of Ramulator 2.1 (Luo et al., IEEE CAL 2023), four devices of its JEDEC presets, reads only, refresh on. No
constant was set on them. Its two mappings are not among ours: ``MOP4CLXOR`` (four lines of a page, then channel, bank
group and bank, hashed) is compared with bank groups interleaved, which every price assumes; ``RoBaRaCoCh`` (channel
lowest, then columns of one bank) with columns above the channel.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dse.hardware import dram
from dse.hardware.components import components
from dse.hardware.parameters import DRAM_KINDS
from dse.validation.dram import KINDS, closed_form_ns, kind
from dse.validation.row import Row

FloatArray = NDArray[np.float64]

SOURCE: Final = "Ramulator 2.1 simulations, dse/validation/data/dram_streams_ramulator2.csv"

DEVICES: Final = {
    # device: (memory kind as shipped, time between activations of one bank, ns)
    "ram_hbm2_2.0G_8ch": ("hbm2", 48.0), "ram_hbm3_6.4G_16ch": ("hbm3", 44.93),
    "ram_ddr4_3200_1ch": ("ddr4", 45.0), "ram_lpddr5_6400_4ch": ("lpddr5", 61.25),
}  # fmt: skip
MAPPINGS: Final = {"MOP4CLXOR": "group", "RoBaRaCoCh": "atom"}

Key = tuple[str, str, str]


@lru_cache(maxsize=1)
def streams() -> tuple[dict[str, str], ...]:
    """Every simulated stream, as text by column."""
    text = (files("dse.validation") / "data" / "dram_streams_ramulator2.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def simulated_ns(stream: Mapping[str, str]) -> float:
    return float(stream["ticks"]) * float(stream["tick_ns"])


def predicted_ns(stream: Mapping[str, str]) -> float:
    """The closed form's time of one stream on the shipped memory kind."""
    name, trc_ns = DEVICES[stream["config"]]
    device = dram.device(DRAM_KINDS.index(name), constants=components())
    ports = int(stream["channels"]) * int(device.ports)
    return closed_form_ns(stream, device, ports, MAPPINGS[stream["mapping"]], trc_ns)


def errors() -> dict[Key, FloatArray]:
    """Relative errors of time by memory kind, mapping and kind of stream."""
    found: dict[Key, list[float]] = {}
    for stream in streams():
        key = (DEVICES[stream["config"]][0], stream["mapping"], kind(stream))
        found.setdefault(key, []).append(predicted_ns(stream) / simulated_ns(stream) - 1)
    return {key: np.asarray(values) for key, values in found.items()}


def rows() -> list[Row]:
    """HBM2, which every preset has, judged; the rest shown."""
    return list(_rows(errors()))


def _rows(found: Mapping[Key, FloatArray]) -> Iterator[Row]:
    def pick(memory: str = "", mapping: str = "", stream: str = "") -> FloatArray:
        wanted = (memory, mapping, stream)
        parts = [v for key, v in found.items() if all(w in ("", k) for w, k in zip(wanted, key, strict=True))]
        return np.abs(np.concatenate(parts))

    def row(what: str, values: FloatArray, assumed: str, tolerance: float | None = None) -> Row:
        spread = (
            f"{len(values)} streams, 90th percentile {np.quantile(values, 0.9):.3f}, worst {values.max():.2f}"
        )
        return Row("ramulator", what, 0.0, float(values.mean()), SOURCE, f"{spread}; {assumed}", "independent", "1",
                   tolerance, True)  # fmt: skip

    usual = (
        "memory kind hbm2, which all presets have, as shipped, with bank groups interleaved, as prices assume, for its "
        "hashed mapping; kept rows, random gather, bit chunks"
    )
    hbm2 = pick("hbm2", "MOP4CLXOR")
    yield row("mean error of time, HBM2", hbm2, usual, 0.08)
    yield Row("ramulator", "90th percentile of the same", 0.0, float(np.quantile(hbm2, 0.9)), SOURCE, "as above",
              "independent", "1", 0.20, True)  # fmt: skip
    other = "no mapping of ours is this one, the nearest stands for it"
    for name, _ in DEVICES.values():
        for mapping, ours in MAPPINGS.items():
            if (name, mapping) != ("hbm2", "MOP4CLXOR"):
                yield row(f"mean error of time, {name}, {mapping}", pick(name, mapping), f"{other} ({ours})")
    for stream, title in KINDS.items():
        if any(key[2] == stream for key in found):
            yield row(f"mean error of time, {title}", pick(stream=stream), "all devices and mappings")
    yield row("mean error of time, all streams", pick(), "all devices and mappings")
