"""While two connections carry the same streams: which of two copies of a message is recorded.

A new connection *joins* a stream once the two meet: it brings what the old one delivered, or the very next; or the old
one comes up to the latest that it brought. From then on whichever copy comes first is recorded. Until then what the new
one brings ahead of the old is held: the old one will deliver it too, or is dead, which a second without it tells. So
nothing is lost, and nothing is in the log twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from synth_pipeline.capture.figures import Figures
from synth_pipeline.capture.sequence import Book, Counted, Rising
from synth_pipeline.capture.tape import Tape
from synth_pipeline.errors import BadMessage
from synth_pipeline.venues import Head, Trade, Venue

Stream = Book | Counted | Rising
_REMEMBERED = 100_000
"""Ids of a stream that are kept to tell copies by."""
_PATIENCE_NS = 10**9
"""How long the old connection may be behind the new one."""


class Arrival(NamedTuple):
    """One message on its way to the log."""

    tape: Tape
    stream: Stream
    head: Head
    connection: int
    received_ns: int
    monotonic_ns: int
    payload: bytes


class Overlap:
    """The time from before the new connection opens until it has caught up with the old one, which is closed."""

    def __init__(self, venue: Venue, old: int, figures: Figures) -> None:
        self._venue, self._old, self._figures = venue, old, figures
        self._overwrites = venue.sequence_rule().snapshot_overwrites
        self.old_is_closed = False
        """From then on the new connection alone brings news, but may still bring what the old one had delivered."""
        self._joined: set[Stream] = set()
        self._heard: set[Stream] = set()
        self._delivered: dict[Stream, dict[int, None]] = {}
        self._held: dict[Stream, deque[Arrival]] = {}
        self._floor: dict[Stream, int] = {}
        """The id each stream had come to before."""

    @property
    def is_complete(self) -> bool:
        """Whether the new connection joined every stream that spoke since it opened."""
        return bool(self._heard) and self._heard <= self._joined

    def is_news(self, arrival: Arrival) -> bool:
        """Whether a message is to be recorded now; one that is not is a copy, which is counted, or is held."""
        stream, head = arrival.stream, arrival.head
        self._heard.add(stream)
        is_old = arrival.connection == self._old
        if self._overwrites and isinstance(stream, Book):
            is_news = self._follows_latest_snapshot(stream, head, is_old)
        elif stream.kind == "trades" and not self._venue.trade_ids_count_up:
            is_news = self._has_new_trade(stream, arrival.payload, is_old)
        elif not head.last_id:
            # Without ids nothing tells copies apart: the new connection speaks once the old one is closed.
            self._joined.add(stream)
            is_news = is_old or self.old_is_closed
        else:
            self._floor.setdefault(stream, stream.last_id)
            if not is_old and not self._meets(stream, head):
                self._held.setdefault(stream, deque()).append(arrival)
                return False
            is_news = self._old_news(stream, head) if is_old else self._new_news(stream, head)
        self._figures.duplicates += not is_news
        return is_news

    def release(self, now_ns: int) -> Iterator[Arrival]:
        """Yield what was held for so long that the old connection cannot have it; all of it once that is closed."""
        for stream, held in self._held.items():
            if held and (self.old_is_closed or now_ns - held[0].monotonic_ns > _PATIENCE_NS):
                self._joined.add(stream)
                while held:
                    arrival = held.popleft()
                    if self._is_first(stream, arrival.head.last_id):
                        yield arrival

    def _meets(self, stream: Stream, head: Head) -> bool:
        """Whether the new connection has joined a stream, or joins it with this message."""
        if stream not in self._joined:
            number = head.last_id
            if isinstance(stream, Book):
                follows = stream.follows(head)
            else:
                follows = isinstance(stream, Counted) and number == stream.last_id + 1
            known = number <= self._floor[stream] or number in self._delivered.get(stream, ())
            if not (known or self.old_is_closed or (follows and not self._held.get(stream))):
                return False
            self._joined.add(stream)
        return True

    def _new_news(self, stream: Stream, head: Head) -> bool:
        return head.last_id > self._floor[stream] and self._is_first(stream, head.last_id)

    def _old_news(self, stream: Stream, head: Head) -> bool:
        held = self._held.get(stream)
        while held and held[0].head.last_id <= head.last_id:
            copy = held.popleft()
            self._figures.duplicates += 1
            if not held and copy.head.last_id == head.last_id:
                self._joined.add(stream)
        return self._is_first(stream, head.last_id)

    def _is_first(self, stream: Stream, number: int) -> bool:
        """Whether no connection delivered this id since the overlap began; from now on one has."""
        known = self._delivered.setdefault(stream, {})
        if number in known:
            return False
        known[number] = None
        if len(known) > _REMEMBERED:
            del known[next(iter(known))]
        return True

    def _follows_latest_snapshot(self, stream: Stream, head: Head, is_old: bool) -> bool:
        """A book that a snapshot overwrites is told on by the connection of its latest snapshot."""
        if not is_old and head.snapshot:
            self._joined.add(stream)
        return self.old_is_closed or is_old != (stream in self._joined)

    def _has_new_trade(self, stream: Stream, payload: bytes, is_old: bool) -> bool:
        """Ids that do not rise: a payload is news when any of its trades is."""
        try:
            messages = self._venue.parse(payload, 0)
        except BadMessage:
            return True
        if not is_old:
            self._joined.add(stream)
        numbers = [message.trade_id for message in messages if isinstance(message, Trade)]
        return sum(self._is_first(stream, number) for number in numbers) > 0
