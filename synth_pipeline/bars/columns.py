"""Which column is what: the names that people give to time, open, high, low, close, volume, turnover and trades."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from synth_pipeline.errors import InputError

ALIASES: dict[str, tuple[str, ...]] = {
    "time": (
        *("open time", "opentime", "open timestamp", "timestamp", "datetime", "date time", "unix", "unix timestamp"),
        *("unix time", "epoch", "ts", "start time", "starttime", "start", "candle begin time", "gmt time", "date"),
        *("date utc", "time utc", "timestamp utc", "datetime utc", "timestamp ms", "local time", "trade date"),
        *("tradedate", "dt", "day", "time", "t", "period", "index", "price", "unnamed 0", "index level 0", ""),
    ),
    "close time": ("close time", "closetime", "close timestamp", "end time", "end", "time close", "period end"),
    "open": ("open", "o", "open price", "openprice", "opening price", "first", "px open"),
    "high": ("high", "h", "high price", "highprice", "max", "px high", "hi"),
    "low": ("low", "l", "low price", "lowprice", "min", "px low", "lo"),
    "close": ("close", "c", "close price", "closeprice", "closing price", "close last", "last", "px last", "price"),
    "volume": ("volume", "vol", "v", "base volume", "volume base", "real volume", "shares", "volume traded", "qty"),
    "turnover": (
        *("turnover", "quote volume", "quote asset volume", "volume quote", "quotevolume", "quote vol", "amount"),
        *("volume currency", "dollar volume", "notional", "value", "taker quote volume"),
    ),
    "trade_count": (
        *("trade count", "tradecount", "trades", "count", "number of trades", "num trades", "n trades", "no of trades"),
        *("numberoftrades", "trades count", "transactions", "n"),
    ),
    "symbol": ("symbol", "ticker", "pair", "name", "code", "instrument", "sym"),
}
"""Names as `plain_name` writes them, the most telling first; a name may stand under several roles."""
ADJUSTED = ("adj close", "adjclose", "adjusted close", "close adj")
NEEDED = ("open", "high", "low", "close")
_OPTIONAL = ("volume", "turnover", "trade_count")
_TICK_VOLUME = ("tickvol", "tick volume", "tick vol")
_MONEY = {"usd", "usdt", "usdc", "busd", "tusd", "dai", "eur", "gbp", "jpy", "krw", "try", "chf", "currency", "quote"}
BINANCE = ("time", "open", "high", "low", "close", "volume", "close time", "turnover", "trade_count", "", "", "")
"""Order of a kline file of twelve columns without header."""


def plain_name(name: str) -> str:
    """Return a column name in small words: `<OPEN>`, `1. open`, `Volume_(BTC)` → `open`, `open`, `volume btc`."""
    words = re.sub(r"^\s*\d+\.\s*", "", name).lower()
    return re.sub(r"[^a-z0-9]+", " ", words).strip()


def is_header(cells: Sequence[str]) -> bool:
    """Whether some cells are names of columns: none is a number, and enough are names that we know or could be."""
    names = [plain_name(cell) for cell in cells]
    if len(cells) < len(NEEDED) or any(re.fullmatch(r"[+-]?[\d.,]+", cell.strip()) for cell in cells if cell.strip()):
        return False
    known = {name for alias in ALIASES.values() for name in alias if name}
    return sum(name in known or _by_word(name) is not None for name in names) >= 2 or all(
        re.match(r"[A-Za-z_<]", cell) for cell in cells
    )


def _by_word(name: str) -> str | None:
    """The role that exactly one word of a longer name tells: `btcusd close`, `open usd`."""
    found = {role for word in name.split() for role in (*NEEDED, "volume") if word == role}
    return found.pop() if len(found) == 1 and name not in ADJUSTED else None


def roles_of(names: Sequence[str], given: Mapping[str, str], source: str) -> dict[str, list[int]]:
    """Return the columns of each role, the most telling first; `given` names some outright, by name or number from 1.

    Raises `InputError` when a price has no column or two, or a given column does not exist.
    """
    plain = [plain_name(name) for name in names]
    roles = {role: _ranked(plain, aliases) for role, aliases in ALIASES.items()}
    _share_volumes(plain, roles)
    for role in NEEDED:
        roles[role] = roles[role] or [at for at, name in enumerate(plain) if _by_word(name) == role]
    if plain.count("price") and len(roles["close"]) > 1:
        roles["close"] = [at for at in roles["close"] if plain[at] != "price"]
    for role, column in given.items():
        roles[role] = [_given(names, role, column, source)]
    for role in NEEDED:
        if len(roles[role]) != 1:
            what = "no column" if not roles[role] else "two columns"
            raise InputError(
                f"{source} has {what} for {role} among {', '.join(names)}: name it with --columns {role}=COLUMN"
            )
    return roles


def _ranked(plain: Sequence[str], aliases: Sequence[str]) -> list[int]:
    return sorted((at for at, name in enumerate(plain) if name in aliases), key=lambda at: aliases.index(plain[at]))


def _share_volumes(plain: Sequence[str], roles: dict[str, list[int]]) -> None:
    """Tell size from value among columns such as `Volume BTC` and `Volume USDT`; ticks count when nothing else does."""
    for at, name in enumerate(plain):
        words = name.split()
        if len(words) > 1 and words[0] in {"volume", "vol"} and at not in roles["turnover"] + roles["volume"]:
            roles["turnover" if _MONEY & set(words[1:]) else "volume"].append(at)
    if not roles["volume"]:
        roles["volume"] = [at for at, name in enumerate(plain) if name in _TICK_VOLUME]


def _given(names: Sequence[str], role: str, column: str, source: str) -> int:
    if role not in {"time", "close time", "symbol", *NEEDED, *_OPTIONAL}:
        raise InputError(f"--columns {role}={column}: a bar has no {role}; roles are time, {', '.join(NEEDED)}, volume")
    if column in names:
        return names.index(column)
    if column.isdigit() and 1 <= int(column) <= len(names):
        return int(column) - 1
    raise InputError(f"--columns {role}={column}: {source} has the columns {', '.join(names)}")
