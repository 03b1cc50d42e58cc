"""How good a day of ticks is: figures that a person and an asset check read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synth_pipeline.ticks import parquet
from synth_pipeline.ticks.book import Book, Replay, quotes_of

_TOP = ("bid_price", "bid_size", "ask_price", "ask_size")
_LEVELS = ("recv_ns", "event_ns", "seq", "update_id", "side", "price", "size", "flags")
_Tops = Iterator[tuple[np.ndarray, np.ndarray]]
"""Update ids, rising, and the top after each: shapes (events,) and (events, 4)."""


class Agreement(NamedTuple):
    """How often the rebuilt top of book equals the recorded quote stream."""

    matched: int
    """Book events whose update id some quote carries too."""
    agreed: int
    """Those of them where both prices and both sizes are the same."""

    @property
    def share(self) -> float | None:
        """Agreed over matched; None when nothing could be matched."""
        return self.agreed / self.matched if self.matched else None


def replays(levels: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Replay]:
    """Rebuild the book from pieces of `schema.BOOK_LEVELS`."""
    book = Book()
    return (book.feed(piece) for piece in levels)


def tops(levels: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield quotes made from a file of `schema.BOOK_LEVELS`, for recordings without any."""
    top = None
    for replay in replays(parquet.row_groups(levels, _LEVELS)):
        if len(replay.top):
            yield quotes_of(replay, top)
            top = replay.top[-1]


def figures(files: Mapping[str, Path], *, quotes_recorded: bool) -> dict[str, Any]:
    """Replay a day's book once, piece by piece: how often it was crossed, and whether recorded quotes agree with it."""
    crossed = 0

    def counted() -> Iterator[Replay]:
        nonlocal crossed
        for replay in replays(parquet.row_groups(files["book_levels"], _LEVELS)):
            crossed += replay.crossed
            yield replay

    quotes = parquet.row_groups(files["quotes"], ("update_id", *_TOP)) if quotes_recorded else iter(())
    found = book_ticker_agreement(counted(), quotes)
    return {"crossed": crossed, "book_ticker_agreement": found.share, "book_ticker_matched": found.matched}


def book_ticker_agreement(book: Iterable[Replay], quotes: Iterable[Mapping[str, np.ndarray]]) -> Agreement:
    """Compare the rebuilt top with the recorded quotes wherever both carry the same update id.

    Both come piece by piece. Ids rise on either side; a row whose id does not is passed over.
    """
    books = _rising((replay.update_id, replay.top) for replay in book)
    tops = _rising((piece["update_id"], np.stack([piece[name] for name in _TOP], axis=1)) for piece in quotes)
    matched = agreed = 0
    ids, recorded = np.empty(0, np.int64), np.empty((0, 4), np.int64)
    for events, rebuilt in books:
        while not len(ids) or ids[-1] < events[-1]:
            more, their_tops = next(tops, (None, None))
            if more is None or their_tops is None:
                break
            behind = np.searchsorted(ids, events[0])
            ids, recorded = np.append(ids[behind:], more), np.concatenate((recorded[behind:], their_tops))
        common, here, there = np.intersect1d(events, ids, assume_unique=True, return_indices=True)
        matched += len(common)
        agreed += int((rebuilt[here] == recorded[there]).all(axis=1).sum())
    return Agreement(matched, agreed)


def _rising(pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> _Tops:
    """Keep the rows whose id is above all before; pieces without any are left out."""
    highest = np.iinfo(np.int64).min
    for ids, tops in pieces:
        before = np.maximum.accumulate(np.concatenate(([highest], ids)))[:-1]
        above = ids > before
        if above.any():
            highest = ids[above][-1]
            yield ids[above], tops[above]
