"""Finding metrics: every `Metric` that a family file defines, by its name. No list is kept by hand."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import TypeVar

import synth_pipeline.fidelity as package
from synth_pipeline import plugins
from synth_pipeline.errors import UnknownNameError
from synth_pipeline.fidelity.metric import Facts, Metric, WindowMetric

Kind = TypeVar("Kind", bound=Facts)


def metrics(families: Collection[str] | None = None, *, joint: bool = False) -> dict[str, Metric]:
    """Return the metrics of returns of some families (of all by default) by name, in the order of the files.

    Those of one market; with `joint`, those of several assets. Raises `UnknownNameError` for a family without a file,
    `TypeError` when two metrics share a name.
    """
    return {name: found for name, found in _defined(families, Metric).items() if found.joint == joint}


def window_metrics(families: Collection[str] | None = None) -> dict[str, WindowMetric]:
    """Return the metrics of windows of some families (of all, learned ones too, by default) by name.

    Raises as `metrics` does.
    """
    return _defined(families, WindowMetric)


def _defined(families: Collection[str] | None, kind: type[Kind]) -> dict[str, Kind]:
    known = plugins.names(package)
    found: dict[str, Kind] = {}
    for family in known if families is None else sorted(set(families)):
        if family not in known:
            raise UnknownNameError("metric family", family, known)
        module = importlib.import_module(f"{package.__name__}.{family}")
        for value in vars(module).values():
            if not isinstance(value, kind) or value.family != family:
                continue
            if value.name in found:
                raise TypeError(f"metric {value.name!r} is defined in {found[value.name].family} and in {family}")
            found[value.name] = value
    return found
