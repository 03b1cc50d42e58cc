"""The README's figures are those that the benchmarks printed, and nobody's typing."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "readme_figures.py"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_figures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_made_from_the_documents(figures: ModuleType) -> None:
    readme = figures.README.read_text(encoding="utf-8")
    assert figures.filled(readme, figures.documents()) == readme


def _document(value: float | None, met: bool, note: str = "") -> dict[str, Any]:
    claim = {"id": "speed", "what": "pages/s", "value": value, "bar": 5.0, "goal": "high", "met": met, "note": note}
    return {"machine": {"cpu": "C", "cores": 2, "memory_gib": 8.0}, "claims": [claim]}


def test_what_falls_short_says_so(figures: ModuleType) -> None:
    assert "**falls short**" in figures.table([_document(4.0, met=False)])
    assert "**falls short**" not in figures.table([_document(6.0, met=True)])
    assert "not measured | ≥ 5 | **falls short** no peer |" in figures.table(
        [_document(None, met=False, note="no peer")]
    )


def test_large_figures_are_written_out(figures: ModuleType) -> None:
    assert "| 119,092 |" in figures.table([_document(119_092.3, met=True)])
    assert "| 0.2604 |" in figures.table([_document(0.260442, met=True)])


def test_a_readme_without_a_place_for_them_is_refused(figures: ModuleType) -> None:
    with pytest.raises(ValueError, match="the table stands between"):
        figures.filled("nothing here", [])
