"""Which of several things cannot be told apart, where being alike is not transitive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def groups(names: Sequence[str], alike: Mapping[str, Sequence[str]]) -> list[frozenset[str]]:
    """The largest sets of which no two members can be told apart, in the order of `names`.

    "Alike" is not transitive, so a name may be in several. Every name is in one at least.

    Args:
        alike: name -> the names it cannot be told apart from; symmetric.
    """
    found: list[frozenset[str]] = []

    def grow(group: frozenset[str], candidates: frozenset[str], excluded: frozenset[str]) -> None:
        # Bron and Kerbosch (1973): maximal cliques of a small graph.
        if not candidates and not excluded:
            found.append(group)
        for name in sorted(candidates):
            near = frozenset(alike[name])
            grow(group | {name}, candidates & near, excluded & near)
            candidates, excluded = candidates - {name}, excluded | {name}

    grow(frozenset(), frozenset(names), frozenset())
    return sorted(found, key=lambda g: sorted(names.index(n) for n in g))
