"""The rules of the house, enforced: which way imports go, who may import what, what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "synth_pipeline"
FILES = sorted(PACKAGE.rglob("*.py"))

BOTTOM = {"schema", "settings", "errors", "rng", "plugins", "progress", "series", "storage", "__init__"}
"""Import nothing of ours outside this row."""
DOMAIN: dict[str, set[str]] = {
    "venues": set(),
    "archives": set(),
    "capture": {"venues", "archives"},
    # windows of the store are found through the manifests of their days
    "ticks": {"venues", "archives", "capture", "lineage"},
    "bars": set(),
    "features": set(),
    "generators": {"features"},
    "market": {"ticks", "generators"},
    "exchange": {"venues", "archives", "capture", "ticks", "market"},
    "synthesis": {"features", "generators", "market", "fidelity"},
    "fidelity": set(),
    # tables of any tool are read by the names that bars have, and severity is told by regime
    "reports": {"fidelity", "bars", "features"},
    "lineage": set(),
}
"""Domain packages and the few others that each may import sideways."""
FACES: dict[str, set[str]] = {
    "stages": set(DOMAIN),
    "orchestration": {*DOMAIN, "stages"},
    # `run`, `demo` and `up` execute and serve the graph that orchestration defines.
    "cli": {*DOMAIN, "stages", "orchestration"},
    "__main__": {"cli"},
}
ALLOWED = DOMAIN | FACES

ONLY_IN = {
    "dagster": {"orchestration"},
    "mlflow": {"lineage"},
    "torch": {"generators", "fidelity", "rng"},
    "pytorch_lightning": {"generators"},
    "typer": {"cli"},
    "fastapi": {"service"},
    "socket": {"orchestration"},
    "websockets": {"capture", "exchange"},
    "prometheus_client": {"capture"},
    "random": set(),
}
"""Libraries and the only parts of the package that may import them."""


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> list[str]:
    """Return every imported module of a file, inside functions too, as dotted names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    part = _part(path)
    for name in _imports(path):
        if not name.startswith("synth_pipeline."):
            continue
        other = name.split(".")[1]
        if (
            other in BOTTOM
            or other == part
            or (not (PACKAGE / other).exists() and not (PACKAGE / f"{other}.py").exists())
        ):
            continue
        assert part not in BOTTOM, f"{path.name} is of the bottom row and imports {name}"
        assert other in ALLOWED[part], f"{part} may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    for name in _imports(path):
        library = name.split(".")[0]
        if library in ONLY_IN:
            assert _part(path) in ONLY_IN[library], f"{path} imports {library}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_randomness_and_clocks_come_from_one_place(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    if path.name != "rng.py":
        makers = {call for call in calls if call.startswith(("np.random.", "numpy.random."))}
        assert not makers, f"{path} makes randomness: {makers}"
    assert not {call for call in calls if call in {"torch.manual_seed", "np.random.seed"}} or path.name == "training.py"
    if path.name != "workspace.py":
        assert not calls & {"datetime.now", "time.time", "datetime.utcnow", "date.today"}, f"{path} reads the clock"
    if path.name != "settings.py" and _part(path) not in {"orchestration", "lineage"}:
        assert "os.environ" not in source, f"{path} reads the environment"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_readable(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 500
    assert ast.get_docstring(ast.parse(source)), f"{path} does not say what it is"
    assert path.stem not in {"utils", "helpers", "common", "manager"}


@pytest.mark.parametrize(
    "module",
    ["synth_pipeline", "synth_pipeline.cli", "synth_pipeline.stages", "synth_pipeline.orchestration.definitions"],
)
def test_heavy_libraries_load_only_when_used(module: str) -> None:
    heavy = ("torch", "mlflow", "pytorch_lightning", "statsmodels", "arch", "sklearn", "matplotlib", "polars")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_help_and_listings_load_nothing_heavy() -> None:
    code = (
        "import sys; from synth_pipeline.cli import app\n"
        "for words in (['--help'], ['generators'], ['venues'], ['run', '--help']):\n"
        "    try: app(words)\n"
        "    except SystemExit: pass\n"
        "heavy = ('torch', 'mlflow', 'dagster', 'numba', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "[]"


def test_every_command_generator_and_setting_is_in_the_readme() -> None:
    from synth_pipeline import generators, plugins, venues
    from synth_pipeline.cli import app

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    missing = [
        name for name in (*commands, *plugins.names(generators), *plugins.names(venues)) if f"`{name}" not in readme
    ]
    assert not missing


def test_contributing_stays_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 60
