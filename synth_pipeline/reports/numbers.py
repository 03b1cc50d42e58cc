"""Numbers as a reader wants them: three significant digits, a unit, a dash for what is absent."""

from __future__ import annotations

from math import floor, log10

MINUS, DASH = "−", "–"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` significant digits; a dash for None."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    places = digits - 1 - floor(log10(abs(value)))
    text = f"{value:.{digits - 1}e}" if places > 9 else f"{round(value, places):,.{max(places, 0)}f}"
    return text.replace("-", MINUS)


def quantity(value: float | None, unit: str) -> str:
    """Return a number in its unit: a `share` in percent, a `p` value with the precision it deserves."""
    if value is not None and unit == "p":
        return "< 0.001" if value < 0.001 else number(value, 2)
    if value is not None and unit == "share":
        return f"{number(100 * value)} %"
    return number(value)


def measured(value: float | None, unit: str) -> str:
    """Return a number with its unit behind it, as tables show metrics; a `share` in percent."""
    if value is None:
        return DASH
    if unit == "share":
        return percent(value) if 0 <= value <= 1 else f"{number(100 * value)} %"
    return f"{number(value)} {unit}".strip()


def severity(value: float | None, unit: str) -> str:
    """Return how severe an episode is; a number that is missing never ends."""
    if value is None:
        return "not seen to end"
    return quantity(value, unit) if unit == "share" else f"{value:,.0f} {unit}"


def interval(bounds: tuple[float, float] | None, unit: str = "") -> str:
    """Return two bounds as `low to high`; a dash for None."""
    return DASH if bounds is None else f"{quantity(bounds[0], unit)} to {quantity(bounds[1], unit)}"


def percent(share: float) -> str:
    """Return a share in percent that says 100 % only when nothing is missing, and 0 % only when nothing is there."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    value = min(max(100 * share, 0.01), 99.99)
    return f"{value:.2f} %" if value > 99 else f"{value:.3g} %"


def duration(seconds: float) -> tuple[float, str]:
    """Return how many seconds make a handy unit of time for a span, and its name."""
    for size, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return size, name
    return 1.0, "seconds"


def span(seconds: float) -> str:
    """Return a span of time in words."""
    size, name = duration(seconds)
    return f"{number(seconds / size)} {name}"
