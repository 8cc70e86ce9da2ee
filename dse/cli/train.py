"""`dse profile train`: the learned controller of ADORE-style caches, from a model's own attention."""

from __future__ import annotations

from pathlib import Path

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import NAME, PLACE
from dse.cli.profile_options import MAX_SEED, new_file
from dse.cli.profile_show import DEFAULT_PROFILE as DEFAULT_MODEL


@click.command()
@click.option(
    "--model",
    type=NAME,
    default=DEFAULT_MODEL,
    show_default=True,
    help="A known model or the path of one's own.",
)
@click.option(
    "--backend", type=click.Choice(["auto", "numpy", "transformers"]), default="auto", show_default=True
)
@click.option(
    "--text",
    type=NAME,
    default="prose",
    show_default=True,
    help="prose, technical, code, or a text file of one's own.",
)
@click.option("--context", type=click.IntRange(128, 8192), default=1024, show_default=True)
@click.option(
    "--windows", type=click.IntRange(2, 256), default=36, show_default=True, help="Windows of text."
)
@click.option(
    "--label",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="How many tokens a query is taken to want: those it attends most.",
)
@click.option("--steps", type=click.IntRange(1, 1_000_000), default=500, show_default=True, help="Updates.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("-o", "--output", type=PLACE, required=True, help="File to write (.npz).")
@common("json", "quiet", "debug")
@click.pass_obj
def train(
    environment: Environment,
    model: str,
    backend: str,
    text: str,
    context: int,
    windows: int,
    label: int,
    steps: int,
    seed: int,
    output: Path,
) -> None:
    """Train the controller of adore on calibration text (a few minutes for the default model).

    Every sixth window is held out: what the controller finds there is printed beside a plain window of the
    newest tokens.
    """
    from dse.measure.train import Recipe, save_controller, train_on_text
    from dse.models.load import load_model
    from dse.models.text import find_text

    new_file(output)
    source = find_text(text)
    loaded = load_model(model, backend)
    held = Recipe.held if windows >= Recipe.held else windows
    recipe = Recipe(windows=windows, context=context, label=label, steps=steps, seed=seed, held=held)
    with environment.progress_bar("step") as bar:
        weights, about, passages = train_on_text(
            loaded,
            source.tokens(loaded.tokenizer),
            recipe,
            lambda what, done, total: bar(done + windows * (what == "training"), total + windows),
        )
    save_controller(output, weights, about, passages)
    result = about["held_out"]
    if environment.json:
        environment.print_json({"controller": str(output), "weights": weights.size, "held_out": result})
        return
    environment.print(
        f"{output}: {weights.size:,} weights; of the {label} most attended tokens it finds "
        f"{result['recall']:.0%}, a window of as many finds {result['window_recall']:.0%}"
    )
    for name in (name for name in result if name.startswith("mass_")):
        size = name.removeprefix("mass_")
        environment.print(
            f"attention kept in {size} tokens: {result[name]:.1%}; window {result['window_' + name]:.1%}, "
            f"best possible {result['oracle_' + name]:.1%}"
        )
