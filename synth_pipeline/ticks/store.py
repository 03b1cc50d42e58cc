"""Windows of the tick store: the rows of any stretch of time, over as many days as it takes, reading little more.

    store.scan("s3://bucket/prefix", "binance_usdm.BTCUSDT", "trades", "2024-08-08T10:00", "2024-08-08T10:30").collect()
    store.read(Settings().data, Instrument("binance_usdm", "BTCUSDT"), "quotes", start_ns, end_ns).columns

Days are found by the manifests of their partitions, never by globs; a day that is not there has no rows. Within a day
row groups are chosen by their least and greatest `recv_ns` (`ticks.rowgroups`); the hot tier (`ticks.hot`) gives the
same from raw columns. Of a remote store a window fetches the manifests of its days (those of over two months are
listed first), each footer once, and the columns asked for of those row groups.

**Times** are nanoseconds UTC, `datetime`s, or what `ticks.csv_form.moment_ns` reads, such as "2024-08-08 10:30".

**Over midnight.** A day that goes on from the one before opens with what it took over (the last quote, the whole book),
flagged SNAPSHOT, at its first nanosecond and before its own rows (seq -1), so that it can be read alone. A read leaves
these rows out wherever the day before is in the store, which ended with them: so each event is read once, and reads of
adjacent windows join to the read of both. Where that day is missing they are all there is, and stay.

**Carried in.** On request the state before a window comes along: of quotes the row before it, of book levels all rows
of the day before it, whose replay is the book. Both come from the day that the window begins in, over midnight through
its opening rows: so nothing is carried over time that was not recorded.

**Scale.** Integers count ticks and lots of the coarsest scale on which every day of the window is whole.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from synth_pipeline import schema, storage
from synth_pipeline.errors import InputError, NoDataError, SynthError, UnknownNameError
from synth_pipeline.lineage import copies, manifests
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import BOOK_LEVELS, NS_PER_DAY, QUOTES, Instrument, Scale, Table, day_of, day_start_ns
from synth_pipeline.storage import Place
from synth_pipeline.ticks.hot import HotDay, hot_day
from synth_pipeline.ticks.lazy import lazy_groups
from synth_pipeline.ticks.rowgroups import Columns, DayRows, ParquetDay, footer_of, parquet_day, read_groups

if TYPE_CHECKING:
    from upath import UPath

Moment = int | str | datetime
"""A time: ns since 1970, a text, or a `datetime`, which without a zone is UTC."""
TABLES = ("trades", "book_levels", "quotes", "orders")
"""What can be read as arrays; `gaps` and `quarantine` can be scanned."""
_PRICES, _SIZES = ("price", "bid_price", "ask_price"), ("size", "bid_size", "ask_size")
_OPENING_SEQ = -1
_MOST_ASKED = 62
"""Days of a remote store that are asked for one by one; of a longer window they are listed first."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Window:
    """Rows as arrays, and what their integers count."""

    columns: Columns
    scale: Scale
    carried: int
    """Rows at the top that were known before the window."""


@dataclass(frozen=True)
class Day:
    """One day of ticks in the store; what was opened of it stays open to further windows."""

    home: Path | None
    """Where the hot tier and copies lie; only that needs it."""
    folder: Place
    start_ns: int
    manifest: Manifest
    _opened: dict[tuple[str, bool], DayRows] = field(default_factory=dict, repr=False)

    def rows(self, table: str, *, hot: bool = False) -> DayRows:
        """Return one of its tables. Raises `InputError` for the hot tier of a remote store without a home."""
        found = self._opened.get((table, hot))
        if found is None or (hot and not found.path.exists()):
            found = self._opened[table, hot] = self._hot(table) if hot else self.parquet(table)
        return found

    def parquet(self, table: str) -> ParquetDay:
        """Open one of its tables as it is stored."""
        artifact = self.manifest.outputs[table]
        return parquet_day(self.folder / artifact.path, artifact.bytes, artifact.groups)

    def _hot(self, table: str) -> HotDay:
        if self.home is None:
            raise InputError(f"the hot tier of {self.folder} needs a folder on this machine: pass home")
        home, path = self.home, self.manifest.path(table)
        place = home.joinpath("hot", *self.folder.parts[-3:], path).with_suffix(".hot")
        return hot_day(place, lambda: copies.local(self.folder, self.manifest, table, home / "cache"))

    @cached_property
    def gaps(self) -> list[tuple[str, int, int]]:
        """Stream, last known and first known moment of everything that was lost."""
        artifact, names = self.manifest.outputs["gaps"], ("stream", "start_ns", "end_ns")
        path = self.folder / artifact.path
        footer = footer_of(path, artifact.bytes)
        table = read_groups(path, footer, range(footer.num_row_groups), names)
        return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))

    @cached_property
    def coverage(self) -> list[tuple[int, int]]:
        """Half-open stretches in which the recording ran."""
        return [(start, end) for start, end in json.loads(self.metadata["coverage"])]

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What every file of the day carries."""
        return self.parquet("quotes").metadata

    def repeats_yesterday(self) -> bool:
        """Return whether it opens with what the day before, which is in the store, ended with."""
        if not self.manifest.facts.get("opened_from_yesterday"):
            return False
        yesterday = day_of(self.start_ns) - timedelta(days=1)
        return storage.size(self.folder.parent / yesterday.isoformat() / manifests.NAME) is not None


def days(
    data: Place | str, instrument: Instrument | str, start: Moment, end: Moment, *, home: Path | None = None
) -> list[Day]:
    """Return the days of a window that are in the store, in order; `data` is the home or where data lie instead.

    The hot tier lies under `home`, which a remote store has to be told. Raises `NoDataError` when there is none,
    `InputError` for a reversed window.
    """
    data = storage.place_of(data) if isinstance(data, str) else data
    instrument = Instrument.parse(instrument) if isinstance(instrument, str) else instrument
    start_ns, end_ns = moment_ns(start), moment_ns(end)
    if end_ns < start_ns:
        raise InputError(f"window from {start_ns} to {end_ns} ns ends before it starts: swap the two")
    top = f"ticks/{instrument.venue}/{instrument.symbol}"
    first, last = day_of(start_ns), day_of(max(end_ns - 1, start_ns))
    each = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    if not isinstance(data, Path) and len(each) > _MOST_ASKED:
        there = {path.split("/")[0] for path in storage.below(data / top, manifests.NAME)}
        each = [day for day in each if day.isoformat() in there]
    found = [known for day in each if (known := _day(data, home, f"{top}/{day}", day)) is not None]
    if not found:
        raise NoDataError(f"no ticks of {instrument} from {first} to {last}: ingest a recording of these days first")
    return found


def moment_ns(moment: Moment) -> int:
    """Return ns since 1970."""
    if isinstance(moment, str):
        from synth_pipeline.ticks import csv_form

        return csv_form.moment_ns(moment)
    if isinstance(moment, datetime):
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
        return since // timedelta(microseconds=1) * 1000
    return int(moment)


def _day(data: Place, home: Path | None, ref: str, day: date) -> Day | None:
    if not isinstance(data, Path):
        content = storage.read(data / ref / manifests.NAME)
        return None if content is None else _decode(home, data / ref, day, content)
    folder = f"{data}/{ref}"
    try:
        state = os.stat(f"{folder}/{manifests.NAME}")  # noqa: PTH116 - a Path takes five times as long
    except OSError:
        return None
    return _load(home or data, folder, day, (state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=4096)
def _load(home: Path, folder: str, day: date, state: tuple[int, ...]) -> Day | None:  # noqa: ARG001 - part of the key
    """Read a manifest once for as long as its file is the same one: it is only ever replaced by a rename."""
    manifest = manifests.load(Path(folder))
    return None if manifest is None else Day(home, Path(folder), day_start_ns(day), manifest)


@lru_cache(maxsize=4096)
def _decode(home: Path | None, folder: UPath, day: date, content: bytes) -> Day:
    """Open a day of a remote store once for as long as its manifest is the same, which every window asks for anew."""
    return Day(home, folder, day_start_ns(day), manifests.decode(content, folder / manifests.NAME))


def read(
    data: Place | str,
    instrument: Instrument | str,
    table: str,
    start: Moment,
    end: Moment,
    columns: Sequence[str] | None = None,
    *,
    carry_in: bool = False,
    hot: bool = False,
    home: Path | None = None,
) -> Window:
    """Return the rows received in [start, end) as arrays by column, `recv_ns` among them.

    With `hot` they come from the hot tier, which is made where it is missing: under `home`, or where the data lie
    if that is a local folder. Raises `NoDataError` when no day of the
    window is in the store, `UnknownNameError` for a table or column that there is not, `InputError` for a reversed
    window.
    """
    form = _form(table, TABLES)
    names = _names(form, columns)
    start_ns, end_ns = moment_ns(start), moment_ns(end)
    found = [day for day in days(data, instrument, start_ns, end_ns, home=home) if table in day.manifest.outputs]
    parts = [day.rows(table, hot=hot) for day in found]
    if not parts:
        return Window({name: form.empty()[name] for name in names}, Scale(Decimal(1), Decimal(1)), 0)
    scale = common_scale(part.scale for part in parts)
    pieces, carried = [], 0
    for day, part in zip(found, parts, strict=True):
        piece, before = _piece(day, part, form, (start_ns, end_ns), names, carry_in=carry_in and day is found[0])
        pieces.append(_rescaled(piece, part.scale, scale))
        carried += before
    if len(pieces) == 1:
        return Window(pieces[0], scale, carried)
    return Window({name: np.concatenate([piece[name] for piece in pieces]) for name in names}, scale, carried)


def _form(table: str, known: Iterable[str]) -> Table:
    if table not in known:
        raise UnknownNameError("table", table, known)
    return schema.TICK_TABLES[table]


def _names(form: Table, columns: Sequence[str] | None) -> list[str]:
    for name in columns or ():
        if name not in form.names:
            raise UnknownNameError(f"column of {form.name}", name, form.names)
    return [*form.names] if columns is None else [*dict.fromkeys(("recv_ns", *columns))]


def _piece(
    day: Day, part: DayRows, form: Table, window: tuple[int, int], names: list[str], *, carry_in: bool
) -> tuple[Columns, int]:
    """Return one day's rows of a window, and how many of them are carried in."""
    start_ns, end_ns = max(window[0], day.start_ns), min(window[1], day.start_ns + NS_PER_DAY)
    has_opening = start_ns == day.start_ns and day.repeats_yesterday()
    first_ns = day.start_ns if carry_in and form is BOOK_LEVELS else start_ns
    wanted = [*dict.fromkeys((*names, "seq"))] if has_opening else names
    # The opening rows lie at the first moment of the window, which an empty window does not hold.
    columns = part.read(first_ns, max(end_ns, start_ns + has_opening), wanted, carry_in=carry_in and form is QUOTES)
    opening = int((columns["seq"] == _OPENING_SEQ).sum()) if has_opening else 0
    before = int(np.searchsorted(columns["recv_ns"], start_ns)) + opening if carry_in else 0
    within = slice(0 if carry_in else opening, max(int(np.searchsorted(columns["recv_ns"], end_ns)), opening))
    return {name: columns[name][within] for name in names}, before


def common_scale(scales: Iterable[Scale]) -> Scale:
    """Return the coarsest scale on which the ticks and lots of all are whole.

    Raises `SynthError` for contracts of which some are inverse and some are not.
    """
    scales = list(scales)
    if len({scale.inverse for scale in scales}) > 1:
        raise SynthError("the days of the window are of linear and of inverse contracts: ingest them again")
    tick, lot = (_common_step([getattr(scale, name) for scale in scales]) for name in ("tick_size", "lot_size"))
    return replace(scales[0], tick_size=tick, lot_size=lot)


def _common_step(steps: list[Decimal]) -> Decimal:
    if len(set(steps)) == 1:
        return steps[0]
    places = max(-int(step.as_tuple().exponent) for step in steps)
    return Decimal(math.gcd(*(int(step.scaleb(places)) for step in steps))).scaleb(-places).normalize() + Decimal(0)


def _rescaled(columns: Columns, own: Scale, common: Scale) -> Columns:
    tick, lot = int(own.tick_size / common.tick_size), int(own.lot_size / common.lot_size)
    factors = dict.fromkeys(_PRICES, tick) | dict.fromkeys(_SIZES, lot)
    return {name: c if factors.get(name, 1) == 1 else c * factors[name] for name, c in columns.items()}


def scan(
    data: Place | str,
    instrument: Instrument | str,
    table: str,
    start: Moment,
    end: Moment,
    *,
    market_units: bool = False,
) -> pl.LazyFrame:
    """Return the rows received in [start, end) as a lazy frame over the files of the days that hold them.

    With `market_units` prices and sizes are float64 in currency and quantity. Gaps are those that reach into the
    window. Raises as `read` does.
    """
    form = _form(table, schema.TICK_TABLES)
    start_ns, end_ns = moment_ns(start), moment_ns(end)
    found = [day for day in days(data, instrument, start_ns, end_ns) if table in day.manifest.outputs]
    if not found:
        return pl.LazyFrame(form.arrow.empty_table())
    has_scale = bool({*form.names} & {*_PRICES, *_SIZES})
    scales = [day.rows(table).scale for day in found] if has_scale else []
    common = common_scale(scales) if has_scale else None
    frames = []
    for position, day in enumerate(found):
        frame = _lazy(day, table, start_ns, end_ns).filter(_within(form, day, start_ns, end_ns))
        units = _in_units(form, scales[position], common, market_units=market_units) if common else []
        frames.append(frame.with_columns(units))
    return pl.concat(frames)


def _lazy(day: Day, table: str, start_ns: int, end_ns: int) -> pl.LazyFrame:
    """Return a table of a day as a lazy frame, of a remote one only row groups that may hold rows of the window."""
    artifact = day.manifest.outputs[table]
    path = day.folder / artifact.path
    if isinstance(path, Path):
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        has_times = "event_ns" in schema.TICK_TABLES[table].names
        return frame.with_columns(pl.coalesce("event_ns", "recv_ns")) if has_times else frame
    footer = footer_of(path, artifact.bytes)
    groups = (
        day.parquet(table).groups(start_ns, end_ns, carry_in=False)
        if table in TABLES
        else [*range(footer.num_row_groups)]
    )
    return lazy_groups(path, footer, groups)


def _within(form: Table, day: Day, start_ns: int, end_ns: int) -> pl.Expr:
    if form.name == "gaps":
        return (pl.col("start_ns") < end_ns) & (pl.col("end_ns") > start_ns)
    within = (pl.col("recv_ns") >= start_ns) & (pl.col("recv_ns") < end_ns)
    return within & (pl.col("seq") != _OPENING_SEQ) if day.repeats_yesterday() else within


def _in_units(form: Table, own: Scale, common: Scale, *, market_units: bool) -> list[pl.Expr]:
    found = []
    for names, size, step in ((_PRICES, own.tick_size, common.tick_size), (_SIZES, own.lot_size, common.lot_size)):
        above, below = size.as_integer_ratio()
        for name in {*form.names} & {*names}:
            # Polars turns a division by a number into a product with its reciprocal, which rounds twice.
            divisor = pl.col(name) * 0 + float(below)
            found.append(pl.col(name) * float(above) / divisor if market_units else pl.col(name) * int(size / step))
    return found
