"""Small results of every kind: a report on each generator and on each order flow, made in one home."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from synth_pipeline import generators, plugins, stages
from synth_pipeline.bars.files import Options
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.generators.basket import Basket
from synth_pipeline.generators.fixed_windows import WindowGenerator
from synth_pipeline.generators.neural import NeuralGenerator
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument
from synth_pipeline.stages import Simulation, Workspace

SOURCE, DAY, SECONDS = Instrument("simulated", "BTCUSDT"), date(2025, 1, 6), 300.0
SYMBOLS, DAILY = ("ONE", "TWO", "SIX"), Timeframe.parse("1d")


def market(workspace: Workspace, *, basket: bool = True) -> None:
    """Record and featurize one day, and store daily bars of three assets that move together."""
    stages.record(workspace, SOURCE, DAY, seconds=SECONDS)
    stages.ingest(workspace, SOURCE, DAY)
    stages.featurize(workspace, SOURCE, DAY)
    rng = np.random.default_rng(0)
    days = np.arange(np.datetime64("2021-01-01"), np.datetime64("2021-01-01") + 500)
    common = rng.standard_t(5, len(days))
    for symbol in SYMBOLS if basket else ():
        moves = 0.01 * (0.6 * common + 0.8 * rng.standard_t(5, len(days)))
        closes = np.round(100 * np.exp(np.cumsum(moves)), 2)
        path = workspace.settings.home.parent / f"{symbol}.csv"
        prices = dict.fromkeys(("Open", "High", "Low", "Close"), closes)
        pl.DataFrame({"Date": days, **prices}).write_csv(path)
        stages.bars_from_file(workspace, path, Instrument("file", symbol), Options())
        path.unlink()


def of_generator(workspace: Workspace, name: str) -> Manifest:
    """Fit (neural ones with few steps, those of several assets on the basket), sample and evaluate."""
    kind = plugins.load(generators, name)
    on_basket = issubclass(kind, Basket)
    cell = (Instrument("file", "+".join(SYMBOLS)), DAILY) if on_basket else (SOURCE, DAY)
    few = {"steps": 4} if issubclass(kind, NeuralGenerator) else {}
    stages.fit(workspace, *cell, name, few | ({"window": 60} if issubclass(kind, WindowGenerator) else {}))
    most = stages.load_generator(workspace, *cell, name).max_steps
    stages.sample(workspace, *cell, name, paths=2, steps=min(200, most or 200))
    return stages.evaluate(workspace, *cell, name)


def of_flow(workspace: Workspace, name: str) -> Manifest:
    """Calibrate, simulate some seconds and compare the books."""
    stages.calibrate(workspace, SOURCE, DAY, name)
    made = Instrument("simulated", name.replace("_", "").upper())
    stages.simulate(workspace, made, DAY, Simulation(f"{SOURCE}/{DAY}/{name}", seconds=20, capture=True))
    return stages.compare_books(workspace, SOURCE, DAY, made, DAY)
