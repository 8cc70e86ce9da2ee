"""What a design point costs in ZigZag: one dense attention head of a decode step, over sizes of its SRAM.

    python -m venv other && other/bin/pip install zigzag-dse six
    other/bin/python tests/benchmarks/rivals.py

It has an environment of its own: its dependencies are not those of dse. The machine is a 16 x 16 array with
registers, one SRAM and DRAM at 16 bytes a cycle, as its input format describes it; the work is q . K of 1024 keys of 64
elements. Each call searches for a mapping, which is what the time goes into.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES_KIB = (16, 32, 64, 128, 256)
KEYS, WIDTH, ARRAY = 1024, 64, 16


def port(kind: str, bits: int, allocation: list[str], number: int = 1) -> dict[str, Any]:
    letters = {"read": "r", "write": "w", "read_write": "rw"}[kind]
    return {
        "name": f"{letters}_port_{number}", "type": kind, "bandwidth_min": min(bits, 64), "bandwidth_max": bits, "allocation": allocation,
    }  # fmt: skip


def memory(
    bits: int, pj: float, operands: list[str], ports: list[dict[str, Any]], shared: bool
) -> dict[str, Any]:
    return {
        "size": bits, "r_cost": pj, "w_cost": pj, "area": 0, "latency": 1, "operands": operands, "ports": ports,
        "served_dimensions": ["D1", "D2"] if shared else [],
    }  # fmt: skip


def accelerator(sram_kib: int) -> dict[str, Any]:
    read = ["I1, tl", "I2, tl", "O, tl", "O, th"]
    write = ["I1, fh", "I2, fh", "O, fh", "O, fl"]
    sums = (("read", 1, "tl"), ("read", 2, "th"), ("write", 1, "fh"), ("write", 2, "fl"))
    outputs = [port(kind, 32, [f"O, {way}"], number) for kind, number, way in sums]
    everything = ["I1", "I2", "O"]
    return {
        "name": "array",
        "memories": {
            "weights": memory(
                512, 0.05, ["I2"], [port("read", 8, ["I2, tl"]), port("write", 8, ["I2, fh"])], False
            ),
            "sums": memory(32, 0.05, ["O"], outputs, False),
            "sram": memory(
                sram_kib * 8192, 20, everything,
                [port("read", 64 * ARRAY, read), port("write", 64 * ARRAY, write)], True,
            ),
            "dram": memory(10**10, 512, everything, [port("read_write", 128, read + write)], True),
        },
        "operational_array": {
            "input_precision": [8, 8], "unit_energy": 0.04, "unit_area": 1,
            "dimensions": ["D1", "D2"], "sizes": [ARRAY, ARRAY],
        },
    }  # fmt: skip


def workload() -> list[dict[str, Any]]:
    return [{
        "id": 0, "name": "qk", "operator_type": "Gemm", "equation": "O[b][k]+=I[b][c]*W[c][k]",
        "loop_dims": ["B", "K", "C"], "loop_sizes": [1, KEYS, WIDTH],
        "operand_precision": {"W": 8, "I": 8, "O": 32, "O_final": 8}, "operand_source": {"W": 0, "I": 0},
    }]  # fmt: skip


def main() -> None:
    from zigzag.api import get_hardware_performance_zigzag

    logging.disable(logging.CRITICAL)
    mapping = [{
        "name": "default",
        "spatial_mapping": {"D1": [f"K, {ARRAY}"], "D2": [f"C, {ARRAY}"]},
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
    }]  # fmt: skip
    print("| SRAM KiB | cycles | CPU s |\n|---|---|---|")
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "mapping.yaml").write_text(json.dumps(mapping))  # JSON is YAML
        for size in SIZES_KIB:
            (home / "array.yaml").write_text(json.dumps(accelerator(size)))
            start = time.process_time()
            _, cycles, _ = get_hardware_performance_zigzag(
                workload(), str(home / "array.yaml"), str(home / "mapping.yaml"),
                opt="latency", lpf_limit=6, dump_folder=str(home / "out"), loma_show_progress_bar=False,
            )  # fmt: skip
            spent.append(time.process_time() - start)
            print(f"| {size} | {cycles:.0f} | {spent[-1]:.2f} |", flush=True)
    print(
        f"\nmean {sum(spent) / len(spent):.2f} CPU s a point: {len(spent) / sum(spent):.2f} points a CPU second"
    )


if __name__ == "__main__":
    main()
