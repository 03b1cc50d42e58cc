"""Where the served market comes from: recordings of a venue, or the simulated market in that venue's words."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING

import numpy as np

from synth_pipeline.archives import Line
from synth_pipeline.archives.rawlog import Kind
from synth_pipeline.capture.importing import chained, in_order
from synth_pipeline.errors import BadMessage, InputError, NoDataError
from synth_pipeline.exchange.protocol import Item, Protocol
from synth_pipeline.market.parameters import Parameters
from synth_pipeline.market.wire import Encoder
from synth_pipeline.rng import per_path
from synth_pipeline.schema import NS_PER_SECOND

if TYPE_CHECKING:
    from synth_pipeline.market.simulation import Frame

_PEEKED = 5000
"""Lines looked at beforehand, to know the symbols and streams of a recording."""
_ENDLESS_NS = 100 * 365 * 86_400 * NS_PER_SECOND


class Source(ABC):
    """A market to serve."""

    start_ns: int = 0
    """Time of the first message."""
    symbols: Sequence[str] = ()
    streams: frozenset[bytes] = frozenset()
    """Streams that come from here; what else a client asks for is made of them, where it can be."""
    opening: Sequence[Item] = ()
    """Books that are known before the first message."""
    recorded: bool = False
    """Whether the messages were received once, with the depth answers between them."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield the messages in the order they go out."""


class Nothing(Source):
    """A venue without a market, for one that answers klines only."""

    def __init__(self) -> None:
        self.start_ns = time_ns()

    def items(self) -> Iterator[Item]:
        """Yield none."""
        return iter(())


class Recorded(Source):
    """Captures of one venue, in any frame archive; several are served as one, in the order of receipt."""

    recorded = True

    def __init__(self, paths: Sequence[Path], protocol: Protocol) -> None:
        """Look at the first lines. Raises `InputError` for a file of rows or of another venue's messages."""
        self._files = in_order(paths)
        self._protocol = protocol
        first = list(islice(self.items(), _PEEKED))
        head = [item.stream for item in first]
        if not any(head):
            names = ", ".join(map(str, paths))
            raise NoDataError(f"{names}: no message of {protocol.name} in it; choose the venue it was recorded from")
        self.start_ns = first[0].at_ns
        self.streams = frozenset(filter(None, head))
        self.symbols = list(dict.fromkeys(protocol.symbol_of(stream) for stream in head if stream))

    def items(self) -> Iterator[Item]:
        """Yield the captured payloads, byte for byte; answers to subscriptions and notes are left out."""
        stream_of = self._protocol.stream_of
        at_ns = 0
        for received_ns, payload, kind, _, _ in self._lines():
            if kind != Kind.MESSAGE:
                continue
            at_ns = received_ns or at_ns
            stream = stream_of(payload)
            if stream is not None:
                yield Item(at_ns, stream, payload)

    def _lines(self) -> Iterator[Line]:
        if len(self._files) > 1:
            return chained(self._files, self._protocol.name)
        path, archive = self._files[0]
        return archive.lines(path, self._protocol.name)


class Simulated(Source):
    """The simulated market, one independent market a symbol."""

    def __init__(
        self,
        symbols: Sequence[str],
        protocol: Protocol,
        *,
        start_ns: int,
        rng: np.random.Generator,
        seconds: float | None = None,
        parameters: Parameters | None = None,
    ) -> None:
        """Prepare `seconds` of market from `start_ns` on, an endless one for None.

        Raises `InputError` for a symbol that the venue cannot have.
        """
        # The venue knows its book from the first moment; who asks when is the clients' affair.
        self._parameters = replace(parameters or Parameters(), snapshot_after_ms=0, snapshot_latency_ms=0)
        self.start_ns = start_ns
        self._end_ns = start_ns + (_ENDLESS_NS if seconds is None else int(seconds * NS_PER_SECOND))
        self._protocol = protocol
        self.symbols = [symbol.upper() for symbol in symbols] or [protocol.example]
        self.streams = frozenset(stream for symbol in self.symbols for stream in protocol.simulated_streams(symbol))
        rngs = per_path(rng, len(self.symbols))
        self._markets = [self._frames(symbol, each) for symbol, each in zip(self.symbols, rngs, strict=True)]
        # Warming up takes a second, which no client should wait for.
        self.opening = [self._item(next(market)) for market in self._markets]

    def items(self) -> Iterator[Item]:
        """Yield every message."""
        markets = self._markets
        return map(self._item, heapq.merge(*markets) if len(markets) > 1 else markets[0])

    def _item(self, frame: Frame) -> Item:
        return Item(frame.received_ns, self._protocol.stream_of(frame.payload) or b"", frame.payload)

    def _encoder(self, symbol: str) -> Encoder:
        protocol, parameters = self._protocol, self._parameters
        encoder = protocol.encoder(symbol, parameters.tick_size, parameters.lot_size)
        sample = encoder.trade(sent_ms=1, event_ms=1, trade_id=1, price=1, size=1, buyer_is_maker=False)
        try:
            protocol.venue.parse(sample, 0)
        except BadMessage as error:
            raise InputError(f"symbol {symbol} is none of {protocol.name} ({error}): try {protocol.example}") from None
        return encoder

    def _frames(self, symbol: str, rng: np.random.Generator) -> Iterator[Frame]:
        from synth_pipeline.market.simulation import simulate  # compiled, which a replay has no use for

        encoder = self._encoder(symbol)
        span = (self.start_ns, self._end_ns)
        return simulate(symbol, *span, rng=rng, parameters=self._parameters, encoder=encoder)
