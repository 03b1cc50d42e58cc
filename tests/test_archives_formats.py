"""What becomes of each format's rows: times, sides, ids, levels, events; and what its reader refuses."""

import gzip
import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest

from synth_pipeline import plugins
from synth_pipeline import venues as venue_package
from synth_pipeline.archives import Form
from synth_pipeline.archives.bybit_public import BybitPublic
from synth_pipeline.archives.cryptofeed import Cryptofeed
from synth_pipeline.archives.databento import Databento
from synth_pipeline.archives.generic_csv import GenericCsv
from synth_pipeline.archives.merged_csv import MergedCsv
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import Flag
from synth_pipeline.ticks import book as books
from synth_pipeline.ticks.rows import ingest_rows
from tests import archive_files
from tests.archive_files import DAY, MBO, START_NS, START_S, dbn_file, load, sample, tables_of


def _gaps(tables: dict[str, dict[str, np.ndarray]]) -> list[tuple[str, str]]:
    gaps = tables["gaps"]
    return sorted(zip(gaps["stream"].tolist(), gaps["reason"].tolist(), strict=True))


def _made(name: str, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    made = sample(name, folder)
    return tables_of(load(made.archive), made.path, made.symbol, folder, made.day)


@pytest.mark.parametrize("name", ["vision trades", "vision spot trades", "vision bare trades", "vision zip"])
def test_trades_of_binance(name: str, tmp_path: Path) -> None:
    tables = _made(name, tmp_path)
    trades = tables["trades"]
    assert trades["trade_id"].tolist() == list(range(100, 109))
    assert ((trades["recv_ns"] - START_NS) // 10**6).tolist() == [7 * n for n in range(9)]
    assert trades["side"].tolist() == [-1, 1] * 4 + [-1]  # the maker bought: the aggressor sold
    assert (trades["flags"] == Flag.BAD_CLOCK | Flag.LAST).all()
    assert _gaps(tables) == [("book_levels", "not_recorded"), ("quotes", "not_recorded")]


def test_missing_repeated_and_late_trade_ids(tmp_path: Path) -> None:
    path = archive_files.vision_trades(tmp_path)
    lines = path.read_text().splitlines()
    lines[4:7] = [lines[5], lines[5], lines[6]]
    del lines[8]
    path.write_text("\n".join(lines) + "\n")
    tables = tables_of(load("binance_vision"), path, "BTCUSDT", tmp_path)
    assert tables["quarantine"]["reason"].tolist() == ["duplicate_trade"]
    gaps = tables["gaps"]
    holes = gaps["stream"] == "trades"
    assert gaps["missing"][holes].tolist() == [1, 1]
    assert (tables["trades"]["flags"] & Flag.GAP_BEFORE > 0).sum() == 2


def test_quotes_of_binance(tmp_path: Path) -> None:
    tables = _made("vision quotes", tmp_path)
    quotes = tables["quotes"]
    assert quotes["update_id"].tolist() == [3 * n for n in range(9)]
    assert ((quotes["recv_ns"] - quotes["event_ns"]) // 10**6).tolist() == [2] * 9
    assert quotes["bid_size"].tolist() == [n + 1 for n in range(9)]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("BTCUSDT-1m-2024-01-05.csv", ",".join([str(START_S * 1000), *"12345", str(START_S * 1000 + 59_999), *"12345"]),
         "holds klines, bars, not ticks: read them with `synth-pipeline bars`"),
        ("BTCUSDT-1m-2024-01-05.csv", "open_time,open,high,low,close,volume,close_time,quote_volume,count,a,b,ignore",
         "holds klines"),
        ("BTCUSDT-bookDepth-2024-01-05.csv", "timestamp,percentage,depth,notional",
         "holds bookDepth, sums of the depth"),
    ],
)  # fmt: skip
def test_dumps_without_ticks_are_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(f"{line}\n{line}\n")
    archive = importing.archive_of(path)
    with pytest.raises(InputError, match=message):
        archive.days(path)


def test_a_checksum_beside_a_dump_is_verified(tmp_path: Path) -> None:
    path = archive_files.zipped(archive_files.vision_trades(tmp_path))
    checksum = path.with_name(path.name + ".CHECKSUM")
    checksum.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    (tmp_path / "a").mkdir()
    load("binance_vision").keep(path, "BTCUSDT", DAY, tmp_path / "a")
    checksum.write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(InputError, match=r"is not what .*CHECKSUM says"):
        load("binance_vision").keep(path, "BTCUSDT", DAY, tmp_path)


def test_a_tardis_book_has_events_by_receipt_and_says_where_it_reconnected(tmp_path: Path) -> None:
    tables = _made("tardis book", tmp_path)
    levels = tables["book_levels"]
    assert ((levels["recv_ns"] - levels["event_ns"]) == 5000).all()
    assert (levels["flags"] & Flag.LAST > 0).tolist() == [False, False, True, False, True, True, False, True, True]
    rebuilt = books.replay(levels)
    assert rebuilt.top[:, 0].tolist() == [200, 199, 199, 196, 196]  # half units
    assert rebuilt.top[:, 3].tolist() == [15, 2, 2, 40, 10]  # tenths
    assert ("book_levels", "reconnected") in _gaps(tables)
    assert ("quotes", "reconnected") in _gaps(tables)
    assert tables["quotes"]["bid_price"].tolist() == [200, 199, 199, 196, 196]


def test_tardis_trades_of_one_symbol_of_a_group(tmp_path: Path) -> None:
    trades = _made("tardis trades", tmp_path)["trades"]
    assert trades["side"].tolist() == [1, -1, 0]
    assert trades["trade_id"].tolist() == [77, 2, 3]
    assert load("tardis").symbols(tmp_path / "binance-futures_trades_2024-01-05_GROUP.csv") == ["BTCUSDT", "ETHUSDT"]


def test_tardis_quotes_may_lack_a_side(tmp_path: Path) -> None:
    quotes = _made("tardis quotes", tmp_path)["quotes"]
    assert quotes["ask_size"].tolist() == [7, 0, 3]
    assert quotes["ask_price"].tolist()[1] == 0


def test_tardis_snapshots_are_windows(tmp_path: Path) -> None:
    rebuilt = books.replay(_made("tardis snapshots", tmp_path)["book_levels"])
    assert rebuilt.top.tolist() == [[200, 2, 202, 1], [200, 2, 202, 1], [200, 2, 201, 5]]
    assert rebuilt.depth.tolist() == [[6, 4], [6, 1], [6, 6]]


@pytest.mark.parametrize("name", ["x_liquidations_y.csv", "derivative.csv"])
def test_tardis_files_without_ticks_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    columns = "id,side,price,amount" if "liq" in name else "funding_timestamp,funding_rate,open_interest"
    path.write_text(archive_files.TARDIS + columns + "\n")
    with pytest.raises(InputError, match="is a Tardis file without ticks"):
        importing.archive_of(path).days(path)


def test_bybit_trades(tmp_path: Path) -> None:
    trades = _made("bybit trades", tmp_path)["trades"]
    assert ((trades["recv_ns"] - START_NS) // 10**5).tolist() == [47, 1047, 2047, 3047, 4047]
    assert trades["side"].tolist() == [-1, 1, -1, 1, -1]


def test_files_with_the_newest_row_first_are_read_backwards(tmp_path: Path) -> None:
    path = archive_files.bybit_trades(tmp_path)
    header, *rows = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    turned = tmp_path / "turned.csv"
    turned.write_bytes(header + b"".join(reversed(rows)))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    expected = tables_of(BybitPublic(), path, "BTCUSDT", tmp_path / "a")["trades"]
    found = tables_of(BybitPublic(), turned, "BTCUSDT", tmp_path / "b")["trades"]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_missing_update_hides_bybits_book_up_to_the_next_snapshot(tmp_path: Path) -> None:
    whole = _made("bybit book", tmp_path)
    assert len(books.replay(whole["book_levels"]).recv_ns) == 5
    (tmp_path / "cut").mkdir()
    path = archive_files.bybit_book(tmp_path / "cut", skip=1)
    tables = tables_of(load("bybit_orderbook"), path, "BTCUSDT", tmp_path / "cut")
    assert tables["quarantine"]["reason"].tolist() == ["after_gap", "after_gap"]
    assert ("book_levels", "sequence_gap") in _gaps(tables)
    assert len(books.replay(tables["book_levels"]).recv_ns) == 2


def test_quotes_of_bybits_book_are_its_top(tmp_path: Path) -> None:
    quotes = _made("bybit book", tmp_path)["quotes"]
    assert (quotes["bid_price"] * 5).tolist() == [1005, 1000, 1000, 980]
    assert (quotes["flags"] & Flag.BAD_CLOCK > 0).all()


def test_trades_written_as_doubles_are_what_was_meant(tmp_path: Path) -> None:
    tables = _made("bitstamp log", tmp_path)
    assert tables["trades"]["size"].tolist() == [21_144_331]
    assert tables["trades"]["side"].tolist() == [0]
    assert _made("bitstamp live", tmp_path)["trades"]["side"].tolist() == [-1]


@pytest.mark.parametrize(("name", "depth"), [("dbn mbp-10", 10), ("dbn mbp-1", 1)])
def test_windows_of_databento(name: str, depth: int, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    (tmp_path / "t").mkdir()
    ticks = ingest_rows([(Databento(), made.path)], "ESH4", DAY, tmp_path / "t")
    assert ticks.visible_levels == depth
    assert ticks.counts["book_ticker_agreement"] == 1.0
    tables = tables_of(Databento(), made.path, "ESH4", tmp_path)
    assert tables["quotes"]["bid_size"].tolist() == [2, 3, 4, 5]
    assert (tables["quotes"]["recv_ns"] - tables["quotes"]["event_ns"]).tolist() == [50] * 4


def test_symbols_come_from_mapping_records_or_are_numbers(tmp_path: Path) -> None:
    mapped = dbn_file(tmp_path, dbn.Schema.MBO, [archive_files.dbn_mapping(), *MBO], mapped=False)
    assert Databento().symbols(mapped) == ["ESH4"]
    orders = tables_of(Databento(), mapped, "ESH4", tmp_path)["orders"]
    assert 9 not in orders["order_id"]
    (tmp_path / "kept").mkdir()
    kept = Databento().keep(mapped, "ESH4", DAY, tmp_path / "kept")
    assert Databento().symbols(kept) == ["ESH4"]
    bare = dbn_file(tmp_path, dbn.Schema.MBO, MBO, mapped=False)
    assert Databento().symbols(bare) == ["4711", "6"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-20], "is truncated: it ends within a record"),
        (lambda content: content + bytes(64), "is damaged: a record of no length"),
        (lambda content: content[:30], "has no readable DBN metadata"),
    ],
)
def test_damaged_dbn_is_one_line(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = dbn_file(tmp_path, dbn.Schema.MBO, MBO, plain=True)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        Databento().scan(path, "ESH4", DAY)


def test_dbn_without_ticks_is_refused(tmp_path: Path) -> None:
    path = dbn_file(tmp_path, dbn.Schema.OHLCV_1M, [])
    with pytest.raises(InputError, match="holds the schema ohlcv-1m, which is no ticks"):
        Databento().days(path)


def test_e_mini_trades_in_chicago_time(real: Callable[[str], Path], tmp_path: Path) -> None:
    path = real("es_trades_20130901_0903_a.csv.xz")
    archive = GenericCsv(Form(timezone="America/Chicago"))
    assert [day.isoformat() for day in archive.days(path)] == ["2013-09-01", "2013-09-02", "2013-09-03"]
    ticks = ingest_rows([(archive, path)], "ES", archive.days(path)[0], tmp_path)
    assert ticks.scale.tick_size == Decimal("0.25")
    # Sunday 17:00 in Chicago, in summer.
    assert ticks.coverage[0][0] == 1_378_072_800_083_000_000
    counts = [archive.scan(path, "ES", day).records for day in archive.days(path)]
    assert sum(counts) == 357_503


def test_columns_are_told_by_names_numbers_and_words(tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text(f"{START_S}.5,S,10.5,3\n{START_S + 1}.25,B,10.25,2\n")
    trades = tables_of(GenericCsv(Form({"time": "1", "side": "2", "price": "3", "size": "4"})), path, "X", tmp_path)[
        "trades"
    ]
    assert trades["side"].tolist() == [-1, 1]
    assert ((trades["recv_ns"] - START_NS) // 10**7).tolist() == [50, 125]
    split = tmp_path / "split.csv"
    split.write_text("Date;Time;Last;Volume\n01/05/2024;00:00:01.5;10;3\n01/05/2024;00:00:02;11;3\n")
    (tmp_path / "s").mkdir()
    trades = tables_of(GenericCsv(), split, "X", tmp_path / "s")["trades"]
    assert ((trades["recv_ns"] - START_NS) // 10**8).tolist() == [15, 20]


def test_receipt_and_exchange_time_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text(
        f"exchange_time,local_timestamp,price,qty\n{START_S},{START_S + 1},10,1\n{START_S + 5},{START_S + 7},11,1\n"
    )
    trades = tables_of(GenericCsv(), path, "X", tmp_path)["trades"]
    assert ((trades["recv_ns"] - trades["event_ns"]) // 10**9).tolist() == [1, 2]
    assert (trades["flags"] & Flag.BAD_CLOCK == 0).all()


def test_level_changes_without_a_full_book_hide_it(tmp_path: Path) -> None:
    tables = _made("generic book", tmp_path)
    assert ("book_levels", "no_snapshot") in _gaps(tables)
    assert ("quotes", "no_snapshot") in _gaps(tables)
    assert (tables["book_levels"]["flags"] & Flag.LAST > 0).sum() == 5


def test_windows_of_numbered_columns(tmp_path: Path) -> None:
    rebuilt = books.replay(_made("generic windows", tmp_path)["book_levels"])
    assert rebuilt.depth.tolist() == [[4, 6]] * 5
    assert (rebuilt.top[:, 0] / 10).tolist() == [100, 99.9, 99.8, 99.7, 99.6]


@pytest.mark.parametrize(
    "text", ["time,bid,ask\n1704412800,1,2\n", "a,b\n1,2\n", "Date,Open,High,Low,Close,Volume\n2024-01-05,1,2,1,2,9\n"]
)
def test_tables_that_are_no_ticks_are_not_claimed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "no.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"of no known format.*--columns|synth-pipeline bars"):
        importing.archive_of(path)


def test_rows_out_of_order_are_kept_late_and_too_many_are_refused(tmp_path: Path) -> None:
    rows = [f"{START_S * 1000 + 10 * n},{100 + n},1" for n in range(300)]
    rows[50], rows[51] = rows[51], rows[50]
    rows[100] = rows[100].replace(str(START_S * 1000 + 1000), str((START_S + 7200) * 1000))
    path = tmp_path / "t.csv"
    path.write_text("time,price,size\n" + "\n".join(rows) + "\n")
    (tmp_path / "t").mkdir()
    ticks = ingest_rows([(GenericCsv(), path)], "X", DAY, tmp_path / "t")
    assert ticks.counts["late"] == 1
    assert ticks.counts["quarantined"] == {"bad_time": 1}
    assert ticks.rows["trades"] == 299
    shuffled = [rows[(7 * n) % 300] for n in range(300)]
    path.write_text("time,price,size\n" + "\n".join(shuffled) + "\n")
    with pytest.raises(InputError, match=r"is not in the order of time: .* of 300 rows are late; sort it first"):
        GenericCsv().scan(path, "X", DAY)


def test_more_decimals_than_the_grid_are_quarantined_never_rounded(tmp_path: Path) -> None:
    rows = [f"{START_S * 1000 + n},{100 + n}.25,1" for n in range(2000)] + [f"{START_S * 1000 + 2001},100.251,1"]
    path = tmp_path / "t.csv"
    path.write_text("time,price,size\n" + "\n".join(rows) + "\n")
    tables = tables_of(GenericCsv(), path, "X", tmp_path)
    assert tables["quarantine"]["reason"].tolist() == ["off_tick"]
    assert tables["quarantine"]["payload"].tolist() == [rows[-1].encode()]


def test_a_last_line_without_its_end_is_quarantined_unless_the_file_is_compressed(tmp_path: Path) -> None:
    text = "time,price,size\n" + "\n".join(f"{START_S * 1000 + n},{100 + n},12" for n in range(5))
    path = tmp_path / "t.csv"
    path.write_text(text)
    tables = tables_of(GenericCsv(), path, "X", tmp_path)
    assert tables["quarantine"]["reason"].tolist() == ["torn_line"]
    (tmp_path / "kept").mkdir()
    kept = GenericCsv().keep(path, "X", DAY, tmp_path / "kept")
    assert kept.read_text() == text
    (tmp_path / "z").mkdir()
    whole = tables_of(GenericCsv(), archive_files.gzipped(path), "X", tmp_path / "z")
    assert len(whole["trades"]["price"]) == 5


def _envelopes(folder: Path) -> Path:
    def message(conn: int, at: str, symbol: str, n: int) -> str:
        data = {
            "topic": f"publicTrade.{symbol}",
            "type": "snapshot",
            "ts": START_S * 1000,
            "data": [
                {
                    "T": START_S * 1000 + n,
                    "s": symbol,
                    "S": "Buy",
                    "v": "1",
                    "p": "100.5",
                    "i": str(n),
                    "BT": False,
                }
            ],
        }
        return json.dumps({"t": "recv", "conn": f"B.ws.{conn}", "ts": 0, "data": json.dumps(data)}).replace(
            '"ts": 0', f'"ts": {at}'
        )

    lines = [
        '{"t":"header","format":2,"exchange":"BYBIT"}',
        '{"t":"http","conn":"B.http.1","ts":1.5,"url":"https://api.bybit.com/v5/market/instruments-info","data":"{}"}',
        '{"t":"connect","conn":"B.ws.2","ts":1.5,"addr":"wss://stream.bybit.com/v5/public/linear"}',
        '{"t":"connect","conn":"B.ws.3","ts":1.5,"addr":"wss://stream.bybit.com/v5/public/spot"}',
        message(2, f"{START_S}.526357", "BTCUSDT", 1),
        message(3, f"{START_S}.5263571", "BTCUSDT", 2),
        message(2, f"{START_S}.6", "ETHUSDT", 3),
        '{"t":"recv","conn":"B.ws.2","ts":12',
    ]  # fmt: skip
    path = folder / "raw.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_cryptofeed_connections_tell_venues_apart(tmp_path: Path) -> None:
    path, archive = _envelopes(tmp_path), Cryptofeed()
    assert archive.venues(path) == ["bybit_linear", "bybit_spot"]
    assert archive.symbols(path) == ["BTCUSDT", "ETHUSDT"]
    linear, spot = (list(archive.lines(path, venue)) for venue in archive.venues(path))
    assert [line.received_ns for line in linear] == [START_NS + 526_357_000, START_NS + 600_000_000, None]
    assert [line.received_ns for line in spot] == [START_NS + 526_357_100, None]
    assert len(list(archive.lines(path))) == 4
    venue = plugins.load(venue_package, "bybit_spot")()
    assert venue.parse(spot[0].payload, 0)[0].price == "100.5"


def test_merged_rows_are_messages_of_binance_again(real: Callable[[str], Path]) -> None:
    path = real("binance_usdm_trxusdt_merged_20250414.csv.zst")
    archive = MergedCsv()
    assert archive.venue_of(path) == "binance_usdm"
    venue = plugins.load(venue_package, "binance_usdm")()
    rule, verdicts, kinds = venue.sequence_rule(), [], set()
    for line in archive.lines(path):
        for message in venue.parse(line.payload, line.received_ns or 0):
            kinds.add(type(message).__name__)
            if type(message).__name__ != "BookUpdate":
                continue
            if message.snapshot:
                if rule.last_id is None:
                    rule.snapshot(message.last_id)
            else:
                verdicts.append(rule.check(message).name)
    assert kinds == {"Trade", "BookUpdate"}
    assert set(verdicts) == {"IN_ORDER"}


def test_several_tables_of_a_day_are_one(tmp_path: Path) -> None:
    book, trades = archive_files.tardis_book(tmp_path), archive_files.tardis_trades(tmp_path)
    (tmp_path / "t").mkdir()
    sources = [(load("tardis"), trades), (load("tardis"), book)]
    ticks = ingest_rows(sources, "BTCUSDT", DAY, tmp_path / "t")
    assert (ticks.rows["trades"], ticks.rows["book_levels"], ticks.rows["quotes"]) == (3, 9, 5)
    assert ticks.scale.lot_size == Decimal("0.1")
    assert ticks.counts["book_ticker_agreement"] is None
    with pytest.raises(InputError, match="both hold trades of the same time"):
        ingest_rows([*sources, (load("tardis"), trades)], "BTCUSDT", DAY, tmp_path)


def test_a_bad_symbol_is_told_what_the_file_holds(tmp_path: Path) -> None:
    path = archive_files.tardis_trades(tmp_path)
    with pytest.raises(NoDataError, match=r"holds nothing of XRPUSDT .* its symbols BTCUSDT, ETHUSDT"):
        load("tardis").scan(path, "XRPUSDT", DAY)


@pytest.mark.parametrize("digits", [13, 16, 19])
def test_collector_stamps_are_read_by_their_digits(tmp_path: Path, digits: int) -> None:
    from synth_pipeline.archives.collector import Collector

    stamp = str(START_NS + 123_456_789)[:digits]
    path = tmp_path / "capture"
    path.write_bytes(f'{stamp} {{"e":"markPriceUpdate","s":"BTCUSDT"}}\r\n'.encode())
    archive = importing.archive_of(path)
    assert isinstance(archive, Collector)
    assert [str(line.received_ns)[:digits] for line in archive.lines(path)] == [stamp]
    assert next(iter(archive.lines(path))).payload.endswith(b"}")


def test_bitstamp_messages_with_a_stamp_are_bitstamps(tmp_path: Path) -> None:
    live = archive_files.bitstamp_live(tmp_path)
    stamped = tmp_path / "stamped.log"
    lines = live.read_bytes().splitlines()
    stamps = [START_NS + n * 10**9 for n in range(len(lines))]
    stamped.write_bytes(b"".join(b"%d %s\n" % pair for pair in zip(stamps, lines, strict=True)))
    archive = importing.archive_of(stamped)
    tables = tables_of(archive, stamped, "BTCUSD", tmp_path)  # type: ignore[arg-type]
    assert tables["orders"]["recv_ns"].tolist()[0] == START_NS + 10**9
    assert (tables["orders"]["flags"] & Flag.BAD_CLOCK == 0).all()
    assert importing.archive_of(live).symbols(live) == ["BTCUSD"]


def test_batches_are_bounded_by_the_bytes_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time,price,size\n" + "".join(f"{START_S * 1000 + n},{100 + n},1\n" for n in range(20_000)))
    archive = GenericCsv()
    head = archive.scan(path, "X", DAY)
    sizes = [
        len(batch.tables["trades"]["price"]) for batch in archive.batches(path, "X", DAY, head, 4096) if batch.tables
    ]
    assert sum(sizes) == 20_000
    assert max(sizes) <= 4096 // 10
