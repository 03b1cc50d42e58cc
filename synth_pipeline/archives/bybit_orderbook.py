"""Bybit's order book dumps (`…_ob500.data.zip`): depth messages of the v5 stream, one a line.

    {"topic":"orderbook.500.BTCUSDT","type":"snapshot","ts":1682899200123,"data":{"s":"BTCUSDT",
     "b":[["29233.00","0.041"],…],"a":[…],"u":1183,"seq":7},"cts":1682899200100}

A snapshot replaces the book; a delta follows the update before by `u` + 1, else all is unknown up to the next
snapshot; `u` 1 is a snapshot too. `ts` is when Bybit sent it and stands for the receipt, `cts` when it was matched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from synth_pipeline.archives.drafts import Draft, Fault, Piece
from synth_pipeline.archives.fields import NO_TIME
from synth_pipeline.archives.lines import LineArchive, numbers
from synth_pipeline.schema import Flag

_NS_PER_MS = 1_000_000
_FIRST = re.compile(rb'\{"topic": ?"orderbook\.(\d+)\.')


class _Data(msgspec.Struct, gc=False):
    s: str
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    u: int
    seq: int = 0


class _Message(msgspec.Struct, gc=False):
    topic: str
    type: str
    ts: int
    data: _Data
    cts: int = 0

    @property
    def is_snapshot(self) -> bool:
        return self.type == "snapshot" or self.data.u == 1


_DECODER = msgspec.json.Decoder(_Message)


class BybitOrderbook(LineArchive):
    """Bybit's order book dumps."""

    one_clock = True
    gap_reason = "sequence_gap"

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A first line that is a depth message."""
        return _FIRST.match(head) is not None

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the first messages."""
        messages = map(_parsed, self.first_lines(path))
        return sorted({message.data.s.upper() for message in messages if message is not None})

    def tables(self, path: Path) -> tuple[str, ...]:  # noqa: ARG002 - the book only
        """Return level changes."""
        return ("book_levels",)

    def visible_levels(self, path: Path) -> int:
        """Return the depth of the topic."""
        match = _FIRST.match(peek[0]) if (peek := self.first_lines(path)) else None
        return int(match[1]) if match else 0

    def read(self, blocks: Iterator[list[bytes]], symbol: str | None) -> Iterator[Draft]:
        """Yield the messages of one symbol, with the sequence rule kept."""
        last: int | None = None
        first = 0
        for lines in blocks:
            parsed = [(line, _parsed(line)) for line in lines]
            kept = [pair for pair in parsed if pair[1] is None or symbol in (None, pair[1].data.s.upper())]
            faults = np.zeros(len(kept), np.uint8)
            for row, (_, message) in enumerate(kept):
                if message is None:
                    faults[row] = Fault.MALFORMED
                elif message.is_snapshot or last is None or message.data.u == last + 1:
                    last = message.data.u
                elif message.data.u > last:
                    faults[row] = Fault.AFTER_GAP
                else:
                    faults[row] = Fault.DUPLICATE_UPDATE
            if kept:
                yield _draft(kept, faults, first)
                first += len(kept)


def _parsed(line: bytes) -> _Message | None:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _draft(kept: list[tuple[bytes, _Message | None]], faults: np.ndarray, first: int) -> Draft:
    messages = [message for _, message in kept]
    recv_ns = np.array([NO_TIME if each is None else each.ts * _NS_PER_MS for each in messages], np.int64)
    event_ns = np.array([0 if each is None else (each.cts or each.ts) * _NS_PER_MS for each in messages], np.int64)
    lines = [line for line, _ in kept]
    return Draft(recv_ns, event_ns, faults, lambda: [_levels(messages, faults, first)], lines.__getitem__)


def _levels(messages: list[_Message | None], faults: np.ndarray, first: int) -> Piece:
    used = [(row, each) for row, each in enumerate(messages) if each is not None and not faults[row]]
    sides = [(row, each, side) for row, each in used for side in (each.data.b, each.data.a)]
    counts = [len(side) for _, _, side in sides]
    at = np.repeat(np.array([row for row, _, _ in sides], np.int64), counts)
    side = np.repeat(np.resize(np.array([1, -1], np.int8), len(sides)), counts)
    update_ids = np.repeat(np.array([each.data.u for _, each, _ in sides], np.int64), counts)
    flags = np.repeat(np.array([Flag.SNAPSHOT if each.is_snapshot else 0 for _, each, _ in sides], np.uint8), counts)
    pairs = list(chain.from_iterable(side for _, _, side in sides))
    columns: dict[str, np.ndarray] = {"update_id": update_ids, "side": side, "flags": flags, "event": first + at}
    prices, sizes = (
        {name: numbers([pair[part].encode() for pair in pairs])} for part, name in enumerate(("price", "size"))
    )
    return Piece("book_levels", at, columns, prices, sizes, np.zeros(len(at), np.uint8))
