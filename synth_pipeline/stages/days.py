"""The verb `ingest` over many days, some at a time.

A day that goes on from the one before opens with its close, so such days form a chain that is made in order; chains do
not depend on each other and are made side by side, a process each. Whatever finished stays when something else fails,
and is skipped the next time.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date, timedelta

from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.lineage import references
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.settings import Settings
from synth_pipeline.stages.ticks import ingest
from synth_pipeline.stages.workspace import Workspace


def recorded_days(workspace: Workspace, instrument: Instrument, first: date, last: date) -> list[date]:
    """Return the days from the first to the last that are recorded. Raises `NoDataError` when none is."""
    if last < first:
        raise InputError(f"days {first}:{last} end before they begin: give the earlier one first")
    named = (folder.name for folder in references.cells(workspace.folder("raw", instrument, first).parent))
    if found := [day for name in named if first <= (day := parse_day(name)) <= last]:
        return found
    raise NoDataError(f"no raw of {instrument} from {first} to {last}: record it first")


def ingest_days(workspace: Workspace, instrument: Instrument, days: Sequence[date], workers: int) -> list[Manifest]:
    """Ingest many days, at most `workers` at a time; raises as `ingest` does, for the first day that fails."""
    chains = _chains(workspace, instrument, sorted(days))
    if min(workers, len(chains)) < 2:
        return [manifest for chain in chains for manifest in _ingest_chain(workspace, instrument, chain)]
    made: list[Manifest] = []
    # A fresh interpreter each: a fork of a process that has threads may hang.
    pool = ProcessPoolExecutor(min(workers, len(chains)), multiprocessing.get_context("spawn"))
    settings, tags = workspace.settings, dict(workspace.tags)
    with pool:
        futures = [pool.submit(_ingest_aside, settings, tags, instrument, chain) for chain in chains]
        try:
            for future in as_completed(futures):
                made += future.result()
                workspace.progress(len(made), len(days), "days ingested")
        finally:
            pool.shutdown(cancel_futures=True)
    return sorted(made, key=lambda manifest: manifest.key)


def _chains(workspace: Workspace, instrument: Instrument, days: Sequence[date]) -> list[list[date]]:
    chains: list[list[date]] = []
    for day in days:
        raw = workspace.require("raw", "record", instrument, day)
        follows = bool(chains) and chains[-1][-1] == day - timedelta(days=1)
        if follows and raw.facts.get("continues_from_yesterday"):
            chains[-1].append(day)
        else:
            chains.append([day])
    return chains


def _ingest_chain(workspace: Workspace, instrument: Instrument, days: Sequence[date]) -> list[Manifest]:
    return [ingest(workspace, instrument, day) for day in days]


def _ingest_aside(
    settings: Settings, tags: dict[str, str], instrument: Instrument, days: Sequence[date]
) -> list[Manifest]:
    """The same in a process of its own."""
    workspace = Workspace.of(settings, tags=tags)
    try:
        return _ingest_chain(workspace, instrument, days)
    except UnknownNameError as error:
        # It cannot travel between processes: it is made from more than its message.
        raise InputError(str(error)) from None
