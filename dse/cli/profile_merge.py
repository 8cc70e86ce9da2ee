"""`dse profile merge`: one profile of several that were measured apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from dse.cli.environment import Environment
from dse.cli.options import common
from dse.cli.places import PLACE
from dse.cli.profile_options import new_file


@click.command()
@click.argument("profiles", nargs=-1, required=True, metavar="PROFILE...")
@click.option("--name", help="Name of the merged profile.  [default: the first one's]")
@click.option("-o", "--output", type=PLACE, required=True, help="File to write (.npz).")
@common("json", "quiet", "debug")
@click.pass_obj
def merge(environment: Environment, profiles: tuple[str, ...], name: str | None, output: Path) -> None:
    """Join profiles of one model and text: the settings and contexts that any of them holds.

    PROFILE is a shipped profile's name or an .npz file. Where two hold the same setting at the same context they
    must have measured the same.
    """
    from dse.profiles.coverage import coverage
    from dse.profiles.merge import merge_all
    from dse.profiles.store import load_profile, write_profile

    new_file(output)
    parts = [load_profile(profile) for profile in profiles]
    name = name or parts[0].name
    merged = merge_all(replace(part, name=name) for part in parts)
    write_profile(output, merged)
    held = {c.context: {a: n for a, n in c.settings.items() if n} for c in coverage(merged)}
    if environment.json:
        environment.print_json({"profile": str(output), "checksum": merged.checksum, "measured": held})
        return
    for context, counts in held.items():
        environment.print(f"context {context}: " + ", ".join(f"{a} {n}" for a, n in counts.items()))
    environment.remark(f"wrote {output}")
