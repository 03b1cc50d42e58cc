"""`backfill`: many days of many instruments, in chunks, again and again until nothing is due.

What is current is found out first and asked of nobody, so a backfill that was stopped goes on where it was. The rest
goes to the Dagster server of this home where one runs (`server.py`), else to processes of its own: a chunk is one run
of up to `CHUNK` days of one instrument that follow one another, and a cell that fails does not stop the others. What is
current afterwards was made, whatever events say; they tell why the rest was not.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

import dagster as dg

from synth_pipeline import generators, plugins, stages
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.assets import CHUNK, FEATURES, TICKS, all_assets, model_keys
from synth_pipeline.orchestration.inprocess import opened_instance, require_partition, run_chunk
from synth_pipeline.orchestration.partitions import cell
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.orchestration.results import failures
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages.raw import SIMULATED

_SHARES = 3
"""Runs that each worker gets at least, where there are cells enough: a run costs a second, an idle worker its time."""
UP_TO = ("ticks", "features", "models")
"""What may be asked for, each with what it is made from; training only when it is asked for."""


class Chunk(NamedTuple):
    """Days of one instrument that follow one another."""

    instrument: Instrument
    days: tuple[date, ...]


@dataclass(frozen=True)
class Plan:
    """What a backfill has to do."""

    chunks: tuple[Chunk, ...]
    assets: tuple[dg.AssetKey, ...]
    up_to: str
    current: tuple[str, ...]
    """Cells that are unchanged."""
    missing: tuple[str, ...]
    """Cells that nobody recorded."""

    @property
    def cells(self) -> int:
        """How many cells are due."""
        return sum(len(chunk.days) for chunk in self.chunks)


@dataclass(frozen=True)
class Outcome:
    """What became of the cells, each as `venue.SYMBOL/day`."""

    made: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """The error of each."""


def plan(
    settings: Settings, instruments: Sequence[Instrument], first: date, last: date, up_to: str = "features"
) -> Plan:
    """Find out which cells are due. Raises `InputError` for days that are none, `NoDataError` when nothing is recorded,
    `UnknownNameError` for another `up_to`."""
    if up_to not in UP_TO:
        raise UnknownNameError("assets", up_to, UP_TO)
    if last < first:
        raise InputError(f"days {first}:{last} end before they begin: give the earlier one first")
    for day in (first, last):
        require_partition(settings, day)
    workspace = stages.Workspace(settings)
    chunks: list[Chunk] = []
    current: list[str] = []
    missing: list[str] = []
    for instrument in instruments:
        due: list[date] = []
        for day in _days(first, last):
            if instrument.venue != SIMULATED and workspace.find("raw", instrument, day) is None:
                missing.append(f"{instrument}/{day}")
            elif _is_current(workspace, instrument, day, up_to):
                current.append(f"{instrument}/{day}")
            else:
                due.append(day)
        chunks += _chunks(instrument, due)
    if not chunks and not current:
        raise NoDataError(f"nothing is recorded of {', '.join(map(str, instruments))} in {first}:{last}: record first")
    is_simulated = any(instrument.venue == SIMULATED for instrument in instruments)
    assets = _assets(settings, up_to, is_simulated=is_simulated)
    return Plan(tuple(chunks), assets, up_to, tuple(current), tuple(missing))


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))


def _is_current(workspace: stages.Workspace, instrument: Instrument, day: date, up_to: str) -> bool:
    if up_to == "ticks":
        return stages.day_is_current(workspace, instrument, day, features=False)
    is_current = stages.day_is_current(workspace, instrument, day)
    names = workspace.settings.generator_names if up_to == "models" else ()
    return is_current and all(stages.models_are_current(workspace, instrument, day, name) for name in names)


def _chunks(instrument: Instrument, due: Sequence[date]) -> Iterator[Chunk]:
    held: list[date] = []
    for day in due:
        if held and (len(held) == CHUNK or day - held[-1] > timedelta(days=1)):
            yield Chunk(instrument, tuple(held))
            held = []
        held.append(day)
    if held:
        yield Chunk(instrument, tuple(held))


def _assets(settings: Settings, up_to: str, *, is_simulated: bool) -> tuple[dg.AssetKey, ...]:
    keys = [dg.AssetKey("raw_capture")] if is_simulated else []  # of others it is stored already
    keys += [dg.AssetKey(name) for name in TICKS]
    keys += [FEATURES] if up_to != "ticks" else []
    if up_to == "models":
        for name in settings.generator_names:
            plugins.require(generators, name)
        keys += model_keys(settings.generator_names)
    return tuple(keys)


def run_here(settings: Settings, asked: Plan, workers: int, progress: Progress = silent) -> Outcome:
    """Make the due cells in processes of this machine, `workers` at a time; a cell that fails is in the outcome."""
    told: dict[str, str] = {}
    done, workers = 0, max(workers, 1)
    # Every partition exists before any process starts, so that they do not wait for each other to add it.
    with opened_instance(settings, [*dict.fromkeys(chunk.instrument for chunk in asked.chunks)]):
        pass
    os.environ.update(pools.threads(workers))  # what the processes load reads them
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_make, settings, asked.assets, chunk): chunk for chunk in _shares(asked, workers)}
        for future in as_completed(futures):
            try:
                told |= future.result()
            except BrokenProcessPool:
                told |= dict.fromkeys(_keys(futures[future]), "the process died: run it again")
            done += len(futures[future].days)
            progress(done, asked.cells, "cells")
    return outcome(settings, asked, told, "it is not current: were the settings or the code changed meanwhile?")


def _shares(asked: Plan, workers: int) -> Iterator[Chunk]:
    """The chunks, cut so short that no worker is left with one while the others have nothing to do."""
    most = min(CHUNK, -(-asked.cells // (_SHARES * workers)))
    for chunk in asked.chunks:
        for start in range(0, len(chunk.days), most):
            yield Chunk(chunk.instrument, chunk.days[start : start + most])


def _keys(chunk: Chunk) -> list[str]:
    return [str(cell(chunk.instrument, day)) for day in chunk.days]


@cache
def _graph(selected: tuple[dg.AssetKey, ...]) -> list[dg.AssetsDefinition]:
    """The assets asked for, once a process: with the hundred others every run takes a third of a second longer."""
    return [each for each in all_assets() if each.keys & set(selected)]


def _make(settings: Settings, selected: Sequence[dg.AssetKey], chunk: Chunk) -> dict[str, str]:
    """Make the cells of a chunk in the process of a pool; return why some were not, by key."""
    with opened_instance(settings, [chunk.instrument]) as instance:
        try:
            run = run_chunk(instance, _graph(tuple(selected)), Verbs(settings), chunk.instrument, chunk.days, selected)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told and the other chunks go on
            return dict.fromkeys(_keys(chunk), " ".join(f"{type(error).__name__}: {error}".split()))
        return failures(run.all_events, _keys(chunk))


def outcome(settings: Settings, asked: Plan, told: Mapping[str, str], otherwise: str) -> Outcome:
    """Look which of the cells are current now; what is told of the others, by key, or what else is to be said."""
    workspace, found = stages.Workspace(settings), Outcome()
    for chunk in asked.chunks:
        for day in chunk.days:
            name = f"{chunk.instrument}/{day}"
            if _is_current(workspace, chunk.instrument, day, asked.up_to):
                found.made.append(name)
            else:
                found.failed[name] = told.get(str(cell(chunk.instrument, day)), otherwise)
    return found
