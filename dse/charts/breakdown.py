"""Where the time and the energy of points go: stacked bars, and the roofs over what they reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dse.charts.scales import logarithmic
from dse.charts.sheet import sheet, wrapped
from dse.charts.style import RIVAL, colours, looks, shade, style
from dse.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR_INCHES: Final = 0.34
"""Height that a point takes."""

CAPTION_LETTERS: Final = 30
SMALL: Final = 0.005
"""Parts below this share of the longest bar go without a place in the legend."""

_PHASES: Final = {"prepare": "before K", "first": "with K", "second": "with V"}
_ENERGIES: Final = (
    # what a component's name begins with, in order; the first that fits takes it
    (("dram key",), "DRAM: keys"),
    (("dram value",), "DRAM: values"),
    (("dram background", "memory phy"), "DRAM: standing"),
    (("dram weights",), "DRAM: weights"),
    (("dram",), "DRAM: other"),
    (("sram",), "SRAM"),
    (("multiply", "projections"), "multiply-adds"),
    (("leakage",), "leakage"),
    (("",), "other logic"),
)
_RESOURCES: Final = (
    "memory",
    "multipliers",
    "value multipliers",
    "exponents",
    "answers",
    "lane logic",
    "scoreboard",
)


@dataclass(frozen=True)
class Explained:
    """One point and where its price comes from.

    Attributes:
        caption: what names it on an axis, short.
        story: as `dse.cost.explain.explain` tells it.
        macs: multiply-adds of a step, all chunks of a key together counted once.
        peak_bytes_s: peak bandwidth of its memory.
    """

    algorithm: str
    caption: str
    story: Mapping[str, Any]
    macs: float = 0.0
    peak_bytes_s: float = 0.0


def times(story: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by cause, heads one after another: what binds each phase, what is added, what uneven heads cost.

    They sum to ``alone_s``; heads in flight then hide ``overlap_s`` of it.
    """
    found: dict[str, float] = {}
    for phase, resource in story["phase_bound"].items():
        found[f"{resource}, {_PHASES[phase]}"] = story["phases_s"][phase][resource]
    found["start-up and waits"] = sum(story["series_s"].values())
    # The longest resource differs from head to head, so the sum of the longest exceeds the longest sum.
    found["heads bound otherwise"] = max(0.0, story["alone_s"] - sum(found.values()))
    return found


def energies(story: Mapping[str, Any]) -> dict[str, float]:
    """Joules by group of components; they sum to the energy of the step."""
    found: dict[str, float] = {}
    for name, joules in story["energy_j"].items():
        group = next(text for starts, text in _ENERGIES if name.startswith(starts))
        found[group] = found.get(group, 0.0) + joules
    return found


def attention_bytes(story: Mapping[str, Any]) -> float:
    """Bytes that attention moves in a step, the model's weights left out; 0 where all it reads lies in the buffers."""
    return float(sum(moved for name, moved in story["dram_bytes"].items() if name != "weights"))


def breakdown_figure(points: Sequence[Explained], title: str = "", width: float | None = None) -> Figure:
    """Two panels of stacked bars, time left and energy right, a bar per point.

    Raises:
        BadInput: no points.
    """
    if not points:
        raise BadInput("nothing to draw: no points to break down")
    from matplotlib.lines import Line2D

    with sheet(width, page=True) as paper:
        wide = paper.wide
        time_parts = [times(p.story) for p in points]
        energy_parts = [energies(p.story) for p in points]
        left, right = paper.figure.subfigures(1, 2, squeeze=False, width_ratios=(1.35, 1.0))[0]
        handles = []
        for part, stacks, scale, name, order in (
            (left, time_parts, 1e6, "time of attention, one step (µs)", None),
            (right, energy_parts, 1e6, "energy of one step (µJ)", [text for _, text in _ENERGIES]),
        ):
            axes = part.add_subplot()
            handles.append(_stack(axes, stacks, scale, order))
            axes.set_xlabel(name)
            axes.set_yticks(range(len(points)))
            axes.set_ylim(len(points) - 0.4, -0.6)
            captions = (
                [wrapped(p.caption, CAPTION_LETTERS) for p in points] if part is left else [""] * len(points)
            )
            axes.set_yticklabels(captions)
            axes.tick_params(axis="y", length=0)
        # Seconds of the step itself, after heads in flight have hidden some.
        for i, point in enumerate(points):
            seconds = point.story["metrics"]["attention_s"] * 1e6
            left.axes[0].plot([seconds] * 2, [i - 0.42, i + 0.42], color=shade(0.0), linewidth=1.6 * wide)
        handles[0].append(
            Line2D([], [], color=shade(0.0), linewidth=1.6 * wide, label="step, heads overlapped")
        )
        rows = max(-(-len(h) // 2) for h in handles)
        for part, entries in zip((left, right), handles, strict=True):
            # Equal legends keep the bars of both panels level.
            padding = [Line2D([], [], linestyle="none", label=" ") for _ in range(2 * rows - len(entries))]
            part.legend(
                handles=entries + padding, loc="outside lower center", ncols=2, frameon=False, handlelength=1.2,
                columnspacing=1.0,
            )  # fmt: skip
        title = paper.title(title)
        lines = max(
            BAR_INCHES,
            0.13 * max(p.caption.count("\n") + 1 + len(p.caption) // CAPTION_LETTERS for p in points),
        )
        height = (
            lines * len(points) + 0.16 * rows + 0.5 + 0.14 * (title.count("\n") + 1 if title else 0)
        ) * wide
        paper.figure.set_size_inches(paper.width, height)
        return paper.figure


def _stack(
    axes: Axes, stacks: Sequence[Mapping[str, float]], scale: float, order: Sequence[str] | None
) -> list[Any]:
    """Horizontal bars of named parts; returns handles of the parts that show."""
    from matplotlib.patches import Patch

    longest = max(sum(stack.values()) for stack in stacks)
    names = list(order) if order is not None else sorted({n for stack in stacks for n in stack}, key=_place)
    offsets = [0.0] * len(stacks)
    handles = []
    for number, name in enumerate(names):
        values = [stack.get(name, 0.0) for stack in stacks]
        if max(values) <= 0:
            continue
        kind = _fill(name, number)
        axes.barh(
            range(len(stacks)), [v * scale for v in values], left=[o * scale for o in offsets], height=0.62,
            edgecolor=shade(1.0), linewidth=0.3 * style().scale, **kind,
        )  # fmt: skip
        offsets = [o + v for o, v in zip(offsets, values, strict=True)]
        if max(values) >= SMALL * longest:
            handles.append(Patch(label=name, edgecolor=shade(1.0), linewidth=0.3, **kind))
    axes.set_xlim(0, 1.03 * max(offsets) * scale)
    return handles


def _place(name: str) -> tuple[int, int, str]:
    """Phases in the order they happen, each resource in a fixed order, what is added last."""
    resource, _, phase = name.partition(", ")
    known = list(_PHASES.values())
    if phase in known:
        return known.index(phase), _RESOURCES.index(resource) if resource in _RESOURCES else 99, name
    return 99, 0 if name == "start-up and waits" else 1, name


def _fill(name: str, number: int) -> dict[str, Any]:
    """Colour of a part: a resource keeps its own in both phases, hatched in the second."""
    inks = colours()
    resource, _, phase = name.partition(", ")
    if phase:
        at = _RESOURCES.index(resource) if resource in _RESOURCES else len(inks) - 1
        return {"facecolor": inks[at % len(inks)], "hatch": "////" if phase == _PHASES["second"] else None}
    if name == "start-up and waits":
        return {"facecolor": shade(0.55)}
    if name == "heads bound otherwise":
        return {"facecolor": shade(0.8)}
    return {"facecolor": inks[number % len(inks)], "hatch": "////" if number >= len(inks) else None}


def roofline_figure(points: Sequence[Explained], title: str = "", width: float | None = None) -> Figure:
    """Multiply-adds per second against multiply-adds per DRAM byte, under the roofs of each point's own design.

    Args:
        points: each moves some bytes (`attention_bytes`). All is of attention, whatever the scope of the price.

    Raises:
        BadInput: no points.
    """
    if not points:
        raise BadInput("nothing to draw: no points under the roofs")
    import numpy as np
    from matplotlib.lines import Line2D

    with sheet(width) as paper:
        wide = paper.wide
        axes = paper.axes()
        look = looks(p.algorithm for p in points)
        xs = [p.macs / attention_bytes(p.story) for p in points]
        ys = [p.macs / p.story["metrics"]["attention_s"] / 1e9 for p in points]
        roofs = [_roofs(p) for p in points]
        low, high = min(xs) / 2.5, max([*xs, *(c / b for b, c in roofs)]) * 2
        floor, top = min(ys) / 2.5, max(c for _, c in roofs) / 1e9 * 1.5
        grid = np.geomspace(low, high, 200)
        drawn: set[tuple[float, float]] = set()
        counts: dict[str, int] = {}
        handles: list[Any] = []
        for point, x, y, (bandwidth, compute) in zip(points, xs, ys, roofs, strict=True):
            ink, marker = look[point.algorithm]
            counts[point.algorithm] = counts.get(point.algorithm, 0) + 1
            if (bandwidth, compute) not in drawn:
                drawn.add((bandwidth, compute))
                axes.plot(
                    grid, np.minimum(grid * bandwidth, compute) / 1e9, color=ink, linewidth=0.8 * wide, alpha=0.8,
                    linestyle=(0, (4, 1.5)) if counts[point.algorithm] > 1 else "-",
                )  # fmt: skip
            # From the point up to its own roof: what it leaves unused.
            axes.plot(
                [x, x], [y, min(x * bandwidth, compute) / 1e9], color=ink, linewidth=0.6 * wide, linestyle=":"
            )
            face = ink if counts[point.algorithm] == 1 else shade(1.0)
            kind: Any = {
                "marker": marker,
                "markersize": 4.5 * wide,
                "markerfacecolor": face,
                "markeredgecolor": ink,
            }
            axes.plot([x], [y], linestyle="none", zorder=5, **kind)
            text = (
                f"{point.caption}; {100 * y * 1e9 / min(x * bandwidth, compute):.0f} % of its roof".replace(
                    "\n", " "
                )
            )
            handles.append(Line2D([], [], color=ink, label=text, linewidth=0.8 * wide, **kind))
        axes.set_xscale("log")
        logarithmic(axes, "x", low, high)
        logarithmic(axes, "y", floor, top)
        axes.set_xlim(low, high)
        axes.set_ylim(floor, top)
        axes.set_xlabel("multiply-adds per DRAM byte (1/B)")
        axes.set_ylabel("multiply-adds (G/s)")
        return paper.close(title, axes, handles)


def _roofs(point: Explained) -> tuple[float, float]:
    """Peak bandwidth, bytes/s, and multiply-adds per second of the multipliers if nothing ever held them up."""
    busy = point.story["busy_s"]
    seconds = max(busy["multipliers"], busy["value multipliers"])
    return point.peak_bytes_s, point.macs / seconds if seconds else float("inf")


def order(points: Sequence[Explained]) -> list[Explained]:
    """Dense first, then as given."""
    return sorted(points, key=lambda p: p.algorithm != RIVAL)
