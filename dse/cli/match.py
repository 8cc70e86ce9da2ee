"""`dse match`: algorithms at equal accuracy."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.environment import Environment
from dse.cli.options import common, refuse_unused
from dse.cli.places import NAME, PLACE, check_file
from dse.errors import BadInput
from dse.inputs import MAX_TOML, parse_toml, read_text

if TYPE_CHECKING:
    from dse.profiles.profile import Profile
    from dse.search.match import Judged, Match
    from dse.space import Space


@click.command(name="match")
@click.argument("space", type=NAME, default="quickstart")
@click.option(
    "--loss", metavar="A,B,...", default="0.003,0.01,0.03,0.1", show_default=True,
    help="Accuracy budgets, nats per token.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Every algorithm and setting of the profile.")
@click.option(
    "--confirmation", metavar="PROFILE",
    help="Profile of the text that figures come from.  [default: <profile>-confirmation]",
)  # fmt: skip
@click.option(
    "--settings-only", is_flag=True,
    help="Print the chosen settings as a grid for `dse profile run --grid` (with -o: write that file), and stop.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=PLACE, metavar="DIR",
    help="Folder to write.  [default: results/<space name>-match]",
)  # fmt: skip
@click.option(
    "--replace", "again", is_flag=True, help="Replace a comparison of another space or profile there."
)
@common("set", "jobs", "json", "quiet", "debug")
@click.pass_obj
def command(
    environment: Environment,
    space: str,
    loss: str,
    everything: bool,
    confirmation: str | None,
    settings_only: bool,
    output: Path | None,
    again: bool,
    overrides: tuple[str, ...],
    jobs: int,
) -> None:
    """Compare the algorithms of SPACE at equal accuracy.

    For every budget each algorithm's fastest setting is chosen on the profile of the space. What is reported of it,
    loss and cost, was measured on other text: the confirmation profile. Settings of one budget that share a letter
    lose alike: window by window, their difference is zero within its 95 % interval.
    """
    from dse.search.match import choose, match, with_everything
    from dse.search.match_files import check_directory, check_folder, info, settings_toml, write_match
    from dse.space import load_space

    budgets = _budgets(loss)
    chosen = load_space(space, overrides)
    if everything:
        chosen = with_everything(chosen)
    if settings_only:
        _check_settings_only(environment, output)
        with environment.progress_bar() as progress:
            picks, _ = choose(chosen, budgets, jobs=jobs, progress=progress)
        _write_settings(environment, output, settings_toml(chosen, picks, chosen.profile.name))
        return
    judge = _confirmation(chosen, confirmation, _spelt(space, loss, everything, None, overrides))
    directory = output or Path("results") / f"{chosen.name}-match"
    check_directory(directory)
    spelt = _spelt(space, loss, everything, confirmation, overrides)
    with environment.progress_bar() as progress:
        found = match(chosen, judge, budgets, jobs=jobs, progress=progress, command=spelt)
    check_folder(directory, found.search.info["space_digest"], again)
    title = _title(replace(found.space, table=judge), found)
    write_match(directory, found, spelt, lambda folder: _draw(found, title, folder), again)
    if environment.json:
        environment.print_json(info(found, spelt))
    _show(environment, found, title)
    environment.print(f"All of it is in {directory}.")


def _check_settings_only(environment: Environment, output: Path | None) -> None:
    """Raise where the settings cannot be written there, or an option was given that is of the comparison."""
    refuse_unused(
        {"confirmation": "--confirmation", "again": "--replace"},
        "--settings-only stops before the comparison",
    )
    if environment.json:
        raise BadInput("dse match: --json: has no effect here; --settings-only writes TOML")
    if output is None:
        return
    check_file(output)
    if output.exists() and not _is_settings(output):
        raise BadInput(
            f"{output}: is no grid of settings; nothing was overwritten, choose another file with --output"
        )


def _is_settings(path: Path) -> bool:
    """Whether a file is a grid of settings, which may be replaced."""
    try:
        table, _ = parse_toml(str(path), read_text(path, MAX_TOML, ""))
    except BadInput:
        return False
    return list(table) == ["grid"]


def _budgets(text: str) -> tuple[float, ...]:
    try:
        budgets = tuple(float(part) for part in text.split(","))
    except ValueError:
        budgets = ()
    if (
        not budgets
        or not all(0 < budget < math.inf for budget in budgets)
        or len(set(budgets)) < len(budgets)
    ):
        raise BadInput(
            f"--loss {text}: must be positive numbers, each once, with commas between them, such as 0.003,0.01"
        )
    return budgets


def _confirmation(space: Space, named: str | None, spelt: str) -> Profile:
    """The profile that was named, or the one that the naming rule gives."""
    from dse.profiles.naming import TEXTS, USUAL_PHASE, ProfileName
    from dse.profiles.store import load_profile, shipped_profiles

    if named is not None:
        return load_profile(named)
    profile = space.workload.profile
    is_path = "/" in profile or profile.endswith(".npz")
    own = ProfileName.parse(Path(profile).stem if is_path else profile)
    name = str(replace(own, part="confirmation"))
    beside = Path(profile).with_name(f"{name}.npz")
    if is_path and beside.is_file():
        return load_profile(beside)
    if not is_path and name in shipped_profiles():
        return load_profile(name)
    options = [f"--context {space.workload.context}", f"--model {space.profile.provenance.model}"]
    options += [f"--text {own.text}"] * (own.text != TEXTS[0])
    options += [f"--phase {own.phase}"] * (own.phase != USUAL_PHASE)
    raise BadInput(
        f"confirmation profile {str(beside) if is_path else name!r}: not there; name one with --confirmation, or "
        f"measure it: {spelt} --settings-only -o settings.toml, then dse profile run --grid settings.toml "
        f"--part confirmation --name {name} {' '.join(options)} -o {name}; then add "
        f"--confirmation {name}/{name}.npz"
    )


def _write_settings(environment: Environment, path: Path | None, text: str) -> None:
    from dse.results import write_text

    if path is None:
        environment.stdout.write(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
    environment.remark(f"wrote {path}")


def _spelt(
    space: str, loss: str, everything: bool, confirmation: str | None, overrides: Sequence[str]
) -> str:
    words = ["dse", "match", space, "--loss", loss]
    words += ["--all"] * everything
    words += ["--confirmation", confirmation] if confirmation else []
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)


def _title(space: Space, found: Match) -> str:
    from dse.cli.runs import title

    designs = {tuple(row.pick.design.values()) for row in found.rows}
    context = space.profile.context_index(space.workload.context)
    where = "one design" if len(designs) == 1 else "each on its best design of the space"
    return (
        f"{title(space)}; {where}\nsettings chosen on {found.search.info['profile']['name']}, figures from "
        f"{found.confirmation.name} ({found.confirmation.window_counts[context]} windows)"
    )


def _draw(found: Match, title: str, folder: Path) -> None:
    from dse.charts.match import match_figure
    from dse.charts.style import save

    for suffix in ("png", "svg"):
        save(match_figure(found, title), folder / f"match.{suffix}")


def _show(environment: Environment, found: Match, title: str) -> None:
    from dse.charts.labels import brief
    from dse.cli.table import Column, fixed, layout

    def loss(row: Judged) -> str:
        mean, low, high = row.loss
        half = f" ±{max(high - mean, mean - low):.4f}" if high == high else ""
        return f"{mean:.4f}{half}{ {'yes': '', 'open': ' ?', 'no': ' !'}[row.kept] }"

    defaults = found.confirmation.defaults
    rows: list[dict[str, Any]] = []
    for row in found.rows:
        pick = row.pick
        usual = defaults.get(pick.algorithm, {})
        knobs = {k: v for k, v in pick.knobs.items() if v != usual.get(k)}
        rows.append({
            "budget": f"{pick.budget:g}",
            "algorithm": pick.algorithm + (" *" if pick.oracle else ""),
            "gain": row.gain,
            **row.figures,
            "loss": loss(row),
            "chosen": pick.loss[0],
            "letters": row.letters,
            "knobs": " ".join(f"{k}={brief(v)}" for k, v in knobs.items()) or "defaults",
        })  # fmt: skip
    columns = (
        Column("budget", "budget", "nats", text=str),
        Column("algorithm", "algorithm", text=str, left=True),
        Column("gain", "vs dense", "x", text=fixed(2)),
        Column("speedup", "speedup", "x", text=fixed(2)),
        Column("loss", "loss on", "other text", text=str, left=True),
        Column("letters", "same", "loss", text=str, left=True),
        Column("chosen", "where", "chosen", text=fixed(4), priority=3),
        Column("energy_saving", "energy", "x less", text=fixed(2), priority=1),
        Column("dram_reduction", "DRAM", "x less", text=fixed(2), priority=2),
        Column("knobs", "knobs", text=str, left=True, shrink_to=18, wrap=True),
    )
    for line in title.splitlines():
        environment.print(environment.style(line, dim=True))
    shown = layout(rows, columns, environment.columns)
    for number, line in enumerate(shown.lines):
        environment.print(environment.style(line, bold=True) if number < shown.headers else line)
    environment.print(
        "same letter within a budget: losses not told apart, window by window (each pair at 95 %)"
    )
    marks = {row.kept for row in found.rows}
    if "open" in marks:
        environment.print("? the interval of the loss reaches beyond the budget")
    if "no" in marks:
        environment.print("! loses more than the budget on the other text")
    if any(row.pick.oracle for row in found.rows):
        environment.print("* an oracle: knows what no machine knows, its decisions cost nothing")
    for budget in found.budgets:
        names = [name for b, name in found.absent if b == budget]
        if names:
            environment.print(f"no setting within {budget:g}: {', '.join(names)}")
    for sentence in _sentences(found):
        environment.print(environment.style(sentence, bold=True))


def _sentences(found: Match) -> list[str]:
    from dse.search.match import leaders
    from dse.search.report import WORTH

    lines = []
    for budget, best, distinct in leaders(found):
        if best is None or best.gain != best.gain:
            continue
        ahead = best.gain > WORTH
        verdict = (
            f"{best.gain:.2f}x over dense attention" if ahead else f"nothing pays ({best.gain:.2f}x at best)"
        )
        loss = "their losses differ" if distinct else "their losses cannot be told apart"
        kept = {"yes": "", "open": ", budget not certain", "no": ", budget exceeded"}[best.kept]
        name = f"{best.pick.algorithm} " if ahead else ""
        lines.append(f"Within {budget:g} nats: {name}{verdict}; {loss}{kept}.")
    return lines
