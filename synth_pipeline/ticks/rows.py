"""Row archives to the tick tables of a day, batch by batch.

What belongs here: several files of one day put together on one grid, the book of a source that records orders, quotes
where none were recorded, and what nobody recorded, as gaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

from synth_pipeline import schema
from synth_pipeline.archives import Batch, Columns, Gap, Head, RowArchive, merged
from synth_pipeline.archives.grid import Step, common_step
from synth_pipeline.errors import InputError
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import Flag, Scale
from synth_pipeline.ticks import parquet, quality
from synth_pipeline.ticks.day import DayTicks, file_metadata
from synth_pipeline.ticks.order_rows import OrderRows
from synth_pipeline.ticks.sorted_rows import SortedRows

Source = tuple[RowArchive, Path]
_STREAMS = ("trades", "book_levels", "quotes")
_FROM_ORDERS = ("orders", "book_levels", "quotes")
_SNAPSHOT = int(Flag.SNAPSHOT)


def ingest_rows(
    sources: Sequence[Source],
    symbol: str,
    day: date,
    place: Path,
    *,
    inverse: bool = False,
    progress: Progress = silent,
) -> DayTicks:
    """Turn one day of row archives into the tick tables of a folder.

    Raises `InputError` for damaged files and for two that hold the same table at the same time, `NoDataError` for a
    symbol or day that they do not hold.
    """
    heads = [archive.scan(path, symbol, day) for archive, path in sources]
    order = sorted(range(len(heads)), key=lambda number: heads[number].coverage[0])
    scale = replace(_common_scale(heads), inverse=inverse)
    ordered = [(*sources[number], replace(heads[number], scale=scale)) for number in order]
    _check_disjoint([(path, head) for _, path, head in ordered])
    return _Writing(ordered, symbol, day, place, progress).written()


class _Writing:
    """One day on its way into its files."""

    def __init__(
        self, sources: list[tuple[RowArchive, Path, Head]], symbol: str, day: date, place: Path, progress: Progress
    ) -> None:
        self._sources, self._symbol, self._day, self._place = sources, symbol, day, place
        self._progress = progress
        self._heads = [head for _, _, head in sources]
        self._scale = self._heads[0].scale
        self._coverage = merged([stretch for head in self._heads for stretch in head.coverage])
        self._visible = max(head.visible_levels for head in self._heads)
        self._recorded = {name for head in self._heads for name in _yielded(head)}
        self._quarantine, self._gaps = SortedRows(place, schema.QUARANTINE), SortedRows(place, schema.GAPS)
        self._rejected, self._flagged, self._missed = Counter[str](), Counter[str](), Counter[str]()
        self._book_known_ns: int | None = None
        self._from_book = "quotes" not in self._recorded and "book_levels" in self._recorded
        names = dict.fromkeys((*_STREAMS, *sorted(self._recorded)))
        self._files = {name: place / f"{name}.parquet" for name in (*names, "gaps", "quarantine")}

    def written(self) -> DayTicks:
        metadata = file_metadata(self._coverage, self._visible)
        writers = {name: self._writer(name) for name in self._files if name not in ("gaps", "quarantine")}
        odd = self._write_batches(writers)
        rows = {name: writer.close(self._scale, **metadata) for name, writer in writers.items() if name != "quotes"}
        if self._from_book:
            for piece in quality.tops(self._files["book_levels"]):
                writers["quotes"].write(piece)
        rows["quotes"] = writers["quotes"].close(self._scale, **metadata)
        self._note_what_is_missing()
        for name, kept in (("gaps", self._gaps), ("quarantine", self._quarantine)):
            writer = self._writer(name)
            for piece in kept.columns(parquet.ROW_GROUP):
                writer.write(piece)
            rows[name] = writer.close(self._scale, **metadata)
        counts = self._counts() | odd
        return DayTicks(self._files, rows, self._scale, self._coverage, self._visible, counts=counts)

    def _writer(self, name: str) -> parquet.TableWriter:
        return parquet.TableWriter(self._files[name], schema.TICK_TABLES[name])

    def _write_batches(self, writers: Mapping[str, parquet.TableWriter]) -> dict[str, int]:
        """Write every batch, and return what was odd about the orders."""
        first, odd, records = 0, Counter[str](), sum(head.records for head in self._heads)
        for archive, path, head in self._sources:
            orders = OrderRows(head.coverage[0][0]) if "order_events" in head.tables else None
            for batch in archive.batches(path, self._symbol, self._day, head):
                self._take(batch, batch.tables, orders, first, writers)
                if batch.tables:
                    done = max(int(rows["seq"][-1]) for rows in batch.tables.values()) + 1
                    self._progress(first + done, records, "records read")
            if orders is not None:
                tables, gaps = orders.rest(head.coverage[-1][1])
                self._take(Batch({}, gaps, []), tables, None, first, writers)
                odd.update(orders.counts)
            first += head.records
        return dict(odd)

    def _take(
        self,
        batch: Batch,
        tables: Mapping[str, Columns],
        orders: OrderRows | None,
        first: int,
        writers: Mapping[str, parquet.TableWriter],
    ) -> None:
        gaps = list(batch.gaps)
        if orders is not None and "order_events" in tables:
            events = tables["order_events"]
            found, hidden = orders.feed(events)
            tables = {name: rows for name, rows in tables.items() if name != "order_events"} | found
            gaps += hidden
        for name, rows in tables.items():
            self._note_snapshot(name, rows)
            for flag in (Flag.BAD_CLOCK, Flag.OFF_MARKET):
                self._flagged[str(flag.name).lower()] += int((rows["flags"] & flag > 0).sum())
            typed = {column.name: rows[column.name] for column in schema.TICK_TABLES[name].columns}
            writers[name].write(typed | {"seq": rows["seq"] + first})
        self._add_gaps(gaps)
        self._rejected.update(row[3] for row in batch.quarantine)
        self._quarantine.add([(recv_ns, seq + first, *rest) for recv_ns, seq, *rest in batch.quarantine])

    def _note_snapshot(self, name: str, rows: Columns) -> None:
        if name == "book_levels" and self._book_known_ns is None:
            snapshots = rows["recv_ns"][rows["flags"] & _SNAPSHOT > 0]
            self._book_known_ns = int(snapshots[0]) if len(snapshots) else None

    def _add_gaps(self, gaps: Sequence[Gap]) -> None:
        self._missed.update(gap[2] for gap in gaps if gap[3] not in ("not_recorded", "no_snapshot"))
        # What hides the book hides the quotes too that are made from it.
        hidden = [
            (a, b, "quotes", *rest) for a, b, stream, *rest in gaps if stream == "book_levels" and self._from_book
        ]
        self._gaps.add([*gaps, *hidden])

    def _note_what_is_missing(self) -> None:
        start, end = self._coverage[0][0], self._coverage[-1][1]
        derived = {"quotes"} if self._from_book else set()
        absent = [name for name in _STREAMS if name not in self._recorded | derived]
        self._add_gaps([(start, end, name, "not_recorded", -1) for name in absent])
        self._gaps.add([(before[1] - 1, after[0], "all", "silence", -1) for before, after in pairwise(self._coverage)])
        for name in sorted(self._recorded & set(_STREAMS)):
            covered = merged([part for head in self._heads if name in _yielded(head) for part in head.coverage])
            holes = [(a[1] - 1, b[0]) for a, b in pairwise(covered)]
            edges = [(start, covered[0][0]), (covered[-1][1] - 1, end)]
            uncovered = [(a, b) for a, b in holes + edges if b - a > 1 and (a, b) not in _holes(self._coverage)]
            self._add_gaps([(a, b, name, "not_recorded", -1) for a, b in uncovered])
        has_updates = any("book_levels" in head.tables for head in self._heads)
        if has_updates and self._book_known_ns != start:
            self._add_gaps([(start, self._book_known_ns or end, "book_levels", "no_snapshot", -1)])

    def _counts(self) -> dict[str, object]:
        # Rows of different files have no ids in common: only one source's own quotes can be held against its book.
        together = any({"quotes", "book_levels"} <= set(head.tables) for head in self._heads)
        from_orders = any("order_events" in head.tables for head in self._heads)
        return {
            "messages": sum(head.records for head in self._heads),
            "late": sum(head.late for head in self._heads),
            "quarantined": dict(self._rejected),
            "flagged": {name: self._flagged[name] for name in ("bad_clock", "off_market")},
            "gaps": self._missed["book_levels"],
            "trade_gaps": self._missed["trades"],
            "quotes_from": "book" if self._from_book or from_orders else "stream",
            "opened_from_yesterday": False,
        } | quality.figures(self._files, quotes_recorded=together)


def _yielded(head: Head) -> tuple[str, ...]:
    """The tick tables that a source fills."""
    return tuple(name for table in head.tables for name in (_FROM_ORDERS if table == "order_events" else (table,)))


def _common_scale(heads: Sequence[Head]) -> Scale:
    ticks, lots = ([Step.of(getattr(head.scale, name)) for head in heads] for name in ("tick_size", "lot_size"))
    return Scale(common_step(ticks).size, common_step(lots).size)


def _check_disjoint(sources: Sequence[tuple[Path, Head]]) -> None:
    ends: dict[str, tuple[int, Path]] = {}
    for path, head in sources:
        for name in _yielded(head):
            end, earlier = ends.get(name, (0, path))
            if head.coverage[0][0] < end:
                raise InputError(f"{earlier} and {path} both hold {name} of the same time: give one of them")
            ends[name] = (head.coverage[-1][1], path)


def _holes(coverage: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(before[1] - 1, after[0]) for before, after in pairwise(coverage)}
