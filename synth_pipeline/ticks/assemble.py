"""Messages in arrival order to untyped rows: sequence rules, snapshots, duplicates, gaps, clocks.

One `Assembler` serves one instrument and one day. It decides *whether* and *when* a row is known; turning decimal
strings into integers on the day's grid is `ingest`'s part.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from synth_pipeline.schema import Flag
from synth_pipeline.venues import BookUpdate, Levels, Quote, SequenceRule, Trade, Verdict

IMPLAUSIBLE_JUMP = 10**12
"""No venue's ids advance by this much between two messages (Binance's busiest book: 10^10 a day): the id is corrupt."""
LATE_IDS = 100_000
"""How many missing trade ids are remembered, so that a late print can fill its hole."""


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
class Assembler:
    """Rows of one instrument and day, in arrival order."""

    rule: SequenceRule
    book: list[BookRows] = field(default_factory=list)
    trades: list[tuple[Arrival, Trade]] = field(default_factory=list)
    quotes: list[tuple[Arrival, Quote]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    book_holes: list[Hole] = field(default_factory=list)
    """What a loss hides of the book, and of the quotes that may have been lost with it."""
    trade_holes: list[Hole] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """Book events by what became of them."""
    last_trade_id: int | None = None
    last_quote_id: int | None = None
    book_known_ns: int | None = None
    """Receipt of the last applied book event; None while the book is unknown from the start."""
    _unknown_since: int | None = None
    _waiting: list[tuple[Arrival, BookUpdate]] = field(default_factory=list)
    _id_before_gap: int | None = None
    """Final id of what was known when the last update went missing; it may yet arrive late."""
    _hidden_by: str = "no snapshot came before it"
    _missing_trades: dict[int, int] = field(default_factory=dict)
    _last_trade_ns: int = 0
    _suspects: dict[str, int] = field(default_factory=dict)

    def add_trade(self, at: Arrival, trade: Trade) -> None:
        """Take one print; ids must count up by one."""
        if self._is_implausible(at, "trades", self.last_trade_id, trade.trade_id):
            return
        expected = None if self.last_trade_id is None else self.last_trade_id + 1
        if expected is not None and trade.trade_id < expected:
            self._add_late_trade(at, trade)
            return
        if expected is not None and trade.trade_id > expected:
            missing = trade.trade_id - expected
            self.trade_holes.append(Hole(self._last_trade_ns, at.recv_ns, "trades", "sequence_gap", missing))
            for trade_id in range(expected, min(trade.trade_id, expected + LATE_IDS)):
                self._missing_trades[trade_id] = len(self.trade_holes) - 1
            at = at._replace(flags=at.flags | Flag.GAP_BEFORE)
        self.last_trade_id, self._last_trade_ns = trade.trade_id, at.recv_ns
        self.trades.append((at, trade))

    def _add_late_trade(self, at: Arrival, trade: Trade) -> None:
        hole = self._missing_trades.pop(trade.trade_id, None)
        if hole is None:
            self.reject(at, "trades", "duplicate_trade", f"trade id {trade.trade_id} was already received")
            return
        # It arrived after a later id: the row is kept, at the time it was received, and its hole shrinks.
        self.trade_holes[hole] = self.trade_holes[hole]._replace(missing=self.trade_holes[hole].missing - 1)
        self.trades.append((at, trade))

    def add_quote(self, at: Arrival, quote: Quote) -> None:
        """Take one top of book; update ids must rise."""
        if self._is_implausible(at, "quotes", self.last_quote_id, quote.update_id):
            return
        if self.last_quote_id is not None and quote.update_id <= self.last_quote_id:
            reason = "duplicate_quote" if quote.update_id == self.last_quote_id else "stale_quote"
            self.reject(at, "quotes", reason, f"update id {quote.update_id} follows {self.last_quote_id}")
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
                self._wait(at, update)
            case Verdict.GAP:
                self._lose(at, update)
                self._id_before_gap = known
                self._wait(at, update)

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

    def _wait(self, at: Arrival, update: BookUpdate) -> None:
        if self._unknown_since is None:
            self._unknown_since = at.recv_ns
        self._waiting.append((at, update))

    def _lose(self, at: Arrival, update: BookUpdate) -> None:
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
        waiting, self._waiting = self._waiting, []
        self.add_book(at, update)
        for earlier, change in waiting:
            self.add_book(at._replace(payload=earlier.payload), change)

    def _add_snapshot(self, at: Arrival, update: BookUpdate) -> None:
        if self.rule.last_id is not None:
            self.counts["snapshots_unneeded"] += 1
            return
        waiting, self._waiting = self._waiting, []
        if waiting and self._is_too_old(update, waiting):
            self.reject(
                at, "book_levels", "snapshot_too_old", f"snapshot {update.last_id} ends before the buffered updates"
            )
            self._waiting = waiting
            return
        flags = at.flags | Flag.SNAPSHOT | (Flag.GAP_BEFORE if self.counts["gaps"] else 0)
        if self._unknown_since is not None and self.counts["gaps"]:
            self.book_holes.append(Hole(self._unknown_since, at.recv_ns, "book_levels", "sequence_gap", -1))
        self._unknown_since = None
        self._id_before_gap = None
        self.counts["snapshots"] += 1
        self.rule.snapshot(update.last_id)
        self._apply(at._replace(flags=flags), update)
        for earlier, change in waiting:
            self._bridge(at, earlier, change)

    def _is_too_old(self, snapshot: BookUpdate, waiting: list[tuple[Arrival, BookUpdate]]) -> bool:
        """Try the buffered updates on a copy of the rule: does the first one that the snapshot lacks leave a hole?"""
        trial = type(self.rule)()
        trial.snapshot(snapshot.last_id)
        verdicts = (trial.check(change) for _, change in waiting)
        return next((verdict for verdict in verdicts if verdict is not Verdict.DUPLICATE), None) is Verdict.GAP

    def _bridge(self, snapshot_at: Arrival, earlier: Arrival, change: BookUpdate) -> None:
        """Apply a buffered update: it was received before the snapshot but is only of use, and known, from then on."""
        if self.rule.last_id is None:
            self._wait(earlier, change)
            return
        match self.rule.check(change):
            case Verdict.IN_ORDER:
                self._apply(snapshot_at._replace(payload=earlier.payload), change)
            case Verdict.DUPLICATE:
                self.counts["superseded_by_snapshot"] += 1
            case _:
                self._lose(earlier, change)
                self._wait(earlier, change)

    def resume(self, update_id: int, recv_ns: int, last_trade_id: int | None, last_quote_id: int | None) -> None:
        """Go on from yesterday's close."""
        self.rule.resume(update_id)
        self.book_known_ns = recv_ns
        self.last_trade_id, self._last_trade_ns, self.last_quote_id = last_trade_id, recv_ns, last_quote_id

    def reject(self, at: Arrival, stream: str, reason: str, detail: str) -> None:
        """Put a payload into quarantine."""
        self.rejected.append(Rejected(at.recv_ns, at.seq, stream, reason, detail, at.payload))

    @property
    def holes(self) -> list[Hole]:
        """Everything that was lost, in order of time; a hole that late prints filled is none."""
        return sorted(hole for hole in (*self.book_holes, *self.trade_holes) if hole.missing != 0)

    def finish(self, end_ns: int) -> None:
        """Close the day: updates still waiting never met a snapshot."""
        for at, _ in self._waiting:
            reason = "after_gap" if self.counts["gaps"] else "no_snapshot"
            self.reject(at, "book_levels", reason, self._hidden_by)
        if self.rule.bridging and self.book_known_ns is not None:
            # No update ever followed the snapshot: what the book was after it nobody can tell.
            self.book_holes.append(Hole(self.book_known_ns, end_ns, "book_levels", "never_bridged", -1))
        if self._waiting and self._unknown_since is not None:
            reason = "sequence_gap" if self.counts["gaps"] else "no_snapshot"
            self.book_holes.append(Hole(self._unknown_since, end_ns, "book_levels", reason, -1))
