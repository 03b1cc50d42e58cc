"""Bitstamp's order and trade events, one a line, in the wording of any year.

Formats: https://www.bitstamp.net/websocket/v2/ (live_orders, live_trades) and its forerunner of 2013 to 2018, as
recorded by collectors:

    1430438404518 order_created {"price": "236.47", "amount": "2.00000000", "datetime": "1430438404", "id": 1, …}
    {"event":"order_changed","channel":"live_orders_btcusd","data":{"id":1,"order_type":0,"price_str":"9350.49",…}}

The stamp in front (ms, µs or ns) is the receipt; without one the exchange's microtimestamp stands for it, flagged. The
remaining amount is what events tell: `changed` says what is left after a trade, `deleted` with nothing left is the last
of one, with something left a cancellation. Trades of early years are doubles written with 17 digits
(1.7885566900000001): the shortest decimal that is the same double is what was meant. Nothing tells the book at the
start, and an order that trades at once appears in the book for a moment: the book is crossed then. Books of levels in
the same log are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from synth_pipeline.archives import OrderAction
from synth_pipeline.archives.drafts import Draft, Fault, Piece
from synth_pipeline.archives.fields import NO_TIME, Decimals, split
from synth_pipeline.archives.lines import LineArchive, numbers, text_of
from synth_pipeline.schema import Flag

_LINE = re.compile(rb"(?:(\d{13}|\d{16}|\d{19}) )?(?:([a-z_:]+) )?(\{.*\})", re.DOTALL)
_FIRST = re.compile(
    rb"\d{13,19} (?:order_(?:created|changed|deleted|book)|trade|diff_order_book) \{"
    rb'|(?:\d{13,19} )?\{.*"channel": ?"(?:live_orders|live_trades)_'
)
_CHANNEL = re.compile(r"(?:live_orders|live_trades)_(\w+)")
_NAME = re.compile(r"(?:^|[_\-.])([a-z0-9]{3,6}(?:usd|eur|gbp|btc|usdt|usdc))(?=[_\-.])", re.IGNORECASE)
_ORDER_EVENTS = {"order_created": 0, "order_changed": 1, "order_deleted": 2}


_NOTHING = msgspec.Raw()


class _Data(msgspec.Struct, gc=False):
    id: int = 0
    order_type: int = -1
    type: int = -1
    price: msgspec.Raw = _NOTHING
    price_str: msgspec.Raw = _NOTHING
    amount: msgspec.Raw = _NOTHING
    amount_str: msgspec.Raw = _NOTHING
    datetime: str = ""
    microtimestamp: str = ""


class _Envelope(msgspec.Struct, gc=False):
    event: str
    channel: str = ""
    data: msgspec.Raw = _NOTHING


class _Event(NamedTuple):
    """One line, as texts."""

    name: str
    channel: str
    recv: bytes
    data: _Data


_ENVELOPE, _DATA = msgspec.json.Decoder(_Envelope), msgspec.json.Decoder(_Data)


class Bitstamp(LineArchive):
    """Bitstamp's order and trade events."""

    venue = "bitstamp"

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A first line with one of Bitstamp's events, or of its channels of orders and trades."""
        return any(_FIRST.match(line) for line in head.split(b"\n")[:20])

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the channels, else the one of the file's name."""
        events = [event for event in map(_parsed, self.first_lines(path)) if event is not None]
        found = {match[1].upper() for event in events if (match := _CHANNEL.fullmatch(event.channel))}
        return sorted(found) or symbols_of_name(path)

    def tables(self, path: Path) -> tuple[str, ...]:  # noqa: ARG002 - always both
        """Return orders and trades."""
        return ("trades", "order_events")

    def read(self, blocks: Iterator[list[bytes]], symbol: str | None) -> Iterator[Draft]:
        """Yield the events of one symbol."""
        for lines in blocks:
            parsed = [(line, _parsed(line)) for line in lines]
            kept = [pair for pair in parsed if pair[1] is None or _is_of(pair[1], symbol)]
            if kept:
                yield _draft([line for line, _ in kept], [event for _, event in kept])


def symbols_of_name(path: Path) -> list[str]:
    """Return the currency pair in a file's name, such as bitstamp_btcusd_2015.log, none where none is there."""
    match = _NAME.search(path.name)
    return [match[1].upper()] if match else []


def _parsed(line: bytes) -> _Event | None:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    try:
        if match[2] is not None:
            name, channel, content = match[2].decode(), "", match[3]
        else:
            envelope = _ENVELOPE.decode(match[3])
            name, channel, content = envelope.event, envelope.channel, bytes(envelope.data) or b"{}"
        is_used = name in _ORDER_EVENTS or name == "trade"
        return _Event(name, channel, match[1] or b"", _DATA.decode(content) if is_used else _Data())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_of(event: _Event, symbol: str | None) -> bool:
    match = _CHANNEL.fullmatch(event.channel)
    return symbol is None or match is None or match[1].upper() == symbol


def _draft(lines: list[bytes], found: list[_Event | None]) -> Draft:
    faults = np.array([Fault.MALFORMED if event is None else Fault.NONE for event in found], np.uint8)
    events = [event or _Event("", "", b"", _Data()) for event in found]
    stamps = _times([event.recv for event in events])
    exact = _times([event.data.microtimestamp.encode() for event in events])
    coarse = _times([event.data.datetime.encode() for event in events])
    # Of orders that came earlier, `datetime` is when they came.
    is_new = np.array([event.name in ("order_created", "trade") for event in events])
    event_ns = np.where(exact != NO_TIME, exact, np.where(is_new & (coarse != NO_TIME), coarse, 0))
    recv_ns = np.where(stamps != NO_TIME, stamps, exact)
    one_clock = np.where(stamps == NO_TIME, np.uint8(Flag.BAD_CLOCK), np.uint8(0))
    return Draft(
        recv_ns, event_ns, faults, lambda: [_trades(events, one_clock), _orders(events, one_clock)], lines.__getitem__
    )


def _times(texts: list[bytes]) -> np.ndarray:
    times, _ = split(b"\n".join(text or b"-" for text in texts), "\x00", 1).times(0)
    return times


def _texts(events: list[_Event], at: np.ndarray) -> tuple[list[bytes], list[bytes]]:
    data = [events[row].data for row in at.tolist()]
    prices = [text_of(each.price_str) or text_of(each.price) for each in data]
    return prices, [text_of(each.amount_str) or text_of(each.amount) for each in data]


def _trades(events: list[_Event], flags: np.ndarray) -> Piece:
    at = np.flatnonzero(np.array([event.name == "trade" for event in events], np.bool_))
    prices, sizes = _texts(events, at)
    kinds = np.array([events[row].data.type for row in at.tolist()], np.int64)
    # `type` is the aggressor's side; early years lack it.
    side = np.select([kinds == 0, kinds == 1], [1, -1], 0).astype(np.int8)
    ids = np.array([events[row].data.id for row in at.tolist()], np.int64)
    columns: dict[str, np.ndarray] = {"trade_id": ids, "side": side, "flags": flags[at]}
    faults = np.zeros(len(at), np.uint8)
    return Piece("trades", at, columns, {"price": numbers(prices)}, {"size": numbers(sizes)}, faults)


def _orders(events: list[_Event], flags: np.ndarray) -> Piece:
    at = np.flatnonzero(np.array([event.name in _ORDER_EVENTS for event in events], np.bool_))
    prices, sizes = _texts(events, at)
    left = numbers(sizes)
    kinds = np.array([_ORDER_EVENTS[events[row].name] for row in at.tolist()], np.int64)
    sides = np.array([events[row].data.order_type for row in at.tolist()], np.int64)
    ids = np.array([events[row].data.id for row in at.tolist()], np.int64)
    return order_piece(at, ids, kinds, sides, flags[at], numbers(prices), left)


def order_piece(
    at: np.ndarray,
    ids: np.ndarray,
    kinds: np.ndarray,
    sides: np.ndarray,
    flags: np.ndarray,
    prices: Decimals,
    left: Decimals,
) -> Piece:
    """Return order events: `kinds` 0 created, 1 changed, 2 deleted; `sides` 0 buy, 1 sell; `left` is what remains."""
    is_cancelled = (kinds == 2) & (left.mantissa > 0)
    action = np.select([kinds == 0, is_cancelled], [int(OrderAction.ADD), int(OrderAction.DELETE)], OrderAction.LEFT)
    faults = np.where(np.isin(sides, (0, 1)), 0, Fault.UNKNOWN_SIDE).astype(np.uint8)
    faults[(kinds == 0) & left.valid & (left.mantissa == 0)] = Fault.NOT_POSITIVE
    columns: dict[str, np.ndarray] = {"order_id": ids, "action": action.astype(np.int8)}
    columns |= {"side": np.where(sides == 0, np.int8(1), np.int8(-1)), "flags": flags | np.uint8(Flag.LAST)}
    return Piece("order_events", at, columns, {"price": prices}, {"size": left}, faults)
