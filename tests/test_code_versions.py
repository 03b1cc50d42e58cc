"""The code version of what a plug-in made covers whatever code the plug-in imports, so that no edit goes unnoticed."""

from __future__ import annotations

import ast
import importlib
from datetime import date
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import synth_pipeline
from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError
from synth_pipeline.lineage import digests
from synth_pipeline.lineage.digests import code_version
from synth_pipeline.market import flows
from synth_pipeline.schema import Instrument
from synth_pipeline.stages import models

PACKAGE = Path(synth_pipeline.__file__).parent
# What they do changes no figure: words of errors, discovery, progress bars.
SILENT = {"errors.py", "plugins.py", "progress.py"}
# What it reads has a digest of its own.
BORDER = PACKAGE / "ticks" / "messages.py"


def test_a_checkpoint_names_the_files_of_another_generator_that_its_own_imports() -> None:
    assert "generators/wgan_gp.py" in models.fit_sources("conditional_gan")
    assert "generators/garch.py" not in models.fit_sources("wgan_gp")


@pytest.mark.parametrize("name", plugins.names(generators))
def test_a_checkpoint_names_all_that_its_generator_imports(name: str) -> None:
    assert reached(PACKAGE / "generators" / f"{name}.py") <= files(models.fit_sources(name)) | SILENT


@pytest.mark.parametrize("name", plugins.names(flows))
def test_a_calibration_names_all_that_its_flow_imports(name: str) -> None:
    calibrate = importlib.import_module("synth_pipeline.stages.calibrate")
    named = files((*calibrate.sources_of(name), *calibrate._SOURCES))
    assert reached(PACKAGE / "market" / "flows" / f"{name}.py") <= named | SILENT


def test_the_text_and_the_syntax_tree_agree_on_what_is_imported() -> None:
    for package in (generators, flows):
        folder = Path(package.__path__[0])
        for name in plugins.names(package):
            beside = {Path(file).stem for file in reached(folder / f"{name}.py") if (PACKAGE / file).parent == folder}
            assert beside <= set(plugins.files_of(package, name))


def files(sources: tuple[str, ...]) -> set[str]:
    return {path.relative_to(PACKAGE).as_posix() for name in sources for path in digests._files(name)}


def reached(start: Path) -> set[str]:
    """Return the files that one imports, directly or not, but for the sake of type hints alone."""
    found, waiting = set[Path](), {start}
    while waiting:
        found |= waiting
        waiting = set[Path]().union(*map(imported, waiting - {BORDER})) - found
    return {path.relative_to(PACKAGE).as_posix() for path in found}


@cache
def imported(path: Path) -> frozenset[Path]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hints = {inner for node in ast.walk(tree) if of_hints(node) for inner in ast.walk(node)}
    found = set[Path | None]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in hints:
            module = node.module or ""
            found |= {file_of(f"{module}.{each.name}") or file_of(module) for each in node.names}
    return frozenset(each for each in found if each)


def of_hints(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def file_of(module: str) -> Path | None:
    first, *rest = module.split(".")
    path = PACKAGE.joinpath(*rest)
    if first != "synth_pipeline":
        return None
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def test_plain_imports_of_the_package_would_be_missed() -> None:
    """`reached` and `plugins.files_of` read `from … import`; a plain import of a part would escape both."""
    for package in (generators, flows):
        assert not [path for path in plain_imports(package) if path.suffix == ".py"]


def plain_imports(package: ModuleType) -> list[Path]:
    return [path for path in Path(package.__path__[0]).glob("*.py") if "import synth_pipeline." in path.read_text()]


def test_a_checkpoint_that_earlier_code_made_and_this_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Path) -> Any:
        raise KeyError("slopes")

    monkeypatch.setattr(plugins.load(generators, "garch"), "load", load)
    made = SimpleNamespace(ref="checkpoints/A/2025-01-06/garch", code_version="0.1.0+earlier")
    workspace: Any = SimpleNamespace(require=lambda *_: made, file=lambda *_: Path("absent"))
    asked = (workspace, Instrument("file", "A"), date(2025, 1, 6), "garch")
    with pytest.raises(InputError, match=r"garch was made by code 0\.1\.0\+earlier and 0\.1\.0\+\w+ .* fit it again"):
        models.load_generator(*asked)
    made.code_version = code_version(*models.fit_sources("garch"))
    with pytest.raises(KeyError):  # a fault of ours
        models.load_generator(*asked)
