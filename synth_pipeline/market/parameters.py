"""`Parameters`: every dial of the simulated market, in market units.

Here belong the numbers and what makes them admissible; what they do stands in the modules that read them. How orders
come is no dial: it was fitted on real captures and stands in `calibration.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal

from synth_pipeline.errors import InputError


@dataclass(frozen=True)
class Parameters:
    """A liquid linear perpetual: the market of the calibration, at this price, in these units, over this connection.

    Orders are as many ticks apart and as many lots large as they were there, whatever a tick and a lot are here.

    Raises `InputError` for a negative number, or zero where that makes no market.
    """

    tick_size: Decimal = Decimal("0.1")
    """Quote currency."""
    lot_size: Decimal = Decimal("0.001")
    """Base currency."""
    start_price: float = 60_000.0
    """Mid when the simulation starts to warm up, quote currency."""
    pace: float = 1.0
    """How much happens, relative to the mean hour of the calibration; the price's variance goes with it."""

    diff_interval_ms: int = 50
    """Depth changes are published on this clock."""
    publish_delay_ms: float = 0.6
    """Mean milliseconds (geometric) between an event and its publication: E - T."""
    latency_median_ms: float = 9.0
    """From publication to receipt; latencies are log-normal, messages of the connection arrive in the order sent."""
    latency_log_sd: float = 0.35
    """Standard deviation of the log latency."""
    snapshot_after_ms: int = 430
    """The depth snapshot shows the book this long after the start."""
    snapshot_latency_ms: int = 400
    """It takes this long to arrive, so that buffered changes overtake it."""
    snapshot_levels: int = 1000
    """Levels a side in the snapshot."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise InputError(f"{field.name} is {getattr(self, field.name)}: it must be zero or more")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be positive")


_POSITIVE = (
    "tick_size",
    "lot_size",
    "start_price",
    "pace",
    "diff_interval_ms",
    "latency_median_ms",
    "snapshot_levels",
)
