"""What the venue knows of its market: books, trades and symbols, as of the last message that went out.

Reading a message costs more than sending it, and most are never asked about. So they wait in a short queue until
somebody asks, or until it is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from synth_pipeline.errors import BadMessage
from synth_pipeline.exchange.bars import Bars, Tape
from synth_pipeline.exchange.book import DECIMALS, Book, step_of
from synth_pipeline.exchange.protocol import Item, Protocol
from synth_pipeline.venues import BookUpdate, Message, Quote, Trade

_UNREAD = 4096


class State:
    """The market of one venue."""

    def __init__(self, protocol: Protocol, symbols: Sequence[str] = (), bars: Mapping[str, Bars] | None = None) -> None:
        self._protocol = protocol
        self._given = dict(bars or {})
        self._symbols = dict.fromkeys([*symbols, *self._given])
        self._books: dict[str, dict[bytes, Book]] = {}
        self._openings: dict[str, BookUpdate] = {}
        """Snapshots of symbols whose depth stream has not been seen yet."""
        self._tapes: dict[str, Tape] = {}
        self._quotes: dict[str, Quote] = {}
        self._unread: list[Item] = []

    @property
    def symbols(self) -> list[str]:
        """Every symbol of the venue, in the order they were met."""
        self.settle()
        return list(self._symbols)

    def later(self, item: Item) -> None:
        """Take in a message when somebody asks."""
        self._unread.append(item)
        if len(self._unread) >= _UNREAD:
            self.settle()

    def now(self, item: Item) -> tuple[Message, ...]:
        """Take in a message at once and return what it says; nothing for one that cannot be read."""
        self.settle()
        return self._take(item)

    def settle(self) -> None:
        """Take in all that waits."""
        unread, self._unread = self._unread, []
        for item in unread:
            self._take(item)

    def book(self, symbol: str) -> Book | None:
        """Return the deepest known book of a symbol."""
        self.settle()
        known = [book for book in self._books.get(symbol, {}).values() if book.known]
        return max(known, key=lambda book: len(book.bids) + len(book.asks), default=None)

    def book_of(self, stream: bytes) -> Book | None:
        """Return the book that a depth stream makes."""
        self.settle()
        return self._books.get(self._protocol.symbol_of(stream), {}).get(stream)

    def tape(self, symbol: str) -> Tape:
        """Return what is known of a symbol's trades."""
        self.settle()
        return self._tapes.get(symbol) or Tape()

    def quote(self, symbol: str) -> Quote | None:
        """Return the last top of book that was sent."""
        self.settle()
        return self._quotes.get(symbol)

    def bars(self, symbol: str, interval_ms: int) -> Bars:
        """Return the bars of a symbol that were given, or else those of its trades."""
        return self._given.get(symbol) or self.tape(symbol).bars(interval_ms)

    def steps(self, symbol: str) -> tuple[str, str]:
        """Return the tick and the lot size that the symbol's book and last trade show."""
        book, trade = self.book(symbol), self.tape(symbol).last
        sides = {**book.bids, **book.asks} if book else {}
        last = {trade.price: trade.size} if trade else {}
        return _decimal(step_of([*sides, *last])), _decimal(step_of([*sides.values(), *last.values()]))

    def owner(self, snapshot: BookUpdate) -> str | None:
        """Return whose book a depth answer is; where it does not say, the symbol whose ids lie nearest."""
        self.settle()
        if snapshot.symbol is not None:
            return snapshot.symbol
        distances = {
            symbol: min(abs(book.last_id - snapshot.last_id) for book in books.values())
            for symbol, books in self._books.items()
        }
        if distances:
            return min(distances, key=lambda symbol: distances[symbol])
        return next(iter(self._symbols)) if len(self._symbols) == 1 else None

    def waits_for(self, symbol: str) -> bool:
        """Whether some book of a symbol is not known."""
        self.settle()
        books = self._books.get(symbol)
        return books is None or not all(book.known for book in books.values())

    def read(self, item: Item) -> tuple[Message, ...]:
        """Return what a message says; nothing for one that cannot be read, as in a damaged recording."""
        try:
            return self._protocol.venue.parse(item.payload, item.at_ns)
        except BadMessage:
            return ()

    def _take(self, item: Item) -> tuple[Message, ...]:
        messages = self.read(item)
        for message in messages:
            match message:
                case BookUpdate():
                    self._update(item.stream, message)
                case Trade():
                    self._symbols.setdefault(message.symbol)
                    if not message.off_market:
                        tape = self._tapes.setdefault(message.symbol, Tape())
                        tape.add(message, self._protocol.turnover(message))
                case Quote():
                    self._symbols.setdefault(message.symbol)
                    self._quotes[message.symbol] = message
        return messages

    def _update(self, stream: bytes, update: BookUpdate) -> None:
        symbol = update.symbol if stream else self.owner(update)
        if symbol is None:
            return
        self._symbols.setdefault(symbol)
        books = self._books.setdefault(symbol, {})
        if not stream:
            self._openings[symbol] = update
            if not books:
                books[stream] = Book(self._protocol.venue.sequence_rule())
            for book in books.values():
                book.apply(update)
            return
        if stream not in books:
            books.pop(b"", None)  # stood in for the stream until now
            books[stream] = Book(self._protocol.venue.sequence_rule())
            if symbol in self._openings:
                books[stream].apply(self._openings[symbol])
        books[stream].apply(update)


def _decimal(step: int) -> str:
    """Write a count of 10**-DECIMALS; the smallest step there is where nothing is known."""
    return f"{Decimal(step or 1).scaleb(-DECIMALS).normalize():f}"
