"""Klines: intervals, what trades come to, and the laws of paging, on the arrays and over REST."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError
from synth_pipeline.exchange.bars import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    MONTH,
    SECOND_MS,
    WEEK_MS,
    Bar,
    Bars,
    Tape,
    closing,
    opening,
)
from synth_pipeline.exchange.server import serve
from synth_pipeline.venues import Trade
from tests import wire
from tests.exchange_clients import ask

START_MS = wire.START_NS // 10**6
INTERVALS = [MINUTE_MS, 3 * MINUTE_MS, HOUR_MS, DAY_MS, WEEK_MS, MONTH]


def bars(opens: list[int]) -> Bars:
    rows = [
        (str(100 + number % 7), str(110 + number % 5), str(90 - number % 3), str(101 + number % 4))
        for number in range(len(opens))
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return Bars.of(opens, *columns, [str(number) for number in range(1, len(opens) + 1)])  # type: ignore[call-arg]


@given(ms=st.integers(0, 4 * 10**12), interval=st.sampled_from(INTERVALS))
def test_every_time_lies_in_one_bar_and_bars_tile(ms: int, interval: int) -> None:
    start = opening(ms, interval)
    end = closing(start, interval)
    assert start <= ms <= end
    assert opening(end, interval) == start
    assert opening(end + 1, interval) == end + 1


def test_weeks_open_on_mondays_and_months_on_their_first() -> None:
    at = int(datetime(2023, 11, 15, 12, tzinfo=UTC).timestamp()) * 1000
    assert datetime.fromtimestamp(opening(at, WEEK_MS) / 1000, UTC) == datetime(2023, 11, 13, tzinfo=UTC)
    assert datetime.fromtimestamp(opening(at, MONTH) / 1000, UTC) == datetime(2023, 11, 1, tzinfo=UTC)
    assert closing(opening(at, MONTH), MONTH) + 1 == int(datetime(2023, 12, 1, tzinfo=UTC).timestamp()) * 1000


@settings(max_examples=60)
@given(
    missing=st.sets(st.integers(0, 199), max_size=60),
    interval=st.sampled_from([MINUTE_MS, 5 * MINUTE_MS, HOUR_MS]),
    limit=st.integers(1, 50),
)
def test_pages_forward_and_backward_hold_every_bar_once(missing: set[int], interval: int, limit: int) -> None:
    held = bars([START_MS + number * MINUTE_MS for number in range(200) if number not in missing])
    whole = held.page(interval, None, None, 10**6, first=True)
    forward: list[Bar] = []
    start = START_MS
    while page := held.page(interval, start, None, limit, first=True):
        forward += page
        start = page[-1].open_ms + 1
    assert forward == whole
    backward: list[Bar] = []
    end: int | None = None
    while page := held.page(interval, None, end, limit, first=False):
        assert len(page) == min(limit, len(whole) - len(backward))
        backward = page + backward
        end = page[0].open_ms - 1
    assert backward == whole


def test_bars_of_trades_agree_with_polars() -> None:
    rng = np.random.default_rng(5)
    count = 3000
    times = np.sort(rng.integers(START_MS, START_MS + 2 * HOUR_MS, count))
    prices, sizes = rng.integers(9_000, 11_000, count), rng.integers(1, 500, count)
    sides = rng.choice([-1, 1], count)
    tape = Tape()
    for number, (ms, price, size, side) in enumerate(zip(times, prices, sizes, sides, strict=True)):
        trade = Trade("X", int(ms) * 10**6, number, f"{price / 100:.2f}", f"{size / 1000:.3f}", int(side))
        tape.add(trade, Decimal(trade.price) * Decimal(trade.size))
    frame = pl.DataFrame({"t": times, "p": prices / 100, "q": sizes / 1000, "s": sides})
    for interval in (MINUTE_MS, 5 * MINUTE_MS, HOUR_MS):
        found = [bar for bar in tape.bars(interval).page(interval, None, None, 10**6, first=True) if bar.trades]
        expected = (
            frame.group_by((pl.col("t") // interval * interval).alias("open"))
            .agg(
                pl.col("p").first().alias("first"),
                pl.col("p").max().alias("high"),
                pl.col("p").min().alias("low"),
                pl.col("p").last().alias("last"),
                pl.col("q").sum().alias("volume"),
                (pl.col("p") * pl.col("q")).sum().alias("turnover"),
                pl.len().alias("trades"),
                pl.col("q").filter(pl.col("s") > 0).sum().alias("bought"),
            )
            .sort("open")
        )
        for bar, row in zip(found, expected.iter_rows(), strict=True):
            mine = (bar.open_ms, *map(float, (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.turnover)))
            assert (*mine, bar.trades, float(bar.bought)) == pytest.approx(row, rel=1e-12)


def test_a_stretch_without_trades_repeats_the_close_at_no_volume() -> None:
    tape = Tape()
    for ms, price in ((START_MS, "100"), (START_MS + 3 * MINUTE_MS, "105")):
        tape.add(Trade("X", ms * 10**6, ms, price, "2", 1), Decimal(1))
    page = tape.bars(MINUTE_MS).page(MINUTE_MS, None, None, 10, first=True)
    assert [(bar.open_ms - START_MS, bar.open, bar.close, bar.volume) for bar in page] == [
        (0, "100", "100", 2),
        (MINUTE_MS, "100", "100", 0),
        (2 * MINUTE_MS, "100", "100", 0),
        (3 * MINUTE_MS, "105", "105", 2),
    ]
    assert len(tape.bars(SECOND_MS).page(SECOND_MS, START_MS, None, 1000, first=True)) == 181


def test_bars_that_do_not_rise_are_refused() -> None:
    with pytest.raises(InputError, match="must rise"):
        bars([START_MS, START_MS])


def test_numbers_are_written_without_exponents() -> None:
    held = Bars.of([START_MS], [1e-7], [2.5], [1e-8], [1e16], [0.1])
    (bar,) = held.page(MINUTE_MS, None, None, 1, first=True)
    assert (bar.open, bar.high, bar.low, bar.close, str(bar.volume)) == (
        "0.0000001",
        "2.5",
        "0.00000001",
        "10000000000000000.0",
        "0.1",
    )


@settings(max_examples=5)
@given(count=st.integers(1, 260), limit=st.integers(1, 100))
def test_pages_over_rest_hold_every_bar_once_at_both_families(count: int, limit: int) -> None:
    held = {"BTCUSDT": bars([START_MS + number * MINUTE_MS for number in range(count)])}
    opens = [START_MS + number * MINUTE_MS for number in range(count)]

    async def binance() -> list[int]:
        async with serve(None, "binance_usdm", bars=held) as exchange:
            found: list[int] = []
            start = START_MS
            while True:
                target = f"/fapi/v1/klines?symbol=BTCUSDT&interval=1m&startTime={start}&limit={limit}"
                page: list[Any] = await ask(exchange, target)
                if not page:
                    return found
                assert all(row[6] == row[0] + MINUTE_MS - 1 for row in page)
                found += [row[0] for row in page]
                start = page[-1][0] + 1

    async def bybit() -> list[int]:
        async with serve(None, "bybit_linear", bars=held) as exchange:
            found: list[int] = []
            end = START_MS + count * MINUTE_MS
            while True:
                target = f"/v5/market/kline?category=linear&symbol=BTCUSDT&interval=1&end={end}&limit={limit}"
                page = (await ask(exchange, target))["result"]["list"]
                if not page:
                    return found
                found += [int(row[0]) for row in page]
                end = int(page[-1][0]) - 1

    assert asyncio.run(binance()) == opens
    assert asyncio.run(bybit()) == opens[::-1], "newest first"


def test_both_ends_and_no_end() -> None:
    held = {"BTCUSDT": bars([START_MS + number * MINUTE_MS for number in range(100)])}

    async def run() -> None:
        async with serve(None, "binance_spot", bars=held) as exchange:
            span = f"startTime={START_MS + 10 * MINUTE_MS}&endTime={START_MS + 20 * MINUTE_MS}"
            page = await ask(exchange, f"/api/v3/klines?symbol=BTCUSDT&interval=1m&{span}")
            assert [row[0] for row in page] == [START_MS + number * MINUTE_MS for number in range(10, 21)]
            page = await ask(exchange, "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=3")
            assert [row[0] for row in page] == [START_MS + number * MINUTE_MS for number in (97, 98, 99)]
            assert await ask(exchange, "/api/v3/klines?symbol=BTCUSDT&interval=1s") == []
            hours = await ask(exchange, "/api/v3/klines?symbol=BTCUSDT&interval=1h")
            assert [float(row[5]) for row in hours] == [sum(range(1, 61)), sum(range(61, 101))]

    asyncio.run(run())
