"""Every kind of chart besides the front: what its numbers are, that its text says so, and that nothing is cut off."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli.synthetic import synthetic_profile
from matplotlib.figure import Figure
from search.tiny_prefill import prefill_profile

from dse.charts.breakdown import Explained, breakdown_figure, energies, roofline_figure, times
from dse.charts.cloud import Cloud
from dse.charts.front import Fronts, front_figure
from dse.charts.hypervolume import Growth, hypervolume_figure
from dse.charts.importance import FRONT, importance_figure
from dse.charts.marks import knee
from dse.charts.parallel import parallel_figure, usual_axes
from dse.charts.published import Published
from dse.charts.response import fetched_bytes, response_figure, responses
from dse.charts.streams import Stream, streams_figure
from dse.charts.style import STYLES, save, styled
from dse.charts.waterfall import Step, waterfall_figure
from dse.charts.winner import cell, winner_figure
from dse.errors import BadInput
from dse.profiles.profile import Profile
from dse.space.definition import Limits


def story(memory: float = 3e-5, multipliers: float = 2e-5) -> dict[str, Any]:
    """A point that waits for memory while it reads K, and for multipliers after."""
    return {
        "phases_s": {"first": {"memory": memory, "multipliers": 1e-5}, "second": {"memory": 0.0, "multipliers": multipliers}},
        "phase_bound": {"first": "memory", "second": "multipliers"},
        "series_s": {"start of K": 4e-6, "selection": 1e-6},
        "busy_s": {"memory": memory, "multipliers": 1e-5 + multipliers, "value multipliers": 0.0},
        "alone_s": memory + multipliers + 5e-6 + 2e-6,
        "overlap_s": 3e-6,
        "metrics": {"attention_s": memory + multipliers + 4e-6, "batch": 1.0},
        "energy_j": {"dram key": 2e-4, "dram value": 1e-4, "dram background": 5e-5, "sram key": 1e-5,
                     "multiply q x k": 3e-5, "leakage sram": 1e-6, "exponents": 2e-7},
        "dram_bytes": {"key": 7e6, "value": 3e6},
    }  # fmt: skip


POINTS = [
    Explained("dense", "dense 8-bit; loss 0.0025", story(5e-5), 2e7, 256e9),
    Explained("token-picker", "token-picker threshold=0.003 6+6; loss 0.0095", story(), 1e7, 256e9),
    Explained("spatten", "spatten keep=0.5; loss 0.008", story(4e-5, 3e-5), 1.5e7, 256e9),
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return prefill_profile(tmp_path_factory.mktemp("prefill"))


def words(figure: Figure, folder: Path) -> str:
    """Everything that is written in a figure, from its SVG."""
    text = save(figure, folder / "chart.svg").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"<(?:text|tspan)[^>]*>([^<]+)", text))


def test_parts_of_a_step_sum_to_its_time_and_energy() -> None:
    told = story()
    assert sum(times(told).values()) == pytest.approx(told["alone_s"])
    assert times(told)["heads bound otherwise"] == pytest.approx(2e-6)
    assert sum(energies(told).values()) == pytest.approx(sum(told["energy_j"].values()))
    assert energies(told)["DRAM: standing"] == 5e-5


def test_a_breakdown_names_parts_points_and_units(tmp_path: Path) -> None:
    text = words(breakdown_figure(POINTS, "tiny"), tmp_path)
    for expected in ("memory, with K", "multipliers, with V", "DRAM: keys", "time of attention, one step (µs)",
                     "energy of one step (µJ)", "step, heads overlapped"):  # fmt: skip
        assert expected in text
    assert "other logic" not in text, "parts too thin to see have no entry"


def test_no_point_lies_above_its_roof() -> None:
    axes = roofline_figure(POINTS).axes[0]
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert len(marks) == len(POINTS)
    for mark, point in zip(marks, POINTS, strict=True):
        x, y = float(mark.get_xdata()[0]), float(mark.get_ydata()[0])  # type: ignore[index]
        assert x == pytest.approx(point.macs / 1e7)
        assert y * 1e9 <= x * point.peak_bytes_s
        assert y * 1e9 <= point.macs / point.story["busy_s"]["multipliers"]


def test_streams_say_what_is_filled(tmp_path: Path) -> None:
    streams = [Stream("dense", "V", 1.0, 0.9), Stream("token-picker", "K chunk 1", 0.3, 0.6)]
    text = words(streams_figure(streams, {"hbm2 at random": ([0.1, 1.0], [0.4, 0.9])}), tmp_path)
    for expected in (
        "filled: values",
        "hollow: chunks of keys",
        "hbm2 at random",
        "of the peak bandwidth (%)",
    ):
        assert expected in text
    with pytest.raises(BadInput, match="nothing to draw"):
        streams_figure([], {})


def test_a_knob_moves_bytes_and_loss_together() -> None:
    profile = synthetic_profile()
    knob, series, held = responses(profile, "token-picker", by="chunks")
    assert knob == "threshold"
    assert len(series) == 4
    assert "chunks" not in held
    assert set(held) <= {"margin"}
    for one in series:
        assert len(one.values) == 5
        assert list(one.values) == sorted(one.values)  # type: ignore[type-var]
        assert all(np.diff(one.loss) >= 0)
        assert all(np.diff(one.fetched) <= 0)
        assert all(f <= d for f, d in zip(one.fetched, one.dense, strict=True))


def test_dense_attention_of_a_prompt_fetches_what_every_query_sees(prompts: Profile) -> None:
    for profile in (prompts, prompts.at_tile(16)):
        for grouped in (True, False):
            for row in range(len(profile.settings)):
                moved, dense = fetched_bytes(profile, row, profile.contexts[0], grouped)
                if profile.settings[row].algorithm == "dense":
                    assert moved == pytest.approx(dense)
                assert moved <= dense * (1 + 1e-9)


def test_dense_attention_fetches_what_it_holds() -> None:
    profile = synthetic_profile()
    for row in profile.rows("dense"):
        moved, dense = fetched_bytes(profile, row, 1024)
        assert moved == pytest.approx(dense)
    form = profile.settings[profile.rows("dense")[0]].form
    shape, n = profile.shape, float(profile.mean_context[0])
    plain = shape.layers * shape.kv_heads * n * shape.head_dim * (form.k_bits + form.v_bits) / 8
    assert fetched_bytes(profile, profile.rows("dense")[0], 1024)[1] >= plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("token-piker",), "no algorithm 'token-piker'; did you mean 'token-picker'?"),
        (("token-picker", "treshold"), "no knob 'treshold'; did you mean 'threshold'?"),
        (("token-picker", "lag"), "fewer than two values were measured"),
    ],
)
def test_a_response_that_cannot_be_had_is_explained(arguments: tuple[str, ...], message: str) -> None:
    profile = synthetic_profile()
    if arguments[-1] == "lag" and "lag" not in profile.knobs("token-picker"):
        message = "no knob 'lag'"
    with pytest.raises(BadInput, match=re.escape(message)):
        responses(profile, *arguments)


def test_what_is_fixed_stays_fixed_and_was_measured() -> None:
    profile = synthetic_profile()
    knob, _, held = responses(profile, "token-picker", fixed={"threshold": 1e-3})
    assert knob == "chunks"
    assert held["threshold"] == 1e-3
    for arguments, fixed, message in (
        ((), {"chunks": "nonsense"}, "token-picker.chunks: 'nonsense' was not measured; measured: "),
        ((), {"threshold": float("nan")}, "threshold: nan was not measured"),
        ((), {"chunks": [1]}, r"chunks: \[1\] was not measured"),
        (
            ("threshold",),
            {"threshold": 1e-3},
            "threshold: is drawn along its values; it cannot be fixed to 0.001",
        ),
        (("threshold", "chunks"), {"chunks": "6+6"}, "chunks: is drawn along its values"),
        (
            (),
            {name: values[0] for name, values in profile.knobs("token-picker").items()},
            "every knob is fixed",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            responses(profile, "token-picker", *arguments, fixed=fixed)


def test_texts_as_knob_values_are_ticks(tmp_path: Path) -> None:
    knob, series, _ = responses(synthetic_profile(), "token-picker", "chunks")
    text = words(response_figure("token-picker", knob, series), tmp_path)
    for expected in ("4+4+4", "6+6", "token-picker.chunks", "fetched (MB/step)", "(nats per token)"):
        assert expected in text


def test_parallel_axes_are_those_that_differ(tmp_path: Path, front: pd.DataFrame) -> None:
    front["hardware.dram"] = ["hbm2", "lpddr5"] * (len(front) // 2) + ["hbm2"] * (len(front) % 2)
    columns = usual_axes(front, ["speedup", "nll_increase"])
    assert "hardware.dram" in columns
    assert "hardware.lanes" not in columns, "it has one value"
    text = words(parallel_figure(front, columns), tmp_path)
    for expected in ("lpddr5", "(x)", "token-picker", "metrics: better is up"):
        assert expected in text
    with pytest.raises(BadInput, match="did you mean 'speedup'"):
        parallel_figure(front, ["spedup", "area_mm2"])


def test_roofs_are_of_attention_even_where_the_whole_model_is_priced() -> None:
    one, whole = story(), story()
    whole["dram_bytes"] = {**one["dram_bytes"], "weights": 9e8}
    places = []
    for told in (one, whole):
        figure = roofline_figure([Explained("dense", "dense", told, 1e7, 256e9)])
        (mark,) = (line for line in figure.axes[0].lines if line.get_marker() not in ("", "None", None))
        places.append(np.ravel(mark.get_xydata()))
    assert places[0] == pytest.approx(places[1])
    assert places[0][0] == pytest.approx(1e7 / 1e7)


def test_a_waterfall_says_each_gain_and_each_step(tmp_path: Path) -> None:
    text = words(
        waterfall_figure([Step("published", 2.28, "a paper"), Step("ours", 1.14), Step("whole", 1.2)]),
        tmp_path,
    )
    for expected in ("2.28x", "1.14x  (×0.50)", "1.20x  (×1.05)", "a paper", "gain (x)"):
        assert expected in text
    with pytest.raises(BadInput, match="at least two steps"):
        waterfall_figure([Step("published", 2.0)])


def figures(front: pd.DataFrame, kinds: Sequence[str] | None = None) -> dict[str, Figure]:
    """One figure of every kind (or of these), in the style around."""
    knob, series, _ = responses(synthetic_profile(), "token-picker", by="chunks")
    cloud = Cloud(
        "nll_increase", "speedup", np.float32([0.001, 0.01, 0.2]), np.float32([0.5, 1.0, 2.0]), 3, 3
    )
    run = Fronts("a", front, "tiny\nbaseline: dense", limits={"nll_increase": Limits(None, 0.1)})
    marks = [
        Published("token-picker", {"speedup": 2.28}, "DAC 2024"),
        Published("absent", {"speedup": 1.0}, "-"),
    ]
    made: dict[str, Callable[[], Figure]] = {
        "front": lambda: front_figure([run], cloud=cloud, published=marks),
        "sized": lambda: front_figure(
            [run], x="area_mm2", y="energy_j", size="nll_increase", colour="speedup"
        ),
        "breakdown": lambda: breakdown_figure(POINTS, "tiny"),
        "roofline": lambda: roofline_figure(POINTS, "tiny"),
        "dram": lambda: streams_figure([Stream("dense", "V", 1.0, 0.9)], {}, "tiny"),
        "knobs": lambda: response_figure("token-picker", knob, series, "tiny"),
        "parallel": lambda: parallel_figure(front, ["speedup", "nll_increase", "area_mm2"], "tiny"),
        "winner": lambda: winner_figure(
            [cell(front, 0.01, c, b) for c in (512, 1024) for b in (1, 4)], "context", "batch", 0.01
        ),
        "hypervolume": lambda: hypervolume_figure(
            [Growth("a-study-with-a-long-name", (1.0, 9.0), (0.1, 0.3))],
            {"sweep": 0.5},
            {"speedup": 0.0, "nll_increase": 0.3},
            title="tiny",
        ),
        "importance": lambda: importance_figure(
            {FRONT: {"token-picker.threshold": 0.7, "hardware.lanes": 0.3}}, "tiny\nPED-ANOVA"
        ),
        "waterfall": lambda: waterfall_figure(
            [Step("published", 2.28, "a paper"), Step("over the best dense", 1.1)], "tiny"
        ),
    }
    return {name: make() for name, make in made.items() if kinds is None or name in kinds}


@pytest.mark.parametrize(
    ("style", "kinds"),
    [("paper", None), *((s, ("front", "breakdown")) for s in STYLES if s != "paper")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_fits_its_page_and_is_legible(
    front: pd.DataFrame, style: str, kinds: tuple[str, ...] | None
) -> None:
    """All kinds on paper; a legend beside one plot and beside two, in every style."""
    with styled(style) as chosen:
        for name, figure in figures(front, kinds).items():
            figure.draw_without_rendering()
            page = figure.bbox
            for box in [a.get_tightbbox() for a in figure.axes] + [
                x.get_window_extent() for x in figure.legends
            ]:
                assert box is not None
                assert box.x0 >= page.x0 - 2, name
                assert box.x1 <= page.x1 + 2, name
                assert box.y0 >= page.y0 - 2, name
                assert box.y1 <= page.y1 + 2, name
            for legend in figure.legends:
                lowest = min(a.get_tightbbox().y0 for a in figure.axes)  # type: ignore[union-attr]
                assert legend.get_window_extent().y1 <= lowest + 1, name
            texts = figure.findobj(match=lambda a: hasattr(a, "get_fontsize"))
            assert min(t.get_size() for t in texts) >= 6 * chosen.scale, name  # type: ignore[attr-defined]


def test_charts_repeat_to_the_byte(tmp_path: Path, front: pd.DataFrame) -> None:
    names = ("front", "breakdown", "parallel", "importance", "hypervolume")
    one, two = figures(front, names), figures(front, names)
    for name in names:
        first, second = (
            save(f[name], tmp_path / f"{name}-{i}.svg").read_bytes() for i, f in enumerate((one, two))
        )
        assert first == second, name


def test_a_dark_chart_is_light_on_dark(tmp_path: Path, front: pd.DataFrame) -> None:
    with styled("dark"):
        figure = front_figure([Fronts("a", front)])
    assert max(figure.get_facecolor()[:3]) < 0.2
    with pytest.raises(BadInput, match="did you mean 'slide'"), styled("slid"):
        pass


def test_constraints_and_published_points_are_in_the_legend(tmp_path: Path, front: pd.DataFrame) -> None:
    text = words(figures(front, ("front",))["front"], tmp_path)
    assert "outside the constraints: above 0.1 nats per token" in text
    assert "published: token-picker 2.28 x (DAC 2024)" in text.replace("\n", " ")
    assert "absent" not in text
    assert "3 points, darker: more" in text


def test_the_knee_bends_towards_the_better_corner() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    x = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    outward, inward = np.array([0.0, 5.0, 8.0, 9.0, 10.0]), np.array([0.0, 0.1, 0.2, 0.3, 10.0])
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    assert knee(axes, x, outward) == 2
    assert knee(axes, x, inward) is None
    assert knee(axes, x[:2], outward[:2]) is None
    # The same front with x maximised and y minimised is met from the other side.
    assert knee(axes, x[::-1], outward[::-1]) is None
    # Mirrored in both, the better corner is the one that the mirrored front bends to.
    assert knee(axes, -x, -outward) == 2
    assert knee(axes, -x, -inward) is None
