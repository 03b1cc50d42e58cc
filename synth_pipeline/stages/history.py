"""What a generator is fitted on: days of grid features, or stored bars; of one instrument or of a basket.

Bars are one step each. Where a market closes (nights, weekends, holidays) the next bar is the next step; a bar that is
missing in open hours is a row of NaN, as every gap. A basket of bars has a step wherever one of its members has a bar
and none is closed: a coin beside a stock goes from Friday to Monday.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synth_pipeline import generators, schema
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.bars.values import decimal_step
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.features import book_image
from synth_pipeline.generators import Generator
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.series import IntArray, Series
from synth_pipeline.stages.bars import read_bars
from synth_pipeline.stages.books import book_series, ticks_of
from synth_pipeline.stages.features import feature_series, look_back_of
from synth_pipeline.stages.workspace import Workspace

if TYPE_CHECKING:
    from synth_pipeline.bars.calendars import Calendar

Cell = date | Timeframe
"""What of an instrument is fitted on: the look-back that ends with a day of features, or bars of a timeframe."""
Labels = Callable[[IntArray], IntArray]
"""From the numbers of steps, 0 the first sampled one, to their labels in ns."""
BAR_COLUMNS = ("open", "high", "low", "close", "volume")


def parse_cell(text: str) -> Cell:
    """Read a day such as 2024-08-08, or a timeframe such as 1d. Raises `InputError` for any other form."""
    if "-" in text:
        return parse_day(text)
    try:
        return Timeframe.parse(text)
    except InputError:
        raise InputError(
            f"{text!r} is neither a day of features such as 2024-08-08 nor a timeframe of bars such as 1d"
        ) from None


class _Known(NamedTuple):
    """What lies in the partitions of a history."""

    names: tuple[str, ...]
    read: Callable[[tuple[str, ...]], Series]
    labels_after: Callable[[int], Labels] | None = None


@dataclass(frozen=True)
class History:
    """What is known of an instrument in one cell."""

    instrument: Instrument
    inputs: Mapping[str, str]
    """Digests of the partitions that it consists of, by REF."""
    config: Mapping[str, Any]
    """The settings that it depends on."""
    _open: Callable[[], _Known]

    @cached_property
    def _known(self) -> _Known:
        """Opened when it is needed: whether anything has changed shows in the inputs alone."""
        return self._open()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns there are."""
        return self._known.names

    @classmethod
    def of(cls, workspace: Workspace, instrument: Instrument, cell: Cell, generator: str = "") -> History:
        """Find it, the ticks of a generator that learns from books too. Raises `NoDataError` naming what is to be made
        first."""
        if isinstance(cell, Timeframe):
            return _of_bars(workspace, instrument, cell)
        return _of_days(workspace, instrument, cell, with_books=generator in generators.OF_BOOKS)

    def series(self, kind: type[Generator]) -> Series:
        """Return the columns that a generator takes. Raises `NoDataError` where the price is never known."""
        names = tuple(name for name in kind.columns if name in self.names)
        generator = kind.__module__.rpartition(".")[2]
        if not {"mid", "close"} & {*names}:
            raise InputError(
                f"{generator} takes {', '.join(kind.columns)}, and {self.instrument} has {', '.join(self.names)}"
            )
        if len(self.instrument.members) > 1 and not kind.multi_asset:
            raise InputError(
                f"{generator} is fitted on one instrument, not on the basket {self.instrument}: "
                "choose a generator of several assets, such as dcc_garch"
            )
        return self._known.read(names)

    def labels(self, train: Series) -> Labels | None:
        """Return the time of each step that follows a training series; None when they are equally spaced."""
        if self._known.labels_after is None:
            return None
        return self._known.labels_after(int(np.flatnonzero(np.isfinite(train.values[0]).all(axis=1))[-1]))


def _joined(instrument: Instrument, parts: Mapping[str, Series]) -> Series:
    return Series.joined(parts) if len(instrument.members) > 1 else parts[instrument.symbol]


def _of_days(workspace: Workspace, instrument: Instrument, day: date, *, with_books: bool) -> History:
    look_backs = {member: look_back_of(workspace, member, day) for member in instrument.members}
    found = [manifest for days in look_backs.values() for manifest in days.values()]
    books = {
        member: {each: ticks_of(workspace, member, each, manifest) for each, manifest in days.items()}
        for member, days in (look_backs.items() if with_books else ())
    }
    found += [manifest for days in books.values() for manifest in days.values()]

    def read(names: tuple[str, ...]) -> Series:
        parts = {}
        for member, days in look_backs.items():
            part = (
                book_series(workspace, member, days, books[member], names)
                if {*book_image.NAMES} & {*names}
                else feature_series(workspace, member, days, names)
            )
            if not np.isfinite(part.column(part.price_name)).any():
                raise NoDataError(
                    f"{member} has no {part.price_name} price on {', '.join(map(str, days))}: "
                    "the capture holds neither quotes nor a book that a snapshot anchors; record these streams"
                )
            parts[member.symbol] = part
        return _joined(instrument, parts)

    config = {"lookback_days": workspace.settings.lookback_days, "step_ms": workspace.settings.step_ms}
    known = (*schema.GRID.names, *(book_image.NAMES if with_books else ()))
    return History(instrument, _digests(found), config, lambda: _Known(known, read))


def _of_bars(workspace: Workspace, instrument: Instrument, timeframe: Timeframe) -> History:
    found = {
        member: workspace.require("bars", "fetch or read with `bars`", member, timeframe)
        for member in instrument.members
    }
    inputs = _digests(list(found.values()))
    return History(instrument, inputs, {}, lambda: _known_bars(workspace, instrument, timeframe, found))


def _known_bars(
    workspace: Workspace, instrument: Instrument, timeframe: Timeframe, found: Mapping[Instrument, Manifest]
) -> _Known:
    from synth_pipeline.bars.calendars import Calendar

    tables = {member.symbol: read_bars(workspace, manifest) for member, manifest in found.items()}
    opens = np.unique(np.concatenate([table["open_ns"] for table in tables.values()]))
    for table in tables.values():
        opens = opens[Calendar.learn(table["open_ns"], timeframe).is_open(opens)]
    calendar = Calendar.learn(opens, timeframe)
    rows = _rows(opens, calendar)

    def read(names: tuple[str, ...]) -> Series:
        return _joined(
            instrument, {symbol: _bar_series(table, names, opens, rows, timeframe) for symbol, table in tables.items()}
        )

    def labels_after(row: int) -> Labels:
        last = int(opens[np.searchsorted(rows, row)])
        return lambda steps: timeframe.after(calendar.following(last, steps))

    known = tuple(name for name in BAR_COLUMNS if all(np.isfinite(table[name]).any() for table in tables.values()))
    return _Known(known, read, labels_after)


def _digests(found: list[Manifest]) -> dict[str, str]:
    return {manifest.ref: manifest.digest for manifest in found}


def _rows(opens: IntArray, calendar: Calendar) -> IntArray:
    """Return the step of each bar: one after the other, but for bars that are missing in open hours."""
    missing = np.zeros(len(opens), dtype=np.int64)
    for gap in calendar.gaps(opens):
        if not calendar.is_holiday(gap):
            missing[np.searchsorted(opens, gap.end_ns)] = gap.missing
    return np.arange(len(opens)) + np.cumsum(missing)


def _bar_series(
    table: Mapping[str, np.ndarray], names: tuple[str, ...], opens: IntArray, rows: IntArray, timeframe: Timeframe
) -> Series:
    values = np.full((1, int(rows[-1]) + 1, len(names)), np.nan)
    kept = np.isin(table["open_ns"], opens)
    own = rows[np.searchsorted(opens, table["open_ns"][kept])]
    values[0, own] = np.stack([table[name][kept] for name in names], axis=1)
    prices = np.concatenate([table[name] for name in names if name != "volume"])
    return Series(
        values=values,
        names=names,
        step_ns=timeframe.ns,
        start_ns=timeframe.after(opens[:1]),
        tick_size=decimal_step(prices),
        lot_size=decimal_step(table["volume"]) if "volume" in names else 0.0,
    )
