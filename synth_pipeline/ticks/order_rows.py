"""Order events to rows of `orders`, `book_levels` and `quotes`, with what cannot be known of them as gaps.

Quotes are the top of the book of orders wherever it is known and not crossed. A book that is crossed for a moment, as
where an incoming order is reported before what it meets, gives no quote until it is sound again; only when that takes
longer than `PATIENCE_NS` is it a gap.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline.archives import Columns, Gap, OrderAction
from synth_pipeline.schema import Flag
from synth_pipeline.ticks.orders import PATIENCE_NS, OrderBook

_LAST, _GAP_BEFORE, _SNAPSHOT = np.uint8(Flag.LAST), np.uint8(Flag.GAP_BEFORE), np.uint8(Flag.SNAPSHOT)
_SIDES = ("bid_price", "bid_size", "ask_price", "ask_size")


class OrderRows:
    """Takes one day's order events, batch by batch."""

    def __init__(self, start_ns: int) -> None:
        self._book = OrderBook()
        self._held: Columns = {}
        self._start_ns = start_ns
        self._lost: tuple[int, str] | None = (start_ns, "no_snapshot")
        """Since when no quote is known, and why; None while one is."""
        self._quote: tuple[int, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """What was odd about the orders."""
        return self._book.counts

    def feed(self, events: Columns) -> tuple[dict[str, Columns], list[Gap]]:
        """Take some events and return the rows of those that are over; what follows the last LAST waits."""
        if self._held:
            events = {name: np.concatenate((self._held[name], values)) for name, values in events.items()}
        ends = np.flatnonzero(events["flags"] & _LAST)
        stop = int(ends[-1]) + 1 if len(ends) else 0
        self._held = {name: values[stop:] for name, values in events.items()}
        return self._rows({name: values[:stop] for name, values in events.items()}) if stop else ({}, [])

    def rest(self, end_ns: int) -> tuple[dict[str, Columns], list[Gap]]:
        """Return the rows of an event whose end never came, and the gaps that last until the end."""
        tables: dict[str, Columns] = {}
        gaps: list[Gap] = []
        if len(self._held.get("flags", ())):
            self._held["flags"][-1] |= _LAST
            tables, gaps = self._rows(self._held)
        if self._lost is not None:
            gaps.append((self._lost[0], end_ns, "quotes", self._lost[1], -1))
        if not self._book.is_complete:
            gaps.append((self._start_ns, end_ns, "book_levels", "no_snapshot", -1))
        return tables, gaps

    def _rows(self, events: Columns) -> tuple[dict[str, Columns], list[Gap]]:
        was_complete, gaps = self._book.is_complete, list[Gap]()
        outcome = self._book.feed(events)
        if self._book.is_complete and not was_complete:
            first = int(np.flatnonzero(events["action"] == OrderAction.CLEAR)[0])
            gaps.append((self._start_ns, int(events["recv_ns"][first]), "book_levels", "no_snapshot", -1))
        levels = self._shared(events, outcome.levels)
        levels["flags"] |= np.where(outcome.levels["last"] == 1, _LAST, np.uint8(0))
        orders = self._shared(events, outcome.orders)
        orders["flags"] |= _LAST | (events["flags"][outcome.orders["at"]] & _SNAPSHOT)
        kinds = {name: outcome.orders[name].astype(np.int8) for name in ("kind", "side")}
        levels |= {"side": outcome.levels["side"].astype(np.int8), "update_id": levels["seq"] + 1}
        quotes, hidden = self._quotes(events, outcome.tops)
        tables = {"orders": outcome.orders | orders | kinds, "book_levels": outcome.levels | levels, "quotes": quotes}
        found = {
            name: {column: values for column, values in rows.items() if column not in ("at", "last")}
            for name, rows in tables.items()
            if len(rows["seq"])
        }
        return found, [gap for gap in gaps + hidden if gap[0] < gap[1]]

    @staticmethod
    def _shared(events: Columns, rows: Columns) -> Columns:
        columns = {name: events[name][rows["at"]] for name in ("recv_ns", "event_ns", "seq")}
        # A full book is not told in one event that replaces all levels, so none of them is marked as such.
        return columns | {"flags": events["flags"][rows["at"]] & ~(_LAST | _GAP_BEFORE | _SNAPSHOT)}

    def _quotes(self, events: Columns, tops: Columns) -> tuple[Columns, list[Gap]]:
        """Return the sound tops that differ from the one before, and the stretches without one."""
        gaps: list[Gap] = []
        keep = np.zeros(len(tops["at"]), np.bool_)
        after_gap = keep.copy()
        sound = (tops["known"] == 1) & (tops["crossed"] == 0)
        values = np.stack([tops[name] for name in _SIDES], axis=1)
        same = np.append(False, (values[1:] == values[:-1]).all(axis=1) & sound[1:] & sound[:-1])[: len(sound)]
        times = events["recv_ns"][tops["at"]]
        for row in np.flatnonzero(~same).tolist():
            time = int(times[row])
            if not sound[row]:
                reason = "crossed_book" if tops["known"][row] else "no_snapshot"
                if self._lost is None or (self._lost[1] == "crossed_book" and reason == "no_snapshot"):
                    self._lost = (time - 1 if self._lost is None else self._lost[0], reason)
                continue
            top = tuple(values[row].tolist())
            keep[row] = top != self._quote or self._lost is not None
            if self._lost is not None:
                since, reason = self._lost
                if reason != "crossed_book" or time - since > PATIENCE_NS:
                    gaps.append((since, time, "quotes", reason, -1))
                    after_gap[row] = True
                else:
                    keep[row] = top != self._quote
            self._quote, self._lost = top, None
        rows = {name: column[keep] for name, column in tops.items()}
        columns = self._shared(events, rows)
        columns["flags"] |= _LAST | np.where(after_gap[keep], _GAP_BEFORE, np.uint8(0))
        columns["update_id"] = columns["seq"] + 1
        return columns | {name: rows[name] for name in _SIDES}, gaps
