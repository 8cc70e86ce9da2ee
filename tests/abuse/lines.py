"""Mutated command lines: what somebody types, by mistake or not, into commands, options and arguments."""

from __future__ import annotations

from hypothesis import strategies as st

WORDS: list[str] = [
    "", " ", "nan", "-nan", "inf", "-inf", "1e999", "1e-999", "-1", "0", "1", "2", "3", "1.5", "-0.0", "99999999999999999999",
    "9" * 5000, "\uff11", "\u0663", "\u00b2", "1_000", "0x10", "1e-3", "0.01", "1,1", ",", "1,", "a,b", "-", "--", "---x", "=",
    "a=b", "x" * 300, "x" * 4000, "x/" * 2500, "\x1b[2J", "\x1b]0;x\x07", "\n", "a\nb", "\t", "\r", "\x7f", "\u202e", "\ud800",
    "\u00e9", "\U0001f642", "%s%n", "{0}", "$(id)", "`id`", "$\\frac{1}{0$", "~", "~root", ".", "..", "./", "run", "other", "./run/",
    "run/front.csv", "run/nothing", "nothing", "tiny.toml", "tiny.npz", "./tiny.npz", "tiny.json", "/dev/null", "/dev/zero",
    "/dev/full", "/proc/self/mem", "pipe", "all", "none", "None", "true", "table", "csv", "json", "paper", "dark", "page",
    "column", "png", "dense", "token-picker", "spatten", "Dense", "threshold", "chunks", "keep", "speedup", "-speedup",
    "nll_increase", "energy_j", "area_mm2", "algorithm", "bound", "point", "on_front", "accuracy", "distinct",
    "token-picker.threshold", "token-picker.layers", "token-picker.chunks", "hardware.lanes", "hardware.dram",
    "speedup,nll_increase", "speedup,speedup", "hardware.lanes,hardware.dram,speedup", "workload.batch=1,4",
    "workload.batch=1,1", "workload.context=all", "hardware.dram=hbm2,gddr6", "hardware.lanes=8", "hardware.lanes=", "=1",
    "workload.batch=\"max\"", "token-picker.threshold=1e-3", "threshold=1e-3", "context=1024", "algorithm=spatten",
    "components.multiply_8_pj=nan", "components.multiply_8_pj=0.1", "workload.query_tile=4", "hardware.clock_ghz=500",
    "quickstart", "topick", "bash", "hardware", "parameters", "trials", "seconds", "loky", "threading", "sequential",
    "dask:tcp://127.0.0.1:1", "dask:", "\u65e5\u672c", "</script><script>", "0.003,0.01", "0.01,nan", "front", "breakdown", "roofline",
    "parallel", "knobs", "winner", "waterfall", "importance", "hypervolume",
]  # fmt: skip
"""What somebody types, by mistake or not, where an option's value or an argument belongs."""

KINDS = ("front", "breakdown", "roofline", "dram", "parallel", "knobs", "winner", "waterfall", "importance")

_OF_KIND: dict[str, tuple[str, ...]] = {
    "front": ("-x", "-y", "--colour", "--size", "--algorithm"), "breakdown": ("--point", "--budget"),
    "roofline": ("--point", "--budget"), "dram": ("--point",), "parallel": ("--columns",),
    "knobs": ("--algorithm", "--knob", "--by", "--set"), "winner": ("--budget", "--over", "--set"),
    "waterfall": ("--algorithm", "--budget"), "importance": ("--seed",),
}  # fmt: skip
_OF_ALL = ("--title", "--width", "--style", "--kind", "--over", "--samples", "--published", "--cloud")

COMMANDS: list[tuple[str, tuple[str, ...]]] = [
    *[(f"plot run -o a.svg --kind {kind}", (*_OF_KIND[kind], *_OF_KIND[kind], *_OF_ALL)) for kind in KINDS],
    ("plot -o a.svg", ("", "")),
    ("plot run other -o a.svg", ("-x", "--colour", "--kind", "")),
    ("front run", ("--format", "--algorithm", "--columns", "--sort", "--rows", "--json", "--all")),
    ("front run --json", ("--format", "--algorithm", "--columns", "--sort", "--rows")),
    ("front", ("",)),
    ("explain run 1", ("--set", "--set", "")),
    ("explain run", ("", "--set")),
    ("explain topick", ("--set", "")),
    ("explain", ("", "")),
    ("compare run", ("", "--rows")),
    ("compare run other -o a.svg", ("-x", "-y", "--style", "--rows", "")),
    ("report run -o a.html --no-validation --breakdowns 1", ("--title", "--breakdowns", "")),
    ("report -o a.html --no-validation --points 5 --breakdowns 1", ("", "--points")),
    ("match tiny.toml --settings-only", ("--loss", "--loss", "--set", "--confirmation")),
    ("match tiny.toml", ("--confirmation", "--loss")),
    ("check", ("", "--set")),
    ("sweep tiny.toml -o fuzzed", ("--engine", "--seed", "--set", "")),
    ("sweep nothing.toml", ("--jobs", "--seed")),
    ("list", ("",)),
    ("list algorithms", ("--plugin", "")),
    ("validate dense --brief", ("",)),
    ("completion", ("",)),
    ("profile show", ("", "")),
    ("profile show ./tiny.npz", ("--algorithm", "--context", "")),
    ("profile show ./tiny.json --probes", ("--algorithm", "--context", "")),
    ("", ("",)),
]
"""Commands as words, and options of theirs; an empty one is an argument."""

RIGHT: dict[str, tuple[str, ...]] = {
    "-x": ("speedup", "energy_j", "hardware.lanes", "token-picker.threshold", "nll_increase"),
    "-y": ("energy_saving", "area_mm2", "dense.k_bits", "latency_s_low"), "--colour": ("area_mm2", "algorithm", "spatten.keep"),
    "--size": ("power_w", "hardware.dram_channels"), "--algorithm": ("token-picker", "spatten", "dense"),
    "--point": ("1", "5", "8"), "--budget": ("0", "0.05", "1e6"), "--columns": ("speedup,energy_j", "point,bound,area_mm2"),
    "--knob": ("threshold", "keep", "margin"), "--by": ("chunks", "margin", "value_keep"),
    "--set": ("context=1024", "threshold=0.001", "workload.batch=4", "hardware.lanes=8", "components.multiply_8_pj=0.1"),
    "--over": ("workload.batch=1,4", "hardware.lanes=[8, 16]", "hardware.dram=hbm2,gddr6"), "--seed": ("1", "4294967295"),
    "--title": ("", "a $b$", "x" * 200), "--width": ("page", "2", "20", "7.5"), "--style": ("dark", "slide"),
    "--kind": ("front", "parallel"), "--samples": ("60", "100"), "--format": ("csv", "json", "table"),
    "--sort": ("-speedup", "bound", "token-picker.layers", "hardware.dram"), "--rows": ("0", "1", "1000000"),
    "--breakdowns": ("0", "2"), "--points": ("0", "3"), "--loss": ("0.01", "1e-9,1e9", "0.5,0.001"), "--engine": ("threading",),
    "--context": ("1024",), "": ("1", "run", "other", "components", "bash", "dense", "sram", "tiny.toml", "./tiny.npz"),
}  # fmt: skip
"""Values that are right somewhere."""

_word = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), st.text(max_size=12))


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Words of a command line, one to three of them mutated."""
    command, options = draw(st.sampled_from(COMMANDS))
    words = command.split()
    for _ in range(draw(st.integers(1, 3))):
        option = draw(st.sampled_from(options))
        right = RIGHT.get(option, ())
        value = draw(st.sampled_from(right) if right and draw(st.integers(0, 2)) else _word)
        if option in ("--json", "--all", "--published", "--cloud"):
            words.append(option)
        elif option.startswith("--") and draw(st.booleans()):
            words.append(f"{option}={value}")
        else:
            words += [option, value] if option else [value]
    return words
