"""Bars out of a CSV or Parquet file of unknown shape; how each doubt is decided.

Delimiter, header, decimal mark, order of day and month: by what all rows show, and refused with the option that settles
it where they show nothing. A stamp is the bar's open unless `closing` says otherwise: the file itself cannot
tell. A date without time is that day at 00:00 UTC; a time without zone is UTC unless `timezone` names another. Columns
that are no part of a bar (`Adj Close`, indicators) are named and left out. A file without times becomes bars only when
the caller gives the timeframe and the first bar's time.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from synth_pipeline.bars import columns as naming
from synth_pipeline.bars import dates
from synth_pipeline.bars.checks import SIZES, Bad, Bars, Sound, assemble, sound
from synth_pipeline.bars.dates import NO_TIME
from synth_pipeline.bars.resampling import resample
from synth_pipeline.bars.sniffing import Sheet, decode, sheet
from synth_pipeline.bars.timeframe import Timeframe, infer
from synth_pipeline.bars.values import Numbers, decimal_mark, numbers
from synth_pipeline.errors import InputError, NoDataError

_PARQUET = b"PAR1"
_SAMPLE = 500
_CLOCK = r"^\d{1,2}:\d{2}(?::\d{2})?|^\d{1,6}$"
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Options:
    """What a person knows about a file that the file does not say."""

    timeframe: Timeframe | None = None
    """Length of the bars to store; finer bars in the file are put together."""
    start_ns: int | None = None
    """Time of the first bar of a file without times."""
    closing: bool = False
    """Times are those of the bars' close."""
    day_first: bool | None = None
    decimal: str | None = None
    """`.` or `,`; None: decided by the file."""
    timezone: str = "UTC"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column by role, by name or number from 1."""
    symbol: str | None = None
    """Which one, in a file of several."""


def read(data: bytes, name: str, options: Options) -> tuple[Bars, dict[str, Any]]:
    """Return the bars of a file and what was decided about it. Raises `InputError` where only a person can decide."""
    table = _parquet(data, name) if data.startswith(_PARQUET) else sheet(decode(data), name)
    names = table.names or _positions(table)
    roles = naming.roles_of(names, options.columns, name)
    table = _only_symbol(table, roles, options.symbol, name)
    times, time_names, closing = _times(table, names, roles, options)
    used = {role: roles[role][0] for role in (*naming.NEEDED, *SIZES) if roles[role]}
    rows = _sound(table, used, times if times is not None else _index(table, options, name), options)
    _refuse_nonsense(rows, table, name, names, used)
    bars = _assembled(rows, options, closing=closing or options.closing, timed=times is not None)
    named = {role: names[at] for role, at in used.items()} | ({"time": " + ".join(time_names)} if time_names else {})
    decided = {
        "columns": named,
        "ignored_columns": [name for name in names if name and name not in {*named.values(), *time_names}],
        "time": "index" if times is None else ("close" if closing or options.closing else "open"),
    }
    return bars, decided


def _parquet(data: bytes, name: str) -> Sheet:
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{name} is a damaged Parquet file ({error}): fetch it again") from error
    if frame.is_empty():
        raise NoDataError(f"{name} holds no rows: check the file")
    seq = np.arange(1, len(frame) + 1)
    return Sheet(frame.columns, frame.get_columns(), seq, lambda at: ",".join(map(str, frame.row(at))).encode())


def _positions(table: Sheet) -> list[str]:
    """Name the columns of a file without header by their order: [date [time]] open high low close [volume]."""
    count = len(table.columns)
    if count == len(naming.BINANCE) and dates.looks_like_times(table.columns[6].head(_SAMPLE)):
        return list(naming.BINANCE)
    texts = [at for at, cells in enumerate(table.columns) if _is_label(cells.head(_SAMPLE))]
    rest = [at for at in range(count) if at not in texts]
    times = rest[: _leading_times(table, rest)]
    values = [at for at in rest if at not in times]
    names = [""] * count
    for at in texts:
        names[at] = "symbol"
    for at, name in zip(times, ("date", "time") if len(times) > 1 else ("time",), strict=False):
        names[at] = name
    for at, name in zip(values, (*naming.NEEDED, "volume"), strict=False):
        names[at] = name
    return names


def _is_label(cells: pl.Series) -> bool:
    return bool(cells.str.contains(r"^[A-Za-z]").all()) and not dates.looks_like_times(cells)


def _leading_times(table: Sheet, rest: list[int]) -> int:
    if not rest or not dates.looks_like_times(table.columns[rest[0]].head(_SAMPLE)):
        return 0
    first, second = (table.columns[at].head(_SAMPLE) for at in rest[:2])
    return 2 if dates.dates_only(first) and second.str.contains(r"^\d{1,2}:\d{2}").all() else 1


def _only_symbol(table: Sheet, roles: Mapping[str, list[int]], wanted: str | None, name: str) -> Sheet:
    """Keep one symbol's rows of a file of several."""
    if not roles["symbol"]:
        return table
    cells = table.columns[roles["symbol"][0]].cast(pl.String)
    held = sorted(cells.drop_nulls().unique().to_list())
    if len(held) < 2 or len(held) > len(cells) // 2:
        return table
    if wanted not in held:
        shown = ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
        raise InputError(f"{name} holds bars of {shown}: pass the one you mean with --symbol")
    rows = np.flatnonzero((cells == wanted).to_numpy())
    columns = [column.gather(rows) for column in table.columns]
    return Sheet(table.names, columns, table.seq[rows], lambda at: table.payload(int(rows[at])), table.ragged)


def _times(
    table: Sheet, names: list[str], roles: Mapping[str, list[int]], options: Options
) -> tuple[np.ndarray | None, list[str], bool]:
    """Return the times, the columns that they come from, and whether these are the closes; None when there are none."""
    closing = not any(_is_time(table.columns[at]) for at in roles["time"])
    candidates = [at for at in (roles["close time"] if closing else roles["time"]) if _is_time(table.columns[at])]
    if not candidates:
        return None, [], False
    best = candidates[0]
    cells = table.columns[best]
    clock = next((at for at in roles["time"] if at != best and _is_clock(names[at], table.columns[at])), None)
    if clock is None or cells.dtype != pl.String or not dates.dates_only(cells.head(_SAMPLE)):
        return _to_ns(cells, options), [names[best]], closing
    whole = cells + " " + _clock_text(table.columns[clock])
    return _to_ns(whole, options), [names[best], names[clock]], closing


def _is_clock(name: str, cells: pl.Series) -> bool:
    """Whether a column holds the time of day that belongs to a date in another."""
    return naming.plain_name(name) == "time" and cells.dtype == pl.String and bool(cells.str.contains(_CLOCK).all())


def _clock_text(cells: pl.Series) -> pl.Series:
    """Write 9:30, 93000 and 0 as 09:30, 09:30:00 and 00:00."""
    text = cells.str.replace(r"^0$", "0:00").str.replace(r"^(\d{1,2})(\d{2})(\d{2})$", "$1:$2:$3")
    return text.str.replace(r"^(\d{1,2})(\d{2})$", "$1:$2").str.replace(r"^(\d):", "0$1:")


def _is_time(cells: pl.Series) -> bool:
    if cells.dtype.is_temporal():
        return True
    if not (cells.dtype == pl.String or cells.dtype.is_integer()):
        return False
    return dates.looks_like_times(cells.cast(pl.String).drop_nulls().head(_SAMPLE))


def _to_ns(cells: pl.Series, options: Options) -> np.ndarray:
    if cells.dtype == pl.Date:
        cells = cells.cast(pl.Datetime("ns"))
    if isinstance(cells.dtype, pl.Datetime):
        if cells.dtype.time_zone is None and options.timezone != "UTC":
            return dates.parse(cells.dt.strftime("%Y-%m-%d %H:%M:%S%.9f"), timezone=options.timezone)
        return cells.dt.epoch("ns").fill_null(NO_TIME).to_numpy()
    return dates.parse(cells.cast(pl.String), day_first=options.day_first, timezone=options.timezone)


def _index(table: Sheet, options: Options, name: str) -> np.ndarray:
    """Number the bars of a file without times from a given start."""
    if options.timeframe is None or options.start_ns is None:
        raise InputError(
            f"{name} has no column of times: pass --timeframe and --start to number its bars from there, such as "
            "--timeframe 1d --start 2004-08-19, or --columns time=COLUMN"
        )
    opens = [options.start_ns]
    if options.timeframe.fixed:
        return options.start_ns + np.arange(len(table.seq)) * options.timeframe.ns
    while len(opens) < len(table.seq):
        opens.append(int(options.timeframe.after(np.array(opens[-1:]))[0]))
    return np.array(opens)


def _sound(table: Sheet, used: Mapping[str, int], times: np.ndarray, options: Options) -> Sound:
    texts = [table.columns[at] for at in used.values() if table.columns[at].dtype == pl.String]
    mark: str = options.decimal or (decimal_mark(pl.concat(texts).fill_null("")) if texts else ".")
    cells = {role: _numbers(table.columns[at], mark) for role, at in used.items()}
    rows = sound(times, cells, table.seq, table.payload)
    for line, text in table.ragged:
        rows.bad.append(Bad(0, line, "bars", "bad_fields", "another number of fields than the other lines", text))
    return rows


def _numbers(cells: pl.Series, mark: str) -> Numbers:
    if cells.dtype == pl.String:
        return numbers(cells, mark)
    if cells.dtype.is_decimal():
        return numbers(cells.cast(pl.String))
    values = cells.cast(pl.Float64).fill_null(np.nan).to_numpy()
    missing = np.isnan(values)
    return Numbers(values, missing, np.isinf(values), 0)


def _refuse_nonsense(rows: Sound, table: Sheet, name: str, names: list[str], used: Mapping[str, int]) -> None:
    total = len(table.seq) + len(table.ragged)
    if 2 * len(rows.bad) <= total:
        return
    reasons = sorted({bad.reason for bad in rows.bad})
    read = ", ".join(f"{role} from {names[at] or f'column {at + 1}'}" for role, at in used.items())
    example = rows.bad[0]
    raise InputError(
        f"{name}: {len(rows.bad)} of {total} rows are no bars ({', '.join(reasons)}; line {example.seq}: "
        f"{example.payload[:80].decode(errors='replace')!r}), reading {read}: name others with --columns ROLE=COLUMN"
    )


def _assembled(rows: Sound, options: Options, *, closing: bool, timed: bool) -> Bars:
    """Put the rows into order at the file's own timeframe, then into the one that was asked for."""
    opens = np.unique(rows.columns["open_ns"])
    own = _own_timeframe(opens, options.timeframe) if timed else options.timeframe
    assert own is not None
    if closing:
        # Klines close 1 ms (or less) before the next ones open.
        stamps = rows.columns["open_ns"]
        stamps = np.where((stamps + NS_PER_MS) % (1000 * NS_PER_MS) == 0, stamps + NS_PER_MS, stamps)
        rows.columns["open_ns"] = _opens_of(stamps, own)
    bars = assemble(rows, own)
    return bars if options.timeframe in (None, own) else resample(bars, options.timeframe)


def _opens_of(closes: np.ndarray, timeframe: Timeframe) -> np.ndarray:
    if timeframe.fixed:
        return closes - timeframe.ns
    months = closes.astype("M8[ns]").astype("M8[M]")
    into = closes - months.astype("M8[ns]").astype(np.int64)
    return np.asarray((months - timeframe.count).astype("M8[ns]").astype(np.int64) + into)


def _own_timeframe(opens: np.ndarray, asked: Timeframe | None) -> Timeframe:
    """Return how long the file's bars are; sparse bars may be shorter than their usual distance."""
    if asked is None:
        return infer(opens)
    if len(opens) < 2:
        return asked
    found = infer(opens)
    if found == asked or found.divides(asked):
        return found
    if asked.fixed and asked.ns < found.ns and (np.diff(opens) % asked.ns == 0).all():
        return asked
    raise InputError(f"the file's bars are {found} apart, which makes no bars of {asked}: choose a multiple of {found}")
