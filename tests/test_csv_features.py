"""Features straight from CSV files: equal to the grid of the same ticks, tiling, and honest about what files lack."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from synth_pipeline import schema
from synth_pipeline.cli import app
from synth_pipeline.errors import InputError
from synth_pipeline.features.grid import grid_features
from synth_pipeline.rng import stream
from synth_pipeline.schema import GridFlag, Scale
from synth_pipeline.stages import csv_features as module
from synth_pipeline.stages.csv_features import CsvFile, csv_features
from tests.tick_tables import depth_table, quotes_table, trades_table

START_S = 1_704_067_200
START_NS = START_S * 10**9
STEP_NS = 500_000_000
UNITS = Scale(Decimal("1e-8"), Decimal("1e-8"))
RUN = CliRunner()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """Ten minutes of quotes and trades as the article's CSV files, and as tick tables in units of 1e-8."""
    rng, folder = stream(3, "csv", "features"), tmp_path_factory.mktemp("csv")
    at = START_S * 10**6 + np.sort(rng.integers(0, 600 * 10**6, 4000))
    at = at[(at < START_S * 10**6 + 200 * 10**6) | (at > START_S * 10**6 + 290 * 10**6)]  # a minute and a half is lost
    count = at.size
    bid, ask = 420_000 + rng.integers(-9, 0, count), 420_000 + rng.integers(1, 9, count)
    sizes = rng.integers(1, 5000, (2, count))
    empty = rng.random(count) < 0.02
    pl.DataFrame(
        {
            "timestamp": at,
            "bid_price": [
                None if none else value / 10 for value, none in zip(bid.tolist(), empty.tolist(), strict=True)
            ],
            "ask_price": ask / 10,
            "bid_volume": sizes[0] / 1000,
            "ask_volume": sizes[1] / 1000,
        }
    ).write_csv(folder / "depth.csv")
    traded = np.sort(rng.choice(at, 500)) + 7
    price, size, side = rng.choice(bid, 500), rng.integers(1, 900, 500), rng.choice([-1, 1], 500)
    names = np.where(side > 0, "buy", "sell")
    pl.DataFrame({"side": names, "volume": size / 1000, "price": price / 10, "timestamp": traded}).write_csv(
        folder / "trades.csv"
    )
    quotes = zip(
        at * 1000,
        np.where(empty, 0, bid * 10**7),
        np.where(empty, 0, sizes[0] * 10**5),
        ask * 10**7,
        sizes[1] * 10**5,
        strict=True,
    )
    trades = zip(traded * 1000, price * 10**7, size * 10**5, side, strict=True)
    lost = int(np.argmax(np.diff(at)))
    ticks = {
        "quotes": quotes_table(*quotes),
        "trades": trades_table(*trades),
        "gaps": [("all", int(at[lost]) * 1000, int(at[lost + 1]) * 1000)],
        "coverage": [(int(at[0]) * 1000, int(at[-1]) * 1000 + 1)],
    }
    return folder / "depth.csv", folder / "trades.csv", ticks


def whole_grid(ticks: dict[str, Any]) -> dict[str, np.ndarray]:
    window = {"step_ns": STEP_NS, "start_ns": START_NS, "end_ns": START_NS + 600 * 10**9}
    return grid_features(
        ticks["quotes"], ticks["trades"], depth_table(), ticks["gaps"], ticks["coverage"], UNITS, **window
    )


def assert_rows(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], start: int, end: int) -> None:
    begins = expected["label_ns"] - STEP_NS
    within = (begins >= start) & (begins < end)
    for name in schema.GRID.names:
        np.testing.assert_array_equal(found[name], expected[name][within], err_msg=name)


moments = st.one_of(st.integers(-10, 620).map(lambda s: s * 10**9), st.integers(-(10**10), 620 * 10**9))


@given(edges=st.tuples(moments, moments).map(sorted), piece_s=st.sampled_from([97, 250, 3600]))
@settings(max_examples=40)
def test_any_window_has_the_rows_of_one_pass(
    market: tuple[Path, Path, dict[str, Any]], edges: list[int], piece_s: int
) -> None:
    depth, trades, ticks = market
    start, end = START_NS + edges[0], START_NS + edges[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE_NS", piece_s * 10**9)
        found = csv_features(CsvFile(depth), CsvFile(trades), start, end, step_ns=STEP_NS)
    assert_rows(found.columns, whole_grid(ticks), start, end)


def test_what_was_read_is_told(market: tuple[Path, Path, dict[str, Any]]) -> None:
    depth, trades, ticks = market
    found = csv_features(CsvFile(depth), CsvFile(trades), START_NS, START_NS + 600 * 10**9, step_ns=STEP_NS)
    assert found.trades is not None
    assert (found.quotes.rows, found.trades.rows) == (len(ticks["quotes"]["recv_ns"]), 500)
    assert found.quotes.slice_bytes == depth.stat().st_size - len(depth.read_bytes().split(b"\n")[0]) - 1
    facts = found.quotes.facts()
    assert (facts["rejected"], facts["unsorted"], facts["unfinished_bytes"]) == ({}, 0, 0)


def test_without_trades_their_features_are_unknown(market: tuple[Path, Path, dict[str, Any]]) -> None:
    depth, _, ticks = market
    found = csv_features(CsvFile(depth), None, START_NS, START_NS + 100 * 10**9, step_ns=STEP_NS)
    assert found.trades is None
    assert all(np.isnan(found.columns[name]).all() for name in ("vwap", "volume", "signed_volume", "trade_count"))
    assert ((found.columns["flags"] & GridFlag.GAP) > 0).all()
    np.testing.assert_array_equal(found.columns["mid"], whole_grid(ticks)["mid"][:200])


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, ""]))
    return path


def window(quotes: Path, trades: Path | None = None, seconds: int = 5, **said: Any) -> module.CsvFeatures:
    others = None if trades is None else CsvFile(trades)
    return csv_features(CsvFile(quotes, **said), others, START_NS, START_NS + seconds * 10**9, step_ns=10**9)


def test_prices_alone_are_enough_for_mid_and_spread(tmp_path: Path) -> None:
    found = window(write(tmp_path / "q.csv", "ts,ask,bid", f"{START_S},101,100", f"{START_S + 3},103,101")).columns
    assert found["mid"].tolist()[:3] == [100.5, 100.5, 100.5]
    assert found["spread"].tolist()[:3] == [1, 1, 1]
    assert all(np.isnan(found[name]).all() for name in ("microprice", "imbalance_1", "ofi"))


@pytest.mark.parametrize(
    ("header", "buy", "sell"),
    [
        ("side", "BUY", "Sell"),
        ("side", "b", "s"),
        ("isBuyerMaker", "false", "true"),
        ("is_buyer_maker", "False", "True"),
        ("taker_side", "1", "-1"),
    ],
)
def test_sides_are_read_from_any_usual_word(tmp_path: Path, header: str, buy: str, sell: str) -> None:
    quotes = write(tmp_path / "q.csv", "time,bid_price,ask_price", f"{START_S},100,101", f"{START_S + 4},100,101")
    trades = write(
        tmp_path / "t.csv", f"time,price,qty,{header}", f"{START_S + 1},101,2,{buy}", f"{START_S + 1},100,0.5,{sell}"
    )
    found = window(quotes, trades).columns
    assert (found["volume"][1], found["signed_volume"][1], found["vwap"][1]) == (2.5, 1.5, 100.8)
    assert (found["volume"][2], math.isnan(found["vwap"][2])) == (0, True)


def test_rows_that_cannot_be_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = ["101,100,1,1", "101,102,-1,1", "100,101,1,1", "102,103,1,1"]  # bid, ask, sizes
    rows = [f"{START_S + i},{line}" for i, line in enumerate(lines)]
    quotes = write(tmp_path / "q.csv", "time,bid_price,ask_price,bid_size,ask_size", *rows)
    trades = write(tmp_path / "t.csv", "time,price,size", f"{START_S},100,0", f"{START_S + 2},100,3")
    found = window(quotes, trades)
    assert found.trades is not None
    assert found.quotes.rejected == {"crossed_quote": 1, "not_positive": 1}
    assert found.trades.rejected == {"not_positive": 1}
    np.testing.assert_array_equal(found.columns["mid"], [math.nan, math.nan, 100.5, math.nan])
    carried = csv_features(CsvFile(quotes), None, START_NS + 3 * 10**9, START_NS + 4 * 10**9, step_ns=10**9)
    assert carried.quotes.rejected == {}


def test_a_rejected_quote_is_not_carried_in(tmp_path: Path) -> None:
    rows = [f"{START_S},100,101", f"{START_S + 1},105,101", f"{START_S + 3},100,103"]
    quotes = write(tmp_path / "q.csv", "time,bid,ask", *rows)
    found = csv_features(CsvFile(quotes), None, START_NS + 2 * 10**9, START_NS + 3 * 10**9, step_ns=10**9)
    assert found.columns["mid"].tolist() == [100.5]


def test_trades_that_reach_no_further_than_a_minute_into_the_quotes_are_a_gap(tmp_path: Path) -> None:
    quotes = write(tmp_path / "q.csv", "time,bid,ask", *(f"{START_S + i},100,101" for i in range(200)))
    trades = write(tmp_path / "t.csv", "time,price,size", f"{START_S + 30},100,1", f"{START_S + 100},100,1")
    volume = window(quotes, trades, seconds=199).columns["volume"]
    assert np.flatnonzero(volume == 1).tolist() == [30]
    assert not np.isnan(volume[:100]).any()
    assert np.isnan(volume[100:]).all()  # from the last trade on nothing is known


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("time,bid_price,offer", "not clear"),
        ("time,bid_price,last", "the ask_price is not clear (none)"),
        ("time,bid_price,bid_px,ask_price", ""),
        ("time,bidpx,bid,ask_price", "'bidpx' or 'bid'"),
        ("time,bid_price,ask_price,bid_size", "size for one side only"),
    ],
)
def test_columns_that_are_not_clear_are_named(tmp_path: Path, header: str, words: str) -> None:
    values = ",".join("1234"[: header.count(",")])
    quotes = write(tmp_path / "q.csv", header, f"{START_S},{values}")
    if not words or header.endswith("offer"):
        assert len(window(quotes).columns["label_ns"]) == 1  # the exact name goes first; an offer is an ask
        return
    with pytest.raises(InputError) as refusal:
        window(quotes)
    assert words in str(refusal.value)


def test_columns_can_be_named(tmp_path: Path) -> None:
    quotes = write(tmp_path / "q.csv", f"7,{START_S},100,101", f"8,{START_S + 1},100,101")
    found = window(quotes, columns=("number", "time", "bid_price", "ask_price"))
    assert found.columns["mid"][0] == 100.5


def test_the_best_of_several_levels_is_taken(tmp_path: Path) -> None:
    names = "time,bids[0].price,bids[0].amount,asks[0].price,asks[0].amount,bids[1].price,asks[1].price"
    found = window(write(tmp_path / "q.csv", names, *(f"{START_S + i},100,3,101,1,99,102" for i in range(3))))
    assert (found.columns["mid"][0], found.columns["imbalance_1"][0]) == (100.5, 0.5)


def test_decimals_are_what_is_asked_for(tmp_path: Path) -> None:
    rows = [f"{START_S},0.0000012345,0.0000012346", f"{START_S + 1},0.0000012345,0.0000012347"]
    quotes = write(tmp_path / "q.csv", "time,bid,ask", *rows)
    with pytest.raises(InputError, match="too_many_decimals"):
        window(quotes)
    found = csv_features(CsvFile(quotes), None, START_NS, START_NS + 10**9, step_ns=10**9, decimals=10)
    assert found.columns["mid"].tolist() == [0.00000123455]


# --- the command


def run(*words: object) -> Any:
    return RUN.invoke(app, ["features", *map(str, words)], catch_exceptions=True)


def test_the_command_prints_all_rows_as_json(market: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    depth, trades, ticks = market
    words = (depth, "--trades", trades, "--start", "2024-01-01T00:00:10", "--end", "2024-01-01T00:00:40")
    document = json.loads(run(*words, "--json").stdout)
    expected = whole_grid(ticks)
    assert document["rows"] == len(document["features"]["label_ns"]) == 60
    assert document["features"]["mid"] == [None if math.isnan(mid) else mid for mid in expected["mid"][20:80].tolist()]
    assert document["quotes"]["rows"] > 0
    done = json.loads(run(*words, "--json", "--out", tmp_path / "rows.parquet").stdout)
    assert (done["rows"], "features" in done) == (60, False)
    np.testing.assert_array_equal(pl.read_parquet(tmp_path / "rows.parquet")["mid"], expected["mid"][20:80])
    coarse = json.loads(run(*words, "--json", "--step", 10).stdout)
    assert coarse["features"]["label_ns"] == [START_NS + s * 10**9 for s in (20, 30, 40)]
    assert "60 rows" in run(*words).stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--start", "2024-01-01"], "both --start and --end"),
        (["2024-01-01", "--start", "2024-01-01", "--end", "2024-01-02"], "give one of the two"),
        (["--start", "yesterday", "--end", "2024-01-02"], "neither ISO 8601"),
        (["--start", "1900-01-01", "--end", "2024-01-02"], "is not in the years 1970 to 2261"),
        (["--start", "2024-01-02", "--end", "2024-01-01"], "check start, end and step"),
        (["--start", "2024-01-01", "--end", "2024-01-02", "--step", "0"], "step of 0.0 seconds"),
        (["--start", "2024-01-01", "--end", "2024-01-02", "--step", "1e300"], "step of 1e+300 seconds"),
        (["--start", "2024-01-01", "--end", "2024-01-02", "--unit", "h"], "unknown unit 'h'"),
        (["--start", "2024-01-01", "--end", "2024-01-02", "--out", "rows.csv"], "does not end in .parquet"),
        (["--start", "2024-01-01", "--end", "2024-01-02", "--out", "/none/x.parquet"], "x.parquet cannot be written"),
    ],
)
def test_wrong_words_are_told(market: tuple[Path, Path, dict[str, Any]], options: list[str], words: str) -> None:
    done = run(market[0], *options)
    assert isinstance(done.exception, InputError)
    assert words in str(done.exception)


def test_a_file_that_is_missing_is_not_taken_for_an_instrument(tmp_path: Path) -> None:
    done = run("missing.csv", "--start", "2024-01-01", "--end", "2024-01-02")
    assert "missing.csv cannot be opened" in str(done.exception)


def _noisy(path: Path, market: tuple[Path, Path, dict[str, Any]], change: str) -> Path:
    """The quotes again, their prices changed by a formula."""
    frame = pl.read_csv(market[0]).with_columns(pl.sql_expr(change))
    frame.write_csv(path)
    return path


def test_the_noise_of_a_float_is_no_decimal(tmp_path: Path, market: tuple[Path, Path, dict[str, Any]]) -> None:
    # 4.2 / 0.0001 and the like: what a program writes that computed its prices.
    path = _noisy(tmp_path / "noisy.csv", market, "(ask_price / 3 * 7 / 7 * 3) as ask_price")
    texts = pl.read_csv(path, infer_schema_length=0)["ask_price"].str.len_chars()
    assert (texts > 12).sum() > 100
    window = {"step_ns": STEP_NS, "decimals": 4}
    found = csv_features(CsvFile(path), None, START_NS, START_NS + 60 * 10**9, **window)
    plain = csv_features(CsvFile(market[0]), None, START_NS, START_NS + 60 * 10**9, **window)
    assert found.quotes.rejected == {}
    for name, column in plain.columns.items():
        np.testing.assert_array_equal(found.columns[name], column, err_msg=name)


def test_numbers_without_a_grid_are_rounded_on_request_only(
    tmp_path: Path, market: tuple[Path, Path, dict[str, Any]]
) -> None:
    path = _noisy(
        tmp_path / "finer.csv",
        market,
        "case when timestamp % 2 = 0 then bid_volume * 0.7364518273645182 else bid_volume end as bid_volume",
    )
    window = {"step_ns": STEP_NS, "decimals": 6}
    with pytest.raises(InputError, match="more than 6 decimals: round them with --nearest"):
        csv_features(CsvFile(path), None, START_NS, START_NS + 60 * 10**9, **window)
    found = csv_features(CsvFile(path), None, START_NS, START_NS + 60 * 10**9, **window, nearest=True)
    plain = csv_features(CsvFile(market[0]), None, START_NS, START_NS + 60 * 10**9, **window)
    np.testing.assert_array_equal(found.columns["mid"], plain.columns["mid"])
    rows = pl.read_csv(path)["bid_volume"]
    assert found.quotes.rows == plain.quotes.rows > 100
    assert np.isfinite(found.columns["imbalance_1"]).any()
    assert rows.round(6).ne(rows).sum() > 100
    words = ["--start", "2024-01-01T00:00:00", "--end", "2024-01-01T00:01:00", "--decimals", "6"]
    done = RUN.invoke(app, ["features", str(path), *words, "--nearest", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["known_mid"] > 0
