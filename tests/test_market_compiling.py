"""Compiled kernels of the simulator are never those of other sources."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth_pipeline.features import kernels as outside
from synth_pipeline.market import compiling, engine

_CALLER = """
from synth_pipeline.market.compiling import kernel
from {package}.called import called

@kernel
def caller(number):
    return called(number) + 1
"""
_CALLED = """
from synth_pipeline.market.compiling import kernel

@kernel
def called(number):
    return number * {factor}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two files of kernels that stands in for `market`."""
    folder = tmp_path / "two_kernels"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "caller.py").write_text(_CALLER.format(package=folder.name))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(compiling, "_FOLDER", folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)  # numba reads its settings again when one has changed
    monkeypatch.setattr(compiling.config, "CACHE_DIR", "")
    yield folder
    _forget(folder)


def _forget(package: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _starts(package: Path, monkeypatch: pytest.MonkeyPatch, factor: int) -> object:
    """Return the caller as a process loads it that starts when the called function multiplies by `factor`."""
    (package / "called.py").write_text(_CALLED.format(factor=factor))
    monkeypatch.setattr(compiling, "_DIGEST", compiling.digest_of(package))
    _forget(package)
    return importlib.import_module(f"{package.name}.caller").caller


def test_a_change_in_a_called_file_reaches_its_callers(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for factor in (2, 3, 2):
        assert _starts(package, monkeypatch, factor)(10) == 10 * factor + 1  # type: ignore[operator]


def test_a_changed_environment_does_not_undo_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for factor in (2, 3):
        monkeypatch.setenv("NUMBA_ANYTHING", str(factor))  # numba reads its settings again at the next compilation
        assert _starts(package, monkeypatch, factor)(10) == 10 * factor + 1  # type: ignore[operator]


def test_a_process_of_older_sources_that_compiles_later_leaves_nothing_stale(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = _starts(package, monkeypatch, 2)
    newer = _starts(package, monkeypatch, 3)
    assert older(10) == 21  # type: ignore[operator]  # compiled and saved after the update
    assert newer(10) == 31  # type: ignore[operator]
    again = _starts(package, monkeypatch, 3)
    assert again(10) == 31  # type: ignore[operator]
    assert sum(again.stats.cache_hits.values()) == 1  # type: ignore[attr-defined]


def test_kernels_of_other_sources_are_removed_from_beside_them(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for factor in (2, 3):
        _starts(package, monkeypatch, factor)(1)  # type: ignore[operator]
    compiling._drop_others()
    kept = [path.name for path in package.rglob("*.nb[ic]")]
    assert len(kept) == 4
    assert all(f"-{compiling._DIGEST}." in name for name in kept)
    assert _starts(package, monkeypatch, 3)(1) == 4  # type: ignore[operator]


def test_only_kernels_of_the_simulator_are_kept_so() -> None:
    assert compiling._DIGEST in str(engine.limit._cache._cache_file._index_name)  # type: ignore[attr-defined]
    assert compiling._DIGEST not in str(outside.last_rows._cache._cache_file._index_name)
    folder = Path(compiling.__file__).parent
    straight = [path for path in folder.rglob("*.py") if "from numba import njit" in path.read_text()]
    assert straight == [Path(compiling.__file__)]
