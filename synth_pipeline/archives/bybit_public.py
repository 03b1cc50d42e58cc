"""Bybit's public trade files (public.bybit.com): one gzipped CSV a symbol and day.

Two forms, whose further columns vary with the years:

    trading/  timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional[,RPI]
    spot/     id,timestamp,price,volume,side[,rpi]

Times of derivatives are seconds with a fraction, of spot ms. There is one clock, the exchange's. Older files stand in
falling order of time and are read backwards.
"""

from __future__ import annotations

import re
from pathlib import Path

from synth_pipeline.archives import columns, plain_symbol
from synth_pipeline.archives.csv import CsvArchive, Layout, Reading, first_lines, header_of, peek
from synth_pipeline.archives.drafts import Piece
from synth_pipeline.archives.fields import Fields

_TRADING = ("timestamp", "symbol", "side", "size", "price", "tickdirection", "trdmatchid")
_SPOT = ("id", "timestamp", "price", "volume", "side")
_NAME = re.compile(r"([A-Z0-9\-]+?)[_\-]?\d{4}-\d\d")


class BybitPublic(CsvArchive):
    """Bybit's public trade files."""

    one_clock = True

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A header that begins as one of the two forms."""
        names = header_of(head)
        return names[: len(_TRADING)] == _TRADING or names[: len(_SPOT)] == _SPOT

    def layout(self, path: Path) -> Layout:
        """Return the columns."""
        head = peek(path)
        preamble, line = first_lines(head)
        names = header_of(head)
        return Layout(names, preamble + line, symbol="symbol" if "symbol" in names else None)

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the first records, of the file's name for spot."""
        if self.layout(path).symbol is not None:
            return super().symbols(path)
        match = _NAME.match(path.name)
        return [plain_symbol(match[1])] if match else []

    def venue_of(self, path: Path) -> str | None:
        """Return the segment: inverse contracts are quoted in USD, linear ones in USDT or USDC."""
        if self.layout(path).symbol is None:
            return "bybit_spot"
        is_inverse = [re.search(r"USD([HMUZ]\d\d)?$", symbol) is not None for symbol in self.symbols(path)]
        return "bybit_inverse" if is_inverse and all(is_inverse) else "bybit_linear"

    def tables(self, path: Path) -> tuple[str, ...]:  # noqa: ARG002 - trades only
        """Return trades."""
        return ("trades",)

    def read(self, path: Path, layout: Layout, fields: Fields, first: int) -> Reading:  # noqa: ARG002
        """Read trades; match ids that are no numbers give way to the row's number."""
        times, _ = fields.times(layout.index("timestamp"))
        price, size, side = layout.index("price"), layout.index("size", "volume"), layout.index("side")
        id_column = layout.columns.index("id") if "id" in layout.columns else None

        def trades() -> list[Piece]:
            aggressor = columns.sides(fields, side, ("buy", "sell"))
            return [columns.trades(fields, price, size, aggressor, columns.ids(fields, id_column, first))]

        return Reading(times, times, trades)
