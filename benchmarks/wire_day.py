"""Raw logs for the benchmarks that read bytes: a generated one, and what recorded captures there are.

The generated messages are mixed as a busy USD-M day mixes them, one depth update of about forty levels to six quotes
and three trades, with ids that follow each other and prices that wander.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np

from synth_pipeline.archives.rawlog import Record, Writer
from synth_pipeline.capture import importing
from synth_pipeline.market.wire import Wire
from synth_pipeline.rng import stream

START_NS = 1_736_121_600_000_000_000
"""2025-01-06 00:00:00 UTC."""
_SPACING_NS = 3_600_000
_CYCLE = "dqqtqqtqqt"
_RECORDED = {
    "binance_usdm": ("BTCUSDT", "binance_usdm_btcusdt_20240808.gz"),
    "binance_spot": ("BTCUSDT", "binance_spot_btcusdt_20240808.gz"),
    "binance_coinm": ("BTCUSD_PERP", "binance_coinm_btcusd_perp_20240808.gz"),
}


def messages(count: int) -> Iterator[tuple[int, bytes]]:
    """Yield so many (receive time, payload): a depth snapshot, then stream events of USD-M BTCUSDT."""
    rng, wire = stream(3, "benchmark", "wire"), Wire("BTCUSDT", Decimal("0.1"), Decimal("0.001"))
    update, trade, bid = 10**12, 5 * 10**9, 600_000
    yield (
        START_NS,
        wire.snapshot(
            sent_ms=1, event_ms=1, last_id=update, bids=_levels(rng, bid, -1, 200), asks=_levels(rng, bid + 1, 1, 200)
        ),
    )
    last = update
    for number in range(1, count):
        received = START_NS + number * _SPACING_NS
        stamps = {"sent_ms": received // 1_000_000 + 5, "event_ms": received // 1_000_000 + 4}
        last += int(rng.integers(1, 900))
        match _CYCLE[number % len(_CYCLE)]:
            case "d":
                bid += int(rng.integers(-3, 4))
                levels = {"bids": _levels(rng, bid, -1, 20), "asks": _levels(rng, bid + 1, 1, 20)}
                ids = {"first_id": update + 1, "last_id": last, "previous_id": update}
                yield received, wire.depth_update(**stamps, **ids, **levels)
                update = last
            case "q":
                sizes = rng.integers(1, 9000, 2).tolist()
                touch = {"bid": (bid, sizes[0]), "ask": (bid + 1, sizes[1])}
                yield received, wire.book_ticker(**stamps, update_id=last, **touch)
            case _:
                trade += 1
                size, sells = int(rng.integers(1, 4000)), bool(rng.integers(2))
                yield received, wire.trade(**stamps, trade_id=trade, price=bid, size=size, buyer_is_maker=sells)


def _levels(rng: np.random.Generator, touch: int, step: int, count: int) -> list[tuple[int, int]]:
    away = np.unique(rng.integers(0, 10 * count, count))
    sizes = rng.integers(0, 9000, len(away)) * (rng.random(len(away)) < 0.7)
    return list(zip((touch + step * away).tolist(), sizes.tolist(), strict=True))


def logs(folder: Path, count: int) -> dict[str, tuple[Path, str, str]]:
    """Write raw logs into a folder; return path, venue and symbol of each by name."""
    found = {"generated": (_written(folder / "generated.rawlog", messages(count)), "binance_usdm", "BTCUSDT")}
    beside = Path(__file__).parents[2] / "shared" / "data"
    for venue, (symbol, name) in _RECORDED.items():
        path = Path(os.environ.get("SYNTH_REAL_DATA", beside)) / name
        if path.exists():
            lines = ((line.received_ns or 0, line.payload) for line in importing.archive_of(path).lines(path))  # type: ignore[attr-defined]
            found[venue] = (_written(folder / f"{venue}.rawlog", lines), venue, symbol)
    return found


def _written(path: Path, frames: Iterator[tuple[int, bytes]]) -> Path:
    with Writer(path) as log:
        for received_ns, payload in frames:
            log.append(Record(received_ns, payload))
    return path
