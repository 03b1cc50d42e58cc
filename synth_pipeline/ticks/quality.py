"""How good a day of ticks is: figures that a person and an asset check read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from synth_pipeline.ticks.book import Replay


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


def book_ticker_agreement(book: Replay, quotes: Mapping[str, np.ndarray]) -> Agreement:
    """Compare the rebuilt top with the recorded quotes wherever both carry the same update id."""
    ids, book_rows, quote_rows = np.intersect1d(book.update_id, quotes["update_id"], return_indices=True)
    recorded = np.stack([quotes[name] for name in ("bid_price", "bid_size", "ask_price", "ask_size")], axis=1)
    same = (book.top[book_rows] == recorded[quote_rows]).all(axis=1)
    return Agreement(len(ids), int(same.sum()))
