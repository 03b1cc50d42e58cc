"""The verb `bars`: OHLCV bars from a source, a file or finer bars, into `bars/<venue>/<SYMBOL>/<timeframe>`.

Bars from a source grow: a new version holds what was stored and what came, and names both as inputs. What came before a
fault is kept.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import synth_pipeline.bars as sources
from synth_pipeline import archives, plugins, schema, venues
from synth_pipeline.bars import BarSource
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.lineage import manifests
from synth_pipeline.lineage.digests import sha256_file
from synth_pipeline.lineage.manifests import FILE_INPUT, Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import Instrument
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize
from synth_pipeline.storage import Place
from synth_pipeline.ticks import parquet

if TYPE_CHECKING:
    from synth_pipeline.bars.checks import Bars, Sound
    from synth_pipeline.bars.files import Options
    from synth_pipeline.bars.growth import Growth

_SOURCES = ("schema.py", "bars", "ticks/parquet.py", "stages/bars.py")
FILES = "file"
"""The venue of bars from a file that nobody names another for."""
_CCXT = "ccxt"
_ZIP_MAGIC = b"PK\x03\x04"
_LISTED_GAPS = 20


def bars_from_file(workspace: Workspace, path: Path, instrument: Instrument | None, options: Options) -> Manifest:
    """Store the bars of a CSV or Parquet file, compressed or not; the timeframe is the file's own unless one is given.

    Raises `InputError` for a file that is no table of bars or leaves something to decide, naming the option for it.
    """
    from synth_pipeline.bars import files

    found, decided = files.read(_content(path), path.name, options)
    instrument = instrument or Instrument(FILES, archives.plain_symbol(path.name.partition(".")[0]) or "UNNAMED")
    config = decided | {"timeframe": str(found.timeframe), "source": FILES, "options": repr(options)}
    inputs = {f"{FILE_INPUT}{path.name}": sha256_file(path)}
    draft = draft_of(workspace, "bars", f"{instrument}/{found.timeframe}", inputs, _SOURCES, config)
    return materialize(workspace, draft, lambda place: _written(found, place, decided))


def _content(path: Path) -> bytes:
    """Return a file's bytes, decompressed; of a ZIP those of its only file."""
    if not zipfile.is_zipfile(archives.require_file(path)):
        with archives.opened(path) as file:
            content = file.read()
        if content.startswith(_ZIP_MAGIC):
            raise InputError(f"{path} is truncated or damaged (a ZIP without its directory): fetch the file again")
        return content
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(names) != 1:
            raise InputError(f"{path} holds {len(names)} files ({', '.join(names[:5])}): unpack it, give one at a time")
        try:
            return archive.read(names[0])
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path} is truncated or damaged ({error}): fetch the file again") from error


def bars_from_source(
    workspace: Workspace, source: str, timeframe: Timeframe, start_ns: int | None = None, end_ns: int | None = None
) -> Manifest:
    """Ask a source such as `binance_usdm.BTCUSDT` for closed bars that open in [start, end), and store what is new.

    Without a start it goes on from what is stored, or takes the last thousand bars. Raises `InputError` for what the
    source does not offer, `SynthError` when it stays out of reach; what came before is stored.
    """
    from synth_pipeline.bars.growth import grow

    instrument, ticker = split_source(source)
    stored = manifests.load(_folder(workspace, instrument, timeframe))
    if stored and stored.config.get("ticker", ticker) != ticker:
        raise InputError(f"{stored.ref} holds {stored.config['ticker']!r}, not {ticker!r}: move that folder away first")
    rows = _stored_rows(workspace, stored) if stored else None
    connection = _connect(workspace, instrument)
    try:
        if str(timeframe) not in connection.timeframes:
            offered = ", ".join(connection.timeframes)
            raise InputError(f"{instrument.venue} has no bars of {timeframe}, only {offered}: fetch finer, use --from")
        came = grow(connection, ticker, timeframe, rows, start_ns, end_ns, workspace.progress)
    finally:
        connection.close()
    made = _extended(workspace, instrument, ticker, timeframe, stored, rows, came)
    if came.fault is not None:
        raise came.fault
    if made is None:
        raise NoDataError(f"{source} has no closed bars of {timeframe} in this span: check --start and --end")
    return made


def split_source(text: str) -> tuple[Instrument, str]:
    """Return the instrument that `SOURCE.TICKER` is filed under, and the ticker as the source knows it.

    Raises `UnknownNameError` for an unknown source.
    """
    venue, _, ticker = text.partition(".")
    if (name := _plugin(venue)) not in plugins.names(sources):
        raise UnknownNameError("source of bars", name, plugins.names(sources))
    symbol = archives.plain_symbol(ticker)
    return Instrument(venue, symbol), symbol if symbol == ticker.upper() else ticker


def _plugin(venue: str) -> str:
    return _CCXT if venue.startswith(f"{_CCXT}_") else venue


def _connect(workspace: Workspace, instrument: Instrument) -> BarSource:
    kind: type[BarSource] = plugins.load(sources, _plugin(instrument.venue))
    known = instrument.venue in plugins.names(venues)
    home = plugins.load(venues, instrument.venue).rest_url if known else ""
    address = workspace.settings.venue_urls.get(instrument.venue, {}).get("rest", home)
    return kind.connect(instrument.venue, address, rng=stream(workspace.settings.seed, "bars", str(instrument)))


def _folder(workspace: Workspace, instrument: Instrument, timeframe: Timeframe) -> Place:
    return workspace.settings.data / manifests.ref("bars", f"{instrument}/{timeframe}")


def _stored_rows(workspace: Workspace, stored: Manifest) -> Sound:
    """Return stored bars as rows again, with the quarantine of their version."""
    from synth_pipeline.bars.checks import PRICES, SIZES, Bad, Sound

    columns = parquet.read_table(workspace.file(stored, "bars"), ("open_ns", *PRICES, *SIZES))
    set_aside = parquet.read_table(workspace.file(stored, "quarantine"))
    bad = [Bad(*row) for row in zip(*(set_aside[name] for name in Bad._fields), strict=True)]
    return Sound(columns | {"seq": np.arange(len(columns["open_ns"]))}, bad, stored.facts["rounded"])


def _extended(
    workspace: Workspace,
    instrument: Instrument,
    ticker: str,
    timeframe: Timeframe,
    stored: Manifest | None,
    rows: Sound | None,
    came: Growth,
) -> Manifest | None:
    """Commit what was stored together with what came; the old version, skipped, when nothing did."""
    from synth_pipeline.bars.checks import Sound, assemble

    if not came.parts and not came.revised:
        return replace(stored, skipped=True) if stored else None
    fetched = Sound.join(came.parts) if came.parts else None
    both = Sound.join([part for part in (rows, fetched) if part is not None])
    _apply(came.revised, both)
    found = assemble(both, timeframe)
    inputs = {f"{FILE_INPUT}{instrument}/{timeframe} as answered": _digest(fetched, came.revised)}
    if stored:
        before = stored.outputs["bars"]
        inputs[f"{FILE_INPUT}{before.path}"] = before.sha256
    config = {"source": instrument.venue, "ticker": ticker, "timeframe": str(timeframe)}
    draft = draft_of(workspace, "bars", f"{instrument}/{timeframe}", inputs, _SOURCES, config)
    added = {"added": len(found) - (len(rows.columns["open_ns"]) if rows else 0), "revised": came.revised}
    return materialize(workspace, draft, lambda place: _written(found, place, {"time": "open"} | added))


def _apply(revised: list[dict[str, Any]], rows: Sound) -> None:
    """Give the last stored bar the values that the source has for it now."""
    for change in revised:
        rows.columns[change["column"]][rows.columns["open_ns"] == change["open_ns"]] = change["now"]


def _digest(fetched: Sound | None, revised: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256(repr(revised).encode())
    for name, column in sorted(fetched.columns.items()) if fetched else ():
        digest.update(name.encode() + np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def resample_bars(workspace: Workspace, instrument: Instrument, finer: Timeframe, timeframe: Timeframe) -> Manifest:
    """Put stored bars together into coarser ones.

    Raises `NoDataError` when there are none, `InputError` for a timeframe that they do not fit into.
    """
    from synth_pipeline.bars.checks import assemble
    from synth_pipeline.bars.resampling import resample

    stored = manifests.load(_folder(workspace, instrument, finer))
    if stored is None:
        raise NoDataError(f"no bars of {instrument}/{finer}: fetch or read them first")
    if not finer.divides(timeframe) or finer == timeframe:
        raise InputError(f"bars of {timeframe} are not made of whole bars of {finer}: choose a multiple")
    config = {"timeframe": str(timeframe), "source": "bars", "ticker": stored.config.get("ticker", instrument.symbol)}
    inputs = {stored.ref: stored.digest}
    draft = draft_of(workspace, "bars", f"{instrument}/{timeframe}", inputs, _SOURCES, config)

    def build(place: Path) -> Built:
        return _written(
            resample(assemble(_stored_rows(workspace, stored), finer), timeframe), place, {"time": stored.facts["time"]}
        )

    return materialize(workspace, draft, build)


def read_bars(workspace: Workspace, manifest: Manifest) -> dict[str, np.ndarray]:
    """Return the columns of a partition, as `schema.BARS`."""
    return parquet.read_table(workspace.file(manifest, "bars"))


def _written(found: Bars, place: Path, facts: dict[str, Any]) -> Built:
    from synth_pipeline.bars.checks import quarantine_table

    if not len(found):
        raise NoDataError(f"no row is a bar: {found.reasons() or 'the source is empty'}")
    gaps = {
        "start_ns": np.array([gap.start_ns for gap in found.gaps], dtype=np.int64),
        "end_ns": np.array([gap.end_ns for gap in found.gaps], dtype=np.int64),
        "stream": np.full(len(found.gaps), "bars", dtype=object),
        "reason": np.full(len(found.gaps), "missing_bars", dtype=object),
        "missing": np.array([gap.missing for gap in found.gaps], dtype=np.int64),
    }
    tables = {
        "bars": (schema.BARS, found.columns),
        "gaps": (schema.GAPS, gaps),
        "quarantine": (schema.QUARANTINE, quarantine_table(found.bad)),
    }
    paths = {name: place / f"{name}.parquet" for name in tables}
    rows = {name: parquet.write_table(paths[name], *tables[name], timeframe=str(found.timeframe)) for name in tables}
    return Built(paths, _described(found) | facts, rows)


def _described(found: Bars) -> dict[str, Any]:
    columns = found.columns
    return {
        "rows": len(found),
        "first_open_ns": int(columns["open_ns"][0]),
        "last_open_ns": int(columns["open_ns"][-1]),
        "gaps": len(found.gaps),
        "missing": sum(gap.missing for gap in found.gaps),
        "first_gaps": [list(gap) for gap in found.gaps[:_LISTED_GAPS]],
        "partial": int(((columns["flags"] & schema.BarFlag.PARTIAL) > 0).sum()),
        "closed_hours": found.calendar.open_slots is not None,
        "unknown": [name for name in ("volume", "turnover", "trade_count") if np.isnan(columns[name]).all()],
        "quarantined": found.reasons(),
        "rounded": found.rounded,
        "unordered": found.unordered,
    }
