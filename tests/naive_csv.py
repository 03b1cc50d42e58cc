"""A window of a CSV file again, slow and obvious: every line is read, decimals and times are exact."""

import csv
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction

FACTORS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def window(text, start_ns, end_ns, *, time, unit, names, has_header, delimiter=","):
    """Return (ns, {name: Decimal}) of each row of the window in order of time, and the last row before it or None.

    Rows that cannot be read are left out, and so is a last line without line end.
    """
    lines = [line for line in text.removeprefix("\ufeff").split("\n")[:-1] if line.strip() and line[0] != "#"]
    found = []
    for line in lines[has_header:]:
        fields = [field.strip() for field in next(csv.reader([line.strip("\r")], delimiter=delimiter))]
        if len(fields) != len(names):
            continue
        row = dict(zip(names, fields, strict=True))
        try:
            found.append((moment(row[time], unit), {name: Decimal(row[name]) for name in names if name != time}))
        except (InvalidOperation, ValueError):
            continue
    before = [row for row in found if row[0] < start_ns]
    within = [row for row in found if start_ns <= row[0] < end_ns]
    return sorted(within, key=lambda row: row[0]), sorted(before, key=lambda row: row[0])[-1:]


def moment(text, unit):
    """Return the ns of a time; raise ValueError when there is a rest."""
    if unit == "iso":
        seconds, _, rest = text.partition(".")
        digits = rest[: next((at for at, mark in enumerate(rest) if not mark.isdigit()), len(rest))]
        at = datetime.fromisoformat(seconds + rest[len(digits) :])
        whole = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        return (whole.days * 86_400 + whole.seconds) * 10**9 + int(digits.ljust(9, "0"))
    ns = Fraction(text) * FACTORS[unit]
    if ns.denominator != 1:
        raise ValueError(text)
    return int(ns)
