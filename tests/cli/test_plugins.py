"""Algorithms from outside: a package is built and installed, then measured, priced and swept like a built-in one."""

from __future__ import annotations

import base64
import hashlib
import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure.conftest import tiny_llama

import dse.algorithms as algorithms
from cli.conftest import Dse
from dse.algorithms import plugins
from dse.algorithms.contract import Algorithm, Knob
from dse.algorithms.plugins import check_class, load_plugin
from dse.errors import BadInput
from dse.profiles.schema import Form

EXAMPLE = Path(__file__).parents[1] / "examples" / "strided"


def build_wheel(folder: Path, name: str, entry: str, sources: dict[str, str]) -> Path:
    """A pure wheel with one entry point: an archive of modules and their metadata, nothing more."""
    info = f"{name.replace('-', '_')}-0.1.dist-info"
    files = {
        **sources,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[dse.algorithms]\n{entry}\n",
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"
    wheel = folder / f"{name.replace('-', '_')}-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def install(wheel: Path, target: Path) -> None:
    """As pip does it; an environment without pip unpacks, which is all that installing a pure wheel is."""
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named pip" in done.stderr:
        zipfile.ZipFile(wheel).extractall(target)
        return
    assert done.returncode == 0, done.stderr


def example_wheel(folder: Path) -> Path:
    """The example of the README with the entry point that its pyproject.toml declares."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"]["dse.algorithms"].items()
    source = (EXAMPLE / "dse_strided.py").read_text()
    return build_wheel(folder, project["name"], f"{name} = {value}", {"dse_strided.py": source})


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever a test makes known is forgotten after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    plugins.installed.cache_clear()
    known = dict(algorithms._PLUGINS)
    yield
    algorithms._PLUGINS.clear()
    algorithms._PLUGINS.update(known)
    plugins.installed.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(("dse_strided", "outside")):
            del sys.modules[name]


def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    plugins.installed.cache_clear()


def test_the_example_is_about_thirty_lines() -> None:
    lines = (EXAMPLE / "dse_strided.py").read_text().splitlines()
    assert len(lines) <= 35


def test_the_readme_shows_the_example_as_it_is() -> None:
    readme = (EXAMPLE.parents[2] / "README.md").read_text(encoding="utf-8")
    source = (EXAMPLE / "dse_strided.py").read_text(encoding="utf-8")
    assert source in readme or "class Strided" not in readme


def test_an_installed_package_is_measured_priced_and_swept_like_a_built_in_one(
    clean: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import dse.measure.job as job_module
    import dse.measure.run as run_module
    from dse.measure.calibrate import calibrate, save_scales
    from dse.measure.grid import expand
    from dse.measure.material import Window
    from dse.search.sweep import sweep
    from dse.space import load_space

    target = tmp_path / "site"
    install(example_wheel(tmp_path), target)
    assert "strided" not in algorithms.registry()
    on_path(target, monkeypatch)
    assert algorithms.registry()["strided"].summary.startswith("recent tokens")
    assert algorithms.broken_plugins() == {}

    model = tiny_llama()
    rng = np.random.default_rng(1)
    chosen = [Window(f"text{i}", 0, rng.integers(0, 50, 65)) for i in range(3)]
    save_scales(tmp_path / "scales.npz", calibrate(model, chosen))
    model.sha256 = "00"
    for module in (job_module, run_module):
        monkeypatch.setattr(module, "loaded", lambda job: model)
        monkeypatch.setattr(module, "window_texts", lambda job, context, count=0: list(chosen))
    monkeypatch.setattr(run_module, "calibrated_on", lambda job: np.zeros(0, np.uint64))
    settings = [
        *expand({"algorithm": "dense", "k_bits": [8, 12], "v_bits": 12}, lambda *key: "grid"),
        *expand({"algorithm": "strided", "recent": [8, 16, 64], "stride": [2, 4]}, lambda *key: "grid"),
    ]
    job = job_module.Job(
        "tiny", "tiny", tuple(settings), (64,), 3, "selection", 0, tmp_path / "scales.npz", tmp_path / "out"
    )
    profile = run_module.measure(job, 1, lambda message, done, total: None)
    rows = profile.rows("strided")
    assert len(rows) == 6
    fetched = {
        (s.knobs["recent"], s.knobs["stride"]): float(profile.counter("group.v_rows")[i, 0].mean())
        for i in rows
        for s in [profile.settings[i]]
    }
    # By hand: a query at position t sees t + 1 tokens, the last `recent` and of the older ones those 0 mod `stride`.
    expected = np.mean([8 + len(range(0, t - 7, 4)) for t in range(48, 64)])
    assert fetched[8, 4] == pytest.approx(expected, rel=1e-3)
    assert fetched[8, 4] < fetched[8, 2] < fetched[64, 2]

    space = load_space(
        {
            "schema": 1,
            "workload": {"profile": "tiny", "context": 64},
            "algorithms": {"strided": {"recent": [8, 12, 16, 64], "stride": [2, 4]}},
            "hardware": {"base": "topick-gqa", "lanes": [24, 48]},
        },
        profile=profile,
    )
    result = sweep(space)
    assert result.info["algorithms"]["strided"]["points"] == 16
    assert result.info["algorithms"]["strided"]["interpolated"] == 2
    mine = result.front[result.front["algorithm"] == "strided"]
    assert len(mine)
    assert (mine["dram_reduction"] >= 1 - 1e-9).all()  # 64 recent tokens are all there are
    assert (mine["dram_reduction"] > 1.2).any()


def test_sweeping_needs_the_profile_and_not_the_package(clean: Any) -> None:
    """A profile is numbers: nothing is imported for an algorithm it names."""
    from cli.synthetic import synthetic_profile
    from dse.profiles.profile import build_profile
    from dse.profiles.schema import Setting
    from dse.search.sweep import sweep
    from dse.space import load_space

    base = synthetic_profile()
    renamed = [Setting(s.algorithm.replace("spatten", "outside"), s.knobs, s.form) for s in base.settings]
    fields = {f: getattr(base, f) for f in base.__dataclass_fields__ if f != "checksum"}
    defaults = {a.replace("spatten", "outside"): k for a, k in base.defaults.items()}
    profile = build_profile(**{**fields, "settings": renamed, "defaults": defaults})
    space = {
        "schema": 1,
        "workload": {"profile": "tiny", "context": 1024},
        "algorithms": {"outside": {"keep": [0.3, 0.5]}},
        "hardware": {"base": "topick-gqa"},
    }
    assert "outside" in set(sweep(load_space(space, profile=profile)).front["algorithm"])


def test_a_module_beside_the_user_is_named_on_the_command_line(
    dse: Dse, clean: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside.py").write_text((EXAMPLE / "dse_strided.py").read_text())
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    answer = dse("list", "algorithms", "--plugin", "outside:Strided", "--json")
    assert answer.code == 0, answer.stderr
    entry = next(e for e in answer.json if e["name"] == "strided")
    assert entry["knobs"]["stride"]["default"] == 4
    import pickle

    made = algorithms.build("strided", {"stride": 8})
    again = pickle.loads(pickle.dumps(made))  # as a worker process gets it
    assert again.settings == made.settings


def test_files_never_name_code(tmp_path: Path) -> None:
    from dse.measure.grid import load_grid

    (tmp_path / "outside.py").write_text("raise SystemExit('imported')")
    grid = tmp_path / "grid.toml"
    grid.write_text('[[grid]]\nalgorithm = "outside:Strided"\n')
    with pytest.raises(BadInput, match="load it with --plugin outside:Strided"):
        load_grid(str(grid))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("outside", "must be module:Class"),
        ("outside:", "must be module:Class"),
        ("out side:A", "must be module:Class"),
        ("../outside:A", "must be module:Class"),
        ("nowhere_to_be_found:A", "no module 'nowhere_to_be_found'"),
        ("outside:Missing", "outside has no 'Missing'"),
        ("outside:number", "3 is no subclass"),
        ("outside_needs:A", "cannot be imported (ModuleNotFoundError: No module named 'absent_thing')"),
        ("outside_raises:A", "cannot be imported (RuntimeError: at import)"),
        ("outside_ends:A", "cannot be imported (SystemExit: 3)"),
        ("outside:Dense", "'dense' is a built-in algorithm"),
    ],
)
def test_what_is_no_algorithm_is_refused_in_one_line(
    dse: Dse, clean: Any, tmp_path: Path, path: str, message: str
) -> None:
    (tmp_path / "outside.py").write_text("from dse.algorithms.dense import Dense\nnumber = 3\n")
    (tmp_path / "outside_needs.py").write_text("import absent_thing\n")
    (tmp_path / "outside_raises.py").write_text("raise RuntimeError('at\\nimport')\n")
    (tmp_path / "outside_ends.py").write_text("raise SystemExit(3)\n")
    answer = dse("list", "algorithms", "--plugin", path)
    assert answer.code == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


class Good(Algorithm):
    name = "good"
    summary = "x"
    source = "y"
    knobs = (Knob("a", 1, "a number", 0, 5),)

    def form(self) -> Form:
        return Form((8,), 8, 8)

    def attend(self, call: Any) -> Any:
        raise NotImplementedError


def changed(**attributes: Any) -> type[Algorithm]:
    return type("Changed", (Good,), attributes)


def fails(self: Any) -> Form:
    raise ZeroDivisionError("oh")


BAD = {
    "name: missing": changed(name=""),
    "name 'Good One'": changed(name="Good One"),
    "summary: missing": changed(summary=None),
    "knobs: must be a tuple": changed(knobs=[Knob("a", 1, "")]),
    "a name appears twice": changed(knobs=(Knob("a", 1, ""), Knob("a", 2, ""))),
    "does not implement form": type(
        "NoForm", (Algorithm,), {"name": "n", "summary": "s", "source": "s", "knobs": ()}
    ),
    "does not implement attend()": changed(attend=Algorithm.attend),
    "does not implement start()": changed(stateful=True),
    "defaults of its knobs are not valid": changed(knobs=(Knob("a", 9, "", 0, 5),)),
    "form() fails at the defaults (ZeroDivisionError: oh)": changed(form=fails),
    "form() returns None": changed(form=lambda self: None),
}


def test_the_contract_is_checked_as_far_as_it_shows() -> None:
    assert check_class(Good, "here") is Good
    for message, cls in BAD.items():
        with pytest.raises(BadInput) as caught:
            check_class(cls, "here")
        assert message in str(caught.value)
        assert str(caught.value).startswith("here: ")
        assert "\n" not in str(caught.value)


def test_a_broken_package_is_reported_where_it_is_asked_for_and_nowhere_else(
    dse: Dse, clean: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "site"
    raises = build_wheel(
        tmp_path, "dse-raises", "raises = outside_r:A", {"outside_r.py": "raise OSError('gone')"}
    )
    taken = build_wheel(
        tmp_path, "dse-taken", "dense = outside_t:Mine",
        {"outside_t.py": "from dse.algorithms.dense import Dense\nclass Mine(Dense):\n    pass\n"},
    )  # fmt: skip
    for wheel in (raises, taken):
        install(wheel, target)
    on_path(target, monkeypatch)
    assert algorithms.registry()["dense"].__module__ == "dse.algorithms.dense"
    answer = dse("list", "algorithms")
    assert answer.code == 0
    assert (
        "package dse-raises: entry point raises = outside_r:A: cannot be loaded (OSError: gone)"
        in answer.stderr
    )
    assert "outside_t: 'dense' is a built-in algorithm" in answer.stderr
    with pytest.raises(BadInput, match="dse-raises"):
        algorithms.build("raises")


def test_a_nested_path_is_followed(clean: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "outside_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text((EXAMPLE / "dse_strided.py").read_text())
    on_path(tmp_path, monkeypatch)
    assert load_plugin("outside_package.inner:Strided").name == "strided"
