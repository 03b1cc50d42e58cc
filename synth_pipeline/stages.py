"""The verbs: record, ingest, featurize, fit, sample, evaluate. Plain functions on plain files, one partition a call.

This is the only place where domain packages meet. A verb drafts a manifest from what it depends on, returns the old one at
once when nothing changed (`skipped`), and otherwise builds the partition aside and commits it whole.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

from synth_pipeline import archives, generators, plugins, schema, venues
from synth_pipeline.archives import FrameArchive, RowArchive
from synth_pipeline.capture import importing, rawlog
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.generators import Generator
from synth_pipeline.lineage import commit, manifests
from synth_pipeline.lineage.digests import code_version, sha256_file
from synth_pipeline.lineage.manifests import Manifest, Stage
from synth_pipeline.lineage.runs import NullTracker, Run, Tracker
from synth_pipeline.lineage.tracking import MlflowTracker
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_start_ns
from synth_pipeline.series import Series
from synth_pipeline.settings import Settings
from synth_pipeline.ticks import store

SIMULATED = "simulated"
"""The venue whose raw captures come from the embedded market."""
_FEATURE_SOURCES = ("schema.py", "features/kernels.py", "features/grid.py", "ticks/book.py", "ticks/store.py")
_SERIES_SOURCES = ("series.py", "rng.py", "features/windows.py", "features/transforms.py")


@dataclass(frozen=True)
class Workspace:
    """Where verbs work and whom they tell."""

    settings: Settings
    tracker: Tracker = field(default_factory=NullTracker)
    tags: Mapping[str, str] = field(default_factory=dict)
    """Written on every tracked run: who asked for it (the Dagster run, say)."""
    progress: Progress = silent

    @classmethod
    def of(cls, settings: Settings, *, tags: Mapping[str, str] | None = None, progress: Progress = silent) -> Self:
        """Make one with the tracker that the settings ask for."""
        return cls(settings, _tracker(settings), tags or {}, progress)

    def folder(self, stage: Stage, instrument: Instrument, day: date, *more: str) -> Path:
        """The folder of one partition."""
        return self.settings.partition(stage, instrument, day, *more)

    def find(self, stage: Stage, instrument: Instrument, day: date, *more: str) -> Manifest | None:
        """The manifest of one partition, None when it was never made."""
        return manifests.load(self.folder(stage, instrument, day, *more))

    def require(self, stage: Stage, verb: str, instrument: Instrument, day: date, *more: str) -> Manifest:
        """The manifest of one partition. Raises `NoDataError` naming the verb that makes it."""
        manifest = self.find(stage, instrument, day, *more)
        if manifest is None:
            raise NoDataError(f"no {stage} of {'/'.join((str(instrument), day.isoformat(), *more))}: {verb} it first")
        return manifest


def _tracker(settings: Settings) -> Tracker:
    if not settings.tracking:
        return NullTracker()
    urls = {"mlflow_url": settings.mlflow_url, "dagster_url": settings.dagster_url}
    return MlflowTracker(settings.tracking_uri, settings.home, **urls)


@dataclass(frozen=True)
class _Built:
    """What a builder leaves in the staging folder."""

    files: Mapping[str, Path]
    facts: Mapping[str, Any]
    rows: Mapping[str, int] = field(default_factory=dict)


def _materialize(workspace: Workspace, draft: Manifest, build: Callable[[Path, Run], _Built]) -> Manifest:
    """Return the current manifest, or build, commit and track the partition that the draft describes."""
    folder = workspace.settings.home / draft.ref
    if (current := manifests.is_current(folder, draft.fingerprint)) is not None:
        return current
    started = time.perf_counter()
    with workspace.tracker.run(draft, workspace.tags) as run, commit.staging(folder) as place:
        built = build(place, run)
        facts = dict(built.facts) | {
            "seconds": round(time.perf_counter() - started, 3),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        draft = replace(draft, created_at=datetime.now(UTC).isoformat(timespec="seconds"), mlflow_run_id=run.run_id)
        manifest = commit.commit(folder, draft, built.files, rows=built.rows, facts=facts)
        run.record(manifest)
    return manifest


# --- record ----------------------------------------------------------------------------------------------------------


def identify(sources: Sequence[Path], venue: str | None, symbol: str | None) -> Instrument:
    """Decide which instrument the files are of; what is not given is read from the files.

    Raises `UnknownNameError` for an unknown venue, `InputError` when the files contradict what was given or do not say.
    """
    archive = importing.archive_of(sources[0])
    archive_name = type(archive).__module__.rpartition(".")[2]
    if archive.venue is not None:
        if venue not in (None, archive.venue, archive_name):
            raise InputError(f"{sources[0]} is a {archive_name} file, of venue {archive.venue!r}, not {venue!r}: check --venue")
        venue = archive.venue
    elif venue is None and isinstance(archive, FrameArchive):
        venue = importing.sniff_venue(sources[0], archive)
    if venue is None:
        raise InputError(f"{sources[0]} does not say which venue it is of: pass --venue, one of {', '.join(known_venues())}")
    if venue not in known_venues():
        raise UnknownNameError("venue", venue, known_venues())
    return Instrument(venue, (symbol or _only_symbol(sources[0], archive.symbols(sources[0]))).upper())


def _only_symbol(path: Path, symbols: list[str]) -> str:
    if len(symbols) != 1:
        raise InputError(f"{path} holds {', '.join(symbols) or 'no named symbol'}: pass the one you mean with --symbol")
    return symbols[0]


def known_venues() -> list[str]:
    """Return the venues with a wire format and those that only archives know."""
    from_archives = {plugins.load(archives, name).venue for name in plugins.names(archives)}
    return sorted({*plugins.names(venues), *(name for name in from_archives if name)})


def record(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    sources: Sequence[Path] = (),
    *,
    seconds: float = 3600.0,
) -> Manifest:
    """Bring one day of raw bytes into the store: from recorded files, or `seconds` of the embedded market.

    Without sources, what is stored already is the capture. Raises `NoDataError` when there is none, `InputError` for
    files that cannot be read.
    """
    if not sources and instrument.venue != SIMULATED:
        return replace(workspace.require("raw", "give the recorded files and record", instrument, day), skipped=True)
    key = f"{instrument}/{day}"
    if not sources:
        draft = _draft(workspace, "raw", key, {}, ("capture", "market", "rng.py"), {"seconds": seconds})
        return _materialize(workspace, draft, lambda place, _: _simulate(workspace, instrument, day, seconds, place))
    files = {f"{manifests.FILE_INPUT}{path.name}": sha256_file(path) for path in map(_existing, sources)}
    draft = _draft(workspace, "raw", key, files, ("capture", "archives"), {})
    return _materialize(workspace, replace(draft, seed=None), lambda place, _: _import(sources, instrument, day, place))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file: check the path")
    return path


def _draft(
    workspace: Workspace, stage: Stage, key: str, inputs: dict[str, str], sources: tuple[str, ...], config: dict[str, Any]
) -> Manifest:
    version = code_version(*sources)
    return Manifest(
        stage=stage, key=key, inputs=inputs, code_version=version, config=config, seed=workspace.settings.seed
    )


def _simulate(workspace: Workspace, instrument: Instrument, day: date, seconds: float, place: Path) -> _Built:
    from synth_pipeline.market import exchange

    start = day_start_ns(day)
    end = start + min(int(seconds * NS_PER_SECOND), NS_PER_DAY)
    rng = stream(workspace.settings.seed, "market", str(instrument), day.isoformat())
    path = place / "capture.rawlog"
    with rawlog.Writer(path) as log:
        for frame in exchange.simulate(instrument.symbol, start, end, rng=rng, progress=workspace.progress):
            if frame.received_ns < start + NS_PER_DAY:
                log.append(rawlog.Record(frame.received_ns, frame.payload))
    return _Built({"capture": path}, {"format": "rawlog", "messages": log.records}, {"capture": log.records})


def _import(sources: Sequence[Path], instrument: Instrument, day: date, place: Path) -> _Built:
    archive = importing.archive_of(sources[0])
    if isinstance(archive, RowArchive):
        if len(sources) > 1:
            raise InputError(f"{sources[0]} is one session a file: give {len(sources)} such files in {len(sources)} runs")
        name = type(archive).__module__.rpartition(".")[2]
        copy = place / sources[0].name
        shutil.copyfile(sources[0], copy)
        archive.rows(copy, instrument.symbol, day)
        return _Built({"archive": copy}, {"format": name})
    path = place / "capture.rawlog"
    written = importing.write_day(path, importing.chained(importing.in_order(sources)), day)
    if not written.messages:
        raise NoDataError(f"{', '.join(map(str, sources))}: no message on {day}; the days are {_listed(importing.days_of(sources))}")
    return _Built({"capture": path}, {"format": "rawlog"} | asdict(written), {"capture": written.messages})


def _listed(days: Sequence[date]) -> str:
    return ", ".join(day.isoformat() for day in days)


# --- ingest ----------------------------------------------------------------------------------------------------------


def ingest(workspace: Workspace, instrument: Instrument, day: date) -> Manifest:
    """Turn one day of raw bytes into tick tables, opening with yesterday's book where the recording goes on from it.

    Raises `NoDataError` when nothing was recorded, `InputError` when the capture is not of this venue or symbol.
    """
    raw = workspace.require("raw", "record", instrument, day)
    before = _continued_from(workspace, raw, instrument, day)
    inputs = {raw.ref: raw.digest} | ({before.ref: before.digest} if before else {})
    draft = _draft(workspace, "ticks", f"{instrument}/{day}", inputs, ("schema.py", "venues", "archives", "capture", "ticks"), {})
    return _materialize(
        workspace, replace(draft, seed=None), lambda place, _: _ingest(workspace, raw, before, instrument, day, place)
    )


def _continued_from(workspace: Workspace, raw: Manifest, instrument: Instrument, day: date) -> Manifest | None:
    """Yesterday's ticks, made now if need be, when today's recording is the continuation of yesterday's."""
    yesterday = day - timedelta(days=1)
    if not raw.facts.get("continues_from_yesterday") or workspace.find("raw", instrument, yesterday) is None:
        return None
    return ingest(workspace, instrument, yesterday)


def _ingest(
    workspace: Workspace, raw: Manifest, before: Manifest | None, instrument: Instrument, day: date, place: Path
) -> _Built:
    from synth_pipeline.ticks import book, ingest, quality

    folder = workspace.folder("raw", instrument, day)
    if raw.facts["format"] == "rawlog":
        ticks = ingest.ingest_frames(
            rawlog.read(raw.file(folder, "capture")),
            plugins.load(venues, instrument.venue)(),
            instrument.symbol,
            day_start_ns(day),
            lambda: _close_of(workspace, before, instrument, day - timedelta(days=1)),
        )
    else:
        archive = plugins.load(archives, raw.facts["format"])()
        ticks = ingest.ingest_rows(archive.rows(raw.file(folder, "archive"), instrument.symbol, day))
    rebuilt = book.replay(ticks.tables["book_levels"])
    agreement = quality.book_ticker_agreement(rebuilt, ticks.tables["quotes"])
    from_stream = ticks.counts.get("quotes_from") == "stream"
    files, rows = {}, {}
    for name, columns in ticks.tables.items():
        files[name] = place / f"{name}.parquet"
        rows[name] = store.write_table(files[name], schema.TICK_TABLES[name], columns, ticks.scale, **ticks.metadata())
    facts = ticks.counts | {
        "crossed": rebuilt.crossed,
        "book_ticker_agreement": agreement.share if from_stream else None,
        "book_ticker_matched": agreement.matched if from_stream else 0,
        "rows": rows,
        "coverage": ticks.coverage,
        "tick_size": str(ticks.scale.tick_size),
        "lot_size": str(ticks.scale.lot_size),
    }
    return _Built(files, facts, rows)


def _close_of(workspace: Workspace, ticks: Manifest | None, instrument: Instrument, day: date) -> Any:
    """The book and the quote as a day left them, None when its book was unknown at the end."""
    from synth_pipeline.ticks import book, ingest

    if ticks is None:
        return None
    folder = workspace.folder("ticks", instrument, day)
    levels = ticks.file(folder, "book_levels")
    close = store.read_metadata(levels).get("close_update_id")
    if close is None:
        return None
    rebuilt = book.replay(store.read_table(levels))
    quotes, trades = (store.read_table(ticks.file(folder, name)) for name in ("quotes", "trades"))
    names = ("bid_price", "bid_size", "ask_price", "ask_size", "update_id")
    return ingest.Opening(
        bids=rebuilt.bids,
        asks=rebuilt.asks,
        quote=np.array([quotes[name][-1] for name in names]) if len(quotes["recv_ns"]) else None,
        scale=store.read_scale(levels),
        update_id=int(close),
        trade_id=int(trades["trade_id"].max()) if len(trades["recv_ns"]) else None,
    )


# --- featurize -------------------------------------------------------------------------------------------------------


def featurize(workspace: Workspace, instrument: Instrument, day: date) -> Manifest:
    """Compute one day of grid features from its ticks. Raises `NoDataError` when there are none."""
    ticks = workspace.require("ticks", "ingest", instrument, day)
    config = {"step_ms": workspace.settings.step_ms}
    draft = _draft(workspace, "features", f"{instrument}/{day}", {ticks.ref: ticks.digest}, _FEATURE_SOURCES, config)
    return _materialize(
        workspace, replace(draft, seed=None), lambda place, _: _featurize(workspace, ticks, instrument, day, place)
    )


def _featurize(workspace: Workspace, ticks: Manifest, instrument: Instrument, day: date, place: Path) -> _Built:
    from synth_pipeline.features.grid import grid_features
    from synth_pipeline.ticks import book

    folder = workspace.folder("ticks", instrument, day)
    quotes, trades, levels, gaps = (
        store.read_table(ticks.file(folder, name)) for name in ("quotes", "trades", "book_levels", "gaps")
    )
    metadata = store.read_metadata(ticks.file(folder, "book_levels"))
    scale = store.read_scale(ticks.file(folder, "quotes"))
    columns = grid_features(
        quotes,
        trades,
        book.depth_of(book.replay(levels), visible_levels=int(metadata["visible_levels"])),
        list(zip(gaps["stream"].tolist(), gaps["start_ns"].tolist(), gaps["end_ns"].tolist(), strict=True)),
        [(int(start), int(end)) for start, end in ticks.facts["coverage"]],
        scale,
        step_ns=workspace.settings.step_ns,
        start_ns=day_start_ns(day),
        end_ns=day_start_ns(day) + NS_PER_DAY,
    )
    path = place / "features.parquet"
    rows = store.write_table(path, schema.GRID, columns, scale, step_ns=str(workspace.settings.step_ns))
    labels, known = columns["label_ns"], np.isfinite(columns["mid"])
    facts = {
        "rows": rows,
        "known_mid": int(known.sum()),
        "gap_rows": int(((columns["flags"] & schema.GridFlag.GAP) > 0).sum()),
        "first_label_ns": int(labels[0]) if rows else None,
        "last_label_ns": int(labels[-1]) if rows else None,
    }
    return _Built({"features": path}, facts, {"features": rows})


# --- fit, sample, evaluate -------------------------------------------------------------------------------------------


def _look_back(workspace: Workspace, instrument: Instrument, day: date) -> dict[date, Manifest]:
    """The features of the days that a fit on this day sees, oldest first; the day itself must be there."""
    workspace.require("features", "featurize", instrument, day)
    days = [day - timedelta(days=back) for back in range(workspace.settings.lookback_days - 1, -1, -1)]
    found = {each: workspace.find("features", instrument, each) for each in days}
    return {each: manifest for each, manifest in found.items() if manifest is not None}


def feature_series(workspace: Workspace, instrument: Instrument, look_back: Mapping[date, Manifest], names: tuple[str, ...]) -> Series:
    """Join days of features into one path on one unbroken grid; what no day covers is NaN."""
    from synth_pipeline.features.windows import series_from_grid

    paths = [manifest.file(workspace.folder("features", instrument, day), "features") for day, manifest in look_back.items()]
    tables = [store.read_table(path, ("label_ns", *names)) for path in paths]
    labels = np.concatenate([table["label_ns"] for table in tables])
    step = workspace.settings.step_ns
    grid = np.arange(labels[0], labels[-1] + step, step)
    rows = (labels - labels[0]) // step
    columns: dict[str, np.ndarray] = {"label_ns": grid}
    for name in names:
        columns[name] = np.full(len(grid), np.nan)
        columns[name][rows] = np.concatenate([table[name] for table in tables])
    scales = [store.read_scale(path) for path in paths]
    return series_from_grid(
        columns,
        names,
        step_ns=step,
        tick_size=float(min(scale.tick_size for scale in scales)),
        lot_size=float(min(scale.lot_size for scale in scales)),
    )


def _model_sources(generator: str) -> tuple[str, ...]:
    shared = tuple(f"generators/{name}.py" for name in ("__init__", *sorted(generators.MACHINERY)))
    return (*_SERIES_SOURCES, *shared, f"generators/{generator}.py")


def fit(
    workspace: Workspace, instrument: Instrument, day: date, generator: str, parameters: Mapping[str, Any] | None = None
) -> Manifest:
    """Fit a generator on the training split of the look-back ending with this day; register it as a model.

    Raises `UnknownNameError`, `NoDataError`, `TooLittleDataError`, or `TrainingError` when the fit itself fails.
    """
    kind: type[Generator] = plugins.load(generators, generator)
    model = kind.from_settings(dict(parameters or {}))
    look_back = _look_back(workspace, instrument, day)
    config = {
        "generator": generator,
        "parameters": asdict(model.parameters),
        "train_fraction": workspace.settings.train_fraction,
        "lookback_days": workspace.settings.lookback_days,
    }
    inputs = {manifest.ref: manifest.digest for manifest in look_back.values()}
    draft = _draft(workspace, "checkpoints", f"{instrument}/{day}/{generator}", inputs, _model_sources(generator), config)
    return _materialize(workspace, draft, lambda place, run: _fit(workspace, instrument, look_back, model, draft, place, run))


def _split(workspace: Workspace, instrument: Instrument, look_back: Mapping[date, Manifest], kind: type[Generator]) -> tuple[Series, Series]:
    """Training and held-out series with the columns that a generator takes."""
    from synth_pipeline.features.windows import split

    names = tuple(name for name in kind.columns if name in schema.GRID.names)
    return split(feature_series(workspace, instrument, look_back, names), workspace.settings.train_fraction)


def _fit(
    workspace: Workspace,
    instrument: Instrument,
    look_back: Mapping[date, Manifest],
    model: Generator,
    draft: Manifest,
    place: Path,
    run: Run,
) -> _Built:
    train, _ = _split(workspace, instrument, look_back, type(model))
    rng = stream(workspace.settings.seed, "fit", draft.key)
    model.fit(train, rng=rng, progress=workspace.progress)
    folder = place / "checkpoint"
    folder.mkdir()
    model.save(folder)
    summary = model.summary()
    version = run.register(folder, f"{instrument}.{draft.config['generator']}", params=draft.config["parameters"])
    facts = summary | {"train_steps": train.steps, "model_version": version}
    return _Built({"checkpoint": folder}, facts)


def load_generator(workspace: Workspace, instrument: Instrument, day: date, generator: str) -> Generator:
    """Load the fitted generator of a checkpoint. Raises `NoDataError` when none was fitted."""
    kind: type[Generator] = plugins.load(generators, generator)
    checkpoint = workspace.require("checkpoints", "fit", instrument, day, generator)
    return kind.load(checkpoint.file(workspace.folder("checkpoints", instrument, day, generator), "checkpoint"))


def sample(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    generator: str,
    *,
    paths: int | None = None,
    steps: int | None = None,
) -> Manifest:
    """Sample connected paths from a checkpoint into a dataset; by default as long as the training split, an hour at most.

    Raises `NoDataError` when nothing was fitted, `InputError` for a request that the generator cannot honour.
    """
    from synth_pipeline.synthesis.dataset import sample_dataset

    checkpoint = workspace.require("checkpoints", "fit", instrument, day, generator)
    paths = workspace.settings.sample_paths if paths is None else paths
    steps = min(checkpoint.facts["train_steps"], 3600 * NS_PER_SECOND // workspace.settings.step_ns) if steps is None else steps
    config = {"paths": paths, "steps": steps}
    sources = (*_model_sources(generator), "synthesis")
    draft = _draft(workspace, "synthetic", f"{instrument}/{day}/{generator}", {checkpoint.ref: checkpoint.digest}, sources, config)

    def build(place: Path, _: Run) -> _Built:
        model = load_generator(workspace, instrument, day, generator)
        rng = stream(workspace.settings.seed, "sample", draft.key)
        path = place / "dataset.parquet"
        rows = sample_dataset(model, path, paths=paths, steps=steps, rng=rng, progress=workspace.progress)
        return _Built({"dataset": path}, {"rows": rows} | config, {"dataset": rows})

    return _materialize(workspace, draft, build)


def evaluate(workspace: Workspace, instrument: Instrument, day: date, generator: str) -> Manifest:
    """Score a dataset against held-out real data, beside the same scores of real against real; write HTML and JSON."""
    dataset = workspace.require("synthetic", "sample", instrument, day, generator)
    look_back = _look_back(workspace, instrument, day)
    inputs = {manifest.ref: manifest.digest for manifest in (dataset, *look_back.values())}
    sources = ("series.py", "rng.py", "features/windows.py", "fidelity", "reports")
    config = {"train_fraction": workspace.settings.train_fraction}
    draft = _draft(workspace, "reports", f"{instrument}/{day}/{generator}", inputs, sources, config)
    return _materialize(
        workspace, draft, lambda place, run: _evaluate(workspace, instrument, day, look_back, dataset, draft, place, run)
    )


def _evaluate(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    look_back: Mapping[date, Manifest],
    dataset: Manifest,
    draft: Manifest,
    place: Path,
    run: Run,
) -> _Built:
    from synth_pipeline import fidelity, reports
    from synth_pipeline.synthesis.dataset import read_dataset

    generator = draft.key.rpartition("/")[2]
    train, holdout = _split(workspace, instrument, look_back, plugins.load(generators, generator))
    synthetic = read_dataset(dataset.file(workspace.folder("synthetic", instrument, day, generator), "dataset"))
    rng = stream(workspace.settings.seed, "evaluate", draft.key)
    evaluation = fidelity.evaluate(train, synthetic, holdout, rng=rng, progress=workspace.progress)
    provenance = {
        "instrument": str(instrument),
        "day": day.isoformat(),
        "generator": generator,
        "seed": str(workspace.settings.seed),
        "code": draft.code_version,
    } | {f"input {name}": digest for name, digest in draft.inputs.items()}
    page, data = place / "report.html", place / "report.json"
    data.write_text(evaluation.to_json(), encoding="utf-8")
    page.write_text(reports.render(evaluation, provenance), encoding="utf-8")
    run.log_artifact(page)
    facts = {"fidelity": evaluation.fidelity, "floor": evaluation.floor}
    return _Built({"report": page, "evaluation": data}, facts)


# --- summary ---------------------------------------------------------------------------------------------------------


def summary(workspace: Workspace, instrument: Instrument, days: Sequence[date], names: Sequence[str]) -> dict[str, Any]:
    """Return what stands in the store for these days and, on the last of them, these generators, as JSON values."""
    ticks = [workspace.require("ticks", "ingest", instrument, day) for day in days]
    features = [workspace.require("features", "featurize", instrument, day) for day in days]
    paths = [
        str(manifest.file(workspace.folder("features", instrument, day), "features"))
        for day, manifest in zip(days, features, strict=True)
    ]
    runs = [
        manifest.mlflow_run_id
        for day in days
        for stage in ("raw", "ticks", "features")
        if (manifest := workspace.find(stage, instrument, day)) is not None  # type: ignore[arg-type]
    ]
    described = {name: _describe(workspace, instrument, days[-1], name, runs) for name in names}
    tables = sorted({name for manifest in ticks for name in manifest.facts["rows"]})
    return {
        "instrument": str(instrument),
        "partitions": [day.isoformat() for day in days],
        "rows": {name: sum(manifest.facts["rows"].get(name, 0) for manifest in ticks) for name in tables},
        "quarantined": _total(manifest.facts["quarantined"] for manifest in ticks),
        "book": {
            "gaps": sum(manifest.facts["gaps"] for manifest in ticks),
            "crossed": sum(manifest.facts["crossed"] for manifest in ticks),
            "book_ticker_agreement": _pooled_agreement(ticks),
            "book_ticker_matched": sum(manifest.facts["book_ticker_matched"] for manifest in ticks),
        },
        "features": {"rows": sum(manifest.facts["rows"] for manifest in features), "path": paths[0] if len(paths) == 1 else paths},
        "generators": described,
        "mlflow": {
            "tracking_uri": workspace.settings.tracking_uri if workspace.settings.tracking else None,
            "run_ids": [run for run in runs if run is not None],
        },
    }


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(each) for each in counts), Counter()))


def _pooled_agreement(ticks: Sequence[Manifest]) -> float | None:
    matched = sum(manifest.facts["book_ticker_matched"] for manifest in ticks)
    agreed = sum((manifest.facts["book_ticker_agreement"] or 0.0) * manifest.facts["book_ticker_matched"] for manifest in ticks)
    return agreed / matched if matched else None


def _describe(
    workspace: Workspace, instrument: Instrument, day: date, generator: str, runs: list[str | None]
) -> dict[str, Any]:
    described: dict[str, Any] = {}
    outputs: tuple[tuple[Stage, str, str], ...] = (
        ("checkpoints", "fit", "checkpoint"),
        ("synthetic", "sample", "dataset"),
        ("reports", "evaluate", "report"),
    )
    for stage, verb, output in outputs:
        manifest = workspace.require(stage, verb, instrument, day, generator)
        described[output] = str(manifest.file(workspace.folder(stage, instrument, day, generator), output))
        runs.append(manifest.mlflow_run_id)
    report = workspace.require("reports", "evaluate", instrument, day, generator)
    return described | {"fidelity": report.facts["fidelity"], "floor": report.facts["floor"]}
