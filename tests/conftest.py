"""Shared fixtures: where real data are, a home of its own for every test, one small simulated day."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# Each of two workers on two cores with threads of its own for every core made the tests of learners take eight times
# as long. Set before a library that reads it is loaded; workers, and commands that tests start, take it over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace

# The first example of a kernel includes its compilation, and the same commit should give the same verdict everywhere.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

_BESIDE = Path(__file__).parents[2] / "shared" / "data"
REAL_DATA = Path(os.environ.get("SYNTH_REAL_DATA", _BESIDE))
"""Recorded captures; a fresh clone has none, and the tests that need them are skipped by name."""


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Return a real file by name, or skip the test."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"real data file {name} is not in {REAL_DATA} (set SYNTH_REAL_DATA)")
        return path

    return find


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a home of its own, without tracking."""
    return Settings(home=tmp_path / "home", tracking=False)


@pytest.fixture
def workspace(settings: Settings) -> Workspace:
    """A workspace in a home of its own, without tracking."""
    return Workspace.of(settings)
