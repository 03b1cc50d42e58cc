"""Times as people write them, into ns since the epoch, UTC.

Understood: epoch seconds, ms, µs and ns (told apart row by row by their size); ISO 8601 and its relatives with `/` or
`.`; `20240131`, `20240131 173000`; `31.01.2024`, `1/31/2024` (which comes first is decided by all rows together);
`31-Jan-2024`, `Jan 31, 2024`; each with or without a time of day, AM/PM and an offset. Without an offset the time is
UTC, or in the time zone that the caller names.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl

from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND

NO_TIME = np.iinfo(np.int64).min
"""Stands for a cell that is no time."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = (
    r"(?:(?:[T ,]\s*|\s+)(?P<H>\d{1,2})(?:[:.](?P<M>\d{2}))?(?:[:.](?P<S>\d{2}))?(?:[.,](?P<f>\d{1,9}))?)?"
    r"(?:[\s-]*(?P<p>[AaPp])\.?[Mm]\.?)?\s*(?P<z>[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$"
)
_YEAR_FIRST = r"^(?P<y>\d{4})[-/.](?P<a>\d{1,2})[-/.](?P<b>\d{1,2})" + _CLOCK
_YEAR_LAST = r"^(?P<a>\d{1,2})[-/.](?P<b>\d{1,2})[-/.](?P<y>\d{4}|\d{2})" + _CLOCK
_COMPACT = (
    r"^(?P<y>\d{4})(?P<a>\d{2})(?P<b>\d{2})"
    r"(?:[T ]?(?P<H>\d{2}):?(?P<M>\d{2}):?(?P<S>\d{2})?(?P<f>\d{3})?)?(?P<p>[AaPp])?(?P<z>[Zz])?$"
)
_EPOCH = r"^\d{9,19}(?:\.\d+)?$"
_EPOCH_UNITS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3))
"""Below this value a stamp counts that many ns: the years 1973 to 5138 in each unit do not overlap."""


def parse(cells: pl.Series, *, day_first: bool | None = None, timezone: str = "UTC") -> np.ndarray:
    """Return ns for each cell, `NO_TIME` where a cell is no time.

    `day_first` decides about 1/4/1999 where the cells do not. Raises `InputError` where neither does, or where the
    cells contradict each other, and for an unknown time zone.
    """
    text = _numeric_months(cells.fill_null("").str.strip_chars().str.strip_chars('"'))
    times = np.full(len(text), NO_TIME, dtype=np.int64)
    for pattern, order in ((_COMPACT, False), (_YEAR_FIRST, False), (_YEAR_LAST, None)):
        rows = np.flatnonzero((times == NO_TIME) & text.str.contains(pattern).to_numpy())
        if len(rows):
            fields = text.gather(rows).str.extract_groups(pattern).struct.unnest()
            day_leads = _day_first(fields, day_first) if order is None else order
            times[rows] = _from_fields(fields, day_leads, timezone)
    rows = np.flatnonzero((times == NO_TIME) & text.str.contains(_EPOCH).to_numpy())
    if len(rows):
        times[rows] = _from_epoch(text.gather(rows))
    return times


def looks_like_times(cells: pl.Series) -> bool:
    """Whether nearly all of some cells are times, whichever order day and month have."""
    if cells.is_empty():
        return False
    found = parse(cells, day_first=True) != NO_TIME
    found |= parse(cells, day_first=False) != NO_TIME
    return bool(found.mean() > 0.9)


def dates_only(cells: pl.Series) -> bool:
    """Whether no cell has a time of day."""
    return not cells.fill_null("").str.contains(r":|\d[T ]\d|^\d{9,}").any()


def _numeric_months(text: pl.Series) -> pl.Series:
    """Write `31-Jan-2024`, `31 January 2024` and `Jan 31, 2024` as 2024-01-31."""
    named = text.str.to_lowercase().str.contains(r"\d\W?(?:%s)|(?:%s)[a-z]*\W+\d" % (("|".join(_MONTHS),) * 2))
    if not named.any():
        return text
    name = f"({'|'.join(_MONTHS)})[a-z]*"
    frame = pl.DataFrame({"t": text, "low": text.str.to_lowercase()})
    low = pl.col("low")
    day = pl.coalesce(
        low.str.extract(rf"(\d{{1,2}})[-/. ]+{name}", 1), low.str.extract(rf"{name}\.? +(\d{{1,2}})\b", 2)
    )
    month = low.str.extract(name, 1).replace_strict(list(_MONTHS), [str(n) for n in range(1, 13)], default=None)
    year = pl.coalesce(low.str.extract(rf"{name}\.?[-/. ,]+(\d{{4}})\b", 2), low.str.extract(r"\d,? +(\d{4})\b", 1))
    rest = low.str.extract(r"\b\d{4}\b(.*)$", 1).fill_null("")
    whole = pl.concat_str(year, pl.lit("-"), month, pl.lit("-"), day, rest.str.to_uppercase())
    return frame.select(pl.coalesce(whole, pl.col("t"))).to_series()


def _day_first(fields: pl.DataFrame, given: bool | None) -> bool:
    first, second = (fields[name].cast(pl.Int64).to_numpy() > 12 for name in "ab")
    # One mistyped row must not decide against all others.
    shares = float(first.mean()), float(second.mean())
    if given is None and min(shares) > 0.01:
        raise InputError(
            f"{shares[0]:.0%} of the dates can only be day-first and {shares[1]:.0%} only month-first: "
            "the file mixes them, split it, or pass --dates day-first or month-first to quarantine the others"
        )
    if given is None and shares == (0.0, 0.0):
        sample = "/".join(fields[name][0] for name in "aby")
        raise InputError(
            f"dates such as {sample} may be day-first or month-first, and no row tells which: "
            "pass --dates day-first or --dates month-first"
        )
    return shares[0] > shares[1] if given is None else given


def _from_fields(fields: pl.DataFrame, day_first: bool, timezone: str) -> np.ndarray:
    number = {name: fields[name].cast(pl.Int64).fill_null(0).to_numpy() for name in "yabHMS"}
    month, day = (number["b"], number["a"]) if day_first else (number["a"], number["b"])
    year = np.where(number["y"] < 100, number["y"] + np.where(number["y"] < 70, 2000, 1900), number["y"])
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (year >= 1700) & (year < 2262)
    months = ((np.where(valid, year, 1970) - 1970) * 12 + np.where(valid, month, 1) - 1).astype("M8[M]")
    days = months.astype("M8[D]") + (day - 1)
    half = fields["p"].str.to_lowercase().fill_null("").to_numpy()
    hour = np.where(half == "", number["H"], number["H"] % 12 + 12 * (half == "p"))
    valid &= (days.astype("M8[M]") == months) & (hour <= 24) & (number["M"] < 60) & (number["S"] <= 60)
    fraction = fields["f"].fill_null("0").str.pad_end(9, "0").cast(pl.Int64).to_numpy()
    seconds = days.astype("M8[s]").astype(np.int64) + hour * 3600 + number["M"] * 60 + number["S"]
    local = seconds * NS_PER_SECOND + fraction
    zone = fields["z"].fill_null("")
    offset = _offset_ns(zone)
    times = np.where((zone == "").to_numpy(), _to_utc(local, timezone), local - offset)
    return np.where(valid, times, NO_TIME)


def _offset_ns(zone: pl.Series) -> np.ndarray:
    parts = zone.str.extract_groups(r"^([+-])(\d{2}):?(\d{2})?$").struct.unnest()
    hours, minutes = (parts[name].cast(pl.Int64).fill_null(0).to_numpy() for name in ("2", "3"))
    sign = np.where((parts["1"] == "-").fill_null(False).to_numpy(), -1, 1)
    return np.asarray(sign * (hours * 3600 + minutes * 60) * NS_PER_SECOND)


def _to_utc(local: np.ndarray, timezone: str) -> np.ndarray:
    """Turn local times into UTC; an hour that the clocks skip is no time, the first of a repeated one is taken."""
    if timezone == "UTC":
        return local
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(f"timezone {timezone!r} is not known: give an IANA name such as America/New_York") from error
    zoned = (
        pl.Series(local)
        .cast(pl.Datetime("ns"))
        .dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    )
    return zoned.dt.convert_time_zone("UTC").dt.epoch("ns").fill_null(NO_TIME).to_numpy()


def _from_epoch(text: pl.Series) -> np.ndarray:
    whole = text.str.extract(r"^(\d+)", 1).cast(pl.Int64, strict=False).fill_null(NO_TIME).to_numpy()
    fraction = text.str.extract(r"\.(\d{1,9})", 1).fill_null("0").str.pad_end(9, "0").cast(pl.Int64).to_numpy()
    unit = np.ones(len(whole), dtype=np.int64)
    for limit, ns in reversed(_EPOCH_UNITS):
        unit[whole < limit] = ns
    return np.where(whole == NO_TIME, NO_TIME, whole * unit + fraction * unit // NS_PER_SECOND)
