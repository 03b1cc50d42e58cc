"""Messages in arrival order to untyped rows: sequence rules, snapshots, duplicates, gaps.

One `Assembler` serves one instrument and one day. It decides *whether* and *when* a row is known, and it is the one
statement of those rules: `sequence` only finds, in columns, the stretches about which they have nothing to say. What it
remembers is bounded; whoever feeds it takes the rows away as they come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from synth_pipeline.schema import Flag
from synth_pipeline.venues import BookUpdate, Head, Levels, Quote, SequenceRule, Trade, Venue, Verdict

IMPLAUSIBLE_JUMP = 10**12
"""No venue's ids advance by this much between two messages (Binance's busiest book: 10^10 a day): the id is corrupt."""
RESTARTED = 1
"""On venues whose snapshots overwrite, the id of the first full book after a restart of theirs."""
LATE_IDS, LATE_HOLES = 100_000, 10_000
"""How many missing trade ids of a hole, and how many holes, are remembered, so that a late print can fill its own. On
venues whose trade ids do not count up, so many of the last ids are, so that a repeated print is found."""
WAITING_BYTES = 64 * 1024 * 1024
"""Payloads of updates that wait for a snapshot, hours of them: no venue's snapshot is older than that. Beyond it the
oldest are given up."""


class Arrival(NamedTuple):
    """Where and when a payload arrived."""

    recv_ns: int
    seq: int
    flags: int
    payload: bytes


class BookRows(NamedTuple):
    """One book event: its levels and what they share."""

    recv_ns: int
    event_ns: int
    seq: int
    update_id: int
    flags: int
    bids: Levels
    asks: Levels


class Rejected(NamedTuple):
    """One row of `schema.QUARANTINE`."""

    recv_ns: int
    seq: int
    stream: str
    reason: str
    detail: str
    payload: bytes


class Hole(NamedTuple):
    """One row of `schema.GAPS`."""

    start_ns: int
    end_ns: int
    stream: str
    reason: str
    missing: int


@dataclass
class _Missing:
    """Trade ids of a hole that may yet come: [first, stop) without those that did."""

    hole: Hole
    first: int
    stop: int
    came: set[int] = field(default_factory=set)

    def fill(self, trade_id: int) -> bool:
        """Take a late print; False when it is not missing here."""
        if trade_id >= self.stop or trade_id in self.came:
            return False
        self.came.add(trade_id)
        self.hole = self.hole._replace(missing=self.hole.missing - 1)
        return True


class Known(NamedTuple):
    """How far the streams are known; -1 where an id is not."""

    book_id: int
    bridging: bool
    """The book comes from a snapshot that no update has followed yet."""
    id_before_gap: int
    quote_id: int
    trade_id: int


@dataclass
class Assembler:
    """Rows of one instrument and day, in arrival order."""

    venue: Venue
    book: list[BookRows] = field(default_factory=list)
    trades: list[tuple[Arrival, Trade]] = field(default_factory=list)
    quotes: list[tuple[Arrival, Quote]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    """These four are taken away by whoever feeds the assembler."""
    book_holes: list[Hole] = field(default_factory=list)
    """What a loss hides of the book, and of the quotes that may have been lost with it."""
    counts: Counter[str] = field(default_factory=Counter)
    """Book events by what became of them."""
    last_trade_id: int | None = None
    last_quote_id: int | None = None
    book_known_ns: int | None = None
    """Receipt of the last applied book event; None while the book is unknown from the start."""
    _unknown_since: int | None = None
    _waiting: deque[tuple[Arrival, Head]] = field(default_factory=deque)
    """Updates that may follow a snapshot yet to come; their levels are read again from the payload."""
    _waiting_bytes: int = 0
    _id_before_gap: int | None = None
    """Final id of what was known when the last update went missing; it may yet arrive late."""
    _hidden_by: str = "no snapshot came before it"
    _missing_trades: list[_Missing] = field(default_factory=list)
    """By rising ids."""
    _settled: list[Hole] = field(default_factory=list)
    _seen_trades: dict[int, None] = field(default_factory=dict)
    _last_trade_ns: int = 0
    _suspects: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rule: SequenceRule = self.venue.sequence_rule()

    def known(self) -> Known:
        """Return what `sequence` must know to go on."""
        ids = (self.rule.last_id, self._id_before_gap, self.last_quote_id, self.last_trade_id)
        book, before_gap, quote, trade = (-1 if each is None else each for each in ids)
        return Known(book, self.rule.bridging, before_gap, quote, trade)

    def went_on(self, known: Known, book_events: int, book_ns: int, trade_ns: int) -> None:
        """Take over a stretch that was in order: how far it led, its book events, when the last of a kind came."""
        if book_events:
            self.rule.resume(known.book_id)
            self.counts["applied"] += book_events
            self.book_known_ns = book_ns
        self.last_quote_id = None if known.quote_id < 0 else known.quote_id
        if trade_ns >= 0:
            self.last_trade_id, self._last_trade_ns = known.trade_id, trade_ns

    def add_trade(self, at: Arrival, trade: Trade) -> None:
        """Take one print; ids must count up by one where the venue says that they do."""
        if not self.venue.trade_ids_count_up:
            self._add_unordered_trade(at, trade)
            return
        if self._is_implausible(at, "trades", self.last_trade_id, trade.trade_id):
            return
        expected = None if self.last_trade_id is None else self.last_trade_id + 1
        if expected is not None and trade.trade_id < expected:
            self._add_late_trade(at, trade)
            return
        if expected is not None and trade.trade_id > expected:
            self._miss_trades(at, expected, trade.trade_id)
            at = at._replace(flags=at.flags | Flag.GAP_BEFORE)
        self.last_trade_id, self._last_trade_ns = trade.trade_id, at.recv_ns
        self.trades.append((at, trade))

    def _add_unordered_trade(self, at: Arrival, trade: Trade) -> None:
        if trade.trade_id in self._seen_trades:
            self.reject(at, "trades", "duplicate_trade", f"trade id {trade.trade_id} was already received")
            return
        self._seen_trades[trade.trade_id] = None
        if len(self._seen_trades) > LATE_IDS:
            del self._seen_trades[next(iter(self._seen_trades))]
        self.trades.append((at, trade))

    def _miss_trades(self, at: Arrival, first: int, stop: int) -> None:
        hole = Hole(self._last_trade_ns, at.recv_ns, "trades", "sequence_gap", stop - first)
        self._missing_trades.append(_Missing(hole, first, min(stop, first + LATE_IDS)))
        if len(self._missing_trades) > LATE_HOLES:
            self._settled.append(self._missing_trades.pop(0).hole)

    def _add_late_trade(self, at: Arrival, trade: Trade) -> None:
        number = bisect_right(self._missing_trades, trade.trade_id, key=lambda missing: missing.first) - 1
        if number < 0 or not self._missing_trades[number].fill(trade.trade_id):
            self.reject(at, "trades", "duplicate_trade", f"trade id {trade.trade_id} was already received")
            return
        # It arrived after a later id: the row is kept, at the time it was received, and its hole has shrunk.
        self.trades.append((at, trade))

    def add_quote(self, at: Arrival, quote: Quote) -> None:
        """Take one top of book; update ids must rise, save where the venue begins to count anew."""
        last = self.last_quote_id
        if self.rule.snapshot_overwrites:
            if quote.update_id == last:
                self.counts["repeated_quotes"] += 1
                return
            last = None if quote.update_id == RESTARTED else last
        if self._is_implausible(at, "quotes", last, quote.update_id):
            return
        if last is not None and quote.update_id <= last:
            reason = "duplicate_quote" if quote.update_id == last else "stale_quote"
            self.reject(at, "quotes", reason, f"update id {quote.update_id} follows {last}")
            return
        self.last_quote_id = quote.update_id
        self.quotes.append((at, quote))

    def add_book(self, at: Arrival, update: BookUpdate) -> None:
        """Take one book event: a snapshot or a change."""
        if update.snapshot:
            self._add_snapshot(at, update)
            return
        known = self.rule.last_id
        if self._is_implausible(at, "book_levels", known, update.last_id):
            return
        match self.rule.check(update):
            case Verdict.IN_ORDER:
                self._apply(at, update)
            case Verdict.DUPLICATE:
                self.reject(at, "book_levels", "duplicate_update", f"update {update.last_id} is already contained")
            case Verdict.NEEDS_SNAPSHOT if self._fills_the_gap(update):
                self._heal(at, update)
            case Verdict.NEEDS_SNAPSHOT:
                self.wait(at, _ids_of(update))
            case Verdict.GAP:
                self._lose(at, update)
                self._id_before_gap = known
                self.wait(at, _ids_of(update))

    def _is_implausible(self, at: Arrival, stream: str, last: int | None, new: int) -> bool:
        """Quarantine an id that is far off; when the next one agrees with it, the venue's ids really did jump."""
        suspect = self._suspects.get(stream)
        if (
            last is None
            or new - last < IMPLAUSIBLE_JUMP
            or (suspect is not None and abs(new - suspect) < IMPLAUSIBLE_JUMP)
        ):
            return False
        self._suspects[stream] = new
        self.reject(at, stream, "implausible_id", f"id {new} follows {last}")
        return True

    def _apply(self, at: Arrival, update: BookUpdate) -> None:
        self.counts["applied"] += 1
        self.book_known_ns = at.recv_ns
        if update.bids or update.asks:
            row = BookRows(at.recv_ns, update.event_ns, at.seq, update.last_id, at.flags, update.bids, update.asks)
            self.book.append(row)

    def wait(self, at: Arrival, update: Head) -> None:
        """Keep an update of which nothing can be said before a snapshot."""
        if self._unknown_since is None:
            self._unknown_since = at.recv_ns
        self._waiting.append((at, update))
        self._waiting_bytes += len(at.payload)
        while self._waiting_bytes > WAITING_BYTES:
            oldest, _ = self._waiting.popleft()
            self._waiting_bytes -= len(oldest.payload)
            self._give_up(oldest)

    def _give_up(self, at: Arrival) -> None:
        self.reject(at, "book_levels", "after_gap" if self.counts["gaps"] else "no_snapshot", self._hidden_by)

    def _take_waiting(self) -> deque[tuple[Arrival, Head]]:
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        return waiting

    def _read_again(self, at: Arrival, update: Head) -> BookUpdate:
        messages = self.venue.parse(at.payload, update.event_ns)
        return next(message for message in messages if isinstance(message, BookUpdate))

    def _lose(self, at: Arrival, update: BookUpdate | Head) -> None:
        """A hole in the update ids: the book is unknown from the last applied event on, and so is the top of book
        between the two events, since what was lost on the connection may have been quotes as well."""
        self.counts["gaps"] += 1
        since = at.recv_ns if self.book_known_ns is None else self.book_known_ns
        self._unknown_since = since
        self.book_holes.append(Hole(since, at.recv_ns, "quotes", "sequence_gap", -1))
        self._hidden_by = f"updates before {update.first_id} are missing"

    def _fills_the_gap(self, update: BookUpdate) -> bool:
        """Whether this is the update that went missing, overtaken by later ones."""
        if self._id_before_gap is None:
            return False
        return self.rule.judge(update, self._id_before_gap, bridging=False) is Verdict.IN_ORDER

    def _heal(self, at: Arrival, update: BookUpdate) -> None:
        """The missing update arrived late: nothing was lost. What overtook it is known from now on."""
        self.rule.resume(self._id_before_gap or 0)
        self._id_before_gap = self._unknown_since = None
        self.counts["gaps"] -= 1
        self.counts["overtaken"] += len(self._waiting)
        self.book_holes.remove(next(hole for hole in reversed(self.book_holes) if hole.stream == "quotes"))
        waiting = self._take_waiting()
        self.add_book(at, update)
        for earlier, change in waiting:
            self.add_book(at._replace(payload=earlier.payload), self._read_again(earlier, change))

    def _add_snapshot(self, at: Arrival, update: BookUpdate) -> None:
        if self.rule.snapshot_overwrites:
            self._overwrite(at, update)
            return
        if self.rule.last_id is not None:
            self.counts["snapshots_unneeded"] += 1
            return
        if self._is_too_old(update):
            self.reject(
                at, "book_levels", "snapshot_too_old", f"snapshot {update.last_id} ends before the buffered updates"
            )
            return
        waiting = self._take_waiting()
        self._know_again(at)
        self.rule.snapshot(update.last_id)
        self._apply(at._replace(flags=at.flags | self._snapshot_flags()), update)
        for earlier, change in waiting:
            self._bridge(at, earlier, change)

    def _overwrite(self, at: Arrival, update: BookUpdate) -> None:
        """A full book within the stream takes the place of the book, known or not; nothing need bridge to it."""
        if self.rule.last_id is not None and update.last_id not in (self.rule.last_id, self.rule.last_id + 1):
            self._lose(at, update)
        if waiting := self._take_waiting():
            self.counts["superseded_by_snapshot"] += len(waiting)
        self._know_again(at)
        self.rule.resume(update.last_id)
        self._apply(at._replace(flags=at.flags | self._snapshot_flags()), update)

    def _know_again(self, at: Arrival) -> None:
        if self._unknown_since is not None and self.counts["gaps"]:
            self.book_holes.append(Hole(self._unknown_since, at.recv_ns, "book_levels", "sequence_gap", -1))
        self._unknown_since = self._id_before_gap = None
        self.counts["snapshots"] += 1

    def _snapshot_flags(self) -> int:
        return Flag.SNAPSHOT | (Flag.GAP_BEFORE if self.counts["gaps"] else 0)

    def _is_too_old(self, snapshot: BookUpdate) -> bool:
        """Try the buffered updates on a copy of the rule: does the first one that the snapshot lacks leave a hole?"""
        trial = type(self.rule)()
        trial.snapshot(snapshot.last_id)
        verdicts = (trial.check(change) for _, change in self._waiting)
        return next((verdict for verdict in verdicts if verdict is not Verdict.DUPLICATE), None) is Verdict.GAP

    def _bridge(self, snapshot_at: Arrival, earlier: Arrival, change: Head) -> None:
        """Apply a buffered update: it was received before the snapshot but is only of use, and known, from then on."""
        if self.rule.last_id is None:
            self.wait(earlier, change)
            return
        match self.rule.check(change):
            case Verdict.IN_ORDER:
                self._apply(snapshot_at, self._read_again(earlier, change))
            case Verdict.DUPLICATE:
                self.counts["superseded_by_snapshot"] += 1
            case _:
                self._lose(earlier, change)
                self.wait(earlier, change)

    def resume(self, update_id: int, recv_ns: int, last_trade_id: int | None, last_quote_id: int | None) -> None:
        """Go on from yesterday's close."""
        self.rule.resume(update_id)
        self.book_known_ns = recv_ns
        self.last_trade_id, self._last_trade_ns, self.last_quote_id = last_trade_id, recv_ns, last_quote_id

    def reject(self, at: Arrival, stream: str, reason: str, detail: str) -> None:
        """Put a payload into quarantine."""
        self.rejected.append(Rejected(at.recv_ns, at.seq, stream, reason, detail, at.payload))

    def settled_holes(self) -> list[Hole]:
        """Take away the holes that nothing can fill any more; one that late prints filled is none."""
        settled, self._settled = self._settled, []
        if self._id_before_gap is None:
            settled += self.book_holes
            self.book_holes = []
        return [hole for hole in settled if hole.missing != 0]

    @property
    def close_id(self) -> int | None:
        """Final update id of the book as it stands; None while it is unknown, or known from a snapshot only."""
        return None if self.rule.bridging else self.rule.last_id

    def finish(self, end_ns: int) -> list[Hole]:
        """Close the day and return the holes not yet taken: updates still waiting never met a snapshot."""
        for at, _ in self._waiting:
            self._give_up(at)
        if self.rule.bridging and self.book_known_ns is not None:
            # No update ever followed the snapshot: what the book was after it nobody can tell.
            self.book_holes.append(Hole(self.book_known_ns, end_ns, "book_levels", "never_bridged", -1))
        if self._unknown_since is not None:
            reason = "sequence_gap" if self.counts["gaps"] else "no_snapshot"
            self.book_holes.append(Hole(self._unknown_since, end_ns, "book_levels", reason, -1))
        trade_holes = (missing.hole for missing in self._missing_trades)
        return [hole for hole in (*self._settled, *self.book_holes, *trade_holes) if hole.missing != 0]


def _ids_of(update: BookUpdate) -> Head:
    """What must be remembered of an update while it waits."""
    return Head(
        update.symbol, "book_levels", update.first_id, update.last_id, update.previous_id, event_ns=update.event_ns
    )
