"""The verb `calibrate`: an order flow fitted on stored ticks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_pipeline import plugins
from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.market import flows
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

if TYPE_CHECKING:
    from synth_pipeline.market.flows import OrderFlow
    from synth_pipeline.ticks.messages import Messages

_FLOW_SOURCES = (
    "schema.py",
    "series.py",
    "rng.py",
    "generators/inference.py",
    "market/book.py",
    "market/compiling.py",
    "market/engine.py",
    "market/tape.py",
)
_SOURCES = (
    "ticks/messages.py",
    "ticks/message_kernels.py",
    "ticks/message_writers.py",
    "ticks/store.py",
    "stages/calibrate.py",
)


def sources_of(flow: str) -> tuple[str, ...]:
    """Return the files that a flow's fits and runs depend on."""
    files = (f"market/flows/{name}.py" for name in plugins.files_of(flows, flow))
    return (*_FLOW_SOURCES, *files)


def checkpoint_name(flow: str) -> str:
    """Return the name under which a fitted flow is filed, beside those of generators."""
    return f"flow_{flow}"


def calibrate(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    flow: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    days: int = 1,
) -> Manifest:
    """Fit an order flow on the stored ticks of the days that end with one; register it as a model.

    Raises `UnknownNameError`, `NoDataError`, `TooLittleDataError` where the record cannot tell the rates, or
    `TrainingError` where an estimate is not stationary.
    """
    kind: type[OrderFlow] = plugins.load(flows, flow)
    model = kind.from_settings(dict(parameters or {}))
    if days < 1:
        raise InputError(f"a look-back of {days} days is none: give 1 or more")
    workspace.require("ticks", "ingest", instrument, day)
    seen = [day - timedelta(days=back) for back in range(days - 1, -1, -1)]
    found = [ticks for each in seen if (ticks := workspace.find("ticks", instrument, each)) is not None]
    if not any(ticks.facts["rows"].get(name) for ticks in found for name in ("trades", "orders")):
        raise TooLittleDataError(
            f"{instrument} has no trades on {', '.join(map(str, seen))}, and nothing else tells how often market "
            "orders come: record the trades beside the book"
        )
    draft = draft_of(
        workspace,
        "checkpoints",
        f"{instrument}/{day}/{checkpoint_name(flow)}",
        {ticks.ref: ticks.digest for ticks in found},
        (*sources_of(flow), *_SOURCES),
        {"flow": flow, "parameters": asdict(model.parameters), "days": days},
        seeded=True,
    )
    return materialize(workspace, draft, lambda place: _calibrate(workspace, instrument, seen, model, draft, place))


def _calibrate(
    workspace: Workspace, instrument: Instrument, days: Sequence[date], model: OrderFlow, draft: Manifest, place: Path
) -> Built:
    from synth_pipeline.ticks.messages import of_store

    span = day_start_ns(days[0]), day_start_ns(days[-1]) + NS_PER_DAY
    messages = of_store(workspace.settings.data, instrument, *span, home=workspace.settings.home)
    model.fit(messages, rng=stream(workspace.settings.seed, "calibrate", draft.key), progress=workspace.progress)
    folder = place / "checkpoint"
    folder.mkdir()
    model.save(folder)
    flow = draft.config["flow"]
    return Built({"checkpoint": folder}, _fit_facts(model, messages), model=f"{instrument}.{checkpoint_name(flow)}")


def _fit_facts(model: OrderFlow, messages: Messages) -> dict[str, Any]:
    told = dict(model.summary()) | dict(model.diagnostics)
    return {name: value for name, value in told.items() if math.isfinite(value)} | {
        "messages": len(messages),
        "watched_s": messages.seconds,
        "unobserved": list(messages.unobserved),
        "counts": dict(messages.counts),
        "notes": list(model.notes),
    }
