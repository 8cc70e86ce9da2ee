"""DRAM: the closed form of streams against a cycle-level simulator.

768 streams of DRAMsim3 (Li et al., IEEE CAL 2020; its own configurations for legacy HBM2 and DDR4, ours from JEDEC
values for HBM2 pseudo-channels and LPDDR4), unmodified, open page, refresh on, reads only. The constants of
`dse.hardware.dram` and `streams` were fitted once to streams of these kinds, the same ones for every device: these rows say how
good the fit is, and that a change elsewhere did not spoil it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dse.hardware import dram
from dse.hardware.streams import Passage, Stream, passage
from dse.validation.bench import scattered
from dse.validation.row import Row

FloatArray = NDArray[np.float64]

SOURCE: Final = "DRAMsim3 simulations, dse/validation/data/dram_streams.csv"

# Timings of the simulated devices: one-cycle row commands; energies and PHY play no part here.
# atom, page, groups, banks per group, tCK, CL (cycles), tRCD, tRP, tCCD_L, tRRD_S, tRRD_L, tFAW, tRFC, tREFI, GB/s
SIMULATED: Final[Mapping[str, tuple[float, ...]]] = {
    "hbm2_legacy_8ch": (64, 2048, 4, 4, 1.0, 14, 14, 14, 2, 4, 6, 30, 260, 3900, 32),
    "hbm2_pc_16": (32, 1024, 4, 4, 1.0, 14, 14, 14, 4, 4, 6, 16, 260, 3900, 16),
    "ddr4_2400_4ch": (64, 8192, 4, 4, 0.83, 17, 14.11, 14.11, 4.98, 3.32, 4.98, 21.58, 348.6, 7768.8, 19.28),
    "ddr4_3200_1ch": (64, 8192, 4, 4, 0.63, 22, 13.86, 13.86, 5.04, 2.52, 5.04, 21.42, 352.8, 7862.4, 25.4),
    "lpddr4_3200_4ch": (32, 2048, 1, 8, 0.625, 28, 18.1, 18.1, 5, 10, 10, 40, 280, 3904, 6.4),
}
ROW_CYCLE_NS: Final[Mapping[str, float]] = {
    "hbm2_legacy_8ch": 48.0, "hbm2_pc_16": 48.0, "ddr4_2400_4ch": 46.48, "ddr4_3200_1ch": 46.62,
    "lpddr4_3200_4ch": 60.6,
}  # fmt: skip
"""tRC of the simulated devices."""
MAPPINGS: Final = {"page_ch": "page", "atom_ch": "atom", "bg_ch": "group"}
KINDS: Final = {
    "sequential": "dense", "kept_rows": "kept rows", "kept_rows_clustered": "kept rows in clusters",
    "random_gather": "random gather", "chunks": "bit chunks, pass by pass", "lagged": "bit chunks, interleaved",
}  # fmt: skip


def device(name: str) -> dram.Device:
    """A simulated device."""
    atom, page, groups, banks, tck, cl, trcd, trp, ccd, rrd_s, rrd_l, faw, rfc, refi, gbps = (
        np.asarray(x, dtype=np.float64) for x in SIMULATED[name]
    )
    zero = np.zeros(())
    return dram.Device(
        ports=np.ones(()), channel_gbps=gbps, atom_bytes=atom, page_bytes=page, groups=groups,
        banks_per_group=banks, tck_ns=tck, cl_ns=cl * tck, trcd_ns=trcd, trp_ns=trp, tccd_l_ns=ccd, trrd_s_ns=rrd_s,
        trrd_l_ns=rrd_l, tfaw_ns=faw, trfc_ns=rfc, trefi_ns=refi, row_bus_ns=zero, activation_pj=zero, bit_pj=zero,
        background_mw=zero, phy_mm2=zero, phy_mw=zero,
    )  # fmt: skip


def kind(stream: Mapping[str, str]) -> str:
    """Key of `KINDS`."""
    lagged = stream["pattern"] == "chunks" and float(stream["lag_tokens"]) > 0
    return "lagged" if lagged else stream["pattern"]


@lru_cache(maxsize=1)
def streams() -> tuple[dict[str, str], ...]:
    """Every simulated stream, as text by column."""
    text = (files("dse.validation") / "data" / "dram_streams.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def simulated_ns(stream: Mapping[str, str]) -> float:
    return float(stream["cycles"]) * float(stream["tCK_ns"])


def predicted_ns(stream: Mapping[str, str]) -> float:
    """The closed form's time of one stream of DRAMsim3."""
    dev, trc_ns = device(stream["config"]), ROW_CYCLE_NS[stream["config"]]
    return closed_form_ns(stream, dev, int(stream["channels"]), MAPPINGS[stream["mapping"]], trc_ns)


def closed_form_ns(
    stream: Mapping[str, str], dev: dram.Device, ports: int, mapping: str, trc_ns: float
) -> float:
    """The closed form's time of one stream; arguments as `dse.hardware.streams.passage`."""
    window, population = float(stream["window"]), float(stream["rows_scanned"])

    def one(kept: float, runs: float, size: int, pitch: int, shuffled: bool = False) -> Passage:
        return passage(
            dev, ports, window, Stream(population, kept, max(runs, 1.0), size, pitch, shuffled), mapping,
            trc_ns,
        )  # fmt: skip

    start = float(dev.start_ns)
    if stream["pattern"] != "chunks":
        kept = float(stream["rows_kept"])
        runs = kept / float(stream["mean_run"]) if stream["mean_run"] else scattered(kept, population)
        shuffled = stream["pattern"] == "random_gather"
        size, pitch = (int(float(stream[name])) for name in ("row_bytes", "stride"))
        return start + one(kept, runs, size, pitch, shuffled).ns(dev)
    size, chunks = int(float(stream["chunk_bytes"])), int(stream["nchunks"])
    pitch = size if stream["layout"] == "plane" else size * chunks
    second = population * float(stream["q1"])
    asked = (population, second, second * float(stream["q2"]))[:chunks]
    passes = [one(kept, scattered(kept, population), size, pitch) for kept in asked]
    if kind(stream) == "chunks":
        return start + sum(each.ns(dev) for each in passes)
    # Passes that run interleaved share the port: what each limit asks of it adds up.
    sums = [sum(float(each.limits[i]) * each.atoms for each in passes) for i in range(3)]
    together = float(sum(total**dram.NORM for total in sums) ** (1.0 / dram.NORM))
    return start + together * float(dev.refresh)


@lru_cache(maxsize=1)
def errors() -> dict[str, FloatArray]:
    """Relative errors of time by kind of stream."""
    found: dict[str, list[float]] = {}
    for stream in streams():
        found.setdefault(kind(stream), []).append(predicted_ns(stream) / simulated_ns(stream) - 1)
    return {name: np.asarray(values) for name, values in found.items()}


def rows() -> list[Row]:
    """Errors of time over all streams, and by kind."""
    found = errors()
    fetched = np.concatenate([values for name, values in found.items() if name != "lagged"])
    result = [
        Row("dram", "mean error of time, all streams but interleaved chunk passes", 0.0,
            float(np.abs(fetched).mean()), SOURCE, f"{len(fetched)} streams of five devices, random gather among them",
            "fitted", "1", 0.06, True, 0.040),
        Row("dram", "90th percentile of the same", 0.0, float(np.quantile(np.abs(fetched), 0.9)), SOURCE,
            "as above", "fitted", "1", 0.15, True, 0.098),
        Row("dram", "mean error of time, interleaved chunk passes", 0.0, float(np.abs(found["lagged"]).mean()),
            SOURCE, f"{len(found['lagged'])} streams; limits of the passes summed, as for streams fetched together",
            "fitted", "1", 0.15, True, 0.103),
    ]  # fmt: skip
    for name, title in KINDS.items():
        if name == "lagged":
            continue
        values = np.abs(found[name])
        result.append(
            Row("dram", f"mean error of time, {title}", 0.0, float(values.mean()), SOURCE,
                f"{len(values)} streams; 90th percentile {np.quantile(values, 0.9):.3f}, worst {values.max():.2f}",
                "fitted", "1", None, True)
        )  # fmt: skip
    return result
