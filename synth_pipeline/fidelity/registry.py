"""Finding metrics: every `Metric` that a family file defines, by its name. No list is kept by hand."""

from __future__ import annotations

import importlib
from collections.abc import Collection

import synth_pipeline.fidelity as package
from synth_pipeline import plugins
from synth_pipeline.errors import UnknownNameError
from synth_pipeline.fidelity.metric import Metric


def metrics(families: Collection[str] | None = None, *, joint: bool = False) -> dict[str, Metric]:
    """Return the metrics of some families (of all by default) by name, in the order in which the files define them.

    Those of one market; with `joint`, those of several assets.

    Raises `UnknownNameError` for a family without a file, `TypeError` when two metrics share a name.
    """
    known = plugins.names(package)
    found: dict[str, Metric] = {}
    for family in known if families is None else sorted(set(families)):
        if family not in known:
            raise UnknownNameError("metric family", family, known)
        module = importlib.import_module(f"{package.__name__}.{family}")
        for value in vars(module).values():
            if not isinstance(value, Metric) or value.family != family or value.joint != joint:
                continue
            if value.name in found:
                raise TypeError(f"metric {value.name!r} is defined in {found[value.name].family} and in {family}")
            found[value.name] = value
    return found
