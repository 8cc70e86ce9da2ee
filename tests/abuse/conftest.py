"""A yard to abuse `dse` in: every command's answer, time, memory and writes are judged."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import TINY, Answer, answer
from cli.synthetic import synthetic_profile

from dse import checksums
from dse.errors import DseError
from dse.profiles.probes import Probe, Probes, write_probes
from dse.profiles.store import write_profile
from dse.space import parse_resolved

SECONDS = 2.0
DRAWING_SECONDS = 8.0
"""Of a chart that is drawn: `--kind winner --over` sweeps the space once for every value first."""

MEGABYTES = 500.0
FILES = ("space.toml", "front.csv", "run.json", "front.png")
NOTHING_FITS = "satisfies the constraints"
RICHER = (
    TINY
    + """
area_mm2 = { max = 60 }

[objectives]
maximize = ["speedup"]
minimize = ["nll_increase", "energy_j"]
reference = { speedup = 0.5 }

[baseline]
algorithm = "dense"
k_bits = 12
hardware.lanes = 24

[components]
multiply_8_pj = 0.25

[hardware.for.spatten]
lanes = [12]
"""
)
AGAINST = TINY + '\n[baseline]\nprocessor = "h200"\nparameters.power_w = 400\n'


@dataclass
class Guard:
    """Notes what no input may bring about; an audit hook cannot be taken off again, so it is switched."""

    root: Path = Path("/nowhere")
    on: bool = False
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in (
            "pickle.find_class",
            "os.system",
            "subprocess.Popen",
            "socket.connect",
            "os.exec",
            "os.posix_spawn",
        ):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else 0
            if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
                self._inside(event, path)
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree"):
            self._inside(event, arguments[0])
        elif event in ("os.rename", "os.link", "os.symlink"):
            self._inside(event, arguments[1])

    def _inside(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        place = Path(os.path.realpath(os.fsdecode(path)))
        if (
            self.root not in (place, *place.parents)
            and place.suffix != ".pyc"
            and "__pycache__" not in place.parts
            and str(place) != os.devnull
        ):
            self.seen.append(f"{event} {place}")


GUARD = Guard()
sys.addaudithook(GUARD)


@dataclass
class Tally:
    """What became of the inputs of one kind."""

    valid: int = 0
    refused: int = 0
    nothing_fits: int = 0
    slowest_s: float = 0.0
    slowest: str = ""
    peak_mb: float = 0.0

    @property
    def total(self) -> int:
        return self.valid + self.refused + self.nothing_fits


TALLIES: dict[str, Tally] = {}


@dataclass(repr=False)
class Yard:
    """A folder with a space, its profile and a finished run; commands run in it and are judged."""

    home: Path
    profile: bytes
    run: dict[str, bytes]
    rows: object = None
    """What `dse front --all --json` says of the run."""

    def __repr__(self) -> str:
        return f"Yard({self.home})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would print the files

    def dse(self, *arguments: str) -> tuple[Answer, float]:
        """The answer of a command and the processor time it took, in seconds."""
        GUARD.root, GUARD.seen, GUARD.on = self.home.resolve(), [], True
        start = time.process_time()
        try:
            found = answer(self.home, *arguments)
        finally:
            GUARD.on = False
        return found, time.process_time() - start

    def judge(self, kind: str, what: str, *arguments: str) -> Answer:
        """Run a command on a mutated input: it is valid, or refused in one line, soon, in little memory, and nothing else."""
        tally = TALLIES.setdefault(kind, Tally())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer, seconds = self.dse(*arguments)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        if seconds > tally.slowest_s:
            tally.slowest_s, tally.slowest = seconds, what[:200]
        tally.peak_mb = max(tally.peak_mb, grown)
        shown = f"{arguments}: {what[:2000]!r}\n{answer}"
        assert GUARD.seen == [], f"{GUARD.seen} {shown}"
        drawn = answer.code == 0 and arguments[0] in ("plot", "report")
        assert seconds < (DRAWING_SECONDS if drawn else SECONDS), f"{seconds:.1f} s: {shown}"
        assert grown < MEGABYTES, f"{grown:.0f} MB: {shown}"
        assert "Traceback" not in answer.stderr, shown
        assert "Warning" not in answer.stderr, shown
        if answer.code == 0:
            tally.valid += 1
            assert answer.stdout.strip(), shown
            assert all(text.isprintable() for text in answer.stdout.split("\n")), shown
            return answer
        line = answer.stderr.removesuffix("\n")
        errors = [text for text in line.split("\n") if not text.startswith("note: ")]
        assert len(errors) == 1, shown
        assert errors[0].startswith("error: "), shown
        assert errors[0].isprintable(), shown
        assert len(errors[0]) <= 650, shown
        assert answer.stdout == "", shown
        if answer.code == 1:
            assert NOTHING_FITS in errors[0], shown
            tally.nothing_fits += 1
        else:
            assert answer.code == 2, shown
            tally.refused += 1
        return answer

    def reseal(self, files: dict[str, bytes]) -> dict[str, bytes]:
        """The files with checksums that fit, as somebody would who knows of them; as they are where they hold no run."""
        run = {**self.run, **files}
        try:
            info = json.loads(run["run.json"])
            space = parse_resolved(run["space.toml"].decode(), "space.toml")
            info[checksums.KEY] = checksums.checksums(space, run["front.csv"].decode(), info)
            return {**files, "run.json": json.dumps(info).encode()}
        except (ValueError, TypeError, AttributeError, RecursionError, DseError):
            return files

    def put_run(self, name: str, files: dict[str, bytes]) -> None:
        """A run directory with these files instead of its own."""
        shutil.rmtree(self.home / name, ignore_errors=True)
        (self.home / name).mkdir()
        for file, content in {**self.run, **files}.items():
            (self.home / name / file).write_bytes(content)


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    home = tmp_path_factory.mktemp("yard")
    write_profile(home / "tiny.npz", synthetic_profile())
    (home / "tiny.toml").write_text(TINY, encoding="utf-8")
    os.mkfifo(home / "pipe")
    write_probes(
        home / "tiny.json",
        Probes(
            "tiny", 1024, 6, "abc", {"text": "none"},
            (
                Probe("dense", {"k_bits": 8}, ((True, False), (False, True)), ((0.5, 1.5), (1.0, 0.0)), (3, 6), (0.5, 1.0)),
                Probe("spatten", {"keep": 0.5}, ((False,) * 2,) * 2, ((0.5, 1.5),) * 2, (3, 0), (0.5, 0.25)),
            ),
        ),
    )  # fmt: skip
    made = Yard(home, (home / "tiny.npz").read_bytes(), {})
    warm = (
        "sweep tiny.toml -o run", "sweep tiny.toml -o other --set hardware.lanes=24", "explain run 1", "check tiny.toml",
        "plot run --kind dram -o a.png", "plot run --cloud -o a.svg", "compare run other -o a.pdf", "profile show ./tiny.npz",
        "report run --no-validation --points 20 --breakdowns 1 -o a.html", "match tiny.toml --settings-only",
    )  # fmt: skip
    for line in warm:  # what is imported once is no input's fault
        answer, _ = made.dse(*line.split())
        assert answer.code == 0, answer
    made.rows = json.loads(made.dse("front", "run", "--all", "--json")[0].stdout)
    made.run = {name: (home / "run" / name).read_bytes() for name in FILES}
    yield made
    report = os.environ.get("DSE_FUZZ_REPORT")
    if report:
        table = {kind: {**vars(tally), "total": tally.total} for kind, tally in TALLIES.items()}
        Path(report).write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
