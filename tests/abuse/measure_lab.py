"""A folder in which a tiny model is measured on a made-up text in a second, for faults and malicious inputs."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import tokenizers
from cli.conftest import Answer, answer
from models.tiny_models import KINDS, weights, write_directory

from abuse.lab import Ended, end, launch, wait
from dse.measure import job as measuring

DRIVER = Path(__file__).with_name("measure_driver.py")
LETTERS = "abcdefghijklmnopqrstuvwxyzBDFGKLMNPRSTVZ0123456789 .\n"

GRID = """\
[[grid]]
algorithm = "token-picker"
threshold = [1e-4, 1e-3, 1e-2]
chunks = ["4+4+4", "6+6"]

[[grid]]
algorithm = "spatten"
keep = [0.3, 0.5, 0.9]

[[grid]]
algorithm = "dense"
k_bits = [4, 8, 12]
"""
COMMON = ("--model", "tiny", "--text", "own.txt", "--scales", "scales.npz")
RUN = ("profile", "run", *COMMON, "--grid", "grid.toml", "--context", "64", "--windows", "2", "--name", "it")
PROBE = (
    *("profile", "probe", *COMMON, "--grid", "grid.toml", "--context", "256", "--windows", "1"),
    *("--depths", "2", "--tokens", "4"),
)


def write_model(folder: Path, seed: int = 5, **changes: object) -> Path:
    """A tiny Llama whose tokens are letters."""
    write_directory(KINDS["llama"], weights(KINDS["llama"], seed), folder, **changes)
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(LETTERS)}, []))
    inner.decoder = tokenizers.decoders.Fuse()
    inner.save(str(folder / "tokenizer.json"))
    return folder


def write_text(path: Path, count: int, seed: int) -> None:
    path.write_text("".join(np.random.default_rng(seed).choice(list(LETTERS), count)), encoding="utf-8")


@dataclass
class MeasureLab:
    """Commands run in `home`: as processes of their own, or in this one where nothing happens to them.

    Attributes:
        whole: the profile that an undisturbed measurement gives, and `probes` the table, by command.
    """

    home: Path
    whole: dict[tuple[str, ...], bytes] = field(default_factory=dict)

    def start_words(self, *arguments: str, pace: float = 0.0, free: bool = False) -> list[str]:
        return [sys.executable, str(DRIVER), *(["FREE"] if free else []), str(pace), *arguments]

    def start(
        self, *arguments: str, pace: float = 0.03, free: bool = False, held: bool = False
    ) -> subprocess.Popen[str]:
        return launch(self.start_words(*arguments, pace=pace, free=free), self.home, held)

    def run(self, *arguments: str) -> Ended:
        return end(self.start(*arguments, pace=0.0))

    def here(self, *arguments: str) -> Answer:
        """The command in this process."""
        with (
            mock.patch.object(sys, "argv", ["dse", *arguments]),
            mock.patch.object(measuring, "CALIBRATION_TEXT", "calibration.txt"),
        ):
            return answer(self.home, *arguments)

    def shards(self, out: str) -> set[str]:
        return {p.name for p in (self.home / out / "shards").glob("*.npz")}

    def made_at(self, out: str) -> dict[str, int]:
        """Shard -> when it was written, in nanoseconds."""
        return {p.name: p.stat().st_mtime_ns for p in (self.home / out / "shards").glob("*.npz")}

    def underway(self, process: subprocess.Popen[str], out: str, least: int = 2) -> None:
        """Wait until some shards are there, and a little longer."""
        least += len(self.shards(out))
        wait(lambda: process.poll() is not None or len(self.shards(out)) >= least)
        time.sleep(np.random.default_rng().random() * 0.1)

    def goes_on(self, *command: str) -> str:
        """The command typed again gives the very file of an undisturbed one; what it remarked. Its last word is OUT."""
        answer = self.here(*command)
        assert answer.code == 0, answer
        made = self.home / command[-1]
        made = made if made.suffix else made / "it.npz"
        if command not in self.whole:
            self.whole[command] = made.read_bytes()
        assert made.read_bytes() == self.whole[command]
        assert not [p for p in self.home.rglob(".*") if p.is_file()], "left behind"
        return answer.stderr


def make_lab(home: Path) -> MeasureLab:
    write_model(home / "tiny")
    write_text(home / "own.txt", 4000, 1)
    write_text(home / "calibration.txt", 100_000, 2)
    (home / "grid.toml").write_text(GRID, encoding="utf-8")
    lab = MeasureLab(home)
    calibrated = lab.here(
        *("profile", "calibrate", "--model", "tiny", "--text", "calibration.txt", "--context", "64"),
        *("--windows", "2", "-o", "scales.npz"),
    )
    assert calibrated.code == 0, calibrated
    return lab
