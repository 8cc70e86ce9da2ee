"""`dse profile show`: what a profile measured, setting by setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import numpy as np

from dse.cli.environment import Environment
from dse.cli.options import common

if TYPE_CHECKING:
    from dse.profiles.profile import Profile

DEFAULT_PROFILE = "smollm2-135m"


@click.command()
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("--algorithm", help="Only this algorithm's settings.")
@click.option("--context", type=int, help="Context length.  [default: the longest]")
@click.option("--probes", is_flag=True, help="Retrieval by depth and free-running agreement instead.")
@common("json", "quiet", "debug")
@click.pass_obj
def show(
    environment: Environment, profile: str, algorithm: str | None, context: int | None, probes: bool
) -> None:
    """Print what PROFILE measured: loss with its interval, and the share of keys and values fetched.

    PROFILE is a shipped profile's name or an .npz file; with --probes a model's name or a .json file.
    """
    if probes:
        _show_probes(environment, profile, algorithm, context)
        return
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
    everything = _everything(loaded, column)
    rows: list[dict[str, object]] = []
    for i, setting in enumerate(loaded.settings):
        if algorithm not in (None, setting.algorithm):
            continue
        accuracy = {name: float(loaded.accuracy[i, column, j]) for name, j in ACCURACY_COLUMN.items()}
        if accuracy["nll_increase"] != accuracy["nll_increase"]:
            continue  # not measured at this context
        defaults = loaded.defaults[setting.algorithm]

        def fetched(name: str, i: int = i) -> float:
            return float(loaded.counter(name)[i, column].mean()) / everything

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
        f"{loaded.window_counts[column]} windows"
    )
    environment.print(f"text: {p.text}")
    environment.print(_measured_table(rows, environment.columns))
    environment.print("bits fetched are per element and visible token, union over the query heads of a group")
    _remarks(environment, loaded, loaded.contexts[column], algorithm)


def _show_probes(environment: Environment, name: str, algorithm: str | None, context: int | None) -> None:
    from dataclasses import replace

    from dse.cli.probe_table import probe_rows, probe_table
    from dse.errors import BadInput, nearest
    from dse.profiles.probes import load_probes

    table = load_probes(name)
    if context not in (None, table.context):
        raise BadInput(f"{name}: context {context}: probed is {table.context}")
    known = sorted({row.algorithm for row in table.rows})
    if algorithm is not None and algorithm not in known:
        raise BadInput(f"{name}: algorithm {algorithm!r}: not probed; {nearest(algorithm, known)}")
    table = replace(table, rows=tuple(row for row in table.rows if algorithm in (None, row.algorithm)))
    if environment.json:
        environment.print_json(probe_rows(table))
    else:
        environment.print(probe_table(table, environment.columns))


def _everything(profile: Profile, column: int) -> float:
    """Tokens that are fetched where nothing is left out, mean over layers.

    In layers with a sliding window that is fewer than came before; in prefill it is the sum over a prompt's queries.
    """
    rows = profile.counter("group.k_rows_0")[:, column].mean(axis=(1, 2))
    return float(np.nanmax(rows))


def _remarks(environment: Environment, profile: Profile, context: int, algorithm: str | None) -> None:
    """What else the profile holds, and how far off values between the measured ones are at this context."""
    import textwrap

    from dse.profiles.coverage import coverage
    from dse.profiles.error import interpolation_errors

    def paragraph(text: str) -> None:
        for line in textwrap.wrap(text, environment.columns, subsequent_indent="  "):
            environment.print(line)

    for covered in coverage(profile):
        counts = {a: n for a, n in covered.settings.items() if algorithm in (None, a)}
        names = ", ".join(f"{a} {n}" for a, n in counts.items() if n) or "nothing"
        absent = ", ".join(a for a, n in counts.items() if not n)
        paragraph(
            f"context {covered.context} ({covered.windows} windows): {names} settings"
            + (f"; not measured: {absent}" if absent else "")
        )
    for error in interpolation_errors(profile):
        if error.context != context or algorithm not in (None, error.algorithm):
            continue
        share = "less than the text tells apart" if error.span < error.noise else f"{error.share:.1%}"
        paragraph(
            f"between measured values of {error.algorithm}.{error.knob} ({error.values} of them, {error.predicted} left "
            f"out in turn): the loss is off by {error.loss:.2g} nats, the perplexity increase by {error.perplexity:.2g} "
            f"(of its range: {share}), bits fetched by {error.traffic:.1%}"
        )
    if profile.scales:
        widths: dict[str, list[int]] = {}
        for name in profile.scales:
            operand, _, bits = name.rpartition(".")
            widths.setdefault(operand, []).append(int(bits))
        alike: dict[str, list[str]] = {}
        for operand, found in widths.items():
            alike.setdefault(", ".join(map(str, sorted(found))), []).append(operand)
        texts = "; ".join(f"{', '.join(names)} at {bits} bit" for bits, names in alike.items())
        paragraph(f"static scales it was quantised with: {texts}")


def _measured_table(rows: list[dict[str, object]], width: int) -> str:
    from dse.charts.labels import brief
    from dse.cli.table import Column, fixed, layout

    def knobs(row: dict[str, object]) -> str:
        named = row["knobs"]
        assert isinstance(named, dict)
        return " ".join(f"{k}={brief(v)}" for k, v in named.items()) or "defaults"

    def interval(row: dict[str, object]) -> str:
        half = (float(str(row["nll_increase_high"])) - float(str(row["nll_increase_low"]))) / 2
        known = f" ±{half:.4f}" if half == half else ""  # one window has no interval
        return f"{float(str(row['nll_increase'])):.4f}{known}"

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
