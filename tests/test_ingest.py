"""From arrival to rows: injected faults are found where they are, and clean streams raise no alarm."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline.archives.collector import Collector
from synth_pipeline.archives.rawlog import CONTINUES, Kind, Record
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_SECOND, TICK_TABLES, Flag, Scale
from synth_pipeline.ticks import book, quality
from synth_pipeline.ticks.opening import Opening
from tests import wire
from tests.ingested import Ingested, ingest_day
from tests.wire import START_NS

Frames = list[tuple[int, bytes]]


def _ingest(frames: Frames, venue: str = "binance_usdm", symbol: str = "BTCUSDT") -> Ingested:
    records = [Record(START_NS + offset, payload) for offset, payload in frames]
    return ingest_day(records, venue, symbol, day_start=START_NS)


def _is_depth(frame: tuple[int, bytes]) -> bool:
    return b"depthUpdate" in frame[1]


def _is_trade(frame: tuple[int, bytes]) -> bool:
    return b'"trade"' in frame[1]


def test_a_clean_stream_raises_no_alarm() -> None:
    ticks = _ingest(wire.market(20))
    assert ticks.counts["quarantined"] == {}
    assert ticks.counts["gaps"] == ticks.counts["trade_gaps"] == 0
    assert len(ticks.tables["gaps"]["start_ns"]) == 0
    rebuilt = book.replay(ticks.tables["book_levels"])
    assert rebuilt.crossed == 0
    agreement = quality.book_ticker_agreement([rebuilt], [ticks.tables["quotes"]])
    assert agreement.matched == agreement.agreed == 199
    assert ticks.counts["crossed"] == 0
    assert (ticks.counts["book_ticker_matched"], ticks.counts["book_ticker_agreement"]) == (199, 1.0)


def test_tables_have_the_columns_and_types_of_the_schema() -> None:
    for name, columns in _ingest(wire.market(5)).tables.items():
        assert tuple(columns) == TICK_TABLES[name].names
        for column in TICK_TABLES[name].columns:
            expected = np.dtype(object if column.dtype in {"string", "binary"} else column.dtype)
            assert columns[column.name].dtype == expected, (name, column.name)


def test_rows_are_sorted_and_events_end_once() -> None:
    ticks = _ingest(wire.market(20))
    for name in ("trades", "quotes", "book_levels"):
        keys = [ticks.tables[name][column] for column in reversed(TICK_TABLES[name].sort)]
        assert (np.lexsort(keys) == np.arange(len(keys[0]))).all()
    levels = ticks.tables["book_levels"]
    lasts = np.flatnonzero(levels["flags"] & Flag.LAST)
    assert len(np.unique(levels["update_id"][lasts])) == len(lasts)


def test_the_snapshot_makes_what_came_before_it_known_only_then() -> None:
    frames = [
        (10, wire.depth(90, 99, 80, [("100.0", "1")])),
        (20, wire.depth(101, 105, 99, [("100.0", "2")])),
        (30, wire.snapshot(102, [("100.0", "9"), ("99.9", "5")], [("100.1", "9")])),
        (40, wire.depth(106, 108, 105, [("99.9", "6")])),
    ]
    ticks = _ingest(frames)
    assert ticks.counts["book_events"] == {"snapshots": 1, "applied": 3, "superseded_by_snapshot": 1}
    levels = ticks.tables["book_levels"]
    assert (levels["recv_ns"] - START_NS).min() == 30
    assert book.replay(levels).top[-1].tolist() == [1000, 2, 1001, 9]


def test_a_lost_update_hides_the_book_until_a_snapshot_bridges_again() -> None:
    frames = wire.market(10)
    depths = [number for number, frame in enumerate(frames) if _is_depth(frame)]
    lost = depths[30]
    resync_at = frames[depths[60]][0]
    ids = 100 + 3 * 60
    clean = frames[:lost] + frames[lost + 1 :]
    late = [(resync_at + 5, wire.snapshot(ids + 4, [("100.0", "5.000"), ("99.9", "7.000")], [("100.1", "5.000")]))]
    ticks = _ingest(sorted(clean + late, key=lambda frame: frame[0]))
    assert ticks.counts["gaps"] == 1
    gaps = ticks.tables["gaps"]
    book_gap = gaps["stream"] == "book_levels"
    assert (gaps["start_ns"][book_gap] - START_NS).tolist() == [frames[depths[29]][0]]
    assert (gaps["end_ns"][book_gap] - START_NS).tolist() == [resync_at + 5]
    levels = ticks.tables["book_levels"]
    hidden = (levels["recv_ns"] > START_NS + frames[depths[29]][0]) & (levels["recv_ns"] < START_NS + resync_at + 5)
    assert not hidden.any()
    resumed = levels["flags"][levels["recv_ns"] == START_NS + resync_at + 5]
    assert resumed[0] & Flag.GAP_BEFORE
    assert resumed[0] & Flag.SNAPSHOT


def test_a_loss_without_another_snapshot_quarantines_the_rest_and_says_so() -> None:
    frames = wire.market(10)
    depths = [number for number, frame in enumerate(frames) if _is_depth(frame)]
    ticks = _ingest(frames[: depths[30]] + frames[depths[30] + 1 :])
    assert ticks.counts["gaps"] == 1
    assert ticks.counts["quarantined"] == {"after_gap": len(depths) - 31}
    assert ticks.ticks.close_update_id is None
    assert ticks.tables["gaps"]["end_ns"][-1] == ticks.ticks.coverage[-1][1]


def test_overtaken_updates_are_put_in_order_and_known_when_the_missing_one_came() -> None:
    frames = wire.market(10)
    depths = [number for number, frame in enumerate(frames) if _is_depth(frame)]
    early, late = depths[30], depths[33]
    moved = [*frames[:early], *frames[early + 1 : late + 1], (frames[late][0], frames[early][1]), *frames[late + 1 :]]
    ticks, clean = _ingest(moved), _ingest(frames)
    assert ticks.counts["gaps"] == 0
    assert ticks.counts["book_events"]["overtaken"] == 3
    assert ticks.counts["quarantined"] == {}
    assert len(ticks.tables["gaps"]["start_ns"]) == 0
    assert (book.replay(ticks.tables["book_levels"]).top == book.replay(clean.tables["book_levels"]).top).all()
    recv = ticks.tables["book_levels"]["recv_ns"] - START_NS
    assert (recv == frames[late][0]).sum() == 2 * 4  # the late one and the three that waited for it


def test_no_snapshot_at_all_keeps_quotes_and_quarantines_the_depth() -> None:
    frames = [frame for frame in wire.market(5) if b"lastUpdateId" not in frame[1]]
    ticks = _ingest(frames)
    depths = sum(map(_is_depth, frames))
    assert ticks.counts["quarantined"] == {"no_snapshot": depths}
    assert len(ticks.tables["book_levels"]["recv_ns"]) == 0
    assert len(ticks.tables["quotes"]["recv_ns"]) == 49
    assert ticks.tables["gaps"]["reason"].tolist() == ["no_snapshot"]


def test_duplicates_are_quarantined_once_each_and_nothing_else() -> None:
    frames = wire.market(5)
    doubled = [frame for frame in frames for _ in range(2)]
    ticks = _ingest(doubled)
    clean = _ingest(frames)
    assert set(ticks.counts["quarantined"]) == {"duplicate_update", "duplicate_quote", "duplicate_trade"}
    for name in ("trades", "quotes", "book_levels"):
        assert len(ticks.tables[name]["recv_ns"]) == len(clean.tables[name]["recv_ns"])
    assert ticks.counts["gaps"] == 0


def test_a_lost_trade_is_a_gap_between_its_neighbours_and_a_late_one_closes_it() -> None:
    frames = [frame for frame in wire.market(3) if _is_trade(frame)]
    ticks = _ingest(frames[:5] + frames[7:])
    gaps = ticks.tables["gaps"]
    assert gaps["missing"].tolist() == [2]
    assert (gaps["start_ns"] - START_NS).tolist() == [frames[4][0]]
    assert (gaps["end_ns"] - START_NS).tolist() == [frames[7][0]]
    assert ticks.tables["trades"]["flags"][5] & Flag.GAP_BEFORE
    late = [(frames[8][0], frames[5][1]), (frames[8][0], frames[6][1])]
    reordered = _ingest(frames[:5] + frames[7:9] + late + frames[9:])
    assert len(reordered.tables["gaps"]["missing"]) == 0
    assert sorted(reordered.tables["trades"]["trade_id"]) == sorted(_ingest(frames).tables["trades"]["trade_id"])


def test_prices_off_the_tick_are_quarantined_never_rounded() -> None:
    frames = wire.market(60)
    frames[50:50] = [(frames[50][0], wire.trade(10_000, "100.05", "1.000"))]
    frames.append((frames[-1][0] + 1, wire.ticker(10**9, "100.03", "1", "100.1", "1")))
    ticks = _ingest(frames)
    assert str(ticks.ticks.scale.tick_size) == "0.1"
    assert ticks.counts["quarantined"]["off_tick"] == 2
    assert "100.05" in " ".join(ticks.tables["quarantine"]["detail"])


def test_bad_numbers_are_quarantined_by_reason() -> None:
    frames = wire.market(5)
    end = frames[-1][0]
    frames += [
        (end + 1, wire.trade(50, "-1", "1")),
        (end + 2, wire.trade(51, "0", "1", kind="INSURANCE_FUND")),
        (end + 3, wire.ticker(10**6, "100.2", "1", "100.1", "1")),
    ]
    quarantined = _ingest(frames).counts["quarantined"]
    assert quarantined == {"malformed_number": 1, "not_positive": 1, "crossed_quote": 1}


def test_half_a_line_is_quarantined_with_its_bytes() -> None:
    frames = wire.market(2)
    frames[7] = (frames[7][0], frames[7][1][:25])
    ticks = _ingest(frames)
    assert ticks.counts["quarantined"]["malformed_json"] == 1
    row = ticks.tables["quarantine"]["reason"].tolist().index("malformed_json")
    assert ticks.tables["quarantine"]["payload"][row] == frames[7][1]


def test_a_clock_that_steps_back_keeps_the_order_of_arrival_and_is_flagged() -> None:
    frames = wire.market(4)
    stepped = [
        (offset - 700_000_000 if number > 40 else offset, payload) for number, (offset, payload) in enumerate(frames)
    ]
    ticks, clean = _ingest(stepped), _ingest(frames)
    trades = ticks.tables["trades"]
    assert trades["trade_id"].tolist() == clean.tables["trades"]["trade_id"].tolist()
    assert (np.diff(trades["recv_ns"]) >= 0).all()
    assert (trades["flags"] & Flag.BAD_CLOCK > 0).any()
    assert ticks.counts["gaps"] == 0


def test_silence_splits_the_coverage() -> None:
    frames = wire.market(3)
    later = [(offset + 600 * NS_PER_SECOND, payload) for offset, payload in wire.market(6)[-20:]]
    ticks = _ingest(frames + later)
    assert len(ticks.ticks.coverage) == 2
    assert "silence" in ticks.tables["gaps"]["reason"].tolist()


def test_other_symbols_are_counted_and_an_absent_one_is_an_error() -> None:
    frames = wire.market(2)
    frames.append((frames[-1][0], wire.depth(1, 2, 0, symbol="ETHUSDT")))
    assert _ingest(frames).counts["other_symbols"] == {"ETHUSDT": 1}
    with pytest.raises(NoDataError, match="the capture holds BTCUSDT, ETHUSDT; check --symbol"):
        _ingest([frame for frame in frames if b"lastUpdateId" not in frame[1]], symbol="SOLUSDT")


def test_the_wrong_venue_is_named() -> None:
    with pytest.raises(InputError, match=r"not of venue binance_spot .*check --venue"):
        _ingest(wire.market(2), venue="binance_spot")


def test_without_quotes_the_book_gives_them() -> None:
    frames = [frame for frame in wire.market(5) if b"bookTicker" not in frame[1]]
    ticks = _ingest(frames)
    assert ticks.counts["quotes_from"] == "book"
    assert (ticks.tables["quotes"]["bid_size"][:3] * float(ticks.ticks.scale.lot_size)).tolist() == [5, 2, 3]


def test_midnight_opens_with_yesterdays_close() -> None:
    frames = wire.market(5)
    whole = _ingest(frames)
    cut = 60
    first, second = _ingest(frames[:cut]), frames[cut:]
    close = book.replay(first.tables["book_levels"])
    quotes, trades = first.tables["quotes"], first.tables["trades"]
    opening = Opening(
        close.bids,
        close.asks,
        np.array([quotes[name][-1] for name in ("bid_price", "bid_size", "ask_price", "ask_size", "update_id")]),
        first.ticks.scale,
        first.ticks.close_update_id or 0,
        int(trades["trade_id"][-1]),
    )
    records = [Record(START_NS, CONTINUES, Kind.EVENT)]
    records += [Record(START_NS + offset, payload) for offset, payload in second]
    day = ingest_day(records, day_start=START_NS, opening=opening)
    assert day.ticks.coverage[0][0] == START_NS
    assert day.counts["quarantined"] == {}
    assert day.tables["quotes"]["flags"][0] == Flag.SNAPSHOT | Flag.LAST
    assert (
        book.replay(day.tables["book_levels"]).top[-1].tolist()
        == book.replay(whole.tables["book_levels"]).top[-1].tolist()
    )
    assert len(first.tables["trades"]["price"]) + len(day.tables["trades"]["price"]) == len(
        whole.tables["trades"]["price"]
    )


@pytest.mark.parametrize(
    ("name", "venue", "symbol"),
    [
        ("binance_usdm_btcusdt_20240808.gz", "binance_usdm", "BTCUSDT"),
        ("binance_spot_btcusdt_20240808.gz", "binance_spot", "BTCUSDT"),
        ("binance_coinm_btcusd_perp_20240808.gz", "binance_coinm", "BTCUSD_PERP"),
    ],
)
def test_real_captures_raise_no_alarm_and_agree_with_their_quotes(
    real: Callable[[str], Path], name: str, venue: str, symbol: str
) -> None:
    lines = Collector().lines(real(name))
    records = [Record(line.received_ns or 0, line.payload) for line in lines]
    ticks = ingest_day(records, venue, symbol)
    assert ingest_day(records, venue, symbol, block_bytes=200_000, frame_records=701).content == ticks.content
    assert ticks.counts["quarantined"] == {}
    assert ticks.counts["gaps"] == ticks.counts["trade_gaps"] == 0
    rebuilt = book.replay(ticks.tables["book_levels"])
    assert rebuilt.crossed == 0
    agreement = quality.book_ticker_agreement([rebuilt], [ticks.tables["quotes"]])
    assert agreement.matched > 500
    assert agreement.share == 1.0
    # A stronger claim than equal ids: after every event the top is the last quote at or before it.
    quotes = ticks.tables["quotes"]
    before = np.searchsorted(quotes["update_id"], rebuilt.update_id, side="right") - 1
    recorded = np.stack([quotes[column] for column in ("bid_price", "bid_size", "ask_price", "ask_size")], axis=1)
    known = before >= 0
    assert (rebuilt.top[known] == recorded[before[known]]).all()


def _opening(scale: Scale, bid: tuple[int, int], ask: tuple[int, int]) -> Opening:
    quote = np.array([*bid, *ask, 99])
    return Opening(np.array([bid]), np.array([ask]), quote, scale, 99, None)


def test_a_finer_book_of_yesterday_is_carried_over_exactly() -> None:
    opening = _opening(Scale(Decimal("0.01"), Decimal("0.001")), (10_007, 5), (10_011, 7))
    frames = [(number, wire.depth(100 + number, 100 + number, 99 + number, [("99.0", "5")])) for number in range(200)]
    records = [Record(START_NS, CONTINUES, Kind.EVENT)]
    records += [Record(START_NS + offset, payload) for offset, payload in frames]
    day = ingest_day(records, day_start=START_NS, opening=opening)
    top = book.replay(day.tables["book_levels"]).top[0] * np.array(
        [day.ticks.scale.tick_size, day.ticks.scale.lot_size] * 2
    )
    assert [str(value) for value in top] == ["100.07", "0.005", "100.11", "0.007"]


def test_a_late_trade_after_a_healed_book_fills_its_own_hole() -> None:
    frames = wire.market(10)
    depths = [number for number, frame in enumerate(frames) if _is_depth(frame)]
    trades = [number for number, frame in enumerate(frames) if _is_trade(frame)]
    early, late = depths[30], depths[33]
    lost_trade = trades[31]
    order = [*range(early), *range(early + 1, late + 1), early, *range(late + 1, len(frames))]
    order.remove(lost_trade)
    order.insert(order.index(trades[50]), lost_trade)
    ticks = _ingest([(frames[max(order[: at + 1])][0], frames[number][1]) for at, number in enumerate(order)])
    assert ticks.counts["gaps"] == 0
    assert len(ticks.tables["gaps"]["start_ns"]) == 0


@pytest.mark.parametrize(
    "payload",
    [
        b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"\xff\xfe","T":1}}',
        wire.trade(2**63, "100.0", "1"),
        wire.trade(10**6, "100.0", "1").replace(b"1700006400106", b"17000064001061234567"),
        wire.depth(5, 2**64, 4),
        wire.trade(50, "\u0661\u0660\u0660", "1"),
    ],
)
def test_corrupt_messages_are_quarantined_whatever_they_hold(payload: bytes) -> None:
    frames = wire.market(5)
    ticks = _ingest([*frames, (frames[-1][0] + 1, payload)])
    assert sum(ticks.counts["quarantined"].values()) == 1


def test_an_unnamed_snapshot_is_not_believed_where_symbols_mix() -> None:
    frames = wire.market(5)
    frames.insert(0, (0, wire.depth(1, 2, 0, symbol="ETHUSDT")))
    quarantined = _ingest(frames).counts["quarantined"]
    assert quarantined["unnamed_snapshot"] == 1


def test_marks_count_rows_that_are_kept() -> None:
    frames = wire.market(5)
    frames.append((frames[-1][0] - 10, wire.trade(50, "100.0", "1", kind="INSURANCE_FUND")))
    assert _ingest(frames).counts["flagged"] == {"bad_clock": 1, "off_market": 1}


@pytest.mark.parametrize(
    "corrupt",
    [
        wire.ticker(9 * 10**18, "100.0", "1", "100.1", "5"),
        wire.trade(9 * 10**18, "100.0", "1"),
        wire.depth(9 * 10**18, 9 * 10**18, 10**18, [("100.0", "1")]),
    ],
)
def test_one_absurd_id_takes_nothing_else_with_it(corrupt: bytes) -> None:
    frames = wire.market(10)
    ticks = _ingest([*frames[:150], (frames[150][0], corrupt), *frames[150:]])
    assert ticks.counts["quarantined"] == {"implausible_id": 1}
    assert ticks.counts["gaps"] == ticks.counts["trade_gaps"] == 0


def test_ids_that_really_jump_are_believed_at_the_second_message() -> None:
    frames = [(number, wire.trade(number, "100.0", "1")) for number in range(1, 50)]
    frames += [(100 + number, wire.trade(10**15 + number, "100.0", "1")) for number in range(50)]
    ticks = _ingest(frames)
    assert ticks.counts["quarantined"] == {"implausible_id": 1}
    assert len(ticks.tables["trades"]["price"]) == 49 + 49


def test_a_snapshot_that_no_update_follows_says_nothing_of_later() -> None:
    frames = [
        (at, payload.replace(b'"lastUpdateId": 100', b'"lastUpdateId": 1000000')) for at, payload in wire.market(5)
    ]
    ticks = _ingest(frames)
    gaps = ticks.tables["gaps"]
    assert gaps["reason"].tolist() == ["never_bridged"]
    assert gaps["end_ns"].tolist() == [ticks.ticks.coverage[-1][1]]
    assert ticks.ticks.close_update_id is None


def test_what_hides_the_book_hides_the_quotes_that_are_made_from_it() -> None:
    frames = [frame for frame in wire.market(10) if b"bookTicker" not in frame[1]]
    depths = [number for number, frame in enumerate(frames) if _is_depth(frame)]
    lost, found = depths[30], depths[60]
    late = wire.snapshot(100 + 3 * 60, [("100.0", "5.000")], [("100.1", "5.000")])
    frames = [*frames[:lost], *frames[lost + 1 : found], (frames[found][0], late), *frames[found:]]
    ticks = _ingest(frames)
    gaps = ticks.tables["gaps"]
    spans = {
        stream: list(zip(gaps["start_ns"][rows].tolist(), gaps["end_ns"][rows].tolist(), strict=True))
        for stream in ("book_levels", "quotes")
        if (rows := gaps["stream"] == stream).any()
    }
    assert len(spans["book_levels"]) == 1
    assert set(spans["book_levels"]) < set(spans["quotes"])
    assert (np.diff(gaps["start_ns"]) >= 0).all()


def test_a_quote_with_an_empty_side_is_kept() -> None:
    frames = wire.market(5)
    frames.append((frames[-1][0] + 1, wire.ticker(10**6, "100.0", "1", "0.0", "0.000")))
    frames.append((frames[-1][0] + 2, wire.ticker(10**6 + 1, "0.0", "1", "100.1", "1")))
    ticks = _ingest(frames)
    assert ticks.counts["quarantined"] == {"not_positive": 1}
    assert [ticks.tables["quotes"][name][-1] for name in ("bid_price", "ask_price", "ask_size")] == [1000, 0, 0]


def test_a_rejected_row_brings_its_payload_and_its_words() -> None:
    frames = wire.market(60)
    odd = wire.trade(10_000, "100.0500", "1.0"), wire.ticker(10**9, "100.03", "1", "100.1", "2")
    frames[50:50] = [(frames[50][0], odd[0])]
    frames.append((frames[-1][0] + 1, odd[1]))
    frames.append((frames[-1][0] + 1, wire.depth(1898, 1900, 1897, [("100.07", "1")], [("100.2", "0")])))
    table = _ingest(frames).tables["quarantine"]
    rows = list(zip(table["stream"], table["reason"], table["detail"], table["payload"], strict=True))
    assert rows[:2] == [
        ("trades", "off_tick", "price 100.0500 size 1.0", odd[0]),
        ("quotes", "off_tick", "bid 100.03 x 1, ask 100.1 x 2", odd[1]),
    ]
    assert rows[2][:3] == ("book_levels", "off_tick", "update 1900: bid price 100.07 size 1")
    assert (np.diff(table["seq"]) > 0).all()
