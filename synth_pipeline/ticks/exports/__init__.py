"""Formats of ticks: ONE FILE = ONE FORMAT that a day of the store, or a part of it, is written in for other programs.

A format reads a `Source` piece by piece and writes its files into an empty folder; where these stand before they are
whole is not its business (`exporting`). Real and simulated instruments are the same to it, the same ticks give the same
bytes, and what a format cannot say is refused by name or counted in `Written.left_out`, never bent in silence.

A stretch begins with the market as it stood: the book, and the quote, as rows at its first moment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from synth_pipeline import schema
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import BOOK_LEVELS, Flag, Instrument, Scale, day_of
from synth_pipeline.storage import Place
from synth_pipeline.ticks import store
from synth_pipeline.ticks.book import Book

Columns = dict[str, np.ndarray]
PIECE_ROWS = 2**17
"""Rows of a table after which a piece ends; one more row group may be in it."""
_NS_PER_US = 1000


@dataclass(frozen=True)
class Source:
    """A stretch of one UTC day of ticks, as an export sees it."""

    data: Place
    instrument: Instrument
    start_ns: int
    end_ns: int
    levels: int | None = None
    """Levels a side that were asked for; None: as many as the format is used to."""
    home: Path | None = None
    progress: Progress = silent

    @cached_property
    def day(self) -> store.Day:
        """The day. Raises `NoDataError` when it is not in the store, `InputError` for a stretch over midnight."""
        if day_of(self.start_ns) != day_of(max(self.end_ns - 1, self.start_ns)):
            raise InputError(
                f"stretch from {self.start_ns} to {self.end_ns} ns crosses midnight UTC: export day by day"
            )
        (found,) = store.days(self.data, self.instrument, self.start_ns, self.end_ns, home=self.home)
        return found

    @property
    def date(self) -> date:
        """The UTC day."""
        return day_of(self.start_ns)

    @cached_property
    def scale(self) -> Scale:
        """What prices and sizes count."""
        return self.day.parquet("quotes").scale

    @cached_property
    def coverage(self) -> list[tuple[int, int]]:
        """When the recording ran within the stretch, half-open."""
        cut = [(max(start, self.start_ns), min(end, self.end_ns)) for start, end in self.day.coverage]
        return [(start, end) for start, end in cut if start < end]

    def has(self, table: str) -> bool:
        """Return whether the day has rows of a table."""
        return table in self.day.manifest.outputs and self.day.parquet(table).footer.num_rows > 0

    def require(self, table: str, form: str) -> None:
        """Raise `NoDataError` where the day has no rows of a table that a format is made of."""
        if not self.has(table):
            has = [name for name in store.TABLES if self.has(name)]
            raise NoDataError(
                f"{self.instrument} has no {table} on {self.date}, of which {form} files are made, only "
                f"{', '.join(has)}: choose another format, or a recording that has them"
            )

    def within(self, start_ns: int, end_ns: int) -> Self:
        """Return the source of a shorter stretch."""
        return replace(self, start_ns=max(start_ns, self.start_ns), end_ns=min(end_ns, self.end_ns))

    def pieces(self, *tables: str) -> Iterator[dict[str, Columns]]:
        """Yield the rows of tables piece by piece; rows of one microsecond are in one piece.

        The first piece begins with the book and the quote as they stood.
        """
        cuts = self._cuts(tables)
        for number, (begin, end) in enumerate(pairwise(cuts)):
            piece = {table: self._read(table, begin, end) for table in tables}
            if number == 0:
                piece |= {name: _joined(self._standing(name), rows) for name, rows in piece.items()}
            yield piece
            self.progress(end - self.start_ns, self.end_ns - self.start_ns, f"exporting {', '.join(tables)}")

    def gaps(self) -> int:
        """Return how many gaps of the recording reach into the stretch."""
        return sum(start < self.end_ns and end > self.start_ns for _, start, end in self.day.gaps)

    def _cuts(self, tables: tuple[str, ...]) -> list[int]:
        """Return where pieces begin and end, with about as many rows in each."""
        cuts = {self.start_ns, self.end_ns}
        for table in filter(self.has, tables):
            rows = self.day.parquet(table)
            counts = [rows.footer.row_group(number).num_rows for number in range(rows.first_ns.size)]
            begins = rows.first_ns[1:][np.diff(np.cumsum(counts) // PIECE_ROWS) > 0]
            cuts |= {
                time for time in (begins // _NS_PER_US * _NS_PER_US).tolist() if self.start_ns < time < self.end_ns
            }
        return sorted(cuts)

    def _read(self, table: str, begin: int, end: int, *, carry_in: bool = False) -> Columns:
        return store.read(self.data, self.instrument, table, begin, end, carry_in=carry_in, home=self.home).columns

    def _standing(self, table: str) -> Columns:
        """Return the rows that say how the market stood when the stretch began: none of trades and orders."""
        if table == "quotes":
            rows = self._read(table, self.start_ns, self.start_ns, carry_in=True)
            moved = dict.fromkeys(("recv_ns", "event_ns"), np.full(rows["seq"].size, self.start_ns))
            return rows | moved | {"flags": rows["flags"] | np.uint8(Flag.SNAPSHOT)}
        return self._standing_book() if table == "book_levels" else schema.TICK_TABLES[table].empty()

    def _standing_book(self) -> Columns:
        before = replace(self, start_ns=self.day.start_ns, end_ns=self.start_ns)
        cuts = before._cuts(("book_levels",)) if before.start_ns < before.end_ns else [self.start_ns] * 2
        book, marks = Book(), np.uint8(0)
        for number, (begin, end) in enumerate(pairwise(cuts)):
            rows = self._read("book_levels", begin, end, carry_in=number == 0)
            book.feed(rows)
            marks |= np.bitwise_or.reduce(rows["flags"], initial=0) & np.uint8(Flag.SNAPSHOT)
        sides = [book.bids, book.asks]
        levels = np.concatenate(sides)
        # Where no full book was ever seen, these levels are some of it, and are not told as all.
        flags = np.full(len(levels), marks, np.uint8)
        flags[-1:] |= np.uint8(Flag.LAST)
        given = dict.fromkeys(("recv_ns", "event_ns"), np.full(len(levels), self.start_ns))
        given |= {"seq": np.full(len(levels), -1), "update_id": np.zeros(len(levels), np.int64), "flags": flags}
        given |= {
            "side": np.repeat([1, -1], [len(side) for side in sides]),
            "price": levels[:, 0],
            "size": levels[:, 1],
        }
        return {column.name: given[column.name].astype(column.dtype) for column in BOOK_LEVELS.columns}


def _joined(first: Columns, second: Columns) -> Columns:
    return {name: np.concatenate((first[name], second[name])) for name in second}


@dataclass(frozen=True)
class Written:
    """What a format made of a source."""

    rows: Mapping[str, int]
    """Rows by what they are."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows of the store that the format has no place for, by reason."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a reader of the files has to know, as JSON values."""


class TickExport(ABC):
    """One format."""

    has_levels: ClassVar[bool] = False
    """Whether its files show so many levels of the book; the others tell every change."""

    @abstractmethod
    def names(self, source: Source) -> list[str]:
        """Return the names of the files that `write` makes. Raises `InputError` for ticks that cannot be written so."""

    @abstractmethod
    def write(self, source: Source, place: Path) -> Written:
        """Write the files into the empty folder `place`, at constant memory."""


CONTRACT = TickExport
MACHINERY = frozenset({"decimal_columns", "exporting", "order_books"})
