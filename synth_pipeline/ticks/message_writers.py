"""From rows of ticks to messages, piece by piece: what `messages` does to level changes and trades, and to orders.

A writer walks over the time that was watched. What it meets is told as messages, but in gaps and where a full book
comes: there the book goes on untold, and a new stretch begins after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.schema import Flag
from synth_pipeline.ticks import message_kernels as kernels

Columns = Mapping[str, np.ndarray]
Span = tuple[int, int]
SLACK_NS = 10_000_000
"""How far the exchange's stamps of a trade and of the book event that holds it may lie apart across an event's end."""
_LOWEST = -(2**62)
_HALT = 7
_TALLY = ("executions", "unmatched_trades", "inferred_orders", "hidden_executions")


class Standing(NamedTuple):
    """A book as it stands; both sides have shape (levels, 2): price and size, best last."""

    bids: np.ndarray
    asks: np.ndarray


class Told(NamedTuple):
    """Messages as rows of `message_kernels` columns, and the stretches that they are of."""

    rows: list[np.ndarray]
    opens: list[int]
    spans: list[Span]
    initial: list[Standing]
    tally: dict[str, int]


class State:
    """A book that kernels work on."""

    def __init__(self) -> None:
        self.book, self.counts = np.zeros((2, 0, 2), np.int64), np.zeros(2, np.int64)
        self.known = np.full(2, _LOWEST)

    @classmethod
    def of(cls, standing: Standing, room: int) -> Self:
        """Take a book of which nothing is hidden."""
        state = cls()
        state.counts[:] = len(standing.bids), len(standing.asks)
        state.make_room(room)
        state.book[0, : state.counts[0]] = standing.bids
        state.book[1, : state.counts[1]] = standing.asks * [-1, 1]
        return state

    def copy(self) -> Self:
        """Return another book of the same levels."""
        other = type(self)()
        other.book, other.counts, other.known = self.book.copy(), self.counts.copy(), self.known.copy()
        return other

    def make_room(self, rows: int) -> None:
        """Let each of so many rows add a level."""
        needed = int(self.counts.max()) + rows + 1
        if needed > self.book.shape[1]:
            larger = np.zeros((2, needed + needed // 2, 2), np.int64)
            larger[:, : self.book.shape[1]] = self.book
            self.book = larger

    def standing(self) -> Standing:
        """Return the levels that have a size."""
        sides = [side[:count][side[:count, 1] > 0] for side, count in zip(self.book, self.counts.tolist(), strict=True)]
        return Standing(sides[0], sides[1] * [-1, 1])


class Writer:
    """Takes rows of a source piece by piece and keeps what messages and stretches they come to."""

    hides_far_levels = False
    """Whether levels may be there of which nothing was heard yet."""

    def __init__(self, start_ns: int, gaps: Sequence[Span], depth: int) -> None:
        self.state, self.depth = State(), depth
        self.tally = np.zeros(len(_TALLY), np.int64)
        self._gaps = sorted(gaps)
        self._rows: list[np.ndarray] = []
        self._written = 0
        self._opens: list[int] = []
        self._spans: list[Span] = []
        self._initial: list[Standing] = []
        self._open: tuple[int, int, Standing] | None = (start_ns, 0, Standing(*np.zeros((2, 0, 2), np.int64)))

    def walk(self, start_ns: int, end_ns: int, full_books: np.ndarray) -> None:
        """Take what was received in (start_ns, end_ns]; the book is not told of in gaps and where it comes whole."""
        silences = [(max(start, start_ns), min(end, end_ns)) for start, end in self._gaps]
        silences += [(int(time) - 1, int(time)) for time in full_books]
        for begin, end in merged([(begin, end) for begin, end in silences if begin < end]):
            if self._open is not None and self._open[0] < begin:
                self._tell(start_ns, begin)
                self._close(begin)
                start_ns = begin
            self.pass_over(start_ns, end)
            self._open = (end, self._written, self.state.standing())
            start_ns = end
        self._tell(start_ns, end_ns)

    def _tell(self, start_ns: int, end_ns: int) -> None:
        rows = self.tell(start_ns, end_ns)
        self._rows.append(rows)
        self._written += len(rows)

    def tell(self, start_ns: int, end_ns: int) -> np.ndarray:
        """Return the messages of (start_ns, end_ns]."""
        raise NotImplementedError

    def pass_over(self, start_ns: int, end_ns: int) -> None:
        """Bring the book from one time to another without telling how."""
        raise NotImplementedError

    def unobserved(self) -> tuple[str, ...]:
        """Return what the source cannot tell."""
        return (f"levels beyond {self.depth}",) if self.depth else ()

    def take_over(self, levels: Columns) -> None:
        """Apply level changes that are not told; a full book takes the place of the one before."""
        state, full = self.state, (levels["flags"] & Flag.SNAPSHOT) > 0
        state.make_room(full.size)
        before, ended = np.append(False, full[:-1]), np.append(True, levels["flags"][:-1] & Flag.LAST)
        edges = {0, full.size, *np.flatnonzero((full != before) | (full & (ended > 0))).tolist()}
        for begin, end in pairwise(sorted(edges)):
            if full[begin]:
                state.counts[:], state.known[:] = 0, _LOWEST
            side, price, size = (levels[name][begin:end] for name in ("side", "price", "size"))
            kernels.sizes_before(side, price, size, state.book, state.counts, state.known)
            if full[begin] and self.hides_far_levels:
                # Beyond the last level that it shows, a full book says nothing.
                state.known[:] = [
                    side[0, 0] if count else _LOWEST for side, count in zip(state.book, state.counts, strict=True)
                ]
        self._open = self._open and (self._open[0], self._written, state.standing())

    def _close(self, end_ns: int) -> None:
        if self._open is not None and self._written > self._open[1]:
            start_ns, first, standing = self._open
            self._opens.append(first)
            self._spans.append((start_ns, end_ns))
            self._initial.append(standing)
        self._open = None

    def told(self, end_ns: int) -> Told:
        """End the last stretch and return everything."""
        self._close(end_ns)
        tally = dict(zip(_TALLY, self.tally.tolist(), strict=True))
        return Told(self._rows, self._opens, self._spans, self._initial, tally)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Return spans in order, with those that touch as one."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


class LevelWriter(Writer):
    """Level changes and trades."""

    def __init__(self, start_ns: int, gaps: Sequence[Span], depth: int) -> None:
        super().__init__(start_ns, gaps, depth)
        self.hides_far_levels = depth == 0
        self.state.known[:] = -_LOWEST if self.hides_far_levels else _LOWEST
        self._levels: dict[str, np.ndarray] = {}
        self._trades = np.zeros((0, 5), np.int64)
        self._last = (start_ns, _LOWEST)
        """Receipt and clock of the last event."""
        self._between: list[np.ndarray] = []
        self._has_trades = False

    def feed(self, trades: Columns, levels: Columns, start_ns: int, end_ns: int) -> None:
        """Take the rows of (start_ns, end_ns]."""
        self._levels = dict(levels)
        self.state.make_room(levels["flags"].size + trades["flags"].size)
        # The exchange's clock stamps both streams; where one lacks it, receipt has to do.
        is_stamped = min(levels["event_ns"].min(initial=1), trades["event_ns"].min(initial=1)) > 0
        self._clock = np.maximum.accumulate(levels["event_ns" if is_stamped else "recv_ns"])
        self._between.append(np.diff(np.unique(levels["recv_ns"])))
        self._has_trades |= trades["flags"].size > 0
        off_market = (trades["flags"] & Flag.OFF_MARKET) > 0
        names = ("event_ns" if is_stamped else "recv_ns", "side", "price", "size", "recv_ns")
        found = np.stack([trades[name].astype(np.int64) for name in names], axis=1)[~off_market]
        found[:, 1] *= -1
        pool = np.concatenate((self._trades, found))
        self._trades = pool[np.argsort(pool[:, 0], kind="stable")]
        full = (levels["flags"] & Flag.SNAPSHOT) > 0
        self.walk(start_ns, end_ns, np.unique(levels["recv_ns"][full]))

    def unobserved(self) -> tuple[str, ...]:
        """Return what level changes cannot tell."""
        between_ms = float(np.median(np.concatenate(self._between))) / 1e6 if self._between else 0.0
        found = ["order ids", "number of orders", "queue position", *super().unobserved()]
        found += [f"changes between publications {between_ms:.0f} ms apart"] if between_ms >= 1 else []
        return (*found, *([] if self._has_trades else ["executions"]))

    def _slice(self, start_ns: int, end_ns: int) -> slice:
        return slice(*np.searchsorted(self._levels["recv_ns"], (start_ns, end_ns), side="right").tolist())

    def tell(self, start_ns: int, end_ns: int) -> np.ndarray:
        """Return the messages of whole events."""
        rows = self._slice(start_ns, end_ns)
        side, price, size, flags, times = (
            self._levels[name][rows] for name in ("side", "price", "size", "flags", "recv_ns")
        )
        stops = np.flatnonzero(flags & Flag.LAST) + 1
        if not stops.size:
            return np.zeros((0, kernels.COLUMNS), np.int64)
        first, event_ns, clock = np.append(0, stops), times[stops - 1], self._clock[rows][stops - 1]
        state = self.state
        scratch = state.copy()
        before = kernels.sizes_before(side, price, size, scratch.book, scratch.counts, scratch.known)
        trades = self._taken(int(clock[-1]))
        drop = np.maximum(before - size, 0)
        event = kernels.assign(trades, clock, first, side, price, drop, SLACK_NS)
        order = np.argsort(event, kind="stable")
        trades, event = trades[order], event[order]
        earliest = np.append(max(self._last[0], start_ns), event_ns[:-1])[event]
        trade_ns = np.clip(trades[:, 4], earliest, event_ns[event])
        trade_ns = np.maximum.accumulate(trade_ns)
        trade_first = np.searchsorted(event, np.arange(stops.size + 1))
        self._last = (int(event_ns[-1]), int(clock[-1]))
        return kernels.of_changes(
            event_ns, first, side, price, size, before, trades, trade_ns, trade_first, self.depth,
            state.book, state.counts, state.known, self.tally,
        )  # fmt: skip

    def _taken(self, until: int) -> np.ndarray:
        """Take the trades since the last event out of the pool."""
        since, stop = np.searchsorted(self._trades[:, 0], (self._last[1], until), side="right").tolist()
        taken, self._trades = self._trades[since:stop], self._trades[stop:]
        return taken

    def pass_over(self, start_ns: int, end_ns: int) -> None:
        """Apply level changes."""
        rows = self._slice(start_ns, end_ns)
        self.take_over({name: self._levels[name][rows] for name in ("side", "price", "size", "flags")})
        if rows.start < rows.stop:
            self._last = (end_ns, int(self._clock[rows.stop - 1]))


def _stacked(columns: Columns, names: Sequence[str]) -> np.ndarray:
    return np.stack([columns[name].astype(np.int64) for name in names], axis=1)


class OrderWriter(Writer):
    """Events of orders, and the levels that the store has of them."""

    def __init__(self, start_ns: int, gaps: Sequence[Span], depth: int) -> None:
        super().__init__(start_ns, gaps, depth)
        self._takers, self._taker_count = np.zeros((64, kernels.TAKER_COLUMNS), np.int64), np.zeros(1, np.int64)
        self._began_whole = False

    def feed(self, orders: Columns, levels: Columns, start_ns: int, end_ns: int) -> None:
        """Take the rows of (start_ns, end_ns]."""
        self.state.make_room(2 * orders["flags"].size + levels["flags"].size)
        self._orders = _stacked(orders, ("recv_ns", "seq", "kind", "side", "price", "size", "order_id"))
        self._levels = _stacked(levels, ("recv_ns", "seq", "side", "price", "size", "flags"))
        is_full, is_halt = (self._levels[:, 5] & Flag.SNAPSHOT) > 0, self._orders[:, 2] == _HALT
        cuts = np.concatenate((self._levels[is_full, 0], self._orders[is_halt, 0]))
        self.walk(start_ns, end_ns, np.unique(cuts))

    def tell(self, start_ns: int, end_ns: int) -> np.ndarray:
        """Return the messages of orders and levels, event by event."""
        orders, levels = (
            table[slice(*np.searchsorted(table[:, 0], (start_ns, end_ns), side="right").tolist())]
            for table in (self._orders, self._levels)
        )
        if (full := np.flatnonzero(levels[:, 5] & Flag.SNAPSHOT)).size:
            levels = levels[full[0] :]
            self.state.counts[:] = self._taker_count[:] = 0
            orders, self._began_whole = orders[:0], True
        self._make_room_for_takers(len(orders))
        state = self.state
        return kernels.of_orders(
            orders, levels[:, :5].copy(), self._takers, self._taker_count,
            state.book, state.counts, state.known, self.tally,
        )  # fmt: skip

    def unobserved(self) -> tuple[str, ...]:
        """Return what orders cannot tell."""
        found = () if self._began_whole else ("orders placed before the recording",)
        return ("hidden orders", *super().unobserved(), *found)

    def _make_room_for_takers(self, orders: int) -> None:
        needed = int(self._taker_count[0]) + orders
        if needed > len(self._takers):
            self._takers = np.concatenate((self._takers, np.zeros((needed, kernels.TAKER_COLUMNS), np.int64)))

    def pass_over(self, start_ns: int, end_ns: int) -> None:
        """Let the book go on unheard."""
        tally = self.tally.copy()
        self.tell(start_ns, end_ns)
        self.tally[:] = tally
