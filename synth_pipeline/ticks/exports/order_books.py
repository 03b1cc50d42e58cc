"""Order events with the books before and after each, as LOBSTER tells both, from what the store has of them.

Most sources tell an incoming order by what it takes, and their book is sound after every event. Of others, whose days
count crossed books, the incoming order is an order first and trades then, and both sides report each trade: there the
events are the messages of `ticks.message_writers`, which tell it once and from which no book is crossed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from synth_pipeline.schema import Flag
from synth_pipeline.ticks import message_kernels as kernels
from synth_pipeline.ticks.book import Book
from synth_pipeline.ticks.exports import Columns, Source
from synth_pipeline.ticks.message_writers import OrderWriter, Standing, State

_ADD, _DELETE, _HIDDEN = 1, 3, 5
_LESS = (2, 3, 4)
_CHANGE = ("recv_ns", "seq", "side", "price", "size")
_HIDING = ("all", "quotes")
"""Streams whose gaps hide what became of the book."""


class Told(NamedTuple):
    """Some order events; ladders have shape (4, events, levels) as `Replay.ladder`."""

    orders: Columns
    before: np.ndarray
    after: np.ndarray
    untold: Mapping[str, int]
    """Events of the store that are not among them, by reason."""


def told(source: Source, levels: int) -> Iterator[Told]:
    """Yield the order events of a source piece by piece, with so many of the best levels."""
    return _from_messages(source, levels) if source.day.manifest.facts.get("crossed") else _as_they_are(source, levels)


def _as_they_are(source: Source, levels: int) -> Iterator[Told]:
    followed = Books(levels)
    for piece in source.pieces("orders", "book_levels"):
        stood = piece["orders"]["flags"] & Flag.SNAPSHOT > 0
        orders = {name: column[~stood] for name, column in piece["orders"].items()}
        yield Told(orders, *followed.around(orders, piece["book_levels"]), {"stood already": int(stood.sum())})


class Books:
    """The best levels before and after order events, piece by piece."""

    def __init__(self, levels: int) -> None:
        self._book, self._ladder = Book(), np.zeros((4, 1, levels), np.int64)

    def around(self, orders: Columns, levels: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Return both, of shape (4, events, levels) as `Replay.ladder`."""
        is_full = levels["flags"] & Flag.SNAPSHOT > 0
        changes = _by_order(orders, {name: levels[name][~is_full] for name in _CHANGE})
        full = {name: levels[name][is_full] for name in _CHANGE} | {"flags": levels["flags"][is_full]}
        rows = _joined(full | {"at": _place(orders, full)}, changes)
        order = np.lexsort((rows["seq"], rows["recv_ns"], rows["at"]))
        rows = {name: column[order] for name, column in rows.items()}
        fed = self._book.feed(rows, self._ladder.shape[2])
        ladders = np.concatenate((self._ladder, fed.ladder), axis=1)
        self._ladder = ladders[:, -1:]
        own = np.searchsorted(rows["at"][fed.last], 2 * np.arange(orders["seq"].size), side="right")
        return ladders[:, np.append(0, own)[: own.size]], ladders[:, own]


def _by_order(orders: Columns, levels: Columns) -> Columns:
    """Return level changes with one for each order event, where a record has several of a level, and their places.

    A source tells what a record comes to; after each of its events a level has what it ends with, less what the later
    ones do to it. Place 2n is that of event n, 2n + 1 lies before the next.
    """
    events = orders["seq"].size
    rows = _joined({name: orders[name] for name in _CHANGE}, levels)
    is_level = np.arange(rows["seq"].size) >= events
    order = np.lexsort((is_level, rows["price"], rows["side"], rows["seq"], rows["recv_ns"]))
    keys = np.stack([rows[name][order] for name in ("recv_ns", "seq", "side", "price")])
    begins = np.flatnonzero(np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))[: order.size])
    group = np.repeat(np.arange(begins.size), np.diff(np.append(begins, order.size)))
    ends = np.append(begins[1:], order.size)[group] - 1
    kind = np.append(orders["kind"], np.zeros(levels["seq"].size, np.int8))[order]
    done = np.cumsum(np.select([kind == _ADD, np.isin(kind, _LESS)], [rows["size"][order], -rows["size"][order]], 0))
    level_first, level_last = is_level[order[begins[group]]], is_level[order[ends]]
    size = np.where(kind > 0, np.maximum(rows["size"][order[ends]] - (done[ends] - done), 0), rows["size"][order])
    kept = np.where(kind > 0, level_last & (kind != _HIDDEN), level_first)
    found = {name: rows[name][order[kept]] for name in _CHANGE} | {"size": size[kept]}
    at = np.where(kind[kept] > 0, 2 * order[kept], _place(orders, found))
    return found | {"at": at, "flags": np.full(at.size, Flag.LAST, np.uint8)}


def _place(orders: Columns, rows: Columns) -> np.ndarray:
    """Return the places of rows that no order event tells of: with the last event of their record, or between two."""
    size = rows["seq"].size
    which = np.concatenate((np.full(size, 0), np.full(orders["seq"].size, 1), np.full(size, 2)))
    times, numbers = (np.concatenate((rows[name], orders[name], rows[name])) for name in ("recv_ns", "seq"))
    order = np.lexsort((which, numbers, times))
    counted = np.empty(order.size, np.int64)
    counted[order] = np.cumsum(which[order] == 1)
    before, upto = counted[:size], counted[order.size - size :]
    return np.where(upto > before, 2 * upto - 2, 2 * before - 1)


def _joined(first: Columns, second: Columns) -> Columns:
    return {name: np.concatenate((first[name], second[name])) for name in first}


class _Draining(OrderWriter):
    """Hands out what it has told, each stretch with the book that it begins from."""

    def __init__(self, source: Source) -> None:
        gaps = [(start, end) for stream, start, end in source.day.gaps if stream in _HIDING]
        super().__init__(source.start_ns, gaps, 0)
        self.parts: list[tuple[Standing, np.ndarray]] = []

    def _tell(self, start_ns: int, end_ns: int) -> None:
        standing = self.state.standing()
        self.parts.append((standing, self.tell(start_ns, end_ns)))
        self._written += len(self.parts[-1][1])


def _from_messages(source: Source, levels: int) -> Iterator[Told]:
    writer, reached = _Draining(source), source.start_ns - 1
    for piece in source.pieces("orders", "book_levels"):
        orders, changes = piece["orders"], piece["book_levels"]
        end = max([reached, *(int(rows["recv_ns"][-1]) for rows in piece.values() if rows["recv_ns"].size)])
        writer.feed(orders, changes, reached, end)
        reached = end
        parts, writer.parts = writer.parts, []
        found = [_told(standing, rows, orders, levels) for standing, rows in parts if len(rows)]
        yield from found
        count = orders["seq"].size - sum(each.orders["seq"].size for each in found)
        none = np.zeros((4, 0, levels), np.int64)
        untold = {"of orders that came across the spread, or in gaps": count}
        yield Told({name: column[:0] for name, column in orders.items()}, none, none, untold)


def _told(standing: Standing, rows: np.ndarray, orders: Columns, levels: int) -> Told:
    """Return messages as order events, with the books around them; what only came into sight is none."""
    state, ladder = State.of(standing, len(rows)), np.zeros((4, len(rows) + 1, levels), np.int64)
    kind, side, price, size = (rows[:, at] for at in (kernels.KIND, kernels.SIDE, kernels.PRICE, kernels.SIZE))
    kernels.replay(kind, side, price, size, state.book, state.counts, state.known, ladder[:, :-1])
    for which, best_last in enumerate(state.standing()):
        best = best_last[::-1][:levels]
        ladder[2 * which, -1, : len(best)], ladder[2 * which + 1, -1, : len(best)] = best.T
    kept = np.flatnonzero(kind != kernels.SHOWN)
    gone = orders["kind"] == _DELETE
    deleted = set(zip(orders["recv_ns"][gone].tolist(), orders["order_id"][gone].tolist(), strict=True))
    places = (kernels.TIME, kernels.ORDER_ID, kernels.KIND, kernels.SIDE, kernels.PRICE, kernels.SIZE)
    names = ("recv_ns", "order_id", "kind", "side", "price", "size")
    columns = {name: rows[kept, place] for name, place in zip(names, places, strict=True)}
    keys = zip(columns["recv_ns"].tolist(), columns["order_id"].tolist(), strict=True)
    is_whole = np.array([key in deleted for key in keys], np.bool_)
    columns["kind"] = np.where((columns["kind"] == kernels.CANCEL) & is_whole, _DELETE, columns["kind"])
    return Told(columns | {"seq": kept}, ladder[:, kept], ladder[:, kept + 1], {})
